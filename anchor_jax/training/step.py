"""One training step, written for one device with a named axis.

Data flows one way: rows of the data set -> augmented batch -> references and mask -> anchored inputs ->
objective -> update. All randomness is drawn for the whole batch from (seed, step), and every device takes
its own part of it, so that a run does not depend on how many devices there are.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from anchor_jax.anchoring import anchor, sample_mask, sample_references
from anchor_jax.config import Config
from anchor_jax.data.augmentation import Normalization, augmented, normalize
from anchor_jax.objective import anchored_cross_entropy
from anchor_jax.parallel import AXIS, own_part
from anchor_jax.training.state import TrainState
from anchor_jax.uncertainty import predictive_entropy


class TrainData(NamedTuple):
    """The training set on the device."""

    images: jax.Array  # uint8 [N, H, W, C]
    labels: jax.Array  # int32 [N]
    bank: jax.Array  # int32 [M], the rows that serve as references


class Draw(NamedTuple):
    """What chance decides of one step; B examples."""

    rows: jax.Array  # int32 [B], of the training set
    augment_keys: jax.Array  # key [B]
    reference_rows: jax.Array  # int32 [B], of the training set
    reference_keys: jax.Array  # key [B], of the augmentation where the reference is another example of the batch
    mask: jax.Array  # bool [B], true where the reference is masked


class Totals(NamedTuple):
    """Sums over steps and examples, float32 []; masked inputs apart, since they are asked something else."""

    loss: jax.Array
    examples: jax.Array
    correct: jax.Array  # of the inputs not masked
    masked_examples: jax.Array
    masked_correct: jax.Array
    masked_entropy: jax.Array  # nats

    @classmethod
    def zeros(cls) -> "Totals":
        """Of no step."""
        return cls(*(jnp.float32(0) for _ in cls._fields))


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    config: Config,
    normalization: Normalization,
) -> Callable[[tuple[TrainState, Totals], TrainData, jax.Array], tuple[TrainState, Totals]]:
    """`train_step((state, totals), data, order) -> (state, totals)`, for `parallel.repeated`.

    `order` holds the rows of the training set in the order of the epoch, int32 `[N]`; the step finds its
    place in it from `state.step`.
    """
    keys = seed_keys(config.seed)
    batch_size = config.training.batch_size
    inputs_of = _make_inputs(config, normalization)

    def loss_of(params, batch_stats, inputs, labels, mask, rngs):
        variables = {"params": params, "batch_stats": batch_stats}
        logits, updates = model.apply(variables, inputs, train=True, mutable=["batch_stats"], rngs=rngs)
        losses = anchored_cross_entropy(
            logits,
            labels,
            mask,
            masked_target=config.anchoring.masked_target,
            label_smoothing=config.training.label_smoothing,
        )
        return jnp.mean(losses), (updates.get("batch_stats", {}), totals_of(losses, logits, labels, mask))

    def train_step(carry, data, order):
        state, totals = carry
        place = state.step % (len(order) // batch_size)
        rows = jax.lax.dynamic_slice_in_dim(order, place * batch_size, batch_size)
        draw = own_part(draw_step(jax.random.fold_in(keys.step, state.step), rows, data.bank, config.anchoring))

        inputs, labels = inputs_of(data, draw), data.labels[draw.rows]
        rngs = {"stochastic_depth": jax.random.fold_in(keys.depth, state.step)}
        gradient = jax.grad(loss_of, has_aux=True)
        grads, (batch_stats, step_totals) = gradient(state.params, state.batch_stats, inputs, labels, draw.mask, rngs)
        grads, step_totals = jax.lax.pmean(grads, AXIS), jax.lax.psum(step_totals, AXIS)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, batch_stats, opt_state), jax.tree.map(jnp.add, totals, step_totals)

    return train_step


def _make_inputs(config, normalization):
    """`inputs_of(data, draw)`: what the network sees of a draw, float32 `[B, H, W, C or 2C]`."""
    from_batch = config.anchoring.references == "batch"
    augment = partial(augmented, config=config.augmentation)

    def inputs_of(data, draw):
        x = normalize(augment(draw.augment_keys, data.images[draw.rows]), normalization)
        if not config.anchoring.enabled:
            return x
        references = data.images[draw.reference_rows]
        if from_batch:
            references = augment(draw.reference_keys, references)
        return anchor(x, normalize(references, normalization), draw.mask)

    return inputs_of


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


def draw_step(key: jax.Array, rows: jax.Array, bank: jax.Array, config: Config) -> Draw:
    """What chance decides for the whole batch of rows `[B]`, given `config.anchoring`."""
    reference_key, mask_key, augment_key = jax.random.split(key, 3)
    augment_keys = jax.random.split(augment_key, len(rows))
    if config.references == "batch":
        others = sample_references(reference_key, jnp.arange(len(rows)), len(rows))
        reference_rows, reference_keys = rows[others], augment_keys[others]
    else:
        reference_rows, reference_keys = sample_references(reference_key, bank, len(rows)), augment_keys
    mask_prob = config.mask_prob if config.enabled else 0.0
    mask = sample_mask(mask_key, len(rows), mask_prob, per=config.mask_per)
    return Draw(rows, augment_keys, reference_rows, reference_keys, mask)


def totals_of(losses: jax.Array, logits: jax.Array, labels: jax.Array, mask: jax.Array) -> Totals:
    """Sums over the examples of one batch."""
    correct = jnp.argmax(logits, axis=-1) == labels
    entropy = predictive_entropy(jax.nn.softmax(logits))

    def total(values: Any) -> jax.Array:
        return jnp.sum(values, dtype=jnp.float32)

    return Totals(
        loss=total(losses),
        examples=jnp.float32(len(losses)),
        correct=total(correct & ~mask),
        masked_examples=total(mask),
        masked_correct=total(correct & mask),
        masked_entropy=total(jnp.where(mask, entropy, 0)),
    )
