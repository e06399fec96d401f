"""Source "tfds": prepared TensorFlow Datasets, read without TensorFlow and without network access."""

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.data.decoding import EncodedDataset, Example
from anchor_jax.data.files import FileList, reading_errors
from anchor_jax.data.image_files import is_hidden
from anchor_jax.data.local_copies import local_tfds
from anchor_jax.data.sources.source import SourceRequest
from anchor_jax.runtime.paths import absolute_storage_path


def open_tfds(request: SourceRequest) -> EncodedDataset:
    """Open a split of a prepared dataset with the features `image` and `label`; no image is decoded."""
    if not request.name:
        raise UserError("data.name is empty; source 'tfds' needs the name of a dataset, such as 'cifar10'")
    given_dir = tfds_data_dir(request.path)
    data_dir = local_tfds(given_dir, request.name)
    prepare = _prepare_command(request.name, given_dir)
    hint = f"check data.name, or prepare the dataset again: {prepare}"
    with reading_errors(f"TFDS dataset '{request.name}' in '{data_dir}'", hint):
        builder = _open_builder(request.name, data_dir)
        mode, label_names = _classification_features(builder)
        records = _open_records(builder, request.split, prepare)
        folder = Path(builder.data_dir)
        names = sorted(file.name for file in folder.iterdir() if not is_hidden(file.name))
        files = FileList(folder.parent, [f"{folder.name}/{name}" for name in names])
    title = f"{builder.info.full_name}-{request.split}"
    return EncodedDataset(
        title,
        label_names,
        len(records),
        _RecordExamples(records, title, hint),
        lambda: mode,
        0,
        files,
        part=request.split,
    )


class _RecordExamples(NamedTuple):
    """The examples of a prepared dataset, by row; it can be pickled: another process opens the files again."""

    records: Sequence[Any]
    title: str
    hint: str

    def __call__(self, row: int) -> Example:
        origin = f"example {row} of {self.title}"
        with reading_errors(origin, self.hint):
            record = self.records[row]
        return Example(record["image"], record["label"], origin)


def tfds_data_dir(path: str) -> Path:
    """Return the folder of prepared datasets: `path`, or else $TFDS_DATA_DIR, or else ~/tensorflow_datasets."""
    if path:
        return absolute_storage_path("data.path", path)
    return absolute_storage_path("TFDS_DATA_DIR", os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def _open_builder(name: str, data_dir: Path) -> Any:
    # A read-only builder finds any version and a user's own datasets from the prepared files alone.
    from tensorflow_datasets.core import read_only_builder, registered

    try:
        return read_only_builder.builder_from_files(name, data_dir=str(data_dir))
    except registered.DatasetNotFoundError as error:
        raise _not_prepared_error(name, data_dir) from error


def _not_prepared_error(name: str, data_dir: Path) -> UserError:
    import tensorflow_datasets as tfds

    files = sorted(data_dir.glob("*/*/features.json")) + sorted(data_dir.glob("*/*/*/features.json"))
    prepared = [str(file.parent.relative_to(data_dir)) for file in files]
    present = f"prepared in '{data_dir}': {', '.join(prepared) or 'nothing'}"
    known = tfds.list_builders(with_community_datasets=False)  # listing community datasets needs the network
    base = re.split("[/:]", name)[0]
    if base in known:
        command = _prepare_command(name, data_dir)
        return UserError(f"TFDS dataset '{name}' is not prepared; {present}; to prepare it: {command}")
    nearest = ", ".join(difflib.get_close_matches(base, known)) or "none"
    return UserError(f"unknown TFDS dataset '{name}'; nearest names: {nearest}; {present}")


def _prepare_command(name: str, data_dir: Path) -> str:
    # TFDS writes tfrecord by default; only array_record and parquet can be read without TensorFlow.
    builder = f"tfds.builder('{name}', data_dir='{data_dir}', file_format='array_record')"
    return (
        f'python -c "import tensorflow_datasets as tfds; {builder}.download_and_prepare()" '
        "(preparing, unlike reading, needs tensorflow installed)"
    )


def _classification_features(builder: Any) -> tuple[str, tuple[str, ...]]:
    """Check that the dataset has labeled 8-bit images; return Pillow's mode for them and the class names."""
    import tensorflow_datasets as tfds

    features = dict(builder.info.features.items())
    image, label = features.get("image"), features.get("label")
    is_image = isinstance(image, tfds.features.Image) and image.np_dtype == np.uint8
    if not (is_image and isinstance(label, tfds.features.ClassLabel)):
        raise UserError(
            f"{builder.info.full_name} has the features {', '.join(features)}; image classification needs "
            "'image' (Image, uint8) and 'label' (ClassLabel)"
        )
    return "L" if features["image"].shape[-1] == 1 else "RGB", tuple(label.names)


def _open_records(builder: Any, split: str, prepare: str) -> Sequence[Any]:
    """Open the records of a split; each has the encoded bytes `image` and the integer `label`."""
    import tensorflow_datasets as tfds

    try:
        records = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        if len(records) == 0:  # for a slice that ends before it begins, len itself raises a ValueError
            raise ValueError("empty split")
    except NotImplementedError as error:
        raise UserError(
            f"{builder.info.full_name} is stored as {builder.info.file_format.value}, which cannot be read "
            f"without TensorFlow; delete '{builder.data_dir}' or set another data.path, then: {prepare}"
        ) from error
    except ValueError as error:
        names = list(builder.info.splits)
        raise UserError(
            f"split '{split}' of {builder.info.full_name} is unknown or empty; allowed: {', '.join(names)}, "
            f"and slices such as '{names[0]}[:90%]'"
        ) from error
    return records
