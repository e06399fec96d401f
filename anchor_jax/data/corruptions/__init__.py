"""The common corruptions of images, on the device.

The 15 corruptions of CIFAR-10-C and ImageNet-C and the 4 extra ones are those of Hendrycks, Dietterich, "Benchmarking
Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019 (arXiv 1903.12261), with the constants of
their generators `make_cifar_c.py` and `imagenet_c/corruptions.py`. For the others see `c_bar`.

Images whose shorter side is at most 64 pixels get the constants published for the 32 x 32 images of CIFAR, larger ones
those for the 224 x 224 images of ImageNet. Lengths that the generators derive from the image size (the deformation of
`elastic_transform`, the pixels of `pixelate`, the map of `fog`) depend on the actual size. Results are rounded to
integer levels, as in the generator of TensorFlow Datasets; the original generators truncate them. The generator of
TensorFlow Datasets differs from the original ones, and from ours, in `motion_blur` (always at 45 degrees), `pixelate`
(Pillow's default filter instead of the box filter) and `fog` (part of a map of 512 pixels).

Random values follow the published distributions. Given these values, pixels equal the published ones except for one
level in fewer than 1 of 1,000 values, where float32 and float64 round differently; pixelation and JPEG equal Pillow's
bit for bit. `APPROXIMATIONS` lists larger differences.

To add a corruption, write a function of a key, an image and constants in a file of this package, and add it to the
`CORRUPTIONS` of that file; see `Corruption`.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.core import checks, explicit, modes
from anchor_jax.core.errors import UserError
from anchor_jax.data.corruptions import blur, c_bar, digital, noise, spatter, weather
from anchor_jax.data.corruptions.corruption import Corruption
from anchor_jax.data.corruptions.filters import luma

__all__ = [
    "APPROXIMATIONS",
    "CORRUPTIONS",
    "CORRUPTIONS_15",
    "CORRUPTIONS_19",
    "C_BAR_CIFAR",
    "C_BAR_IMAGENET",
    "SEVERITIES",
    "corrupt",
    "corrupt_each",
    "is_small",
]

CORRUPTIONS_15 = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
CORRUPTIONS_19 = (*CORRUPTIONS_15, "speckle_noise", "gaussian_blur", "spatter", "saturate")
C_BAR_CIFAR = (
    "blue_noise_sample",
    "checkerboard_cutout",
    "inverse_sparkles",
    "pinch_and_twirl",
    "ripple",
    "brownish_noise",
    "circular_motion_blur",
    "lines",
    "sparkles",
    "transverse_chromatic_abberation",
)
C_BAR_IMAGENET = (
    "caustic_refraction",
    "inverse_sparkles",
    "sparkles",
    "perlin_noise",
    "blue_noise_sample",
    "plasma_noise",
    "checkerboard_cutout",
    "cocentric_sine_waves",
    "single_frequency_greyscale",
    "brownish_noise",
)

# corruption -> how it differs from the published one
APPROXIMATIONS = {
    "brightness": "up to 0.7 % of the values, those halfway between two levels, differ by one level",
    "saturate": "up to 3 % of the values, those halfway between two levels, differ by one level (13 % for 32 x 32 "
    "images at severity 3)",
    "frost": "generated from the colors and spectra of the published photographs, not from the photographs: the mean "
    "of the change is within 1 level, its standard deviation within an image 4 to 7 % less, its PSNR within 0.1 dB",
    "lines": "colors are not truncated to integer levels after each line",
    "transverse_chromatic_abberation": "pixels are not truncated to integer levels after each channel",
    "perlin_noise": "gradients are drawn from a continuous square, not from 512 x 512 points",
    "caustic_refraction": "displacements are not rounded to a thousandth of a pixel",
}

# name -> corruption
CORRUPTIONS: dict[str, Corruption] = {
    **noise.CORRUPTIONS,
    **blur.CORRUPTIONS,
    **weather.CORRUPTIONS,
    **spatter.CORRUPTIONS,
    **digital.CORRUPTIONS,
    **c_bar.CORRUPTIONS,
}
SEVERITIES = (1, 2, 3, 4, 5)  # from mild to strong
_MAX_SMALL_SIDE = 64  # pixels of the shorter side
_MIN_SIDE = 8


@explicit.automatic("images")
@modes.in_32_bits
def corrupt(key: jax.Array, images: jax.Array | np.ndarray, name: str, severity: int) -> jax.Array:
    """Corrupt a batch of images; compiled once per corruption and shape.

    Args:
      key: PRNG key. Image i gets the key `jax.random.fold_in(key, i)`, so that its result depends on its row, but not
        on its neighbors.
      images: uint8 `[B, H, W, C]`; C is 1 or 3, and H and W are at least 8. Grayscale images are corrupted as RGB
        images with three equal channels, and converted back.
      name: one of `CORRUPTIONS_19`, `C_BAR_CIFAR` or `C_BAR_IMAGENET`.
      severity: 1..5, from mild to strong.

    Returns:
      uint8 `[B, H, W, C]`.

    Raises:
      UserTypeError: `key` is not a PRNG key, the images are not uint8, `name` is not a string, or `severity` is not
        an integer.
      UserError: `key` is an array of keys, the name is unknown, the severity is outside 1..5, or the images have
        another shape.

    Example:
      >>> import anchor_jax as aj
      >>> import jax
      >>> images = aj.data.photographs((32, 32, 3), num=4).images
      >>> foggy = aj.data.corrupt(jax.random.key(0), images, "fog", severity=3)
      >>> foggy.shape, foggy.dtype
      ((4, 32, 32, 3), dtype('uint8'))
    """
    checks.key("key", key)
    severity = _check(images, name, severity)
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(len(images)))
    return _corrupt_batch(keys, images, name, severity)


@explicit.automatic("images", "keys")
@modes.in_32_bits
def corrupt_each(keys: jax.Array, images: jax.Array | np.ndarray, name: str, severity: int) -> jax.Array:
    """Corrupt images like `corrupt`, with PRNG keys `[B]`, one per image.

    A stream uses this to derive the key of an image from its row in the dataset, not in the batch.
    """
    severity = _check(images, name, severity)
    checks.keys("keys", keys, len(images))
    return _corrupt_batch(keys, images, name, severity)


def is_small(shape: tuple[int, ...]) -> bool:
    """Return whether images `(H, W, ...)` get the constants of CIFAR, not those of ImageNet."""
    return min(shape[:2]) <= _MAX_SMALL_SIDE


def _check(images: jax.Array | np.ndarray, name: str, severity: int) -> int:
    """Return the severity as an `int`, after all checks."""
    checks.known("corruption", name, CORRUPTIONS)
    severity = checks.count("severity", severity, SEVERITIES[0], SEVERITIES[-1])
    checks.images("images", images, "uint8", channels=None)
    if images.shape[3] not in (1, 3):
        hint = f"; if these are [B, C, H, W], pass images{checks.TO_CHANNELS_LAST}" if images.shape[1] in (1, 3) else ""
        raise UserError(f"images must have 1 or 3 channels, [B, H, W, C]; got shape {images.shape}{hint}")
    if min(images.shape[1:3]) < _MIN_SIDE:
        raise UserError(f"images must have at least {_MIN_SIDE} x {_MIN_SIDE} pixels; got {list(images.shape[1:3])}")
    return severity


def _corrupt_batch(keys: jax.Array, images: jax.Array | np.ndarray, name: str, severity: int) -> jax.Array:
    height, width = images.shape[1:3]
    return _apply(CORRUPTIONS[name].apply, keys, images, _prepared_constants(name, severity, (height, width)))


@lru_cache(maxsize=256)
def _prepared_constants(name: str, severity: int, shape: tuple[int, int]) -> Any:
    corruption = CORRUPTIONS[name]
    constants = corruption.small if is_small(shape) else corruption.large
    return corruption.prepare(constants[severity - 1], shape)


@partial(jax.jit, static_argnames="apply")
def _apply(
    apply: Callable[[jax.Array, jax.Array, Any], jax.Array],
    keys: jax.Array,
    images: jax.Array,
    constants: Any,
) -> jax.Array:
    def apply_one(key: jax.Array, image: jax.Array) -> jax.Array:
        rgb = jnp.broadcast_to(image.astype(jnp.float32) / 255, (*image.shape[:2], 3))
        corrupted = jnp.clip(apply(key, rgb, constants), 0, 1)
        if image.shape[-1] == 1:
            corrupted = luma(corrupted)
        return jnp.round(255 * corrupted).astype(jnp.uint8)

    return jax.vmap(apply_one)(keys, images)
