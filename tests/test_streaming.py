"""Streams of images beside the same images in memory, the strings that name data sets, and classes beside a run's."""

import io
import os
import threading
import tracemalloc
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from anchor_jax.core.errors import UserError
from anchor_jax.data import (
    Dataset,
    EvalDataset,
    class_rows,
    decoding,
    eval_dataset,
    load,
    load_test,
    open_dataset,
    open_stream,
    open_test,
    photographs,
)
from anchor_jax.data.decoding import Encoded, Example, decode_batches
from anchor_jax.data.streaming import eval_dataset_from_encoded
from benchmarks.tfds_writer import write_tfds

_RANDOM = np.random.default_rng(0)
_ABC = ("ant", "bee", "cat")


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def _write(file: Path, shape=(6, 6, 3)) -> np.ndarray:
    """An image file of random pixels, and those."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = _RANDOM.integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).save(file)
    return pixels


def _encoded(num: int, shape=(2, 3), **changed) -> Encoded:
    """Images whose pixels are their number."""

    def example(row):
        return Example(_png(np.full(shape, row % 256, np.uint8)), row % 3, f"image {row}")

    return Encoded("numbers", _ABC, num, example, lambda: "L", 0, [])._replace(**changed)


def _all(stream: EvalDataset, size: int) -> Dataset:
    """Everything in a stream, whose batches are as they should be."""
    batches = list(stream.batches(size))
    assert [len(images) for images, _ in batches[:-1]] == [size] * (len(batches) - 1)
    assert 0 < len(batches[-1][0]) <= size
    for images, labels in batches:
        assert images.shape == (len(labels), *stream.image_shape)
        assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert len(images) == stream.num_examples
    np.testing.assert_array_equal(stream.labels(), labels)
    assert stream.labels().dtype == np.int32
    return Dataset(images, labels, stream.label_names)


def _assert_same(streamed: Dataset, loaded: Dataset):
    np.testing.assert_array_equal(streamed.images, loaded.images)
    np.testing.assert_array_equal(streamed.labels, loaded.labels)
    assert streamed.label_names == loaded.label_names


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder of grey and colour images of one size, in the splits train and test."""
    for split in ("train", "test"):
        for row, file in enumerate(("ant/1.png", "ant/2.bmp", "bee/1.png", "cat/1.png", "cat/2.png")):
            _write(tmp_path / "images" / split / file, (6, 5) if row == 3 else (6, 5, 3))
    return tmp_path / "images"


@pytest.fixture
def npz(tmp_path) -> Path:
    images, labels = _RANDOM.integers(0, 256, (7, 4, 4), np.uint8), np.arange(7) % 3
    np.savez(tmp_path / "some.npz", x_train=images, y_train=labels, x_test=images[::-1], y_test=labels)
    return tmp_path / "some.npz"


@pytest.fixture
def prepared(tmp_path) -> Path:
    """Where the set "tiny" of ten 5 x 5 colour images is prepared, with the split "train" alone."""
    return _prepare(tmp_path / "tfds", "tiny", [row % 3 for row in range(10)])


def _prepare(data_dir: Path, name: str, labels: list[int], shape=(5, 5, 3), label_names=_ABC) -> Path:
    images = [_png(_RANDOM.integers(0, 256, shape, np.uint8).squeeze()) for _ in labels]
    features = {"image": tfds.features.Image(shape=shape), "label": tfds.features.ClassLabel(names=label_names)}
    write_tfds(data_dir, name, images, labels, features)
    return data_dir


# --- a stream is what `load` gives ----------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 64, 359, 360, 1000])
def test_digits(size):
    _assert_same(_all(open_stream("digits", "test"), size), load("digits", "test"))


@pytest.mark.parametrize("size", [2, 100])
@pytest.mark.parametrize("image_size", [0, 4])
def test_folder(folder, size, image_size):
    like = {"path": folder, "image_size": image_size}
    _assert_same(_all(open_stream("folder", "test", **like), size), load("folder", "test", **like))


@pytest.mark.parametrize("size", [3, 100])
@pytest.mark.parametrize("image_size", [0, 4])
def test_tfds(prepared, size, image_size):
    like = {"name": "tiny", "path": prepared, "image_size": image_size}
    _assert_same(_all(open_stream("tfds", "train[1:]", **like), size), load("tfds", "train[1:]", **like))


def test_npz(npz):
    _assert_same(_all(open_stream("npz", "test", path=npz), 3), load("npz", "test", path=npz))


def test_cifar10():
    data_dir = Path(os.environ.get("TFDS_DATA_DIR", "none"))
    if not (data_dir / "cifar10").is_dir():
        pytest.skip("CIFAR-10 is not prepared in $TFDS_DATA_DIR")
    stream = open_dataset("tfds:cifar10@test[:500]", image_shape=(32, 32, 3))
    _assert_same(_all(stream, 128), load("tfds", "test[:500]", name="cifar10"))


def test_streams_can_be_taken_again_and_side_by_side(folder):
    stream = open_stream("folder", "train", path=folder)
    for (images, labels), (again, same) in zip(stream.batches(2), stream.batches(2), strict=True):
        np.testing.assert_array_equal(images, again)
        np.testing.assert_array_equal(labels, same)


def test_first_examples(folder):
    stream = open_stream("folder", "train", path=folder)
    whole = load("folder", "train", path=folder)
    for num, images in ((2, whole.images[:2]), (99, whole.images)):
        np.testing.assert_array_equal(stream.first(num)[0], images)


@settings(max_examples=60, deadline=None)
@given(num=st.integers(1, 40), size=st.integers(1, 45))
def test_every_example_comes_once_and_in_order(num, size):
    images = np.arange(num, dtype=np.uint8)[:, None, None, None].repeat(2, axis=1)
    in_memory = _all(eval_dataset(Dataset(images, np.arange(num, dtype=np.int32) % 3, _ABC), "numbers"), size)
    assert in_memory.images[:, 0, 0, 0].tolist() == list(range(num))
    decoded = _all(eval_dataset_from_encoded(_encoded(num), "numbers"), size)
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
def test_what_load_refuses_is_refused_in_the_same_words(folder, prepared, source, split, options):
    _write(folder / "one" / "only" / "1.png")
    options = {"path": prepared if source == "tfds" else folder, **options}
    with pytest.raises(UserError) as loading:
        load(source, split, **options)
    with pytest.raises(UserError) as streaming:
        open_stream(source, split, **options)
    assert str(streaming.value) == str(loading.value)


def test_test_set_of_a_configuration(tiny):
    names, shape = ("0", "1", "2"), (6, 6, 1)
    stream = open_test(tiny.data, names, shape)
    assert stream.name == "test"
    _assert_same(_all(stream, 16), load_test(tiny.data, names, shape))
    with pytest.raises(UserError, match=r"split 'test' has 3 classes: 0, 1, 2, but the training set has 2: 0, 1; give"):
        open_test(tiny.data, names[:2], shape)
    with pytest.raises(UserError, match=r"images of split 'test' are \[6, 6, 1\], but .* \[6, 6, 3\]; give"):
        open_test(tiny.data, names, (6, 6, 3))


# --- memory and threads ---------------------------------------------------------------------------------


class _AtOnce:
    """An executor that has done what it is given before it returns."""

    def __init__(self, num_threads):
        self.num_threads = num_threads

    def submit(self, function, *args):
        future = Future()
        future.set_result(function(*args))
        return future

    def shutdown(self, cancel_futures):
        assert cancel_futures


@pytest.mark.parametrize("size", [1, 10, 100])
def test_no_more_than_two_batches_are_decoded_ahead(monkeypatch, size):
    decoded = []

    def example(row):
        decoded.append(row)
        return _encoded(0).example(row)

    monkeypatch.setattr(decoding, "ThreadPoolExecutor", _AtOnce)
    for taken, _ in enumerate(decode_batches(_encoded(95, example=example), size), start=1):
        ahead = min((taken + 2) * size, 95)
        assert decoded == [0, *range(ahead)]  # the first one tells the shape, too


def test_memory_does_not_grow_with_a_folder(tmp_path):
    for row in range(300):
        _write(tmp_path / "images" / "test" / _ABC[row % 3] / f"{row}.bmp", (64, 64, 3))
    stream = open_stream("folder", "test", path=tmp_path / "images")
    batch, whole = 10 * 64 * 64 * 3, 300 * 64 * 64 * 3
    tracemalloc.start()
    for _ in stream.batches(10):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert batch < peak < 8 * batch < whole / 3


def test_threads_end_with_the_stream():
    before = threading.active_count()
    batches = decode_batches(_encoded(500), 20)
    next(batches)
    assert threading.active_count() > before
    batches.close()
    assert threading.active_count() == before
    assert len(eval_dataset_from_encoded(_encoded(500), "numbers").first(20)[0]) == 20
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            Example(_png(np.zeros((3, 3), np.uint8)), 0, "image 70"),
            r"image 0 is 2x3, image 70 is 3x3; set data.image_si",
        ),
        (
            Example(b"no image", 0, "image 70"),
            r"cannot read image image 70 \(UnidentifiedImageError.*replace or remove",
        ),
        (Example(_png(np.zeros((2, 3), np.uint16)), 0, "image 70"), r"image 70 has pixels of mode I;16; 8 bits"),
        (Example(_png(np.zeros((2, 3), np.uint8)), 3, "image 70"), r"labels of numbers: 0 to 2 expected, got 0 to 3"),
        (Example(_png(np.zeros((2, 3), np.uint8)), -1, "image 70"), r"labels of numbers: 0 to 2 expected, got -1 to 2"),
    ],
    ids=["size", "damaged", "16 bits", "label above", "label below"],
)
def test_bad_examples_are_told_when_their_batch_is_asked_for(bad, message):
    def example(row):
        return bad if row == 70 else _encoded(0).example(row)

    before = threading.active_count()
    batches = eval_dataset_from_encoded(_encoded(90, example=example), "numbers").batches(20)
    assert [len(next(batches)[0]) for _ in range(3)] == [20] * 3
    with pytest.raises(UserError, match=message):
        next(batches)
    assert threading.active_count() == before


# --- data sets named by a string ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec", ["", "cifar10", "tfds", "tfds:", "tfds:@test", "folder:", "npz:", "images", "photographs:8", "digits:test",
             "digits@", "photographs@test", "tdfs:cifar10", "npy:folder"],
)  # fmt: skip
def test_malformed_specs(spec):
    message = rf"^unknown data set '{spec}'; allowed: tfds:NAME\[@SPLIT\], folder:PATH\[@SPLIT\], npz:.* photographs$"
    with pytest.raises(UserError, match=message):
        open_dataset(spec, image_shape=(8, 8, 1))


def test_spec_of_digits():
    for spec, split in (("digits", "test"), ("digits@train", "train")):
        stream = open_dataset(spec, image_shape=(8, 8, 1), label_names=tuple("0123456789"))
        assert stream.name == spec.replace("@", "-")
        _assert_same(_all(stream, 500), load("digits", split))


def test_spec_of_tfds(prepared, monkeypatch):
    with pytest.raises(UserError, match=r"split 'test' of tiny/1.0.0 is unknown or empty; allowed: train, and slices"):
        open_dataset("tfds:tiny", image_shape=(5, 5, 3), tfds_dir=prepared)
    stream = open_dataset("tfds:tiny:1.0.0@train[:4]", image_shape=(5, 5, 3), tfds_dir=prepared)
    assert stream.name == "tiny-train[:4]"
    _assert_same(_all(stream, 3), load("tfds", "train[:4]", name="tiny", path=prepared))
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    resized = open_dataset("tfds:tiny@train", image_shape=(3, 3, 3))
    _assert_same(_all(resized, 3), load("tfds", "train", name="tiny", image_size=3))


def test_spec_of_npz(npz):
    for split in ("", "@train"):
        stream = open_dataset(f"npz:{npz}{split}", image_shape=(4, 4, 1))
        assert stream.name == "some" + split.replace("@", "-")
        _assert_same(_all(stream, 2), load("npz", split[1:] or "test", path=npz))


def test_spec_of_a_folder(folder, tmp_path):
    test, train = (load("folder", split, path=folder, image_size=4) for split in ("test", "train"))
    for path, name, expected in [
        (f"{folder}", "images", test),
        (f"{folder}/", "images", test),
        (f"{folder}@test", "images-test", test),
        (f"{folder}@train", "images-train", train),
        (f"{folder}/train", "train", train),  # a folder of classes is a split: so ImageNet-R unpacks
        (f"{folder}/test/../train", "train", train),
    ]:
        stream = open_dataset(f"folder:{path}", image_shape=(4, 4, 3))
        assert stream.name == name
        _assert_same(_all(stream, 2), expected)
    moved = folder.rename(tmp_path / "im@ges")
    _assert_same(_all(open_dataset(f"folder:{moved}/train", image_shape=(4, 4, 3)), 2), train)


def test_spec_of_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"no split 'none' in '.*'; it holds: no folders; expected layout"):
        open_dataset(f"folder:{tmp_path}/none", image_shape=(4, 4, 3))


def test_spec_of_images(tmp_path):
    files = ["a.png", "b/c.JPEG", "b/d/e.png", "f.bmp"]
    for row, file in enumerate(files):
        _write(tmp_path / "found" / file, (9, 6, 3) if row else (6, 9))
    for hidden in (".git/x.png", "b/.x.png"):
        _write(tmp_path / "found" / hidden)
    (tmp_path / "found" / "notes.txt").touch()
    (tmp_path / "found" / "folder.png").mkdir()
    _write(tmp_path / "found" / "folder.png" / "g.png")
    (tmp_path / "found" / "folder.png" / "g.png").rename(tmp_path / "found" / "g.png")
    (tmp_path / "found" / "folder.png").rmdir()
    stream = open_dataset(f"images:{tmp_path}/found", image_shape=(6, 6, 3))
    assert (stream.name, stream.label_names) == ("found", ("image",))
    found = _all(stream, 2)
    assert found.labels.tolist() == [0] * 5
    by_class = tmp_path / "classes" / "test"
    for row, file in enumerate([*files, "g.png"]):  # the same decoding, by a source that is tested elsewhere
        target = by_class / str(row // 4) / f"{row}{Path(file).suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((tmp_path / "found" / file).read_bytes())
    np.testing.assert_array_equal(found.images, load("folder", "test", path=tmp_path / "classes", image_size=6).images)


def test_spec_of_images_without_any(tmp_path):
    with pytest.raises(UserError, match=r"no images in '.*' or below it; their names end in .bmp, .jpeg, .jpg, "):
        open_dataset(f"images:{tmp_path}", image_shape=(6, 6, 3))
    with pytest.raises(UserError, match=r"cannot read folder '.*none' \(FileNotFoundError.*; give a folder of images"):
        open_dataset(f"images:{tmp_path}/none", image_shape=(6, 6, 3))
    _write(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"cannot read folder '.*a.png' \(NotADirectoryError"):
        open_dataset(f"images:{tmp_path}/a.png", image_shape=(6, 6, 3))


def test_images_that_are_not_square_are_not_resized(folder):
    stream = open_dataset(f"folder:{folder}", image_shape=(6, 5, 3))
    _assert_same(_all(stream, 9), load("folder", "test", path=folder))
    message = r"images of 'images' are \[6, 5, 3\], but those of the run \[5, 6, 3\]; give images of the same size"
    with pytest.raises(UserError, match=message):
        open_dataset(f"folder:{folder}", image_shape=(5, 6, 3))


@pytest.mark.parametrize("shape", [(4, 5, 1), (5, 5, 1), (4, 4, 2)])
def test_arrays_are_not_resized(npz, shape):
    with pytest.raises(UserError, match=rf"images of 'some' are \[4, 4, 1\], but those of the run \[{shape[0]}, "):
        open_dataset(f"npz:{npz}", image_shape=shape)


def test_grey_images_for_a_run_in_colour(npz, folder):
    grey = load("npz", "test", path=npz).images
    colour = _all(open_dataset(f"npz:{npz}", image_shape=(4, 4, 3)), 3).images
    np.testing.assert_array_equal(colour, grey.repeat(3, axis=-1))


def test_images_in_colour_for_a_grey_run(tmp_path, folder):
    colour = load("folder", "test", path=folder, image_size=5)
    np.savez(tmp_path / "colour.npz", x_test=colour.images, y_test=colour.labels)
    expected = [np.asarray(Image.fromarray(image).convert("L")) for image in colour.images]
    of_arrays = _all(open_dataset(f"npz:{tmp_path}/colour.npz", image_shape=(5, 5, 1)), 2).images
    np.testing.assert_array_equal(of_arrays[..., 0], expected)
    luma = colour.images @ np.array([0.299, 0.587, 0.114])
    assert np.abs(of_arrays[..., 0] - luma).max() < 1
    of_files = _all(open_dataset(f"folder:{folder}", image_shape=(5, 5, 1)), 2).images
    for image, file in zip(of_files, sorted(folder.glob("test/*/*")), strict=True):
        grey = ImageOps.fit(Image.open(file).convert("L"), (5, 5), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(image[..., 0], np.asarray(grey))


def test_corrupted_tfds_sets_are_not_taken_without_a_corruption(tmp_path):
    for name in ("cifar10_corrupted", "imagenet2012_corrupted:1.0.0"):
        with pytest.raises(
            UserError, match=r"'.*' names neither corruption nor severity; give .* 'tfds:\w+/fog_3', or"
        ):
            open_dataset(f"tfds:{name}", image_shape=(4, 4, 3), tfds_dir=tmp_path)
    _prepare(tmp_path / "cifar10_corrupted", "fog_3", [0, 1, 2])
    stream = open_dataset("tfds:cifar10_corrupted/fog_3@train", image_shape=(5, 5, 3), tfds_dir=tmp_path)
    assert (stream.name, stream.num_examples) == ("cifar10_corrupted-fog_3-train", 3)


def test_classes_without_examples_are_not_those_of_imagenet_a_and_r(tmp_path):
    names = ("n01", "n02", "n03", "n04")
    for name, expected in (("imagenet_r", ("n02", "n04")), ("imagenet_sketch", names)):
        _prepare(tmp_path, name, [3, 1, 1, 3], label_names=names)
        stream = open_dataset(f"tfds:{name}@train", image_shape=(5, 5, 3), tfds_dir=tmp_path)
        given = _all(stream, 3)
        assert given.label_names == expected
        assert [given.label_names[label] for label in given.labels] == ["n04", "n02", "n02", "n04"]


# --- photographs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_shape", [(8, 8, 1), (32, 32, 3), (10, 20, 3)])
def test_photographs(image_shape):
    stream = open_dataset("photographs", image_shape=image_shape)
    patches = _all(stream, 100)
    assert patches.images.shape == (360, *image_shape)
    assert (stream.name, patches.label_names) == ("photographs", ("china", "flower"))
    _assert_same(patches, photographs(image_shape))  # the same again
    assert len({image.tobytes() for image in patches.images}) > 350


def test_photographs_are_whole_patches_at_three_scales(monkeypatch):
    height, width = 400, 640
    ramp = np.stack([*np.indices((height, width)) / 4, np.zeros((height, width))], axis=-1).astype(np.uint8)
    monkeypatch.setattr("sklearn.datasets.load_sample_images", lambda: SimpleNamespace(images=[ramp, 255 - ramp]))
    patches, labels, _ = photographs((16, 16, 3), num=60)
    patches = np.where(labels[:, None, None, None] == 1, 255 - patches.astype(int), patches)
    down, right = patches[:, -1, :, 0] - patches[:, 0, :, 0], patches[:, :, -1, 1] - patches[:, :, 0, 1]
    extents = np.stack([down, right]).mean(axis=(0, 2)) * 4 * 16 / 15
    np.testing.assert_allclose(np.sort(extents), np.repeat([50, 100, 200], 20), atol=8)
    np.testing.assert_allclose(down.max(axis=1), down.min(axis=1), atol=2)
    assert (patches[..., 2] == 0).all()


def test_photographs_are_grey_or_in_colour():
    with pytest.raises(UserError, match=r"photographs have 1 or 3 channels, but images of the run are \[8, 8, 2\]"):
        photographs((8, 8, 2))


# --- classes beside those of a run ----------------------------------------------------------------------


def test_class_rows_of_known_sets():
    run = ("n01", "n02", "n03", "n04")
    assert class_rows(run, run) is None
    assert _list(class_rows(("n02", "n04"), run)) == [1, 3]
    assert _list(class_rows(("n04", "n02"), run)) == [3, 1]
    assert class_rows(("0", "1", "2", "3"), run) is None  # counted as the run does
    assert _list(class_rows(("0", "3", "1", "2"), run)) == [0, 3, 1, 2]
    assert _list(class_rows(("2", "1"), ("0", "1", "2"))) == [2, 1]  # the run's own names


def _list(rows: np.ndarray | None) -> list[int]:
    assert rows is not None
    assert rows.dtype == np.int32
    return rows.tolist()


@given(st.permutations(range(12)), st.integers(1, 12))
def test_class_rows_lead_to_the_names(order, num):
    run = tuple(f"class {number}" for number in range(12))
    names = tuple(run[row] for row in order[:num])
    rows = class_rows(names, run)
    assert tuple(run[row] for row in (range(12) if rows is None else rows)) == names


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("ant", "eel"), "1 of the 2 classes of the data set are none of the run's 3: eel; the run has: ant, bee, cat"),
        (("0", "1"), "2 of the 2 classes of the data set are none of the run's 3: 0, 1; the run has"),
        (tuple("012345"), "6 of the 6 classes of the data set are none of the run's 3: 0, 1, 2, 3, 4, …; the run has"),
    ],
)
def test_class_rows_of_strange_classes(names, message):
    with pytest.raises(UserError, match=message):
        class_rows(names, _ABC)


def test_labels_are_counted_as_the_run_does(folder):
    set_names = _all(open_dataset(f"folder:{folder}", image_shape=(4, 4, 3)), 2)
    run_names = ("cat", "ant", "bee")
    as_run = _all(open_dataset(f"folder:{folder}", image_shape=(4, 4, 3), label_names=run_names), 2)
    assert as_run.label_names == run_names
    assert [run_names[row] for row in as_run.labels] == [set_names.label_names[row] for row in set_names.labels]
    np.testing.assert_array_equal(as_run.images, set_names.images)


def test_numbers_stand_for_the_classes_of_the_run(npz):
    stream = open_dataset(f"npz:{npz}", image_shape=(4, 4, 1), label_names=_ABC)
    assert stream.label_names == _ABC
    np.testing.assert_array_equal(_all(stream, 4).labels, load("npz", "test", path=npz).labels)


@pytest.mark.parametrize(
    ("label_names", "message"),
    [
        (("ant", "bee", "cat", "dog"), r"'images' has 3 of the run's 4 classes; it lacks dog"),
        (("ant", "bee", "dog"), r"1 of the 3 classes of 'images' are none of the run's 3: cat; the run has: ant, bee"),
        (("ant", "bee"), r"1 of the 3 classes of 'images' are none of the run's 2: cat; the run has: ant, bee"),
    ],
)
def test_sets_of_other_classes_are_refused(folder, label_names, message):
    with pytest.raises(UserError, match=message):
        open_dataset(f"folder:{folder}", image_shape=(4, 4, 3), label_names=label_names)
