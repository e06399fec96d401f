"""Small datasets for the tests of `EvalDataset` and of dataset specs."""

import io
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from anchor_jax.data import Dataset, EvalDataset
from anchor_jax.data.decoding import EncodedDataset, Example
from benchmarks.tfds_writer import write_tfds

LABEL_NAMES = ("ant", "bee", "cat")

_RANDOM = np.random.default_rng(0)


def png(pixels: np.ndarray, kind: str = "png") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def write_random_image(file: Path, shape=(6, 6, 3)) -> np.ndarray:
    """Write an image of random pixels; return them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = _RANDOM.integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).save(file)
    return pixels


def prepare_tfds(data_dir: Path, name: str, labels: list[int], shape=(5, 5, 3), label_names=LABEL_NAMES) -> Path:
    """Prepare a TFDS dataset of random images with the split "train"; return `data_dir`."""
    images = [png(_RANDOM.integers(0, 256, shape, np.uint8).squeeze()) for _ in labels]
    features = {"image": tfds.features.Image(shape=shape), "label": tfds.features.ClassLabel(names=label_names)}
    write_tfds(data_dir, name, images, labels, features)
    return data_dir


def numbered_images(num: int, shape=(2, 3), **changes) -> EncodedDataset:
    """Return encoded images whose pixels are their row."""

    def example(row):
        return Example(png(np.full(shape, row % 256, np.uint8)), row % 3, f"image {row}")

    return EncodedDataset("numbers", LABEL_NAMES, num, example, lambda: "L", 0, [])._replace(**changes)


def read_all(dataset: EvalDataset, batch_size: int) -> Dataset:
    """Return everything in a dataset, and check sizes, shapes and dtypes of its batches."""
    batches = list(dataset.batches(batch_size))
    assert [len(images) for images, _ in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert 0 < len(batches[-1][0]) <= batch_size
    for images, labels in batches:
        assert images.shape == (len(labels), *dataset.image_shape)
        assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert len(images) == dataset.num_examples
    np.testing.assert_array_equal(dataset.labels(), labels)
    assert dataset.labels().dtype == np.int32
    return Dataset(images, labels, dataset.label_names)


def write_split_folder(root: Path) -> Path:
    """Write grayscale and RGB images of one size in three classes, with the splits train and test; return `root`."""
    for split in ("train", "test"):
        for row, file in enumerate(("ant/1.png", "ant/2.bmp", "bee/1.png", "cat/1.png", "cat/2.png")):
            write_random_image(root / split / file, (6, 5) if row == 3 else (6, 5, 3))
    return root


def write_npz(file: Path) -> Path:
    """Write seven 4 x 4 grayscale images in three numbered classes, with the splits train and test; return `file`."""
    images, labels = _RANDOM.integers(0, 256, (7, 4, 4), np.uint8), np.arange(7) % 3
    np.savez(file, x_train=images, y_train=labels, x_test=images[::-1], y_test=labels)
    return file
