"""Stream a training set that does not fit on a device: its images are decoded and cropped ahead of the training loop.

The examples of a batch and their crops depend on (seed, step) alone, not on the number of workers or processes. A run
that resumes at a step gets the batches of an uninterrupted run.
"""

import contextlib
import hashlib
import math
import os
import warnings
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from anchor_jax.config import DataConfig
from anchor_jax.core.errors import CorruptDataWarning, UserError
from anchor_jax.core.short_reprs import of_fields, short_repr
from anchor_jax.data.class_mapping import complete_class_rows
from anchor_jax.data.dataset import validate_labels
from anchor_jax.data.decoding import EncodedDataset
from anchor_jax.data.label_noise import add_label_offsets, draw_label_offsets
from anchor_jax.data.prefetching import next_batch, prefetch
from anchor_jax.data.sources import check_channels, check_is_encoded, open_encoded
from anchor_jax.data.train_batches import BatchParts, CorruptImage, EpochOrder, ExampleReader, ImageTransform

_EXAMPLES_PER_TASK = 32


@short_repr
class Batch(NamedTuple):
    """The part of a training batch that one process reads.

    Attributes:
      images: uint8 `[b, S, S, C]`.
      labels: int32 `[b]`, in [0, classes).
    """

    images: np.ndarray
    labels: np.ndarray


class TrainStream:
    """The training images of a config as an endless stream of batches.

    Close the stream after use, or use it in a `with` statement: it owns threads or worker processes.

    Attributes:
      label_names: one name per class.
      image_shape: S, S and C, which is 1 or 3.
      num_examples: N, including corrupt examples.
    """

    def __init__(
        self,
        encoded: EncodedDataset,
        label_names: tuple[str, ...],
        parts: BatchParts,
        num_workers: int,
        label_offsets: np.ndarray | None,
    ):
        """Create a stream; see `open_train_stream`.

        Args:
          encoded: the examples.
          label_names: of the batches; the labels of the examples are mapped to them by name.
          parts: of the batches.
          num_workers: number of worker processes; 0 uses threads.
          label_offsets: label noise, int32 `[N]`, or None.
        """
        self.label_names = label_names
        self._class_rows = complete_class_rows(encoded.label_names, label_names, "the training set")
        self.image_shape = parts.transform.image_shape
        self.num_examples = encoded.num_examples
        self._encoded = encoded
        self._parts = parts
        self._num_workers = num_workers
        self._label_offsets = label_offsets
        self._corrupt: dict[int, CorruptImage] = {}
        self._generators: list[Generator[Batch, None, None]] = []

    def __repr__(self) -> str:
        names = ("image_shape", "num_examples", "label_names")
        return of_fields("TrainStream", {name: getattr(self, name) for name in names})

    def __enter__(self) -> "TrainStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop all workers. No other thread may be waiting for a batch."""
        while self._generators:
            self._generators.pop().close()

    @property
    def corrupt(self) -> tuple[str, ...]:
        """Names of the images that this process could not read so far, and replaced by others."""
        return tuple(image.name for image in self._corrupt.values())

    def labels(self) -> np.ndarray:
        """Return the labels of all examples, int32 `[N]`. For "tfds" this reads all records."""
        num = self.num_examples
        stored = np.fromiter((self._encoded.example(row).label for row in range(num)), np.int64, num)
        return self._training_labels(stored, np.arange(num))

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return central crops of the examples at `rows`, uint8 `[n, S, S, C]`; no other example is read."""
        reader, transform = self._parts.reader, self._parts.transform.center_crop
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            examples = list(pool.map(lambda row: reader.read(int(row), transform), rows))
        self._report([image for example in examples for image in example.corrupt])
        return np.stack([example.image for example in examples])

    def batches(self, first_step: int = 0) -> Generator[Batch, None, None]:
        """Return the batches of all steps from `first_step`, without end; workers compute them ahead.

        Raises:
          UserError: more images are corrupt than `config.data.max_corrupt_fraction` allows, a label is out of range, or
            a worker process was killed.
        """
        generator = self._generate(first_step)
        self._generators.append(generator)
        return generator

    def identity(self) -> str:
        """Return what identifies the dataset: the number of examples, and a hash of the class and file names."""
        label_names = [name.encode(errors="surrogateescape") for name in self._encoded.label_names]
        digest = hashlib.sha256(b"\n".join([*label_names, *self._encoded.files.names()]))
        return f"{self.num_examples} examples, sha256 of names {digest.hexdigest()}"

    def _generate(self, first_step: int) -> Generator[Batch, None, None]:
        parts = self._parts._replace(first_step=first_step)
        with contextlib.closing(prefetch(parts, self._num_workers)) as prefetched:
            while True:
                images, labels, rows, corrupt = next_batch(prefetched)
                self._report(corrupt)
                yield Batch(images, self._training_labels(labels, rows))

    def _training_labels(self, labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Validate the stored labels of some rows, map them to `label_names` and add label noise, int32 `[n]`."""
        labels = validate_labels(labels, len(self._encoded.label_names), self._encoded.title)
        if self._class_rows is not None:
            labels = self._class_rows[labels]
        offsets = self._label_offsets
        return labels if offsets is None else add_label_offsets(labels, offsets[rows], len(self.label_names))

    def _report(self, corrupt: Sequence[CorruptImage]) -> None:
        """Warn once per corrupt image, and check how many there are."""
        for image in corrupt:
            if image.row not in self._corrupt:
                self._corrupt[image.row] = image
                warnings.warn(
                    f"a corrupt image is replaced by another one: {image.reason}", CorruptDataWarning, stacklevel=3
                )
        self._parts.reader.check(list(self._corrupt.values()))


def open_train_stream(
    config: DataConfig,
    *,
    area: Sequence[float],
    seed: int,
    batch_size: int,
    shard: tuple[int, int] = (0, 1),
    label_names: tuple[str, ...] = (),
) -> TrainStream:
    """Open the training images of a config as a stream; no image is read yet, except headers if the mode is "auto".

    Args:
      config: the section `data` of a config.
      area: minimum and maximum area of random crops, as fractions of the image, see `random_resized_crop`; (): central
        crops, see `decode`.
      seed: determines the order and the crops.
      batch_size: over all processes.
      shard: (index of this process, number of processes). Each process reads a contiguous part of every batch.
      label_names: of the run that is resumed or evaluated, see `load_train`.

    Returns:
      `TrainStream`.

    Raises:
      UserError: the dataset cannot be opened or streamed, `image_size` is 0, `validation_fraction` is set, or
        `batch_size` is larger than the dataset or not divisible by the number of processes.

    Example:
      >>> import pathlib, tempfile
      >>> import anchor_jax as aj
      >>> from anchor_jax.config import base
      >>> from PIL import Image
      >>> root = pathlib.Path(tempfile.mkdtemp())
      >>> for name in ("ant", "bee"):
      ...     (root / "train" / name).mkdir(parents=True)
      ...     for row in range(4):
      ...         Image.new("RGB", (20, 16)).save(root / "train" / name / f"{row}.png")
      >>> config = base().data
      >>> config.update(source="folder", path=str(root), image_size=8)
      >>> with aj.data.open_train_stream(config, area=(0.08, 1.0), seed=0, batch_size=4) as stream:
      ...     batch = next(stream.batches())
      >>> stream.num_examples, batch.images.shape, batch.labels.dtype
      (8, (4, 8, 8, 3), dtype('int32'))
    """
    check_streams(config)
    encoded = open_encoded(
        config.source,
        config.train_split,
        name=config.name,
        path=config.path,
        image_size=config.image_size,
        crop_fraction=config.crop_fraction,
        interpolation=config.interpolation,
        resizing=config.resizing,
        orientation=config.orientation,
        mode=config.mode,
    )
    num_examples = encoded.num_examples
    index, num_processes = shard
    if not num_processes <= batch_size <= num_examples or batch_size % num_processes:
        raise UserError(
            f"config.training.batch_size={batch_size}; allowed: up to {num_examples}, the size of the training set, "
            f"and divisible by {num_processes}, the number of processes"
        )
    transform = ImageTransform(
        config.image_size,
        config.crop_fraction,
        tuple(area),
        encoded.mode(),
        config.interpolation,
        config.resizing,
        config.orientation,
    )
    check_channels(transform.image_shape, config.channels, encoded.title)
    local_size = batch_size // num_processes
    num_parts = math.ceil(local_size / _EXAMPLES_PER_TASK)
    parts = BatchParts(
        ExampleReader(encoded.example, num_examples, encoded.title, config.max_corrupt_fraction),
        EpochOrder(seed, num_examples, batch_size, config.repeats),
        transform,
        index * local_size + np.arange(num_parts + 1) * local_size // num_parts,
        first_step=0,
    )
    noise = config.label_noise
    label_names = label_names or encoded.label_names
    offsets = draw_label_offsets(num_examples, len(label_names), noise, seed) if noise else None
    return TrainStream(encoded, label_names, parts, config.workers, offsets)


def check_streams(config: DataConfig) -> None:
    """Check that a training set can be streamed.

    Raises:
      UserError: its images have no size or are not encoded, or it is asked to hold out a part.
    """
    if config.image_size < 1:
        raise UserError("config.data.image_size=0; a stream needs a number of pixels to resize images to")
    if config.validation_fraction:
        raise UserError(
            f"config.data.validation_fraction={config.validation_fraction} does not work with a stream; set it to 0, "
            "and hold examples out by a split, such as config.data.train_split='train[:99%]' of 'tfds'"
        )
    check_is_encoded(config.source)
