"""The model's inputs: a batch of stored images is augmented, normalized, mixed, and anchored to masked references."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from anchor_jax.config import Config
from anchor_jax.core.anchoring import anchor
from anchor_jax.core.short_reprs import short_repr
from anchor_jax.data import Batch, Normalization, augment, mixup_or_cutmix, normalize, random_erasing
from anchor_jax.data.image_table import ImageTable
from anchor_jax.runtime.mesh import AXIS, local_shard
from anchor_jax.training.draws import StepDraws

Images = jax.Array | ImageTable


@short_repr
class TrainData(NamedTuple):
    """Arrays that every device holds besides the state; None for those that a run does not need."""

    images: Images | None = None  # uint8 [N, H, W, C], the training set; None if it is a stream
    labels: jax.Array | None = None  # int32 [N], its labels; None if it is a stream
    bank_images: Images | None = None  # uint8 [M, H, W, C], the references of `references="bank"`
    mixing_images: Images | None = None  # uint8 [P, S, S, C], the images that PixMix mixes in

    @property
    def bank_size(self) -> int:
        """The number of references in the bank; 0 without a bank."""
        return 0 if self.bank_images is None else len(self.bank_images)


@short_repr
class ModelBatch(NamedTuple):
    """The inputs and targets of one device's examples."""

    inputs: jax.Array  # float32 [B, H, W, C]; [B, H, W, 2C] if anchored
    targets: jax.Array  # int32 [B] labels; float32 [B, classes] distributions with mixup or CutMix
    mask: jax.Array | None  # bool [B], True where the reference is masked; None if masking is off


def make_model_batch(
    draws: StepDraws, data: TrainData, batch: Batch, config: Config, normalization: Normalization, num_classes: int
) -> ModelBatch:
    """Turn this device's part of a batch into what the model is trained on; for use inside a mapped step.

    Args:
      draws: of the step, for the complete batch.
      data: holds the reference bank and the images of PixMix, if the config needs them.
      batch: this device's examples.
      config: of the run.
      normalization: of the images and references.
      num_classes: length of mixed targets.
    """
    per_example, augmentation = local_shard(draws.per_example), config.augmentation
    if config.data.streaming and augmentation.resized_crop:  # a stream crops while it decodes
        augmentation = augmentation.copy_and_resolve_references()
        augmentation.resized_crop, augmentation.crop_padding = (), 0
    images, targets = jnp.asarray(batch.images), jnp.asarray(batch.labels)
    channels = images.shape[-1]  # those of the training set, which is checked
    options: dict[str, Any] = {"interpolation": config.data.interpolation, "channels": channels}
    augmented = augment(per_example.augment_keys, images, augmentation, data.mixing_images, **options)
    x = normalize(augmented, normalization)
    if augmentation.erasing_prob:
        x = random_erasing(per_example.erase_keys, x, augmentation.erasing_prob, channels=channels)
    if augmentation.mixup_alpha or augmentation.cutmix_alpha:
        x, targets = mixup_or_cutmix(
            draws.mix_key,
            x,
            jax.nn.one_hot(targets, num_classes),
            mixup_alpha=augmentation.mixup_alpha,
            cutmix_alpha=augmentation.cutmix_alpha,
            channels=channels,
        )
    if per_example.reference_rows is None:
        return ModelBatch(x, targets, mask=None)
    references = _references(x, per_example.reference_rows, data, config, normalization)
    if not config.anchoring.enabled:
        x = _overlay(x, references, per_example.mask, config.anchoring.overlay_weight)
        return ModelBatch(x, targets, mask=None)
    return ModelBatch(anchor(x, references, per_example.mask), targets, per_example.mask)


def _overlay(x: jax.Array, references: jax.Array, mask: jax.Array | None, weight: float) -> jax.Array:
    """Return `x + weight * references` for the masked examples, and `x` for the others."""
    if mask is None:
        return x
    return jnp.where(mask[:, None, None, None], x + weight * references, x)


def _references(
    x: jax.Array, rows: jax.Array, data: TrainData, config: Config, normalization: Normalization
) -> jax.Array:
    """Return the normalized reference of each of this device's examples."""
    if config.anchoring.references == "batch":
        return _references_from_batch(x, rows, config.anchoring.group_size)
    if data.bank_images is None:
        raise ValueError("references='bank' needs TrainData.bank_images; got None")
    return normalize(data.bank_images[rows], normalization)


def _references_from_batch(x: jax.Array, rows: jax.Array, group_size: int) -> jax.Array:
    """Return the rows of the complete batch that serve as references of this device's examples.

    A group that lies on one device needs no communication.
    """
    if group_size and len(x) % group_size == 0:
        return ImageTable.of(x)[rows - jax.lax.axis_index(AXIS) * len(x)]
    return ImageTable.of(jax.lax.all_gather(x, AXIS, tiled=True))[rows]
