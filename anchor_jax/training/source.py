"""Training sets: in device memory, or streamed as decoded images."""

import hashlib
import time
from collections.abc import Iterator
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from anchor_jax.config import Config
from anchor_jax.core.errors import UserError
from anchor_jax.data import (
    Batch,
    Dataset,
    Normalization,
    TrainStream,
    load_mixing_images,
    load_train,
    measure_normalization,
    open_train_stream,
    select_rows,
)
from anchor_jax.data.image_table import ImageTable
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.training.device_loop import RunSteps, compile_in_memory_loop, compile_stream_loop
from anchor_jax.training.draws import uses_references
from anchor_jax.training.model_batch import TrainData
from anchor_jax.training.step import TrainStep


class TrainSource(Protocol):
    """The training set of a run.

    Attributes:
      label_names: one name per class.
      image_shape: (H, W, C).
      num_examples: N.
      waited: seconds that the host has waited for batches so far.
    """

    label_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    num_examples: int
    waited: float

    @property
    def num_corrupt(self) -> int:
        """The number of images that this process could not read so far."""
        ...

    def identity(self) -> str:
        """Return what identifies this training set: its number of examples, and a hash of its contents or names."""
        ...

    def labels(self) -> np.ndarray:
        """Return the labels of all examples, int32 `[N]`."""
        ...

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return un-augmented images: int `[n]` -> uint8 `[n, H, W, C]`."""
        ...

    def normalization(self) -> Normalization:
        """Measure mean and standard deviation of the channels."""
        ...

    def train_data(self, bank_rows: np.ndarray | None, config: Config, mesh: Mesh) -> TrainData:
        """Place on the devices what the steps need besides the state and the batches.

        Args:
          bank_rows: int32 `[M]`, rows of the training set that are in the reference bank, in ascending order; None if
            references are not drawn from a bank.
          config: of the run.
          mesh: the devices.
        """
        ...

    def compile_steps(self, train_step: TrainStep, config: Config, mesh: Mesh, carry_specs: Any) -> RunSteps:
        """Return the function that runs training steps on this training set.

        Args:
          train_step: of `make_train_step`.
          config: of the run.
          mesh: the devices.
          carry_specs: partition specs of state and totals.
        """
        ...

    def close(self) -> None:
        """Release the workers; no steps can follow."""
        ...


class InMemorySource:
    """A training set that every device holds in full; a `TrainSource`."""

    waited, num_corrupt = 0.0, 0

    def __init__(self, dataset: Dataset):
        self.label_names, self._dataset = dataset.label_names, dataset
        self.num_examples, self.image_shape = len(dataset.images), dataset.images.shape[1:]

    def identity(self) -> str:
        """Return the number of examples and a hash of pixels and labels."""
        digest = hashlib.sha256(np.ascontiguousarray(self._dataset.images).data)
        digest.update(np.ascontiguousarray(self._dataset.labels).data)
        return f"{self.num_examples} examples, sha256 {digest.hexdigest()}"

    def labels(self) -> np.ndarray:
        """See `TrainSource`."""
        return self._dataset.labels

    def take(self, rows: np.ndarray) -> np.ndarray:
        """See `TrainSource`."""
        return self._dataset.images[rows]

    def normalization(self) -> Normalization:
        """See `TrainSource`."""
        return measure_normalization(self._dataset.images, channels=self.image_shape[-1])

    def train_data(self, bank_rows: np.ndarray | None, config: Config, mesh: Mesh) -> TrainData:
        """Place the training set on the devices, and the bank; a bank of all images shares their memory."""
        images, labels = mesh_lib.replicate((ImageTable.of(self._dataset.images), self._dataset.labels), mesh)
        bank_images = None
        if bank_rows is not None:
            is_complete = len(bank_rows) == self.num_examples
            bank_images = images if is_complete else _place(self.take(bank_rows), mesh)
        return TrainData(images, labels, bank_images, _mixing_images(config, self.image_shape, mesh))

    def compile_steps(self, train_step: TrainStep, config: Config, mesh: Mesh, carry_specs: Any) -> RunSteps:
        """See `TrainSource`."""
        return compile_in_memory_loop(train_step, config, mesh, carry_specs, self.num_examples)

    def close(self) -> None:
        """Do nothing; there are no workers."""


class StreamSource:
    """A training set that is decoded batch by batch; a `TrainSource`. Each process decodes for its own devices."""

    def __init__(self, stream: TrainStream):
        self.label_names, self.image_shape = stream.label_names, stream.image_shape
        self.num_examples = stream.num_examples
        self.labels, self.take, self.identity = stream.labels, stream.take, stream.identity
        self.waited = 0.0
        self._stream = stream
        self._batches: Iterator[Batch] | None = None

    @property
    def num_corrupt(self) -> int:
        """See `TrainSource`."""
        return len(self._stream.corrupt)

    def normalization(self) -> Normalization:
        """Raise an error: a stream is not read in advance."""
        raise UserError("config.data.mean and config.data.std are not measured on a stream; set both")

    def train_data(self, bank_rows: np.ndarray | None, config: Config, mesh: Mesh) -> TrainData:
        """Place the bank on the devices, if references are drawn from one."""
        bank_images = None
        if bank_rows is not None:
            check_bank_of_stream(config)
            bank_images = _place(self.take(bank_rows), mesh)
        return TrainData(bank_images=bank_images, mixing_images=_mixing_images(config, self.image_shape, mesh))

    def compile_steps(self, train_step: TrainStep, config: Config, mesh: Mesh, carry_specs: Any) -> RunSteps:
        """See `TrainSource`."""
        del config
        return compile_stream_loop(train_step, self._next_batches, mesh, carry_specs)

    def _next_batches(self, step: int, num_steps: int) -> Iterator[Batch]:
        self._batches = self._batches or self._stream.batches(step)
        for _ in range(num_steps):
            started = time.perf_counter()
            batch = next(self._batches)
            self.waited += time.perf_counter() - started
            yield batch

    def close(self) -> None:
        """See `TrainSource`."""
        self._stream.close()


def open_source(config: Config, label_names: tuple[str, ...] = ()) -> tuple[TrainSource, Dataset | None]:
    """Open the training set of a config; return it and the held-out validation set, if there is one.

    Args:
      config: of the run.
      label_names: of a run that exists, see `load_train`.
    """
    if not config.data.streaming:
        dataset, held_out = load_train(config.data, config.seed, label_names)
        return InMemorySource(dataset), held_out
    no_batches = not config.training.total_epochs
    stream = open_train_stream(
        config.data,
        area=config.augmentation.resized_crop,
        seed=config.seed,
        batch_size=jax.process_count() if no_batches else config.training.batch_size,
        shard=(jax.process_index(), jax.process_count()),
        label_names=label_names,
    )
    return StreamSource(stream), None


def uses_bank(config: Config) -> bool:
    """Return whether a run draws its training references from a bank."""
    return uses_references(config.anchoring) and config.anchoring.references == "bank"


def check_bank_of_stream(config: Config) -> None:
    """Check that the bank of a stream is a part of its training set.

    Raises:
      UserError: it is the whole training set.
    """
    if not config.anchoring.bank_size:
        raise UserError(
            "config.anchoring.bank_size=0 puts the complete training set on the devices, where a stream does not fit; "
            "set a number of images, or config.anchoring.references='batch'"
        )


def bank_rows(source: TrainSource, config: Config) -> np.ndarray:
    """Select the rows of the training set that are in the reference bank, int32 `[M]`, in ascending order.

    Raises:
      UserError: the bank is larger than the training set, or too small to draw a batch without replacement.
    """
    anchoring = config.anchoring
    # labels of a stream may be slow to read, and only a bank that is balanced over classes needs them
    labels = source.labels() if anchoring.bank_per_class else np.zeros(source.num_examples, np.int32)
    rows = select_rows(labels, anchoring.bank_size, per_class=anchoring.bank_per_class, seed=config.seed)
    if uses_bank(config) and not anchoring.replace and len(rows) < config.training.batch_size:
        raise UserError(
            "config.anchoring.replace=False needs at least as many references as images in a batch, "
            f"{config.training.batch_size}; the bank has {len(rows)}"
        )
    return rows


def _place(images: np.ndarray, mesh: Mesh) -> ImageTable:
    """Place images, uint8 `[M, H, W, C]`, on every device."""
    return mesh_lib.replicate(ImageTable.of(images), mesh)


def _mixing_images(config: Config, image_shape: tuple[int, ...], mesh: Mesh) -> ImageTable | None:
    """Return the images that PixMix mixes in, on the devices; None for other policies."""
    if config.augmentation.policy != "pixmix":
        return None
    *sides, channels = image_shape
    return _place(load_mixing_images(config.augmentation.mixing_images_dir, max(sides), channels), mesh)
