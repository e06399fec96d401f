"""A trained network as a function from raw images to classes and their uncertainty."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from anchor_jax import parallel
from anchor_jax.data.augmentation import Normalization, normalize
from anchor_jax.errors import UserError
from anchor_jax.inference import Classification, classify
from anchor_jax.uncertainty import predictive_entropy


@dataclasses.dataclass(frozen=True)
class Predictor:
    """Classifies raw images with references of the run.

    Attributes:
      variables: what `model.apply` takes.
      references: uint8 `[R, H, W, C]`, of which the first K serve; None for a standard network.
      label_names: one name a class.
      image_shape: H, W and C of the images.
      classify_batch: compiled, see `compile_classifier`.
      num_devices: over which a batch is divided.
      batch_size: images at once, over all devices.
    """

    variables: Any
    references: np.ndarray | None
    label_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    classify_batch: Callable[..., Classification]
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
        self._check(images)
        references = self.first_references(num_references)
        answers, pending = [], None
        for batch in self._batches(images):
            answer = self.classify_batch(self.variables, references, batch, temper)
            if pending is not None:  # fetched while the device is at the next, so that no more than two are on it
                answers.append(jax.device_get(pending))
            pending = answer
        answers.append(jax.device_get(pending))
        return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(images)], *answers)

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

    def _batches(self, images) -> Iterator[np.ndarray]:
        """Batches of one size, the last one filled up with black images."""
        # few images do not pay for a whole batch; powers of two keep the number of compilations small
        full = math.ceil(self.batch_size / self.num_devices)
        size = min(full, _power_of_two(len(images) / self.num_devices)) * self.num_devices
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            yield np.pad(batch, ((0, size - len(batch)), (0, 0), (0, 0), (0, 0)))


def _power_of_two(number: float) -> int:
    """The least power of two that is no less than a number above 0, at least 1."""
    return 2 ** max(math.ceil(math.log2(number)), 0)


def compile_classifier(
    model: nn.Module,
    normalization: Normalization,
    mesh: Mesh,
    *,
    anchored: bool,
    chunk_size: int | None = None,
) -> Callable[..., Classification]:
    """`classify_batch(variables, references, images, temper) -> Classification`, compiled for the mesh.

    Images uint8 `[B, H, W, C]` are divided over the devices; references uint8 `[K, H, W, C]` are on each of
    them. A standard network, not `anchored`, takes None in their place.
    """

    def apply(variables, inputs) -> Any:
        return model.apply(variables, inputs)

    def anchored_network(variables, references, images, temper):
        x, references = normalize(images, normalization), normalize(references, normalization)
        return classify(apply, variables, x, references, chunk_size=chunk_size, temper=temper)

    def standard_network(variables, references, images, temper):
        del references, temper
        logits = apply(variables, normalize(images, normalization))
        probs = jax.nn.softmax(logits)
        return Classification(logits, probs, None, predictive_entropy(probs), jnp.zeros(len(images)))

    @cache
    def compiled(temper):
        network = partial(anchored_network if anchored else standard_network, temper=temper)
        specs = (parallel.SAME, parallel.SAME, parallel.SPLIT)
        return parallel.pmapped(network, mesh, in_specs=specs, out_specs=parallel.SPLIT)

    return lambda variables, references, images, temper: compiled(temper)(variables, references, images)
