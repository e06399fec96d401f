"""Training images of sets too large for a device: decoded and cropped batch by batch, ahead of their use, by grain.

Which examples a batch has, and how they are cropped, follows from (seed, step) alone. So a run that goes on at a step
sees what it would have seen uninterrupted, whatever the number of workers and of processes.
"""

import contextlib
import hashlib
import itertools
import math
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from anchor_jax.config import DataConfig
from anchor_jax.core.errors import CorruptDataWarning, UserError
from anchor_jax.data.cropping import random_resized_crop
from anchor_jax.data.dataset import first_of, validate_labels
from anchor_jax.data.decoding import Encoded, Example, decode
from anchor_jax.data.loading import label_offsets, with_offsets
from anchor_jax.data.sources import open_encoded

_EXAMPLES_PER_TASK = 32
_BATCHES_AHEAD = 2

_ORDER, _CROP = 0, 1  # what is drawn: no two of them share their numbers


class Batch(NamedTuple):
    """What a process sees of one step."""

    images: np.ndarray  # uint8 [b, S, S, 3]
    labels: np.ndarray  # int32 [b], in [0, classes)


class Order(NamedTuple):
    """Which example comes where: an epoch is a permutation drawn from (seed, epoch), less what fills no batch.

    With repeats, each example comes as many times in a batch, or in two after each other (Hoffer et al. 2020, as in
    DeiT), and an epoch has as many batches as without: it ends after a part of the examples, another one every epoch.
    A batch has the first copies of its examples, then the second ones, and so on, so that an image is not mixed with
    another copy of itself, nor is its own reference; in DeiT they lie on different GPUs.
    """

    seed: int
    num_examples: int
    batch_size: int
    repeats: int

    def rows(self, step: int) -> np.ndarray:
        """int64 `[batch_size]`: the examples of a step's batch."""
        epoch, step_of_epoch = divmod(step, self.num_examples // self.batch_size)
        places = step_of_epoch * self.batch_size + np.arange(self.batch_size)
        places = places[np.argsort(places % self.repeats, kind="stable")]
        return _permutation(self.seed, epoch, self.num_examples)[places // self.repeats]


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, num: int) -> np.ndarray:
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(num)


class CorruptImage(NamedTuple):
    """An example that cannot be read."""

    row: int
    name: str
    reason: str


class Read(NamedTuple):
    """What was found in the place of an example."""

    image: np.ndarray
    label: int
    row: int  # of the example whose image and label these are
    damaged: list[CorruptImage]  # what could not be read before


class EncodedExamples(NamedTuple):
    """Examples of which each has an image: where it cannot be read, that of the next one that can."""

    encoded: Callable[[int], Example]
    num: int
    title: str
    max_corrupt_fraction: float  # fraction of the examples

    def read(self, row: int, image_of: Callable[[Example], np.ndarray]) -> Read:
        """What `image_of` makes of an example.

        Raises:
          UserError: as many examples in a row as may be damaged in all cannot be read, and one more.
        """
        damaged = []
        while True:
            name = f"example {row} of {self.title}"
            try:
                example = self.encoded(row)
                name = example.where
                return Read(image_of(example), example.label, row, damaged)
            except UserError as error:
                damaged.append(CorruptImage(row, name, str(error)))
            self.check(damaged)
            row = (row + 1) % self.num

    def check(self, damaged: Sequence[CorruptImage]) -> None:
        """Refuse more damaged examples than are allowed."""
        limit = int(self.max_corrupt_fraction * self.num)
        if len(damaged) > limit:
            raise UserError(
                f"{len(damaged)} of the {self.num} images of {self.title} cannot be read: "
                f"{first_of([each.name for each in damaged])}; at most {limit} may be, by "
                f"config.data.max_corrupt_fraction={self.max_corrupt_fraction}; replace or remove them, or raise it; the first: "
                f"{damaged[0].reason}"
            )


class _Picture(NamedTuple):
    """What is made of an encoded image: uint8 `[S, S, 3]`."""

    image_size: int
    crop_fraction: float
    area: tuple[float, ...]

    def central(self, example: Example) -> np.ndarray:
        return decode(example, mode="RGB", image_size=self.image_size, crop_fraction=self.crop_fraction)

    def augmented(self, example: Example, seed: list[int]) -> np.ndarray:
        if not self.area:
            return self.central(example)
        return random_resized_crop(example, image_size=self.image_size, area=self.area, seed=seed)


class _Part(NamedTuple):
    """Some examples in a row of one batch."""

    images: np.ndarray  # uint8 [n, S, S, 3]
    labels: np.ndarray  # int64 [n], as they are stored
    rows: np.ndarray  # int64 [n]
    damaged: list[CorruptImage]


class _Parts(NamedTuple):
    """The parts of all batches, each by its number: what workers make."""

    examples: EncodedExamples
    order: Order
    picture: _Picture
    bounds: np.ndarray  # int64 [parts + 1]: where the parts of a batch begin and end
    first_step: int

    @property
    def num(self) -> int:
        """Of one batch."""
        return len(self.bounds) - 1

    def make(self, number: int) -> _Part:
        step, part = self.first_step + number // self.num, number % self.num
        begin, end = map(int, self.bounds[part : part + 2])
        size = self.picture.image_size
        images = np.empty((end - begin, size, size, 3), np.uint8)
        labels, rows = np.empty((2, end - begin), np.int64)
        damaged = []
        for i, row in enumerate(self.order.rows(step)[begin:end].tolist()):
            seed = [self.order.seed, _CROP, step * self.order.batch_size + begin + i]
            image_of = partial(self.picture.augmented, seed=seed)
            images[i], labels[i], rows[i], found = self.examples.read(row, image_of)
            damaged += found
        return _Part(images, labels, rows, damaged)


class TrainStream:
    """The training images of `config.data` as an endless stream of batches; to be closed, or used as a context.

    Attributes:
      label_names: one name a class.
      image_shape: S, S and 3.
      num_examples: N, the damaged ones among them.
    """

    def __init__(self, encoded: Encoded, parts: _Parts, num_workers: int, label_offsets: np.ndarray | None):
        self.label_names = encoded.label_names
        self.image_shape = (encoded.image_size, encoded.image_size, 3)
        self.num_examples = encoded.num
        self._encoded = encoded
        self._parts = parts
        self._num_workers = num_workers
        self._label_offsets = label_offsets  # int32 [N], of label noise
        self._damaged: dict[int, CorruptImage] = {}
        self._opened: list[Generator[Batch, None, None]] = []

    def __enter__(self) -> "TrainStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers. No thread may be waiting for a batch any more."""
        while self._opened:
            self._opened.pop().close()

    @property
    def corrupt(self) -> tuple[str, ...]:
        """Names of the images that this process could not read so far; others stood in for them."""
        return tuple(each.name for each in self._damaged.values())

    def labels(self) -> np.ndarray:
        """int32 `[N]`: the labels of all examples. Those of "tfds" are in its records, which are all read for it."""
        num = self.num_examples
        stored = np.fromiter((self._encoded.example(row).label for row in range(num)), np.int64, num)
        return self._labelled(stored, np.arange(num))

    def take(self, rows: np.ndarray) -> np.ndarray:
        """uint8 `[n, S, S, 3]`: central crops of some examples, see `decoded`; only these are read."""
        read, central = self._parts.examples.read, self._parts.picture.central
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = list(pool.map(lambda row: read(int(row), central), rows))
        self._report([damaged for each in found for damaged in each.damaged])
        return np.stack([each.image for each in found])

    def batches(self, first_step: int = 0) -> Generator[Batch, None, None]:
        """The batches of all steps from one on, without end; workers make them ahead of who takes them.

        Raises:
          UserError: more images cannot be read than `config.data.max_corrupt_fraction` allows, a label is none of the classes,
            or a worker process was ended by something else.
        """
        batches = self._made(first_step)
        self._opened.append(batches)
        return batches

    def _made(self, first_step: int) -> Generator[Batch, None, None]:
        with contextlib.closing(_prefetched(self._parts._replace(first_step=first_step), self._num_workers)) as made:
            while True:
                images, labels, rows, damaged = _next(made)
                self._report(damaged)
                yield Batch(images, self._labelled(labels, rows))

    def _labelled(self, labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The labels that training sees of these examples, int32 `[n]`, from those that are stored."""
        num_classes = len(self.label_names)
        labels = validate_labels(labels, num_classes, self._encoded.title)
        offsets = self._label_offsets
        return labels if offsets is None else with_offsets(labels, offsets[rows], num_classes)

    def identity(self) -> str:
        """Tells this set from others: how many examples, and a hash of the names of their classes and files."""
        names = [*self.label_names, *(os.path.join(file.parent.name, file.name) for file in self._encoded.files)]
        digest = hashlib.sha256("\n".join(names).encode(errors="surrogateescape"))
        return f"{self.num_examples} examples, sha256 of names {digest.hexdigest()}"

    def _report(self, damaged: Sequence[CorruptImage]) -> None:
        for each in damaged:
            if each.row not in self._damaged:
                self._damaged[each.row] = each
                warnings.warn(
                    f"another image stands in for a damaged one: {each.reason}", CorruptDataWarning, stacklevel=3
                )
        self._parts.examples.check(list(self._damaged.values()))


def open_train_stream(
    config: DataConfig, *, area: Sequence[float], seed: int, batch_size: int, shard: tuple[int, int] = (0, 1)
) -> TrainStream:
    """Opens the training images of `config.data` as a stream; no image is read yet.

    Args:
      config: the section `data` of a configuration.
      area: least and greatest area of a random crop, see `random_resized_crop`; (): central crops, see `decoded`.
      seed: from which order and crops follow.
      batch_size: over all processes.
      shard: this process, counted from 0, and the number of all. It gets its part of each batch, in a row.

    Raises:
      UserError: a set that cannot be had or is no stream, no `image_size`, a `validation_fraction`, a batch of more
        images than there are or that cannot be divided among the processes.
    """
    if config.image_size < 1:
        raise UserError("config.data.image_size=0; a stream needs a number of pixels, to which images are resized")
    if config.validation_fraction:
        raise UserError(
            f"config.data.validation_fraction={config.validation_fraction}, but no part of a stream is held out; set "
            "it to 0, and hold examples out by a split, such as config.data.train_split='train[:99%]' of 'tfds'"
        )
    encoded = open_encoded(
        config.source,
        config.train_split,
        name=config.name,
        path=config.path,
        image_size=config.image_size,
        crop_fraction=config.crop_fraction,
    )
    index, count = shard
    if not count <= batch_size <= encoded.num or batch_size % count:
        raise UserError(
            f"config.training.batch_size={batch_size}; allowed: numbers up to {encoded.num}, the size of the training "
            f"set, that are divisible by {count}, the number of processes"
        )
    size = batch_size // count
    num_parts = math.ceil(size / _EXAMPLES_PER_TASK)
    parts = _Parts(
        EncodedExamples(encoded.example, encoded.num, encoded.title, config.max_corrupt_fraction),
        Order(seed, encoded.num, batch_size, config.repeats),
        _Picture(config.image_size, config.crop_fraction, tuple(area)),
        index * size + np.arange(num_parts + 1) * size // num_parts,
        first_step=0,
    )
    noise = config.label_noise
    offsets = label_offsets(encoded.num, len(encoded.label_names), noise, seed) if noise else None
    return TrainStream(encoded, parts, config.workers, offsets)


def _prefetched(parts: _Parts, num_workers: int) -> Any:
    """An iterator over whole batches, as parts, that are made by processes or by threads of this one."""
    import grain  # takes a moment

    if not flags.FLAGS.is_parsed():  # grain has flags of its own, and reads them where there is no command line, too
        flags.FLAGS.mark_as_parsed()
    ahead = _BATCHES_AHEAD * parts.num
    num_threads = 0 if num_workers else os.cpu_count() or 1
    options = grain.ReadOptions(
        num_threads=num_threads, prefetch_buffer_size=max(ahead, num_threads) * bool(num_threads)
    )
    made = grain.MapDataset.range(sys.maxsize).map(parts.make).to_iter_dataset(options)
    if num_workers:
        workers = grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=math.ceil(ahead / num_workers))
        made = made.mp_prefetch(workers, worker_init_fn=_begin_worker)
    return iter(made.batch(parts.num, batch_fn=_joined))


def _joined(parts: Sequence[_Part]) -> _Part:
    images, labels, rows, damaged = zip(*parts, strict=True)
    together = np.concatenate
    return _Part(together(images), together(labels), together(rows), list(itertools.chain(*damaged)))


def _begin_worker(*_: int) -> None:
    """Make a process of one that ends with its parent, and holds no accelerator."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent has it, too, and ends its workers when it has saved
    jax.config.update("jax_platforms", "cpu")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _next(made: Any) -> _Part:
    try:
        return next(made)
    except UserError as error:
        raise UserError(*error.args) from error  # without the lines that grain adds
    except RuntimeError as error:
        if "Worker process was terminated" not in str(error):
            raise
        raise UserError(
            f"a worker process of the input was ended from outside ({error}); if memory is short, give fewer "
            "config.data.workers"
        ) from error
