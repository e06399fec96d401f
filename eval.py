"""Evaluate a run: the same as `anchor-jax evaluate`."""

from anchor_jax.cli import evaluate

if __name__ == "__main__":
    evaluate.run()
