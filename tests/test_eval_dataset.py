"""`EvalDataset`: it equals `load`, reads each example once, and bounds memory and threads."""

import os
import threading
import tracemalloc
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import assert_same_dataset
from small_datasets import (
    LABEL_NAMES,
    numbered_images,
    png,
    prepare_tfds,
    read_all,
    write_npz,
    write_random_image,
    write_split_folder,
)

from anchor_jax.core.errors import UserError
from anchor_jax.data import Dataset, decoding, eval_dataset, load, load_test, open_dataset, open_stream, open_test
from anchor_jax.data.decoding import Example, decode_batches
from anchor_jax.data.eval_dataset import eval_dataset_from_encoded


@pytest.fixture
def folder(tmp_path):
    return write_split_folder(tmp_path / "images")


@pytest.fixture
def npz(tmp_path):
    return write_npz(tmp_path / "some.npz")


@pytest.fixture
def prepared(tmp_path):
    """The folder of the prepared dataset "tiny": ten 5 x 5 RGB images in the split "train"."""
    return prepare_tfds(tmp_path / "tfds", "tiny", [row % 3 for row in range(10)])


@pytest.mark.parametrize("size", [1, 64, 359, 360, 1000])
def test_open_stream_digits_equals_load(size):
    assert_same_dataset(read_all(open_stream("digits", "test"), size), load("digits", "test"))


@pytest.mark.parametrize("size", [2, 100])
@pytest.mark.parametrize("image_size", [0, 4])
def test_open_stream_folder_equals_load(folder, size, image_size):
    like = {"path": folder, "image_size": image_size}
    assert_same_dataset(read_all(open_stream("folder", "test", **like), size), load("folder", "test", **like))


@pytest.mark.parametrize("size", [3, 100])
@pytest.mark.parametrize("image_size", [0, 4])
def test_open_stream_tfds_equals_load(prepared, size, image_size):
    like = {"name": "tiny", "path": prepared, "image_size": image_size}
    assert_same_dataset(read_all(open_stream("tfds", "train[1:]", **like), size), load("tfds", "train[1:]", **like))


def test_open_stream_npz_equals_load(npz):
    assert_same_dataset(read_all(open_stream("npz", "test", path=npz), 3), load("npz", "test", path=npz))


def test_open_dataset_cifar10_equals_load():
    data_dir = Path(os.environ.get("TFDS_DATA_DIR", "none"))
    if not (data_dir / "cifar10").is_dir():
        pytest.skip("CIFAR-10 is not prepared in $TFDS_DATA_DIR")
    stream = open_dataset("tfds:cifar10@test[:500]", image_shape=(32, 32, 3))
    assert_same_dataset(read_all(stream, 128), load("tfds", "test[:500]", name="cifar10"))


def test_batches_can_be_read_again_and_in_parallel(folder):
    stream = open_stream("folder", "train", path=folder)
    for (images, labels), (again, same) in zip(stream.batches(2), stream.batches(2), strict=True):
        np.testing.assert_array_equal(images, again)
        np.testing.assert_array_equal(labels, same)


def test_first_returns_the_first_examples(folder):
    stream = open_stream("folder", "train", path=folder)
    complete = load("folder", "train", path=folder)
    for num, images in ((2, complete.images[:2]), (99, complete.images)):
        np.testing.assert_array_equal(stream.first(num)[0], images)


@settings(max_examples=60, deadline=None)
@given(num=st.integers(1, 40), size=st.integers(1, 45))
def test_batches_contain_each_example_once_in_order(num, size):
    images = np.arange(num, dtype=np.uint8)[:, None, None, None].repeat(2, axis=1)
    dataset = Dataset(images, np.arange(num, dtype=np.int32) % 3, LABEL_NAMES)
    in_memory = read_all(eval_dataset(dataset, "numbers"), size)
    assert in_memory.images[:, 0, 0, 0].tolist() == list(range(num))
    decoded = read_all(eval_dataset_from_encoded(numbered_images(num), "numbers"), size)
    assert decoded.images[:, 0, 0, 0].tolist() == list(range(num))
    np.testing.assert_array_equal(decoded.labels, in_memory.labels)


@pytest.mark.parametrize(
    ("source", "split", "options"),
    [
        ("tdfs", "train", {}),
        ("digits", "tset", {}),
        ("digits", "test", {"image_size": 32}),
        ("digits", "test", {"image_size": -1}),
        ("tfds", "train", {}),
        ("tfds", "train", {"name": "zzzzzzzz"}),
        ("tfds", "val", {"name": "tiny"}),
        ("tfds", "", {"name": "tiny"}),
        ("folder", "val", {}),
        ("folder", "one", {}),
        ("npz", "test", {}),
    ],
)
def test_open_stream_raises_the_errors_of_load(folder, prepared, source, split, options):
    write_random_image(folder / "one" / "only" / "1.png")
    options = {"path": prepared if source == "tfds" else folder, **options}
    with pytest.raises(UserError) as loading:
        load(source, split, **options)
    with pytest.raises(UserError) as streaming:
        open_stream(source, split, **options)
    assert str(streaming.value) == str(loading.value)


def test_open_test_equals_load_test(tiny):
    names, shape = ("0", "1", "2"), (6, 6, 1)
    stream = open_test(tiny.data, names, shape)
    assert stream.name == "test"
    assert_same_dataset(read_all(stream, 16), load_test(tiny.data, names, shape))
    with pytest.raises(
        UserError, match=r"1 of the 3 classes of split 'test' are not among the run's 2: 2; the run has: 0, 1"
    ):
        open_test(tiny.data, names[:2], shape)
    with pytest.raises(UserError, match=r"images of split 'test' are \[6, 6, 1\], but .* \[6, 5, 1\]; give"):
        open_test(tiny.data, names, (6, 5, 1))


class _SynchronousExecutor:
    """An executor that runs a task before `submit` returns."""

    def __init__(self, num_threads):
        self.num_threads = num_threads

    def submit(self, function, *args):
        future = Future()
        future.set_result(function(*args))
        return future

    def shutdown(self, cancel_futures):
        assert cancel_futures


@pytest.mark.parametrize("size", [1, 10, 100])
def test_decode_batches_is_two_batches_ahead(monkeypatch, size):
    decoded = []

    def example(row):
        decoded.append(row)
        return numbered_images(0).example(row)

    monkeypatch.setattr(decoding, "ThreadPoolExecutor", _SynchronousExecutor)
    for taken, _ in enumerate(decode_batches(numbered_images(95, example=example), size), start=1):
        ahead = min((taken + 2) * size, 95)
        assert decoded == [0, *range(ahead)]  # the first one is also decoded for its shape


def test_open_stream_memory_does_not_grow_with_folder(tmp_path):
    for row in range(300):
        write_random_image(tmp_path / "images" / "test" / LABEL_NAMES[row % 3] / f"{row}.bmp", (64, 64, 3))
    stream = open_stream("folder", "test", path=tmp_path / "images")
    batch, all_bytes = 10 * 64 * 64 * 3, 300 * 64 * 64 * 3
    tracemalloc.start()
    for _ in stream.batches(10):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert batch < peak < 8 * batch < all_bytes / 3


def test_decode_batches_close_ends_threads():
    before = threading.active_count()
    batches = decode_batches(numbered_images(500), 20)
    next(batches)
    assert threading.active_count() > before
    batches.close()
    assert threading.active_count() == before
    assert len(eval_dataset_from_encoded(numbered_images(500), "numbers").first(20)[0]) == 20
    assert threading.active_count() == before


_GRAY = np.zeros((2, 3), np.uint8)


@pytest.mark.parametrize(
    ("file", "label", "message"),
    [
        (png(np.zeros((3, 3), np.uint8)), 0, r"image 0 is 2x3, image 70 is 3x3; set data.image_size"),
        (b"no image", 0, r"cannot read image image 70 \(UnidentifiedImageError.*replace or remove"),
        (png(_GRAY.astype(np.float32), "tiff"), 0, r"image 70 has pixels of mode F; convert it to 8 or 16 bits"),
        (png(_GRAY), 3, r"labels of numbers must be in 0..2; got values from 0 to 3"),
        (png(_GRAY), -1, r"labels of numbers must be in 0..2; got values from -1 to 2"),
    ],
    ids=["size", "corrupt", "floats", "label above", "label below"],
)
def test_batches_raise_for_invalid_examples(file, label, message):
    def example(row):
        return Example(file, label, "image 70") if row == 70 else numbered_images(0).example(row)

    before = threading.active_count()
    batches = eval_dataset_from_encoded(numbered_images(90, example=example), "numbers").batches(20)
    assert [len(next(batches)[0]) for _ in range(3)] == [20] * 3
    with pytest.raises(UserError, match=message):
        next(batches)
    assert threading.active_count() == before
