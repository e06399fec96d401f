"""The common corruptions of images, made on the device.

Sources: Hendrycks, Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR
2019 (arXiv 1903.12261), the 15 corruptions of CIFAR-10-C and ImageNet-C and the 4 extra ones, with the constants of
their generators `make_cifar_c.py` and `imagenet_c/corruptions.py`; and those of `c_bar`.

Images whose shorter side is at most 64 pixels get the constants that were published for the 32 x 32 of CIFAR, larger
ones those for the 224 x 224 of ImageNet. Lengths which the generators tie to the size of the image (the deformation of
`elastic_transform`, the pixels of `pixelate`, the map of `fog`) follow the image's own. Results are rounded to whole
levels, as by the generator of tensorflow-datasets; the first generators cut them off. That generator differs from the
first ones, and from ours, in `motion_blur` (always at 45 degrees), `pixelate` (with Pillow's default filter in place of
the box) and `fog` (a part of a map of 512 pixels).

What is random follows the published distributions, and what is not gives the published pixels, but for one level where
float32 and float64 round differently, in fewer than one of 1,000 values; pixelation and JPEG are those of Pillow bit
for bit. What differs more is listed in `APPROXIMATIONS`.
"""

from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.data.corruptions import blur, c_bar, digital, noise, weather
from anchor_jax.data.corruptions.common import Corruption, luma

__all__ = [
    "APPROXIMATIONS",
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
    "brightness": "one level in up to 0.7 % of the values, which lie half way between two levels",
    "saturate": "one level in up to 3 % of the values, which lie half way between two levels (13 % for 32 x 32 at "
    "severity 3)",
    "frost": "made from colours and spectra of the published photographs in place of these: the mean of the change is "
    "within 1 level of theirs, its spread within an image 4 to 7 % less, its PSNR within 0.1 dB",
    "lines": "colours are not cut to whole levels between the lines",
    "transverse_chromatic_abberation": "pixels are not cut to whole levels between the channels",
    "perlin_noise": "gradients are drawn from a continuous square, not from one of 512 x 512 points",
    "caustic_refraction": "displacements are not rounded to a thousandth of a pixel",
}

_CORRUPTIONS: dict[str, Corruption] = (
    noise.CORRUPTIONS | blur.CORRUPTIONS | weather.CORRUPTIONS | digital.CORRUPTIONS | c_bar.CORRUPTIONS
)
SEVERITIES = (1, 2, 3, 4, 5)  # from mild to strong
_LARGEST_SMALL = 64  # pixels of the shorter side
_LEAST = 8


def corrupt(key: jax.Array, images: jax.Array | np.ndarray, name: str, severity: int) -> jax.Array:
    """Corrupts images; jitted, compiled once for each corruption and shape.

    Args:
      key: of the random numbers; image i has its own, `jax.random.fold_in(key, i)`, so that what becomes of it depends
        on its row alone and not on its neighbours.
      images: uint8 `[B, H, W, C]`, C is 1 or 3, H and W at least 8. Grey ones are corrupted with three equal channels,
        and come back as their luma.
      name: one of `CORRUPTIONS_19`, `C_BAR_CIFAR` or `C_BAR_IMAGENET`.
      severity: 1..5.

    Returns:
      uint8 `[B, H, W, C]`.

    Raises:
      UserTypeError: `key` is no key, the images are not uint8, `name` is no string or `severity` no integer.
      UserError: there are many keys, an unknown name, another severity, or images of another shape.
    """
    checks.key("key", key)
    _check(images, name, severity)
    return _corrupted(jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(len(images))), images, name, severity)


def is_small(shape: tuple[int, ...]) -> bool:
    """Whether images of H x W pixels get the constants of CIFAR rather than those of ImageNet."""
    return min(shape[:2]) <= _LARGEST_SMALL


def corrupt_each(keys: jax.Array, images: jax.Array | np.ndarray, name: str, severity: int) -> jax.Array:
    """`corrupt` with a key `[B]` for every image, for those who number images themselves, as in a stream."""
    _check(images, name, severity)
    checks.keys("keys", keys, len(images))
    return _corrupted(keys, images, name, severity)


def _check(images, name, severity):
    checks.known("corruption", name, _CORRUPTIONS)
    checks.count("severity", severity, SEVERITIES[0], SEVERITIES[-1])
    checks.array("images", images, "uint8", "[B, H, W, C]")
    if images.shape[3] not in (1, 3):
        raise UserError(f"images must have 1 or 3 channels, [B, H, W, C]; got shape {images.shape}")
    if min(images.shape[1:3]) < _LEAST:
        raise UserError(f"images must have at least {_LEAST} x {_LEAST} pixels; got {list(images.shape[1:3])}")


def _corrupted(keys, images, name, severity):
    return _corrupt(_CORRUPTIONS[name].apply, keys, images, _prepared(name, severity, images.shape[1:3]))


@lru_cache(maxsize=256)
def _prepared(name: str, severity: int, shape: tuple[int, int]) -> Any:
    corruption = _CORRUPTIONS[name]
    constants = corruption.small if is_small(shape) else corruption.large
    return corruption.prepare(constants[severity - 1], shape)


@partial(jax.jit, static_argnames="apply")
def _corrupt(apply: Any, keys: jax.Array, images: jax.Array, constants: Any) -> jax.Array:
    def one(key: jax.Array, image: jax.Array) -> jax.Array:
        coloured = jnp.broadcast_to(image.astype(jnp.float32) / 255, (*image.shape[:2], 3))
        corrupted = jnp.clip(apply(key, coloured, constants), 0, 1)
        if image.shape[-1] == 1:
            corrupted = luma(corrupted)
        return jnp.round(255 * corrupted).astype(jnp.uint8)

    return jax.vmap(one)(keys, images)
