"""`python -m anchor_jax` runs the command `anchor-jax`."""

from anchor_jax.cli.main import main

if __name__ == "__main__":
    main()
