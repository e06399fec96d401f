"""What the families of models share."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from anchor_jax.runtime.backends import grouped_convolution
from anchor_jax.runtime.mesh import local_shard

# PyTorch's default for convolutions and linear layers, kaiming_uniform(a=√5): U(±1/√fan_in)
torch_kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def torch_bias_init(fan_in: int) -> Callable[..., jax.Array]:
    """PyTorch's default for biases, U(±1/√fan_in)."""
    return lambda *args: jax.random.uniform(*args, minval=-(fan_in**-0.5), maxval=fan_in**-0.5)


# He et al. 2015 (arXiv 1502.01852), which keeps the size of gradients: N(0, 2/fan_out), not truncated
he_kernel_init = nn.initializers.variance_scaling(2, "fan_out", "normal")
# of transformers: N(0, 0.02²), which timm and the authors of DeiT and Swin cut off at a hundred deviations
transformer_kernel_init = nn.initializers.normal(0.02)


Block = TypeVar("Block", bound=nn.Module)


class Classifier(nn.Module):
    """What every model here is: a first layer, then features, then a head. Inputs `[B, ..., C]` -> logits.

    A family says `first_layer`, which is linear in the inputs but for its bias, so that references can be encoded
    apart (`anchor_jax.SplitModel`), `features`, what the last layer sees, and that last layer, `head`.

    Attributes:
      num_classes: number of logits.
      dtype: what activations are computed in; parameters, statistics and logits are float32.
      axis_name: mapped axis over which training draws and takes the statistics of BatchNorm.
      remat: whether training computes the activations of each block again for its gradient, from the inputs of the
        block, and keeps those alone: less memory for a third more work. XLA on CPU undoes it.
    """

    num_classes: int
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None
    remat: bool = False

    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        """Float32 logits `[B, num_classes]`.

        With `train` BatchNorm normalises by the batch and updates its running statistics (the collection
        "batch_stats"), and blocks are left out by chance where the model has stochastic depth (the random numbers
        "stochastic_depth"). Given random numbers "dropout", with `train` or without, it leaves channels out if it has
        a rate of that.
        """
        return self.rest(self.first_layer(inputs), train)

    def rest(self, x: jax.Array, train: bool = False) -> jax.Array:
        """All that follows the first layer: its outputs -> logits."""
        return self.head(self.features(x, train))

    def first_layer(self, inputs: jax.Array) -> jax.Array:
        """The first layer: inputs `[B, ..., C]` -> `[B, ...]`, in `dtype`."""
        raise NotImplementedError

    def features(self, x: jax.Array, train: bool = False) -> jax.Array:
        """What the head sees: outputs of the first layer -> float32 `[B, features]`."""
        raise NotImplementedError


class StochasticDepth(nn.Module):
    """Leaves a branch out, for each example by chance, in training (Huang et al. 2016, arXiv 1603.09382).

    Attributes:
      rate: how probably, in [0, 1).
      axis_name: mapped axis over which the batch is divided; the draw is for all of it and each device takes its
        part, so that it does not depend on how many there are.
    """

    rate: float
    axis_name: str | None

    @nn.compact
    def __call__(self, branch: jax.Array, train: bool) -> jax.Array:
        """`[B, ...]` -> the same, zero where left out and the greater for it where not."""
        if not train or self.rate == 0:
            return branch
        return _thinned(self.make_rng("stochastic_depth"), branch, [1] * (branch.ndim - 1), self.rate, self.axis_name)


class ChannelDropout(nn.Module):
    """Leaves whole channels out, for each example by chance (Tompson et al. 2015, arXiv 1411.4280).

    It does so wherever the model is given random numbers "dropout", without training too: then it is one member of an
    ensemble of thinned networks (Gal & Ghahramani 2016, arXiv 1506.02142).

    Attributes:
      rate: how probably, in [0, 1).
      axis_name: see `StochasticDepth`.
    """

    rate: float
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, ..., C]` -> the same, zero where left out and the greater for it where not."""
        if self.rate == 0 or not self.has_rng("dropout"):
            return x
        each = (*[1] * (x.ndim - 2), x.shape[-1])
        return _thinned(self.make_rng("dropout"), x, each, self.rate, self.axis_name)


def _thinned(key, x, each, rate, axis_name):
    """`x` with parts of each example left out by chance; `each` is the shape of one example's draws."""
    num_devices = jax.lax.axis_size(axis_name) if axis_name else 1
    kept = jax.random.bernoulli(key, 1 - rate, (len(x) * num_devices, *each))
    kept = local_shard(kept, axis_name) if axis_name else kept
    return x * (kept / (1 - rate)).astype(x.dtype)


class FeedForward(nn.Module):
    """The two dense layers of a transformer block, with GELU between them."""

    hidden: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., D]` -> `[..., D]`."""
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=transformer_kernel_init)
        hidden = nn.gelu(dense(self.hidden, name="fc1")(x), approximate=False)
        return dense(x.shape[-1], name="fc2")(hidden)


def maybe_remat(block: type[Block], when: bool, static_argnums: tuple[int, ...] = ()) -> type[Block]:
    """The class of a block; `when` it is true, the gradient computes what is in the block again, see `jax.checkpoint`.

    `static_argnums` are the arguments of its call that are no arrays, the module itself being 0.
    """
    return nn.remat(block, static_argnums=static_argnums) if when else block


def depth_rates(last: float, num_blocks: int) -> Iterator[float]:
    """Rates of stochastic depth, rising evenly from 0 in the first block to the one of the last."""
    return (last * block / max(num_blocks - 1, 1) for block in range(num_blocks))


def conv(
    features: int,
    kernel_size: int,
    stride: int = 1,
    *,
    dtype: jnp.dtype,
    kernel_init: Callable[..., jax.Array] = he_kernel_init,
    groups: int = 1,
    use_bias: bool = False,
    name: str | None = None,
) -> nn.Conv:
    """A square convolution with PyTorch's padding: half of the kernel on each side."""
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


def residual_shortcut(
    x: jax.Array,
    features: int,
    stride: int,
    conv: Callable[..., nn.Conv],
    norm: Callable[..., nn.BatchNorm],
) -> jax.Array:
    """The shortcut of a residual block: `x` itself, or a 1×1 convolution of it where the shape changes."""
    if stride == 1 and x.shape[-1] == features:
        return x
    return norm(name="shortcut_bn")(conv(features, 1, stride, name="shortcut_conv")(x))


def batch_norm(dtype: jnp.dtype, axis_name: str | None, train: bool) -> Callable[..., nn.BatchNorm]:
    """BatchNorm as PyTorch has it by default."""
    # momentum 0.9 here is PyTorch's 0.1
    return partial(
        nn.BatchNorm,
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        dtype=dtype,
        axis_name=axis_name,
    )


def patches(features: int, patch_size: int, *, dtype: jnp.dtype) -> nn.Conv:
    """The patch embedding of a transformer: one linear map of each square of pixels."""
    return nn.Conv(features, (patch_size, patch_size), (patch_size, patch_size), padding="VALID", dtype=dtype)


def global_mean(x: jax.Array) -> jax.Array:
    """`[B, H, W, C]` -> float32 `[B, C]`."""
    return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
