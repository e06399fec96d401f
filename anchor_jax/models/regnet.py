"""RegNetY (Radosavovic et al. 2020, arXiv 2003.13678), as torchvision has it."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from anchor_jax.core.errors import UserError
from anchor_jax.models.layers import Classifier, batch_norm, conv, global_mean, maybe_remat, residual_shortcut
from anchor_jax.runtime.backends import materialize


class Block(nn.Module):
    """Convolutions 1×1, 3×3 in groups and 1×1, squeeze-and-excitation before the last, and a shortcut."""

    width: int
    stride: int
    group_width: int
    conv: Callable[..., nn.Conv]
    norm: Callable[..., nn.BatchNorm]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` -> `[B, H/stride, W/stride, width]`."""
        x = materialize(x)
        y = self.conv(self.width, 1, name="conv1")(x)
        y = materialize(nn.relu(self.norm(name="bn1")(y)))
        y = self.conv(self.width, 3, self.stride, groups=self.width // self.group_width, name="conv2")(y)
        y = materialize(nn.relu(self.norm(name="bn2")(y)))
        y = y * self._excitation(y, round(x.shape[-1] / 4))
        y = self.conv(self.width, 1, name="conv3")(y)
        y = self.norm(name="bn3")(y)
        return nn.relu(residual_shortcut(x, y.shape[-1], self.stride, self.conv, self.norm) + y)

    def _excitation(self, y, squeezed):
        """A weight in (0, 1) for each channel, from the mean of all (Hu et al. 2018, arXiv 1709.01507)."""
        mean = global_mean(y)[:, None, None].astype(y.dtype)
        hidden = nn.relu(self.conv(squeezed, 1, use_bias=True, name="squeeze")(mean))
        return nn.sigmoid(self.conv(y.shape[-1], 1, use_bias=True, name="excite")(hidden))


class RegNetY(Classifier):
    """A RegNetY, see `Classifier`; the one of 800 MF by default.

    Attributes:
      stage_sizes: blocks in each stage; each stage halves the image, as the stem does.
      widths: channels of each stage, multiples of `group_width`.
      group_width: channels in a group of the 3×3 convolutions.
      stem_width: channels of the stem.
    """

    stage_sizes: Sequence[int] = (1, 3, 8, 2)
    widths: Sequence[int] = (64, 144, 320, 784)
    group_width: int = 16
    stem_width: int = 32

    def setup(self) -> None:
        """The first and the last layer, which stand alone."""
        if len(self.widths) != len(self.stage_sizes) or any(width % self.group_width for width in self.widths):
            raise UserError(
                f"widths of a RegNetY must be {len(self.stage_sizes)} multiples of its group_width {self.group_width}; "
                f"got {self.widths}"
            )
        self.stem_conv = conv(self.stem_width, 3, 2, dtype=self.dtype)
        self.head = nn.Dense(self.num_classes, dtype=jnp.float32, kernel_init=nn.initializers.normal(0.01))

    def first_layer(self, inputs: jax.Array) -> jax.Array:
        """The convolution of the stem: `[B, H, W, C]` -> `[B, H/2, W/2, stem_width]`."""
        return self.stem_conv(inputs.astype(self.dtype))

    @nn.compact
    def features(self, x: jax.Array, train: bool = False) -> jax.Array:
        """What the head sees: `[B, H/2, W/2, stem_width]`, from the first layer, -> float32 `[B, features]`."""
        block_class = maybe_remat(Block, self.remat and train)
        norm = batch_norm(self.dtype, self.axis_name, train)
        x = nn.relu(norm(name="stem_bn")(x))
        for stage, (num_blocks, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True)):
            for block in range(num_blocks):
                name = f"stage{stage + 1}_block{block + 1}"
                stride = 1 if block else 2
                x = block_class(width, stride, self.group_width, partial(conv, dtype=self.dtype), norm, name=name)(x)
        return global_mean(x)
