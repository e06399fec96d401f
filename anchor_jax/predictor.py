"""A trained network as a function from raw images to classes and their uncertainty."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from anchor_jax import parallel
from anchor_jax.data.augmentation import Normalization, normalize
from anchor_jax.errors import UserError
from anchor_jax.inference import Apply, Classification, EncodedReferences, SplitModel, classify, encode_references
from anchor_jax.uncertainty import predictive_entropy


class Classifier(NamedTuple):
    """The two halves of a prediction, compiled for a mesh."""

    # variables, uint8 [K, H, W, C] -> what the network has to know of them; None -> None for a standard network
    encode: Callable[[Any, np.ndarray | None], EncodedReferences | jax.Array | None]
    # variables, encoded references, uint8 [B, H, W, C], temper; images are divided over the devices
    classify: Callable[..., Classification]


@dataclasses.dataclass(frozen=True)
class Predictor:
    """Classifies raw images with references of the run.

    Attributes:
      variables: what `model.apply` takes.
      references: uint8 `[R, H, W, C]`, of which the first K serve; None for a standard network.
      label_names: one name a class.
      image_shape: H, W and C of the images.
      classifier: compiled, see `compile_classifier`.
      num_devices: over which a batch is divided.
      batch_size: images at once, over all devices.
    """

    variables: Any
    references: np.ndarray | None
    label_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    classifier: Classifier
    num_devices: int
    batch_size: int

    def __call__(
        self, images: np.ndarray, num_references: int = 10, *, temper: Literal["duq"] | None = None
    ) -> Classification:
        """Classify images, each without regard to its neighbours.

        Args:
          images: uint8 `[B, H, W, C]`, as they are stored: not normalised.
          num_references: K, from 1 to the number saved with the run; a standard network uses none.
          temper: see `anchor_jax.classify`.

        Returns:
          `Classification` of NumPy arrays, B rows each.

        Raises:
          UserError: the images are not uint8 `[B, H, W, C]` of the run's shape, or K is out of range.
        """
        return jax.tree.map(lambda *parts: np.concatenate(parts), *self.batches(images, num_references, temper=temper))

    def batches(
        self, images: np.ndarray, num_references: int = 10, *, temper: Literal["duq"] | None = None
    ) -> Iterator[Classification]:
        """As a call, batch after batch in the order of the images; the references are encoded once for all of them."""
        self._check(images)
        references = self.classifier.encode(self.variables, self.first_references(num_references))

        def fetched(answer, num):
            return jax.tree.map(lambda part: part[:num], jax.device_get(answer))

        pending = ()
        for batch, num in self._padded(images):
            answer = self.classifier.classify(self.variables, references, batch, temper)
            if pending:  # fetched while the device is at the next, so that no more than two are on it
                yield fetched(*pending)
            pending = answer, num
        yield fetched(*pending)

    def _check(self, images):
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != self.image_shape:
            raise UserError(
                f"images must be uint8 [B, {', '.join(map(str, self.image_shape))}], as the run was trained on; "
                f"got {images.dtype} {list(images.shape)}"
            )
        if not len(images):
            raise UserError("images must hold at least one; got none")

    def first_references(self, num_references: int) -> np.ndarray | None:
        """The first K references of the run, uint8 `[K, H, W, C]`; None for a standard network."""
        if self.references is None:
            return None
        if not 1 <= num_references <= len(self.references):
            raise UserError(
                f"num_references must lie in 1..{len(self.references)}, the references saved with the run "
                f"(config.evaluation.saved_references); got {num_references}"
            )
        return self.references[:num_references]

    def _padded(self, images) -> Iterator[tuple[np.ndarray, int]]:
        """Batches of one size, the last one filled up with black images, and how many images are in each."""
        # few images do not pay for a whole batch; powers of two keep the number of compilations small
        full = math.ceil(self.batch_size / self.num_devices)
        size = min(full, _power_of_two(len(images) / self.num_devices)) * self.num_devices
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            yield np.pad(batch, ((0, size - len(batch)), (0, 0), (0, 0), (0, 0))), len(batch)


def _power_of_two(number: float) -> int:
    """The least power of two that is no less than a number above 0, at least 1."""
    return 2 ** max(math.ceil(math.log2(number)), 0)


def compile_classifier(
    model: nn.Module,
    normalization: Normalization,
    mesh: Mesh,
    *,
    anchored: bool,
    inputs_at_once: int,
    chunk_size: int | None = None,
) -> Classifier:
    """A network on raw images, compiled for the mesh.

    Args:
      model: see `anchor_jax.models.create`.
      normalization: of its inputs.
      mesh: over which images are divided.
      anchored: whether the network takes references; a standard one takes None in their place.
      inputs_at_once: pairs of image and reference on one device at once, where `chunk_size` does not say how many.
      chunk_size: references at once.
    """
    network = _network_of(model)

    def encode(variables, references):
        references = normalize(references, normalization)
        return encode_references(network, variables, references) if isinstance(network, SplitModel) else references

    def anchored_network(variables, references, images, temper):
        x = normalize(images, normalization)
        filling = chunk_size or max(inputs_at_once // len(images), 1)
        return classify(network, variables, x, references, chunk_size=filling, temper=temper)

    def standard_network(variables, references, images, temper):
        del references, temper
        logits = network(variables, normalize(images, normalization))
        probs = jax.nn.softmax(logits)
        return Classification(logits, probs, None, predictive_entropy(probs), jnp.zeros(len(images)))

    @cache
    def compiled(temper):
        classify_batch = partial(anchored_network if anchored else standard_network, temper=temper)
        specs = (parallel.SAME, parallel.SAME, parallel.SPLIT)
        return parallel.pmapped(classify_batch, mesh, in_specs=specs, out_specs=parallel.SPLIT)

    compiled_encode = parallel.pmapped(encode, mesh, in_specs=parallel.SAME, out_specs=parallel.SAME)
    return Classifier(
        encode=compiled_encode if anchored else lambda variables, references: None,
        classify=lambda variables, references, images, temper: compiled(temper)(variables, references, images),
    )


def _network_of(model: nn.Module) -> Apply | SplitModel:
    """The model as a function of variables and inputs, cut after its first layer where it says what that is."""

    def apply(variables, inputs, method=None) -> Any:
        return model.apply(variables, inputs, method=method)

    if not hasattr(model, "first_layer"):
        return apply
    return SplitModel(partial(apply, method="first_layer"), partial(apply, method="rest"))
