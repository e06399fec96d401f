"""Wide ResNet: Zagoruyko & Komodakis 2016, *Wide Residual Networks*, arXiv 1605.07146."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from anchor_jax.core.errors import UserError
from anchor_jax.models.layers import (
    Classifier,
    ConvLayer,
    DropLayer,
    Dropout,
    NormLayer,
    batch_norm,
    conv,
    global_average_pool,
    maybe_remat,
    torch_kernel_init,
)
from anchor_jax.runtime.backends import materialize


class PreActivationBlock(nn.Module):
    """BatchNorm and ReLU before each of two 3×3 convolutions, dropout before the second, with a shortcut.

    If the number of channels changes, the shortcut is a 1×1 convolution of the first activation.
    """

    width: int
    stride: int
    conv: ConvLayer
    norm: NormLayer
    drop: DropLayer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` -> `[B, H/stride, W/stride, width]`."""
        x = materialize(x)
        activation = materialize(nn.relu(self.norm(name="bn1")(x)))
        y = self.conv(self.width, 3, self.stride, name="conv1")(activation)
        y = materialize(self.drop(name="drop")(nn.relu(self.norm(name="bn2")(y))))
        y = self.conv(self.width, 3, name="conv2")(y)
        if x.shape[-1] != self.width:
            x = self.conv(self.width, 1, self.stride, name="shortcut_conv")(activation)
        return x + y


class WideResNet(Classifier):
    """A Wide ResNet as in the released code (`CIFAR/utils/models/wideresnet.py`); the defaults are WRN-40-2.

    Attributes:
      depth: number of layers with weights, 6n + 4 for n blocks per stage.
      widen: widening factor k; the three stages have 16k, 32k and 64k channels.
      dropout_rate: rate of `Dropout` between the convolutions of each block; 0.3 by default in the released code.
    """

    depth: int = 40
    widen: int = 2
    dropout_rate: float = 0.0

    @property
    def blocks_per_stage(self) -> int:
        """Number of blocks in each of the three stages."""
        if self.depth < 10 or (self.depth - 4) % 6:
            raise UserError(f"depth of a Wide ResNet must be 10, 16, 22, 28, 34, 40, ...; got {self.depth}")
        return (self.depth - 4) // 6

    def setup(self) -> None:
        """Create the first and the last layer."""
        self.stem_conv = conv(16, 3, dtype=self.dtype)
        self.head = nn.Dense(self.num_classes, dtype=jnp.float32, kernel_init=torch_kernel_init)

    def first_layer(self, inputs: jax.Array) -> jax.Array:
        """Apply the convolution of the stem: `[B, H, W, C]` -> `[B, H, W, 16]`."""
        return self.stem_conv(inputs.astype(self.dtype))

    @nn.compact
    def features(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply all blocks: outputs of the first layer `[B, H, W, 16]` -> float32 `[B, features]`."""
        block_class = maybe_remat(PreActivationBlock, self.remat and train)
        conv_layer = partial(conv, dtype=self.dtype)
        norm = batch_norm(self.dtype, self.axis_name, self.bn_devices, train)
        drop = partial(Dropout, self.dropout_rate, self.axis_name)
        for stage in range(3):
            width = 16 * self.widen * 2**stage
            for block in range(self.blocks_per_stage):
                stride = 2 if stage > 0 and block == 0 else 1
                x = block_class(width, stride, conv_layer, norm, drop, name=f"stage{stage + 1}_block{block + 1}")(x)
        return global_average_pool(nn.relu(norm(name="bn")(x)))
