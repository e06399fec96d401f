"""The stream of training images: its crops beside torchvision's, its order, its workers, and damaged images."""

import itertools
import math
import multiprocessing
import os
import signal
import textwrap
import threading
import time
from pathlib import Path

import imagenet_like as likeness
import numpy as np
import pytest
from commands import quick_command
from hypothesis import given, settings
from hypothesis import strategies as st
from jax._src import xla_bridge
from PIL import Image
from scipy import stats
from sklearn.datasets import load_sample_images

from anchor_jax import UserError
from anchor_jax.config import base
from anchor_jax.data import cropping, feeding, load, load_test, open_test, open_train_stream
from anchor_jax.data.cropping import random_box, random_resized_crop, reduction
from anchor_jax.data.decoding import Example, decode
from anchor_jax.data.feeding import Order
from anchor_jax.data.sources import Files, open_encoded

AREA = (0.08, 1.0)
SIZE = 24
BATCH = 64
STEPS = likeness.NUM["train"] // BATCH  # of an epoch


@pytest.fixture
def data(imagenet_like):
    """The section `data` of a configuration, for the folder."""
    config = base().data
    config.source, config.path, config.image_size = "folder", str(imagenet_like.folder), SIZE
    return config


def example_of(file: Path) -> Example:
    return Example(file, 0, str(file))


def grey_levels(given: np.ndarray, expected: Image.Image) -> np.ndarray:
    return np.abs(given.astype(int) - np.asarray(expected))


# --- where a crop is ------------------------------------------------------------------------------------


@pytest.mark.parametrize("area", [AREA, (0.5, 0.9)])
@pytest.mark.parametrize(("width", "height"), [(500, 375), (40, 110), (300, 31)])
def test_boxes_are_distributed_as_those_of_torchvision(width, height, area):
    torch = pytest.importorskip("torch")
    transforms = pytest.importorskip("torchvision.transforms")
    torch.manual_seed(0)
    image = Image.new("L", (width, height))
    get_params = transforms.RandomResizedCrop.get_params
    theirs = np.array([get_params(image, list(area), [3 / 4, 4 / 3]) for _ in range(1_000)])
    top, left, h, w = theirs.T
    rng = np.random.default_rng(0)
    ours = np.array([random_box(rng, width, height, area) for _ in range(1_000)]).T
    for one, other in zip(ours, (left, top, left + w, top + h), strict=True):
        assert stats.ks_2samp(one, other).pvalue > 1e-4
    share = (ours[2] - ours[0]) * (ours[3] - ours[1]) / (width * height)
    assert share.max() <= area[1] * 1.05


@pytest.mark.parametrize(("width", "height"), [(1, 50), (50, 1), (1, 1), (1000, 3), (3, 1000), (600, 500)])
def test_box_where_none_fits_is_that_of_torchvision(width, height):
    transforms = pytest.importorskip("torchvision.transforms")
    image = Image.new("L", (width, height))
    top, left, h, w = transforms.RandomResizedCrop.get_params(image, [2.0, 2.0], [3 / 4, 4 / 3])
    assert random_box(np.random.default_rng(0), width, height, (2.0, 2.0)) == (left, top, left + w, top + h)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32))
def test_boxes_lie_in_the_image(width, height, seed):
    left, top, right, bottom = random_box(np.random.default_rng(seed), width, height, AREA)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


# --- what is in it --------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_fast", [True, False])
def test_crops_of_all_kinds_are_those_of_torchvision(imagenet_like, monkeypatch, is_fast):
    if not is_fast:  # not installed
        monkeypatch.setattr(cropping, "fast", None)
    functional = pytest.importorskip("torchvision.transforms.functional")
    for row, file in enumerate(imagenet_like.files("train")[:40]):
        image = Image.open(file)
        whole = image.convert("RGBA").convert("RGB") if image.mode == "P" else image.convert("RGB")  # as it is stored
        left, top, right, bottom = random_box(np.random.default_rng([7, row]), *image.size, AREA)
        size = [SIZE, SIZE]
        crop = functional.resized_crop(whole, top, left, bottom - top, right - left, size, antialias=True)
        difference = grey_levels(random_resized_crop(example_of(file), SIZE, AREA, [7, row]), crop)
        reduced = reduction((left, top, right, bottom), SIZE) > 1
        assert difference.max() <= (20 if reduced else 1), file
        assert difference.mean() < (1 if reduced else 0.5), file


def test_crops_of_bytes_are_those_of_files(imagenet_like):
    for row, file in enumerate(imagenet_like.files("train")[:12]):
        of_bytes = Example(file.read_bytes(), 0, "bytes")
        crops = [random_resized_crop(example, SIZE, AREA, [row]) for example in (of_bytes, example_of(file))]
        np.testing.assert_array_equal(*crops)


@pytest.mark.parametrize("photograph", [0, 1])
@pytest.mark.parametrize(("image_size", "scale"), [(104, 1), (80, 2), (50, 4), (25, 8)])
def test_crops_at_a_reduced_scale_are_near_those_of_pillow(tmp_path, photograph, image_size, scale):
    whole = Image.fromarray(load_sample_images().images[photograph])
    whole.save(tmp_path / "photograph.jpg", quality=90)
    box = (3, 6, 604, 407)
    assert reduction(box, image_size) == scale
    whole = Image.open(tmp_path / "photograph.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cropping, "random_box", lambda *_: box)
        crop = random_resized_crop(example_of(tmp_path / "photograph.jpg"), image_size, AREA, [0])
    expected = whole.crop(box).resize((image_size, image_size), Image.Resampling.BILINEAR)
    difference = grey_levels(crop, expected)
    assert difference.mean() < (1 if scale > 1 else 0.25)
    assert difference.max() <= (19 if scale > 1 else 1)


def test_files_are_decoded_at_a_reduced_scale(tmp_path, monkeypatch):
    sizes = []
    decode = cropping.simplejpeg.decode_jpeg
    monkeypatch.setattr(
        cropping.simplejpeg, "decode_jpeg", lambda *a, **k: sizes.append((out := decode(*a, **k)).shape) or out
    )
    monkeypatch.setattr(cropping, "random_box", lambda rng, width, height, area: (0, 0, width, height))
    Image.new("RGB", (401, 333)).save(tmp_path / "a.jpg")
    for image_size in (84, 83, 41, 20):
        random_resized_crop(example_of(tmp_path / "a.jpg"), image_size, AREA, [0])
    assert [shape[:2] for shape in sizes] == [(math.ceil(333 / s), math.ceil(401 / s)) for s in (1, 2, 4, 8)]


def test_decompression_bombs_are_refused(imagenet_like, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UserError, match=r"cannot read image .* \(DecompressionBombError"):
        random_resized_crop(example_of(imagenet_like.files("train")[12]), SIZE, AREA, [0])


def test_unreadable_images_are_told(imagenet_like):
    for row, reason in ((5, "truncated"), (6, "Unidentified"), (23, "Unidentified"), (39, "mode I;16; 8 bits are")):
        file = imagenet_like.files("worn")[row]
        with pytest.raises(UserError, match=rf"image {file} .*{reason}"):
            random_resized_crop(example_of(file), SIZE, AREA, [0])
    with pytest.raises(UserError, match=r"cannot read image .*none.jpg \(FileNotFoundError"):
        random_resized_crop(example_of(imagenet_like.folder / "none.jpg"), SIZE, AREA, [0])


# --- central crops --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fraction", "resized"), [(0.875, 32), (0.5, 56), (0.9, 31), (1.0, 28)])
def test_central_crop_is_shorter_side_resized_and_centre(imagenet_like, fraction, resized):
    transforms = pytest.importorskip("torchvision.transforms")
    bicubic = transforms.InterpolationMode.BICUBIC
    theirs = transforms.Compose([transforms.Resize(resized, bicubic, antialias=True), transforms.CenterCrop(28)])
    square = Image.open(imagenet_like.files("train")[12]).convert("RGB").resize((90, 90))
    for image, tolerance in ((square, 1.5), (square.resize((112, 56)), 1.5), (square.resize((61, 97)), 8)):
        image.save(imagenet_like.folder / "central.png")
        ours = decode(
            example_of(imagenet_like.folder / "central.png"), mode="RGB", image_size=28, crop_fraction=fraction
        )
        if (resized - 28) % 2 == 0 or tolerance > 2:  # otherwise theirs is half a pixel off the centre
            assert grey_levels(ours, theirs(image)).mean() < tolerance


def test_sets_in_memory_and_streams_have_central_crops(data, monkeypatch, tmp_path):
    monkeypatch.setenv("ANCHOR_JAX_CACHE", str(tmp_path))
    data.test_split, data.crop_fraction = "val", 0.875
    names, shape = likeness.LABEL_NAMES, (SIZE, SIZE, 3)
    cropped = load_test(data, names, shape)
    np.testing.assert_array_equal(open_test(data, names, shape).first(60)[0], cropped.images)
    np.testing.assert_array_equal(load_test(data, names, shape).images, cropped.images)
    data.crop_fraction = 1.0
    whole = load_test(data, names, shape)
    assert (whole.images != cropped.images).any()
    np.testing.assert_array_equal(load("folder", "val", path=data.path, image_size=SIZE).images, whole.images)


@pytest.mark.parametrize("options", [{"crop_fraction": 0.5}, {"crop_fraction": 1.5, "image_size": 8}])
def test_crop_fraction_out_of_place_is_refused(data, options):
    with pytest.raises(UserError, match=r"data.crop_fraction=\S+; allowed: 1, or in \(0, 1\) where data.image_size"):
        load("folder", "val", path=data.path, **options)
    with pytest.raises(UserError, match=r"data.crop_fraction=0.5; allowed: 1, or .* of the sources tfds, folder$"):
        load("digits", "test", crop_fraction=0.5, image_size=8)


# --- the order ------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(num=st.integers(1, 50), batch_size=st.integers(1, 50), repeats=st.integers(1, 4), epoch=st.integers(0, 5))
def test_epochs_are_permutations_without_what_fills_no_batch(num, batch_size, repeats, epoch):
    batch_size = min(num, batch_size)
    order = Order(3, num, batch_size, repeats)
    steps = num // batch_size
    rows = np.concatenate([order.rows(step) for step in range(epoch * steps, (epoch + 1) * steps)])
    assert len(rows) == steps * batch_size
    assert 0 <= rows.min() <= rows.max() < num
    times = np.unique(rows, return_counts=True)[1]  # all but the last example come as often as they shall
    assert len(times) == -(-len(rows) // repeats)
    assert (np.sort(times)[1:] == min(repeats, len(rows))).all()


@pytest.mark.parametrize(("batch_size", "repeats"), [(48, 2), (48, 3), (50, 4)])
def test_copies_of_an_image_are_neither_neighbours_nor_in_one_group(batch_size, repeats):
    order = Order(3, 500, batch_size, repeats)
    for step in range(20):
        rows = order.rows(step)
        assert len(set(rows)) <= batch_size // repeats + 2
        assert (rows[::2] != rows[1::2]).all()
        for start in range(0, batch_size, batch_size // repeats // 2):
            group = rows[start : start + batch_size // repeats // 2]
            assert len(set(group)) == len(group)


def test_remainders_differ_and_every_example_comes_as_often():
    order = Order(0, 10, 4, 1)
    epochs = [set(np.concatenate([order.rows(2 * epoch), order.rows(2 * epoch + 1)])) for epoch in range(400)]
    assert len({frozenset(epoch) for epoch in epochs}) > 20
    times = np.array([sum(row in epoch for epoch in epochs) for row in range(10)])
    assert np.abs(times - 320).max() < 5 * 8  # binomial(400, 4/5): standard deviation 8
    assert any((Order(1, 10, 4, 1).rows(step) != order.rows(step)).any() for step in range(3))


# --- the stream -----------------------------------------------------------------------------------------


def taken(data, num, *, first_step=0, shard=(0, 1), area=AREA, batch_size=BATCH):
    """Images and labels of some batches."""
    with open_train_stream(data, area=area, seed=5, batch_size=batch_size, shard=shard) as feed:
        stream = feed.batches(first_step)
        batches = [next(stream) for _ in range(num)]
    for images, labels in batches:
        assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
        assert images.shape == (batch_size // shard[1], SIZE, SIZE, 3) == (len(labels), *feed.image_shape)
    return np.stack([batch.images for batch in batches]), np.stack([batch.labels for batch in batches])


@pytest.mark.min_versions
def test_batches_are_the_crops_of_their_rows(data, imagenet_like):
    files = imagenet_like.files("train")
    images, labels = taken(data, STEPS + 1)
    for step in (0, STEPS):
        rows = Order(5, len(files), BATCH, 1).rows(step)
        assert [likeness.LABEL_NAMES[label] for label in labels[step]] == [files[row].parent.name for row in rows]
        for place in (0, 31, 32, 63):
            seed = [5, 1, step * BATCH + place]
            expected = random_resized_crop(example_of(files[rows[place]]), SIZE, AREA, seed)
            np.testing.assert_array_equal(images[step, place], expected)


@pytest.mark.parametrize(("index", "count"), [(0, 1), (0, 2), (1, 2), (2, 4)])
def test_any_step_is_where_a_stream_begins_and_processes_share_its_batches(data, index, count):
    images, labels = taken(data, STEPS + 3)
    first_step, size = STEPS + 1, BATCH // count  # in the second epoch
    part = slice(index * size, (index + 1) * size)
    again = taken(data, 2, first_step=first_step, shard=(index, count))
    np.testing.assert_array_equal(again[0], images[first_step:, part])
    np.testing.assert_array_equal(again[1], labels[first_step:, part])


def test_repeated_images_are_cropped_anew(data):
    data.repeats = 3
    images, labels = taken(data, 2, batch_size=48)
    rows = Order(5, likeness.NUM["train"], 48, 3).rows(0)
    assert (rows.reshape(3, 16) == rows[:16]).all()
    different = [len({image.tobytes() for image in images[0, i::16]}) for i in range(16)]
    assert np.mean(different) > 2.5
    assert (labels[0].reshape(3, 16) == labels[0, :16]).all()


def test_stream_without_random_crops_has_central_ones(data, imagenet_like):
    data.crop_fraction = 0.875
    images, _ = taken(data, 1, area=())
    with open_train_stream(data, area=(), seed=5, batch_size=BATCH) as feed:
        np.testing.assert_array_equal(feed.take(Order(5, feed.num_examples, BATCH, 1).rows(0)), images[0])


def test_picked_images_are_central_crops_and_only_they_are_read(data, imagenet_like, monkeypatch):
    data.crop_fraction = 0.875
    files = imagenet_like.files("train")
    expected = [decode(example_of(files[row]), mode="RGB", image_size=SIZE, crop_fraction=0.875) for row in (200, 7, 7)]
    read = []
    monkeypatch.setattr(feeding, "decoded", lambda e, **options: read.append(e.file) or decode(e, **options))
    with open_train_stream(data, area=AREA, seed=0, batch_size=BATCH) as feed:
        np.testing.assert_array_equal(feed.take(np.array([200, 7, 7])), expected)
    assert sorted(read) == sorted(files[row] for row in (200, 7, 7))


def test_prepared_set_gives_what_the_folder_gives(data, imagenet_like):
    images, labels = taken(data, 2)
    with open_train_stream(data, area=AREA, seed=0, batch_size=BATCH) as feed:
        in_folder = feed.labels()
    data.source, data.name, data.path = "tfds", "like_train", str(imagenet_like.tfds_dir)
    prepared_images, prepared_labels = taken(data, 2)
    np.testing.assert_array_equal(prepared_images, images)
    np.testing.assert_array_equal(prepared_labels, labels)
    with open_train_stream(data, area=AREA, seed=0, batch_size=BATCH) as feed:
        assert (feed.num_examples, feed.label_names) == (likeness.NUM["train"], likeness.LABEL_NAMES)
        np.testing.assert_array_equal(feed.labels(), in_folder)
        assert feed.labels().dtype == np.int32


def test_opening_reads_no_image(data, monkeypatch):
    monkeypatch.setattr(Image, "open", None)
    monkeypatch.setattr(Path, "read_bytes", None)
    with open_train_stream(data, area=AREA, seed=0, batch_size=BATCH) as feed:
        assert feed.num_examples == likeness.NUM["train"]
        assert np.bincount(feed.labels()).tolist() == [60] * 4


def test_files_of_any_name():
    names = ["a/1.png", "b/ü.png", os.fsdecode(b"b/\xff.png"), ""]
    files = Files(Path("/root"), names)
    assert list(files) == [Path("/root") / name for name in names]
    with pytest.raises(IndexError):
        files[4]


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        ({"image_size": 0}, {}, r"config.data.image_size=0; a stream needs a number of pixels"),
        ({"validation_fraction": 0.1}, {}, r"validation_fraction=0.1, but no part of a stream is .*train\[:99%\]"),
        (
            {"source": "digits"},
            {},
            r"source 'digits' is no stream of encoded images; allowed: tfds, folder; .*streaming",
        ),
        ({"source": "tdfs"}, {}, r"unknown data source 'tdfs'; .* Did you mean 'tfds'"),
        ({"train_split": "trian"}, {}, r"no split 'trian' in '.*'; it holds: train, val, worn;"),
        ({}, {"batch_size": 241}, r"config.training.batch_size=241; allowed: numbers up to 240, .* divisible by 1,"),
        ({}, {"shard": (0, 3)}, r"batch_size=64; allowed: .* divisible by 3, the number of processes"),
    ],
)
def test_mistakes_are_told_at_once(data, changed, options, message):
    data.update(changed)
    with pytest.raises(UserError, match=message):
        open_train_stream(data, **{"area": AREA, "seed": 0, "batch_size": BATCH, **options})


def test_labels_that_name_no_class_are_refused(data, monkeypatch):
    encoded = open_encoded("folder", "train", path=data.path, image_size=SIZE)
    monkeypatch.setattr(
        feeding,
        "open_encoded",
        lambda *a, **k: encoded._replace(example=lambda row: encoded.example(row)._replace(label=4)),
    )
    with (
        open_train_stream(data, area=AREA, seed=0, batch_size=BATCH) as feed,
        pytest.raises(UserError, match=r"labels of .*-train: 0 to 3 expected, got 4 to 4"),
    ):
        next(feed.batches())


# --- damaged images -------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["folder", "tfds"])
def test_another_image_stands_in_for_a_damaged_one(data, imagenet_like, source):
    files = imagenet_like.files("worn")
    data.train_split, data.max_corrupt_fraction = "worn", 0.1
    names = tuple(str(files[row]) for row in likeness.DAMAGED)
    if source == "tfds":
        data.source, data.name, data.path, data.train_split = "tfds", "like_worn", str(imagenet_like.tfds_dir), "train"
        names = tuple(f"example {row} of like_worn/1.0.0-train" for row in likeness.DAMAGED)
    with open_train_stream(data, area=AREA, seed=0, batch_size=40) as feed:
        stream = feed.batches()
        with pytest.warns(UserWarning, match="another image stands in for a damaged one: .*") as told:
            images, labels = next(stream)
        assert len(told) == 4
        assert set(feed.corrupt) == set(names)
        place = {row: place for place, row in enumerate(Order(0, 40, 40, 1).rows(0).tolist())}
        for row, instead in ((5, 7), (6, 7), (23, 24), (39, 0)):
            expected = random_resized_crop(example_of(files[instead]), SIZE, AREA, [0, 1, place[row]])
            np.testing.assert_array_equal(images[place[row]], expected)
            assert likeness.LABEL_NAMES[labels[place[row]]] == files[instead].parent.name
        next(stream)  # the same images: nothing new to tell
        np.testing.assert_array_equal(feed.take(np.array([5])), feed.take(np.array([7])))
        assert len(feed.corrupt) == 4


def test_too_many_damaged_images_end_the_run(data):
    data.train_split, data.max_corrupt_fraction = "worn", 0.09
    message = r"^4 of the 40 images of folder-worn cannot be read: .*; at most 3 may be, by config.data.max_corrupt_fraction=0.09;"
    with open_train_stream(data, area=AREA, seed=0, batch_size=10) as feed:
        with pytest.warns(UserWarning, match="stands in"), pytest.raises(UserError, match=message):
            list(itertools.islice(feed.batches(), 4))
        assert len(feed.corrupt) == 4


def test_unreadable_sets_are_not_searched_for_ever(data, monkeypatch, tmp_path):
    for row in range(30):
        file = tmp_path / "train" / "ab"[row % 2] / f"{row}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("no image")
    data.path, data.max_corrupt_fraction = str(tmp_path), 0.1
    with (
        open_train_stream(data, area=AREA, seed=0, batch_size=10) as feed,
        pytest.raises(UserError, match=r"4 of the 30 images of .* cannot be read: .*/a/\d+.jpg, .* at most 3 may be"),
    ):
        next(feed.batches())


# --- worker processes -----------------------------------------------------------------------------------


def test_worker_processes_give_the_same_and_end(data, monkeypatch):
    data.train_split, data.max_corrupt_fraction = "worn", 0.1
    with pytest.warns(UserWarning, match="stands in"):
        images, labels = taken(data, 5, batch_size=36)
    encoded = open_encoded("folder", "worn", path=data.path, image_size=SIZE)
    of_folder = encoded.example

    def example(row):
        assert multiprocessing.parent_process() is not None
        assert not xla_bridge._backends  # it holds no device
        return of_folder(row)

    monkeypatch.setattr(feeding, "open_encoded", lambda *a, **k: encoded._replace(example=example))
    data.workers = 2
    with pytest.warns(UserWarning, match="stands in"):
        again = taken(data, 3, first_step=2, shard=(1, 2), batch_size=36)
    np.testing.assert_array_equal(again[0], images[2:, 18:])
    np.testing.assert_array_equal(again[1], labels[2:, 18:])
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("ends", [False, True])
def test_errors_of_workers_arrive(data, monkeypatch, ends):
    data.workers, data.max_corrupt_fraction = 1, 0.01
    encoded = open_encoded("folder", "train", path=data.path, image_size=SIZE)

    def example(row):
        if ends:
            os.kill(os.getpid(), signal.SIGKILL)
        raise UserError(f"no row {row}")

    monkeypatch.setattr(feeding, "open_encoded", lambda *a, **k: encoded._replace(example=example))
    message = (
        r"^a worker process of the input was ended from outside \(.*exit code -9.*; .* give fewer config.data.workers$"
        if ends
        else r"^3 of the 240 images of folder-train cannot be read: example \d+ of .*; at most 2 .* first: no row \d+$"
    )
    feed = open_train_stream(data, area=AREA, seed=0, batch_size=BATCH)
    with feed, pytest.raises(UserError, match=message) as told:
        next(feed.batches())
    assert "\n" not in str(told.value)
    assert not multiprocessing.active_children()


def test_workers_end_with_a_process_that_is_killed(data, tmp_path):
    script = f"""
        import multiprocessing, os, signal
        from anchor_jax.config import base
        from anchor_jax.data import open_feed

        def main():
            data = base().data
            data.update(source="folder", path={data.path!r}, image_size=8, workers=1)
            stream = open_feed(data, area=(0.08, 1.0), seed=0, batch_size=8).batches()
            next(stream)
            print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

        if __name__ == "__main__":
            main()
    """
    (tmp_path / "run.py").write_text(textwrap.dedent(script))
    run = quick_command(tmp_path / "run.py")
    assert run.returncode == -signal.SIGKILL
    (worker,) = map(int, run.stdout.split())
    deadline = time.monotonic() + 30
    while _runs(worker):
        assert time.monotonic() < deadline, "the worker outlives the process that began it"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_threads_end_with_the_stream(data):
    feed = open_train_stream(data, area=AREA, seed=0, batch_size=BATCH)
    next(feed.batches())
    feed.close()
    for thread in threading.enumerate():
        if thread.name.startswith("grain-prefetch"):
            thread.join(timeout=30)
            assert not thread.is_alive()
