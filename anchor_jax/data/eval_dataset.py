"""Any dataset as batches in a fixed order; only a few batches are in memory at a time."""

import contextlib
import dataclasses
from collections.abc import Callable, Generator
from functools import cache, partial
from typing import NamedTuple

import numpy as np

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.core.short_reprs import short_repr
from anchor_jax.data.content import UNKNOWN, content_of_arrays, content_of_rows
from anchor_jax.data.dataset import Dataset, validate_labels
from anchor_jax.data.decoding import EncodedDataset, decode_batches
from anchor_jax.data.modes import MODES, convert_batch

Batch = tuple[np.ndarray, np.ndarray]  # images uint8 [b, H, W, C], labels int32 [b]
Batches = Callable[[int], Generator[Batch, None, None]]  # of a batch size b

_TAKE_BATCH_SIZE = 512


class Reader(NamedTuple):
    """How examples are read: `labels` and `batches` of an `EvalDataset`."""

    labels: Callable[[], np.ndarray]
    batches: Batches


@short_repr
@dataclasses.dataclass(frozen=True)
class EvalDataset:
    """Labeled images, read batch by batch.

    Attributes:
      name: how reports and messages refer to the dataset; without "/" if `open_dataset` opened it.
      label_names: one name per class.
      image_shape: H, W and C of the images.
      num_examples: N.
      labels: () -> int32 `[N]`; no image is decoded.
      batches: batch size b -> generator of images uint8 `[b, H, W, C]` and labels int32 `[b]` in [0, classes). Only the
        last batch may be smaller. Each example occurs once, and the order is always the same.
      split: of a source, "" if there are none.
      content: () -> SHA-256 that tells whether the content of two datasets is the same, see `data.content`; "" if
        unknown.
      file_of: row -> path of its image file, relative to the folder of the dataset; None if examples are not files.
      rows: of a `subset`: the rows of its examples in the complete dataset, int64 `[N]`; None of a complete one.
      select: rows, sorted int `[n]` -> how to read these examples alone; None if all have to be read to find them.
        Clear it wherever `batches` is replaced.

    Example:
      >>> import anchor_jax as aj
      >>> test = aj.data.open_dataset("digits@test", image_shape=(8, 8, 1))
      >>> test.name, test.num_examples, test.labels().shape
      ('digits-test', 360, (360,))
      >>> [images.shape for images, labels in test.batches(200)]
      [(200, 8, 8, 1), (160, 8, 8, 1)]
    """

    name: str
    label_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    num_examples: int
    labels: Callable[[], np.ndarray]
    batches: Batches
    split: str = ""
    content: Callable[[], str] = UNKNOWN
    file_of: Callable[[int], str] | None = None
    rows: np.ndarray | None = dataclasses.field(default=None, compare=False)
    select: Callable[[np.ndarray], Reader] | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "label_names", checks.several("label_names", self.label_names))
        object.__setattr__(self, "image_shape", checks.image_shape("image_shape", self.image_shape))

    def first(self, num: int) -> Batch:
        """Return the first `num` examples, or all of them if there are fewer."""
        with contextlib.closing(self.batches(num)) as batches:
            return next(batches)

    def take(self, rows: np.ndarray) -> Batch:
        """Return the examples at `rows`, int `[n]`, in that order; reads every batch up to the last of them."""
        found, start = {}, 0
        with contextlib.closing(self.batches(_TAKE_BATCH_SIZE)) as batches:
            for images, labels in batches:
                for row in rows[(rows >= start) & (rows < start + len(labels))]:
                    found[row] = np.array(images[row - start]), labels[row - start]
                start += len(labels)
                if start > max(rows):
                    break
        images, labels = zip(*(found[row] for row in rows), strict=True)
        return np.stack(images), np.array(labels, np.int32)

    def subset(self, rows: np.ndarray) -> "EvalDataset":
        """Return the examples at `rows`, sorted int `[n]`; only these are read if the source allows it."""
        reader, files = self._reader_of(rows), self.file_of
        return dataclasses.replace(
            self,
            num_examples=len(rows),
            labels=reader.labels,
            batches=reader.batches,
            content=cache(partial(content_of_rows, self.content, rows)),
            file_of=None if files is None else lambda row: files(int(rows[row])),
            rows=rows if self.rows is None else self.rows[rows],
            select=None,
        )

    def in_memory(self) -> "EvalDataset":
        """Return the dataset with all images read, and kept."""
        images, labels = (np.concatenate(parts) for parts in zip(*self.batches(_TAKE_BATCH_SIZE), strict=True))
        kept = eval_dataset_from_rows(images.__getitem__, labels, self.label_names, self.image_shape, self.name)
        return dataclasses.replace(self, labels=kept.labels, batches=kept.batches, select=kept.select)

    def map_images(self, image_shape: tuple[int, ...], function: Callable[[np.ndarray], np.ndarray]) -> "EvalDataset":
        """Return a dataset that applies `function` to the images of each batch; they then have `image_shape`."""

        def mapped(reader: Reader) -> Reader:
            def batches(batch_size: int) -> Generator[Batch, None, None]:
                for images, labels in reader.batches(batch_size):
                    yield function(images), labels

            return Reader(reader.labels, batches)

        return dataclasses.replace(self._changed(mapped), image_shape=image_shape)

    def relabelled(self, label_names: tuple[str, ...], rows: np.ndarray) -> "EvalDataset":
        """Return a dataset whose label l is `rows[l]`, int32 `[classes]`, a row of the new `label_names`."""

        def changed(reader: Reader) -> Reader:
            def batches(batch_size: int) -> Generator[Batch, None, None]:
                for images, labels in reader.batches(batch_size):
                    yield images, rows[labels]

            return Reader(lambda: rows[reader.labels()], batches)

        return dataclasses.replace(self._changed(changed), label_names=label_names)

    def _changed(self, change: Callable[[Reader], Reader]) -> "EvalDataset":
        """Return a dataset that is read in another way, as are its subsets."""
        reader = change(Reader(self.labels, self.batches))
        return dataclasses.replace(
            self, labels=reader.labels, batches=reader.batches, select=lambda rows: change(self._reader_of(rows))
        )

    def _reader_of(self, rows: np.ndarray) -> Reader:
        if self.select:
            return self.select(rows)
        return Reader(lambda: self.labels()[rows], partial(_batches_at, self.batches, rows))


def _batches_at(batches: Batches, rows: np.ndarray, batch_size: int) -> Generator[Batch, None, None]:
    """Read all batches up to the last of some rows, and yield batches of these alone."""
    start, images, labels = 0, [], []
    with contextlib.closing(batches(batch_size)) as read:
        for all_images, all_labels in read:
            end = start + len(all_labels)
            for row in rows[(rows >= start) & (rows < end)] - start:
                images.append(np.array(all_images[row]))
                labels.append(all_labels[row])
            start = end
            while len(labels) >= batch_size or (labels and end > rows[-1]):
                yield np.stack(images[:batch_size]), np.array(labels[:batch_size], np.int32)
                images, labels = images[batch_size:], labels[batch_size:]
            if end > rows[-1]:
                return


def eval_dataset(dataset: Dataset, name: str, *, channels: int = 0) -> EvalDataset:
    """Wrap a dataset in memory; its batches are views of the arrays.

    Args:
      dataset: N labeled images.
      name: how reports refer to it.
      channels: C, required if it is above 4: such images are mostly `[N, C, H, W]`.

    Raises:
      UserTypeError: `dataset` is not a `Dataset`, its images are not uint8, or `name` is not a string.
      UserError: the images are not `[N, H, W, C]`.

    Example:
      >>> import anchor_jax as aj
      >>> test = aj.data.eval_dataset(aj.data.load("digits", "test"), "digits")
      >>> images, labels = test.first(5)
      >>> images.shape, labels.shape
      ((5, 8, 8, 1), (5,))
    """
    checks.instance("dataset", dataset, Dataset, "data.load")
    checks.text("name", name)
    checks.images("dataset.images", dataset.images, "uint8", channels)
    images, labels, label_names = dataset
    content = cache(partial(content_of_arrays, images, labels, label_names))
    opened = eval_dataset_from_rows(images.__getitem__, labels, label_names, images.shape[1:], name)
    return dataclasses.replace(opened, content=content)


def eval_dataset_from_rows(
    read: Callable[[slice | np.ndarray], np.ndarray],
    labels: np.ndarray,
    label_names: tuple[str, ...],
    image_shape: tuple[int, ...],
    name: str,
) -> EvalDataset:
    """Create a dataset from a function that reads some images.

    Args:
      read: slice of rows, or rows int `[b]` -> images uint8 `[b, H, W, C]`.
      labels: int32 `[N]`.
      label_names: one name per class.
      image_shape: H, W and C.
      name: how reports refer to it.
    """

    def batches(batch_size: int) -> Generator[Batch, None, None]:
        for start in range(0, len(labels), batch_size):
            rows = slice(start, start + batch_size)
            yield read(rows), labels[rows]

    def select(rows: np.ndarray) -> Reader:
        def batches(batch_size: int) -> Generator[Batch, None, None]:
            for start in range(0, len(rows), batch_size):
                part = rows[start : start + batch_size]
                yield read(part), labels[part]

        return Reader(lambda: labels[rows], batches)

    return EvalDataset(name, label_names, image_shape, len(labels), lambda: labels, batches, select=select)


def eval_dataset_from_encoded(encoded: EncodedDataset, name: str) -> EvalDataset:
    """Create a dataset from encoded images; threads decode them ahead of the caller."""

    def validate(labels: np.ndarray) -> np.ndarray:
        return validate_labels(labels, len(encoded.label_names), encoded.title)

    def reader(encoded: EncodedDataset) -> Reader:
        @cache  # records of TFDS are read for their labels
        def labels() -> np.ndarray:
            num = encoded.num_examples
            return validate(np.fromiter((encoded.example(row).label for row in range(num)), np.int64, num))

        def batches(batch_size: int) -> Generator[Batch, None, None]:
            for images, labels in decode_batches(encoded, batch_size):
                yield images, validate(labels)

        return Reader(labels, batches)

    return EvalDataset(
        name,
        encoded.label_names,
        encoded.image_shape(),
        encoded.num_examples,
        *reader(encoded),
        content=cache(encoded.content),
        file_of=encoded.file_of,
        select=lambda rows: reader(encoded.subset(rows)),
    )


def match_channels(dataset: EvalDataset, image_shape: tuple[int, ...]) -> EvalDataset:
    """Convert images to the number of channels of a run's images.

    RGB becomes grayscale by Pillow's conversion (ITU-R BT.601); grayscale is repeated in three channels.

    Args:
      dataset: images of any shape.
      image_shape: H, W and C of the run.

    Raises:
      UserError: the images differ from the run's in another way.
    """
    if dataset.image_shape == image_shape:
        return dataset
    own_channels, channels = dataset.image_shape[-1], image_shape[-1]
    if dataset.image_shape[:-1] != image_shape[:-1] or {own_channels, channels} != set(MODES):
        raise UserError(
            f"images of '{dataset.name}' are {list(dataset.image_shape)}, but those of the run are "
            f"{list(image_shape)}; give images of the same height and width, grayscale or RGB (image files and tfds "
            "datasets are resized)"
        )
    return dataset.map_images(image_shape, partial(convert_batch, mode=MODES[channels]))
