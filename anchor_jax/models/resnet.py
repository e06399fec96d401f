"""ResNet: He et al. 2016, *Deep Residual Learning for Image Recognition*, arXiv 1512.03385."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from anchor_jax.models.layers import (
    ChannelDropout,
    Classifier,
    ConvLayer,
    DropLayer,
    NormLayer,
    batch_norm,
    conv,
    global_average_pool,
    he_kernel_init,
    maybe_remat,
    residual_shortcut,
    torch_bias_init,
    torch_kernel_init,
)
from anchor_jax.runtime.backends import materialize

_PAD_BY_ONE: Any = ((1, 1), (1, 1))  # Flax annotates the padding of pooling as a str, but also accepts pairs


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with a shortcut."""

    width: int
    stride: int
    conv: ConvLayer
    norm: NormLayer
    drop: DropLayer

    expansion = 1  # output channels / width

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` -> `[B, H/stride, W/stride, width]`."""
        x = materialize(x)
        y = self.conv(self.width, 3, self.stride, name="conv1")(x)
        y = materialize(self.drop(name="drop")(nn.relu(self.norm(name="bn1")(y))))
        y = self.conv(self.width, 3, name="conv2")(y)
        y = self.norm(name="bn2")(y)
        return nn.relu(residual_shortcut(x, y.shape[-1], self.stride, self.conv, self.norm) + y)


class Bottleneck(nn.Module):
    """Convolutions of 1×1, 3×3 and 1×1 with a shortcut; the last one is four times as wide.

    The stride is in the 3×3 convolution, as in version 1.5 of torchvision's ResNet.
    """

    width: int
    stride: int
    conv: ConvLayer
    norm: NormLayer
    drop: DropLayer

    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` -> `[B, H/stride, W/stride, 4·width]`."""
        x = materialize(x)
        y = self.conv(self.width, 1, name="conv1")(x)
        y = materialize(nn.relu(self.norm(name="bn1")(y)))
        y = self.conv(self.width, 3, self.stride, name="conv2")(y)
        y = materialize(self.drop(name="drop")(nn.relu(self.norm(name="bn2")(y))))
        y = self.conv(self.expansion * self.width, 1, name="conv3")(y)
        y = self.norm(name="bn3")(y)
        return nn.relu(residual_shortcut(x, y.shape[-1], self.stride, self.conv, self.norm) + y)


BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}


class ResNet(Classifier):
    """A ResNet; the defaults are ResNet-18 for CIFAR.

    The CIFAR stem follows the released code (`CIFAR/utils/models/resnet.py`) and is initialized by PyTorch's defaults,
    as there. The ImageNet stem follows torchvision and is initialized as in He et al. 2015.

    Attributes:
      stage_sizes: number of blocks per stage; each stage after the first halves the resolution and doubles the width.
      block: "basic" or "bottleneck".
      width: channels of the stem and of the 3×3 convolutions in the first stage.
      stem: "cifar", a 3×3 convolution, or "imagenet", a 7×7 convolution and a max-pool, both of stride 2.
      dropout_rate: rate of `ChannelDropout` before the last convolution of each block.
    """

    stage_sizes: Sequence[int] = (2, 2, 2, 2)
    block: Literal["basic", "bottleneck"] = "basic"
    width: int = 64
    stem: Literal["cifar", "imagenet"] = "cifar"
    dropout_rate: float = 0.0

    def setup(self) -> None:
        """Create the first and the last layer."""
        kernel_size, stride = (3, 1) if self.stem == "cifar" else (7, 2)
        self.stem_conv = self._conv(self.width, kernel_size, stride)
        features = self.width * 2 ** (len(self.stage_sizes) - 1) * BLOCKS[self.block].expansion
        self.head = nn.Dense(
            self.num_classes,
            dtype=jnp.float32,
            kernel_init=torch_kernel_init,
            bias_init=torch_bias_init(features),
        )

    def first_layer(self, inputs: jax.Array) -> jax.Array:
        """Apply the convolution of the stem: `[B, H, W, C]` -> `[B, H, W, width]`; half the size for "imagenet"."""
        return self.stem_conv(inputs.astype(self.dtype))

    @nn.compact
    def features(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply all blocks: outputs of the first layer `[B, H, W, width]` -> float32 `[B, features]`."""
        block_class = maybe_remat(BLOCKS[self.block], self.remat and train)
        norm = batch_norm(self.dtype, self.axis_name, self.bn_devices, train)
        drop = partial(ChannelDropout, self.dropout_rate, self.axis_name)
        x = nn.relu(norm(name="stem_bn")(x))
        if self.stem == "imagenet":
            x = nn.max_pool(x, (3, 3), (2, 2), padding=_PAD_BY_ONE)
        for stage, num_blocks in enumerate(self.stage_sizes):
            for block in range(num_blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"stage{stage + 1}_block{block + 1}"
                x = block_class(self.width * 2**stage, stride, self._conv, norm, drop, name=name)(x)
        return global_average_pool(x)

    @property
    def _conv(self) -> ConvLayer:
        kernel_init = torch_kernel_init if self.stem == "cifar" else he_kernel_init
        return partial(conv, dtype=self.dtype, kernel_init=kernel_init)
