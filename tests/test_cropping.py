"""Random crops on the host next to those of torchvision, and central crops."""

import math

import imagenet_like as likeness
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from scipy import stats
from sklearn.datasets import load_sample_images
from train_streams import AREA, SIZE, file_example, folder_config

from anchor_jax import UserError
from anchor_jax.data import (
    Preprocessing,
    cropping,
    load,
    load_test,
    open_corrupted,
    open_dataset,
    open_test,
    open_train_stream,
)
from anchor_jax.data.cropping import random_box, random_resized_crop, reduction
from anchor_jax.data.decoding import Example, convert, decode
from anchor_jax.data.train_batches import EpochOrder


@pytest.fixture
def data(imagenet_like):
    return folder_config(imagenet_like)


def gray_levels(given: np.ndarray, expected: Image.Image) -> np.ndarray:
    return np.abs(given.astype(int) - np.asarray(expected))


@pytest.mark.parametrize("area", [AREA, (0.5, 0.9)])
@pytest.mark.parametrize(("width", "height"), [(500, 375), (40, 110), (300, 31)])
def test_random_box_is_distributed_as_in_torchvision(width, height, area):
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
def test_random_box_fallback_equals_torchvision(width, height):
    transforms = pytest.importorskip("torchvision.transforms")
    image = Image.new("L", (width, height))
    top, left, h, w = transforms.RandomResizedCrop.get_params(image, [2.0, 2.0], [3 / 4, 4 / 3])
    assert random_box(np.random.default_rng(0), width, height, (2.0, 2.0)) == (left, top, left + w, top + h)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32))
def test_random_box_is_inside_the_image(width, height, seed):
    left, top, right, bottom = random_box(np.random.default_rng(seed), width, height, AREA)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


@pytest.mark.parametrize("is_fast", [True, False])
@pytest.mark.parametrize("interpolation", ["auto", "bilinear", "bicubic"])
def test_random_resized_crop_equals_torchvision(imagenet_like, monkeypatch, is_fast, interpolation):
    if not is_fast:  # not installed
        monkeypatch.setattr(cropping, "fast", None)
    functional = pytest.importorskip("torchvision.transforms.functional")
    mode = functional.InterpolationMode.BICUBIC if interpolation == "bicubic" else functional.InterpolationMode.BILINEAR
    for row, file in enumerate(imagenet_like.files("train")[:40]):
        image = ImageOps.exif_transpose(Image.open(file))
        original = image.convert("RGBA").convert("RGB") if image.mode == "P" else image.convert("RGB")
        left, top, right, bottom = random_box(np.random.default_rng([7, row]), *image.size, AREA)
        size = [SIZE, SIZE]
        crop = functional.resized_crop(original, top, left, bottom - top, right - left, size, mode, antialias=True)
        ours = random_resized_crop(file_example(file), SIZE, AREA, [7, row], interpolation=interpolation)
        difference = gray_levels(ours, crop)
        reduced = reduction((left, top, right, bottom), SIZE) > 1
        # where the bicubic filter leaves [0, 255], it matters that fast_image_resize filters the height first
        near = 8 if interpolation == "bicubic" and is_fast else 1
        assert difference.max() <= (20 if reduced else near), file
        assert difference.mean() < (1 if reduced else 0.5), file


@pytest.mark.parametrize("is_fast", [True, False])
def test_random_resized_crop_in_grayscale_equals_pillow(imagenet_like, monkeypatch, is_fast):
    if not is_fast:  # not installed
        monkeypatch.setattr(cropping, "fast", None)
    for row, file in enumerate(imagenet_like.files("train")[:40]):
        image = ImageOps.exif_transpose(Image.open(file))
        gray = (image.convert("RGBA") if image.mode == "P" else image).convert("L")
        box = random_box(np.random.default_rng([7, row]), *image.size, AREA)
        expected = gray.crop(box).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        crop = random_resized_crop(file_example(file), SIZE, AREA, [7, row], "L")
        assert crop.shape == (SIZE, SIZE, 1)
        is_reduced = reduction(box, SIZE) > 1
        assert gray_levels(crop[..., 0], expected).max() <= (20 if is_reduced else 1), file


def test_random_resized_crop_of_bytes_equals_file(imagenet_like):
    for row, file in enumerate(imagenet_like.files("train")[:12]):
        of_bytes = Example(file.read_bytes(), 0, "bytes")
        crops = [random_resized_crop(example, SIZE, AREA, [row]) for example in (of_bytes, file_example(file))]
        np.testing.assert_array_equal(*crops)


@pytest.mark.parametrize("photograph", [0, 1])
@pytest.mark.parametrize(("image_size", "scale"), [(104, 1), (80, 2), (50, 4), (25, 8)])
def test_random_resized_crop_at_reduced_scale_is_near_pillow(tmp_path, photograph, image_size, scale):
    original = Image.fromarray(load_sample_images().images[photograph])
    original.save(tmp_path / "photograph.jpg", quality=90)
    box = (3, 6, 604, 407)
    assert reduction(box, image_size) == scale
    original = Image.open(tmp_path / "photograph.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cropping, "random_box", lambda *_: box)
        crop = random_resized_crop(file_example(tmp_path / "photograph.jpg"), image_size, AREA, [0])
    expected = original.crop(box).resize((image_size, image_size), Image.Resampling.BILINEAR)
    difference = gray_levels(crop, expected)
    assert difference.mean() < (1 if scale > 1 else 0.25)
    assert difference.max() <= (19 if scale > 1 else 1)


def test_random_resized_crop_decodes_at_reduced_scale(tmp_path, monkeypatch):
    sizes = []
    decode = cropping.simplejpeg.decode_jpeg
    monkeypatch.setattr(
        cropping.simplejpeg, "decode_jpeg", lambda *a, **k: sizes.append((out := decode(*a, **k)).shape) or out
    )
    monkeypatch.setattr(cropping, "random_box", lambda rng, width, height, area: (0, 0, width, height))
    Image.new("RGB", (401, 333)).save(tmp_path / "a.jpg")
    for image_size in (84, 83, 41, 20):
        random_resized_crop(file_example(tmp_path / "a.jpg"), image_size, AREA, [0])
    assert [shape[:2] for shape in sizes] == [(math.ceil(333 / s), math.ceil(401 / s)) for s in (1, 2, 4, 8)]


def test_random_resized_crop_rejects_decompression_bomb(imagenet_like, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UserError, match=r"cannot read image .* \(DecompressionBombError"):
        random_resized_crop(file_example(imagenet_like.files("train")[12]), SIZE, AREA, [0])


def test_random_resized_crop_names_unreadable_images(imagenet_like):
    for row, reason in ((5, "truncated"), (6, "Unidentified"), (23, "Unidentified"), (39, "mode F; convert it")):
        file = imagenet_like.files("corrupt")[row]
        with pytest.raises(UserError, match=rf"image {file} .*{reason}"):
            random_resized_crop(file_example(file), SIZE, AREA, [0])
    with pytest.raises(UserError, match=r"cannot read image .*none.jpg \(FileNotFoundError"):
        random_resized_crop(file_example(imagenet_like.folder / "none.jpg"), SIZE, AREA, [0])


# central crops


@pytest.mark.parametrize(("fraction", "resized"), [(0.875, 32), (0.5, 56), (0.9, 31), (1.0, 28)])
def test_decode_resizes_shorter_side_and_crops_center(imagenet_like, fraction, resized):
    transforms = pytest.importorskip("torchvision.transforms")
    bicubic = transforms.InterpolationMode.BICUBIC
    theirs = transforms.Compose([transforms.Resize(resized, bicubic, antialias=True), transforms.CenterCrop(28)])
    square = Image.open(imagenet_like.files("train")[12]).convert("RGB").resize((90, 90))
    for image, tolerance in ((square, 1.5), (square.resize((112, 56)), 1.5), (square.resize((61, 97)), 8)):
        image.save(imagenet_like.folder / "central.png")
        ours = decode(
            file_example(imagenet_like.folder / "central.png"), mode="RGB", image_size=28, crop_fraction=fraction
        )
        if (resized - 28) % 2 == 0 or tolerance > 2:  # otherwise theirs is half a pixel off the center
            assert gray_levels(ours, theirs(image)).mean() < tolerance


def test_load_and_stream_use_the_same_central_crop(data, monkeypatch, tmp_path):
    monkeypatch.setenv("ANCHOR_JAX_CACHE", str(tmp_path))
    data.test_split, data.crop_fraction = "val", 0.875
    names, shape = likeness.LABEL_NAMES, (SIZE, SIZE, 3)
    cropped = load_test(data, names, shape)
    np.testing.assert_array_equal(open_test(data, names, shape).first(60)[0], cropped.images)
    np.testing.assert_array_equal(load_test(data, names, shape).images, cropped.images)
    data.crop_fraction = 1.0
    original = load_test(data, names, shape)
    assert (original.images != cropped.images).any()
    np.testing.assert_array_equal(load("folder", "val", path=data.path, image_size=SIZE).images, original.images)


@pytest.mark.parametrize(
    ("interpolation", "method", "orientation", "turned"),
    [
        ("auto", Image.Resampling.BICUBIC, "auto", ImageOps.exif_transpose),
        ("bicubic", Image.Resampling.BICUBIC, "stored", Image.Image.copy),
        ("bilinear", Image.Resampling.BILINEAR, "exif", ImageOps.exif_transpose),
    ],
)
def test_every_decoder_reads_images_alike(
    imagenet_like, data, tmp_path, monkeypatch, interpolation, method, orientation, turned
):
    monkeypatch.setenv("ANCHOR_JAX_CACHE", str(imagenet_like.folder.parent / "cache"))  # shared by the cases
    data.test_split, data.interpolation, data.orientation = "val", interpolation, orientation
    names, shape, folder = likeness.LABEL_NAMES, (SIZE, SIZE, 3), imagenet_like.folder
    expected = [
        ImageOps.fit(convert(turned(Image.open(file)), "RGB", ""), (SIZE, SIZE), method)
        for file in imagenet_like.files("val")
    ]
    for severity in range(1, 6):
        (tmp_path / "fog").mkdir(exist_ok=True)
        (tmp_path / "fog" / str(severity)).symlink_to(folder / "val")
    how = {"interpolation": interpolation, "orientation": orientation}
    of_run = {"image_shape": shape, **how}
    opened = [
        load_test(data, names, shape).images,
        *(
            stream.first(60)[0]
            for stream in (
                open_test(data, names, shape),
                open_dataset(f"folder:{folder}@val", **of_run),
                open_dataset(f"images:{folder / 'val'}", **of_run),
                open_corrupted(f"folder:{tmp_path}", label_names=names, **of_run).stream("fog", 3),
            )
        ),
    ]
    for images in opened:
        np.testing.assert_array_equal(images, np.stack(expected))
    train = [decode(file_example(f), mode="RGB", image_size=SIZE, **how) for f in imagenet_like.files("train")[:20]]
    in_tfds = open_dataset("tfds:like_train@train", tfds_dir=imagenet_like.tfds_dir, **of_run)
    np.testing.assert_array_equal(in_tfds.first(20)[0], train)
    with open_train_stream(data, area=AREA, seed=5, batch_size=64) as stream:
        np.testing.assert_array_equal(stream.take(np.arange(20)), train)
        batch, rows = next(stream.batches()), EpochOrder(5, likeness.NUM["train"], 64, 1).rows(0)[:8]
    for i, row in enumerate(rows):
        example = file_example(imagenet_like.files("train")[row])
        crop = random_resized_crop(example, SIZE, AREA, [5, 1, i], **how)
        np.testing.assert_array_equal(batch.images[i], crop)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"interpolation": "nearest"}, "interpolation must be 'auto' or 'bilinear' or 'bicubic'; got 'nearest'"),
        ({"orientation": 6}, "orientation must be 'auto' or 'exif' or 'stored'; got 6"),
    ],
)
def test_unknown_ways_of_reading_are_rejected(data, option, message):
    for function in (
        lambda: load("folder", "val", path=data.path, **option),
        lambda: open_dataset(f"images:{data.path}", image_shape=(8, 8, 3), **option),
        lambda: open_corrupted("npy:x", image_shape=(8, 8, 3), label_names=("a", "b"), **option),
        lambda: Preprocessing(8, 8, 3, **option),
    ):
        with pytest.raises(UserError, match=message):
            function()


@pytest.mark.parametrize("options", [{"crop_fraction": 0.5}, {"crop_fraction": 1.5, "image_size": 8}])
def test_load_rejects_invalid_crop_fraction(data, options):
    with pytest.raises(UserError, match=r"data.crop_fraction=\S+; allowed: 1, or in \(0, 1\) together with data"):
        load("folder", "val", path=data.path, **options)
    with pytest.raises(UserError, match=r"data.crop_fraction=0.5; allowed: 1, or .* for the sources tfds, folder$"):
        load("digits", "test", crop_fraction=0.5, image_size=8)
