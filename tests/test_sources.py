"""Sources "digits" and "folder": known facts, small generated folders and corrupt images."""

import re

import numpy as np
import pytest
from image_files import assert_same_dataset, write_image, write_small_folder
from PIL import Image
from sklearn.datasets import load_digits

from anchor_jax.core.errors import SkippedFilesWarning, UserError
from anchor_jax.data import decoding, load, open_dataset
from anchor_jax.data.image_files import FORMATS, IMAGE_SUFFIXES
from anchor_jax.data.sources import open_encoded

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


def test_load_rejects_impossible_image_size():
    for size in (-1, (8, 8, 8), (0, 8)):
        with pytest.raises(UserError, match=re.escape(f"data.image_size={size}; allowed: 0 (the stored size), a")):
            load("digits", "train", image_size=size)


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
    (folder / "train" / ".checkpoints").mkdir()
    dataset = load("folder", "train", path=str(folder))
    assert dataset.label_names == ("ant", "cat", "dog")
    assert dataset.labels.tolist() == [0, 1, 1, 2]
    files = ["ant/z.bmp", "cat/a.PNG", "cat/b.png", "dog/y.webp"]
    for image, file in zip(dataset.images, files, strict=True):
        np.testing.assert_array_equal(image, np.asarray(Image.open(folder / "train" / file)))


def test_folder_reads_every_format_at_any_depth(tmp_path):
    suffixes = sorted(IMAGE_SUFFIXES)
    pictures = {f"{row % 3 * 'deeper/'}{row:02}{suffix.upper()}": suffix for row, suffix in enumerate(suffixes)}
    for name, suffix in pictures.items():
        format_of = next(format for format, of_format in FORMATS.items() if suffix in of_format)
        write_image(tmp_path / "train" / "a" / name, value=200, format=format_of)
        write_image(tmp_path / "train" / "b" / name, value=100, format=format_of)
    dataset = load("folder", "train", path=str(tmp_path))
    assert np.bincount(dataset.labels).tolist() == [len(suffixes)] * 2
    assert np.abs(dataset.images.mean(axis=(1, 2, 3)) - np.array([200, 100])[dataset.labels]).max() < 3
    in_order = sorted(pictures, key=lambda name: (name.count("/"), name))  # as in torchvision's ImageFolder
    assert [str(file) for file in open_encoded("folder", "train", path=tmp_path).files] == [
        str(tmp_path / "train" / label / name) for label in "ab" for name in in_order
    ]
    assert open_dataset(f"images:{tmp_path}/train", image_shape=(6, 6, 3)).num_examples == 2 * len(suffixes)


def test_folder_reads_the_first_of_several_frames(tmp_path):
    frames = [Image.new("RGB", (4, 4), (value, 0, 0)) for value in (250, 0)]
    for label in "ab":
        (tmp_path / "train" / label).mkdir(parents=True)
        for suffix in ("gif", "tiff", "apng", "webp"):
            frames[0].save(tmp_path / "train" / label / f"1.{suffix}", save_all=True, append_images=frames[1:])
    images = load("folder", "train", path=str(tmp_path)).images
    assert images.shape == (8, 4, 4, 3)
    assert images[..., 0].min() > 240


def test_folder_counts_what_it_skips(folder):
    for file in ("a.txt", "a.TXT", "cat/notes.txt", "cat/deeper/b.heic", "dog/.c.png", ".copies/d.png", "beside.png"):
        (folder / "train" / file).parent.mkdir(exist_ok=True)
        (folder / "train" / file).write_text("not an image")
    (folder / "train" / "cat" / "loop").symlink_to(folder)
    message = (
        r"^8 files are not read in '.*train' \(.txt: 3, hidden: 2, .heic: 1, images beside the class folders: 1, links "
        r"to a folder above: 1\), such as '.copies/d.png'; read are: .apng, .bmp, .dib, .gif, "
    )
    with pytest.warns(SkippedFilesWarning, match=message) as warned:
        assert load("folder", "train", path=str(folder)).labels.tolist() == [0, 1, 1, 2]
    assert len(warned) == 1


def test_folder_ignores_leftovers_of_macos(folder):
    for place in (folder, folder / "train", folder / "train" / "cat"):
        for name in (".DS_Store", "._a.png", "__MACOSX/._b.png", "__MACOSX/cat/c.png"):
            (place / name).parent.mkdir(exist_ok=True, parents=True)
            (place / name).write_bytes(b"Mac OS X")
    assert load("folder", "train", path=str(folder)).labels.tolist() == [0, 1, 1, 2]
    assert open_dataset(f"images:{folder}", image_shape=(6, 6, 3)).num_examples == 4


def test_folder_follows_links_to_folders_once(folder):
    elsewhere = write_small_folder(folder.parent / "elsewhere") / "train"
    (folder / "train" / "cat" / "more").symlink_to(elsewhere / "cat")
    (elsewhere / "cat" / "back").symlink_to(folder / "train" / "cat")  # a circle of two links
    with pytest.warns(SkippedFilesWarning, match=r"links to a folder above: 1\), such as 'cat/more/back"):
        assert load("folder", "train", path=str(folder)).labels.tolist() == [0, 1, 1, 1, 1, 2]


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


@pytest.mark.parametrize("suffix", ["png", "pgm", "tif"])
def test_folder_reads_the_upper_8_of_16_bits(tmp_path, suffix):
    deep = np.random.default_rng(0).integers(0, 2**16, (6, 6), np.uint16)
    for label in "ab":
        (tmp_path / "d" / "train" / label).mkdir(parents=True)
        Image.fromarray(deep).save(tmp_path / "d" / "train" / label / f"deep.{suffix}")
    images = load("folder", "train", path=str(tmp_path / "d")).images
    np.testing.assert_array_equal(images[1], deep[..., None] // 256)  # grayscale


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_folder_rejects_32_bit_images(folder, dtype):
    Image.fromarray(np.full((6, 6), 1000, dtype)).save(folder / "train" / "cat" / "deep.tif")
    with pytest.raises(UserError, match=r"image .*cat/deep.tif has pixels of mode [IF]; convert it to 8 or 16 bits"):
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
    with pytest.raises(UserError, match=r"no images in class folder '.*train/eel', but .txt: 1; expected layout"):
        load("folder", "train", path=str(folder))


def test_folder_rejects_a_single_class(tmp_path):
    write_image(tmp_path / "d" / "train" / "only" / "1.png")
    with pytest.raises(UserError, match="d-train must have at least 2 classes; got 1"):
        load("folder", "train", path=str(tmp_path / "d"))
