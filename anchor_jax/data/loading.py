"""The data sets that a configuration names."""

import numpy as np

from anchor_jax.config import DataConfig
from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.data.dataset import Dataset, first_of
from anchor_jax.data.sources import load, open_stream
from anchor_jax.data.streaming import EvalDataset


def load_train(config: DataConfig, seed: int) -> tuple[Dataset, Dataset | None]:
    """The training set of `config.data`, and the part held out of it for evaluations in training, if any.

    Of the training set, `config.label_noise` of the labels are replaced, see `label_offsets`.

    Raises:
      UserError: the data cannot be had, or too few of them to hold a part out, class by class.
    """
    dataset = _load(config, config.train_split)
    if not config.validation_fraction:
        return _with_noise(dataset, config, seed), None
    from sklearn.model_selection import train_test_split  # takes a second to import

    rows = np.arange(len(dataset.images))
    try:
        kept, held_out = train_test_split(
            rows, test_size=config.validation_fraction, random_state=seed, stratify=dataset.labels
        )
    except ValueError as error:
        raise UserError(
            f"config.data.validation_fraction={config.validation_fraction} does not fit: {error}"
        ) from error
    return _with_noise(_rows_of(dataset, kept), config, seed), _rows_of(dataset, held_out)


def _with_noise(dataset, config, seed):
    if not config.label_noise:
        return dataset
    num_classes = len(dataset.label_names)
    offsets = label_offsets(len(dataset.labels), num_classes, config.label_noise, seed)
    return dataset._replace(labels=with_offsets(dataset.labels, offsets, num_classes))


def with_offsets(labels: np.ndarray, offsets: np.ndarray, num_classes: int) -> np.ndarray:
    """Labels int32 `[n]` with their label noise, of which `label_offsets` says what it adds to each."""
    return (labels + offsets) % num_classes


def label_offsets(num: int, num_classes: int, noise: float, seed: int) -> np.ndarray:
    """What symmetric label noise adds to labels, modulo the number of classes.

    Args:
      num: N, of labels.
      num_classes: at least 2.
      noise: fraction of the labels that are replaced, each by one of the other classes with equal probability.
      seed: of the draw.

    Returns:
      int32 `[N]`, 0 where a label stays, else in [1, num_classes).
    """
    rng = np.random.default_rng((seed, 1))  # apart from the draws of the bank
    offsets = np.zeros(num, np.int32)
    replaced = rng.permutation(num)[: round(noise * num)]
    offsets[replaced] = rng.integers(1, num_classes, len(replaced))
    return offsets


def load_test(config: DataConfig, label_names: tuple[str, ...], image_shape: tuple[int, ...]) -> Dataset:
    """The test set of `config.data`, refused where its classes or images are not those of the training set."""
    dataset = _load(config, config.test_split)
    _check_test(config.test_split, dataset.label_names, dataset.images.shape[1:], label_names, image_shape)
    return dataset


def open_test(config: DataConfig, label_names: tuple[str, ...], image_shape: tuple[int, ...]) -> EvalDataset:
    """The test set as `load_test` gives it, as a stream named "test"."""
    stream = open_stream(config.source, config.test_split, **_place(config), title="test")
    _check_test(config.test_split, stream.label_names, stream.image_shape, label_names, image_shape)
    return stream


def _check_test(split, names, shape, label_names, image_shape):
    if names != label_names:
        raise UserError(
            f"split '{split}' has {len(names)} classes: {first_of(names)}, but the training set has "
            f"{len(label_names)}: {first_of(label_names)}; give a split with the same classes"
        )
    if shape != image_shape:
        raise UserError(
            f"images of split '{split}' are {list(shape)}, but those of the training set {list(image_shape)}; give "
            "images of the same size and channels (config.data.image_size)"
        )


def select_rows(labels: np.ndarray, size: int, *, per_class: bool = False, seed: int) -> np.ndarray:
    """Draws the rows of a reference bank, without replacement; the same seed gives the same rows.

    Args:
      labels: integer labels [N] of the data that the bank is drawn from.
      size: number of rows; 0 takes all.
      per_class: draw as equal numbers from every class as the data allows, instead of uniformly.
      seed: seed of the draw.

    Returns:
      int32 [size] (or [N]): distinct rows in ascending order.

    Raises:
      UserTypeError: `labels` are no array, or `size` or `seed` no integer.
      UserError: `size` is negative, above N, or below the number of classes when `per_class` is set.
    """
    checks.array("labels", labels, "real", "[N]")
    checks.integer("size", size)
    checks.count("seed", seed, least=0)
    num_rows = len(labels)
    if not 0 <= size <= num_rows:
        raise UserError(f"anchoring.bank_size={size}; allowed: 0 (all) to {num_rows}, the size of the data")
    if size == 0:
        return np.arange(num_rows, dtype=np.int32)
    num_classes = len(np.unique(labels))
    if per_class and size < num_classes:
        raise UserError(
            f"anchoring.bank_size={size} drawn per class; allowed: 0 (all) or {num_classes} (the number of "
            f"classes) to {num_rows}"
        )
    shuffled = np.random.default_rng(seed).permutation(num_rows)
    if per_class:
        shuffled = _round_robin(shuffled, labels)
    return np.sort(shuffled[:size]).astype(np.int32)


def _round_robin(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Reorders rows: the first of every class, then the second of every class, and so on."""
    by_class = np.argsort(labels[rows], kind="stable")
    counts = np.unique(labels, return_counts=True)[1]
    turn = np.empty_like(rows)
    turn[by_class] = np.concatenate([np.arange(count) for count in counts])
    return rows[np.argsort(turn, kind="stable")]


def _load(config, split):
    return load(config.source, split, **_place(config))


def _place(config):
    return {
        "name": config.name,
        "path": config.path,
        "image_size": config.image_size,
        "crop_fraction": config.crop_fraction,
    }


def _rows_of(dataset, rows):
    rows = np.sort(rows)
    return Dataset(dataset.images[rows], dataset.labels[rows], dataset.label_names)
