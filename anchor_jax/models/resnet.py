"""ResNet (He et al. 2016, arXiv 1512.03385) with the stem of CIFAR or of ImageNet.

With the stem of CIFAR (3×3, no max-pool) it is the released code's (`CIFAR/utils/models/resnet.py`), with that of
ImageNet torchvision's, version 1.5: bottlenecks have their stride in the 3×3 convolution.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from anchor_jax.models.layers import (
    ChannelDropout,
    Classifier,
    batch_norm,
    conv,
    global_mean,
    he_kernel_init,
    maybe_remat,
    residual_shortcut,
    torch_bias_init,
    torch_kernel_init,
)
from anchor_jax.runtime.backends import materialize

ONE_EACH_SIDE: Any = ((1, 1), (1, 1))  # Flax declares a str, and takes pairs too
CIFAR, IMAGENET = "cifar", "imagenet"
STEM_SIZES = {3: CIFAR, 7: IMAGENET}  # side of the first kernel -> stem


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut, projected by a 1×1 convolution where the shape changes."""

    width: int
    stride: int
    conv: Callable[..., nn.Conv]
    norm: Callable[..., nn.BatchNorm]
    drop: Callable[..., nn.Module]

    expansion = 1  # of the width, in what comes out

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
    """Convolutions 1×1, 3×3 and 1×1, the last four times as wide, and a shortcut as in `BasicBlock`."""

    width: int
    stride: int
    conv: Callable[..., nn.Conv]
    norm: Callable[..., nn.BatchNorm]
    drop: Callable[..., nn.Module]

    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` -> `[B, H/stride, W/stride, 4·width]`."""
        x = materialize(x)
        y = self.conv(self.width, 1, name="conv1")(x)
        y = materialize(nn.relu(self.norm(name="bn1")(y)))
        y = self.conv(self.width, 3, self.stride, name="conv2")(y)
        y = materialize(self.drop(name="drop")(nn.relu(self.norm(name="bn2")(y))))
        y = self.conv(4 * self.width, 1, name="conv3")(y)
        y = self.norm(name="bn3")(y)
        return nn.relu(residual_shortcut(x, y.shape[-1], self.stride, self.conv, self.norm) + y)


BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}


class ResNet(Classifier):
    """A ResNet, see `Classifier`; of 18 layers by default.

    With the stem of CIFAR it is initialised as PyTorch does by default, which is what the released code trains from;
    with that of ImageNet as torchvision does, by He et al. 2015.

    Attributes:
      stage_sizes: blocks in each stage; every stage but the first halves the image and doubles the width.
      block: "basic" or "bottleneck".
      width: channels of the stem, and of the 3×3 convolutions in the first stage.
      stem: "cifar", one 3×3 convolution, or "imagenet", a 7×7 one and a max-pool, each of which halves the image.
      dropout_rate: of channels before the last convolution of each block, see `ChannelDropout`.
    """

    stage_sizes: Sequence[int] = (2, 2, 2, 2)
    block: Literal["basic", "bottleneck"] = "basic"
    width: int = 64
    stem: Literal["cifar", "imagenet"] = CIFAR
    dropout_rate: float = 0.0

    def setup(self) -> None:
        """The first and the last layer, which stand alone."""
        self.stem_conv = self._conv(self.width, *((3, 1) if self.stem == CIFAR else (7, 2)))
        features = self.width * 2 ** (len(self.stage_sizes) - 1) * BLOCKS[self.block].expansion
        self.head = nn.Dense(
            self.num_classes,
            dtype=jnp.float32,
            kernel_init=torch_kernel_init,
            bias_init=torch_bias_init(features),
        )

    def first_layer(self, inputs: jax.Array) -> jax.Array:
        """The convolution of the stem: `[B, H, W, C]` -> `[B, H, W, width]`, of half the size for "imagenet"."""
        return self.stem_conv(inputs.astype(self.dtype))

    @nn.compact
    def features(self, x: jax.Array, train: bool = False) -> jax.Array:
        """What the head sees: `[B, H, W, width]`, from the first layer, -> float32 `[B, features]`."""
        block_class = maybe_remat(BLOCKS[self.block], self.remat and train)
        norm = batch_norm(self.dtype, self.axis_name, train)
        drop = partial(ChannelDropout, self.dropout_rate, self.axis_name)
        x = nn.relu(norm(name="stem_bn")(x))
        if self.stem == IMAGENET:
            x = nn.max_pool(x, (3, 3), (2, 2), padding=ONE_EACH_SIDE)
        for stage, num_blocks in enumerate(self.stage_sizes):
            for block in range(num_blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"stage{stage + 1}_block{block + 1}"
                x = block_class(self.width * 2**stage, stride, self._conv, norm, drop, name=name)(x)
        return global_mean(x)

    @property
    def _conv(self) -> Callable[..., nn.Conv]:
        return partial(conv, dtype=self.dtype, kernel_init=torch_kernel_init if self.stem == CIFAR else he_kernel_init)
