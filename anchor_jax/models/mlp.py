"""A multi-layer perceptron on flattened inputs."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn


class MLP(nn.Module):
    """Dense layers with ReLU: inputs `[B, ..., C]` -> float32 logits `[B, num_classes]`.

    Attributes:
      num_classes: number of logits.
      hidden: width of each hidden layer.
      dtype: what activations are computed in; parameters and logits are float32.
      axis_name: taken for the sake of one interface; there are no statistics over the batch.
    """

    num_classes: int
    hidden: Sequence[int] = (512, 512)
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        """Logits; `train` changes nothing here."""
        del train
        x = inputs.reshape(len(inputs), -1).astype(self.dtype)
        for width in self.hidden:
            x = nn.relu(nn.Dense(width, dtype=self.dtype)(x))
        return nn.Dense(self.num_classes, dtype=jnp.float32)(x)
