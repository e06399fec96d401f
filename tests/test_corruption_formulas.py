"""The 19 corruptions next to the generator of TensorFlow Datasets and the libraries that it calls.

`HOST` contains the published formulas with the constants as arguments. With our constants for 224 x 224 they equal the
generator of TensorFlow Datasets bit for bit, given the same random numbers. Our corruptions are then compared with
these formulas, also with the constants for 32 x 32.
"""

# ruff: noqa: NPY002  the published generators draw from NumPy's global random state

import io
import subprocess
import warnings
from functools import partial

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage
import tensorflow_datasets.image_classification.corruptions as tfds_corruptions
from PIL import Image
from scipy import ndimage

from anchor_jax.data import photographs
from anchor_jax.data.corruptions import (
    CORRUPTIONS,
    CORRUPTIONS_19,
    blur,
    corrupt,
    digital,
    jpeg,
    noise,
    weather,
)
from anchor_jax.data.corruptions import spatter as spatter_lib
from benchmarks.fidelity.imagemagick import CONVERT

OURS = {name: CORRUPTIONS[name] for name in CORRUPTIONS_19}
SEVERITIES = (1, 2, 3, 4, 5)
SMALL, LARGE = (32, 32), (72, 80)  # the constants of 224 x 224 are used from 65 pixels
KEY = jax.random.key(0)
needs_imagemagick = pytest.mark.skipif(CONVERT is None, reason="ImageMagick's convert is not installed")


def photograph_patches(num, shape):
    return photographs((*shape, 3), num).images


def constants_of(name, severity, shape):
    return (OURS[name].small if min(shape) <= 64 else OURS[name].large)[severity - 1]


def gaussian(image, sigma, **options):
    return skimage.filters.gaussian(image, sigma=sigma, channel_axis=-1, **options)


def motion(image, radius, sigma, angle):
    process = subprocess.run(
        [CONVERT, "png:-", "-motion-blur", f"{radius}x{sigma}+{angle}", "png:-"],
        input=cv2.imencode(".png", image)[1].tobytes(),
        stdout=subprocess.PIPE,
        check=True,
    )
    return cv2.imdecode(np.frombuffer(process.stdout, np.uint8), cv2.IMREAD_UNCHANGED)


def glass_blur(image, sigma, reach, rounds):
    image = np.uint8(gaussian(image / 255, sigma) * 255)
    for _ in range(rounds):
        for h in range(image.shape[0] - reach, reach, -1):
            for w in range(image.shape[1] - reach, reach, -1):
                dx, dy = np.random.randint(-reach, reach, size=(2,))
                image[h, w], image[h + dy, w + dx] = image[h + dy, w + dx], image[h, w]
    return gaussian(image / 255, sigma) * 255


def defocus_blur(image, radius, sigma):
    return cv2.filter2D(image / 255, -1, tfds_corruptions.disk(radius, sigma)) * 255


def zoom_blur(image, *factors):
    image = np.float32(image / 255)
    zoomed = [tfds_corruptions.clipped_zoom(image, factor) for factor in factors]
    return (image + sum(zoomed)) / (len(factors) + 1) * 255


def with_hsv(image, channel, change):
    hsv = skimage.color.rgb2hsv(image / 255)
    hsv[..., channel] = np.clip(change(hsv[..., channel]), 0, 1)
    return skimage.color.hsv2rgb(hsv) * 255


def snow(image, mean, std, zoom, threshold, radius, sigma, kept):
    flakes = np.random.normal(size=image.shape[:2], loc=mean, scale=std)
    flakes = tfds_corruptions.clipped_zoom(flakes[..., None], zoom)[..., 0]
    flakes = np.uint8(np.clip(np.where(flakes < threshold, 0, flakes), 0, 1) * 255)
    flakes = motion(flakes, radius, sigma, np.random.uniform(-135, -45))[..., None] / 255
    image = np.float32(image) / 255
    white = np.maximum(image, cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] * 1.5 + 0.5)
    return np.clip(kept * image + (1 - kept) * white + flakes + np.rot90(flakes, k=2), 0, 1) * 255


def fog(image, amount, decay, size=None):
    image = image / 255
    size = size or 2 ** int(np.ceil(np.log2(max(image.shape))))
    plasma = tfds_corruptions.plasma_fractal(size, decay)[: image.shape[0], : image.shape[1], None]
    return (image + amount * plasma) * image.max() / (image.max() + amount) * 255


def add_water(image, liquid, amount):
    liquid = np.uint8((liquid * 255).astype(int) % 256)
    distance = cv2.distanceTransform(255 - cv2.Canny(liquid, 50, 150), cv2.DIST_L2, 5)
    distance = cv2.equalizeHist(np.uint8(cv2.blur(np.minimum(distance, 20), (3, 3))))
    slope = cv2.filter2D(distance, cv2.CV_8U, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]))
    depth = liquid * np.float32(cv2.blur(slope, (3, 3)))
    return np.float32(image) + 255 * (depth / depth.max() * np.float32(amount))[..., None] * spatter_lib.WATER_COLOR


def spatter(image, mean, std, sigma, threshold, last, is_mud):
    liquid = skimage.filters.gaussian(np.random.normal(size=image.shape[:2], loc=mean, scale=std), sigma=sigma)
    if not is_mud:
        return add_water(image, np.where(liquid < threshold, 0, liquid), last)
    mud = skimage.filters.gaussian(np.float32(liquid > threshold), sigma=last)[..., None]
    mud = np.where(mud < 0.8, 0, mud)
    return (1 - mud) * image + mud * 255 * spatter_lib.MUD_COLOR


def elastic_transform(image, amplitude, sigma, jitter):
    side = min(image.shape[:2])
    amplitude, sigma, jitter = side * amplitude, side * sigma, side * jitter
    image = np.float32(image) / 255
    height, width, _ = image.shape
    center, half = np.float32([width, height]) // 2, side // 3
    corners = np.float32([center + half, [center[0] + half, center[1] - half], center - half])
    moved = corners + np.random.uniform(-jitter, jitter, size=(3, 2)).astype(np.float32)
    image = cv2.warpAffine(
        image, cv2.getAffineTransform(corners, moved), (width, height), borderMode=cv2.BORDER_REFLECT_101
    )
    dx, dy = (
        skimage.filters.gaussian(np.random.uniform(-1, 1, (height, width)), sigma, mode="reflect", truncate=3)
        for _ in range(2)
    )
    y, x = np.mgrid[:height, :width]
    position = np.float32(y + amplitude * dy), np.float32(x + amplitude * dx)
    return (
        np.stack([ndimage.map_coordinates(image[..., c], position, order=1, mode="reflect") for c in range(3)], -1)
        * 255
    )


def pixelate(image, fraction, resample=Image.Resampling.BOX):
    height, width, _ = image.shape
    small = Image.fromarray(image).resize((int(width * fraction), int(height * fraction)), resample)
    return np.asarray(small.resize((width, height), resample))


def jpeg_compression(image, quality):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


HOST = {
    "gaussian_noise": lambda x, c: 255 * (x / 255 + np.random.normal(size=x.shape, scale=c)),
    "shot_noise": lambda x, c: 255 * np.random.poisson(x / 255 * c) / c,
    "impulse_noise": lambda x, c: 255 * skimage.util.random_noise(x / 255, mode="s&p", amount=c),
    "speckle_noise": lambda x, c: 255 * (x / 255 + x / 255 * np.random.normal(size=x.shape, scale=c)),
    "gaussian_blur": lambda x, c: 255 * gaussian(x / 255, c),
    "glass_blur": lambda x, c: glass_blur(x, *c),
    "defocus_blur": lambda x, c: defocus_blur(x, *c),
    "motion_blur": lambda x, c: motion(x, *c, np.random.uniform(-45, 45)),
    "zoom_blur": lambda x, c: zoom_blur(x, *c),
    "snow": lambda x, c: snow(x, *c),
    "fog": lambda x, c: fog(x, *c),
    "brightness": lambda x, c: with_hsv(x, 2, lambda v: v + c),
    "spatter": lambda x, c: spatter(x, *c),
    "contrast": lambda x, c: (x - x.mean((0, 1))) * c + x.mean((0, 1)),
    "elastic_transform": lambda x, c: elastic_transform(x, *c),
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
    "saturate": lambda x, c: with_hsv(x, 1, lambda s: s * c[0] + c[1]),
}
# where the generator of TensorFlow Datasets differs from the published ones: a fixed angle, a larger map of fog, and
# Pillow's default filter
AS_IN_TFDS = {
    "motion_blur": lambda x, c: motion(x, *c, -45),
    "fog": lambda x, c: fog(x, *c, size=512),
    "pixelate": partial(pixelate, resample=Image.Resampling.BICUBIC),
}
DETERMINISTIC = (
    *("gaussian_blur", "defocus_blur", "zoom_blur", "brightness", "contrast"),
    *("pixelate", "jpeg_compression", "saturate"),
)
RANDOM = tuple(name for name in HOST if name not in DETERMINISTIC)


def to_uint8(values):
    return np.uint8(np.around(np.clip(values, 0, 255)))


@needs_imagemagick
@pytest.mark.parametrize("name", HOST)
def test_formulas_and_large_constants_match_tfds(name, monkeypatch):
    monkeypatch.setattr(tfds_corruptions, "_imagemagick_bin", lambda: CONVERT)
    monkeypatch.setattr(np.random, "default_rng", lambda _, seeded=np.random.default_rng: seeded(0))  # scikit-image's
    size = 224 if name in ("snow", "elastic_transform") else 72  # snow needs this size, elastic lengths depend on it
    image = photograph_patches(2, (size, size))[1]
    ours = AS_IN_TFDS.get(name, HOST[name])
    for severity in SEVERITIES:
        np.random.seed(severity)
        with warnings.catch_warnings(category=DeprecationWarning, action="ignore"):
            theirs = getattr(tfds_corruptions, name)(image, severity)
        np.random.seed(severity)
        difference = np.abs(to_uint8(ours(image, OURS[name].large[severity - 1])) - theirs.astype(int))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 1e-4  # halves


@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("shape", [SMALL, LARGE])
def test_deterministic_corruptions_round_published_pixels(name, shape):
    images = photograph_patches(6, shape)
    exact = 0.501 if name not in ("pixelate", "jpeg_compression") else 0
    for severity in SEVERITIES:
        published = np.stack([HOST[name](image, constants_of(name, severity, shape)) for image in images])
        ours = np.asarray(corrupt(KEY, images, name, severity))
        assert np.abs(ours - np.clip(published, 0, 255)).max() <= exact
        assert (ours != images).mean() > 0.1


@pytest.mark.parametrize("shape", [(8, 8), (29, 37), (16, 70)])
@pytest.mark.parametrize("quality", [7, 80])
def test_jpeg_equals_pillow(shape, quality):
    rng = np.random.default_rng(0)
    images = np.concatenate([photograph_patches(4, shape), rng.integers(0, 256, (4, *shape, 3), np.uint8)])
    tables = jpeg.quantization_tables(quality, shape)
    recode = jax.jit(jax.vmap(lambda image: jpeg.jpeg_compression(KEY, image / 255, tables) * 255))
    published = np.stack([jpeg_compression(image, quality) for image in images])
    np.testing.assert_array_equal(np.around(recode(images)), published)


def compare_changes(images, ours, theirs):
    """Compare mean, std and PSNR (dB) of two changes: return their differences `[3, N]`, and the means of `theirs`."""
    numbers = []
    for corrupted in (ours, theirs):
        change = corrupted.astype(float) - images
        error = np.maximum((change**2).mean((1, 2, 3)), 0.01)
        numbers.append([change.mean((1, 2, 3)), change.std((1, 2, 3)), 10 * np.log10(255**2 / error)])
    return np.subtract(*numbers), np.mean(numbers[1], axis=1)


@needs_imagemagick
@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("shape", [SMALL, LARGE])
def test_random_corruptions_match_published_distribution(name, shape):
    slow, varied = {"motion_blur": 12, "snow": 12, "glass_blur": 16 if shape == SMALL else 4}, {"fog": 200}
    num = (slow | varied).get(name, 32)
    images = np.concatenate([photograph_patches(32, shape)] * 7)[:num]
    for severity in SEVERITIES:
        np.random.seed(severity)
        constants = constants_of(name, severity, shape)
        theirs = np.stack([to_uint8(HOST[name](image, constants)) for image in images])
        ours = np.asarray(corrupt(KEY, images, name, severity))
        difference, (_, std, _) = compare_changes(images, ours, theirs)
        allowed = 4 * difference.std(axis=1, ddof=1) / num**0.5  # four standard errors, plus
        allowed += [0.3, 0.02 * std, 0.1]  # levels, levels, dB
        assert (np.abs(difference.mean(axis=1)) < allowed).all(), (severity, difference.mean(axis=1), allowed)


def test_glass_blur_visits_pixels_in_published_order():
    draw = jax.jit(blur.draw_nearby, static_argnames="shape")
    for reach in (1, 2, 4):
        taken = np.asarray(draw(KEY, (24, 30), reach))
        pixels = np.arange(24 * 30)
        for i in reversed(range(24 * 30)):
            pixels[i] = pixels[taken[i]]
        np.testing.assert_array_equal(jax.jit(blur.trace_sources)(taken), pixels)
        y, x = np.divmod(taken - np.arange(24 * 30) + 4 * 30 + 15, 30)  # offsets along each axis
        assert np.unique(y - 4).tolist() == np.unique(x - 15).tolist() == list(range(-reach, reach))


@needs_imagemagick
@pytest.mark.parametrize("angle", [-44.9, 10.3, -100.7])
def test_motion_blur_equals_imagemagick(angle):
    image = photograph_patches(1, (40, 50))[0]
    kernel = blur.motion_kernel((10, 3), (40, 50))
    ours = np.around(255 * jax.jit(blur.blur_along)(image / 255, kernel, np.deg2rad(angle)))
    difference = np.abs(ours - motion(image, 10, 3, angle))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 2e-3


@pytest.mark.parametrize(("shape", "severity"), [(SMALL, 1), (SMALL, 3), (LARGE, 2), (LARGE, 3)])
def test_spatter_water_equals_opencv(shape, severity):
    mean, std, sigma, threshold, amount, _ = constants_of("spatter", severity, shape)
    ours = jax.jit(spatter_lib.add_water)
    rng = np.random.default_rng(0)
    for image in photograph_patches(4, shape):
        np.testing.assert_array_equal(ours(image / 255, np.zeros(shape, np.float32), amount), np.float32(image / 255))
        liquid = skimage.filters.gaussian(rng.normal(mean, std, shape), sigma=sigma)
        liquid = np.float32(np.where(liquid < threshold, 0, liquid))
        np.testing.assert_allclose(255 * ours(image / 255, liquid, amount), add_water(image, liquid, amount), atol=1e-3)


def test_plasma_fractal_equals_published_generator(monkeypatch):
    noise = iter(np.asarray(jax.random.uniform(KEY, (64 * 64,), minval=-1, maxval=1), float))
    monkeypatch.setattr(
        np.random,
        "uniform",
        lambda low, high, shape: high * np.array([next(noise) for _ in range(np.prod(shape))]).reshape(shape),
    )
    published = tfds_corruptions.plasma_fractal(64, 1.7)
    ours = jax.jit(weather.plasma_fractal, static_argnames="size")(KEY, 64, 1.7)
    np.testing.assert_allclose(ours, published, atol=1e-5)


def test_warp_affine_equals_opencv():
    image = photograph_patches(2, (60, 60))[0] / np.float32(255)
    corners = np.float32([[50, 50], [50, 10], [10, 10]])
    shifts = np.float32([[3, -5], [-2, 4], [6, 1]])
    matrix = cv2.getAffineTransform(corners, corners + shifts)
    published = cv2.warpAffine(image, matrix, (60, 60), borderMode=cv2.BORDER_REFLECT_101)
    ours = digital.warp_affine(jnp.array(image), jnp.array(shifts))
    assert np.abs(ours - published).mean() < 2e-3  # OpenCV may round positions to 1/32 pixel


def test_shot_noise_is_poisson_distributed():
    image = jnp.full((250, 400, 3), 77 / 255)
    for photons in (60, 100):
        law = noise.poisson_law(photons, (250, 400))
        counts = np.around(jax.jit(noise.shot_noise)(KEY, image, law) * photons).ravel()
        expected = 77 / 255 * photons
        assert abs(counts.mean() - expected) < 5 * (expected / counts.size) ** 0.5
        assert abs(counts.var() / expected - 1) < 0.02


@pytest.mark.parametrize(
    ("shape", "severity", "mean", "std"),
    # the change of a gray of 128 by the published photographs, measured on 2,000 and 400 crops
    [((32, 32), 1, 32.4, 5.8), ((32, 32), 3, 52.2, 11.5), ((224, 224), 1, 64.9, 11.8), ((224, 224), 5, 69.7, 22.4)],
)
def test_frost_changes_as_much_as_published_photographs(shape, severity, mean, std):
    change = np.asarray(corrupt(KEY, np.full((100, *shape, 3), 128, np.uint8), "frost", severity)) - 128.0
    assert abs(change.mean() - mean) < 5
    assert 0.85 < change.std((1, 2, 3)).mean() / std < 1.05
