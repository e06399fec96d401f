"""A model of any framework with its reference bank, for training loops of one's own."""

# JAX leaves some parameters unannotated, such as `device` of `jnp.asarray`
# pyright: reportUnknownMemberType=false
from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Float32, PRNGKeyArray

from anchor_jax.core import checks, explicit
from anchor_jax.core.anchoring import anchor, sample_mask, sample_references
from anchor_jax.core.comparable import comparable
from anchor_jax.core.errors import UserError
from anchor_jax.core.inference import classify, classify_with_votes, predict
from anchor_jax.core.layout import transposition
from anchor_jax.core.losses import anchored_cross_entropy
from anchor_jax.core.results import Classification, Prediction, anomaly_scores
from anchor_jax.core.short_reprs import short_repr
from anchor_jax.core.split_model import EncodedReferences, SplitModel, encode_references
from anchor_jax.core.types import AnyArray, Apply, Params

LossFn = Callable[..., Any]  # f(outputs, targets, mask) -> losses [B]


@short_repr
class TrainingInputs(NamedTuple):
    """Anchored inputs of a training step, as returned by `Anchored.training_inputs`.

    Example:
      >>> import anchor_jax as aj
      >>> import jax, jax.numpy as jnp
      >>> model = aj.Anchored(lambda params, inputs: inputs, jnp.zeros((50, 8, 8, 3)), mask_prob=0.25)
      >>> inputs, mask = model.training_inputs(jax.random.key(0), jnp.ones((4, 8, 8, 3)))
      >>> inputs.shape, mask.shape
      ((4, 8, 8, 6), (4,))
    """

    inputs: Float[Array, "batch *anchored_features"]
    mask: Bool[Array, "batch"]  # true where the reference is masked


@jax.tree_util.register_pytree_with_keys_class
@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class Anchored:
    """A model of any framework with its reference bank: the pieces of an anchored training loop, and inference.

    It only calls `sample_references`, `sample_mask`, `anchor`, the loss, `predict`, `classify` and
    `encode_references`. It is a pytree whose single leaf is the bank. Make it an argument of the compiled training step
    (`jax.jit`, `nnx.jit`, `eqx.filter_jit`): closed over, the bank would be a constant of the program.

    Attributes:
      apply_fn: the trained model, used for inference: `f(params, anchored_inputs) -> outputs`, `[B, ..., 2C]` to
        `[B, ...]`; see `predict`. A `SplitModel` costs less. Training may call the model in another way, with dropout
        and batch statistics.
      bank: references, floating `[M, ..., C]`, normalized. Inference uses the first K; shuffle a bank that is sorted by
        class.
      mask_prob: probability of a mask in training, α in the paper, in [0, 1].
      mask_per: what shares a draw of the mask, "batch", "group" or "example"; see `sample_mask`.
      group_size: examples in a group, for `mask_per="group"`.
      masked_target: target of a masked example, passed to `loss_fn`, such as "label" or "uniform"; None for the default
        of `loss_fn`.
      loss_fn: `f(outputs, targets, mask) -> losses`, floating `[B]`; `anchored_cross_entropy` by default. Others are
        `anchored_squared_error`, a `functools.partial` with more options, or your own, which takes `masked_target` as a
        keyword if it is set here.

    Raises:
      UserTypeError: `apply_fn` or `loss_fn` is not a function, `bank` is not floating, or `mask_prob` is not a number.
      UserError: the bank is empty, `mask_prob` is outside [0, 1], `mask_per` is unknown, or `group_size` is missing or
        does not apply.

    Example:
      >>> import anchor_jax as aj
      >>> import jax, jax.numpy as jnp
      >>> def f(params, inputs):
      ...     return inputs @ params
      >>> model = aj.Anchored(f, bank=jnp.arange(100.0).reshape(50, 2), mask_prob=0.25)
      >>> @jax.jit
      ... def gradient(model, params, x, labels, key):
      ...     inputs, mask = model.training_inputs(key, x)
      ...     return jax.grad(lambda params: model.loss(f(params, inputs), labels, mask))(params)
      >>> params, x = jnp.zeros((4, 3)), jnp.ones((5, 2))
      >>> gradient(model, params, x, jnp.arange(5) % 3, jax.random.key(0)).shape
      (4, 3)
      >>> model.classify(params, x, 10).probs.shape
      (5, 3)
      >>> model
      Anchored(apply_fn=f, bank=float32[50,2], mask_prob=0.25, mask_per='batch', group_size=None, masked_target=None,
               loss_fn=anchored_cross_entropy)
    """

    apply_fn: Apply | SplitModel
    bank: Float[AnyArray, "bank_size ..."]
    _: dataclasses.KW_ONLY
    mask_prob: float
    mask_per: Literal["batch", "group", "example"] = "batch"
    group_size: int | None = None
    masked_target: str | None = None
    loss_fn: LossFn = anchored_cross_entropy

    def __post_init__(self):
        checks.function("apply_fn", self.apply_fn)
        checks.function("loss_fn", self.loss_fn)
        checks.model_inputs("bank", self.bank, "[M, ..., C]")
        checks.choice("mask_per", self.mask_per, ("batch", "group", "example"))
        checks.grouping("mask_per", self.mask_per, self.group_size)
        object.__setattr__(self, "mask_prob", checks.static_number("mask_prob", self.mask_prob))
        object.__setattr__(self, "bank", jnp.asarray(self.bank))  # on the device once, not at every call

    def training_inputs(self, key: PRNGKeyArray, x: Float[AnyArray, "batch *features"]) -> TrainingInputs:
        """Draw a reference for each input, and the mask, and return the anchored inputs.

        Args:
          key: a JAX random key, another one at every step.
          x: inputs, floating `[B, ..., C]`, normalized.

        Returns:
          `TrainingInputs`: inputs `[B, ..., 2C]` in the dtype of `x`, and the mask, bool `[B]`. They are those of
          `reference_key, mask_key = jax.random.split(key)`, `sample_references(reference_key, bank, B)`,
          `sample_mask(mask_key, B, ...)` and `anchor`.

        Raises:
          UserTypeError: `key` is not a key, or `x` is not floating.
          UserError: `x` does not match the bank, or `group_size` does not divide B.
        """
        checks.key("key", key)
        self._check(x)
        reference_key, mask_key = jax.random.split(key)
        num = x.shape[0]
        references = sample_references(reference_key, self.bank, num).astype(jnp.result_type(x))
        mask = sample_mask(mask_key, num, self.mask_prob, self.mask_per, group_size=self.group_size)
        return TrainingInputs(anchor(x, references, mask), mask)

    def loss(self, outputs: Any, targets: Any, mask: Bool[AnyArray, "batch"] | None = None) -> Float32[Array, ""]:
        """Return the mean loss of a batch.

        Args:
          outputs: of the model for the inputs of `training_inputs`, such as logits `[B, C]`.
          targets: such as labels `[B]`.
          mask: of `training_inputs`; none for a loss without masks.

        Returns:
          float32 `[]`, the mean of `loss_fn(outputs, targets, mask)`.

        Raises:
          UserTypeError: see `loss_fn`.
          UserError: see `loss_fn`; also if it does not return one loss per example.
        """
        options = {} if self.masked_target is None else {"masked_target": self.masked_target}
        losses = self.loss_fn(outputs, targets, mask, **options)
        checks.array("output of loss_fn", losses, "floating", "[B]")
        return jnp.mean(losses.astype(jnp.float32))

    def keep_statistics(self, old: Any, new: Any, mask: Bool[AnyArray, "batch"]) -> Any:
        """Return the batch statistics after a step; see `keep_statistics`.

        With `mask_prob=1` the statistics have no other batches to come from, and are always the new ones.
        """
        return new if self.mask_prob == 1 else keep_statistics(old, new, mask)

    def predict(
        self,
        params: Params,
        x: Float[AnyArray, "batch *features"],
        num_references: int | EncodedReferences = 10,
        *,
        chunk_size: int | None = None,
    ) -> Prediction:
        """Return the mean and the spread of the outputs over the first K references of the bank.

        Args:
          params: passed to `apply_fn`.
          x: inputs, floating `[B, ..., C]`, normalized.
          num_references: K, at most M, static under `jit`; or the result of `encode`.
          chunk_size: see `anchor_jax.predict`.

        Returns:
          The `Prediction` of `anchor_jax.predict(apply_fn, params, x, bank[:K])`.

        Raises:
          UserTypeError: see `anchor_jax.predict`; also if K is not an integer.
          UserError: see `anchor_jax.predict`; also if K is not in 1..M.
        """
        return predict(*self._inference_arguments(params, x, num_references), chunk_size=chunk_size)

    def classify(
        self,
        params: Params,
        x: Float[AnyArray, "batch *features"],
        num_references: int | EncodedReferences = 10,
        *,
        chunk_size: int | None = None,
        temper: Literal["duq"] | None = None,
    ) -> Classification:
        """Return class probabilities and their uncertainty over the first K references of the bank.

        Args:
          params: see `predict`.
          x: see `predict`.
          num_references: see `predict`.
          chunk_size: see `anchor_jax.predict`.
          temper: see `anchor_jax.classify`.

        Returns:
          The `Classification` of `anchor_jax.classify(apply_fn, params, x, bank[:K])`.

        Raises:
          UserTypeError: see `predict`.
          UserError: see `predict`; also if the outputs are not logits, or `temper` is unknown.
        """
        return classify(*self._inference_arguments(params, x, num_references), chunk_size=chunk_size, temper=temper)

    def scores(
        self,
        params: Params,
        x: Float[AnyArray, "batch *features"],
        num_references: int | EncodedReferences = 10,
        *,
        chunk_size: int | None = None,
    ) -> dict[str, Float32[Array, "batch"]]:
        """Return all scores of uncertainty of a classifier, by name; higher is less certain.

        Args:
          params: see `predict`.
          x: see `predict`.
          num_references: see `predict`.
          chunk_size: see `anchor_jax.predict`.

        Returns:
          The result of `anchor_jax.inference.anomaly_scores`, float32 `[B]` each.

        Raises:
          UserTypeError: see `classify`.
          UserError: see `classify`.
        """
        arguments = self._inference_arguments(params, x, num_references)
        return anomaly_scores(classify_with_votes(*arguments, chunk_size=chunk_size))

    def encode(self, params: Params, num_references: int = 10) -> EncodedReferences:
        """Compute the part of the first K references in the first layer once, to be passed as `num_references`.

        Args:
          params: see `predict`.
          num_references: K, see `predict`.

        Returns:
          The result of `encode_references(apply_fn, params, bank[:K])`.

        Raises:
          UserTypeError: `apply_fn` is not a `SplitModel`, or K is not an integer.
          UserError: K is not in 1..M.
        """
        checks.instance("apply_fn", self.apply_fn, SplitModel, "anchor_jax.SplitModel(first_layer, rest)")
        assert isinstance(self.apply_fn, SplitModel)
        return encode_references(self.apply_fn, params, self._references(num_references))

    def tree_flatten_with_keys(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Return the bank, and everything else as static data."""
        static = tuple(comparable(getattr(self, name)) for name in _STATIC)
        return ((jax.tree_util.GetAttrKey("bank"), self.bank),), static

    @classmethod
    def tree_unflatten(cls, static: tuple[Any, ...], children: tuple[Any, ...]) -> "Anchored":
        """Return an object with another leaf as its bank, which is not checked: JAX also passes placeholders."""
        model = object.__new__(cls)
        for name, value in zip((*_STATIC, "bank"), (*static, *children), strict=True):
            object.__setattr__(model, name, value)
        return model

    def _inference_arguments(
        self, params: Params, x: AnyArray, num_references: int | EncodedReferences
    ) -> tuple[Apply | SplitModel, Params, AnyArray, AnyArray | EncodedReferences]:
        self._check(x)
        if isinstance(num_references, EncodedReferences):
            return self.apply_fn, params, x, num_references
        return self.apply_fn, params, x, self._references(num_references)

    def _references(self, num_references: int) -> AnyArray:
        num = checks.count("num_references", num_references, most=len(self.bank))
        is_traced = isinstance(self.bank, Tracer)
        # of a bank that is closed over, only K references become constants
        with contextlib.nullcontext() if is_traced else jax.ensure_compile_time_eval():
            return _first_rows(self.bank, num)

    def _check(self, x: AnyArray) -> None:
        checks.model_inputs("x", x, "[B, ..., C]")
        if x.shape[1:] != self.bank.shape[1:]:
            raise UserError(
                f"x {x.shape} does not match bank {self.bank.shape}: all but the first axis must agree"
                + transposition("x", x.shape, self.bank.shape)
            )


_STATIC = tuple(field.name for field in dataclasses.fields(Anchored) if field.name != "bank")


@explicit.automatic()
def _first_rows(bank: AnyArray, num: int) -> AnyArray:
    return bank[:num]


def keep_statistics(old: Any, new: Any, mask: Bool[AnyArray, "batch"]) -> Any:
    """Return batch statistics as they were before a step if its whole batch was masked, and the new ones otherwise.

    A masked batch looks different: without this, the running statistics of BatchNorm, which inference uses, depend on
    how many of the last batches happened to be masked. If some examples of a batch are masked, all update the
    statistics.

    Args:
      old: statistics before the step, any pytree: `batch_stats` of Flax Linen, the `State` of Equinox or Haiku, or a
        copy of those of Flax NNX, `jax.tree.map(jnp.copy, nnx.state(model, nnx.BatchStat))`, which the step changes in
        place.
      new: statistics after the step, a pytree of the same structure.
      mask: bool `[B]`, the mask of the step.

    Returns:
      A pytree like `new`; bit by bit equal to `old` if all of the mask is true.

    Raises:
      UserTypeError: `mask` is not bool.
      UserError: `old` and `new` do not have the same structure, shapes and dtypes, or share variables of Flax NNX.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> old, new = {"mean": jnp.array(0.0)}, {"mean": jnp.array(1.0)}
      >>> aj.keep_statistics(old, new, mask=jnp.array([True, True]))["mean"].item()
      0.0
      >>> aj.keep_statistics(old, new, mask=jnp.array([True, False]))["mean"].item()
      1.0
    """
    checks.array("mask", mask, "bool", "[...]")
    if jax.tree.structure(old) != jax.tree.structure(new):
        raise UserError(
            f"old and new statistics must have the same structure; got {_names(old)} and {_names(new)}; pass the "
            "statistics alone, without parameters"
        )
    if any(before is after for before, after in zip(_variables(old), _variables(new), strict=True)):
        raise UserError(
            "old and new statistics are the same variables, changed in place; copy the old ones before the model is "
            "called: jax.tree.map(jnp.copy, nnx.state(model, nnx.BatchStat))"
        )
    jax.tree.map(_check_alike, old, new)
    with explicit.entered(mask, *jax.tree.leaves(new)):
        is_masked = jnp.all(jnp.asarray(mask))

        def kept(before: Any, after: Any) -> Array:
            return jax.lax.select(is_masked, *explicit.aligned(jnp.asarray(before), jnp.asarray(after)))

        return jax.tree.map(kept, old, new)


def _check_alike(before: Any, after: Any) -> None:
    one, other = ((jnp.shape(value), getattr(value, "dtype", value.__class__)) for value in (before, after))
    if one != other:
        raise UserError(
            "old and new statistics must agree in shapes and dtypes; got "
            f"{checks.described(before)} and {checks.described(after)}"
        )


def _variables(tree: Any) -> list[Any]:
    """Return the mutable variables of Flax NNX in a tree."""

    def is_variable(node: Any) -> bool:
        return hasattr(node.__class__, "raw_value")

    return [leaf for leaf in jax.tree.leaves(tree, is_leaf=is_variable) if is_variable(leaf)]


def _names(tree: Any) -> str:
    """Return the paths of the first leaves of a tree, for messages."""
    paths = [jax.tree_util.keystr(path) for path, _ in cast(Any, jax.tree_util.tree_flatten_with_path(tree))[0]]
    return f"{', '.join(paths[:4]) or 'no arrays'}{' ...' if len(paths) > 4 else ''}"
