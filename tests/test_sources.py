"""The data sources against known facts of real data sets, small generated files and damaged ones."""

import io
import os
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from commands import quick_command
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from PIL import Image
from sklearn.datasets import load_digits
from tensorflow_datasets.core import read_only_builder

from anchor_jax.core.errors import UserError
from anchor_jax.data import Dataset, decoding, load, sources
from benchmarks.tfds_writer import write_tfds

pytestmark = pytest.mark.min_versions

_CIFAR10_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keeps every test out of the user's own cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ANCHOR_JAX_CACHE", str(folder))
    return folder


def _assert_same(a: Dataset, b: Dataset):
    np.testing.assert_array_equal(a.images, b.images)
    np.testing.assert_array_equal(a.labels, b.labels)
    assert a.label_names == b.label_names
    assert (a.images.dtype, a.labels.dtype) == (b.images.dtype, b.labels.dtype) == (np.uint8, np.int32)


def _forbid_decoding(monkeypatch):
    def fail(*args):
        raise AssertionError("decoded although it is cached")

    monkeypatch.setattr(sources, "decode_all", fail)


# --- load and digits ------------------------------------------------------------------------------------


def test_unknown_source_names_the_nearest():
    with pytest.raises(UserError, match=r"unknown data source 'tdfs'; allowed: digits, .* Did you mean 'tfds'"):
        load("tdfs", "train")


def test_negative_image_size():
    with pytest.raises(UserError, match=r"data.image_size=-1; allowed: 0 \(the stored size\) or"):
        load("digits", "train", image_size=-1)


def test_digits_are_the_real_digits():
    train, test = load("digits", "train"), load("digits", "test")
    assert train.images.shape == (1437, 8, 8, 1)
    assert test.images.shape == (360, 8, 8, 1)
    assert train.label_names == test.label_names == tuple("0123456789")
    for part in (train, test):
        assert part.images.dtype == np.uint8
        assert part.labels.dtype == np.int32
        assert part.images.max() == 255
    # class counts of the UCI set, and the known sum of its 1,797 x 64 values in 0..16
    counts = np.bincount(train.labels) + np.bincount(test.labels)
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    values = [np.rint(part.images.astype(np.float64) * 16 / 255).sum() for part in (train, test)]
    assert sum(values) == 561718


def test_digits_split_is_fixed_stratified_and_complete():
    train, test = load("digits", "train"), load("digits", "test")
    assert np.abs(np.bincount(test.labels) - 36).max() <= 1
    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    original = np.rint(pixels * 255 / 16).astype(np.uint8)

    def rows(images, labels):
        return [image.tobytes() + bytes([label]) for image, label in zip(images, labels, strict=True)]

    both = rows(train.images, train.labels) + rows(test.images, test.labels)
    assert sorted(both) == sorted(rows(original, labels))
    _assert_same(test, load("digits", "test"))


def test_digits_unknown_split():
    with pytest.raises(UserError, match=r"unknown split of digits 'tset'; allowed: test, train. Did you mean 'test'"):
        load("digits", "tset")


def test_digits_are_not_resized():
    with pytest.raises(UserError, match=r"data.image_size=32, but images of source 'digits' are 8x8.*image_size=0"):
        load("digits", "train", image_size=32)
    assert load("digits", "test", image_size=8).images.shape == (360, 8, 8, 1)


# --- folder ---------------------------------------------------------------------------------------------


def _write_image(file: Path, size=(6, 6), mode="RGB", value=None, seed=0, **options: Any) -> np.ndarray:
    """Writes an image of random pixels, or of one value; returns its pixels."""
    file.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    random = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    pixels = random if value is None else np.full(shape, value, np.uint8)
    Image.fromarray(pixels).save(file, **options)
    return pixels


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    for seed, name in enumerate(("cat/b.png", "cat/a.PNG", "ant/z.bmp", "dog/y.webp")):
        _write_image(root / "train" / name, seed=seed, lossless=True)
    return root


def test_folder_order_pixels_and_labels(folder):
    (folder / "train" / "cat" / "notes.txt").write_text("not an image")
    (folder / "train" / "cat" / ".hidden.png").write_text("not an image either")
    (folder / "train" / ".checkpoints").mkdir()
    (folder / "train" / "cat" / "deeper").mkdir()
    _write_image(folder / "train" / "cat" / "deeper" / "c.png")
    dataset = load("folder", "train", path=str(folder))
    assert dataset.label_names == ("ant", "cat", "dog")
    assert dataset.labels.tolist() == [0, 1, 1, 2]
    files = ["ant/z.bmp", "cat/a.PNG", "cat/b.png", "dog/y.webp"]
    for image, file in zip(dataset.images, files, strict=True):
        np.testing.assert_array_equal(image, np.asarray(Image.open(folder / "train" / file)))


def test_folder_many_images_keep_their_order(tmp_path):
    num = 2 * decoding._ROWS_PER_TASK + 3  # more than one task for the threads
    for i in range(num):
        _write_image(tmp_path / "d" / "train" / "ab"[i % 2] / f"{i:04d}.png", size=(2, 2), value=i)
    dataset = load("folder", "train", path=str(tmp_path / "d"))
    assert dataset.images[:, 0, 0, 0].tolist() == [*range(0, num, 2), *range(1, num, 2)]


def test_folder_is_grey_only_if_every_image_is(tmp_path):
    root = tmp_path / "grey"
    pixels = _write_image(root / "train" / "a" / "1.png", mode="L")
    _write_image(root / "train" / "b" / "1.jpg", mode="L", quality=95)
    grey = load("folder", "train", path=str(root))
    assert grey.images.shape == (2, 6, 6, 1)
    np.testing.assert_array_equal(grey.images[0, ..., 0], pixels)
    _write_image(root / "train" / "b" / "2.png", mode="RGB")
    colour = load("folder", "train", path=str(root))
    assert colour.images.shape == (3, 6, 6, 3)
    np.testing.assert_array_equal(colour.images[0], np.repeat(pixels[..., None], 3, axis=-1))


def test_folder_palette_with_transparency(tmp_path):
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    for label in "ab":
        (tmp_path / "d" / "train" / label).mkdir(parents=True)
        palette.save(tmp_path / "d" / "train" / label / "p.png", transparency=bytes([0, 128]))
    images = load("folder", "train", path=str(tmp_path / "d")).images
    assert (images == [10, 20, 30]).all()


def test_folder_16_bit_images_are_refused_not_clipped(folder):
    Image.fromarray(np.full((6, 6), 1000, np.uint16)).save(folder / "train" / "cat" / "deep.png")
    with pytest.raises(UserError, match=r"image .*cat/deep.png has pixels of mode I;16; 8 bits are expected"):
        load("folder", "train", path=str(folder))


def test_folder_follows_links_to_files(folder):
    (folder / "train" / "dog" / "x.png").symlink_to(folder / "train" / "cat" / "b.png")
    dataset = load("folder", "train", path=str(folder))
    assert dataset.labels.tolist() == [0, 1, 1, 2, 2]
    np.testing.assert_array_equal(dataset.images[3], dataset.images[2])


def test_folder_of_mixed_sizes(folder):
    _write_image(folder / "train" / "cat" / "c.png", size=(9, 7))
    with pytest.raises(UserError, match=r"ant/z.bmp is 6x6, .*cat/c.png is 7x9; set data.image_size to resize them"):
        load("folder", "train", path=str(folder))
    assert load("folder", "train", path=str(folder), image_size=6).images.shape == (5, 6, 6, 3)


def test_resize_is_shorter_side_then_centre_crop(tmp_path):
    wide = np.random.default_rng(0).integers(0, 256, (40, 120, 3), dtype=np.uint8)
    for label, picture in (("tall", wide.transpose(1, 0, 2)), ("wide", wide)):
        (tmp_path / "d" / "train" / label).mkdir(parents=True)
        Image.fromarray(picture).save(tmp_path / "d" / "train" / label / "1.png")
    images = load("folder", "train", path=str(tmp_path / "d"), image_size=10).images
    shorter_side_10 = np.asarray(Image.fromarray(wide).resize((30, 10), Image.Resampling.BICUBIC))
    for image in (images[0].transpose(1, 0, 2), images[1]):
        assert np.abs(image.astype(int) - shorter_side_10[:, 10:20]).max() <= 1  # rounding between the passes


def test_resize_antialiases_and_leaves_the_right_size_alone(tmp_path):
    checkers = np.indices((64, 64)).sum(axis=0).astype(np.uint8) % 2 * 254
    for label in "ab":
        (tmp_path / "d" / "train" / label).mkdir(parents=True)
        Image.fromarray(checkers).save(tmp_path / "d" / "train" / label / "1.png")
    small = load("folder", "train", path=str(tmp_path / "d"), image_size=8).images
    assert np.abs(small.astype(int) - 127).max() <= 3
    same = load("folder", "train", path=str(tmp_path / "d"), image_size=64).images
    np.testing.assert_array_equal(same[0, ..., 0], checkers)


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "directory", "dangling link"])
def test_unreadable_image_is_named(folder, damage):
    bad = folder / "train" / "cat" / "bad.png"
    if damage == "truncated":
        _write_image(bad, size=(60, 60))
        bad.write_bytes(bad.read_bytes()[:-400])
    elif damage == "empty":
        bad.touch()
    elif damage == "text":
        bad.write_text("hello")
    elif damage == "directory":
        bad.mkdir()
    else:
        bad.symlink_to("nowhere.png")
    with pytest.raises(UserError, match=r"cannot read .*cat/bad.png.*; replace or remove it$") as error:
        load("folder", "train", path=str(folder), image_size=6)
    assert "\n" not in str(error.value)


def test_decompression_bomb_is_an_unreadable_image(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UserError, match=r"cannot read image .*ant/z.bmp \(DecompressionBombError"):
        load("folder", "train", path=str(folder))


def test_folder_path_is_needed_and_must_exist(tmp_path):
    with pytest.raises(UserError, match=r"data.path is empty; source 'folder' needs .*expected layout: <data.path>/"):
        load("folder", "train")
    with pytest.raises(UserError, match=r"cannot read folder '.*/none' \(FileNotFoundError.*expected layout"):
        load("folder", "train", path=str(tmp_path / "none"))


@pytest.mark.parametrize("split", ["val", "", "..", "train/cat"])
def test_folder_missing_split(folder, split):
    with pytest.raises(UserError, match=rf"no split '{split}' in '.*images'; it holds: train; expected layout"):
        load("folder", split, path=str(folder))


def test_folder_without_classes_or_images(folder):
    (folder / "val").mkdir()
    with pytest.raises(UserError, match=r"no class folders in '.*images/val'; expected layout"):
        load("folder", "val", path=str(folder))
    (folder / "train" / "eel").mkdir()
    (folder / "train" / "eel" / "readme.txt").touch()
    with pytest.raises(UserError, match=r"no images in class folder '.*train/eel'; expected layout"):
        load("folder", "train", path=str(folder))


def test_one_class_is_too_few(tmp_path):
    _write_image(tmp_path / "d" / "train" / "only" / "1.png")
    with pytest.raises(UserError, match="d-train has 1 class; at least 2 are needed"):
        load("folder", "train", path=str(tmp_path / "d"))


# --- the cache ------------------------------------------------------------------------------------------


def test_cache_gives_what_decoding_gave(folder, cache, monkeypatch):
    decoded = load("folder", "train", path=str(folder))
    assert [file.suffix for file in cache.iterdir()] == [".npz"]
    _forbid_decoding(monkeypatch)
    _assert_same(decoded, load("folder", "train", path=str(folder)))


def test_cache_argument_wins_over_the_environment(folder, cache, tmp_path):
    load("folder", "train", path=str(folder), cache_dir=tmp_path / "other")
    assert len(list((tmp_path / "other").iterdir())) == 1
    assert not cache.exists()


@pytest.mark.parametrize(("variable", "expected"), [("XDG_CACHE_HOME", "anchor_jax"), ("HOME", ".cache/anchor_jax")])
def test_default_cache_folder(folder, tmp_path, monkeypatch, variable, expected):
    monkeypatch.delenv("ANCHOR_JAX_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "home"))
    load("folder", "train", path=str(folder))
    assert len(list((tmp_path / "home" / expected).iterdir())) == 1


def test_changed_folder_is_decoded_again(folder):
    before = load("folder", "train", path=str(folder))
    file = folder / "train" / "ant" / "z.bmp"  # BMP: other pixels, same number of bytes
    size, time = file.stat().st_size, file.stat().st_mtime_ns
    pixels = _write_image(file, seed=99)
    os.utime(file, ns=(time + 1, time + 1))
    assert file.stat().st_size == size
    after = load("folder", "train", path=str(folder))
    np.testing.assert_array_equal(after.images[0], pixels)
    np.testing.assert_array_equal(after.images[1:], before.images[1:])
    _write_image(folder / "train" / "eel" / "1.png")
    assert load("folder", "train", path=str(folder)).label_names == ("ant", "cat", "dog", "eel")


def _flip_pixel(file: Path):
    content = bytearray(file.read_bytes())
    content[len(content) // 4] ^= 1
    file.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-100]),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"not a zip"),
        _flip_pixel,
        lambda file: np.savez(file, images=np.zeros((4, 6, 6, 3))),
        lambda file: np.savez(file, images=np.zeros((4, 6, 6, 3)), labels=np.zeros(4, int), label_names=["a", "b"]),
        lambda file: np.savez(file, images=np.zeros((4, 6), np.uint8), labels=np.zeros(4, int), label_names=["a", "b"]),
        lambda file: np.savez(file, images=np.array([{}]), labels=np.zeros(1, int), label_names=["a", "b"]),
    ],
    ids=["truncated", "empty", "text", "flipped bit", "keys", "dtype", "shape", "pickle"],
)
def test_damaged_cache_is_made_again(folder, cache, monkeypatch, damage):
    decoded = load("folder", "train", path=str(folder))
    (file,) = cache.iterdir()
    damage(file)
    with pytest.warns(UserWarning, match="damaged cache is made again: .*images-train-0px"):
        _assert_same(decoded, load("folder", "train", path=str(folder)))
    _forbid_decoding(monkeypatch)
    _assert_same(decoded, load("folder", "train", path=str(folder)))
    assert list(cache.iterdir()) == [file]


def test_unwritable_cache_folder_only_warns(folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="decoded images cannot be kept in '.*file/inside'"):
        dataset = load("folder", "train", path=str(folder), cache_dir=tmp_path / "file" / "inside")
    assert len(dataset.images) == 4


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_interrupted_write_leaves_nothing_behind(folder, cache, monkeypatch, error):
    def write_half(file, **arrays):
        Path(file).write_bytes(b"half")
        raise error

    monkeypatch.setattr(np, "savez", write_half)
    if isinstance(error, OSError):
        with pytest.warns(UserWarning, match="decoded images cannot be kept in .*No space left"):
            load("folder", "train", path=str(folder))
    else:
        with pytest.raises(KeyboardInterrupt):
            load("folder", "train", path=str(folder))
    assert list(cache.iterdir()) == []


# --- TensorFlow Datasets --------------------------------------------------------------------------------


def _write_tfds(data_dir: Path, images, labels, features, name="tiny", file_format="array_record") -> Path:
    """A prepared data set of these images as PNG; its folder."""
    encoded = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "png")
        encoded.append(file.getvalue())
    return write_tfds(data_dir, name, encoded, labels, features, file_format)


_CLASSES = tfds.features.ClassLabel(names=["even", "odd"])
_GREY = {"image": tfds.features.Image(shape=(5, 5, 1)), "label": _CLASSES}
_PIXELS = np.random.default_rng(0).integers(0, 256, (20, 5, 5), dtype=np.uint8)


@pytest.fixture
def tiny(tmp_path):
    """A prepared set of 20 grey images with alternating labels."""
    _write_tfds(tmp_path / "tfds", _PIXELS, [i % 2 for i in range(20)], _GREY)
    return tmp_path / "tfds"


def test_tfds_own_set(tiny, monkeypatch):
    dataset = load("tfds", "train", name="tiny", path=str(tiny))
    np.testing.assert_array_equal(dataset.images[..., 0], _PIXELS)
    assert dataset.labels.tolist() == [0, 1] * 10
    assert dataset.label_names == ("even", "odd")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tiny))
    _assert_same(dataset, load("tfds", "train", name="tiny:1.0.0"))


def test_tfds_slices_do_not_share_a_cache(tiny, cache):
    first = load("tfds", "train[:90%]", name="tiny", path=str(tiny))
    last = load("tfds", "train[90%:]", name="tiny", path=str(tiny))
    np.testing.assert_array_equal(first.images[..., 0], _PIXELS[:18])
    np.testing.assert_array_equal(last.images[..., 0], _PIXELS[18:])
    resized = load("tfds", "train[90%:]", name="tiny", path=str(tiny), image_size=3)
    assert resized.images.shape == (2, 3, 3, 1)
    assert len(list(cache.iterdir())) == 3


def test_tfds_prepared_anew_is_decoded_anew(tiny):
    old = load("tfds", "train", name="tiny", path=str(tiny))
    folder = tiny / "tiny" / "1.0.0"
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    _write_tfds(tiny, 255 - _PIXELS, [1] * 20, _GREY)
    new = load("tfds", "train", name="tiny", path=str(tiny))
    np.testing.assert_array_equal(new.images, 255 - old.images)


def test_tfds_colour_set_with_odd_encodings_and_sizes(tmp_path):
    features = {"image": tfds.features.Image(), "label": _CLASSES}
    rgb = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    grey, alpha = rgb[:5, :, 0], np.dstack([rgb, rgb[..., 0]])
    _write_tfds(tmp_path / "mixed", [rgb, grey, alpha], [0, 1, 0], features)
    with pytest.raises(
        UserError, match=r"example 0 of tiny/1.0.0-train is 8x6, example 1 of .* is 5x6; set data.image"
    ):
        load("tfds", "train", name="tiny", path=str(tmp_path / "mixed"))
    dataset = load("tfds", "train", name="tiny", path=str(tmp_path / "mixed"), image_size=5)
    assert dataset.images.shape == (3, 5, 5, 3)
    np.testing.assert_array_equal(dataset.images[0], dataset.images[2])


def test_tfds_needs_neither_tensorflow_nor_network(tiny):
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
    assert lines[1].startswith("unknown tfds data set 'cifar11'; nearest names: cifar10")
    assert lines[2].startswith("tfds data set 'mnist' is not prepared; prepared in")


def test_tfds_name_is_needed():
    with pytest.raises(UserError, match=r"data.name is empty; source 'tfds' needs the name of a data set"):
        load("tfds", "train")


def test_tfds_unknown_name(tiny):
    with pytest.raises(
        UserError,
        match=r"unknown tfds data set 'zzzzzzzz'; nearest names: none; prepared in '.*tfds': tiny/1.0.0$",
    ):
        load("tfds", "train", name="zzzzzzzz", path=str(tiny))
    with pytest.raises(UserError, match=r"cannot read tfds data set '../x' in .*ValueError.*; check data.name"):
        load("tfds", "train", name="../x", path=str(tiny))


def test_tfds_not_prepared_gives_the_command(tmp_path):
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
def test_tfds_unknown_or_empty_split(tiny, split):
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
def test_tfds_set_that_is_no_image_classification(tmp_path, features):
    _write_tfds(tmp_path / "odd", _PIXELS, [0] * 20, features)
    with pytest.raises(UserError, match=r"has the features .*; image classification needs 'image' .* and 'label'"):
        load("tfds", "train", name="tiny", path=str(tmp_path / "odd"))


def test_tfds_hidden_labels(tmp_path):
    _write_tfds(tmp_path / "hidden", _PIXELS, [-1] * 20, _GREY)
    with pytest.raises(UserError, match=r"labels of tiny/1.0.0-train: 0 to 1 expected, got -1 to -1"):
        load("tfds", "train", name="tiny", path=str(tmp_path / "hidden"))


def test_tfds_stored_as_tfrecord(tmp_path):
    _write_tfds(tmp_path / "old", _PIXELS, [0] * 20, _GREY, file_format="tfrecord")
    with pytest.raises(UserError, match=r"is stored as tfrecord, .*; delete '.*tiny/1.0.0' or .*'array_record'"):
        load("tfds", "train", name="tiny", path=str(tmp_path / "old"))


@pytest.mark.parametrize("damaged", ["records", "records missing", "dataset_info.json", "features.json"])
def test_tfds_damaged_files(tiny, damaged):
    folder = tiny / "tiny" / "1.0.0"
    file = next(folder.glob("*array_record*")) if "records" in damaged else folder / damaged
    if "missing" in damaged:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"cannot read .*tiny.*; check data.name, or prepare the data set again: pyth"):
        load("tfds", "train", name="tiny", path=str(tiny))


# --- CIFAR, the real one --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared():
    default = Path(__file__).parents[2] / "shared" / "tfds"
    data_dir = Path(os.environ.get("TFDS_DATA_DIR") or default)
    if not (data_dir / "cifar10").is_dir():
        pytest.skip(f"CIFAR-10 is not prepared in {data_dir}")
    return str(data_dir)


def test_cifar10_training_set(prepared, monkeypatch):
    train = load("tfds", "train", name="cifar10", path=prepared)
    assert train.images.shape == (50_000, 32, 32, 3)
    assert train.label_names == tuple(_CIFAR10_NAMES)
    assert np.bincount(train.labels).tolist() == [5_000] * 10
    mean = train.images.reshape(-1, 3).mean(axis=0) / 255  # the constants that everybody normalises with
    np.testing.assert_allclose(mean, [0.49139968, 0.48215841, 0.44653091], atol=1e-8)
    _forbid_decoding(monkeypatch)
    _assert_same(train, load("tfds", "train", name="cifar10", path=prepared))


def test_cifar10_test_set(prepared):
    test = load("tfds", "test", name="cifar10", path=prepared)
    assert test.images.shape == (10_000, 32, 32, 3)
    assert np.bincount(test.labels).tolist() == [1_000] * 10


def test_cifar10_images_equal_those_of_tfds(prepared):
    part = load("tfds", "test[:70]", name="cifar10", path=prepared)
    builder: Any = read_only_builder.builder_from_files("cifar10", data_dir=prepared)
    decoded = builder.as_data_source(split="test")
    for row in (0, 1, 63, 64, 69):
        np.testing.assert_array_equal(part.images[row], decoded[row]["image"])
        assert part.labels[row] == decoded[row]["label"]


def test_cifar100_has_the_fine_labels(prepared):
    part = load("tfds", "train[-50:]", name="cifar100", path=prepared, image_size=16)
    assert part.images.shape == (50, 16, 16, 3)
    assert (len(part.label_names), part.label_names[0], part.label_names[99]) == (100, "apple", "worm")


# --- .npz files -----------------------------------------------------------------------------------------


@pytest.fixture
def npz(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "data.npz", allow_pickle=True, **arrays)
        return str(tmp_path / "data.npz")

    return write


_X = np.arange(4 * 3 * 2, dtype=np.uint8).reshape(4, 3, 2)
_Y = np.array([0, 2, 1, 2])


def test_npz_keras_convention(npz):
    path = npz(x_train=_X, y_train=_Y[:, None].astype(np.uint8), x_test=_X[:2, :, :, None], y_test=_Y[:1].repeat(2))
    train, test = load("npz", "train", path=path), load("npz", "test", path=path)
    np.testing.assert_array_equal(train.images, _X[..., None])
    assert train.labels.tolist() == [0, 2, 1, 2]
    assert train.labels.dtype == np.int32
    assert test.images.shape == (2, 3, 2, 1)
    assert train.label_names == test.label_names == ("0", "1", "2")  # although the test split lacks 1 and 2


def test_npz_classes_that_only_another_split_has(npz):
    path = npz(x_train=_X, y_train=_Y, x_test=_X, y_test=_Y + 1)
    assert load("npz", "train", path=path).label_names == ("0", "1", "2", "3")


def test_npz_label_names(npz):
    path = npz(x_train=_X, y_train=_Y, label_names=["ant", "bee", "cat", "dog"])
    assert load("npz", "train", path=path).label_names == ("ant", "bee", "cat", "dog")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_test": _X, "y_test": _Y}, r"no array 'x_train' in '.*data.npz'; it holds: x_test, y_test"),
        ({"x_train": _X, "y": _Y}, r"no array 'y_train' in '.*data.npz'; it holds: x_train, y$"),
        ({"x_train": _X / np.float32(255)}, "images of npz split 'train': uint8 expected, got float32"),
        ({"x_train": _X[0]}, r"images of npz split 'train': non-empty \[N, H, W, C\] expected, got \[3, 2\]"),
        ({"x_train": _X[:0], "y_train": _Y[:0]}, r"non-empty \[N, H, W, C\] expected, got \[0, 3, 2, 1\]"),
        ({"y_train": _Y[:3]}, r"labels of npz split 'train': \[4\] expected, got \[3\]"),
        ({"y_train": np.eye(4, dtype=int)}, r"labels of npz split 'train': \[4\] expected, got \[4, 4\]"),
        ({"y_train": _Y / 2}, "labels of npz split 'train': integers expected, got float64"),
        ({"y_train": _Y - 1}, "labels of npz split 'train': 0 to 1 expected, got -1 to 1"),
        ({"y_train": _Y * 0}, "npz split 'train' has 1 class; at least 2 are needed"),
        ({"y_train": _Y * 10**12}, "labels in '.*data.npz' go up to 2000000000000; allowed: below 1000000"),
        ({"label_names": ["a", "b"]}, "labels of npz split 'train': 0 to 1 expected, got 0 to 2"),
        ({"label_names": [1, 2, 3]}, r"label_names in '.*': strings \[classes\] expected, got int64 \[3\]"),
        (
            {"x_train": np.array([{}] * 4)},
            r"cannot read '.*data.npz' \(ValueError: Object arrays cannot be loaded",
        ),
    ],
)
def test_npz_bad_arrays(npz, arrays, message):
    complete = arrays if "x_test" in arrays or "y" in arrays else {"x_train": _X, "y_train": _Y} | arrays
    with pytest.raises(UserError, match=message):
        load("npz", "train", path=npz(**complete))


def test_npz_bad_files(tmp_path):
    with pytest.raises(UserError, match=r"data.path is empty; expected: an .npz file with the arrays x_train \(uint8"):
        load("npz", "train")
    with pytest.raises(UserError, match=r"cannot read '.*none.npz' \(FileNotFoundError.*; expected: an .npz file"):
        load("npz", "train", path=str(tmp_path / "none.npz"))
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(UserError, match=r"cannot read '.*text.npz' \(ValueError.*; expected: an .npz file"):
        load("npz", "train", path=str(tmp_path / "text.npz"))
    np.save(tmp_path / "single.npy", _X)
    with pytest.raises(UserError, match=r"cannot read '.*single.npy' .*; expected: an .npz file"):
        load("npz", "train", path=str(tmp_path / "single.npy"))


def _loads_or_explains(content: bytes):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "fuzz.npz"
        file.write_bytes(content)
        try:
            dataset = load("npz", "train", path=str(file))
        except UserError:
            return
    assert dataset.images.dtype == np.uint8
    assert dataset.images.ndim == 4
    assert dataset.labels.shape == (len(dataset.images),)
    assert 0 <= dataset.labels.min() <= dataset.labels.max() < len(dataset.label_names)


def _npz_bytes(arrays: dict) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


_ARRAYS = st_numpy.arrays(
    st.sampled_from(["u1", "i1", "i8", "u8", "f4", "f8", "?", "U3", "S2", "c8", ">i4", "M8[s]"]).map(np.dtype),
    st_numpy.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=3),
)
_KEYS = st.sampled_from(["x_train", "y_train", "label_names", "y_test", "x_test", "other"])


@settings(max_examples=100, deadline=None, database=None)
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda tail: b"PK\x03\x04" + tail)))
def test_fuzz_npz_random_bytes(content):
    _loads_or_explains(content)


@settings(max_examples=150, deadline=None, database=None)
@given(st.dictionaries(_KEYS, _ARRAYS))
def test_fuzz_npz_random_arrays(arrays):
    _loads_or_explains(_npz_bytes({"x_train": _X, "y_train": _Y} | arrays))
    _loads_or_explains(_npz_bytes(arrays))


@settings(max_examples=150, deadline=None, database=None)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4))
def test_fuzz_npz_flipped_bytes(flips):
    content = bytearray(_npz_bytes({"x_train": _X, "y_train": _Y, "label_names": ["a", "b", "c"]}))
    for place, mask in flips:
        content[int(place * len(content))] ^= mask
    _loads_or_explains(bytes(content))
