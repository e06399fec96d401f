"""Any data set as a stream of batches, of which a few are in memory at once; its classes beside those of a run."""

import contextlib
import dataclasses
from collections.abc import Callable, Generator
from functools import partial

import numpy as np
from PIL import Image

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.data.dataset import Dataset, first_of, validate_labels
from anchor_jax.data.decoding import Encoded, decode_batches, shape_of

Batch = tuple[np.ndarray, np.ndarray]  # images uint8 [b, H, W, C], labels int32 [b]

_PICKED_FROM = 512  # examples at once

MODES = {1: "L", 3: "RGB"}  # channels -> Pillow's mode


@dataclasses.dataclass(frozen=True)
class EvalDataset:
    """Labelled images, batch after batch.

    Attributes:
      name: what reports and messages call them; without "/" if `open_spec` opened them.
      label_names: one name a class.
      image_shape: H, W and C of the images.
      num_examples: N.
      labels: -> int32 `[N]`, without a look at the images.
      batches: number b of examples at once -> images uint8 `[b, H, W, C]` and labels int32 `[b]`, in [0, classes);
        fewer in the last batch alone. Every example comes once, in an order that is always the same.
    """

    name: str
    label_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    num_examples: int
    labels: Callable[[], np.ndarray]
    batches: Callable[[int], Generator[Batch, None, None]]

    def first(self, num: int) -> Batch:
        """The first examples, `num` of them or all that there are."""
        with contextlib.closing(self.batches(num)) as batches:
            return next(batches)

    def take(self, rows: np.ndarray) -> Batch:
        """Some examples, in the order of `rows`, looked for batch by batch up to the last of them."""
        found, start = {}, 0
        with contextlib.closing(self.batches(_PICKED_FROM)) as batches:
            for images, labels in batches:
                for row in rows[(rows >= start) & (rows < start + len(labels))]:
                    found[row] = np.array(images[row - start]), labels[row - start]
                start += len(labels)
                if start > max(rows):
                    break
        images, labels = zip(*(found[row] for row in rows), strict=True)
        return np.stack(images), np.array(labels, np.int32)

    def converted(self, image_shape: tuple[int, ...], convert: Callable[[np.ndarray], np.ndarray]) -> "EvalDataset":
        """The stream with what `convert` makes of the images of each batch."""

        def batches(size: int) -> Generator[Batch, None, None]:
            for images, labels in self.batches(size):
                yield convert(images), labels

        return dataclasses.replace(self, image_shape=image_shape, batches=batches)

    def relabelled(self, label_names: tuple[str, ...], rows: np.ndarray) -> "EvalDataset":
        """The stream with label `rows[label]`, int32 `[classes]`, in the place of each label."""

        def batches(size: int) -> Generator[Batch, None, None]:
            for images, labels in self.batches(size):
                yield images, rows[labels]

        return dataclasses.replace(self, label_names=label_names, labels=lambda: rows[self.labels()], batches=batches)


def eval_dataset(dataset: Dataset, name: str) -> EvalDataset:
    """A data set in memory as a stream of views of its arrays.

    Raises:
      UserTypeError: `dataset` is none, or `name` no string.
    """
    checks.instance("dataset", dataset, Dataset, "data.load")
    checks.text("name", name)
    images, labels, label_names = dataset
    return eval_dataset_from_rows(images.__getitem__, labels, label_names, images.shape[1:], name)


def eval_dataset_from_rows(
    read: Callable[[slice], np.ndarray],
    labels: np.ndarray,
    label_names: tuple[str, ...],
    image_shape: tuple[int, ...],
    name: str,
) -> EvalDataset:
    """Images as a stream, of which `read` gives any rows."""

    def batches(size: int) -> Generator[Batch, None, None]:
        for start in range(0, len(labels), size):
            rows = slice(start, start + size)
            yield read(rows), labels[rows]

    return EvalDataset(name, label_names, image_shape, len(labels), lambda: labels, batches)


def eval_dataset_from_encoded(encoded: Encoded, name: str) -> EvalDataset:
    """Encoded images as a stream, decoded by threads ahead of who takes them."""

    def valid(labels: np.ndarray) -> np.ndarray:
        return validate_labels(labels, len(encoded.label_names), encoded.title)

    def labels() -> np.ndarray:
        return valid(np.fromiter((encoded.example(row).label for row in range(encoded.num)), np.int64, encoded.num))

    def batches(size: int) -> Generator[Batch, None, None]:
        for images, labels in decode_batches(encoded, size):
            yield images, valid(labels)

    return EvalDataset(name, encoded.label_names, shape_of(encoded), encoded.num, labels, batches)


def match_channels(stream: EvalDataset, image_shape: tuple[int, ...]) -> EvalDataset:
    """The stream with as many channels as the images of a run: grey is Pillow's, by ITU-R 601; colour repeats grey.

    Raises:
      UserError: the images differ in more than that.
    """
    if stream.image_shape == image_shape:
        return stream
    given, channels = stream.image_shape[-1], image_shape[-1]
    if stream.image_shape[:-1] != image_shape[:-1] or {given, channels} != set(MODES):
        raise UserError(
            f"images of '{stream.name}' are {list(stream.image_shape)}, but those of the run {list(image_shape)}; give "
            "images of the same size, grey or in colour (image files and tfds sets are resized if the run's are square)"
        )
    return stream.converted(image_shape, partial(_in_mode, mode=MODES[channels]))


def _in_mode(images: np.ndarray, mode: str) -> np.ndarray:
    tall = images.reshape(-1, *images.shape[2:])  # one below the other they are one image to Pillow
    converted = Image.fromarray(tall if tall.shape[-1] > 1 else tall[..., 0]).convert(mode)
    return np.asarray(converted).reshape(*images.shape[:-1], len(mode))


def class_rows(
    label_names: tuple[str, ...], run_label_names: tuple[str, ...], where: str = "the data set"
) -> np.ndarray | None:
    """Where the classes of a data set are among those of a run.

    A set that has as many classes as the run and calls them "0", "1", ... counts them as the run does: some sets have
    no names of classes, as `tfds:cifar10_1`.

    Args:
      label_names: of the data set: all of the run's classes or some, in any order.
      run_label_names: of the run.
      where: what a message calls the data set.

    Returns:
      int32 `[classes of the set]`, to which the logits are restricted; None if the classes are the same.

    Raises:
      UserTypeError: the names are no tuples.
      UserError: a class of the set is none of the run's.
    """
    checks.several("label_names", label_names)
    checks.several("run_label_names", run_label_names)
    if label_names == run_label_names:
        return None
    numbers = [str(number) for number in range(len(run_label_names))]
    counted = sorted(label_names) == sorted(numbers)
    row_of = {name: row for row, name in enumerate(numbers if counted else run_label_names)}
    strange = [name for name in label_names if name not in row_of]
    if strange:
        raise UserError(
            f"{len(strange)} of the {len(label_names)} classes of {where} are none of the run's "
            f"{len(run_label_names)}: {first_of(strange)}; the run has: {first_of(run_label_names)}"
        )
    rows = np.array([row_of[name] for name in label_names], np.int32)
    return None if np.array_equal(rows, np.arange(len(run_label_names))) else rows


def remap_labels(stream: EvalDataset, label_names: tuple[str, ...]) -> EvalDataset:
    """The stream with its labels counted as a run does.

    Raises:
      UserError: its classes are not those of the run, in whichever order; see `class_rows`.
    """
    check_same_classes(stream.label_names, label_names, f"'{stream.name}'")
    rows = class_rows(stream.label_names, label_names)
    return (
        dataclasses.replace(stream, label_names=label_names) if rows is None else stream.relabelled(label_names, rows)
    )


def check_same_classes(label_names: tuple[str, ...], run_label_names: tuple[str, ...], where: str) -> None:
    """Refuse classes that are not all of the run's, in whichever order; see `class_rows`."""
    rows = class_rows(label_names, run_label_names, where)
    missing = [] if rows is None else np.setdiff1d(np.arange(len(run_label_names)), rows)
    if len(missing):
        raise UserError(
            f"{where} has {len(label_names)} of the run's {len(run_label_names)} classes; it lacks "
            f"{first_of([run_label_names[row] for row in missing])}"
        )


def drop_empty_classes(stream: EvalDataset) -> EvalDataset:
    """The stream without the names of classes of which it has no example."""
    present = np.unique(stream.labels())
    rows = np.full(len(stream.label_names), -1, np.int32)
    rows[present] = np.arange(len(present))
    return stream.relabelled(tuple(stream.label_names[label] for label in present), rows)
