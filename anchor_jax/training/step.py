"""One training step, written for one device with a named axis.

Data flows one way: batch -> augmented batch -> references and mask -> anchored inputs -> objective -> update. All
randomness is drawn for the whole batch from (seed, step), and every device takes its own part of it, so that a run
does not depend on how many devices there are.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from anchor_jax.config import AnchoringConfig, Config
from anchor_jax.core.anchoring import anchor, sample_mask, sample_references
from anchor_jax.core.losses import anchored_cross_entropy
from anchor_jax.core.uncertainty import predictive_entropy
from anchor_jax.data import Batch, Normalization, augment, mixup_or_cutmix, normalize, random_erasing
from anchor_jax.models.layers import Classifier
from anchor_jax.runs.state import Carry, Totals, TrainState
from anchor_jax.runtime import backends
from anchor_jax.runtime.mesh import AXIS, local_shard
from anchor_jax.training import sharding
from anchor_jax.training.optimizer import without_gradient

Array = jax.Array | np.ndarray


class TrainData(NamedTuple):
    """What lies on every device beside the state: the training set, or, where that is a stream, the bank alone."""

    images: Array  # uint8 [N, H, W, C]
    labels: Array  # int32 [N]
    bank: Array  # int32 [M], the rows that serve as references
    pictures: Array | None = None  # uint8 [P, S, S, C], that the augmentation mixes in


class StepDraws(NamedTuple):
    """What chance decides of one step; B examples."""

    augment_keys: jax.Array  # key [B]
    erase_keys: jax.Array  # key [B]
    references: jax.Array  # int32 [B], of the training set, or of the batch
    mask: jax.Array  # bool [B], true where the reference is masked


class ModelBatch(NamedTuple):
    """What the network is shown and asked for."""

    inputs: jax.Array  # float32 [B, H, W, C or 2C]
    targets: jax.Array  # int32 [B] labels, or float32 [B, classes] where images are mixed
    mask: jax.Array  # bool [B]


TrainStep = Callable[[Carry, TrainData, Batch], Carry]


def make_train_step(
    model: Classifier,
    optimizer: optax.GradientTransformation,
    config: Config,
    normalization: Normalization,
    specs: TrainState | None = None,
) -> TrainStep:
    """`train_step((state, totals), data, batch) -> (state, totals)`: one step, given this device's part of a batch.

    Where the loss or the gradient is not finite, all stays as it was but for the step and what tells of it.

    `specs` says which part of the state a device holds, see `sharding.specs_of`.
    """
    keys = seed_keys(config.seed)
    inputs_of = _make_inputs(config, normalization, model.num_classes)
    param_specs = specs.params if specs else None

    def loss_of(params, batch_stats, shown, depth_key):
        if config.optimizer.frozen:
            params = without_gradient(params, config.optimizer.frozen)
        logits, updates = model.apply(
            {"params": params, "batch_stats": batch_stats},
            shown.inputs,
            train=True,
            mutable=["batch_stats"],
            rngs={"stochastic_depth": depth_key, "dropout": depth_key},  # each layer draws from it by its own name
        )
        losses = anchored_cross_entropy(
            logits,
            shown.targets,
            shown.mask,
            masked_target=config.anchoring.masked_target,
            label_smoothing=config.training.label_smoothing,
        )
        return jnp.mean(losses), (updates.get("batch_stats", {}), batch_totals(losses, logits, shown))

    gradient = jax.grad(sharding.fsdp_loss(loss_of, param_specs), has_aux=True)

    def train_step(carry, data, batch):
        state, totals = carry
        shown = inputs_of(jax.random.fold_in(keys.step, state.step), data, batch)
        depth_key = jax.random.fold_in(keys.depth, state.step)
        grads, (batch_stats, step_totals) = _in_parts(
            gradient, state, shown, depth_key, config.training.accumulation_steps
        )
        grads, step_totals = sharding.mean_over_devices(grads, param_specs), jax.lax.psum(step_totals, AXIS)
        if not _masked_count(config.anchoring):
            batch_stats = jax.tree.map(partial(jnp.where, shown.mask[0]), state.batch_stats, batch_stats)
        gradient_norm = sharding.norm(grads, param_specs)
        if config.optimizer.clip_norm:
            grads = jax.tree.map(partial(jnp.multiply, _clipping(gradient_norm, config.optimizer.clip_norm)), grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = _averaged(state, {"params": params, "batch_stats": batch_stats}, config.training)
        step_totals = step_totals._replace(steps=1.0, gradient_norm=gradient_norm)

        is_finite = jnp.isfinite(step_totals.loss) & jnp.isfinite(gradient_norm)
        skipped = state.skipped.update(~is_finite, state.step + 1)
        updated = TrainState(state.step + 1, params, batch_stats, opt_state, average, skipped)
        as_it_was = state._replace(step=state.step + 1, skipped=skipped)
        updated_totals = jax.tree.map(jnp.add, totals, step_totals)
        return jax.tree.map(partial(jnp.where, is_finite), (updated, updated_totals), (as_it_was, totals))

    return train_step


def _masked_count(anchoring):
    """Whether masked batches count in the running statistics; where there are no others they must."""
    return anchoring.update_bn_when_masked or anchoring.mask_per != "batch" or anchoring.mask_prob == 1


def from_memory(train_step: TrainStep, batch_size: int) -> Callable[[Carry, TrainData, jax.Array], Carry]:
    """`step(carry, data, order) -> carry` on a training set that lies on the devices, for `parallel.repeated`.

    `order` holds its rows in the order of the epoch, int32 `[N]`; the step finds its place there from `state.step`.
    """

    def train_step_from_memory(carry, data, order):
        state, _ = carry
        place = state.step % (len(order) // batch_size)
        rows = local_shard(jax.lax.dynamic_slice_in_dim(order, place * batch_size, batch_size))
        return train_step(carry, data, Batch(data.images[rows], data.labels[rows]))

    return train_step_from_memory


def _in_parts(gradient, state, shown, depth_key, num_parts):
    """The gradient of the mean loss over a device's examples, part after part, so that less is held at once.

    It is that of all examples at once, but that BatchNorm takes its statistics part by part, and that stochastic depth
    and dropout draw for each part anew.
    """
    if num_parts == 1:
        return gradient(state.params, state.batch_stats, shown, depth_key)

    def add(carry, part):
        grads, (batch_stats, totals) = carry
        number, shown = part
        key = jax.random.fold_in(depth_key, number)
        part_grads, (batch_stats, part_totals) = gradient(state.params, batch_stats, shown, key)
        grads, totals = jax.tree.map(jnp.add, (grads, totals), (part_grads, part_totals))
        return (grads, (batch_stats, totals)), None

    parts = jax.tree.map(lambda array: array.reshape(num_parts, -1, *array.shape[1:]), shown)
    first = jax.tree.map(jnp.zeros_like, state.params), (state.batch_stats, Totals.zeros())
    on_device = backends.has_fast_device_loops(jax.default_backend())
    (grads, rest), _ = jax.lax.scan(add, first, (jnp.arange(num_parts), parts), unroll=1 if on_device else num_parts)
    return jax.tree.map(lambda total: total / num_parts, grads), rest


def _clipping(norm, greatest):
    """The factor that brings a gradient down to the greatest norm allowed, as PyTorch has it."""
    return jnp.minimum(1.0, greatest / (norm + 1e-6))


def _averaged(state, now, config):
    """The average after a step to these variables: exponential, over every so many steps."""
    if not state.average:
        return state.average
    is_due = (state.step + 1) % config.ema_every_steps == 0
    return optax.incremental_update(now, state.average, jnp.where(is_due, 1 - config.ema_decay, 0.0))


def _make_inputs(config, normalization, num_classes):
    """`inputs_of(key, data, batch)`: what the network is shown of this device's part of a batch."""
    augmentation = config.augmentation.copy_and_resolve_references()
    if config.data.streaming:
        augmentation.resized_crop = ()  # is done where images are decoded
    alphas = {name: augmentation[name] for name in ("mixup_alpha", "cutmix_alpha")}

    def inputs_of(key, data, batch):
        keys = step_keys(key)
        draw = local_shard(draw_step(keys, config.training.batch_size, len(data.bank), config.anchoring))
        images = augment(draw.augment_keys, batch.images, augmentation, data.pictures)
        x, targets = normalize(images, normalization), batch.labels
        if augmentation.erasing_prob:
            x = random_erasing(draw.erase_keys, x, augmentation.erasing_prob)
        if any(alphas.values()):
            x, targets = mixup_or_cutmix(keys.mix, x, jax.nn.one_hot(targets, num_classes), **alphas)
        if not config.anchoring.enabled:
            return ModelBatch(x, targets, draw.mask)
        if config.anchoring.references == "batch":
            references = _out_of_batch(x, draw.references, config.anchoring.group_size)
        else:
            references = normalize(data.images[data.bank[draw.references]], normalization)
        return ModelBatch(anchor(x, references, draw.mask), targets, draw.mask)

    return inputs_of


def _out_of_batch(x, rows, group_size):
    """References for this device's examples, out of the whole batch; groups that lie on one device send nothing."""
    if group_size and len(x) % group_size == 0:
        return x[rows - jax.lax.axis_index(AXIS) * len(x)]
    return jax.lax.all_gather(x, AXIS, tiled=True)[rows]


class SeedKeys(NamedTuple):
    """Keys of a run, from which all its randomness follows."""

    init: jax.Array  # of the parameters
    order: jax.Array  # of epochs
    step: jax.Array  # of the draws of steps
    depth: jax.Array  # of stochastic depth


def seed_keys(seed: int) -> SeedKeys:
    """The keys of a run with this seed."""
    return SeedKeys(*jax.random.split(jax.random.key(seed), 4))


def epoch_order(key: jax.Array, epoch: jax.Array, num_examples: int) -> jax.Array:
    """The rows of the training set in the order of one epoch, int32 `[N]`."""
    return jax.random.permutation(jax.random.fold_in(key, epoch), num_examples)


class StepKeys(NamedTuple):
    """Keys of a step, for what chance decides in it."""

    references: jax.Array
    mask: jax.Array
    augment: jax.Array
    erase: jax.Array
    mix: jax.Array  # once for the whole batch


def step_keys(key: jax.Array) -> StepKeys:
    """The keys of a step, from its one; none is another's child."""
    return StepKeys(*jax.random.split(key, len(StepKeys._fields)))


def draw_step(keys: StepKeys, batch_size: int, bank_size: int, config: AnchoringConfig) -> StepDraws:
    """What chance decides for each example of the whole batch, given `config.anchoring`."""
    return StepDraws(
        augment_keys=jax.random.split(keys.augment, batch_size),
        erase_keys=jax.random.split(keys.erase, batch_size),
        references=_draw_references(keys.references, batch_size, bank_size, config),
        mask=sample_mask(keys.mask, batch_size, config.mask_prob if config.enabled else 0.0, per=config.mask_per),
    )


def _draw_references(key, batch_size, bank_size, config):
    if not config.enabled:  # nobody looks at them, and there may be no bank
        return jnp.arange(batch_size)
    if config.references == "bank":
        return sample_references(key, jnp.arange(bank_size), batch_size, replace=config.replace)
    group_size = config.group_size or batch_size
    if config.replace:
        within = sample_references(key, jnp.arange(group_size), batch_size)
    else:
        keys = jax.random.split(key, batch_size // group_size)
        permuted = partial(sample_references, bank=jnp.arange(group_size), num=group_size, replace=False)
        within = jax.vmap(permuted)(keys).ravel()
    return jnp.arange(batch_size) // group_size * group_size + within


def batch_totals(losses: jax.Array, logits: jax.Array, shown: ModelBatch) -> Totals:
    """Sums over the examples of one batch; of mixed images the class with the greatest share counts."""
    labels = shown.targets if shown.targets.ndim == 1 else jnp.argmax(shown.targets, axis=-1)
    correct = jnp.argmax(logits, axis=-1) == labels
    entropy = predictive_entropy(jax.nn.softmax(logits))
    mask = shown.mask

    def total(values: Any) -> jax.Array:
        return jnp.sum(values, dtype=jnp.float32)

    return Totals.zeros()._replace(
        loss=total(losses),
        examples=jnp.float32(len(losses)),
        correct=total(correct & ~mask),
        masked_examples=total(mask),
        masked_correct=total(correct & mask),
        masked_entropy=total(jnp.where(mask, entropy, 0)),
    )
