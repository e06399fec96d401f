"""Bilinear transduction (BLT): select the reference of each input by the residuals seen in training.

Pure functions of arrays; the result for an input does not depend on the other inputs. Letters: B inputs, M references
in a bank, D residuals.

Source: *On the Use of Anchoring for Training Vision Models*, NeurIPS 2024 (arXiv 2406.00529).
"""

# JAX leaves some parameters unannotated, such as `device` of `jnp.asarray`
# pyright: reportUnknownMemberType=false
from __future__ import annotations

from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from anchor_jax.core import checks, explicit, modes, precision
from anchor_jax.core.errors import UserError
from anchor_jax.core.types import AnyArray

_CHUNK_SIZE = 16  # residuals per step of the search


@explicit.automatic("x")
def transductive_references(
    x: Float[AnyArray, "batch *features"],
    bank: Float[AnyArray, "bank_size *features"],
    residuals: Float[AnyArray, "residuals *features"],
) -> Float[Array, "batch *features"]:
    """Return, for each input, the reference of the bank whose residual is closest to one seen in training.

    It is the reference `r` that minimizes `‖x - r - d‖²` over the bank and all training residuals `d`. The squared norm
    is expanded, so that no image-sized work remains in the search: `x·r`, `x·d` and `r·d` are computed once, followed
    by a minimum over `d` for each pair of input and reference, a few residuals at a time. Memory is `B·(M + D) + M·D`.
    Pass all inputs in one call, since `r·d` is shared by all.

    Args:
      x: inputs, floating `[B, ..., C]`, normalized.
      bank: references, floating `[M, ..., C]`; the paper searches 50, such as
        `sample_references(key, bank, 50, replace=False)`.
      residuals: `x - r` of pairs seen in training, floating `[D, ..., C]`.

    Returns:
      References `[B, ..., C]`, rows of the bank, dtype of the bank.

    Raises:
      UserTypeError: one of the arrays is not floating.
      UserError: one is empty, or the shapes of their examples differ.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> bank, residuals = jnp.array([[0.0], [10.0]]), jnp.array([[-9.0], [-8.5]])
      >>> aj.transductive_references(jnp.array([[1.0]]), bank, residuals).tolist()  # 1 - 10 = -9 was seen in training
      [[10.0]]
    """
    rows = transductive_rows(x, bank, residuals)
    return jnp.asarray(bank)[rows]


@explicit.automatic("x")
@modes.in_32_bits
def transductive_rows(
    x: Float[AnyArray, "batch *features"],
    bank: Float[AnyArray, "bank_size *features"],
    residuals: Float[AnyArray, "residuals *features"],
) -> Int32[Array, "batch"]:
    """Return the rows of the bank that `transductive_references` selects.

    Args:
      x: see `transductive_references`.
      bank: see `transductive_references`.
      residuals: see `transductive_references`.

    Returns:
      int32 `[B]`, in [0, M); the first of several equally close references.

    Raises:
      UserTypeError: see `transductive_references`.
      UserError: see `transductive_references`.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> bank, residuals = jnp.array([[0.0], [10.0]]), jnp.array([[-9.0], [-8.5]])
      >>> aj.inference.transductive_rows(jnp.array([[1.0]]), bank, residuals).tolist()
      [1]
    """
    for name, rows, letter in (("x", x, "B"), ("bank", bank, "M"), ("residuals", residuals, "D")):
        checks.model_inputs(name, rows, f"[{letter}, ...]")
    if not (x.shape[1:] == bank.shape[1:] == residuals.shape[1:]):
        raise UserError(
            f"x, bank and residuals must agree in all but the first axis; got shapes {x.shape}, {bank.shape} and "
            f"{residuals.shape}"
        )
    origin = bank[:1]  # far from zero, squares lose digits
    inputs, references = precision.difference(x, origin), precision.difference(bank, origin)
    return cast(Array, _closest_rows(inputs, references, jnp.asarray(residuals)))


@jax.jit  # once per shape: outside of a compiled function, JAX compiles a loop at every call
def _closest_rows(x: Array, bank: Array, residuals: Array) -> Int32[Array, "batch"]:
    inputs, references, seen = (a.reshape(len(a), -1).astype(jnp.float32) for a in (x, bank, residuals))

    def gram(a: AnyArray, b: AnyArray) -> Array:
        return jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)

    # ‖x - r - d‖² = ‖x‖² + [‖r‖² - 2 x·r] + [‖d‖² - 2 x·d] + 2 r·d
    from_reference = jnp.sum(references**2, axis=1)[None] - 2 * gram(inputs, references)
    seen = jnp.pad(seen, ((0, -len(seen) % _CHUNK_SIZE), (0, 0)), mode="edge")  # repeats do not change a minimum
    squares = jnp.sum(seen**2, axis=1)
    from_residual = squares[None] - 2 * gram(inputs, seen)
    cross = 2 * gram(seen, references)
    return jnp.argmin(from_reference + _min_plus(from_residual, cross), axis=1).astype(jnp.int32)


def _min_plus(from_residual: Float[Array, "batch residuals"], cross: Float[Array, "residuals bank_size"]) -> Array:
    """Return `min over d of from_residual[b, d] + cross[d, m]`, `[B, M]`; D is a multiple of the chunk size."""

    def update_minimum(index: Any, minimum: Array) -> Array:
        start = index * _CHUNK_SIZE
        columns = jax.lax.dynamic_slice_in_dim(from_residual, start, _CHUNK_SIZE, axis=1)
        rows = jax.lax.dynamic_slice_in_dim(cross, start, _CHUNK_SIZE)
        for d in range(_CHUNK_SIZE):  # unrolled, so that one pass over the minimum handles the chunk
            minimum = jnp.minimum(minimum, columns[:, d, None] + rows[None, d])
        return minimum

    # a real pair, unlike an infinite constant, has the right type under shard_map too
    initial = from_residual[:, :1] + cross[:1]
    return cast(Array, jax.lax.fori_loop(0, len(cross) // _CHUNK_SIZE, update_minimum, initial))
