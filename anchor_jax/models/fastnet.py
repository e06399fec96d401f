"""A shallow, wide convolutional network that fits CIFAR in a few epochs.

Source: the network of the CIFAR-10 speed runs, Jordan 2024, *94% on CIFAR-10 in 3.29 Seconds on a Single GPU*, arXiv
2404.00498. Here the first layer is trained, also if it starts from whitening patches (`anchor_jax.models.whitening`),
and GELU is its tanh approximation.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from anchor_jax.models.layers import (
    ChannelDropout,
    Classifier,
    batch_norm,
    conv,
    image_size_error,
    max_pool,
    maybe_remat,
    torch_kernel_init,
)
from anchor_jax.runtime.mesh import AxisName

STEM_SIZE = 2  # pixels, height and width of the first layer's filters

_MIN_SIDE = 9  # pixels
_FEATURE_SCALE = 1 / 9  # keeps the first logits small, as in the paper


class ConvGroup(nn.Module):
    """Two 3×3 convolutions, each followed by BatchNorm and GELU, with a 2×2 max-pool after the first.

    Attributes:
      width: channels of both convolutions.
      dropout_rate: of `ChannelDropout` before the second one.
      dtype: of the activations.
      axis_name: see `Classifier`.
      bn_devices: see `Classifier`.
    """

    width: int
    dropout_rate: float
    dtype: DTypeLike
    axis_name: AxisName | None
    bn_devices: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """`[B, H, W, C]` -> `[B, ⌊H/2⌋, ⌊W/2⌋, width]`."""
        norm = batch_norm(self.dtype, self.axis_name, self.bn_devices, train)
        x = conv(self.width, 3, dtype=self.dtype, kernel_init=identity_kernel_init, name="conv1")(x)
        x = nn.gelu(norm(name="bn1")(max_pool(x, 2)))
        x = ChannelDropout(self.dropout_rate, self.axis_name)(x)
        x = conv(self.width, 3, dtype=self.dtype, kernel_init=identity_kernel_init, name="conv2")(x)
        return nn.gelu(norm(name="bn2")(x))


class FastNet(Classifier):
    """A 2×2 convolution, three groups of two 3×3 convolutions, a global max-pool and a linear head.

    Images must have at least 9 pixels per side, so that one pixel is left after three 2×2 max-pools.

    Attributes:
      width: channels of the first group; the second and third have `4 * width`.
      stem_width: channels of the 2×2 convolution.
      dropout_rate: rate of `ChannelDropout` before the second convolution of each group.
    """

    width: int = 64
    stem_width: int = 24
    dropout_rate: float = 0.0

    def setup(self) -> None:
        """Create the first and the last layer."""
        self.stem_conv = nn.Conv(
            self.stem_width, (STEM_SIZE, STEM_SIZE), padding="VALID", dtype=self.dtype, kernel_init=torch_kernel_init
        )
        self.head = nn.Dense(self.num_classes, dtype=jnp.float32, kernel_init=torch_kernel_init)

    def first_layer(self, inputs: jax.Array) -> jax.Array:
        """Apply the 2×2 convolution: `[B, H, W, C]` -> `[B, H - 1, W - 1, stem_width]`."""
        if min(inputs.shape[1:3]) < _MIN_SIDE:
            raise image_size_error(inputs, f"at least {_MIN_SIDE} for FastNet", "choose another model")
        return self.stem_conv(inputs.astype(self.dtype))

    @nn.compact
    def features(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply all groups: outputs of the first layer -> float32 `[B, 4 * width]`."""
        group_class = maybe_remat(ConvGroup, self.remat and train, static_argnums=(2,))
        x = nn.gelu(x)
        for index, width in enumerate((self.width, 4 * self.width, 4 * self.width)):
            options = (width, self.dropout_rate, self.dtype, self.axis_name, self.bn_devices)
            x = group_class(*options, name=f"block{index + 1}")(x, train)
        return _FEATURE_SCALE * jnp.max(x, axis=(1, 2)).astype(jnp.float32)


def identity_kernel_init(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Initialize a convolution to copy its inputs to its first outputs; the others are drawn as PyTorch does.

    Args:
      key: PRNG key.
      shape: `(height, width, inputs, outputs)`, with odd height and width.
      dtype: of the kernel.
    """
    height, width, inputs, outputs = shape
    num_copied = min(inputs, outputs)
    drawn = torch_kernel_init(key, shape, dtype)[..., num_copied:]
    copying = jnp.zeros((*shape[:3], num_copied), dtype)
    copying = copying.at[height // 2, width // 2].set(jnp.eye(inputs, num_copied, dtype=dtype))
    return jnp.concatenate([copying, drawn], axis=-1)
