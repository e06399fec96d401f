"""Trained networks on raw images, compiled for a mesh of devices."""

# Flax and jax.numpy have partly unknown types.
# pyright: reportUnknownMemberType=false

from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal, TypeAlias

import jax
import numpy as np
import numpy.typing as npt
from flax import linen as nn
from jax.sharding import Mesh, PartitionSpec

from anchor_jax.core.anchoring import anchor
from anchor_jax.core.inference import (
    Apply,
    EncodedReferences,
    SplitModel,
    VotedClassification,
    classify_with_votes,
    encode_references,
    predict,
    single_vote,
)
from anchor_jax.core.short_reprs import of_fields
from anchor_jax.data.augmentation import Normalization, normalize
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.runtime.settings import with_own_settings

Images: TypeAlias = npt.NDArray[np.uint8] | jax.Array
Normalized: TypeAlias = npt.NDArray[np.float32] | jax.Array
References: TypeAlias = EncodedReferences | jax.Array | None  # see `CompiledNetwork.encode`
Temper: TypeAlias = Literal["duq"] | None  # see `anchor_jax.classify`
Classes: TypeAlias = tuple[int, ...] | None  # restrict the logits to these classes; None: all


class CompiledNetwork:
    """A network on raw images, compiled for a mesh when it is first called.

    Images and references are uint8, `[B, H, W, C]` and `[K, H, W, C]`. Images are sharded over the devices (see
    `shard`), variables and references are replicated.

    Attributes:
      model: see `anchor_jax.models.create`.
      normalization: mean and standard deviation for the inputs of the model.
      mesh: the devices.
      anchored: whether the model takes references; a standard model takes None in their place.
      inputs_at_once: pairs of image and reference that a device evaluates at once, if `chunk_size` is None.
      chunk_size: references that are evaluated at once.
    """

    has_short_repr = True

    def __init__(
        self,
        model: nn.Module,
        normalization: Normalization,
        mesh: Mesh,
        *,
        anchored: bool,
        inputs_at_once: int,
        chunk_size: int | None = None,
    ):
        self.model, self.normalization, self.mesh = model, normalization, mesh
        self.anchored, self.inputs_at_once, self.chunk_size = anchored, inputs_at_once, chunk_size
        same, sharded = mesh_lib.REPLICATED, mesh_lib.SHARDED
        self._encode = mesh_lib.pmapped(self._encode_references, mesh, in_specs=same, out_specs=same)
        self._encode_shown = mesh_lib.pmapped(self._encode_shown_references, mesh, in_specs=same, out_specs=same)
        self._features = self._mapped(self._features_of_shard, same, same, sharded)
        self._pair_features = self._mapped(self._features_of_pairs, same, sharded, sharded, sharded)
        self.classify_program = cache(self._compile_classify)
        self._pairs_program = cache(self._compile_pairs)

    def __repr__(self) -> str:
        names = ("normalization", "anchored", "inputs_at_once", "chunk_size")
        fields: dict[str, Any] = {"model": type(self.model), "num_devices": self.mesh.size}
        return of_fields("CompiledNetwork", fields | {name: getattr(self, name) for name in names})

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy what the network is made of: a copy is compiled anew, for as many devices."""
        options = {name: getattr(self, name) for name in ("anchored", "inputs_at_once", "chunk_size")}
        return _on_devices, (self.mesh.size, self.model, self.normalization, options)

    @with_own_settings
    def encode(self, variables: Any, references: npt.NDArray[np.uint8] | None) -> References:
        """Return what the network needs to know of references, computed once for all images.

        Args:
          variables: passed to `model.apply`.
          references: uint8 `[K, H, W, C]`; ignored by a standard network.

        Returns:
          `EncodedReferences` if the model can be split after its first layer, otherwise the normalized references;
          None for a standard network.
        """
        return self._encode(variables, references) if self.anchored else None

    @with_own_settings
    def encode_shown(self, variables: Any, references: Normalized, shown: Normalized) -> EncodedReferences:
        """Return the encoded references of inputs `[shown, x - r]`; see `anchor_jax.encode_references`.

        Args:
          variables: passed to `model.apply`.
          references: normalized, float32 `[K, H, W, C]`.
          shown: normalized, float32 `[K, H, W, C]`.
        """
        return self._encode_shown(variables, references, shown)

    @with_own_settings
    def classify(
        self,
        variables: Any,
        references: References,
        images: Images,
        *,
        classes: Classes = None,
        temper: Temper = None,
    ) -> VotedClassification:
        """Classify images with the same references for each.

        Args:
          variables: passed to `model.apply`.
          references: see `encode`.
          images: uint8 `[B, H, W, C]`.
          classes: restrict the logits to these classes before anything else is computed; None for all.
          temper: see `anchor_jax.classify`.
        """
        return self.classify_program(classes, temper)(variables, references, images)

    @with_own_settings
    def classify_pairs(
        self, variables: Any, images: Images, references: Images, *, classes: Classes = None
    ) -> VotedClassification:
        """Classify images with one reference for each.

        Args:
          variables: passed to `model.apply`.
          images: uint8 `[B, H, W, C]`.
          references: uint8 `[B, H, W, C]`.
          classes: see `classify`.
        """
        return self._pairs_program(classes)(variables, images, references)

    @with_own_settings
    def features(self, variables: Any, references: References, images: Images) -> jax.Array:
        """Return the inputs of the last layer, averaged over references: float32 `[B, features]`."""
        return self._features(variables, references, images)

    @with_own_settings
    def pair_features(self, variables: Any, images: Images, references: Images, mask: jax.Array) -> jax.Array:
        """Return the inputs of the last layer for one reference per image, float32 `[B, features]`.

        Args:
          variables: passed to `model.apply`.
          images: uint8 `[B, H, W, C]`.
          references: uint8 `[B, H, W, C]`.
          mask: bool `[B]`, true where the reference is masked.
        """
        return self._pair_features(variables, images, references, mask)

    def shard(self, array: Images) -> jax.Array:
        """Shard an array `[B, ...]` from the host or a device over the mesh."""
        return mesh_lib.shard_batch(array, self.mesh)

    def _compile_classify(self, classes: Classes, temper: Temper) -> Callable[..., VotedClassification]:
        specs = (mesh_lib.REPLICATED, mesh_lib.REPLICATED, mesh_lib.SHARDED)
        return self._mapped(partial(self._classify_shard, classes, temper), *specs)

    def _compile_pairs(self, classes: Classes) -> Callable[..., VotedClassification]:
        specs = (mesh_lib.REPLICATED, mesh_lib.SHARDED, mesh_lib.SHARDED)
        return self._mapped(partial(self._classify_pairs_of_shard, classes), *specs)

    def _mapped(self, function: Callable[..., Any], *in_specs: PartitionSpec) -> Callable[..., Any]:
        return mesh_lib.pmapped(function, self.mesh, in_specs=in_specs, out_specs=mesh_lib.SHARDED)

    # The methods below run on each device, on its shard of the images.

    def _encode_references(self, variables: Any, references: jax.Array) -> EncodedReferences | jax.Array:
        network, normalized = _network_of(self.model), normalize(references, self.normalization)
        return encode_references(network, variables, normalized) if isinstance(network, SplitModel) else normalized

    def _encode_shown_references(self, variables: Any, references: jax.Array, shown: jax.Array) -> EncodedReferences:
        network = _network_of(self.model)
        assert isinstance(network, SplitModel)  # as all models of `anchor_jax.models`
        return encode_references(network, variables, references, shown=shown)

    def _classify_shard(
        self, classes: Classes, temper: Temper, variables: Any, references: References, images: jax.Array
    ) -> VotedClassification:
        options: dict[str, Any] = {"classes": classes, "chunk_size": self._chunk_size(images), "temper": temper}
        return classify_images(self.model, self.normalization, variables, references, images, **options)

    def _classify_pairs_of_shard(
        self, classes: Classes, variables: Any, images: jax.Array, references: jax.Array
    ) -> VotedClassification:
        x, r = normalize(images, self.normalization), normalize(references, self.normalization)
        return single_vote(_network_of(self.model, classes)(variables, anchor(x, r)))

    def _features_of_shard(self, variables: Any, references: References, images: jax.Array) -> jax.Array:
        network, x = _network_of(self.model, last="features"), normalize(images, self.normalization)
        if not self.anchored or references is None:
            return network(variables, x)
        return predict(network, variables, x, references, chunk_size=self._chunk_size(images)).mean

    def _features_of_pairs(
        self, variables: Any, images: jax.Array, references: jax.Array, mask: jax.Array
    ) -> jax.Array:
        x, r = normalize(images, self.normalization), normalize(references, self.normalization)
        return _network_of(self.model, last="features")(variables, anchor(x, r, mask))

    def _chunk_size(self, images: jax.Array) -> int:
        return self.chunk_size or max(self.inputs_at_once // len(images), 1)


def _on_devices(num: int, model: nn.Module, normalization: Normalization, options: dict[str, Any]) -> CompiledNetwork:
    return CompiledNetwork(model, normalization, mesh_lib.mesh(num), **options)


def classify_images(
    model: nn.Module,
    normalization: Normalization,
    variables: Any,
    references: References,
    images: jax.Array,
    *,
    classes: Classes = None,
    chunk_size: int | None = None,
    temper: Temper = None,
) -> VotedClassification:
    """Classify raw images on one device; their number may be symbolic.

    Args:
      model: see `anchor_jax.models.create`.
      normalization: mean and standard deviation for the inputs of the model.
      variables: passed to `model.apply`.
      references: see `CompiledNetwork.encode`; None for a standard network.
      images: uint8 `[B, H, W, C]`.
      classes: restrict the logits to these classes; None for all.
      chunk_size: see `anchor_jax.classify`.
      temper: see `anchor_jax.classify`.
    """
    network, x = _network_of(model, classes), normalize(images, normalization)
    if references is None:
        return single_vote(network(variables, x))
    return classify_with_votes(network, variables, x, references, chunk_size=chunk_size, temper=temper)


def _network_of(
    model: nn.Module, classes: Classes = None, last: Literal["rest", "features"] = "rest"
) -> Apply | SplitModel:
    """Return a model as a function of variables and inputs, split after its first layer if it has that method.

    Args:
      model: a Flax module.
      classes: restrict the logits to these classes; None for all.
      last: the method that computes the outputs: "rest" for logits, or "features".
    """

    def apply(variables: Any, inputs: jax.Array, method: str | None = None) -> Any:
        outputs: Any = model.apply(variables, inputs, method=method)
        return outputs if classes is None or method == "first_layer" else outputs[..., np.array(classes)]

    if not hasattr(model, "first_layer"):
        return apply if last == "rest" else partial(apply, method=last)
    return SplitModel(partial(apply, method="first_layer"), partial(apply, method=last))
