"""`python -m anchor_jax.export`: the same as `anchor-jax export`."""

import runpy

runpy.run_module("anchor_jax.cli.export", run_name="__main__", alter_sys=True)
