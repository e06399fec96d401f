"""Inference over references: K-reference averages, and bilinear transduction (BLT).

Pure functions of arrays on JAX alone; nothing here depends on the other examples of a batch. Letters:
B inputs, K references of a prediction, M references in a bank, D residuals, C channels or classes.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from anchor_jax.core import checks
from anchor_jax.core.anchoring import anchor, check_floating
from anchor_jax.core.errors import UserError, UserTypeError
from anchor_jax.core.uncertainty import deviation, information_gain, predictive_entropy

Apply = Callable[[Any, jax.Array], jax.Array]

TEMPERS = (None, "duq")

_RESIDUALS_AT_ONCE = 16  # in the search of BLT


@dataclasses.dataclass(frozen=True)
class SplitModel:
    """A model cut after its first layer, which is linear: K references then cost that layer B + K inputs, not B·K.

    For a layer of weights `W`, `W·[r, x - r] = W·[0, x] + W·[r, -r]`: one part of the input, one of the reference.
    No anchored input of a pair is ever built.
    """

    first_layer: Apply  # (params, anchored inputs [B, ..., 2C]) -> features [B, ...]; linear but for a constant (bias)
    rest: Apply  # (params, features [B, ...]) -> outputs [B, ...]

    def __post_init__(self):
        checks.function("first_layer", self.first_layer)
        checks.function("rest", self.rest)

    def __call__(self, params: Any, inputs: jax.Array) -> jax.Array:
        """The whole model on anchored inputs."""
        return self.rest(params, self.first_layer(params, inputs))


class EncodedReferences(NamedTuple):
    """What the first layer of a `SplitModel` makes of K references: the same for every batch of inputs."""

    features: jax.Array  # [K, ...]


class Prediction(NamedTuple):
    """Outputs of K references."""

    mean: jax.Array  # float32 [B, ...]
    std: jax.Array | None  # float32 [B, ...], unbiased (K - 1), at least 0; None when K == 1


class Classification(NamedTuple):
    """Class predictions of K references."""

    logits: jax.Array  # float32 [B, C], mean over references
    probs: jax.Array  # float32 [B, C], mean of the softmaxes
    probs_std: jax.Array | None  # float32 [B, C], unbiased spread of the softmaxes; None when K == 1
    entropy: jax.Array  # float32 [B], of probs, in [0, ln C] nats; higher is less certain
    mutual_information: jax.Array  # float32 [B], in [0, ln C] nats; higher is less certain; 0 when K == 1


class VotedClassification(NamedTuple):
    """Class predictions of K references, and how far they agree."""

    classification: Classification
    agreement: jax.Array  # float32 [B], in [1/K, 1], largest share of references that say one class


def single_vote(logits: jax.Array) -> VotedClassification:
    """The poll of a network that is asked once, without references or with one: floating logits `[B, C]`."""
    probs, num = jax.nn.softmax(logits), logits.shape[0]
    return VotedClassification(
        Classification(logits, probs, None, predictive_entropy(probs), jnp.zeros(num)), jnp.ones(num)
    )


def encode_references(model: SplitModel, params: Any, references: jax.Array) -> EncodedReferences:
    """The references' part of the first layer, computed once for many calls of `predict` and `classify`.

    Args:
      model: the model that will be asked.
      params: of the model.
      references: floating `[K, ..., C]`, K at least 1.

    Raises:
      UserTypeError: `model` is no `SplitModel`, or the references are not floating.
      UserError: K is below 1, or the first layer gives something else than features `[K, ...]`.
    """
    checks.instance("model", model, SplitModel, "anchor_jax.SplitModel(first_layer, rest)")
    check_floating("references", references, "[K, ..., C]")
    anchored = anchor(jnp.zeros_like(references), references)
    constant = _first_layer(model, params, jnp.zeros_like(anchored[:1]))
    return EncodedReferences(_first_layer(model, params, anchored) - constant)


def predict(
    apply_fn: Apply | SplitModel,
    params: Any,
    x: jax.Array,
    references: jax.Array | EncodedReferences,
    *,
    chunk_size: int | None = None,
) -> Prediction:
    """Mean and spread of a model's output over K references.

    Args:
      apply_fn: `f(params, anchored inputs [B, ..., 2C]) -> [B, ...]`, without dependence on the batch
        (BatchNorm with running statistics, no dropout); as a `SplitModel` it costs less, and agrees but for rounding.
      params: passed to `apply_fn`.
      x: normalised inputs, floating `[B, ..., C]`.
      references: floating `[K, ..., C]`, K at least 1, the same for every input; or what `encode_references`
        made of them.
      chunk_size: references evaluated at once, all by default; memory grows with it, with K only as far as the
        references, encoded by a `SplitModel`, are held.

    Raises:
      UserTypeError: `apply_fn` is no function, or gives no array; `x` or the references are not floating, or
        `chunk_size` is no integer.
      UserError: K or `chunk_size` is below 1, the references do not fit the inputs, or the outputs are not `[B, ...]`.
    """
    _check(apply_fn, x, references, chunk_size)
    outputs, references = _by_reference(apply_fn, params, x, references)
    return predict_ensemble(outputs, references, chunk_size=chunk_size)


def predict_ensemble(
    output_of: Callable[[jax.Array], jax.Array], members: jax.Array, *, chunk_size: int | None = None
) -> Prediction:
    """Mean and spread of what any members say of one batch of inputs; see `poll_members`.

    Args:
      output_of: a member -> its outputs, floating `[B, ...]`.
      members: `[K, ...]`, what tells them apart.
      chunk_size: members asked at once, all by default.
    """
    return Prediction(*_over_references(output_of, members, chunk_size))


def classify(
    apply_fn: Apply | SplitModel,
    params: Any,
    x: jax.Array,
    references: jax.Array | EncodedReferences,
    *,
    chunk_size: int | None = None,
    temper: Literal["duq"] | None = None,
) -> Classification:
    """Class probabilities and their uncertainty over K references, in one pass.

    Args:
      apply_fn: `f(params, anchored inputs [B, ..., 2C]) -> logits [B, C]`, see `predict`.
      params: passed to `apply_fn`.
      x: normalised inputs, floating `[B, ..., C]`.
      references: floating `[K, ..., C]`, K at least 1, the same for every input; or what `encode_references`
        made of them.
      chunk_size: references evaluated at once, all by default; memory grows with it, with K only as far as the
        references, encoded by a `SplitModel`, are held.
      temper: "duq" divides the mean logits by `1 + exp(mean over classes of the std of sigmoid(logits))`
        and takes `probs` and `entropy` from them, as the released code does (`ImageNet/wrapper.py`);
        the spread and the mutual information stay those of the untempered softmaxes. One reference has
        no spread and is not tempered.

    Raises:
      UserTypeError: as `predict`.
      UserError: as `predict`, the outputs are not logits `[B, C]`, or `temper` is unknown.
    """
    return classify_with_votes(apply_fn, params, x, references, chunk_size=chunk_size, temper=temper).classification


def classify_with_votes(
    apply_fn: Apply | SplitModel,
    params: Any,
    x: jax.Array,
    references: jax.Array | EncodedReferences,
    *,
    chunk_size: int | None = None,
    temper: Literal["duq"] | None = None,
) -> VotedClassification:
    """As `classify`, and how far the references agree on a class, in the same pass."""
    _check(apply_fn, x, references, chunk_size)
    checks.choice("temper", temper, TEMPERS)
    logits_of, references = _by_reference(apply_fn, params, x, references)
    return classify_ensemble(logits_of, references, chunk_size=chunk_size, temper=temper)


def classify_ensemble(
    logits_of: Callable[[jax.Array], jax.Array],
    members: jax.Array,
    *,
    chunk_size: int | None = None,
    temper: Literal["duq"] | None = None,
) -> VotedClassification:
    """What any members say of one batch of inputs: references, keys of dropout, networks of an ensemble.

    Args:
      logits_of: a member -> its logits, floating `[B, C]`.
      members: `[K, ...]`, what tells them apart.
      chunk_size: members asked at once, all by default.
      temper: see `classify`.

    Raises:
      UserError: the outputs are not logits `[B, C]`.
    """

    def outputs(member):
        logits = logits_of(member)
        if logits.ndim != 2:
            raise UserError(f"what apply_fn gives must be logits [B, C], got shape {logits.shape}")
        probs = jax.nn.softmax(logits)
        vote = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])
        values = {"logits": logits, "probs": probs, "entropy": predictive_entropy(probs), "vote": vote}
        return values | {"sigmoid": jax.nn.sigmoid(logits)} if temper else values

    mean, std = _over_references(outputs, members, chunk_size)
    gain = information_gain(predictive_entropy(mean["probs"]), mean["entropy"])
    logits, probs = mean["logits"], mean["probs"]
    if temper and std is not None:
        logits = logits / (1 + jnp.exp(jnp.mean(std["sigmoid"], axis=-1, keepdims=True)))
        probs = jax.nn.softmax(logits)
    classification = Classification(logits, probs, std and std["probs"], predictive_entropy(probs), gain)
    return VotedClassification(classification, jnp.max(mean["vote"], axis=-1))


def transductive_references(x: jax.Array, bank: jax.Array, residuals: jax.Array) -> jax.Array:
    """Bilinear transduction (BLT): for each input the reference whose residual was most nearly seen in training.

    The reference `r` of the bank, over all training residuals `d`, with the least `‖x - r - d‖²`. Expanded,
    no image-sized work is left in the search: `x·r`, `x·d` and `r·d` once, then a minimum over `d` for every
    pair of input and reference, a few residuals at a time. Memory is `B·(M + D) + M·D`; call it with all
    inputs at once, since `r·d` is the same for all.

    Args:
      x: inputs, floating `[B, ..., C]`.
      bank: references, floating `[M, ..., C]`.
      residuals: `x - r` of pairs seen in training, floating `[D, ..., C]`.

    Returns:
      References `[B, ..., C]`, rows of the bank.

    Raises:
      UserTypeError: one of the arrays is not floating.
      UserError: one is empty, or their examples differ in shape.
    """
    rows = transductive_rows(x, bank, residuals)
    return jnp.asarray(bank)[rows]


def transductive_rows(x: jax.Array, bank: jax.Array, residuals: jax.Array) -> jax.Array:
    """As `transductive_references`, the rows of the bank instead of their images: int32 `[B]`."""
    for name, rows, letter in (("x", x, "B"), ("bank", bank, "M"), ("residuals", residuals, "D")):
        check_floating(name, rows, f"[{letter}, ...]")
    if not (x.shape[1:] == bank.shape[1:] == residuals.shape[1:]):
        raise UserError(
            f"x, bank and residuals must agree in all but the first axis, got shapes {x.shape}, {bank.shape} and "
            f"{residuals.shape}"
        )
    inputs, references, seen = (a.reshape(len(a), -1).astype(jnp.float32) for a in (x, bank, residuals))

    def gram(a, b):
        return jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)

    # ‖x - r - d‖² = ‖x‖² + [‖r‖² - 2 x·r] + [‖d‖² - 2 x·d] + 2 r·d
    from_reference = jnp.sum(references**2, axis=1)[None] - 2 * gram(inputs, references)
    squares = jnp.sum(seen**2, axis=1)
    filling = -len(seen) % _RESIDUALS_AT_ONCE  # residuals of no input
    seen, squares = jnp.pad(seen, ((0, filling), (0, 0))), jnp.pad(squares, (0, filling), constant_values=jnp.inf)
    from_residual = squares[None] - 2 * gram(inputs, seen)
    cross = 2 * gram(seen, references)
    return jnp.argmin(from_reference + _min_plus(from_residual, cross), axis=1).astype(jnp.int32)


class _Moments(NamedTuple):
    """Running moments over references: how many, their mean, the sum of squared deviations from it."""

    num: jax.Array
    mean: Any
    squares: Any


def _min_plus(from_residual, cross):
    """`min over d of from_residual[b, d] + cross[d, m]`, `[B, D]` and `[D, M]` -> `[B, M]`; D in full chunks."""

    def closer(index, least):
        start = index * _RESIDUALS_AT_ONCE
        columns = jax.lax.dynamic_slice_in_dim(from_residual, start, _RESIDUALS_AT_ONCE, axis=1)
        rows = jax.lax.dynamic_slice_in_dim(cross, start, _RESIDUALS_AT_ONCE)
        for d in range(_RESIDUALS_AT_ONCE):  # unrolled, so that one pass over `least` serves them all
            least = jnp.minimum(least, columns[:, d, None] + rows[None, d])
        return least

    # the first of all pairs, rather than infinity, has the right type under shard_map too
    first = from_residual[:, :1] + cross[:1]
    return jax.lax.fori_loop(0, len(cross) // _RESIDUALS_AT_ONCE, closer, first)


def _check(apply_fn, x, references, chunk_size):
    checks.function("apply_fn", apply_fn)
    check_floating("x", x, "[B, ..., C]")
    if chunk_size is not None:
        checks.count("chunk_size", chunk_size)
    if isinstance(references, EncodedReferences):
        if not isinstance(apply_fn, SplitModel):
            raise UserTypeError(
                "encoded references serve the SplitModel that they were encoded for; got a plain function as apply_fn"
            )
        checks.array("references.features", references.features, "floating", "[K, ...]")
    else:
        check_floating("references", references, "[K, ...]")
        if references.shape[1:] != x.shape[1:]:
            raise UserError(
                f"references {references.shape} do not fit inputs {x.shape}: all but the first axis must agree"
            )


def _by_reference(apply_fn, params, x, references):
    """The model's output on `x` as a function of what it has to know of one reference, and that for all K."""
    if isinstance(references, EncodedReferences):
        return _split(apply_fn, params, x, references)
    references = references.astype(jnp.result_type(x))  # NumPy's float64 is float32 to JAX
    if isinstance(apply_fn, SplitModel):
        return _split(apply_fn, params, x, encode_references(apply_fn, params, references))

    def output(reference):
        outputs = apply_fn(params, anchor(x, jnp.broadcast_to(reference, x.shape)))
        return _outputs("apply_fn", outputs, x.shape[0])

    return output, references


def _split(model, params, x, encoded):
    features = _first_layer(model, params, anchor(x, jnp.zeros_like(x)))
    if encoded.features.shape[1:] != features.shape[1:]:
        raise UserError(
            f"encoded references {encoded.features.shape} do not fit the inputs' features {features.shape}: "
            "all but the first axis must agree"
        )
    return lambda part: _outputs("rest", model.rest(params, features + part[None]), x.shape[0]), encoded.features


def _first_layer(model, params, inputs):
    features = model.first_layer(params, inputs)
    _check_rows("first_layer", features, inputs.shape[0])
    return features


def _outputs(name, outputs, num):
    """What a function gave for so many inputs, in float32; the number is symbolic where a batch is exported so."""
    _check_rows(name, outputs, num)
    return outputs.astype(jnp.float32)


def _check_rows(name, rows, num):
    checks.array(f"what {name} gives", rows, "real", "[B, ...]")
    if rows.shape[0] != num:
        raise UserError(f"what {name} gives must have a row for each of {num} inputs, got shape {rows.shape}")


def _over_references(outputs, references, chunk_size):
    """Mean and unbiased spread of `outputs(reference)`: a loop over chunks of references, `vmap` inside."""
    num = len(references)
    chunk_size = num if chunk_size is None else min(chunk_size, num)
    num_first = num % chunk_size or chunk_size  # what does not fill a chunk comes first, all others are full

    def chunk_moments(chunk):
        return _moments(jax.vmap(outputs)(chunk))

    def add_chunk(index, moments):
        chunk = jax.lax.dynamic_slice_in_dim(references, num_first + index * chunk_size, chunk_size)
        return _merged(moments, chunk_moments(chunk))

    # the loop starts from true moments, whose types are right under shard_map too, and copies no references
    moments = chunk_moments(references[:num_first])
    if num > num_first:
        moments = jax.lax.fori_loop(0, (num - num_first) // chunk_size, add_chunk, moments)
    std = jax.tree.map(lambda s: deviation(s / (num - 1)), moments.squares) if num > 1 else None
    return moments.mean, std


def _moments(values):
    num = jnp.float32(len(jax.tree.leaves(values)[0]))
    mean = jax.tree.map(lambda v: jnp.mean(v, axis=0), values)
    squares = jax.tree.map(lambda v, m: jnp.sum((v - m[None]) ** 2, axis=0), values, mean)
    return _Moments(num, mean, squares)


def _merged(a: _Moments, b: _Moments) -> _Moments:
    """Moments of two sets together (Chan, Golub & LeVeque 1983), stable where the mean is far from zero."""
    num = a.num + b.num
    mean = jax.tree.map(lambda p, q: p + (q - p) * (b.num / num), a.mean, b.mean)
    squares = jax.tree.map(
        lambda s, t, p, q: s + t + (q - p) ** 2 * (a.num * b.num / num),
        a.squares,
        b.squares,
        a.mean,
        b.mean,
    )
    return _Moments(num, mean, squares)
