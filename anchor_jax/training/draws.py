"""Random keys and random draws of training; all of them follow from (seed, step).

The draws of a step are made for the complete batch, and every device takes its own part. Runs are therefore the same
on any number of devices, and a resumed run needs nothing but its step.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from anchor_jax.config import AnchoringConfig
from anchor_jax.core.anchoring import sample_mask, sample_rows


class SeedKeys(NamedTuple):
    """Random keys of a run."""

    init: jax.Array  # initializes the parameters
    order: jax.Array  # folded with the epoch: the order of its examples
    step: jax.Array  # folded with the step: its `StepKeys`
    depth: jax.Array  # folded with the step: stochastic depth and dropout


def seed_keys(seed: int) -> SeedKeys:
    """Return the keys of a run with this seed."""
    return SeedKeys(*jax.random.split(jax.random.key(seed), 4))


def epoch_order(key: jax.Array, epoch: jax.Array, num_examples: int) -> jax.Array:
    """Draw the order of the training examples in an epoch: a permutation of their rows, int32 `[N]`."""
    return jax.random.permutation(jax.random.fold_in(key, epoch), num_examples)


class StepKeys(NamedTuple):
    """Independent random keys of one step."""

    references: jax.Array
    mask: jax.Array
    augment: jax.Array
    erase: jax.Array
    mix: jax.Array


def step_keys(key: jax.Array) -> StepKeys:
    """Split the key of a step into one key per purpose."""
    return StepKeys(*jax.random.split(key, len(StepKeys._fields)))


class ExampleDraws(NamedTuple):
    """Random draws per example, for B examples."""

    augment_keys: jax.Array  # key [B]
    erase_keys: jax.Array  # key [B]
    reference_rows: jax.Array | None  # int32 [B], rows of the bank or of the batch; None in standard training
    mask: jax.Array | None  # bool [B], True where the reference is masked; None if masking is off


class StepDraws(NamedTuple):
    """Random draws of one step."""

    per_example: ExampleDraws
    mix_key: jax.Array  # key [], of mixup and CutMix
    batch_is_masked: jax.Array | None  # bool [], the mask of all examples with `mask_per="batch"`; otherwise None


def uses_references(config: AnchoringConfig) -> bool:
    """Return whether training draws references: to anchor images or to overlay them."""
    return config.enabled or config.overlay_weight != 0


def draw_step(keys: StepKeys, step: jax.Array, batch_size: int, bank_size: int, config: AnchoringConfig) -> StepDraws:
    """Make the random draws of one step, for the complete batch.

    Args:
      keys: of the step.
      step: its number, counted from 0.
      batch_size: B, over all devices.
      bank_size: number of references in the bank; not used unless `config.references` is "bank".
      config: `config.anchoring`.
    """
    mask, batch_is_masked = _draw_mask(keys.mask, step, batch_size, config)
    per_example = ExampleDraws(
        augment_keys=jax.random.split(keys.augment, batch_size),
        erase_keys=jax.random.split(keys.erase, batch_size),
        reference_rows=_draw_references(keys.references, batch_size, bank_size, config)
        if uses_references(config)
        else None,
        mask=mask,
    )
    return StepDraws(per_example, keys.mix, batch_is_masked)


def _draw_mask(
    key: jax.Array, step: jax.Array, batch_size: int, config: AnchoringConfig
) -> tuple[jax.Array | None, jax.Array | None]:
    """Return the mask of each example and, if all examples share one draw, that draw."""
    if not (uses_references(config) and config.mask_prob):
        return None, None
    if config.mask_per != "batch":
        group_size = config.group_size if config.mask_per == "group" else None
        return sample_mask(key, batch_size, config.mask_prob, per=config.mask_per, group_size=group_size), None
    if config.mask_draw == "periodic":
        batch_is_masked = _is_due(step, config.mask_prob)
    else:
        (batch_is_masked,) = sample_mask(key, 1, config.mask_prob, per="batch")
    return jnp.broadcast_to(batch_is_masked, (batch_size,)), batch_is_masked


def _is_due(step: jax.Array, fraction: float) -> jax.Array:
    """Return whether one of evenly spaced steps is due, bool `[]`: `⌊n · fraction⌋` of the first n steps are."""
    before, after = jnp.floor(jnp.stack([step, step + 1]) * jnp.float32(fraction))
    return after > before


def _draw_references(key: jax.Array, batch_size: int, bank_size: int, config: AnchoringConfig) -> jax.Array:
    """Return rows of the bank or, with `references="batch"`, rows of the batch within each example's group."""
    if config.references == "bank":
        return sample_rows(key, bank_size, batch_size, replace=config.replace)
    group_size = config.group_size or batch_size
    if config.replace:
        within_group = sample_rows(key, group_size, batch_size)
    else:
        keys = jax.random.split(key, batch_size // group_size)
        permute_group = partial(sample_rows, num_rows=group_size, num=group_size, replace=False)
        within_group = jax.vmap(permute_group)(keys).ravel()
    return jnp.arange(batch_size) // group_size * group_size + within_group
