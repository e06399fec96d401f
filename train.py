"""Train a network: the same as `anchor-jax train`."""

from anchor_jax.cli import train

if __name__ == "__main__":
    train.run()
