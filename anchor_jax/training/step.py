"""One training step, written for one device of a mapped axis: batch -> model inputs -> loss -> gradient -> update."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from anchor_jax.config import Config, TrainingConfig
from anchor_jax.core.losses import anchored_cross_entropy
from anchor_jax.data import Batch, Normalization
from anchor_jax.models.layers import Classifier
from anchor_jax.runs.state import Carry, Totals, TrainState
from anchor_jax.runtime import backends
from anchor_jax.runtime.mesh import AXIS, local_shard
from anchor_jax.training import sharding
from anchor_jax.training.batch_norm import GroupSums, apply_in_groups, groups_share_masks
from anchor_jax.training.draws import draw_step, seed_keys, step_keys
from anchor_jax.training.model_batch import ModelBatch, TrainData, make_model_batch
from anchor_jax.training.optimizer import stop_frozen_gradients
from anchor_jax.training.train_metrics import batch_totals


class TrainStep(Protocol):
    """One training step on this device's part of a batch; for use inside a mapped function."""

    def __call__(self, carry: Carry, data: TrainData, batch: Batch, /) -> Carry:
        """Return the next state and the totals with those of this step added."""
        ...


class InMemoryStep(Protocol):
    """A training step that takes its batch from the training set on the device."""

    def __call__(self, carry: Carry, data: TrainData, order: jax.Array, /) -> Carry:
        """Make the step of `carry` on its batch; `order` is the order of the epoch's examples, int32 `[N]`."""
        ...


def make_train_step(
    model: Classifier,
    optimizer: optax.GradientTransformation,
    config: Config,
    normalization: Normalization,
    specs: TrainState | None = None,
) -> TrainStep:
    """Make the function `train_step((state, totals), data, batch) -> (state, totals)`.

    If the loss or the gradient is not finite, the step is skipped: only `state.step` and `state.skipped` change.

    Args:
      model: created with `axis_name=AXIS`.
      optimizer: of `optimizer.create`.
      config: of the run.
      normalization: of the images.
      specs: partition specs of a sharded state, see `sharding.state_partition_specs`; None if it is replicated.
    """
    keys = seed_keys(config.seed)
    param_specs = specs.params if specs else None
    anchoring, training = config.anchoring, config.training
    # if all batches are masked, the running statistics have no others to come from
    keeps_bn_when_masked = not anchoring.update_bn_when_masked and anchoring.mask_prob < 1
    bn_group_size = training.bn_group_size
    keeps_per_group = keeps_bn_when_masked and groups_share_masks(
        bn_group_size, anchoring.mask_per, anchoring.group_size
    )

    def loss_fn(params, batch_stats, examples: tuple[ModelBatch, jax.Array | None], depth_key):
        model_batch, bn_mask = examples
        if config.optimizer.frozen:
            params = stop_frozen_gradients(params, config.optimizer.frozen)
        variables, inputs = {"params": params, "batch_stats": batch_stats}, model_batch.inputs
        rngs = {"stochastic_depth": depth_key, "dropout": depth_key}  # every layer folds in its own name
        if bn_group_size:
            logits, statistics = apply_in_groups(model, bn_group_size, variables, inputs, bn_mask, rngs=rngs)
        else:
            logits, updates = model.apply(variables, inputs, train=True, mutable=["batch_stats"], rngs=rngs)
            statistics = updates.get("batch_stats", {})
        losses = anchored_cross_entropy(
            logits,
            model_batch.targets,
            model_batch.mask,
            masked_target=anchoring.masked_target,
            label_smoothing=training.label_smoothing,
        )
        return jnp.mean(losses), (statistics, batch_totals(losses, logits, model_batch))

    gradient_fn = jax.grad(sharding.fsdp_loss(loss_fn, param_specs), has_aux=True)

    def train_step(carry, data, batch):
        state, totals = carry
        step_key = jax.random.fold_in(keys.step, state.step)
        draws = draw_step(step_keys(step_key), state.step, training.batch_size, data.bank_size, anchoring)
        model_batch = make_model_batch(draws, data, batch, config, normalization, model.num_classes)
        depth_key = jax.random.fold_in(keys.depth, state.step)

        bn_mask = local_shard(draws.per_example.mask) if keeps_per_group else None
        grads, (statistics, step_totals) = _accumulate_gradients(
            gradient_fn, state, (model_batch, bn_mask), depth_key, training
        )
        grads, step_totals = sharding.mean_over_devices(grads, param_specs), jax.lax.psum(step_totals, AXIS)
        gradient_norm = sharding.global_norm(grads, param_specs)
        step_totals = step_totals._replace(steps=1.0, gradient_norm=gradient_norm)
        if bn_group_size:
            batch_stats = jax.lax.psum(statistics, AXIS).mean(state.batch_stats)
        elif draws.batch_is_masked is not None and keeps_bn_when_masked:
            batch_stats = jax.tree.map(partial(jnp.where, draws.batch_is_masked), state.batch_stats, statistics)
        else:
            batch_stats = statistics

        if config.optimizer.clip_norm:
            grads = _clip_by_norm(grads, gradient_norm, config.optimizer.clip_norm)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = _update_ema(state, {"params": params, "batch_stats": batch_stats}, training)

        is_finite = jnp.isfinite(step_totals.loss) & jnp.isfinite(gradient_norm)
        skipped = state.skipped.update(~is_finite, state.step + 1)
        updated = TrainState(state.step + 1, params, batch_stats, opt_state, average, skipped)
        unchanged = state._replace(step=state.step + 1, skipped=skipped)
        updated_totals = jax.tree.map(jnp.add, totals, step_totals)
        return jax.tree.map(partial(jnp.where, is_finite), (updated, updated_totals), (unchanged, totals))

    return train_step


def make_in_memory_step(train_step: TrainStep, batch_size: int) -> InMemoryStep:
    """Make a training step take its batch from the training set on the device, see `runtime.mesh.run_n_steps`.

    The position in the epoch follows from `state.step`.
    """

    def in_memory_train_step(carry, data, order):
        state, _ = carry
        step_in_epoch = state.step % (len(order) // batch_size)
        rows = local_shard(jax.lax.dynamic_slice_in_dim(order, step_in_epoch * batch_size, batch_size))
        return train_step(carry, data, Batch(data.images[rows], data.labels[rows]))

    return in_memory_train_step


def _accumulate_gradients(
    gradient_fn: Callable[..., Any],
    state: TrainState,
    examples: Any,
    depth_key: jax.Array,
    config: TrainingConfig,
) -> tuple[Any, tuple[Any, Totals]]:
    """Compute the gradient of the mean loss over a device's examples, in parts to save memory.

    The result is that of all examples at once, except that BatchNorm computes its statistics per part unless it does so
    per group, and that stochastic depth and dropout draw anew for each part.

    Returns:
      The gradient, the batch statistics after the last part or the `GroupSums` of all parts, and the totals.
    """
    num_parts, has_groups = config.accumulation_steps, config.bn_group_size > 0
    if num_parts == 1:
        return gradient_fn(state.params, state.batch_stats, examples, depth_key)

    def add_part(sums, part):
        grads, (statistics, totals) = sums
        index, part_examples = part
        batch_stats = state.batch_stats if has_groups else statistics
        part_grads, (part_statistics, part_totals) = gradient_fn(
            state.params, batch_stats, part_examples, jax.random.fold_in(depth_key, index)
        )
        grads, totals = jax.tree.map(jnp.add, (grads, totals), (part_grads, part_totals))
        statistics = jax.tree.map(jnp.add, statistics, part_statistics) if has_groups else part_statistics
        return (grads, (statistics, totals)), None

    parts = jax.tree.map(lambda array: array.reshape(num_parts, -1, *array.shape[1:]), examples)
    statistics = GroupSums.zeros(state.batch_stats) if has_groups else state.batch_stats
    zeros = jax.tree.map(jnp.zeros_like, state.params), (statistics, Totals.zeros())
    (grads, aux), _ = backends.scan(add_part, zeros, (jnp.arange(num_parts), parts), num_parts)
    return jax.tree.map(lambda total: total / num_parts, grads), aux


def _clip_by_norm(grads: Any, norm: jax.Array, max_norm: float) -> Any:
    """Scale gradients of a known norm down to `max_norm`, as `torch.nn.utils.clip_grad_norm_` does."""
    return jax.tree.map(partial(jnp.multiply, jnp.minimum(1.0, max_norm / (norm + 1e-6))), grads)


def _update_ema(state: TrainState, variables: Any, config: TrainingConfig) -> Any:
    """Return the exponential moving average, updated every `ema_every_steps` steps; {} if the run keeps none."""
    if not state.average:
        return state.average
    is_due = (state.step + 1) % config.ema_every_steps == 0
    return optax.incremental_update(variables, state.average, jnp.where(is_due, 1 - config.ema_decay, 0.0))
