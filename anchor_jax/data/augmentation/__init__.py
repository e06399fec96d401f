"""On-device augmentation and normalization; every image has its own PRNG key."""

from collections.abc import Callable
from functools import partial

import jax
from PIL import Image

from anchor_jax.config import AugmentationConfig
from anchor_jax.core import checks, explicit, modes
from anchor_jax.core.errors import UserError
from anchor_jax.data import resampling
from anchor_jax.data.augmentation.crops import mirror, padded_crop, resized_crop
from anchor_jax.data.augmentation.erasing import random_erasing
from anchor_jax.data.augmentation.fractals import fractals
from anchor_jax.data.augmentation.mixing import mixup_or_cutmix
from anchor_jax.data.augmentation.mixing_images import load_mixing_images
from anchor_jax.data.augmentation.normalization import Normalization, measure_normalization, normalize
from anchor_jax.data.augmentation.pixmix import pixmix
from anchor_jax.data.augmentation.policies import rand_augment, trivial_augment
from anchor_jax.data.image_table import ImageTable
from anchor_jax.data.modes import MODES

__all__ = [
    "Normalization",
    "augment",
    "fractals",
    "load_mixing_images",
    "measure_normalization",
    "mixup_or_cutmix",
    "normalize",
    "random_erasing",
]


@explicit.automatic("images", "keys")
@modes.in_32_bits
def augment(
    keys: jax.Array,
    images: jax.Array,
    config: AugmentationConfig,
    mixing_images: jax.Array | ImageTable | None = None,
    *,
    interpolation: str = resampling.AUTO,
    channels: int = 0,
) -> jax.Array:
    """Apply a random crop, a random mirror image and a policy to each image, as a config says; for use under `jit`.

    Args:
      keys: PRNG keys `[B]`, one per image; the result for an image depends on its key and its pixels alone.
      images: uint8 `[B, H, W, C]`; policies need 1 or 3 channels.
      config: the section `augmentation` of a config: `crop_padding`, or `resized_crop` instead if it is set; `flip`;
        `policy` with `num_operations` and `magnitude`. See `anchor_jax.config`.
      mixing_images: for "pixmix", uint8 `[M, h, w, C]`, at least as large as the images; see `load_mixing_images`.
      interpolation: of `resized_crop`, "bilinear" or "bicubic"; "auto": bilinear. See `config.data.interpolation`.
      channels: C, required if it is above 4: such images are mostly `[B, C, H, W]`.

    Returns:
      uint8 `[B, H, W, C]`.

    Raises:
      UserTypeError: `keys` are not PRNG keys, or the images are not uint8.
      UserError: the images seem to be `[B, C, H, W]`, the number of keys differs from the number of images, a policy
        does not support the number of channels, or "pixmix" lacks mixing images that fit.

    Example:
      >>> import anchor_jax as aj
      >>> import jax
      >>> from anchor_jax.config import base
      >>> config = base().augmentation
      >>> config.crop_padding, config.flip = 4, True
      >>> images = aj.data.photographs((32, 32, 3), num=8).images
      >>> keys = jax.random.split(jax.random.key(0), 8)
      >>> augmented = aj.data.augment(keys, images, config)
      >>> augmented.shape, augmented.dtype
      ((8, 32, 32, 3), dtype('uint8'))
    """
    checks.images("images", images, "uint8", channels)
    checks.keys("keys", keys, len(images))
    crop_filter = resampling.filter_of_crops(resampling.check_interpolation(interpolation))
    is_bicubic = crop_filter == Image.Resampling.BICUBIC
    policy = _policy(config, images.shape[1:], mixing_images)

    def augment_one(key, image):
        crop_key, flip_key = jax.random.split(key)
        if config.resized_crop:
            low, high = config.resized_crop
            image = resized_crop(crop_key, image, (low, high), is_bicubic=is_bicubic)
        elif config.crop_padding:
            image = padded_crop(crop_key, image, config.crop_padding)
        if config.flip:
            image = mirror(flip_key, image)
        return policy(jax.random.fold_in(key, 2), image) if policy else image

    return jax.vmap(augment_one)(keys, images)


def _policy(
    config: AugmentationConfig, image_shape: tuple[int, ...], mixing_images: jax.Array | ImageTable | None
) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
    """Return the policy as a function of a key and an image, or None."""
    check_policy(config.policy, image_shape[2])
    if config.policy == "pixmix":
        return partial(pixmix, mixing_images=_check_mixing_images(mixing_images, image_shape))
    rand = partial(rand_augment, num_operations=config.num_operations, magnitude=config.magnitude)
    return {"": None, "trivial_augment": trivial_augment, "rand_augment": rand}[config.policy]


def check_policy(policy: str, channels: int) -> None:
    """Raise a `UserError` unless an augmentation policy takes images with this number of channels."""
    if policy and channels not in MODES:
        raise UserError(f"'{policy}' takes images with 1 or 3 channels; got {channels}; set augmentation.policy to ''")


def _check_mixing_images(
    mixing_images: jax.Array | ImageTable | None, image_shape: tuple[int, ...]
) -> jax.Array | ImageTable:
    height, width, channels = image_shape
    if mixing_images is not None and mixing_images.ndim == 4:
        _, h, w, c = mixing_images.shape
        if h >= height and w >= width and c == channels:
            return mixing_images
    given = None if mixing_images is None else list(mixing_images.shape)
    raise UserError(
        f"'pixmix' needs mixing images [M, at least {height}, at least {width}, {channels}], see load_mixing_images; "
        f"got {given}"
    )
