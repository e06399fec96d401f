"""Sources "digits" and "folder": known facts, small generated folders and corrupt images."""

import numpy as np
import pytest
from image_files import assert_same_dataset, write_image, write_small_folder
from PIL import Image
from sklearn.datasets import load_digits

from anchor_jax.core.errors import UserError
from anchor_jax.data import decoding, load

pytestmark = pytest.mark.min_versions


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keep the tests out of the user's cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ANCHOR_JAX_CACHE", str(folder))
    return folder


# load and digits


def test_load_unknown_source_suggests_nearest():
    with pytest.raises(UserError, match=r"unknown data source 'tdfs'; allowed: digits, .* Did you mean 'tfds'"):
        load("tdfs", "train")


def test_load_rejects_negative_image_size():
    with pytest.raises(UserError, match=r"data.image_size=-1; allowed: 0 \(the stored size\) or"):
        load("digits", "train", image_size=-1)


def test_digits_match_uci_statistics():
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
    assert_same_dataset(test, load("digits", "test"))


def test_digits_rejects_unknown_split():
    with pytest.raises(UserError, match=r"unknown split of digits 'tset'; allowed: test, train. Did you mean 'test'"):
        load("digits", "tset")


def test_digits_rejects_resizing():
    with pytest.raises(UserError, match=r"data.image_size=32, but images of source 'digits' are 8x8.*image_size=0"):
        load("digits", "train", image_size=32)
    assert load("digits", "test", image_size=8).images.shape == (360, 8, 8, 1)


# folder


@pytest.fixture
def folder(tmp_path):
    return write_small_folder(tmp_path / "images")


def test_folder_order_pixels_and_labels(folder):
    (folder / "train" / "cat" / "notes.txt").write_text("not an image")
    (folder / "train" / "cat" / ".hidden.png").write_text("not an image either")
    (folder / "train" / ".checkpoints").mkdir()
    (folder / "train" / "cat" / "deeper").mkdir()
    write_image(folder / "train" / "cat" / "deeper" / "c.png")
    dataset = load("folder", "train", path=str(folder))
    assert dataset.label_names == ("ant", "cat", "dog")
    assert dataset.labels.tolist() == [0, 1, 1, 2]
    files = ["ant/z.bmp", "cat/a.PNG", "cat/b.png", "dog/y.webp"]
    for image, file in zip(dataset.images, files, strict=True):
        np.testing.assert_array_equal(image, np.asarray(Image.open(folder / "train" / file)))


def test_folder_keeps_order_across_tasks(tmp_path):
    num = 2 * decoding._ROWS_PER_TASK + 3  # more than one task for the threads
    for i in range(num):
        write_image(tmp_path / "d" / "train" / "ab"[i % 2] / f"{i:04d}.png", size=(2, 2), value=i)
    dataset = load("folder", "train", path=str(tmp_path / "d"))
    assert dataset.images[:, 0, 0, 0].tolist() == [*range(0, num, 2), *range(1, num, 2)]


def test_folder_is_grayscale_only_if_every_image_is(tmp_path):
    root = tmp_path / "gray"
    pixels = write_image(root / "train" / "a" / "1.png", mode="L")
    write_image(root / "train" / "b" / "1.jpg", mode="L", quality=95)
    gray = load("folder", "train", path=str(root))
    assert gray.images.shape == (2, 6, 6, 1)
    np.testing.assert_array_equal(gray.images[0, ..., 0], pixels)
    write_image(root / "train" / "b" / "2.png", mode="RGB")
    rgb = load("folder", "train", path=str(root))
    assert rgb.images.shape == (3, 6, 6, 3)
    np.testing.assert_array_equal(rgb.images[0], np.repeat(pixels[..., None], 3, axis=-1))


def test_folder_reads_palette_with_transparency(tmp_path):
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    for label in "ab":
        (tmp_path / "d" / "train" / label).mkdir(parents=True)
        palette.save(tmp_path / "d" / "train" / label / "p.png", transparency=bytes([0, 128]))
    images = load("folder", "train", path=str(tmp_path / "d")).images
    assert (images == [10, 20, 30]).all()


def test_folder_rejects_16_bit_images(folder):
    Image.fromarray(np.full((6, 6), 1000, np.uint16)).save(folder / "train" / "cat" / "deep.png")
    with pytest.raises(UserError, match=r"image .*cat/deep.png has pixels of mode I;16; convert it to 8 bits"):
        load("folder", "train", path=str(folder))


def test_folder_follows_links_to_files(folder):
    (folder / "train" / "dog" / "x.png").symlink_to(folder / "train" / "cat" / "b.png")
    dataset = load("folder", "train", path=str(folder))
    assert dataset.labels.tolist() == [0, 1, 1, 2, 2]
    np.testing.assert_array_equal(dataset.images[3], dataset.images[2])


def test_folder_rejects_mixed_sizes_unless_resized(folder):
    write_image(folder / "train" / "cat" / "c.png", size=(9, 7))
    with pytest.raises(UserError, match=r"ant/z.bmp is 6x6, .*cat/c.png is 7x9; set data.image_size to resize them"):
        load("folder", "train", path=str(folder))
    assert load("folder", "train", path=str(folder), image_size=6).images.shape == (5, 6, 6, 3)


def test_folder_resizes_shorter_side_and_crops_center(tmp_path):
    wide = np.random.default_rng(0).integers(0, 256, (40, 120, 3), dtype=np.uint8)
    for label, image in (("tall", wide.transpose(1, 0, 2)), ("wide", wide)):
        (tmp_path / "d" / "train" / label).mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / "d" / "train" / label / "1.png")
    images = load("folder", "train", path=str(tmp_path / "d"), image_size=10).images
    shorter_side_10 = np.asarray(Image.fromarray(wide).resize((30, 10), Image.Resampling.BICUBIC))
    for image in (images[0].transpose(1, 0, 2), images[1]):
        assert np.abs(image.astype(int) - shorter_side_10[:, 10:20]).max() <= 1  # rounding between the passes


def test_folder_resizing_antialiases_or_keeps_pixels(tmp_path):
    checkers = np.indices((64, 64)).sum(axis=0).astype(np.uint8) % 2 * 254
    for label in "ab":
        (tmp_path / "d" / "train" / label).mkdir(parents=True)
        Image.fromarray(checkers).save(tmp_path / "d" / "train" / label / "1.png")
    small = load("folder", "train", path=str(tmp_path / "d"), image_size=8).images
    assert np.abs(small.astype(int) - 127).max() <= 3
    same = load("folder", "train", path=str(tmp_path / "d"), image_size=64).images
    np.testing.assert_array_equal(same[0, ..., 0], checkers)


@pytest.mark.parametrize("how", ["truncated", "empty", "text", "directory", "dangling link"])
def test_folder_names_unreadable_image(folder, how):
    bad = folder / "train" / "cat" / "bad.png"
    if how == "truncated":
        write_image(bad, size=(60, 60))
        bad.write_bytes(bad.read_bytes()[:-400])
    elif how == "empty":
        bad.touch()
    elif how == "text":
        bad.write_text("hello")
    elif how == "directory":
        bad.mkdir()
    else:
        bad.symlink_to("nowhere.png")
    with pytest.raises(UserError, match=r"cannot read .*cat/bad.png.*; replace or remove it$") as error:
        load("folder", "train", path=str(folder), image_size=6)
    assert "\n" not in str(error.value)


def test_folder_rejects_decompression_bomb(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UserError, match=r"cannot read image .*ant/z.bmp \(DecompressionBombError"):
        load("folder", "train", path=str(folder))


def test_folder_requires_an_existing_path(tmp_path):
    with pytest.raises(UserError, match=r"data.path is empty; source 'folder' needs .*expected layout: <data.path>/"):
        load("folder", "train")
    with pytest.raises(UserError, match=r"cannot read folder '.*/none' \(FileNotFoundError.*expected layout"):
        load("folder", "train", path=str(tmp_path / "none"))


@pytest.mark.parametrize("split", ["val", "", "..", "train/cat"])
def test_folder_rejects_missing_split(folder, split):
    with pytest.raises(UserError, match=rf"no split '{split}' in '.*images'; it contains: train; expected layout"):
        load("folder", split, path=str(folder))


def test_folder_rejects_missing_classes_or_images(folder):
    (folder / "val").mkdir()
    with pytest.raises(UserError, match=r"no class folders in '.*images/val'; expected layout"):
        load("folder", "val", path=str(folder))
    (folder / "train" / "eel").mkdir()
    (folder / "train" / "eel" / "readme.txt").touch()
    with pytest.raises(UserError, match=r"no images in class folder '.*train/eel'; expected layout"):
        load("folder", "train", path=str(folder))


def test_folder_rejects_a_single_class(tmp_path):
    write_image(tmp_path / "d" / "train" / "only" / "1.png")
    with pytest.raises(UserError, match="d-train must have at least 2 classes; got 1"):
        load("folder", "train", path=str(tmp_path / "d"))
