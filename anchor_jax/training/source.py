"""Where a run has its batches from: a training set that lies on the devices, or a stream of decoded images."""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache
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
from anchor_jax.runs.state import Carry
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.training.step import TrainData, TrainStep, epoch_order, from_memory, seed_keys

STEPS_AHEAD = 2  # of the devices, that the host may be: so many batches wait on them

RunSteps = Callable[[Carry, TrainData, int, int], Carry]  # carry, data, steps done, steps to do -> carry


class TrainSource(Protocol):
    """The training set of a run, and its way to the steps.

    Attributes:
      label_names: one name a class.
      image_shape: H, W and C.
      num_examples: N.
      waited: seconds that the host has waited for batches up to now.
      num_corrupt: images that this process could not read up to now.
    """

    label_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    num_examples: int
    waited: float

    @property
    def num_corrupt(self) -> int:
        """See above."""
        ...

    def identity(self) -> str:
        """Tells this training set from others: how many examples, and a hash of them or of where they are."""
        ...

    def labels(self) -> np.ndarray:
        """int32 `[N]`."""
        ...

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Images as they are evaluated, not augmented: int `[n]` -> uint8 `[n, H, W, C]`."""
        ...

    def normalization(self) -> Normalization:
        """Measured on the training set."""
        ...

    def on_devices(self, bank: np.ndarray, config: Config) -> TrainData:
        """What the devices are to hold beside the state, with the rows int32 `[M]` that serve as references."""
        ...

    def steps(self, train_step: TrainStep, config: Config, mesh: Mesh, specs: Any) -> RunSteps:
        """Makes steps, compiled for the mesh; the carry, of which `specs` say what a device holds, is donated."""
        ...

    def close(self) -> None:
        """No more steps follow."""
        ...


class InMemorySource:
    """A training set of which every device holds all, a `TrainSource`: the host says how many steps, and no more."""

    waited, num_corrupt = 0.0, 0

    def __init__(self, dataset: Dataset):
        self.label_names, self._dataset = dataset.label_names, dataset
        self.num_examples, self.image_shape = len(dataset.images), dataset.images.shape[1:]

    def identity(self) -> str:
        """See `TrainSource`; of pixels and labels."""
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
        return measure_normalization(self._dataset.images)

    def on_devices(self, bank: np.ndarray, config: Config) -> TrainData:
        """See `TrainSource`."""
        return TrainData(self._dataset.images, self._dataset.labels, bank, _pictures(config, self.image_shape))

    def steps(self, train_step: TrainStep, config: Config, mesh: Mesh, specs: Any) -> RunSteps:
        """See `TrainSource`; the steps asked for at once lie within one epoch."""
        key, batch_size = seed_keys(config.seed).order, config.training.batch_size
        run_steps = mesh_lib.run_n_steps(from_memory(train_step, batch_size), mesh, specs)

        @lru_cache(maxsize=1)
        def order_of(epoch: int) -> jax.Array:
            return mesh_lib.replicate(_order_of(key, epoch, self.num_examples), mesh)

        def run(carry: Carry, data: TrainData, done: int, num: int) -> Carry:
            return run_steps(carry, num, data, order_of(done // (self.num_examples // batch_size)))

        return run

    def close(self) -> None:
        """See `TrainSource`."""


class StreamSource:
    """A training set that comes batch after batch, a `TrainSource`; each process decodes the part of its own devices."""

    def __init__(self, feed: TrainStream):
        self.label_names, self.image_shape, self.num_examples = feed.label_names, feed.image_shape, feed.num_examples
        self.labels, self.take, self.identity = feed.labels, feed.take, feed.identity
        self.waited = 0.0
        self._feed, self._batches = feed, None

    @property
    def num_corrupt(self) -> int:
        """See `TrainSource`."""
        return len(self._feed.corrupt)

    def normalization(self) -> Normalization:
        """See `TrainSource`."""
        raise UserError("config.data.mean and config.data.std are not measured on a stream; give both")

    def on_devices(self, bank: np.ndarray, config: Config) -> TrainData:
        """See `TrainSource`: the bank alone, where references are taken from it."""
        needed = config.anchoring.enabled and config.anchoring.references == "bank"
        if needed and not config.anchoring.bank_size:
            raise UserError(
                "config.anchoring.bank_size=0, all of the training set, does not fit on the devices where that is a "
                "stream; give a number of images, or config.anchoring.references='batch'"
            )
        images = self._feed.take(bank) if needed else np.zeros((0, *self.image_shape), np.uint8)
        rows = np.arange(len(images), dtype=np.int32)
        return TrainData(images, np.zeros_like(rows), rows, _pictures(config, self.image_shape))

    def steps(self, train_step: TrainStep, config: Config, mesh: Mesh, specs: Any) -> RunSteps:
        """See `TrainSource`."""
        del config

        def step(carry, data, batch):
            carry = train_step(carry, data, batch)
            return carry, carry[0].step

        step = mesh_lib.pmapped(
            step,
            mesh,
            in_specs=(specs, mesh_lib.REPLICATED, mesh_lib.SHARDED),
            out_specs=(specs, mesh_lib.REPLICATED),
            donate_argnums=(0,),
        )

        def run(carry: Carry, data: TrainData, done: int, num: int) -> Carry:
            ahead = deque()
            for batch in self._next(done, num):
                carry, is_done = step(carry, data, mesh_lib.make_global_batch(batch, mesh))
                ahead.append(is_done)
                if len(ahead) > STEPS_AHEAD:
                    ahead.popleft().block_until_ready()
            return carry

        return run

    def _next(self, done: int, num: int) -> Iterator[Batch]:
        self._batches = self._batches or self._feed.batches(done)
        for _ in range(num):
            started = time.perf_counter()
            batch = next(self._batches)
            self.waited += time.perf_counter() - started
            yield batch

    def close(self) -> None:
        """See `TrainSource`."""
        self._feed.close()


def open_source(config: Config) -> tuple[TrainSource, Dataset | None]:
    """The training set of a config, and what it holds out for the evaluations in training, if anything."""
    if not config.data.streaming:
        dataset, held_out = load_train(config.data, config.seed)
        return InMemorySource(dataset), held_out
    feed = open_train_stream(
        config.data,
        area=config.augmentation.resized_crop,
        seed=config.seed,
        batch_size=config.training.batch_size,
        shard=(jax.process_index(), jax.process_count()),
    )
    return StreamSource(feed), None


def bank_rows(supply: TrainSource, config: Config) -> np.ndarray:
    """The rows of the training set that serve as references, int32 `[M]`."""
    anchoring = config.anchoring
    # labels may have to be looked for, and only a bank of so many a class asks for them
    labels = supply.labels() if anchoring.bank_per_class else np.zeros(supply.num_examples, np.int32)
    rows = select_rows(labels, anchoring.bank_size, per_class=anchoring.bank_per_class, seed=config.seed)
    drawn_from_bank = anchoring.enabled and anchoring.references == "bank"
    if drawn_from_bank and not anchoring.replace and len(rows) < config.training.batch_size:
        raise UserError(
            f"config.anchoring.replace=False needs as many references as a batch has images, "
            f"{config.training.batch_size}; the bank has {len(rows)}"
        )
    return rows


def _pictures(config, image_shape):
    """What PixMix mixes in; None for all others."""
    if config.augmentation.policy != "pixmix":
        return None
    *sides, channels = image_shape
    return load_mixing_images(config.augmentation.mixing_images_dir, max(sides), channels)


_order_of = jax.jit(epoch_order, static_argnums=2)
