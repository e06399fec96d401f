"""RegNetY: Radosavovic et al. 2020, *Designing Network Design Spaces*, arXiv 2003.13678."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from anchor_jax.core.errors import UserError
from anchor_jax.models.layers import (
    Classifier,
    ConvLayer,
    NormLayer,
    batch_norm,
    conv,
    global_average_pool,
    maybe_remat,
    residual_shortcut,
)
from anchor_jax.runtime.backends import materialize


class YBlock(nn.Module):
    """Convolutions of 1×1, grouped 3×3 and 1×1 with a shortcut; squeeze-and-excitation before the last one."""

    width: int
    stride: int
    group_width: int
    conv: ConvLayer
    norm: NormLayer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` -> `[B, H/stride, W/stride, width]`."""
        x = materialize(x)
        y = self.conv(self.width, 1, name="conv1")(x)
        y = materialize(nn.relu(self.norm(name="bn1")(y)))
        y = self.conv(self.width, 3, self.stride, groups=self.width // self.group_width, name="conv2")(y)
        y = materialize(nn.relu(self.norm(name="bn2")(y)))
        y = y * self._channel_weights(y, round(x.shape[-1] / 4))
        y = self.conv(self.width, 1, name="conv3")(y)
        y = self.norm(name="bn3")(y)
        return nn.relu(residual_shortcut(x, y.shape[-1], self.stride, self.conv, self.norm) + y)

    def _channel_weights(self, y: jax.Array, squeezed_width: int) -> jax.Array:
        """Return squeeze-and-excitation weights in (0, 1), `[B, 1, 1, C]` (Hu et al. 2018, arXiv 1709.01507)."""
        pooled = global_average_pool(y)[:, None, None].astype(y.dtype)
        squeezed = nn.relu(self.conv(squeezed_width, 1, use_bias=True, name="squeeze")(pooled))
        return nn.sigmoid(self.conv(y.shape[-1], 1, use_bias=True, name="excite")(squeezed))


class RegNetY(Classifier):
    """A RegNetY as in torchvision; the defaults are RegNetY-800MF.

    Attributes:
      stage_sizes: number of blocks per stage; the stem and each stage halve the resolution.
      widths: channels of each stage, multiples of `group_width`.
      group_width: channels per group of the 3×3 convolutions.
      stem_width: channels of the stem.
    """

    stage_sizes: Sequence[int] = (1, 3, 8, 2)
    widths: Sequence[int] = (64, 144, 320, 784)
    group_width: int = 16
    stem_width: int = 32

    def setup(self) -> None:
        """Create the first and the last layer."""
        if len(self.widths) != len(self.stage_sizes) or any(width % self.group_width for width in self.widths):
            raise UserError(
                f"widths of a RegNetY must be {len(self.stage_sizes)} multiples of group_width={self.group_width}; "
                f"got {self.widths}"
            )
        self.stem_conv = conv(self.stem_width, 3, 2, dtype=self.dtype)
        self.head = nn.Dense(self.num_classes, dtype=jnp.float32, kernel_init=nn.initializers.normal(0.01))

    def first_layer(self, inputs: jax.Array) -> jax.Array:
        """Apply the convolution of the stem: `[B, H, W, C]` -> `[B, H/2, W/2, stem_width]`."""
        return self.stem_conv(inputs.astype(self.dtype))

    @nn.compact
    def features(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply all blocks: outputs of the first layer `[B, H/2, W/2, stem_width]` -> float32 `[B, features]`."""
        block_class = maybe_remat(YBlock, self.remat and train)
        conv_layer = partial(conv, dtype=self.dtype)
        norm = batch_norm(self.dtype, self.axis_name, self.bn_devices, train)
        x = nn.relu(norm(name="stem_bn")(x))
        for stage, (num_blocks, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True)):
            for block in range(num_blocks):
                stride = 2 if block == 0 else 1
                name = f"stage{stage + 1}_block{block + 1}"
                x = block_class(width, stride, self.group_width, conv_layer, norm, name=name)(x)
        return global_average_pool(x)
