"""Wide ResNet (Zagoruyko & Komodakis 2016, arXiv 1605.07146), as in the released code (`CIFAR/utils/models`)."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from anchor_jax.core.errors import UserError
from anchor_jax.models.layers import Classifier, batch_norm, conv, global_mean, maybe_remat, torch_kernel_init
from anchor_jax.runtime.backends import materialize


class PreActivationBlock(nn.Module):
    """BatchNorm and ReLU before each of two 3×3 convolutions, and a shortcut that they pass by.

    Where the shape changes, the shortcut is a 1×1 convolution of what the first ReLU gives.
    """

    width: int
    stride: int
    conv: Callable[..., nn.Conv]
    norm: Callable[..., nn.BatchNorm]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` -> `[B, H/stride, W/stride, width]`."""
        x = materialize(x)
        activated = materialize(nn.relu(self.norm(name="bn1")(x)))
        y = self.conv(self.width, 3, self.stride, name="conv1")(activated)
        y = materialize(nn.relu(self.norm(name="bn2")(y)))
        y = self.conv(self.width, 3, name="conv2")(y)
        if x.shape[-1] != self.width:
            x = self.conv(self.width, 1, self.stride, name="shortcut_conv")(activated)
        return x + y


class WideResNet(Classifier):
    """A Wide ResNet, see `Classifier`; WRN-40-2 by default.

    Attributes:
      depth: layers with weights, 6 times a number and 4 more.
      widen: how many times as wide as 16, 32 and 64 channels the three stages are.
    """

    depth: int = 40
    widen: int = 2

    @property
    def blocks_per_stage(self) -> int:
        """How many blocks each of the three stages has."""
        if self.depth < 10 or (self.depth - 4) % 6:
            raise UserError(f"depth of a Wide ResNet must be 10, 16, 22, 28, 34, 40, ...; got {self.depth}")
        return (self.depth - 4) // 6

    def setup(self) -> None:
        """The first and the last layer, which stand alone."""
        self.stem_conv = conv(16, 3, dtype=self.dtype)
        self.head = nn.Dense(self.num_classes, dtype=jnp.float32, kernel_init=torch_kernel_init)

    def first_layer(self, inputs: jax.Array) -> jax.Array:
        """The convolution of the stem: `[B, H, W, C]` -> `[B, H, W, 16]`."""
        return self.stem_conv(inputs.astype(self.dtype))

    @nn.compact
    def features(self, x: jax.Array, train: bool = False) -> jax.Array:
        """What the head sees: `[B, H, W, 16]`, from the first layer, -> float32 `[B, features]`."""
        block_class = maybe_remat(PreActivationBlock, self.remat and train)
        norm = batch_norm(self.dtype, self.axis_name, train)
        for stage in range(3):
            for block in range(self.blocks_per_stage):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"stage{stage + 1}_block{block + 1}"
                width = 16 * self.widen * 2**stage
                x = block_class(width, stride, partial(conv, dtype=self.dtype), norm, name=name)(x)
        return global_mean(nn.relu(norm(name="bn")(x)))
