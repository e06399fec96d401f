"""Inference over K references: means, spreads and class probabilities.

Pure functions of arrays; the result for an input does not depend on the other inputs of its batch. Letters: B inputs, K
references, C channels or classes.
"""

# JAX leaves some parameters unannotated, such as `device` of `jnp.asarray`
# pyright: reportUnknownMemberType=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from anchor_jax.core import checks, explicit
from anchor_jax.core.anchoring import anchor
from anchor_jax.core.errors import UserError, UserTypeError
from anchor_jax.core.layout import check_layout, transposition
from anchor_jax.core.model_calls import call_model
from anchor_jax.core.moments import mean_and_std
from anchor_jax.core.results import Classification, Prediction, VotedClassification, anomaly_scores
from anchor_jax.core.split_model import (
    EncodedReferences,
    SplitModel,
    apply_first_layer,
    check_rows,
    encode_references,
)
from anchor_jax.core.transduction import transductive_references, transductive_rows
from anchor_jax.core.types import AnyArray, Apply, Members, Params
from anchor_jax.core.uncertainty import information_gain, predictive_entropy

__all__ = [
    "TEMPERS",
    "Apply",
    "Classification",
    "EncodedReferences",
    "Prediction",
    "SplitModel",
    "VotedClassification",
    "anomaly_scores",
    "classify",
    "classify_ensemble",
    "classify_with_votes",
    "encode_references",
    "predict",
    "predict_ensemble",
    "single_vote",
    "transductive_references",
    "transductive_rows",
]

TEMPERS = (None, "duq")


def single_vote(logits: Float[AnyArray, "batch classes"]) -> VotedClassification:
    """Return the classification of a network that is evaluated once, with a single reference or without any.

    Args:
      logits: floating `[B, C]`.

    Returns:
      A classification without spread, and an agreement of 1.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> voted = aj.inference.single_vote(jnp.zeros((1, 2)))
      >>> voted.classification.probs.tolist(), voted.agreement.tolist()
      ([[0.5, 0.5]], [1.0])
    """
    logits = jnp.asarray(logits, jnp.float32)
    probs, num = jax.nn.softmax(logits), logits.shape[0]
    entropy, mutual_information = predictive_entropy(probs), jnp.zeros(num, jnp.float32)
    classification = Classification(logits, probs, None, entropy, mutual_information)
    return VotedClassification(classification, jnp.ones(num, jnp.float32))


@explicit.within_mesh
def predict(
    apply_fn: Apply | SplitModel,
    params: Params,
    x: Float[AnyArray, "batch *features"],
    references: Float[AnyArray, "references *features"] | EncodedReferences,
    *,
    chunk_size: int | None = None,
) -> Prediction:
    """Return the mean and the spread of a model's outputs over K references.

    Args:
      apply_fn: `f(params, anchored_inputs) -> outputs`, `[B, ..., 2C]` to `[B, ...]`. Each output must depend on its
        own input alone (BatchNorm with running statistics, no dropout). A `SplitModel` costs less and returns the same
        result up to rounding.
      params: passed to `apply_fn`.
      x: inputs, floating `[B, ..., C]`, normalized.
      references: floating `[K, ..., C]`, K at least 1, shared by all inputs; or the result of `encode_references`.
      chunk_size: number of references evaluated at once, at least 1; all by default. Memory is proportional to it, and
        does not grow with K except for the references themselves, which a `SplitModel` encodes.

    Returns:
      `Prediction`; `std` is None if K is 1.

    Raises:
      UserTypeError: `apply_fn` is not a function or does not return an array, `x` or the references are not floating
        or of a dtype that the model does not mix with that of its parameters, or `chunk_size` is not an integer.
      UserError: K or `chunk_size` is below 1, the references do not match the inputs, images seem to have their
        channels first, the model takes C channels instead of 2C, or the outputs are not `[B, ...]`.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> def f(params, inputs):  # returns the sum of the reference and twice the residual
      ...     return inputs @ params
      >>> x, references = jnp.array([[5.0]]), jnp.array([[1.0], [2.0], [3.0]])
      >>> prediction = aj.predict(f, jnp.array([1.0, 2.0]), x, references)
      >>> prediction.mean.tolist(), prediction.std.tolist()
      ([8.0], [1.0])
    """
    _check(apply_fn, x, references, chunk_size)
    ensemble = _bind(apply_fn, params, x, references)
    return predict_ensemble(ensemble.output_of, ensemble.members, chunk_size=chunk_size)


@explicit.within_mesh
def predict_ensemble(output_of: Callable[[Any], Any], members: Members, *, chunk_size: int | None = None) -> Prediction:
    """Return the mean and the spread of one batch of outputs over the members of an ensemble.

    Args:
      output_of: function of one member; returns its outputs, floating `[B, ...]`.
      members: `[K, ...]`, or a tree of such arrays: whatever distinguishes the members, such as references, dropout
        keys or stacked parameters.
      chunk_size: number of members evaluated at once, all by default.

    Returns:
      `Prediction`; `std` is None if K is 1.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> x = jnp.array([1.0, 2.0])
      >>> prediction = aj.inference.predict_ensemble(lambda slope: slope * x, jnp.array([1.0, 3.0]))
      >>> prediction.mean.tolist()
      [2.0, 4.0]
    """

    def widened(output: Any) -> Array:
        return jnp.asarray(output, jnp.float32)

    def outputs(member: Any) -> Any:
        return jax.tree.map(widened, output_of(member))

    return Prediction(*mean_and_std(outputs, members, chunk_size))


def classify(
    apply_fn: Apply | SplitModel,
    params: Params,
    x: Float[AnyArray, "batch *features"],
    references: Float[AnyArray, "references *features"] | EncodedReferences,
    *,
    chunk_size: int | None = None,
    temper: Literal["duq"] | None = None,
) -> Classification:
    """Return class probabilities and their uncertainty over K references, in a single pass.

    Args:
      apply_fn: `f(params, anchored_inputs) -> logits`, `[B, ..., 2C]` to `[B, classes]`; see `predict`.
      params: passed to `apply_fn`.
      x: inputs, floating `[B, ..., C]`, normalized.
      references: floating `[K, ..., C]`, K at least 1, shared by all inputs; or the result of `encode_references`.
      chunk_size: number of references evaluated at once, at least 1; all by default. See `predict`.
      temper: "duq" divides the mean logits by `1 + exp(mean over classes of the std of sigmoid(logits))` and computes
        `probs` and `entropy` from them, as the released code does (`ImageNet/wrapper.py`). The spread and the mutual
        information remain those of the untempered softmaxes. With a single reference there is no spread, and the logits
        are not tempered.

    Returns:
      `Classification`; `probs_std` is None if K is 1.

    Raises:
      UserTypeError: see `predict`.
      UserError: see `predict`; also if the outputs are not logits `[B, classes]`, or `temper` is unknown.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> def f(params, inputs):  # logits are the reference
      ...     return inputs[:, :2]
      >>> x, references = jnp.zeros((1, 2)), jnp.array([[100.0, 0.0], [0.0, 100.0]])
      >>> classification = aj.classify(f, None, x, references)  # the references disagree completely
      >>> classification.probs.tolist()
      [[0.5, 0.5]]
      >>> print(f"{classification.mutual_information[0]:.3f}")  # ln 2
      0.693
    """
    return classify_with_votes(apply_fn, params, x, references, chunk_size=chunk_size, temper=temper).classification


@explicit.within_mesh
def classify_with_votes(
    apply_fn: Apply | SplitModel,
    params: Params,
    x: Float[AnyArray, "batch *features"],
    references: Float[AnyArray, "references *features"] | EncodedReferences,
    *,
    chunk_size: int | None = None,
    temper: Literal["duq"] | None = None,
) -> VotedClassification:
    """Return the result of `classify` and the share of references that agree on a class, in the same pass.

    Args:
      apply_fn: see `classify`.
      params: see `classify`.
      x: see `classify`.
      references: see `classify`.
      chunk_size: see `classify`.
      temper: see `classify`.

    Returns:
      `VotedClassification`.

    Raises:
      UserTypeError: see `classify`.
      UserError: see `classify`.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> def f(params, inputs):  # logits are the reference
      ...     return inputs[:, :2]
      >>> x, references = jnp.zeros((1, 2)), jnp.array([[4.0, 0.0], [3.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
      >>> aj.inference.classify_with_votes(f, None, x, references).agreement.tolist()
      [0.75]
    """
    _check(apply_fn, x, references, chunk_size)
    checks.choice("temper", temper, TEMPERS)
    ensemble = _bind(apply_fn, params, x, references)
    return classify_ensemble(ensemble.output_of, ensemble.members, chunk_size=chunk_size, temper=temper)


@explicit.within_mesh
def classify_ensemble(
    logits_of: Callable[[Any], Array],
    members: Members,
    *,
    chunk_size: int | None = None,
    temper: Literal["duq"] | None = None,
) -> VotedClassification:
    """Return class probabilities, their uncertainty and the agreement of the members of any ensemble.

    The members may be references, dropout keys, or networks of a deep ensemble.

    Args:
      logits_of: function of one member; returns the logits of one batch of inputs, floating `[B, C]`.
      members: `[K, ...]`, or a tree of such arrays: whatever distinguishes the members.
      chunk_size: number of members evaluated at once, all by default.
      temper: see `classify`.

    Returns:
      `VotedClassification`.

    Raises:
      UserError: the outputs are not logits `[B, C]`.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> logits = jnp.array([[1.0, 0.0], [0.0, 1.0]])  # of two inputs, by a network that each member scales
      >>> voted = aj.inference.classify_ensemble(lambda scale: scale * logits, jnp.array([1.0, 2.0, 3.0, -1.0]))
      >>> voted.agreement.tolist()
      [0.75, 0.75]
    """

    def outputs(member: Any) -> dict[str, Array]:
        logits = jnp.asarray(logits_of(member), jnp.float32)
        if logits.ndim != 2:
            raise UserError(f"output of apply_fn must be logits [B, C]; got shape {logits.shape}")
        probs = jax.nn.softmax(logits)
        vote = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=jnp.float32)
        values = {"logits": logits, "probs": probs, "entropy": predictive_entropy(probs), "vote": vote}
        return values | {"sigmoid": jax.nn.sigmoid(logits)} if temper else values

    mean, std = mean_and_std(outputs, members, chunk_size)
    gain = information_gain(predictive_entropy(mean["probs"]), mean["entropy"])
    logits, probs = mean["logits"], mean["probs"]
    if temper and std is not None:
        logits = logits / (1 + jnp.exp(jnp.mean(std["sigmoid"], axis=-1, keepdims=True)))
        probs = jax.nn.softmax(logits)
    classification = Classification(logits, probs, std and std["probs"], predictive_entropy(probs), gain)
    return VotedClassification(classification, jnp.max(mean["vote"], axis=-1))


class _Ensemble(NamedTuple):
    """A model bound to one batch of inputs: its outputs as a function of a member, and the K members."""

    output_of: Callable[[Array], Array]
    members: AnyArray  # [K, ...], references or their encoded features


def _bind(
    apply_fn: Apply | SplitModel, params: Params, x: AnyArray, references: AnyArray | EncodedReferences
) -> _Ensemble:
    if isinstance(references, EncodedReferences):
        assert isinstance(apply_fn, SplitModel)  # checked
        return _bind_split_model(apply_fn, params, x, references)
    references = references.astype(jnp.result_type(x))  # NumPy's float64 is float32 in JAX
    if isinstance(apply_fn, SplitModel):
        return _bind_split_model(apply_fn, params, x, encode_references(apply_fn, params, references))

    def output_of(reference: Array) -> Array:
        outputs = call_model("apply_fn", apply_fn, params, anchor(x, jnp.broadcast_to(reference, x.shape)))
        return _float32_rows("apply_fn", outputs, x.shape[0])

    return _Ensemble(output_of, references)


def _bind_split_model(model: SplitModel, params: Params, x: AnyArray, encoded: EncodedReferences) -> _Ensemble:
    features = apply_first_layer(model, params, anchor(x, jnp.zeros_like(x)))
    if encoded.features.shape[1:] != features.shape[1:]:
        raise UserError(
            f"encoded references {encoded.features.shape} do not match the features of the inputs {features.shape}: "
            "all but the first axis must agree"
        )

    def output_of(reference_features: Array) -> Array:
        return _float32_rows("rest", model.rest(params, features + reference_features[None]), x.shape[0])

    return _Ensemble(output_of, encoded.features)


def _float32_rows(name: str, outputs: Array, num: Any) -> Array:
    check_rows(name, outputs, num)
    return outputs.astype(jnp.float32)


def _check(apply_fn: Any, x: AnyArray, references: AnyArray | EncodedReferences, chunk_size: int | None) -> None:
    checks.function("apply_fn", apply_fn)
    checks.model_inputs("x", x, "[B, ..., C]")
    if chunk_size is not None:
        checks.count("chunk_size", chunk_size)
    if isinstance(references, EncodedReferences):
        if not isinstance(apply_fn, SplitModel):
            raise UserTypeError("apply_fn must be the SplitModel that encoded the references; got a plain function")
        checks.array("references.features", references.features, "floating", "[K, ...]")
    else:
        checks.model_inputs("references", references, "[K, ...]")
        check_layout("references", references.shape)
        if references.shape[1:] != x.shape[1:]:
            raise UserError(
                f"references {references.shape} do not match inputs {x.shape}: all but the first axis must agree"
                + transposition("references", references.shape, x.shape)
            )
