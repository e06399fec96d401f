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

    def setup(self) -> None:
        """All layers; the first stands alone for the sake of `SplitModel`."""
        hidden = [nn.Dense(width, dtype=self.dtype, name=f"Dense_{i}") for i, width in enumerate(self.hidden)]
        head = nn.Dense(self.num_classes, dtype=jnp.float32, name=f"Dense_{len(hidden)}")
        self.layers = [*hidden, head]

    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        """Logits; `train` changes nothing here."""
        return self.rest(self.first_layer(inputs), train)

    def first_layer(self, inputs: jax.Array) -> jax.Array:
        """The first dense layer, linear in the inputs but for its bias: `[B, ..., C]` -> `[B, width]`."""
        return self.layers[0](inputs.reshape(len(inputs), -1).astype(self.dtype))

    def rest(self, x: jax.Array, train: bool = False) -> jax.Array:
        """All that follows the first layer: `[B, width]` -> logits."""
        return self.layers[-1](self.features(x, train))

    def features(self, x: jax.Array, train: bool = False) -> jax.Array:
        """What the last layer sees: `[B, width]`, from the first layer, -> float32 `[B, features]`."""
        del train
        for layer in self.layers[1:-1]:
            x = layer(nn.relu(x))
        return nn.relu(x).astype(jnp.float32)
