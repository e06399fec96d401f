"""What becomes of stored pixels before a network sees them; on the device, an example by its own key."""

from functools import partial

import jax

from anchor_jax.config import AugmentationConfig
from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.data.augmentation.crops import mirror, padded_crop, resized_crop
from anchor_jax.data.augmentation.erasing import random_erasing
from anchor_jax.data.augmentation.fractals import fractals
from anchor_jax.data.augmentation.mixing import mixup_or_cutmix
from anchor_jax.data.augmentation.mixing_images import load_mixing_images
from anchor_jax.data.augmentation.normalization import Normalization, measure_normalization, normalize
from anchor_jax.data.augmentation.pixmix import pixmix
from anchor_jax.data.augmentation.policies import rand_augment, trivial_augment

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


def augment(
    keys: jax.Array, images: jax.Array, config: AugmentationConfig, pictures: jax.Array | None = None
) -> jax.Array:
    """A random crop, a mirror and a policy, as `config.augmentation` says; for use under `jit`.

    Args:
      keys: one for each image, `[B]`; what becomes of an image depends on its key and itself alone.
      images: uint8 `[B, H, W, C]`; the policies take 1 or 3 channels.
      config: `crop_padding`, `resized_crop` (in its place where it is given), `flip`, `policy`, `num_operations` and
        `magnitude`; see `anchor_jax.config`.
      pictures: those of "pixmix", uint8 `[M, h, w, C]`, at least as large as the images; see `mixing_pictures`.

    Returns:
      uint8 `[B, H, W, C]`.

    Raises:
      UserTypeError: `keys` are no keys, or the images are not uint8.
      UserError: there are not as many keys as images; a policy for images of another number of channels, "pixmix"
        without pictures that fit the images.
    """
    checks.array("images", images, "uint8", "[B, H, W, C]")
    checks.keys("keys", keys, len(images))
    policy = _policy(config, images.shape[1:], pictures)

    def one(key, image):
        crop_key, flip_key = jax.random.split(key)
        if config.resized_crop:
            low, high = config.resized_crop
            image = resized_crop(crop_key, image, (low, high))
        elif config.crop_padding:
            image = padded_crop(crop_key, image, config.crop_padding)
        if config.flip:
            image = mirror(flip_key, image)
        return policy(jax.random.fold_in(key, 2), image) if policy else image

    return jax.vmap(one)(keys, images)


def _policy(config, shape, pictures):
    """`policy(key, image)`, None where there is none."""
    if config.policy and shape[2] not in (1, 3):
        raise UserError(
            f"'{config.policy}' takes images of 1 or 3 channels; got {shape[2]}; set augmentation.policy to ''"
        )
    if config.policy == "pixmix":
        _check(pictures, shape)
        return partial(pixmix, pictures=pictures)
    rand = partial(rand_augment, num_operations=config.num_operations, magnitude=config.magnitude)
    return {"": None, "trivial_augment": trivial_augment, "rand_augment": rand}[config.policy]


def _check(pictures, shape):
    given = None if pictures is None else list(pictures.shape)
    if not given or len(given) != 4 or given[3] != shape[2] or given[1] < shape[0] or given[2] < shape[1]:
        raise UserError(
            f"'pixmix' needs pictures [M, at least {shape[0]}, at least {shape[1]}, {shape[2]}], such as those of "
            f"mixing_pictures; got {given}"
        )
