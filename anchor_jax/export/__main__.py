"""`python -m anchor_jax.export` runs the command `anchor-jax export`."""

import importlib

if __name__ == "__main__":
    importlib.import_module("anchor_jax.cli.export").run()  # by name, since no module below `cli` may import it
