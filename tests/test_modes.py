"""Images in grayscale or in color: all splits and sources are read in the mode of the training set."""

import json

import numpy as np
import pytest
from conftest import begun
from image_files import write_image
from PIL import Image
from small_datasets import LABEL_NAMES, prepare_tfds, read_all

from anchor_jax import UserError, load_predictor
from anchor_jax.data import load, load_test, load_train, open_dataset, open_stream, open_test, open_train_stream
from anchor_jax.data.decoding import Example, common_mode
from anchor_jax.data.modes import convert_images
from anchor_jax.evaluation import Options, evaluate
from anchor_jax.runs import record as run_record
from anchor_jax.training.loop import prepare, train

SIZE = 6


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ANCHOR_JAX_CACHE", str(tmp_path / "cache"))


def write_split(root, split, mode):
    for row in range(18):
        write_image(root / split / LABEL_NAMES[row % 3] / f"{row}.png", mode=mode, seed=row)


@pytest.fixture
def folders(tiny, tmp_path):
    """Configure `tiny` for a folder; return a function that writes its splits and images in other modes."""
    root = tmp_path / "images"
    tiny.data.update(source="folder", path=str(root), image_size=SIZE)

    def write(train, test, changed=()):
        write_split(root, "train", train)
        write_split(root, "test", test)
        for file, mode in changed:
            pixels = Image.open(root / file).convert("RGB")
            pixels.convert(mode).save(root / file)
        return root

    return write


def stream_of(data):
    return open_train_stream(data, area=(0.5, 1.0), seed=0, batch_size=6)


# modes of training set and test set, images in other modes, and what all are read as
MIXED = {
    "none": ("L", "L", (), "L"),
    "color last in train": ("L", "L", [("train/cat/17.png", "RGB")], "RGB"),
    "color first in train": ("L", "L", [("train/ant/0.png", "RGB")], "RGB"),
    "palette in train": ("L", "L", [("train/bee/1.png", "P")], "RGB"),
    "transparency in train": ("RGB", "RGB", [("train/bee/1.png", "RGBA")], "RGB"),
    "color in test": ("L", "L", [("test/bee/1.png", "RGB")], "L"),
    "palette in test": ("L", "L", [("test/bee/1.png", "P")], "L"),
    "transparency in test": ("L", "L", [("test/bee/1.png", "RGBA")], "L"),
    "gray test": ("RGB", "L", (), "RGB"),
    "color test": ("L", "RGB", (), "L"),
}


@pytest.mark.parametrize("case", MIXED)
def test_test_set_is_read_in_the_mode_of_training(tiny, folders, case):
    train_mode, test_mode, changed, expected = MIXED[case]
    root = folders(train_mode, test_mode, changed)
    train, _ = load_train(tiny.data, seed=0)
    shape = (SIZE, SIZE, len(expected))
    assert train.images.shape[1:] == shape
    test = load_test(tiny.data, train.label_names, shape)
    files = sorted(root.glob("test/*/*"), key=lambda file: (file.parent.name, file.name))
    for image, file in zip(test.images, files, strict=True):
        pixels = Image.open(file)
        pixels = (pixels.convert("RGBA") if "transparency" in pixels.info else pixels).convert(expected)
        np.testing.assert_array_equal(image, np.asarray(pixels).reshape(shape))
    np.testing.assert_array_equal(read_all(open_test(tiny.data, train.label_names, shape), 4).images, test.images)
    with stream_of(tiny.data) as stream:
        assert stream.image_shape == shape
        np.testing.assert_array_equal(stream.take(np.arange(18)), train.images)
        assert next(stream.batches()).images.shape == (6, *shape)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_config_mode_reads_every_source(tiny, folders, tmp_path, mode):
    folders("RGB", "L")
    shape = (SIZE, SIZE, len(mode))
    tiny.data.mode = mode
    train, _ = load_train(tiny.data, seed=0)
    assert train.images.shape[1:] == shape
    assert load_test(tiny.data, train.label_names, shape).images.shape[1:] == shape
    np.savez(tmp_path / "a.npz", x_train=train.images[..., :1], y_train=train.labels)
    prepare_tfds(tmp_path / "tfds", "tiny", [0, 1, 2])
    options = {"digits": {}, "npz": {"path": tmp_path / "a.npz"}, "tfds": {"name": "tiny", "path": tmp_path / "tfds"}}
    for source, located in options.items():
        read = load(source, "train", mode=mode, **located)
        assert read.images.shape[-1] == len(mode), source
        np.testing.assert_array_equal(
            read_all(open_stream(source, "train", mode=mode, **located), 9).images, read.images
        )


def test_mode_of_arrays_is_converted_as_by_pillow():
    colors = np.random.default_rng(0).integers(0, 256, (1_030, 2, 3, 3), np.uint8)
    gray = convert_images(colors, "L", "colors")
    for row in (0, 511, 512, 1_029):
        np.testing.assert_array_equal(gray[row, ..., 0], np.asarray(Image.fromarray(colors[row]).convert("L")))
    np.testing.assert_array_equal(convert_images(gray, "RGB", "gray"), gray.repeat(3, axis=-1))
    assert convert_images(colors, "auto", "colors") is colors
    with pytest.raises(UserError, match=r"mode='L' takes images with 1 or 3 channels; it has 2; set data.mode='auto'"):
        convert_images(colors[..., :2], "L", "it")


def test_unknown_mode_is_refused():
    with pytest.raises(UserError, match=r"mode must be 'auto' or 'L' or 'RGB'; got 'rgb'"):
        load("digits", "test", mode="rgb")
    assert load("digits", "test", mode="").images.shape[-1] == 1  # its name in version 0.1


def test_cache_keeps_modes_apart(folders):
    root = folders("L", "L")
    own = load("folder", "train", path=root)
    for mode in ("RGB", "L", "auto", "RGB"):
        read = load("folder", "train", path=root, mode=mode)
        np.testing.assert_array_equal(read.images, own.images.repeat(3 if mode == "RGB" else 1, axis=-1))


def test_common_mode_ignores_unreadable_images(folders):
    root = folders("L", "L")
    files = sorted(root.glob("train/*/*"))
    files[0].write_bytes(b"no image")

    def example(row):
        return Example(files[row], 0, str(files[row]))

    assert common_mode(example, len(files)) == "L"
    assert common_mode(example, 1) == "RGB"


# runs


def test_run_records_and_keeps_its_mode(tiny, folders, tmp_path):
    root = folders("L", "L")
    begun(tiny, tmp_path / "run")
    assert json.loads((tmp_path / "run/run.json").read_text())["config"]["data"]["mode"] == "L"
    assert prepare(tiny, tmp_path / "run").run.changes == ()
    tiny.data.mode = "RGB"
    with pytest.raises(UserError, match=r"another run: its config.data.mode is 'L'; got 'RGB'"):
        prepare(tiny, tmp_path / "run")
    run = run_record.load(tmp_path / "run")
    write_image(root / "test/ant/0.png", mode="RGB")
    assert load_test(run.config.data, run.label_names, run.image_shape).images.shape[-1] == 1


def test_old_run_keeps_what_it_had(tiny, folders, tmp_path):
    folders("L", "L")
    tiny.data.mode = "RGB"  # as every stream was read before the key existed
    begun(tiny, tmp_path / "run")
    record = json.loads((tmp_path / "run/run.json").read_text())
    for key in ("mode", "channels", "orientation"):
        del record["config"]["data"][key]
    (tmp_path / "run/run.json").write_text(json.dumps(record))
    tiny.data.mode = "auto"
    resumed = prepare(tiny, tmp_path / "run")
    assert (resumed.run.config.data.mode, resumed.run.config.data.orientation) == ("RGB", "stored")
    assert resumed.run.changes == ()
    assert resumed.source.image_shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize(
    ("image_shape", "mode", "channels"),
    [((6, 6, 1), "L", 0), ((6, 6, 3), "RGB", 0), ((6, 6, 4), "auto", 0), ((3, 6, 6), "auto", 6)],
)
def test_old_record_implies_how_images_are_read(tiny, image_shape, mode, channels):
    config = run_record.with_reading(tiny, image_shape)
    assert (config.data.mode, config.data.channels) == (mode, channels)
    assert (tiny.data.mode, tiny.data.channels) == ("auto", 0)


def test_normalization_of_another_mode_is_refused(tiny, folders, tmp_path):
    folders("L", "L")
    tiny.data.mean, tiny.data.std = (0.5,) * 3, (0.2,) * 3
    with pytest.raises(UserError, match=r"each of the 1 channels.*in 3 channels, set --config.data.mode=RGB"):
        prepare(tiny, tmp_path / "run")
    tiny.data.mode = "RGB"
    assert prepare(tiny, tmp_path / "run").run.image_shape == (SIZE, SIZE, 3)


def test_run_on_many_channels_is_trained_and_evaluated(tiny, tmp_path):
    shape = (1, 8, 9)
    rng, labels = np.random.default_rng(0), np.arange(24) % 3
    images = rng.integers(0, 256, (24, *shape), np.uint8)
    np.savez(tmp_path / "many.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    tiny.data.path, tiny.training.batch_size, tiny.training.total_epochs = str(tmp_path / "many.npz"), 16, 1.0
    tiny.augmentation.mixup_alpha = tiny.augmentation.erasing_prob = 0.5
    with pytest.raises(UserError, match=r"pass images.transpose.*; .* set config.data.channels=9"):
        prepare(tiny, tmp_path / "run")
    tiny.data.channels = 9
    train(tiny, tmp_path / "run")
    options = Options(ood=(f"npz:{tmp_path}/many.npz@train",))
    assert evaluate(tmp_path / "run", ("clean", "ood"), (2,), options=options).keys() == {"clean", "ood"}
    assert load_predictor(tmp_path / "run")(images, 2).probs.shape == (24, 3)


@pytest.mark.parametrize("kind", ["images", "folder"])
def test_evaluation_sets_are_read_in_the_mode_of_the_run(folders, kind):
    root = folders("RGB", "L")
    for channels in (1, 3):
        opened = open_dataset(f"{kind}:{root}/train", image_shape=(SIZE, SIZE, channels))
        assert read_all(opened, 5).images.shape == (18, SIZE, SIZE, channels)
