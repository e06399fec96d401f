"""Optimizer and learning-rate schedule of a configuration, from optax.

What a parameter is, and how deep it lies, its name alone tells: shapes differ where a device holds a part of it.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from anchor_jax.config import OptimizerConfig
from anchor_jax.core.errors import UserError, unknown

TRAINED, FROZEN = "trained", "frozen"

# kind -> names of its parameters, of which the first kind that fits counts: config.optimizer.KIND_weight_decay
_KINDS = {
    "position": re.compile(r"(^|/)(class_token|distillation_token|position_embedding|position_fc\d|logit_scale)(/|$)"),
    "norm": re.compile(r"(^|[/_])(bn|norm)\d*/(scale|bias)$"),
    "bias": re.compile(r"(^|[/_])bias$"),
}

_HEAD = (math.inf, 0)  # the place after all blocks


def create(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """The optimizer of `config.optimizer` with a schedule, for the parameters of a model of `anchor_jax.models`.

    "sgd" is `torch.optim.SGD` (`CIFAR/train.py` of the released code): the decay joins the gradient before
    the momentum. "adamw" decays apart from the gradient, as `torch.optim.AdamW` does.

    The weight decay is one for all parameters, as PyTorch has it, or another one for

    - norms: scales and biases of BatchNorm and LayerNorm;
    - biases: all others, those of SwinV2's queries and values among them;
    - positions: class and distillation token, position embedding, and what SwinV2 has in their place: the network of
      its relative positions and the scales of its cosines, which its authors and timm leave out of the decay together
      (torchvision and the released code decay the weights of both).

    A frozen parameter gets no update and no decay, and the optimizer holds nothing for it. Running statistics of
    BatchNorm are no parameters: they go on.

    Raises:
      UserError: when the optimizer is initialised, if a frozen beginning is that of no parameter's name, or all are
        frozen.
    """
    decay = _add_decayed_weights(config)
    if config.name == "adamw":
        optimizer = optax.chain(optax.scale_by_adam(), decay, optax.scale_by_learning_rate(schedule))
    else:
        optimizer = optax.chain(decay, optax.sgd(schedule, config.momentum))
    if config.frozen:
        labels = partial(trained_or_frozen, frozen=config.frozen)
        optimizer = optax.partition({TRAINED: optimizer, FROZEN: optax.set_to_zero()}, labels)
    if config.layer_decay != 1:
        optimizer = optax.chain(optimizer, _scale_by_layer(config.layer_decay))
    return optimizer


def create_schedule(config: OptimizerConfig, steps_per_epoch: int, total_steps: int) -> optax.Schedule:
    """Step -> learning rate: linear warm-up, then steps down at the milestones or half a cosine to the last one.

    Raises:
      UserError: the learning rate at the end is above the highest.
    """
    warmup_steps, highest = round(config.warmup_epochs * steps_per_epoch), config.learning_rate
    if config.final_learning_rate > highest:
        raise UserError(
            f"config.optimizer.final_learning_rate must be at most the learning_rate, {highest}; "
            f"got {config.final_learning_rate}"
        )
    if config.schedule == "cosine":
        last = config.final_learning_rate / highest if highest else 0.0
        after = optax.cosine_decay_schedule(highest, max(total_steps - warmup_steps, 1), last)
    else:
        milestones = Counter(round(epoch * steps_per_epoch) - warmup_steps for epoch in config.milestones_epochs)
        after = optax.piecewise_constant_schedule(
            highest, {step: config.decay_factor**count for step, count in milestones.items()}
        )
    if not warmup_steps:
        return after
    warmup = optax.linear_schedule(config.warmup_from * highest, highest, warmup_steps)
    return optax.join_schedules([warmup, after], [warmup_steps])


def layer_scales(params: Mapping[str, Any], decay: float) -> dict[str, Any]:
    """Factors of the learning rate, by depth (BEiT, Bao et al. 2022, arXiv 2106.08254; groups as in timm).

    The head has 1, the last block and the norm after it `decay`, the block before it `decay²`, and so on down to the
    first layer, with its norm, tokens and positions. What merges patches or shortens images belongs to the block after
    it. In an MLP each layer is a block, the last one the head.

    Args:
      params: parameters of a model of `anchor_jax.models`, or their shapes.
      decay: from each block to the one before it, in [0, 1].

    Returns:
      One float for each parameter.
    """
    found = {module: _place(module) for module in params}
    last_block = max(place for place in found.values() if place and place < _HEAD)
    places = {module: place or last_block for module, place in found.items()}
    deepest_first = sorted(set(places.values()), reverse=True)
    return jax.tree.map_with_path(lambda path, _: decay ** deepest_first.index(places[path[0].key]), dict(params))


def trained_or_frozen(params: Mapping[str, Any], frozen: Sequence[str]) -> dict[str, Any]:
    """For each parameter `TRAINED` or, where its name has one of the beginnings `frozen`, `FROZEN`.

    "stage1" begins all names in the first stage, "block1" those in the first block, not those in the tenth.

    Raises:
      UserError: no name has one of the beginnings, or each has one.
    """
    # "block1" is not what "block10" begins with
    beginnings = {text: re.compile(re.escape(text) + (r"(?!\d)" if text[-1:].isdigit() else "")) for text in frozen}

    def label(path, _) -> str:
        return FROZEN if any(beginning.match(_name(path)) for beginning in beginnings.values()) else TRAINED

    names = [_name(path) for path, _ in jax.tree.leaves_with_path(params)]
    for text, beginning in beginnings.items():
        if not any(map(beginning.match, names)):
            raise unknown("parameters in config.optimizer.frozen", text, params)
    labels = jax.tree.map_with_path(label, dict(params))
    if TRAINED not in jax.tree.leaves(labels):
        raise UserError(f"config.optimizer.frozen must leave something to train; got {tuple(frozen)}")
    return labels


def without_gradient(params: Mapping[str, Any], frozen: Sequence[str]) -> dict[str, Any]:
    """The parameters, of which frozen ones let no gradient through: none is computed, none counts in a norm."""
    labels = trained_or_frozen(params, frozen)
    return jax.tree.map(lambda label, param: jax.lax.stop_gradient(param) if label == FROZEN else param, labels, params)


def _add_decayed_weights(config):
    """As `optax.add_decayed_weights`, with the decay of each parameter's kind."""

    def decay_of(name):
        kind = next((kind for kind, names in _KINDS.items() if names.search(name)), None)
        own = config[f"{kind}_weight_decay"] if kind else -1
        return config.weight_decay if own < 0 else own

    def decayed(updates, params):
        return jax.tree.map_with_path(
            lambda path, update, param: update + decay_of(_name(path)) * param, updates, params
        )

    return optax.stateless(decayed)


def _scale_by_layer(decay):
    def scaled(updates, params):
        return jax.tree.map(jnp.multiply, updates, layer_scales(params, decay))

    return optax.stateless(scaled)


def _place(module: str) -> tuple[float, float] | None:
    """Stage and block of a module, both from 1; (0, 0) before all blocks; None for a norm after all of them."""
    if module == "head":
        return _HEAD
    if module in ("bn", "norm"):
        return None
    if block := re.fullmatch(r"(?:stage(\d+)_)?(?:block|Dense_)(\d+)", module):
        return int(block[1] or 1), int(block[2])
    if merging := re.fullmatch(r"merging(\d+)", module):
        return int(merging[1]) + 1, 1
    return 0, 0


def _name(path) -> str:
    """Such as "stage1_block1/conv1/kernel"."""
    return "/".join(part.key for part in path)
