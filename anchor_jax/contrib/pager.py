"""Where a regression fails: PAGER, risk regimes from the uncertainty of a prediction and the strangeness of its input.

Forward anchoring asks what a reference makes of an input: `anchor_jax.predict`, whose spread is the uncertainty.
Reverse anchoring turns the pair around: the input is the reference, from which the network has to predict a training
example whose target is known. Far from what it was trained on it cannot, even where forward predictions agree.

Pure functions of arrays that serve any model, under `jit` and `vmap`. Letters: B inputs, K training examples that serve
as references, D outputs.

Source: *PAGER: Accurate Failure Characterization in Deep Regression Models*, ICML 2024 (arXiv 2309.10977). What its
text leaves to the reader is an argument here, or is said to be decided here. Score 2 and the measures of regimes were
not checked against the code of its authors.
"""

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from anchor_jax.core import checks
from anchor_jax.core.anchoring import anchored, check_floating
from anchor_jax.core.errors import UserError
from anchor_jax.core.inference import Apply


class Regime(enum.IntEnum):
    """How far a prediction can be trusted, by uncertainty and nonconformity, each low or high."""

    ID = 0  # both low: as the training examples
    LOW = 1  # uncertain, yet in keeping with the training examples
    MODERATE = 2  # sure, yet not in keeping with them: uncertainty alone does not see it
    HIGH = 3  # both high


class RegimeErrors(NamedTuple):
    """How far risk regimes keep to the true errors; NaN where a regime that is asked for is empty."""

    false_negatives: jax.Array  # float32 [], in [0, 1], share of ID and LOW whose errors are large; lower is better
    false_positives: jax.Array  # float32 [], in [0, 1], share of MODERATE and HIGH whose errors are small; likewise
    confusion_low: jax.Array  # float32 [], at least 0, C_low: large errors of ID over small ones of LOW; likewise
    confusion_high: jax.Array  # float32 [], at least 0, C_high: the same of MODERATE over HIGH


def nonconformity(
    apply_fn: Apply,
    params: Any,
    x: jax.Array,
    references: jax.Array,
    targets: jax.Array,
    *,
    chunk_size: int | None = None,
) -> jax.Array:
    """Score 1 of reverse anchoring: `max over r of ‖y_r - f([x, r - x])‖₁`.

    Args:
      apply_fn: `f(params, anchored inputs [B, ..., 2C]) -> predictions [B, ...]`, see `predict`.
      params: passed to `apply_fn`.
      x: inputs, floating `[B, ..., C]`, as the network was trained on them (standardised).
      references: training inputs, floating `[K, ..., C]`, the same for every input.
      targets: their targets, real `[K, ...]`, of the shape of predictions.
      chunk_size: references evaluated at once; one after the other by default.

    Returns:
      float32 `[B]`, at least 0, in the unit of the targets; higher is stranger.

    Raises:
      UserTypeError: `apply_fn` is no function, `x` or `references` are not floating, `targets` not real, or
        `chunk_size` no integer.
      UserError: shapes do not fit or are empty, or `chunk_size` is below 1.
    """
    _check(apply_fn, x, references, targets, chunk_size)

    def of_one_reference(example):
        return _reverse_errors(apply_fn, params, x, *example)

    return jnp.max(jax.lax.map(of_one_reference, (references, targets), batch_size=chunk_size), axis=0)


def refined_nonconformity(
    apply_fn: Apply,
    params: Any,
    x: jax.Array,
    references: jax.Array,
    targets: jax.Array,
    *,
    regularizer: Callable[[jax.Array], jax.Array] | None = None,
    steps: int = 50,
    learning_rate: float = 0.05,
    chunk_size: int | None = None,
) -> jax.Array:
    """Score 2 of reverse anchoring: how far an input has to go until training examples are predicted from it.

    `max over r of ‖x - x̄_r‖₂`, where `x̄_r` is what Adam, begun at `x`, finds for the least of
    `‖y_r - f([x̄, r - x̄])‖₁ + R(x̄)`. It costs `steps` gradients for every pair, and tells apart what Score 1 cannot.

    Args:
      apply_fn: as of `nonconformity`, with a gradient.
      params: as of `nonconformity`.
      x: as of `nonconformity`.
      references: as of `nonconformity`.
      targets: as of `nonconformity`.
      regularizer: `R`, inputs `[B, ..., C]` -> `[B]`, large off the manifold of the data, such as the weighted error
        of an autoencoder; none by default, as for inputs of few dimensions.
      steps: of Adam, at least 1.
      learning_rate: of Adam, above 0, in the unit of the inputs: how far each step goes at most, about.
      chunk_size: as of `nonconformity`.

    Returns:
      float32 `[B]`, at least 0, in the unit of the inputs; higher is stranger.

    Raises:
      UserTypeError: as `nonconformity`, `regularizer` is no function, `steps` no integer or `learning_rate` no number.
      UserError: as `nonconformity`, `steps` is below 1, or `learning_rate` below 0.
    """
    _check(apply_fn, x, references, targets, chunk_size)
    if regularizer is not None:
        checks.function("regularizer", regularizer)
    steps = checks.count("steps", steps)
    checks.number("learning_rate", learning_rate, 0, float("inf"))
    optimizer = optax.adam(learning_rate)

    def moved(example):
        def loss(inputs):
            errors = _reverse_errors(apply_fn, params, inputs, *example)
            return jnp.sum(errors if regularizer is None else errors + regularizer(inputs))

        def step(state, _):
            inputs, moments = state
            updates, moments = optimizer.update(jax.grad(loss)(inputs), moments)
            nearer: Any = optax.apply_updates(inputs, updates)
            return (nearer, moments), None

        (inputs, _), _ = jax.lax.scan(step, (jnp.asarray(x), optimizer.init(jnp.asarray(x))), length=steps)
        return jnp.linalg.norm((inputs - x).reshape(len(x), -1).astype(jnp.float32), axis=1)

    return jnp.max(jax.lax.map(moved, (references, targets), batch_size=chunk_size), axis=0)


def risk_regimes(
    uncertainty: jax.Array, nonconformity: jax.Array, uncertainty_limit: float, nonconformity_limit: float
) -> jax.Array:
    """The regime of each input: whether its two scores are above their limits.

    Args:
      uncertainty: floating `[B]`, of forward anchoring, such as the spread over references.
      nonconformity: floating `[B]`, of reverse anchoring.
      uncertainty_limit: above it an input is uncertain. What training inputs have serves, such as the 95 % quantile.
      nonconformity_limit: above it an input is out of keeping; likewise.

    Returns:
      int32 `[B]`, values of `Regime`.

    Raises:
      UserTypeError: the scores are not floating, or the limits no numbers.
      UserError: the shapes differ or are empty, or a limit is below 0.
    """
    checks.array("uncertainty", uncertainty, "floating", "[B]")
    checks.array("nonconformity", nonconformity, "floating", "[B]")
    if uncertainty.shape != nonconformity.shape:
        raise UserError(
            f"uncertainty and nonconformity must have one shape, got {uncertainty.shape} and {nonconformity.shape}"
        )
    checks.number("uncertainty_limit", uncertainty_limit, 0, float("inf"))
    checks.number("nonconformity_limit", nonconformity_limit, 0, float("inf"))
    uncertain, strange = uncertainty > uncertainty_limit, nonconformity > nonconformity_limit
    return jnp.asarray(uncertain, jnp.int32) + 2 * jnp.asarray(strange, jnp.int32)


def regime_errors(regimes: jax.Array, errors: jax.Array, share: float = 0.2) -> RegimeErrors:
    """How far the regimes of a test set keep to its true errors.

    "Large" is above the quantile `1 - share`, "small" below the quantile `share`: of all errors for the false negatives
    and false positives, of those of the one regime for the confusions, `C_low = Q_large(ID) / Q_small(LOW)` and
    `C_high = Q_large(MODERATE) / Q_small(HIGH)`.

    Args:
      regimes: integer `[B]`, as `risk_regimes` gives them.
      errors: floating `[B]`, true errors, at least 0.
      share: in [0, 0.5].

    Raises:
      UserTypeError: `regimes` or `errors` are of another dtype, or `share` is no number.
      UserError: the shapes differ or are empty, or `share` is out of range.
    """
    checks.array("regimes", regimes, "real", "[B]")
    checks.array("errors", errors, "floating", "[B]")
    if regimes.shape != errors.shape:
        raise UserError(f"regimes and errors must have one shape, got {regimes.shape} and {errors.shape}")
    checks.number("share", share, 0, 0.5)
    errors = jnp.asarray(errors, jnp.float32)
    trusted = regimes <= Regime.LOW

    def quantile(regime, level):
        return jnp.nanquantile(jnp.where(regimes == regime, errors, jnp.nan), level)

    def share_of(group, marked):
        return jnp.sum(group & marked) / jnp.sum(group, dtype=jnp.float32)

    return RegimeErrors(
        share_of(trusted, errors > jnp.quantile(errors, 1 - share)),
        share_of(~trusted, errors < jnp.quantile(errors, share)),
        quantile(Regime.ID, 1 - share) / quantile(Regime.LOW, share),
        quantile(Regime.MODERATE, 1 - share) / quantile(Regime.HIGH, share),
    )


def _reverse_errors(apply_fn, params, x, reference, target):
    """`‖y_r - f([x, r - x])‖₁` of one training example, for every input: `[B]`."""
    outputs = anchored(apply_fn)(params, jnp.broadcast_to(reference, x.shape).astype(x.dtype), x)
    checks.array("what apply_fn gives", outputs, "real", "[B, ...]")
    if outputs.shape != (len(x), *target.shape):
        raise UserError(f"what apply_fn gives must be {(len(x), *target.shape)}, as targets are; got {outputs.shape}")
    distances = jnp.abs(target[None].astype(jnp.float32) - outputs.astype(jnp.float32))
    return jnp.sum(distances.reshape(len(x), -1), axis=1)


def _check(apply_fn, x, references, targets, chunk_size):
    checks.function("apply_fn", apply_fn)
    check_floating("x", x, "[B, ..., C]")
    check_floating("references", references, "[K, ..., C]")
    checks.array("targets", targets, "real", "[K, ...]")
    if references.shape[1:] != x.shape[1:]:
        raise UserError(f"references {references.shape} do not fit inputs {x.shape}: all but the first axis must agree")
    if len(targets) != len(references):
        raise UserError(f"targets must be one for each of {len(references)} references, got shape {targets.shape}")
    if chunk_size is not None:
        checks.count("chunk_size", chunk_size)
