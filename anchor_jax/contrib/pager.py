"""PAGER: risk regimes of a regression model, from the uncertainty of a prediction and the nonconformity of its input.

Forward anchoring predicts an input from references: `anchor_jax.predict`, whose spread is the uncertainty. Reverse
anchoring swaps the roles: the input is the reference from which the network predicts a training example whose target is
known. For inputs far from the training data this fails, even where forward predictions agree.

Pure functions of arrays that work with any model, under `jit` and `vmap`. Letters: B inputs, K training examples used
as references (about 100 in the paper), D outputs.

Source: *PAGER: Accurate Failure Characterization in Deep Regression Models*, ICML 2024 (arXiv 2309.10977). Details that
its text leaves open are arguments here, or are marked as decisions of this code, which was not compared with the
authors' code.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from anchor_jax.contrib.regimes import Regime, RegimeErrors, regime_errors, risk_regimes, score_limits
from anchor_jax.core import checks, explicit, modes
from anchor_jax.core.anchoring import anchored
from anchor_jax.core.errors import UserError, UserTypeError
from anchor_jax.core.types import Apply

__all__ = [
    "Regime",
    "RegimeErrors",
    "cyclic_reconstruction",
    "nonconformity",
    "refined_nonconformity",
    "regime_errors",
    "risk_regimes",
    "score_limits",
]


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
    chunk_size = _check(apply_fn, x, references, targets, chunk_size)
    examples = explicit.gather_members(references), explicit.gather_members(targets)
    inputs = jnp.asarray(x)

    def errors_of(example: tuple[jax.Array, jax.Array]) -> jax.Array:
        return _reverse_errors(apply_fn, params, inputs, *example)

    return jnp.max(jax.lax.map(errors_of, examples, batch_size=chunk_size), axis=0)


@explicit.within_mesh
def refined_nonconformity(
    apply_fn: Apply,
    params: Any,
    x: jax.Array,
    references: jax.Array,
    targets: jax.Array,
    *,
    regularizer: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    weight: float = 1.0,
    steps: int = 100,
    learning_rate: float = 0.1,
    chunk_size: int | None = None,
) -> jax.Array:
    """Return Score 2 of reverse anchoring: how far an input must move until training examples are predicted from it.

    The score is `max over r of ‖x - x̄_r‖₂`, where `x̄_r` minimizes `‖y_r - f([x̄, r - x̄])‖₁ + λ·R(x̄, x)`. In the paper,
    `R` is `cyclic_reconstruction`, which keeps `x̄` where an anchored autoencoder is valid.

    How it is minimized is a decision of this code: Adam starts at `x`, its learning rate decays to 0 by a cosine, and
    `x̄_r` is the best point on its way. It is a local search, and costs `steps` gradients per pair.

    Args:
      apply_fn: see `nonconformity`; must be differentiable.
      params: see `nonconformity`.
      x: see `nonconformity`.
      references: see `nonconformity`.
      targets: see `nonconformity`.
      regularizer: `R`, maps moved inputs and inputs, `[B, ..., C]` each, to `[B]`, such as
        `functools.partial(cyclic_reconstruction, autoencoder, autoencoder_params)`; 0 by default, for inputs of few
        dimensions.
      weight: `λ`, at least 0.
      steps: number of Adam steps, at least 1.
      learning_rate: learning rate of Adam at the first step, at least 0, in the unit of the inputs. Each feature moves
        by about `learning_rate * steps / 2` at most.
      chunk_size: see `nonconformity`.

    Returns:
      float32 `[B]`, at least 0, in the unit of the inputs; higher is more anomalous. Not finite where the minimized
      function is not.

    Raises:
      UserTypeError: see `nonconformity`; also if `regularizer` is not a function of two arguments, `steps` is not an
        integer, or `weight` or `learning_rate` is not a number.
      UserError: see `nonconformity`; also if `steps` is below 1, or `weight` or `learning_rate` is below 0.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> def f(params, inputs):  # predicts the reference, here the input itself
      ...     return inputs[:, 0]
      >>> x, references, targets = jnp.array([[0.0], [0.9]]), jnp.array([[5.0]]), jnp.array([1.0])
      >>> print(aj.pager.refined_nonconformity(f, None, x, references, targets).round(1))  # to the target, 1.0
      [1.  0.1]
    """
    chunk_size = _check(apply_fn, x, references, targets, chunk_size)
    examples = explicit.gather_members(references), explicit.gather_members(targets)
    if regularizer is not None:
        _check_regularizer(regularizer)
    checks.number("weight", weight, 0, float("inf"))
    steps = checks.count("steps", steps)
    checks.number("learning_rate", learning_rate, 0, float("inf"))
    start = jnp.asarray(x)

    def distance_of(example: tuple[jax.Array, jax.Array]) -> jax.Array:
        def objective(moved: jax.Array) -> jax.Array:
            errors = _reverse_errors(apply_fn, params, moved, *example)
            if regularizer is None:
                return errors
            return errors + jnp.asarray(weight, jnp.float32) * _penalties(regularizer, moved, start)

        moved, values = _minimize(objective, start, learning_rate, steps)
        return jnp.where(jnp.isfinite(values), _norms(moved - start), values)

    return jnp.max(jax.lax.map(distance_of, examples, batch_size=chunk_size), axis=0)


@explicit.within_mesh
def cyclic_reconstruction(apply_fn: Apply, params: Any, moved: jax.Array, x: jax.Array) -> jax.Array:
    """Return the regularizer of Score 2, `R(x̄, x) = ‖x - A([x̄, x - x̄])‖₂ + ‖x̄ - A([x, x̄ - x])‖₂`.

    `A` is an anchored autoencoder: trained like any anchored network, with the input itself as target, it reconstructs
    an input from a reference and the residual. Each of the two points is reconstructed with the other as reference. The
    norm is a decision of this code.

    Args:
      apply_fn: `A(params, anchored_inputs) -> reconstructions`, `[B, ..., 2C]` to `[B, ..., C]`; any function, see
        `anchor_jax.predict`.
      params: passed to `apply_fn`.
      moved: `x̄`, floating `[B, ..., C]`.
      x: inputs, floating `[B, ..., C]`.

    Returns:
      float32 `[B]`, at least 0. Its gradient is finite, also for a perfect reconstruction.

    Raises:
      UserTypeError: `apply_fn` is not a function, or `moved` or `x` is not floating.
      UserError: the shapes do not match, an array is empty, or the reconstructions have another shape.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> def autoencoder(params, inputs):  # reconstructs the reference, whatever the residual is
      ...     return inputs[:, :2]
      >>> aj.pager.cyclic_reconstruction(autoencoder, None, jnp.array([[3.0, 4.0]]), jnp.zeros((1, 2))).tolist()
      [10.0]
    """
    checks.function("apply_fn", apply_fn)
    checks.model_inputs("moved", moved, "[B, ..., C]")
    checks.model_inputs("x", x, "[B, ..., C]")
    if moved.shape != x.shape:
        raise UserError(f"moved and x must have the same shape; got {moved.shape} and {x.shape}")

    def error(inputs: jax.Array, references: jax.Array) -> jax.Array:
        outputs = anchored(apply_fn)(params, inputs, references)
        checks.array("output of apply_fn", outputs, "floating", "[B, ...]")
        if outputs.shape != inputs.shape:
            raise UserError(f"output of apply_fn must have the shape of its input, {inputs.shape}; got {outputs.shape}")
        return _norms(inputs.astype(jnp.float32) - outputs.astype(jnp.float32))

    return error(x, moved) + error(moved, x)


def _reverse_errors(apply_fn: Apply, params: Any, x: jax.Array, reference: jax.Array, target: jax.Array) -> jax.Array:
    """Return `‖y_r - f([x, r - x])‖₁` of one training example for every input, `[B]`."""
    outputs = anchored(apply_fn)(params, jnp.broadcast_to(reference, x.shape).astype(x.dtype), x)
    checks.array("output of apply_fn", outputs, "real", "[B, ...]")
    if outputs.shape != (len(x), *target.shape):
        raise UserError(f"output of apply_fn must have shape {(len(x), *target.shape)}; got {outputs.shape}")
    distances = jnp.abs(target[None].astype(jnp.float32) - outputs.astype(jnp.float32))
    return jnp.sum(distances.reshape(len(x), -1), axis=1)


def _penalties(regularizer: Callable[[jax.Array, jax.Array], jax.Array], moved: jax.Array, x: jax.Array) -> jax.Array:
    penalties = regularizer(moved, x)
    checks.array("output of regularizer", penalties, "real", "[...]")
    if penalties.shape != (len(x),):
        raise UserError(f"output of regularizer must have shape {(len(x),)}; got {penalties.shape}")
    return penalties.astype(jnp.float32)


def _minimize(
    objective: Callable[[jax.Array], jax.Array], start: jax.Array, learning_rate: float, steps: int
) -> tuple[jax.Array, jax.Array]:
    """Return the best points `[B, ..., C]` on the way of Adam, and their values `[B]`; `objective` maps rows alone."""
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    def total(points: jax.Array) -> tuple[jax.Array, jax.Array]:
        values = objective(points)
        return jnp.sum(values), values

    @modes.any_promotion
    def descend(gradient: jax.Array, points: jax.Array, opt_state: Any) -> tuple[jax.Array, Any]:
        updates, opt_state = optimizer.update(gradient, opt_state)
        return jnp.asarray(optax.apply_updates(points, updates)), opt_state

    def keep_better(best: tuple[jax.Array, jax.Array], points: jax.Array, values: jax.Array) -> Any:
        best_points, best_values = best
        is_better = values < best_values
        rows = jnp.reshape(is_better, (len(points),) + (1,) * (points.ndim - 1))
        return jnp.where(rows, points, best_points), jnp.where(is_better, values, best_values)

    def step(state: Any, _: Any) -> tuple[Any, None]:
        points, opt_state, best = state
        (_, values), gradient = jax.value_and_grad(total, has_aux=True)(points)
        best = keep_better(best, points, values)
        return (*descend(gradient, points, opt_state), best), None

    opt_state = jax.jit(optimizer.init)(start)  # compiled, so that it keeps an explicit sharding
    state = start, opt_state, (start, objective(start))
    (points, _, best), _ = jax.lax.scan(step, state, length=steps)
    return keep_better(best, points, objective(points))


def _norms(differences: jax.Array) -> jax.Array:
    """Return the Euclidean norm of each row as float32 `[B]`; its gradient at 0 is 0."""
    rows = explicit.reshape_rows(differences, (len(differences), differences.size // len(differences)))
    return optax.safe_norm(rows.astype(jnp.float32), 0.0, axis=1)


def _check(
    apply_fn: Any, x: jax.Array, references: jax.Array, targets: jax.Array, chunk_size: int | None
) -> int | None:
    """Check the arguments of a score, and return the chunk size as a plain integer."""
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
    return None if chunk_size is None else checks.count("chunk_size", chunk_size)


def _check_regularizer(regularizer: Any) -> None:
    checks.function("regularizer", regularizer)
    try:
        inspect.signature(regularizer).bind(None, None)
    except TypeError as error:
        raise UserTypeError(
            f"regularizer must be a function of two arguments, moved inputs and inputs; got {regularizer!r}: {error}"
        ) from error
    except ValueError:  # a builtin, which has no signature
        return
