"""Load the datasets that a config names."""

import dataclasses
import math
from functools import cache
from pathlib import PurePath
from typing import Any

import numpy as np

from anchor_jax.config import DataConfig
from anchor_jax.core.errors import UserError
from anchor_jax.data.class_mapping import remap_dataset, remap_labels, warn_empty_classes
from anchor_jax.data.dataset import Dataset
from anchor_jax.data.eval_dataset import EvalDataset, eval_dataset
from anchor_jax.data.label_noise import add_label_offsets, draw_label_offsets
from anchor_jax.data.modes import mode_of
from anchor_jax.data.sources import SOURCES, load, open_encoded, open_stream


def load_train(config: DataConfig, seed: int, label_names: tuple[str, ...] = ()) -> tuple[Dataset, Dataset | None]:
    """Load the training set of a config, split into training and validation; warn if a class has no example.

    Args:
      config: the section `data` of a config. `validation_fraction` is held out, stratified by class; `label_noise` is
        the fraction of the remaining labels that are replaced, see `draw_label_offsets`.
      seed: of the split and of the noise.
      label_names: of the run that is resumed or evaluated, to which the labels are mapped by name; (): those of the
        dataset.

    Returns:
      The training set, and the held-out set or None.

    Raises:
      UserError: `load` fails, the run lacks a class, or there are too few examples to hold some out of every class.

    Example:
      >>> import anchor_jax as aj
      >>> from anchor_jax.config import base
      >>> config = base()  # data.source is "digits"
      >>> config.data.validation_fraction = 0.1
      >>> train, held_out = aj.data.load_train(config.data, seed=0)
      >>> len(train.images), len(held_out.images)
      (1293, 144)
    """
    dataset = load(config.source, config.train_split, **_location(config), mode=config.mode)
    dataset = remap_dataset(dataset, label_names or dataset.label_names, "the training set")
    warn_empty_classes(dataset.labels, dataset.label_names, "the training set")
    if not config.validation_fraction:
        return _add_label_noise(dataset, config, seed), None
    from sklearn.model_selection import train_test_split  # takes a second to import

    rows = np.arange(len(dataset.images))
    try:
        kept, held_out = train_test_split(
            rows, test_size=config.validation_fraction, random_state=seed, stratify=dataset.labels
        )
    except ValueError as error:
        raise UserError(
            f"config.data.validation_fraction={config.validation_fraction} does not fit the training set: {error}"
        ) from error
    train, validation = (_select(dataset, np.sort(part)) for part in (kept, held_out))
    return _add_label_noise(train, config, seed), validation


def load_test(config: DataConfig, label_names: tuple[str, ...], image_shape: tuple[int, ...]) -> Dataset:
    """Load the test set of a config, with labels mapped by name to the classes of the training set.

    A warning tells which classes have no example.

    Args:
      config: the section `data` of a config.
      label_names: of the training set.
      image_shape: H, W and C of the training set; the test set is read as grayscale or RGB, according to C.

    Raises:
      UserError: `load` fails, it has a class that the training set lacks, or images that differ in size.

    Example:
      >>> import anchor_jax as aj
      >>> from anchor_jax.config import base
      >>> train, _ = aj.data.load_train(base().data, seed=0)
      >>> aj.data.load_test(base().data, train.label_names, train.images.shape[1:]).images.shape
      (360, 8, 8, 1)
    """
    dataset = load(config.source, config.test_split, **_location(config), mode=mode_of(image_shape))
    origin = f"split '{config.test_split}'"
    dataset = remap_dataset(dataset, label_names, origin)
    _check_image_shape(origin, dataset.images.shape[1:], image_shape)
    warn_empty_classes(dataset.labels, label_names, origin)
    return dataset


def open_test(
    config: DataConfig, label_names: tuple[str, ...], image_shape: tuple[int, ...], *, keep_bytes: float = 0
) -> EvalDataset:
    """Open the test set of a config in batches; the dataset is named "test".

    Args:
      config: see `load_test`.
      label_names: see `load_test`.
      image_shape: see `load_test`.
      keep_bytes: decode a test set of up to as many bytes once, and keep it in memory.

    Raises:
      UserError: as `load_test`.

    Example:
      >>> import anchor_jax as aj
      >>> from anchor_jax.config import base
      >>> test = aj.data.open_test(base().data, tuple("0123456789"), (8, 8, 1))
      >>> test.name, test.num_examples
      ('test', 360)
    """
    if keep_bytes and config.source in SOURCES and SOURCES[config.source].is_encoded:
        encoded = open_encoded(config.source, config.test_split, name=config.name, path=config.path)
        if encoded.num_examples * math.prod(image_shape) <= keep_bytes:
            decoded = eval_dataset(load_test(config, label_names, image_shape), "test", channels=image_shape[-1])
            facts = {"content": cache(encoded.content), "file_of": encoded.file_of}
            return dataclasses.replace(decoded, split=config.test_split, **facts)
    options = {**_location(config), "mode": mode_of(image_shape), "title": "test"}
    dataset = open_stream(config.source, config.test_split, **options)
    origin = f"split '{config.test_split}'"
    dataset = remap_labels(dataset, label_names, origin)
    _check_image_shape(origin, dataset.image_shape, image_shape)
    return dataset


def name_of(config: DataConfig) -> str:
    """Return the name of the dataset of a config: that of "tfds", of the file or folder, or of the source.

    Args:
      config: the section `data` of a config. A name or path that belongs to another source does not count.
    """
    located_by = SOURCES[config.source].located_by
    if located_by == "name":
        return config.name
    return (PurePath(config.path).name if located_by == "path" else "") or config.source


def _location(config: DataConfig) -> dict[str, Any]:
    """Return the arguments of `load`, except source, split and mode."""
    return {
        "name": config.name,
        "path": config.path,
        "image_size": config.image_size,
        "crop_fraction": config.crop_fraction,
        "interpolation": config.interpolation,
        "resizing": config.resizing,
        "orientation": config.orientation,
        "channels": config.channels,
    }


def _add_label_noise(dataset: Dataset, config: DataConfig, seed: int) -> Dataset:
    if not config.label_noise:
        return dataset
    num_classes = len(dataset.label_names)
    offsets = draw_label_offsets(len(dataset.labels), num_classes, config.label_noise, seed)
    return dataset._replace(labels=add_label_offsets(dataset.labels, offsets, num_classes))


def _select(dataset: Dataset, rows: np.ndarray) -> Dataset:
    return Dataset(dataset.images[rows], dataset.labels[rows], dataset.label_names)


def _check_image_shape(origin: str, image_shape: tuple[int, ...], train_image_shape: tuple[int, ...]) -> None:
    if image_shape != train_image_shape:
        raise UserError(
            f"images of {origin} are {list(image_shape)}, but those of the training set are "
            f"{list(train_image_shape)}; give images of the same size and channels (config.data.image_size)"
        )
