"""The batches of a training stream: which examples they contain, and how these are read and cropped.

Everything is a function of (seed, step), so that worker processes can compute any batch, and a resumed run continues
with the batches of an uninterrupted one.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.data import orientation as orientations
from anchor_jax.data import resampling
from anchor_jax.data.cropping import random_resized_crop
from anchor_jax.data.decoding import Example, decode
from anchor_jax.data.files import preview

_ORDER_SEED, _CROP_SEED = 0, 1  # distinct second entries of the seeds, so that the two never share random numbers


class EpochOrder(NamedTuple):
    """The order of examples: each epoch is a permutation drawn from (seed, epoch), without the incomplete last batch.

    With `repeats` > 1, each example occurs that many times, in one batch or in two consecutive ones (repeated
    augmentation, Hoffer et al. 2020, as in DeiT). The number of batches per epoch does not change, so that an epoch
    covers only a part of the examples, a different one each time. Within a batch, the first copies of all examples
    precede the second copies, and so on: an image is then neither mixed with a copy of itself nor its own reference.
    DeiT puts the copies on different GPUs instead.

    Attributes:
      seed: of the permutations.
      num_examples: N.
      batch_size: over all processes.
      repeats: copies of each example, at least 1.
    """

    seed: int
    num_examples: int
    batch_size: int
    repeats: int

    def rows(self, step: int) -> np.ndarray:
        """Return the rows of the examples in the batch of a step, int64 `[batch_size]`."""
        epoch, step_of_epoch = divmod(step, self.num_examples // self.batch_size)
        positions = step_of_epoch * self.batch_size + np.arange(self.batch_size)
        positions = positions[np.argsort(positions % self.repeats, kind="stable")]
        return _permutation(self.seed, epoch, self.num_examples)[positions // self.repeats]


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, num: int) -> np.ndarray:
    return np.random.default_rng([seed, _ORDER_SEED, epoch]).permutation(num)


class CorruptImage(NamedTuple):
    """An example that cannot be read."""

    row: int
    name: str
    reason: str


class ReadExample(NamedTuple):
    """An example, and the corrupt ones that it replaces."""

    image: np.ndarray  # uint8 [S, S, C]
    label: int
    row: int  # of this example
    corrupt: list[CorruptImage]


class ExampleReader(NamedTuple):
    """Reads examples; a corrupt one is replaced by the next readable one.

    Attributes:
      example: row -> encoded example.
      num_examples: N.
      title: what error messages call the dataset.
      max_corrupt_fraction: fraction of the examples that may be corrupt.
    """

    example: Callable[[int], Example]
    num_examples: int
    title: str
    max_corrupt_fraction: float

    def read(self, row: int, transform: Callable[[Example], np.ndarray]) -> ReadExample:
        """Return the image that `transform` makes of the example at `row`, or of the next readable one.

        Raises:
          UserError: more consecutive examples are corrupt than `max_corrupt_fraction` allows in total.
        """
        corrupt = []
        while True:
            name = f"example {row} of {self.title}"
            try:
                example = self.example(row)
                name = example.origin
                return ReadExample(transform(example), example.label, row, corrupt)
            except UserError as error:
                corrupt.append(CorruptImage(row, name, str(error)))
            self.check(corrupt)
            row = (row + 1) % self.num_examples

    def check(self, corrupt: Sequence[CorruptImage]) -> None:
        """Raise a `UserError` if more images are corrupt than `max_corrupt_fraction` allows."""
        limit = int(self.max_corrupt_fraction * self.num_examples)
        if len(corrupt) > limit:
            raise UserError(
                f"{len(corrupt)} of the {self.num_examples} images of {self.title} cannot be read: "
                f"{preview([image.name for image in corrupt])}; config.data.max_corrupt_fraction="
                f"{self.max_corrupt_fraction} allows {limit}; replace or remove them, or increase it; the first error: "
                f"{corrupt[0].reason}"
            )


class ImageTransform(NamedTuple):
    """Turns an encoded image into pixels uint8 `[S, S, C]`.

    Attributes:
      image_size: S.
      crop_fraction: of a central crop, see `decode`.
      area: of a random crop, see `random_resized_crop`; (): training uses central crops, too.
      mode: "L" or "RGB".
      interpolation: see `decode` and `random_resized_crop`.
      resizing: see `decode`.
      orientation: see `decode`.
    """

    image_size: int
    crop_fraction: float
    area: tuple[float, ...]
    mode: str
    interpolation: str = resampling.AUTO
    resizing: str = resampling.AUTO
    orientation: str = orientations.AUTO

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """S, S and C."""
        return self.image_size, self.image_size, len(self.mode)

    def center_crop(self, example: Example) -> np.ndarray:
        """Return the central crop of evaluation."""
        return decode(
            example,
            mode=self.mode,
            image_size=self.image_size,
            crop_fraction=self.crop_fraction,
            interpolation=self.interpolation,
            resizing=self.resizing,
            orientation=self.orientation,
        )

    def random_crop(self, example: Example, seed: list[int]) -> np.ndarray:
        """Return the random crop of training."""
        if not self.area:
            return self.center_crop(example)
        options = {"interpolation": self.interpolation, "orientation": self.orientation}
        return random_resized_crop(example, self.image_size, self.area, seed, self.mode, **options)


class BatchPart(NamedTuple):
    """Consecutive examples of one batch, or all of them."""

    images: np.ndarray  # uint8 [n, S, S, C]
    labels: np.ndarray  # int64 [n], as stored
    rows: np.ndarray  # int64 [n]
    corrupt: list[CorruptImage]


class BatchParts(NamedTuple):
    """The parts of all batches, in order; each is computed by one task of a worker.

    Attributes:
      reader: of the examples.
      order: of the examples.
      transform: of the images.
      bounds: int64 `[parts per batch + 1]`, where the parts of a batch begin and end.
      first_step: step of part 0.
    """

    reader: ExampleReader
    order: EpochOrder
    transform: ImageTransform
    bounds: np.ndarray
    first_step: int

    @property
    def per_batch(self) -> int:
        """Number of parts per batch."""
        return len(self.bounds) - 1

    def load(self, number: int) -> BatchPart:
        """Read and crop the examples of one part, counted over all batches."""
        step, part = self.first_step + number // self.per_batch, number % self.per_batch
        begin, end = map(int, self.bounds[part : part + 2])
        images = np.empty((end - begin, *self.transform.image_shape), np.uint8)
        labels, rows = np.empty((2, end - begin), np.int64)
        corrupt = []
        for i, row in enumerate(self.order.rows(step)[begin:end].tolist()):
            seed = [self.order.seed, _CROP_SEED, step * self.order.batch_size + begin + i]
            transform = partial(self.transform.random_crop, seed=seed)
            images[i], labels[i], rows[i], replaced = self.reader.read(row, transform)
            corrupt += replaced
        return BatchPart(images, labels, rows, corrupt)
