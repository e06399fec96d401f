"""The CIFAR ResNet of the released code: 3×3 stem, no max-pool (`CIFAR/utils/models/resnet.py`).

He et al. 2016 (arXiv 1512.03385), basic blocks. Convolutions and the head are initialised as PyTorch
does, which is what the released code trains from.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from anchor_jax.backends import computed_once

# PyTorch's default for convolutions and linear layers, kaiming_uniform(a=√5): U(±1/√fan_in)
torch_kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut, projected by a 1×1 convolution where the shape changes."""

    features: int
    stride: int
    dtype: jnp.dtype
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """`[B, H, W, C]` -> `[B, H/stride, W/stride, features]`."""
        conv, norm = partial(_conv, self.features, dtype=self.dtype), _norm(self.dtype, self.axis_name, train)
        stride = (self.stride, self.stride)
        x = computed_once(x)
        y = conv((3, 3), stride, name="conv1")(x)
        y = computed_once(nn.relu(norm(name="bn1")(y)))
        y = conv((3, 3), name="conv2")(y)
        y = norm(name="bn2")(y)
        if x.shape != y.shape:
            x = conv((1, 1), stride, name="shortcut_conv")(x)
            x = norm(name="shortcut_bn")(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """A CIFAR ResNet of basic blocks: inputs `[B, H, W, C]` -> float32 logits `[B, num_classes]`.

    Attributes:
      num_classes: number of logits.
      stage_sizes: blocks in each stage; every stage but the first halves the image and doubles the width.
      width: channels of the stem and the first stage.
      dtype: what activations are computed in; parameters, statistics and logits are float32.
      axis_name: mapped axis over which BatchNorm takes its statistics in training.
    """

    num_classes: int
    stage_sizes: Sequence[int]
    width: int = 64
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def setup(self) -> None:
        """The first and the last layer, which stand alone for the sake of `SplitModel` and of probes."""
        self.stem_conv = _conv(self.width, (3, 3), dtype=self.dtype)
        bound = (self.width * 2 ** (len(self.stage_sizes) - 1)) ** -0.5
        self.head = nn.Dense(
            self.num_classes,
            dtype=jnp.float32,
            kernel_init=torch_kernel_init,
            bias_init=lambda *args: jax.random.uniform(*args, minval=-bound, maxval=bound),
        )

    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        """Logits; `train` normalises by the batch and updates the running statistics."""
        return self.rest(self.first_layer(inputs), train)

    def first_layer(self, inputs: jax.Array) -> jax.Array:
        """The convolution of the stem, linear in the inputs: `[B, H, W, C]` -> `[B, H, W, width]`."""
        return self.stem_conv(inputs.astype(self.dtype))

    def rest(self, x: jax.Array, train: bool = False) -> jax.Array:
        """All that follows the first layer: `[B, H, W, width]` -> logits."""
        return self.head(self.features(x, train))

    @nn.compact
    def features(self, x: jax.Array, train: bool = False) -> jax.Array:
        """What the head sees: `[B, H, W, width]`, from the first layer, -> float32 `[B, features]`."""
        norm = _norm(self.dtype, self.axis_name, train)
        x = nn.relu(norm(name="stem_bn")(x))
        for stage, num_blocks in enumerate(self.stage_sizes):
            for block in range(num_blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                x = BasicBlock(
                    self.width * 2**stage,
                    stride,
                    self.dtype,
                    self.axis_name,
                    name=f"stage{stage + 1}_block{block + 1}",
                )(x, train)
        return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)


def _conv(features, kernel_size, strides=(1, 1), *, dtype, name=None):
    return nn.Conv(
        features,
        kernel_size,
        strides,
        padding=kernel_size[0] // 2,
        use_bias=False,
        dtype=dtype,
        kernel_init=torch_kernel_init,
        name=name,
    )


def _norm(dtype, axis_name, train):
    # momentum 0.9 here is PyTorch's 0.1
    return partial(
        nn.BatchNorm,
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        dtype=dtype,
        axis_name=axis_name,
    )
