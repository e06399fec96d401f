"""`python -m anchor_jax.push` runs the command `anchor-jax push`."""

from anchor_jax.cli.push import run

if __name__ == "__main__":
    run()
