"""The anchored transform: an input becomes a reference and a residual.

Pure functions of arrays on JAX alone; they serve any model and work under `jit`, `vmap`, `grad` and
`shard_map`. Letters: B examples, M references in a bank, C channels; the channel axis comes last.

Source: *On the Use of Anchoring for Training Vision Models*, NeurIPS 2024 (arXiv 2406.00529).
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError


def anchor(x: jax.Array, references: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Anchored input `[r, x - r]`; where masked `[0, x - r]`.

    The residual keeps the real reference under the mask, as in the released code (`CIFAR/wrapper.py`):
    the network then has a residual whose reference it cannot see.

    Args:
      x: inputs, floating `[B, ..., C]`, normalised, so that zero is the mean image. One example without
        a batch axis, `[..., C]`, serves too.
      references: floating, the shape of `x`: one reference for each input.
      mask: bool `[B]`, true where the reference is zeroed; `[]` for all of `x`; none is masked without it.

    Returns:
      Anchored inputs `[B, ..., 2C]`: channels of the reference first, of the residual after.

    Raises:
      UserTypeError: `x` or `references` is not floating (integer images wrap around in `x - r`), or `mask`
        is not bool.
      UserError: the shapes do not fit, or are empty.
    """
    check_floating("x", x, "[..., C]")
    check_floating("references", references, "[..., C]")
    if x.shape != references.shape:
        raise UserError(f"references must have the shape of x, {x.shape}, one for each input; got {references.shape}")
    shown = references if mask is None else jnp.where(_over_features(mask, x), 0, references)
    return jnp.concatenate([shown, x - references], axis=-1)


def sample_references(key: jax.Array, bank: jax.Array, num: int, *, replace: bool = True) -> jax.Array:
    """Draw references uniformly from a bank: with replacement, each on its own, or all different.

    Args:
      key: a JAX random key.
      bank: `[M, ..., C]`, real numbers of any dtype.
      num: how many to draw, at least 1.
      replace: False draws none twice: M of M are a random permutation.

    Returns:
      References `[num, ..., C]`.

    Raises:
      UserTypeError: `key` is no key, `bank` no array of numbers, or `num` no integer.
      UserError: there are many keys, the bank is empty, `num` is below 1, or above M without replacement.
    """
    checks.key("key", key)
    checks.array("bank", bank, "real", "[M, ...]")
    num = checks.count("num", num)
    if not replace:
        if num > len(bank):
            raise UserError(f"num must be at most {len(bank)}, the size of the bank, without replacement; got {num}")
        return jnp.asarray(bank)[jax.random.choice(key, len(bank), (num,), replace=False)]

    def draw(key):
        return jnp.asarray(bank)[jax.random.randint(key, (), 0, len(bank))]

    return jax.vmap(draw)(jax.random.split(key, num))


def sample_mask(
    key: jax.Array, batch_size: int, prob: float | jax.Array, per: Literal["batch", "example"] = "batch"
) -> jax.Array:
    """Draw which references are masked.

    Args:
      key: a JAX random key.
      batch_size: B, at least 1.
      prob: probability of a mask, α in the paper, in [0, 1]; one in a JAX array is not looked at.
      per: "batch" draws one Bernoulli for all of the batch, as the paper and its released code do;
        "example" draws one for each example.

    Returns:
      bool `[B]`, true where masked.

    Raises:
      UserTypeError: `key` is no key, `batch_size` no integer, or `prob` no number.
      UserError: there are many keys, `batch_size` is below 1, `prob` outside [0, 1], or `per` unknown.
    """
    checks.key("key", key)
    batch_size = checks.count("batch_size", batch_size)
    checks.number("prob", prob)
    checks.choice("per", per, ("batch", "example"))
    prob = 1.0 * prob  # 0 and 1 are probabilities, too
    if per == "batch":
        return jnp.broadcast_to(jax.random.bernoulli(key, prob), (batch_size,))
    return jax.vmap(lambda key: jax.random.bernoulli(key, prob))(jax.random.split(key, batch_size))


def anchored(apply_fn: Callable[..., Any]) -> Callable[..., Any]:
    """Turn `f(params, inputs, *args, **kwargs)` into `g(params, x, references, *args, mask=None, **kwargs)`.

    `f` is any function of parameters and anchored inputs `[B, ..., 2C]`: the `apply` of a Flax Linen module, or a
    function that puts both in their places in a model of NNX, Equinox, Haiku or none of them (`docs/frameworks.md`).
    `g` takes `x`, `references` and `mask` as `anchor` does, hands all other arguments to `f`, such as `rngs` and
    `mutable`, and returns what `f` returns.

    Raises:
      UserTypeError: `f` is no function, or a model in its place.
    """
    checks.function("apply_fn", apply_fn)

    def apply_anchored(params, x, references, *args, mask=None, **kwargs):
        return apply_fn(params, anchor(x, references, mask), *args, **kwargs)

    return apply_anchored


def anchored_kernel(kernel: jax.Array, *, axis: int = -2, channels: int | None = None) -> jax.Array:
    """First layer of an anchored network, from that of a network on images: the same function for every reference.

    Reference and residual have the same kernel, since `W·r + W·(x - r) = W·x`; the bias stays. So does the function
    of the whole network, where nothing stands before its first layer, and the reference is not masked.

    Args:
      kernel: floating, of a dense layer or a convolution without groups, `[..., C, D]`: "IO" and "HWIO", as Flax and
        Haiku have it.
      axis: where the input channels are; 1 for "OI" and "OIHW", as Equinox has it.
      channels: C of the images, where the layer sees them flattened with channels last, so that this axis is H·W·C;
        all of the axis are channels without it.

    Returns:
      The kernel with that axis twice as long.

    Raises:
      UserTypeError: `kernel` is not floating, `axis` or `channels` no integer.
      UserError: `kernel` has no such axis, or `channels` does not divide it.
    """
    checks.array("kernel", kernel, "floating", "[..., C, D]")
    axis = checks.count("axis", axis, -kernel.ndim, kernel.ndim - 1) % kernel.ndim
    before, size, after = kernel.shape[:axis], kernel.shape[axis], kernel.shape[axis + 1 :]
    channels = size if channels is None else checks.count("channels", channels)
    if size % channels:
        raise UserError(
            f"channels must divide axis {axis} of the kernel {kernel.shape}, which is H·W·C of flattened images; "
            f"got {channels}"
        )
    pixels = jnp.reshape(jnp.asarray(kernel), (*before, size // channels, channels, *after))
    return jnp.concatenate([pixels, pixels], axis=axis + 1).reshape(*before, 2 * size, *after)


def check_floating(name: str, value: jax.Array, shape: str) -> None:
    """Refuses what is not floating of this shape: integer images wrap around in `x - r`."""
    checks.array(name, value, "floating", shape, mend=": normalise images before anchoring")


def _over_features(mask: jax.Array, x: jax.Array) -> jax.Array:
    """The mask `[B]` with an axis of length 1 for each axis of a single example."""
    checks.array("mask", mask, "bool", "[...]")
    leading = jnp.ndim(mask)
    if leading > 1 or leading >= x.ndim or jnp.shape(mask) != x.shape[:leading]:
        raise UserError(f"mask must be [B] for x of shape {x.shape}, got shape {jnp.shape(mask)}")
    return jnp.reshape(mask, jnp.shape(mask) + (1,) * (x.ndim - leading))
