"""PAGER: risk regimes of a regression model, from the uncertainty of a prediction and the nonconformity of its input.

Forward anchoring predicts an input from references: `anchor_jax.predict`, whose spread is the uncertainty. Reverse
anchoring swaps the roles: the input is the reference from which the network predicts a training example whose target is
known. For inputs far from the training data this fails, even where forward predictions agree.

Pure functions of arrays that work with any model, under `jit` and `vmap`. Letters: B inputs, K training examples used
as references, D outputs.

Source: *PAGER: Accurate Failure Characterization in Deep Regression Models*, ICML 2024 (arXiv 2309.10977). Details that
its text leaves open are arguments here, or are marked as decisions of this code. Score 2 and the regime measures were
not compared with the authors' code.
"""

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from anchor_jax.core import checks, explicit, modes
from anchor_jax.core.anchoring import anchored
from anchor_jax.core.errors import UserError
from anchor_jax.core.types import Apply


class Regime(enum.IntEnum):
    """Risk regime of a prediction: its uncertainty and its nonconformity are each low or high.

    Example:
      >>> import anchor_jax as aj
      >>> aj.pager.Regime(2).name
      'MODERATE'
    """

    ID = 0  # both low: in distribution
    LOW = 1  # high uncertainty only
    MODERATE = 2  # high nonconformity only, which the uncertainty does not reveal
    HIGH = 3  # both high


class RegimeErrors(NamedTuple):
    """How well risk regimes match the true errors, as returned by `regime_errors`; lower is better.

    A value is NaN if a regime it needs is empty.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> measured = aj.pager.regime_errors(jnp.array([0, 0, 3, 3]), jnp.array([0.1, 0.2, 0.8, 0.9]))
      >>> measured.false_negatives.item(), measured.false_positives.item()
      (0.0, 0.0)
    """

    false_negatives: jax.Array  # float32 [], in [0, 1], fraction of ID and LOW whose errors are large
    false_positives: jax.Array  # float32 [], in [0, 1], fraction of MODERATE and HIGH whose errors are small
    confusion_low: jax.Array  # float32 [], at least 0, C_low: large errors of ID over small errors of LOW
    confusion_high: jax.Array  # float32 [], at least 0, C_high: large errors of MODERATE over small errors of HIGH


@explicit.within_mesh
def nonconformity(
    apply_fn: Apply,
    params: Any,
    x: jax.Array,
    references: jax.Array,
    targets: jax.Array,
    *,
    chunk_size: int | None = None,
) -> jax.Array:
    """Return Score 1 of reverse anchoring, `max over r of ‖y_r - f([x, r - x])‖₁`.

    Args:
      apply_fn: `f(params, anchored_inputs) -> predictions`, `[B, ..., 2C]` to `[B, ...]`; see `anchor_jax.predict`.
      params: passed to `apply_fn`.
      x: inputs, floating `[B, ..., C]`, standardized as in training.
      references: training inputs, floating `[K, ..., C]`, shared by all inputs.
      targets: targets of the references, real `[K, ...]`, each with the shape of a prediction.
      chunk_size: number of references evaluated at once; one at a time by default.

    Returns:
      float32 `[B]`, at least 0, in the unit of the targets; higher is more anomalous.

    Raises:
      UserTypeError: `apply_fn` is not a function, `x` or `references` are not floating, `targets` are not real, or
        `chunk_size` is not an integer.
      UserError: the shapes do not match, an array is empty, or `chunk_size` is below 1.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> def f(params, inputs):  # predicts 3 * (reference + residual)
      ...     return 3 * inputs.sum(axis=1)
      >>> x, references, targets = jnp.array([[5.0]]), jnp.array([[1.0], [2.0]]), jnp.array([3.0, 7.0])
      >>> aj.pager.nonconformity(f, None, x, references, targets).tolist()  # max(|3 - 3|, |7 - 6|)
      [1.0]
    """
    _check(apply_fn, x, references, targets, chunk_size)
    examples = explicit.gather_members(references), explicit.gather_members(targets)

    def errors_of(example: tuple[jax.Array, jax.Array]) -> jax.Array:
        return _reverse_errors(apply_fn, params, x, *example)

    return jnp.max(jax.lax.map(errors_of, examples, batch_size=chunk_size), axis=0)


@explicit.within_mesh
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
    """Return Score 2 of reverse anchoring: how far an input must move until training examples are predicted from it.

    The score is `max over r of ‖x - x̄_r‖₂`, where Adam, started at `x`, finds the `x̄_r` that minimizes
    `‖y_r - f([x̄, r - x̄])‖₁ + R(x̄)`. It costs `steps` gradients per pair, and separates inputs that Score 1 cannot.

    Args:
      apply_fn: see `nonconformity`; must be differentiable.
      params: see `nonconformity`.
      x: see `nonconformity`.
      references: see `nonconformity`.
      targets: see `nonconformity`.
      regularizer: `R`, maps inputs `[B, ..., C]` to `[B]`, large off the data manifold, such as the weighted error of
        an autoencoder; none by default, for inputs of few dimensions.
      steps: number of Adam steps, at least 1.
      learning_rate: learning rate of Adam, at least 0: about the largest step, in the unit of the inputs.
      chunk_size: see `nonconformity`.

    Returns:
      float32 `[B]`, at least 0, in the unit of the inputs; higher is more anomalous.

    Raises:
      UserTypeError: see `nonconformity`; also if `regularizer` is not a function, `steps` is not an integer or
        `learning_rate` is not a number.
      UserError: see `nonconformity`; also if `steps` is below 1 or `learning_rate` is below 0.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> def f(params, inputs):  # predicts the reference, here the input itself
      ...     return inputs[:, 0]
      >>> x, references, targets = jnp.array([[0.0], [0.9]]), jnp.array([[5.0]]), jnp.array([1.0])
      >>> near_target = aj.pager.refined_nonconformity(f, None, x, references, targets)
      >>> bool(near_target[0] > near_target[1])  # 0.0 is farther from 1.0 than 0.9 is
      True
    """
    _check(apply_fn, x, references, targets, chunk_size)
    examples = explicit.gather_members(references), explicit.gather_members(targets)
    if regularizer is not None:
        checks.function("regularizer", regularizer)
    steps = checks.count("steps", steps)
    checks.number("learning_rate", learning_rate, 0, float("inf"))
    optimizer = optax.adam(learning_rate)

    @modes.any_promotion
    def descend(gradient: jax.Array, inputs: jax.Array, opt_state: Any) -> tuple[jax.Array, Any]:
        updates, opt_state = optimizer.update(gradient, opt_state)
        return jnp.asarray(optax.apply_updates(inputs, updates)), opt_state

    def distance_of(example: tuple[jax.Array, jax.Array]) -> jax.Array:
        def loss(inputs: jax.Array) -> jax.Array:
            errors = _reverse_errors(apply_fn, params, inputs, *example)
            return jnp.sum(errors if regularizer is None else errors + regularizer(inputs))

        def step(state: Any, _: Any) -> tuple[Any, None]:
            inputs, opt_state = state
            return descend(jax.grad(loss)(inputs), inputs, opt_state), None

        start = jnp.asarray(x)
        state = start, jax.jit(optimizer.init)(start)  # compiled, so that it keeps an explicit sharding
        (inputs, _), _ = jax.lax.scan(step, state, length=steps)
        return jnp.linalg.norm((inputs - x).reshape(len(x), -1).astype(jnp.float32), axis=1)

    return jnp.max(jax.lax.map(distance_of, examples, batch_size=chunk_size), axis=0)


def risk_regimes(
    uncertainty: jax.Array, nonconformity: jax.Array, uncertainty_limit: float, nonconformity_limit: float
) -> jax.Array:
    """Return the risk regime of each input: whether its two scores exceed their limits.

    Args:
      uncertainty: floating `[B]`, from forward anchoring, such as the spread over references.
      nonconformity: floating `[B]`, from reverse anchoring.
      uncertainty_limit: highest uncertainty that counts as low, such as the 95 % quantile over training inputs.
      nonconformity_limit: highest nonconformity that counts as low, such as the 95 % quantile over training inputs.

    Returns:
      int32 `[B]`, values of `Regime`.

    Raises:
      UserTypeError: the scores are not floating, or the limits are not numbers.
      UserError: the shapes differ, are empty, or a limit is below 0.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> aj.pager.risk_regimes(jnp.array([0.1, 0.9, 0.1, 0.9]), jnp.array([1.0, 1.0, 3.0, 3.0]), 0.5, 2.0).tolist()
      [0, 1, 2, 3]
    """
    checks.array("uncertainty", uncertainty, "floating", "[B]")
    checks.array("nonconformity", nonconformity, "floating", "[B]")
    if uncertainty.shape != nonconformity.shape:
        raise UserError(
            f"uncertainty and nonconformity must have the same shape; got {uncertainty.shape} and {nonconformity.shape}"
        )
    checks.number("uncertainty_limit", uncertainty_limit, 0, float("inf"))
    checks.number("nonconformity_limit", nonconformity_limit, 0, float("inf"))
    is_uncertain, is_anomalous = uncertainty > uncertainty_limit, nonconformity > nonconformity_limit
    return jnp.asarray(is_uncertain, jnp.int32) + 2 * jnp.asarray(is_anomalous, jnp.int32)


@explicit.automatic()
@modes.in_32_bits
def regime_errors(regimes: jax.Array, errors: jax.Array, share: float = 0.2) -> RegimeErrors:
    """Measure how well the regimes of a test set match its true errors.

    "Large" means above the quantile `1 - share` and "small" below the quantile `share`: of all errors for the false
    negatives and false positives, of the errors in one regime for the confusions,
    `C_low = Q_large(ID) / Q_small(LOW)` and `C_high = Q_large(MODERATE) / Q_small(HIGH)`.

    Args:
      regimes: integer `[B]`, as returned by `risk_regimes`.
      errors: floating `[B]`, true errors, at least 0.
      share: fraction of errors that counts as large, and as small; in [0, 0.5].

    Returns:
      `RegimeErrors`.

    Raises:
      UserTypeError: `regimes` or `errors` have another dtype, or `share` is not a number.
      UserError: the shapes differ, are empty, or `share` is out of range.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> regimes, errors = jnp.array([0, 1, 2, 3]), jnp.array([1.0, 2.0, 4.0, 8.0])
      >>> measured = aj.pager.regime_errors(regimes, errors)
      >>> measured.confusion_low.item(), measured.confusion_high.item()
      (0.5, 0.5)
    """
    checks.array("regimes", regimes, "real", "[B]")
    checks.array("errors", errors, "floating", "[B]")
    if regimes.shape != errors.shape:
        raise UserError(f"regimes and errors must have the same shape; got {regimes.shape} and {errors.shape}")
    checks.number("share", share, 0, 0.5)
    return _regime_errors(regimes, jnp.asarray(errors, jnp.float32), small=share, large=1 - share)


@jax.jit  # the errors of other regimes are NaN, which `jax_debug_nans` would reject outside of a compiled function
def _regime_errors(regimes: jax.Array, errors: jax.Array, small: Any, large: Any) -> RegimeErrors:
    is_trusted = regimes <= Regime.LOW

    def quantile(regime: Regime, level: Any) -> jax.Array:
        return jnp.nanquantile(jnp.where(regimes == regime, errors, jnp.nan), level)

    def fraction(group: jax.Array, selected: jax.Array) -> jax.Array:
        return jnp.sum(group & selected) / jnp.sum(group, dtype=jnp.float32)

    return RegimeErrors(
        fraction(is_trusted, errors > jnp.quantile(errors, large)),
        fraction(~is_trusted, errors < jnp.quantile(errors, small)),
        quantile(Regime.ID, large) / quantile(Regime.LOW, small),
        quantile(Regime.MODERATE, large) / quantile(Regime.HIGH, small),
    )


def _reverse_errors(apply_fn: Apply, params: Any, x: jax.Array, reference: jax.Array, target: jax.Array) -> jax.Array:
    """Return `‖y_r - f([x, r - x])‖₁` of one training example for every input, `[B]`."""
    outputs = anchored(apply_fn)(params, jnp.broadcast_to(reference, x.shape).astype(x.dtype), x)
    checks.array("output of apply_fn", outputs, "real", "[B, ...]")
    if outputs.shape != (len(x), *target.shape):
        raise UserError(f"output of apply_fn must have shape {(len(x), *target.shape)}; got {outputs.shape}")
    distances = jnp.abs(target[None].astype(jnp.float32) - outputs.astype(jnp.float32))
    return jnp.sum(distances.reshape(len(x), -1), axis=1)


def _check(apply_fn: Any, x: jax.Array, references: jax.Array, targets: jax.Array, chunk_size: int | None) -> None:
    checks.function("apply_fn", apply_fn)
    checks.model_inputs("x", x, "[B, ..., C]")
    checks.model_inputs("references", references, "[K, ..., C]")
    checks.array("targets", targets, "real", "[K, ...]")
    if references.shape[1:] != x.shape[1:]:
        raise UserError(
            f"references {references.shape} do not match inputs {x.shape}: all but the first axis must agree"
        )
    if len(targets) != len(references):
        raise UserError(f"targets must be one for each of {len(references)} references; got shape {targets.shape}")
    if chunk_size is not None:
        checks.count("chunk_size", chunk_size)
