"""Base class and layers shared by the model families."""

from collections.abc import Callable, Iterator
from functools import partial, reduce
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from anchor_jax.core import modes
from anchor_jax.core.errors import UserError
from anchor_jax.runtime.backends import gelu, grouped_convolution
from anchor_jax.runtime.mesh import AxisName, local_shard

ConvLayer = Callable[..., nn.Conv]  # `conv` with its dtype and initializer set
NormLayer = Callable[..., nn.BatchNorm]  # `batch_norm(...)`
DropLayer = Callable[..., nn.Module]  # `Dropout` or `ChannelDropout` with its rate set
Block = TypeVar("Block", bound=nn.Module)

# PyTorch's default for convolutions and linear layers, kaiming_uniform(a=√5): U(±1/√fan_in)
torch_kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def torch_bias_init(fan_in: int) -> Callable[..., jax.Array]:
    """Return PyTorch's default initializer for biases, U(±1/√fan_in)."""
    return lambda *args: jax.random.uniform(*args, minval=-(fan_in**-0.5), maxval=fan_in**-0.5)


# He et al. 2015 (arXiv 1502.01852), variant that preserves the scale of gradients: N(0, 2/fan_out), not truncated
he_kernel_init = nn.initializers.variance_scaling(2, "fan_out", "normal")
# transformers: N(0, 0.02²), which timm and the authors of DeiT and Swin truncate at 100 standard deviations
transformer_kernel_init = nn.initializers.normal(0.02)


class Classifier(nn.Module):
    """Base class of all models: a first layer, features and a linear head. Inputs `[B, ..., C]` -> logits.

    A subclass defines `first_layer`, which is linear up to its bias, so that references can be encoded once
    (`anchor_jax.SplitModel`); `features`, which returns the inputs of the head; and the submodule `head`.

    Attributes:
      num_classes: number of logits.
      dtype: dtype of activations; parameters, statistics and logits are float32.
      axis_name: name of the mapped axis over which training computes the statistics of BatchNorm and divides random
        draws; or several names, the outermost first.
      remat: whether training stores only the inputs of each block and recomputes the activations inside it for the
        gradient: less memory for a third more computation. XLA on CPU undoes it.
      bn_devices: number of adjacent devices of the mapped axis over which training computes the statistics of
        BatchNorm; 0: all.
    """

    num_classes: int
    dtype: DTypeLike = jnp.float32
    axis_name: AxisName | None = None
    remat: bool = False
    bn_devices: int = 0

    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        """Return float32 logits `[B, num_classes]`.

        Args:
          inputs: images, or anchored images with twice the channels, `[B, ..., C]`.
          train: whether BatchNorm normalizes by the batch and updates its running statistics (collection
            "batch_stats"), and stochastic depth drops branches (random stream "stochastic_depth"). Dropout does
            not depend on it: it is active whenever a random stream "dropout" is passed.
        """
        return self.rest(self.first_layer(inputs), train)

    def rest(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Return the logits, given the outputs of the first layer."""
        return self.head(self.features(x, train))

    def first_layer(self, inputs: jax.Array) -> jax.Array:
        """Apply the first layer: inputs `[B, ..., C]` -> `[B, ...]`, in `dtype`."""
        raise NotImplementedError

    def features(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Return the inputs of the head: outputs of the first layer -> float32 `[B, features]`."""
        raise NotImplementedError


class StochasticDepth(nn.Module):
    """Drops a residual branch at random, independently per example, in training.

    Source: Huang et al. 2016, arXiv 1603.09382.

    Attributes:
      rate: probability of dropping, in [0, 1).
      axis_name: name of the mapped axis over which the batch is divided. Draws are made for the global batch and each
        device takes its share, so they do not depend on the number of devices.
    """

    rate: float
    axis_name: AxisName | None

    @nn.compact
    def __call__(self, branch: jax.Array, train: bool) -> jax.Array:
        """Zero the branch `[B, ...]` of the dropped examples and scale the others by `1 / (1 - rate)`."""
        if not train or self.rate == 0:
            return branch
        mask_shape = (1,) * (branch.ndim - 1)
        return _dropout(self.make_rng("stochastic_depth"), branch, mask_shape, self.rate, self.axis_name)


class Dropout(nn.Module):
    """Drops single activations at random.

    It is active whenever the random stream "dropout" is passed, also outside training: the network is then one member
    of a Monte Carlo dropout ensemble.

    Sources: Srivastava et al. 2014, *Dropout*, JMLR 15; Gal & Ghahramani 2016, arXiv 1506.02142.

    Attributes:
      rate: probability of dropping, in [0, 1).
      axis_name: see `StochasticDepth`.
    """

    rate: float
    axis_name: AxisName | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Zero what is dropped of `[B, ...]` and scale the rest by `1 / (1 - rate)`."""
        if self.rate == 0 or not self.has_rng("dropout"):
            return x
        return self._drop(self.make_rng("dropout"), x)

    def _drop(self, key: jax.Array, x: jax.Array) -> jax.Array:
        return _element_dropout(key, x, self.rate, self.axis_name)


class ChannelDropout(Dropout):
    """Drops entire channels of `[B, ..., C]` at random, independently per example; otherwise as `Dropout`.

    Source: Tompson et al. 2015, arXiv 1411.4280.
    """

    def _drop(self, key: jax.Array, x: jax.Array) -> jax.Array:
        mask_shape = (*(1,) * (x.ndim - 2), x.shape[-1])
        return _dropout(key, x, mask_shape, self.rate, self.axis_name)


@modes.any_promotion
def _dropout(
    key: jax.Array, x: jax.Array, mask_shape: tuple[int, ...], rate: float, axis_name: AxisName | None
) -> jax.Array:
    """Apply inverted dropout; `mask_shape` is the shape of the mask of one example, broadcast against it."""
    num_devices = jax.lax.axis_size(axis_name) if axis_name else 1
    keep = _draw_kept(key, rate, (len(x) * num_devices, *mask_shape))
    keep = local_shard(keep, axis_name) if axis_name else keep
    return x * (keep / (1 - rate)).astype(x.dtype)


@modes.any_promotion
def _element_dropout(key: jax.Array, x: jax.Array, rate: float, axis_name: AxisName | None) -> jax.Array:
    """Apply inverted dropout to each element; every device draws for its own examples alone."""
    num_devices = jax.lax.axis_size(axis_name) if axis_name else 1
    keys = jax.random.split(key, len(x) * num_devices)
    keys = local_shard(keys, axis_name) if axis_name else keys
    keep = jax.vmap(lambda key: _draw_kept(key, rate, x.shape[1:]))(keys)
    return x * (keep / (1 - rate)).astype(x.dtype)


@modes.in_32_bits
def _draw_kept(key: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.bernoulli(key, 1 - rate, shape)


class FeedForward(nn.Module):
    """The feed-forward network of a transformer block: two dense layers with GELU between them."""

    hidden: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., D]` -> `[..., D]`."""
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=transformer_kernel_init)
        hidden = gelu(dense(self.hidden, name="fc1")(x))
        return dense(x.shape[-1], name="fc2")(hidden)


def maybe_remat(block: type[Block], enabled: bool, static_argnums: tuple[int, ...] = ()) -> type[Block]:
    """Return the block class, rematerialized in the gradient (`jax.checkpoint`) if enabled.

    Args:
      block: the class of a block.
      enabled: whether to rematerialize.
      static_argnums: positions of the arguments of `__call__` that are not arrays; `self` is 0.
    """
    return nn.remat(block, static_argnums=static_argnums) if enabled else block


def stochastic_depth_rates(last_rate: float, num_blocks: int) -> Iterator[float]:
    """Return one rate of stochastic depth per block, rising linearly from 0 to `last_rate`."""
    return (last_rate * block / max(num_blocks - 1, 1) for block in range(num_blocks))


def conv(
    features: int,
    kernel_size: int,
    stride: int = 1,
    *,
    dtype: DTypeLike,
    kernel_init: Callable[..., jax.Array] = he_kernel_init,
    groups: int = 1,
    use_bias: bool = False,
    name: str | None = None,
) -> nn.Conv:
    """Return a square convolution padded as in PyTorch, by half the kernel size on each side."""
    return nn.Conv(
        features,
        (kernel_size, kernel_size),
        (stride, stride),
        padding=kernel_size // 2,
        feature_group_count=groups,
        conv_general_dilated=None if groups == 1 else grouped_convolution,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=kernel_init,
        name=name,
    )


def batch_norm(dtype: DTypeLike, axis_name: AxisName | None, bn_devices: int, train: bool) -> NormLayer:
    """Return BatchNorm with PyTorch's defaults; the arguments are those of `Classifier`."""
    names: Any = None if bn_devices == 1 else axis_name  # Flax annotates one name, but also accepts several
    return partial(
        nn.BatchNorm,
        use_running_average=not train,
        momentum=0.9,  # 0.1 in PyTorch's convention
        epsilon=1e-5,
        dtype=dtype,
        axis_name=names,
        axis_index_groups=_adjacent_devices(axis_name, bn_devices) if train and axis_name and bn_devices > 1 else None,
    )


def _adjacent_devices(axis_name: AxisName, num: int) -> tuple[tuple[int, ...], ...]:
    """Split the devices of the mapped axis into sets of `num` adjacent ones."""
    return tuple(tuple(range(first, first + num)) for first in range(0, jax.lax.axis_size(axis_name), num))


def residual_shortcut(x: jax.Array, features: int, stride: int, conv: ConvLayer, norm: NormLayer) -> jax.Array:
    """Return the shortcut of a residual block: `x`, or its 1×1 projection if the shape changes."""
    if stride == 1 and x.shape[-1] == features:
        return x
    return norm(name="shortcut_bn")(conv(features, 1, stride, name="shortcut_conv")(x))


def image_size_error(inputs: jax.Array, requirement: str, remedy: str) -> UserError:
    """Return the error for images `[B, H, W, C]` of a size that a model does not take.

    Args:
      inputs: the images.
      requirement: what height and width must be, such as "at least 9 for FastNet".
      remedy: what the user can do instead of resizing the images.
    """
    height, width = inputs.shape[1:3]
    return UserError(
        f"height and width of images must be {requirement}; got {height}x{width}; resize the images or {remedy}"
    )


def patch_embedding(features: int, patch_size: int, *, dtype: DTypeLike) -> nn.Conv:
    """Return the patch embedding of a vision transformer: one linear map of non-overlapping patches."""
    return nn.Conv(features, (patch_size, patch_size), (patch_size, patch_size), padding="VALID", dtype=dtype)


def max_pool(x: jax.Array, size: int) -> jax.Array:
    """Return the maximum of each `size` x `size` window: `[B, H, W, C]` -> `[B, ⌊H/size⌋, ⌊W/size⌋, C]`.

    Equals `nn.max_pool` with stride `size`, except that maxima that occur several times in a window share the
    gradient. On CPU, that gradient is faster.
    """
    height, width = (side // size * size for side in x.shape[1:3])
    corners = [x[:, row:height:size, column:width:size] for row in range(size) for column in range(size)]
    return reduce(jnp.maximum, corners)


def global_average_pool(x: jax.Array) -> jax.Array:
    """Average over height and width: `[B, H, W, C]` -> float32 `[B, C]`."""
    return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
