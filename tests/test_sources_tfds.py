"""Source "tfds": small prepared datasets, corrupt ones, and the real CIFAR if it is prepared."""

import io
import os
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from commands import quick_command
from image_files import assert_same_dataset, forbid_decoding
from PIL import Image
from tensorflow_datasets.core import read_only_builder

from anchor_jax.core.errors import UserError
from anchor_jax.data import load
from benchmarks.tfds_writer import write_tfds

pytestmark = pytest.mark.min_versions


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keep the tests out of the user's cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ANCHOR_JAX_CACHE", str(folder))
    return folder


_CIFAR10_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def _write_tfds(data_dir: Path, images, labels, features, name="tiny", file_format="array_record") -> Path:
    """Prepare a dataset of these images as PNG; return its folder."""
    encoded = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "png")
        encoded.append(file.getvalue())
    return write_tfds(data_dir, name, encoded, labels, features, file_format)


_CLASSES = tfds.features.ClassLabel(names=["even", "odd"])
_GRAY = {"image": tfds.features.Image(shape=(5, 5, 1)), "label": _CLASSES}
_PIXELS = np.random.default_rng(0).integers(0, 256, (20, 5, 5), dtype=np.uint8)


@pytest.fixture
def tiny(tmp_path):
    """The folder of a prepared dataset of 20 grayscale images with alternating labels."""
    _write_tfds(tmp_path / "tfds", _PIXELS, [i % 2 for i in range(20)], _GRAY)
    return tmp_path / "tfds"


def test_tfds_reads_a_custom_dataset(tiny, monkeypatch):
    dataset = load("tfds", "train", name="tiny", path=str(tiny))
    np.testing.assert_array_equal(dataset.images[..., 0], _PIXELS)
    assert dataset.labels.tolist() == [0, 1] * 10
    assert dataset.label_names == ("even", "odd")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tiny))
    assert_same_dataset(dataset, load("tfds", "train", name="tiny:1.0.0"))


def test_tfds_slices_have_separate_caches(tiny, cache):
    first = load("tfds", "train[:90%]", name="tiny", path=str(tiny))
    last = load("tfds", "train[90%:]", name="tiny", path=str(tiny))
    np.testing.assert_array_equal(first.images[..., 0], _PIXELS[:18])
    np.testing.assert_array_equal(last.images[..., 0], _PIXELS[18:])
    resized = load("tfds", "train[90%:]", name="tiny", path=str(tiny), image_size=3)
    assert resized.images.shape == (2, 3, 3, 1)
    assert len(list(cache.iterdir())) == 3


def test_tfds_cache_is_invalidated_by_new_preparation(tiny):
    old = load("tfds", "train", name="tiny", path=str(tiny))
    folder = tiny / "tiny" / "1.0.0"
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    _write_tfds(tiny, 255 - _PIXELS, [1] * 20, _GRAY)
    new = load("tfds", "train", name="tiny", path=str(tiny))
    np.testing.assert_array_equal(new.images, 255 - old.images)


def test_tfds_reads_mixed_encodings_and_sizes(tmp_path):
    features = {"image": tfds.features.Image(), "label": _CLASSES}
    rgb = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    gray, alpha = rgb[:5, :, 0], np.dstack([rgb, rgb[..., 0]])
    _write_tfds(tmp_path / "mixed", [rgb, gray, alpha], [0, 1, 0], features)
    with pytest.raises(
        UserError, match=r"example 0 of tiny/1.0.0-train is 8x6, example 1 of .* is 5x6; set data.image"
    ):
        load("tfds", "train", name="tiny", path=str(tmp_path / "mixed"))
    dataset = load("tfds", "train", name="tiny", path=str(tmp_path / "mixed"), image_size=5)
    assert dataset.images.shape == (3, 5, 5, 3)
    np.testing.assert_array_equal(dataset.images[0], dataset.images[2])


def test_tfds_uses_neither_tensorflow_nor_network(tiny):
    script = f"""
        import socket, sys
        def refuse(*args, **kwargs):
            raise SystemExit("touched the network")
        socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
        from anchor_jax.data import sources
        print(len(sources.load("tfds", "train", name="tiny", path={str(tiny)!r}).images))
        for name in ("cifar11", "mnist"):
            try:
                sources.load("tfds", "train", name=name, path={str(tiny)!r})
            except sources.UserError as error:
                print(error)
        assert "tensorflow" not in sys.modules
    """
    done = quick_command("-c", textwrap.dedent(script))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "20"
    assert lines[1].startswith("unknown TFDS dataset 'cifar11'; nearest names: cifar10")
    assert lines[2].startswith("TFDS dataset 'mnist' is not prepared; prepared in")


def test_tfds_requires_a_name():
    with pytest.raises(UserError, match=r"data.name is empty; source 'tfds' needs the name of a dataset"):
        load("tfds", "train")


def test_tfds_unknown_name_suggests_nearest(tiny):
    with pytest.raises(
        UserError,
        match=r"unknown TFDS dataset 'zzzzzzzz'; nearest names: none; prepared in '.*tfds': tiny/1.0.0$",
    ):
        load("tfds", "train", name="zzzzzzzz", path=str(tiny))
    with pytest.raises(UserError, match=r"cannot read TFDS dataset '../x' in .*ValueError.*; check data.name"):
        load("tfds", "train", name="../x", path=str(tiny))


def test_tfds_not_prepared_prints_the_command(tmp_path):
    with pytest.raises(UserError, match=r"'cifar100' is not prepared; prepared in '.*none': nothing") as error:
        load("tfds", "train", name="cifar100", path=str(tmp_path / "none"))
    message = str(error.value)
    code = message.split('python -c "')[1].split('"')[0]
    compile(code, "<command>", "exec")
    assert f"tfds.builder('cifar100', data_dir='{tmp_path / 'none'}', file_format='array_record')" in code
    assert code.endswith(".download_and_prepare()")
    assert "needs tensorflow" in message
    assert "\n" not in message


@pytest.mark.parametrize("split", ["val", "", "train[:0]", "train[5:2]", "train[:x]", "train[:999]", "train[7:]+x"])
def test_tfds_rejects_unknown_or_empty_split(tiny, split):
    with pytest.raises(UserError, match=r"split '.*' of tiny/1.0.0 is unknown or empty; allowed: train, and slices"):
        load("tfds", split, name="tiny", path=str(tiny))


@pytest.mark.parametrize(
    "features",
    [
        {"image": tfds.features.Image(shape=(5, 5, 1)), "label": tfds.features.Scalar(np.int64)},
        {"image": tfds.features.Image(shape=(5, 5, 1), dtype=np.uint16), "label": _CLASSES},
        {"image": tfds.features.Image(shape=(5, 5, 1)), "digit": _CLASSES},
    ],
)
def test_tfds_rejects_other_features(tmp_path, features):
    _write_tfds(tmp_path / "odd", _PIXELS, [0] * 20, features)
    with pytest.raises(UserError, match=r"has the features .*; image classification needs 'image' .* and 'label'"):
        load("tfds", "train", name="tiny", path=str(tmp_path / "odd"))


def test_tfds_rejects_hidden_labels(tmp_path):
    _write_tfds(tmp_path / "hidden", _PIXELS, [-1] * 20, _GRAY)
    with pytest.raises(UserError, match=r"labels of tiny/1.0.0-train must be in 0..1; got values from -1 to -1"):
        load("tfds", "train", name="tiny", path=str(tmp_path / "hidden"))


def test_tfds_rejects_tfrecord(tmp_path):
    _write_tfds(tmp_path / "old", _PIXELS, [0] * 20, _GRAY, file_format="tfrecord")
    with pytest.raises(UserError, match=r"is stored as tfrecord, .*; delete '.*tiny/1.0.0' or .*'array_record'"):
        load("tfds", "train", name="tiny", path=str(tmp_path / "old"))


@pytest.mark.parametrize("how", ["records", "records missing", "dataset_info.json", "features.json"])
def test_tfds_rejects_corrupt_files(tiny, how):
    folder = tiny / "tiny" / "1.0.0"
    file = next(folder.glob("*array_record*")) if "records" in how else folder / how
    if "missing" in how:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"cannot read .*tiny.*; check data.name, or prepare the dataset again: pyth"):
        load("tfds", "train", name="tiny", path=str(tiny))


@pytest.fixture(scope="module")
def prepared():
    default = Path(__file__).parents[2] / "shared" / "tfds"
    data_dir = Path(os.environ.get("TFDS_DATA_DIR") or default)
    if not (data_dir / "cifar10").is_dir():
        pytest.skip(f"CIFAR-10 is not prepared in {data_dir}")
    return str(data_dir)


def test_cifar10_train_matches_known_statistics(prepared, monkeypatch):
    train = load("tfds", "train", name="cifar10", path=prepared)
    assert train.images.shape == (50_000, 32, 32, 3)
    assert train.label_names == tuple(_CIFAR10_NAMES)
    assert np.bincount(train.labels).tolist() == [5_000] * 10
    mean = train.images.reshape(-1, 3).mean(axis=0) / 255  # the constants commonly used for normalization
    np.testing.assert_allclose(mean, [0.49139968, 0.48215841, 0.44653091], atol=1e-8)
    forbid_decoding(monkeypatch)
    assert_same_dataset(train, load("tfds", "train", name="cifar10", path=prepared))


def test_cifar10_test_matches_known_statistics(prepared):
    test = load("tfds", "test", name="cifar10", path=prepared)
    assert test.images.shape == (10_000, 32, 32, 3)
    assert np.bincount(test.labels).tolist() == [1_000] * 10


def test_cifar10_images_equal_tfds(prepared):
    part = load("tfds", "test[:70]", name="cifar10", path=prepared)
    builder: Any = read_only_builder.builder_from_files("cifar10", data_dir=prepared)
    decoded = builder.as_data_source(split="test")
    for row in (0, 1, 63, 64, 69):
        np.testing.assert_array_equal(part.images[row], decoded[row]["image"])
        assert part.labels[row] == decoded[row]["label"]


def test_cifar100_has_fine_labels(prepared):
    part = load("tfds", "train[-50:]", name="cifar100", path=prepared, image_size=16)
    assert part.images.shape == (50, 16, 16, 3)
    assert (len(part.label_names), part.label_names[0], part.label_names[99]) == (100, "apple", "worm")
