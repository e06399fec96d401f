"""Pictures of any kind become the images of a run: in `Preprocessing`, predictors, exports and data loaders alike."""

import dataclasses
import io

import numpy as np
import pytest
from conftest import begun
from image_files import forbid_decoding
from pictures import DEEP, GRAY, ORIENTATION, PHOTOGRAPH, RGBA, encoded, opened, write_pictures
from PIL import Image, ImageOps

import anchor_jax as aj
from anchor_jax.core.errors import UserTypeError
from anchor_jax.data import Preprocessing, cropping, load, open_dataset, preprocessing
from anchor_jax.data.cropping import random_resized_crop
from anchor_jax.data.decoding import Example, decode
from anchor_jax.runs.load import run_preprocessing
from anchor_jax.runs.record import load as load_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def files(folder):
    return sorted(folder.iterdir())


# steps


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("size", "options"),
    [((32, 32), {}), ((28, 28), {"crop_fraction": 0.875, "interpolation": "bilinear"}), ((6, 9), {})],
)
def test_pictures_become_the_pixels_of_the_loader(folder, files, channels, size, options):
    shape = (*size, channels)
    expected = open_dataset(f"images:{folder}", image_shape=shape, **options).first(len(files))[0]
    preprocess = Preprocessing(*shape, **options)
    for pictures in (
        files,
        map(str, files),
        [file.read_bytes() for file in files],
        [io.BytesIO(file.read_bytes()) for file in files],
        opened(files),
    ):
        images = preprocess(pictures)
        assert images.dtype == np.uint8
        np.testing.assert_array_equal(images, expected)
    for single in (str(files[2]), files[2], bytearray(files[2].read_bytes()), io.BytesIO(files[2].read_bytes())):
        np.testing.assert_array_equal(preprocess(single), expected[2:3])


@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_are_read_as_the_files_of_their_pixels(channels):
    preprocess = Preprocessing(20, 30, channels)
    for image in (GRAY, PHOTOGRAPH, RGBA, RGBA.convert("LA"), DEEP):
        expected = preprocess(encoded(image))
        array = np.asarray(image)
        several = np.stack([array] * 2) if array.ndim == 3 else np.stack([array[..., None]] * 2)
        np.testing.assert_array_equal(preprocess(array), expected)
        np.testing.assert_array_equal(preprocess(several), [expected[0]] * 2)
        np.testing.assert_array_equal(preprocess([image, array]), [expected[0]] * 2)


def test_arrays_of_the_size_of_the_run_are_not_cropped():
    preprocess = Preprocessing(32, 32, 3, crop_fraction=0.5)
    batch = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    assert preprocess(batch) is batch
    np.testing.assert_array_equal(preprocess(list(batch)), batch)
    np.testing.assert_array_equal(preprocess(batch[0]), batch[:1])
    np.testing.assert_array_equal(preprocess(batch[0, :, :, 0])[0, ..., 2], batch[0, :, :, 0])
    assert (preprocess(Image.fromarray(batch[0])) != batch[0]).any()


def test_many_channels_take_arrays_and_files_of_as_many():
    array = np.random.default_rng(0).integers(0, 256, (12, 20, 5), np.uint8)
    resized = Preprocessing(6, 10, 5)(array)
    np.testing.assert_array_equal(resized[..., 3], Preprocessing(6, 10, 1)(array[..., 3])[..., 0])
    np.testing.assert_array_equal(Preprocessing(300, 500, 4)(encoded(RGBA))[0], np.asarray(RGBA))
    with pytest.raises(aj.UserError, match=r"pictures has the mode L, but images of the run have 5 channels; give arr"):
        Preprocessing(6, 10, 5)(encoded(GRAY))
    with pytest.raises(aj.UserError, match=r"pictures must be \[h, w, c\] with 5 channels; got \(12, 20\)"):
        Preprocessing(6, 10, 5)(array[..., 0])


@pytest.mark.parametrize("orientation", [*range(1, 9), 0, 9])
def test_pictures_are_turned_upright(orientation, monkeypatch):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(PHOTOGRAPH, exif=exif)))))
    height, width = upright.shape[:2]
    example = Example(encoded(PHOTOGRAPH, exif=exif), 0, "example")
    np.testing.assert_array_equal(decode(example, mode="RGB"), upright)
    np.testing.assert_array_equal(decode(example, mode="RGB", orientation="stored"), PHOTOGRAPH)
    np.testing.assert_array_equal(Preprocessing(height, width, 3)(example.file)[0], upright)
    for image, mode in ((PHOTOGRAPH, "RGB"), (PHOTOGRAPH, "L"), (GRAY, "L")):
        jpeg = Example(encoded(image, "jpeg", exif=exif), 0, "example")
        fast = random_resized_crop(jpeg, 90, (0.5, 1.0), [1], mode)
        with monkeypatch.context() as patch:
            patch.setattr(cropping, "_decode_jpeg", lambda *_: None)
            slow = random_resized_crop(jpeg, 90, (0.5, 1.0), [1], mode)
        assert np.abs(fast.astype(int) - slow).max() <= 3


def test_corrupt_exif_data_are_no_orientation():
    picture = encoded(PHOTOGRAPH, "jpeg", exif=b"Exif\0\0rubbish")
    images = Preprocessing(300, 500, 3)(picture)
    np.testing.assert_array_equal(images[0], Image.open(io.BytesIO(encoded(PHOTOGRAPH, "jpeg"))))


# errors

INVALID = {
    "number": (3, r"pictures must be a path, the bytes of an image file, a PIL image or an array; got 3"),
    "none in a list": ([GRAY, None], r"pictures\[1\] must be a path, .*; got None"),
    "nested": ([[GRAY]], r"pictures must be a path, .*; got list"),
    "nothing": ([], "pictures must not be empty"),
    "no image": (
        [GRAY, b"x"],
        r"cannot read image pictures\[1\] \(UnidentifiedImageError: not a file of .* TIFF, WEBP",
    ),
    "truncated": ([GRAY, encoded(GRAY)[:-900]], r"cannot read image pictures\[1\] \(OSError"),
    "missing": ("none.jpg", r"cannot read image .*none.jpg \(FileNotFoundError"),
    "folder": ("/", r"pictures is the folder '/'; give its files"),
    "address": ("https://host/a.jpg", r"pictures is 'https://host/a.jpg', an address"),
    "floats": (np.zeros((3, 9, 9, 3)), r"pictures must have a uint8 dtype; got float64; pass images as stored"),
    "floats in a list": ([GRAY, np.zeros((9, 9))], r"pictures\[1\] must have a uint8 dtype; got float64"),
    "signed": (np.zeros((9, 9), np.int16), "pictures must have a uint8 dtype; got int16"),
    "32 bits": (
        [GRAY, Image.new("I", (9, 9))],
        r"image pictures\[1\] has pixels of mode I; convert it to 8 or 16 bits",
    ),
    "bytes as array": (np.frombuffer(encoded(GRAY), np.uint8), r"pictures must be \[h, w\] .*pass .tobytes\(\)"),
    "[B, C, h, w]": (np.zeros((2, 3, 9, 9), np.uint8), r"pictures must .* last; .* pictures.transpose\(0, 2, 3, 1\)"),
    "[C, h, w]": (np.zeros((3, 9, 9), np.uint8), r"pictures must .* last; .* pictures.transpose\(1, 2, 0\)"),
    "[C, h, w] in a list": (
        [GRAY, np.zeros((3, 9, 9), np.uint8)],
        r"pictures\[1\] must be \[h, w\], or \[h, w, c\] with",
    ),
    "[C, H, W]": (np.zeros((3, 8, 8), np.uint8), r"pictures must have shape .* pass images.transpose\(1, 2, 0\)\[None"),
    "no pixels": (np.zeros((0, 9, 3), np.uint8), "pictures must not be empty"),
    "premultiplied": ([GRAY, Image.new("La", (9, 9))], r"cannot read pictures\[1\] \(ValueError"),
}


@pytest.mark.parametrize("case", INVALID)
def test_invalid_pictures_are_named(case):
    pictures, message = INVALID[case]
    with pytest.raises(aj.UserError, match=rf"^{message}") as error:
        Preprocessing(8, 8, 3)(pictures)
    assert "\n" not in str(error.value)


def test_preprocessing_rejects_invalid_fields():
    with pytest.raises(UserTypeError, match="height must be an integer"):
        Preprocessing(8.5, 8, 3)
    with pytest.raises(aj.UserError, match=r"crop_fraction must be in \(0, 1\]; got 0"):
        Preprocessing(8, 8, 3, crop_fraction=0)


# runs and exports


def test_run_records_its_preprocessing(tiny, tmp_path):
    begun(tiny, tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert run_preprocessing(run) == Preprocessing(6, 6, 1, orientation="exif", resize=False)
    changed = run.config.copy_and_resolve_references()
    changed.data.update(image_size=6, crop_fraction=0.875, interpolation="bilinear", orientation="stored")
    assert run_preprocessing(dataclasses.replace(run, config=changed)) == Preprocessing(
        6, 6, 1, crop_fraction=0.875, interpolation="bilinear", orientation="stored"
    )


def test_old_runs_and_exports_ignore_the_orientation(old_run, folder, monkeypatch):
    lines = []
    monkeypatch.setattr(preprocessing, "log_once", lambda line, *args: lines.append(line % args))
    predictor = aj.load_predictor(old_run / "run")
    assert predictor.preprocess.orientation == "stored"
    images = predictor.preprocess(folder / "sideways.png")
    height, width, channels = predictor.image_shape
    np.testing.assert_array_equal(images, Preprocessing(height, width, channels)(PHOTOGRAPH))
    assert len(lines) == 2
    assert "sideways.png has an orientation in its EXIF data, which is ignored" in lines[0]
    assert f"sideways.png is 300x500: pictures are resized to {height}x{width}" in lines[1]


def test_cache_tells_orientations_apart(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ANCHOR_JAX_CACHE", str(tmp_path / "cache"))
    for label in "ab":
        (tmp_path / "data/train" / label).mkdir(parents=True)
        (tmp_path / "data/train" / label / "x.png").symlink_to(folder / "sideways.png")
    ways = {"auto": (500, 300), "stored": (300, 500), "exif": (500, 300)}
    for way, size in ways.items():
        assert load("folder", "train", path=str(tmp_path / "data"), orientation=way).images.shape == (2, *size, 3)
    forbid_decoding(monkeypatch)
    for way, size in ways.items():
        assert load("folder", "train", path=str(tmp_path / "data"), orientation=way).images.shape == (2, *size, 3)
