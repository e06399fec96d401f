"""The data sets that a configuration names."""

import numpy as np
from sklearn.model_selection import train_test_split

from anchor_jax.config import Config
from anchor_jax.data.sources import Dataset, load
from anchor_jax.errors import UserError


def load_train(config: Config, seed: int) -> tuple[Dataset, Dataset | None]:
    """The training set of `config.data`, and the part held out of it for evaluations in training, if any.

    Raises:
      UserError: the data cannot be had, or too few of them to hold a part out, class by class.
    """
    dataset = _load(config, config.train_split)
    if not config.validation_fraction:
        return dataset, None
    rows = np.arange(len(dataset.images))
    try:
        kept, held_out = train_test_split(
            rows, test_size=config.validation_fraction, random_state=seed, stratify=dataset.labels
        )
    except ValueError as error:
        raise UserError(
            f"config.data.validation_fraction={config.validation_fraction} does not fit: {error}"
        ) from error
    return _rows_of(dataset, kept), _rows_of(dataset, held_out)


def load_test(config: Config, label_names: tuple[str, ...], image_shape: tuple[int, ...]) -> Dataset:
    """The test set of `config.data`, refused where its classes or images are not those of the training set."""
    dataset = _load(config, config.test_split)
    if dataset.label_names != label_names:
        raise UserError(
            f"split '{config.test_split}' has {len(dataset.label_names)} classes {_first(dataset.label_names)}, "
            f"but the training set has {len(label_names)}: {_first(label_names)}; give a split with the same classes"
        )
    if dataset.images.shape[1:] != image_shape:
        raise UserError(
            f"images of split '{config.test_split}' are {list(dataset.images.shape[1:])}, but those of the training "
            f"set {list(image_shape)}; give images of the same size and channels (config.data.image_size)"
        )
    return dataset


def _load(config, split):
    return load(config.source, split, name=config.name, path=config.path, image_size=config.image_size)


def _rows_of(dataset, rows):
    rows = np.sort(rows)
    return Dataset(dataset.images[rows], dataset.labels[rows], dataset.label_names)


def _first(names):
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
