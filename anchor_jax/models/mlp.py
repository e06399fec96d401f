"""Multi-layer perceptron on flattened inputs."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from anchor_jax.models.layers import Classifier


class MLP(Classifier):
    """A multi-layer perceptron with ReLU. `train` and `remat` have no effect.

    Attributes:
      hidden: width of each hidden layer.
    """

    hidden: Sequence[int] = (512, 512)

    def setup(self) -> None:
        """Create all layers."""
        self.layers = [nn.Dense(width, dtype=self.dtype, name=f"Dense_{i}") for i, width in enumerate(self.hidden)]
        self.head = nn.Dense(self.num_classes, dtype=jnp.float32, name=f"Dense_{len(self.hidden)}")

    def first_layer(self, inputs: jax.Array) -> jax.Array:
        """Apply the first dense layer: `[B, ..., C]` -> `[B, width]`."""
        return self.layers[0](inputs.reshape(inputs.shape[0], -1).astype(self.dtype))

    def features(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Return the last hidden layer: outputs of the first layer `[B, width]` -> float32 `[B, features]`."""
        del train
        for layer in self.layers[1:]:
            x = layer(nn.relu(x))
        return nn.relu(x).astype(jnp.float32)
