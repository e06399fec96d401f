"""A model split after its linear first layer, so that K references cost that layer B + K inputs instead of B·K."""

# JAX leaves some parameters unannotated, such as `device` of `jnp.asarray`
# pyright: reportUnknownMemberType=false
from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from anchor_jax.core import checks, explicit
from anchor_jax.core.anchoring import anchor
from anchor_jax.core.errors import UserError
from anchor_jax.core.model_calls import call_model
from anchor_jax.core.short_reprs import short_repr
from anchor_jax.core.types import AnyArray, Apply, Params


@short_repr
@dataclasses.dataclass(frozen=True)
class SplitModel:
    """A model split after its first layer, which must be linear.

    For a layer of weights `W`, `W·[r, x - r] = W·[0, x] + W·[r, -r]`: one term per input and one per reference.
    `predict` and `classify` then evaluate the first layer on B + K inputs instead of B·K, and never build the anchored
    input of a pair.

    Attributes:
      first_layer: `f(params, anchored_inputs) -> features`, `[B, ..., 2C]` to `[B, ...]`; linear, up to a constant such
        as a bias.
      rest: `f(params, features) -> outputs`, `[B, ...]` to `[B, ...]`.

    Raises:
      UserTypeError: `first_layer` or `rest` is not a function.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> model = aj.SplitModel(
      ...     first_layer=lambda params, inputs: inputs @ params["in"],
      ...     rest=lambda params, features: jnp.tanh(features) @ params["out"],
      ... )
      >>> params = {"in": jnp.ones((4, 8)), "out": jnp.ones((8, 3))}
      >>> model(params, jnp.zeros((5, 4))).shape
      (5, 3)
    """

    first_layer: Apply
    rest: Apply

    def __post_init__(self):
        checks.function("first_layer", self.first_layer)
        checks.function("rest", self.rest)

    def __call__(
        self, params: Params, inputs: Float[AnyArray, "batch *anchored_features"]
    ) -> Real[Array, "batch *outputs"]:
        """Return the outputs of the complete model, `[B, ...]`, for anchored inputs `[B, ..., 2C]`."""
        return self.rest(params, self.first_layer(params, jnp.asarray(inputs)))


@short_repr
class EncodedReferences(NamedTuple):
    """K references after the first layer of a `SplitModel`, the same for every batch of inputs.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> aj.EncodedReferences(features=jnp.zeros((10, 8))).features.shape
      (10, 8)
    """

    features: Real[Array, "references *features"]  # what each reference adds to the features of an input


@explicit.within_mesh
def encode_references(
    model: SplitModel,
    params: Params,
    references: Float[AnyArray, "references *features"],
    *,
    shown: Float[AnyArray, "references *features"] | None = None,
) -> EncodedReferences:
    """Compute the references' part of the first layer once, for repeated calls of `predict` and `classify`.

    Args:
      model: the model to be evaluated.
      params: parameters of the model.
      references: floating `[K, ..., C]`, K at least 1.
      shown: what the model sees in place of each reference `r`, same shape: its inputs become `[shown, x - r]`. Zeros
        mask the references; those of other images test whether the model uses its references at all. None for the
        references themselves.

    Returns:
      The encoded references.

    Raises:
      UserTypeError: `model` is not a `SplitModel`, or an array is not floating.
      UserError: K is below 1, the shapes of `shown` and `references` differ, or the first layer does not return
        features `[K, ...]`.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> model = aj.SplitModel(
      ...     first_layer=lambda params, inputs: inputs @ params["in"],
      ...     rest=lambda params, features: jnp.tanh(features) @ params["out"],
      ... )
      >>> params = {"in": jnp.ones((4, 8)), "out": jnp.ones((8, 3))}
      >>> encoded = aj.encode_references(model, params, jnp.zeros((10, 2)))
      >>> encoded.features.shape
      (10, 8)
      >>> aj.classify(model, params, jnp.ones((5, 2)), encoded).probs.shape
      (5, 3)
    """
    checks.instance("model", model, SplitModel, "anchor_jax.SplitModel(first_layer, rest)")
    checks.model_inputs("references", references, "[K, ..., C]")
    if shown is not None:
        checks.model_inputs("shown", shown, "[K, ..., C]")
        if shown.shape != references.shape:
            raise UserError(f"shown {shown.shape} must have the shape of the references {references.shape}")
    anchored = anchor(jnp.zeros_like(references), references)
    if shown is not None:
        residual = anchored[..., references.shape[-1] :]
        anchored = jnp.concatenate([jnp.asarray(shown, anchored.dtype), residual], axis=-1)
    constant = apply_first_layer(model, params, jnp.zeros((1, *anchored.shape[1:]), anchored.dtype))
    return EncodedReferences(apply_first_layer(model, params, anchored) - constant)


def apply_first_layer(
    model: SplitModel, params: Params, inputs: Float[Array, "batch *anchored_features"]
) -> Real[Array, "batch *features"]:
    """Return the features `[B, ...]` of anchored inputs `[B, ..., 2C]`, after checking their shape."""
    features = call_model("first_layer", model.first_layer, params, inputs)
    check_rows("first_layer", features, inputs.shape[0])
    return features


def check_rows(name: str, outputs: Array, num: Any) -> None:
    """Raise unless a function returned `num` rows, one per input; `num` is a symbolic dimension in `jax.export`."""
    checks.array(f"output of {name}", outputs, "real", "[B, ...]")
    if outputs.shape[0] != num:
        raise UserError(f"output of {name} must have one row for each of {num} inputs; got shape {outputs.shape}")
