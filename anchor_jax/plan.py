"""`python -m anchor_jax.plan` runs the command `anchor-jax plan`."""

from anchor_jax.cli.plan import run

if __name__ == "__main__":
    run()
