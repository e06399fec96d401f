"""The stream of training images: order of examples, batches, and corrupt images."""

import itertools
import os
from pathlib import Path

import imagenet_like as likeness
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from train_streams import AREA, BATCH_SIZE, SIZE, STEPS_PER_EPOCH, file_example, folder_config, read_batches

from anchor_jax import UserError
from anchor_jax.data import open_train_stream, train_batches, train_stream
from anchor_jax.data.cropping import random_resized_crop
from anchor_jax.data.decoding import decode
from anchor_jax.data.files import FileList
from anchor_jax.data.sources import open_encoded
from anchor_jax.data.train_batches import EpochOrder


@pytest.fixture
def data(imagenet_like):
    return folder_config(imagenet_like)


@settings(deadline=None)
@given(num=st.integers(1, 50), batch_size=st.integers(1, 50), repeats=st.integers(1, 4), epoch=st.integers(0, 5))
def test_epoch_order_is_a_permutation_of_full_batches(num, batch_size, repeats, epoch):
    batch_size = min(num, batch_size)
    order = EpochOrder(3, num, batch_size, repeats)
    steps = num // batch_size
    rows = np.concatenate([order.rows(step) for step in range(epoch * steps, (epoch + 1) * steps)])
    assert len(rows) == steps * batch_size
    assert 0 <= rows.min() <= rows.max() < num
    times = np.unique(rows, return_counts=True)[1]  # all examples but the last occur equally often
    assert len(times) == -(-len(rows) // repeats)
    assert (np.sort(times)[1:] == min(repeats, len(rows))).all()


@pytest.mark.parametrize(("batch_size", "repeats"), [(48, 2), (48, 3), (50, 4)])
def test_epoch_order_separates_copies_of_an_image(batch_size, repeats):
    order = EpochOrder(3, 500, batch_size, repeats)
    for step in range(20):
        rows = order.rows(step)
        assert len(set(rows)) <= batch_size // repeats + 2
        assert (rows[::2] != rows[1::2]).all()
        for start in range(0, batch_size, batch_size // repeats // 2):
            group = rows[start : start + batch_size // repeats // 2]
            assert len(set(group)) == len(group)


def test_epoch_order_drops_a_different_remainder_per_epoch():
    order = EpochOrder(0, 10, 4, 1)
    epochs = [set(np.concatenate([order.rows(2 * epoch), order.rows(2 * epoch + 1)])) for epoch in range(400)]
    assert len({frozenset(epoch) for epoch in epochs}) > 20
    times = np.array([sum(row in epoch for epoch in epochs) for row in range(10)])
    assert np.abs(times - 320).max() < 5 * 8  # binomial(400, 4/5): standard deviation 8
    assert any((EpochOrder(1, 10, 4, 1).rows(step) != order.rows(step)).any() for step in range(3))


@pytest.mark.min_versions
def test_train_stream_batches_are_crops_of_their_rows(data, imagenet_like):
    files = imagenet_like.files("train")
    images, labels = read_batches(data, STEPS_PER_EPOCH + 1)
    for step in (0, STEPS_PER_EPOCH):
        rows = EpochOrder(5, len(files), BATCH_SIZE, 1).rows(step)
        assert [likeness.LABEL_NAMES[label] for label in labels[step]] == [files[row].parent.name for row in rows]
        for position in (0, 31, 32, 63):
            seed = [5, 1, step * BATCH_SIZE + position]
            expected = random_resized_crop(file_example(files[rows[position]]), SIZE, AREA, seed)
            np.testing.assert_array_equal(images[step, position], expected)


@pytest.mark.parametrize(("index", "count"), [(0, 1), (0, 2), (1, 2), (2, 4)])
def test_train_stream_starts_at_any_step_and_is_sharded(data, index, count):
    images, labels = read_batches(data, STEPS_PER_EPOCH + 3)
    first_step, size = STEPS_PER_EPOCH + 1, BATCH_SIZE // count  # in the second epoch
    part = slice(index * size, (index + 1) * size)
    again = read_batches(data, 2, first_step=first_step, shard=(index, count))
    np.testing.assert_array_equal(again[0], images[first_step:, part])
    np.testing.assert_array_equal(again[1], labels[first_step:, part])


def test_train_stream_crops_repeated_images_differently(data):
    data.repeats = 3
    images, labels = read_batches(data, 2, batch_size=48)
    rows = EpochOrder(5, likeness.NUM["train"], 48, 3).rows(0)
    assert (rows.reshape(3, 16) == rows[:16]).all()
    different = [len({image.tobytes() for image in images[0, i::16]}) for i in range(16)]
    assert np.mean(different) > 2.5
    assert (labels[0].reshape(3, 16) == labels[0, :16]).all()


def test_train_stream_without_area_uses_central_crops(data, imagenet_like):
    data.crop_fraction = 0.875
    images, _ = read_batches(data, 1, area=())
    with open_train_stream(data, area=(), seed=5, batch_size=BATCH_SIZE) as stream:
        np.testing.assert_array_equal(stream.take(EpochOrder(5, stream.num_examples, BATCH_SIZE, 1).rows(0)), images[0])


def test_train_stream_take_reads_only_the_given_rows(data, imagenet_like, monkeypatch):
    data.crop_fraction = 0.875
    files = imagenet_like.files("train")
    expected = [
        decode(file_example(files[row]), mode="RGB", image_size=SIZE, crop_fraction=0.875) for row in (200, 7, 7)
    ]
    read = []
    monkeypatch.setattr(train_batches, "decode", lambda e, **options: read.append(e.file) or decode(e, **options))
    with open_train_stream(data, area=AREA, seed=0, batch_size=BATCH_SIZE) as stream:
        np.testing.assert_array_equal(stream.take(np.array([200, 7, 7])), expected)
    assert sorted(read) == sorted(files[row] for row in (200, 7, 7))


def test_train_stream_of_tfds_equals_folder(data, imagenet_like):
    images, labels = read_batches(data, 2)
    with open_train_stream(data, area=AREA, seed=0, batch_size=BATCH_SIZE) as stream:
        in_folder = stream.labels()
    data.source, data.name, data.path = "tfds", "like_train", str(imagenet_like.tfds_dir)
    prepared_images, prepared_labels = read_batches(data, 2)
    np.testing.assert_array_equal(prepared_images, images)
    np.testing.assert_array_equal(prepared_labels, labels)
    with open_train_stream(data, area=AREA, seed=0, batch_size=BATCH_SIZE) as stream:
        assert (stream.num_examples, stream.label_names) == (likeness.NUM["train"], likeness.LABEL_NAMES)
        np.testing.assert_array_equal(stream.labels(), in_folder)
        assert stream.labels().dtype == np.int32


def test_open_train_stream_reads_no_image(data, monkeypatch):
    data.mode = "RGB"
    monkeypatch.setattr(Image, "open", None)
    monkeypatch.setattr(Path, "read_bytes", None)
    with open_train_stream(data, area=AREA, seed=0, batch_size=BATCH_SIZE) as stream:
        assert stream.num_examples == likeness.NUM["train"]
        assert np.bincount(stream.labels()).tolist() == [60] * 4


def test_file_list_supports_any_name():
    names = ["a/1.png", "b/ü.png", os.fsdecode(b"b/\xff.png"), ""]
    files = FileList(Path("/root"), names)
    assert list(files) == [Path("/root") / name for name in names]
    with pytest.raises(IndexError):
        files[4]


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        ({"image_size": 0}, {}, r"config.data.image_size=0; a stream needs a number of pixels"),
        ({"validation_fraction": 0.1}, {}, r"validation_fraction=0.1 does not work with a stream; .*train\[:99%\]"),
        ({"source": "digits"}, {}, r"source 'digits' cannot be streamed; allowed: tfds, folder; .*streaming"),
        ({"source": "tdfs"}, {}, r"unknown data source 'tdfs'; .* Did you mean 'tfds'"),
        ({"train_split": "trian"}, {}, r"no split 'trian' in '.*'; it contains: corrupt, train, val;"),
        ({}, {"batch_size": 241}, r"config.training.batch_size=241; allowed: up to 240, .* divisible by 1,"),
        ({}, {"shard": (0, 3)}, r"batch_size=64; allowed: .* divisible by 3, the number of processes"),
    ],
)
def test_open_train_stream_rejects_invalid_arguments(data, changed, options, message):
    data.update(changed)
    with pytest.raises(UserError, match=message):
        open_train_stream(data, **{"area": AREA, "seed": 0, "batch_size": BATCH_SIZE, **options})


def test_train_stream_rejects_labels_out_of_range(data, monkeypatch):
    encoded = open_encoded("folder", "train", path=data.path, image_size=SIZE)
    monkeypatch.setattr(
        train_stream,
        "open_encoded",
        lambda *a, **k: encoded._replace(example=lambda row: encoded.example(row)._replace(label=4)),
    )
    with (
        open_train_stream(data, area=AREA, seed=0, batch_size=BATCH_SIZE) as stream,
        pytest.raises(UserError, match=r"labels of .*-train must be in 0..3; got values from 4 to 4"),
    ):
        next(stream.batches())


def test_train_stream_maps_labels_to_the_run(data):
    run = (*reversed(likeness.LABEL_NAMES), "other")
    options = {"area": AREA, "seed": 0, "batch_size": BATCH_SIZE}
    with open_train_stream(data, **options) as stream:
        labels, identity = stream.labels(), stream.identity()
    with pytest.warns(UserWarning, match="^the training set has no example of 1 of the 5 classes: other$"):
        again = open_train_stream(data, **options, label_names=run)
    with again:
        assert [run[label] for label in again.labels()] == [likeness.LABEL_NAMES[label] for label in labels]
        assert (again.label_names, again.identity()) == (run, identity)


# corrupt images


@pytest.mark.parametrize("source", ["folder", "tfds"])
def test_train_stream_replaces_corrupt_images(data, imagenet_like, source):
    files = imagenet_like.files("corrupt")
    data.train_split, data.max_corrupt_fraction = "corrupt", 0.1
    names = tuple(str(files[row]) for row in likeness.CORRUPT)
    if source == "tfds":
        data.update(source="tfds", name="like_corrupt", path=str(imagenet_like.tfds_dir), train_split="train")
        names = tuple(f"example {row} of like_corrupt/1.0.0-train" for row in likeness.CORRUPT)
    with open_train_stream(data, area=AREA, seed=0, batch_size=40) as stream:
        batches = stream.batches()
        with pytest.warns(UserWarning, match="a corrupt image is replaced by another one: .*") as warnings:
            images, labels = next(batches)
        assert len(warnings) == 4
        assert set(stream.corrupt) == set(names)
        position = {row: position for position, row in enumerate(EpochOrder(0, 40, 40, 1).rows(0).tolist())}
        for row, replacement in ((5, 7), (6, 7), (23, 24), (39, 0)):
            expected = random_resized_crop(file_example(files[replacement]), SIZE, AREA, [0, 1, position[row]])
            np.testing.assert_array_equal(images[position[row]], expected)
            assert likeness.LABEL_NAMES[labels[position[row]]] == files[replacement].parent.name
        next(batches)  # the same images: no further warning
        np.testing.assert_array_equal(stream.take(np.array([5])), stream.take(np.array([7])))
        assert len(stream.corrupt) == 4


def test_train_stream_raises_for_too_many_corrupt_images(data):
    data.train_split, data.max_corrupt_fraction = "corrupt", 0.09
    message = r"^4 of the 40 images of folder-corrupt cannot be read: .*; config.data.max_corrupt_fraction=0.09 allows"
    with open_train_stream(data, area=AREA, seed=0, batch_size=10) as stream:
        with pytest.warns(UserWarning, match="is replaced"), pytest.raises(UserError, match=message):
            list(itertools.islice(stream.batches(), 4))
        assert len(stream.corrupt) == 4


def test_train_stream_stops_searching_an_unreadable_set(data, monkeypatch, tmp_path):
    for row in range(30):
        file = tmp_path / "train" / "ab"[row % 2] / f"{row}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("no image")
    data.path, data.max_corrupt_fraction = str(tmp_path), 0.1
    with (
        open_train_stream(data, area=AREA, seed=0, batch_size=10) as stream,
        pytest.raises(UserError, match=r"4 of the 30 images of .* cannot be read: .*/a/\d+.jpg, .* allows 3;"),
    ):
        next(stream.batches())
