"""The anchored transform: replace an input `x` by a reference `r` and the residual `x - r`.

Pure functions of arrays that work with any JAX model, under `jit`, `vmap`, `grad` and `shard_map`. Letters: B examples,
M references in a bank, C channels. The channel axis is last.

Source: *On the Use of Anchoring for Training Vision Models*, NeurIPS 2024 (arXiv 2406.00529).
"""

# JAX leaves some parameters unannotated, such as `device` of `jnp.asarray`
# pyright: reportUnknownMemberType=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray, Real, Shaped

from anchor_jax.core import checks, explicit, modes
from anchor_jax.core.errors import UserError
from anchor_jax.core.layout import transposition
from anchor_jax.core.model_calls import call_model, warn_of_constant
from anchor_jax.core.types import AnyArray


def anchor(
    x: Float[AnyArray, "*batch channels"],
    references: Float[AnyArray, "*batch channels"],
    mask: Bool[AnyArray, "..."] | None = None,
) -> Float[Array, "*batch 2*channels"]:
    """Return anchored inputs `[r, x - r]`, and `[0, x - r]` where masked.

    The mask hides the reference but not the residual, as in the released code (`CIFAR/wrapper.py`).

    Args:
      x: inputs, floating `[B, ..., C]`, normalized so that zero is the mean image. A single example without a batch
        axis, `[..., C]`, is also accepted.
      references: one reference per input, floating, same shape as `x`.
      mask: bool `[B]`, true where the reference is zeroed; `[]` masks all or nothing. No reference is masked by
        default.

    Returns:
      Anchored inputs, floating `[B, ..., 2C]`: the channels of the reference, then those of the residual.

    Raises:
      UserTypeError: `x` or `references` is not floating (integer images would wrap around in `x - r`), or `mask` is not
        bool.
      UserError: the shapes do not match, an array is empty, or images seem to have their channels first.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> x, references = jnp.array([[5.0, 7.0], [5.0, 7.0]]), jnp.array([[1.0, 2.0], [1.0, 2.0]])
      >>> aj.anchor(x, references, mask=jnp.array([False, True])).tolist()
      [[1.0, 2.0, 4.0, 5.0], [0.0, 0.0, 4.0, 5.0]]
    """
    checks.model_inputs("x", x, "[..., C]")
    checks.model_inputs("references", references, "[..., C]")
    if x.shape != references.shape:
        hint = transposition("references", references.shape, x.shape)
        raise UserError(f"references must have the shape of x, {x.shape}, one per input; got {references.shape}{hint}")
    with explicit.entered(x, references):
        x, references = explicit.aligned(x, references)
        visible = references
        if mask is not None:
            visible = jnp.where(_align_mask(explicit.aligned(x, mask)[1], x), 0, references)
        return jnp.concatenate(explicit.aligned(visible, x - references), axis=-1)


@explicit.automatic()
def sample_references(
    key: PRNGKeyArray, bank: Shaped[AnyArray, "bank_size *features"], num: int, *, replace: bool = True
) -> Shaped[Array, "{num} *features"]:
    """Draw references uniformly from a bank.

    Args:
      key: a JAX random key.
      bank: `[M, ..., C]`, any real dtype. Under `jit`, make it an argument of the compiled function: as a constant of
        its program it would make compilation slow, which is warned of.
      num: number of references to draw, at least 1.
      replace: whether to draw with replacement. Without it all references are distinct, and `num=M` returns a random
        permutation.

    Returns:
      References `[num, ..., C]`, dtype of the bank.

    Raises:
      UserTypeError: `key` is not a key, `bank` is not an array of numbers, or `num` is not an integer.
      UserError: `key` holds multiple keys, the bank is empty, `num` is below 1, or `num` exceeds M without replacement.

    Example:
      >>> import anchor_jax as aj
      >>> import jax, jax.numpy as jnp
      >>> bank = jnp.zeros((50, 32, 32, 3))
      >>> aj.sample_references(jax.random.key(0), bank, num=4).shape
      (4, 32, 32, 3)
      >>> permutation = aj.sample_references(jax.random.key(0), jnp.arange(3), num=3, replace=False)
      >>> sorted(permutation.tolist())
      [0, 1, 2]
    """
    checks.key("key", key)
    checks.array("bank", bank, "real", "[M, ...]")
    num = checks.count("num", num)
    if not replace and num > len(bank):
        raise UserError(f"num must be at most {len(bank)}, the size of the bank, without replacement; got {num}")
    warn_of_constant("bank", bank)
    return jnp.asarray(bank)[sample_rows(key, len(bank), num, replace=replace)]


@modes.in_32_bits
def sample_rows(key: PRNGKeyArray, num_rows: int, num: int, *, replace: bool = True) -> Array:
    """Draw the rows of a bank that `sample_references` returns.

    Args:
      key: a JAX random key.
      num_rows: size of the bank, at least 1.
      num: number of rows, at most `num_rows` without replacement.
      replace: whether a row may be drawn more than once.

    Returns:
      int32 `[num]`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> key, bank = jax.random.key(0), 10.0 * jnp.arange(5)
      >>> bool((bank[sample_rows(key, 5, 3)] == sample_references(key, bank, 3)).all())
      True
    """
    if not replace:
        return jax.random.choice(key, num_rows, (num,), replace=False)

    def draw(key: PRNGKeyArray) -> Array:
        return jax.random.randint(key, (), 0, num_rows)

    return jax.vmap(draw)(jax.random.split(key, num))


@modes.in_32_bits
def sample_mask(
    key: PRNGKeyArray,
    batch_size: int,
    prob: Real[ArrayLike, ""],
    per: Literal["batch", "group", "example"] = "batch",
    *,
    group_size: int | None = None,
) -> Bool[Array, "{batch_size}"]:
    """Draw which references are masked.

    Args:
      key: a JAX random key.
      batch_size: B, at least 1.
      prob: probability of a mask, α in the paper, in [0, 1]. The range of a JAX array is not checked.
      per: "batch" draws a single Bernoulli variable for the batch, as the paper does; "group" draws one per group of
        consecutive examples, as the released ImageNet code does for the 32 examples of each process; "example" draws
        one per example.
      group_size: number of examples in a group, a divisor of B; for `per="group"` only.

    Returns:
      bool `[B]`, true where masked.

    Raises:
      UserTypeError: `key` is not a key, `batch_size` or `group_size` is not an integer, or `prob` is not a number.
      UserError: `key` holds multiple keys, `batch_size` is below 1, `prob` is outside [0, 1], `per` is unknown, or
        `group_size` does not divide `batch_size`, is missing, or does not apply.

    Example:
      >>> import anchor_jax as aj
      >>> import jax
      >>> mask = aj.sample_mask(jax.random.key(0), batch_size=4, prob=0.25)
      >>> mask.shape, mask.dtype
      ((4,), dtype('bool'))
    """
    checks.key("key", key)
    batch_size = checks.count("batch_size", batch_size)
    checks.number("prob", prob)
    checks.choice("per", per, ("batch", "group", "example"))
    size = _mask_group_size(per, group_size, batch_size)
    prob = jnp.asarray(prob, jnp.float32)  # in half precision, draws are multiples of 1/128 or 1/1024
    if per == "batch":
        return jnp.broadcast_to(jax.random.bernoulli(key, prob), (batch_size,))

    def draw(key: PRNGKeyArray) -> Array:
        return jax.random.bernoulli(key, prob)

    return jnp.repeat(jax.vmap(draw)(jax.random.split(key, batch_size // size)), size)


def _mask_group_size(per: str, group_size: int | None, batch_size: int) -> int:
    """Return the number of consecutive examples that share a draw, 1 with `per="example"`; check `group_size`."""
    checks.grouping("per", per, group_size)
    if group_size is None:
        return 1
    group_size = checks.integer("group_size", group_size)
    if batch_size % group_size:
        raise UserError(f"group_size must divide batch_size={batch_size}; got {group_size}")
    return group_size


def anchored(apply_fn: Callable[..., Any]) -> Callable[..., Any]:
    """Turn `f(params, inputs, *args, **kwargs)` into `g(params, x, references, *args, mask=None, **kwargs)`.

    `g` anchors `x`, `references` and `mask` as `anchor` does, passes all other arguments to `f`, such as `rngs` and
    `mutable`, and returns the result of `f`.

    Args:
      apply_fn: function of parameters and anchored inputs `[B, ..., 2C]`: the `apply` method of a Flax Linen module, or
        a function that calls a model of NNX, Equinox, Haiku or plain JAX (see `docs/frameworks.md`).

    Returns:
      The anchored function.

    Raises:
      UserTypeError: `apply_fn` is not a function, or is a model instead of one; by `g`, see `predict`.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> def f(params, inputs):
      ...     return inputs @ params
      >>> x, references = jnp.array([[5.0, 7.0]]), jnp.array([[1.0, 2.0]])
      >>> aj.anchored(f)(jnp.ones(4), x, references).tolist()  # 1 + 2 + 4 + 5
      [12.0]
    """
    checks.function("apply_fn", apply_fn)

    def apply_anchored(
        params: Any, x: AnyArray, references: AnyArray, *args: Any, mask: AnyArray | None = None, **kwargs: Any
    ) -> Any:
        return call_model("apply_fn", apply_fn, params, anchor(x, references, mask), *args, **kwargs)

    return apply_anchored


@explicit.automatic()
def anchored_kernel(
    kernel: Float[AnyArray, "..."], *, axis: int = -2, channels: int | None = None
) -> Float[Array, "..."]:
    """Widen the kernel of a first layer so that it accepts anchored inputs and computes the same function.

    Reference and residual share the kernel, since `W·r + W·(x - r) = W·x`; keep the bias as it is. The whole network
    then computes the same function for every reference, if nothing precedes its first layer and no reference is masked.

    Args:
      kernel: floating `[..., C, D]`, of a dense layer or of a convolution without groups: layout "IO" or "HWIO", as in
        Flax and Haiku.
      axis: axis of the input channels; 1 for "OI" and "OIHW", as in Equinox.
      channels: number of image channels C, for a layer on flattened images (channels last), whose input axis has
        length H·W·C. By default the whole axis is channels.

    Returns:
      The kernel with this axis twice as long, dtype of `kernel`.

    Raises:
      UserTypeError: `kernel` is not floating, or `axis` or `channels` is not an integer.
      UserError: `kernel` has no such axis, or `channels` does not divide its length.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> aj.anchored_kernel(jnp.array([[1.0], [2.0]])).tolist()
      [[1.0], [2.0], [1.0], [2.0]]
    """
    checks.array("kernel", kernel, "floating", "[..., C, D]")
    axis = checks.count("axis", axis, -kernel.ndim, kernel.ndim - 1) % kernel.ndim
    before, size, after = kernel.shape[:axis], kernel.shape[axis], kernel.shape[axis + 1 :]
    num_channels: int = size if channels is None else checks.count("channels", channels)
    if size % num_channels:
        raise UserError(
            f"channels must divide axis {axis} of the kernel {kernel.shape}, H·W·C of flattened images; "
            f"got {num_channels}"
        )
    pixels = jnp.reshape(jnp.asarray(kernel), (*before, size // num_channels, num_channels, *after))
    return jnp.concatenate([pixels, pixels], axis=axis + 1).reshape(*before, 2 * size, *after)


def _align_mask(mask: AnyArray, x: AnyArray) -> AnyArray:
    """Return the mask `[B]` with trailing axes of length 1, to broadcast against `x`."""
    checks.array("mask", mask, "bool", "[...]")
    rank = jnp.ndim(mask)
    if rank > 1 or rank >= x.ndim or jnp.shape(mask) != x.shape[:rank]:
        raise UserError(f"mask must have shape [B] for x of shape {x.shape}; got {jnp.shape(mask)}")
    return jnp.reshape(mask, jnp.shape(mask) + (1,) * (x.ndim - rank))
