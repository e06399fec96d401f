"""Optimizers and learning rate schedules, composed of optax transformations.

The kind and depth of a parameter follow from its name alone, since a device may hold only a shard of it.
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

# Kinds with their own `config.optimizer.<kind>_weight_decay`, and patterns of parameter names; the first match counts.
_KINDS = {
    "position": re.compile(r"(^|/)(class_token|distillation_token|position_embedding|position_fc\d|logit_scale)(/|$)"),
    "norm": re.compile(r"(^|[/_])(bn|norm)\d*/(scale|bias)$"),
    "bias": re.compile(r"(^|[/_])bias$"),
}

_HEAD_DEPTH = (math.inf, 0)  # after all (stage, block)


def create(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Create the optimizer of a config, for the parameters of a model of `anchor_jax.models`.

    "sgd" is `torch.optim.SGD` (as in `CIFAR/train.py` of the released code): weight decay is added to the gradient
    before the momentum. "adamw" is `torch.optim.AdamW`, with decoupled weight decay.

    All parameters have the same weight decay, as in PyTorch, unless a kind has its own:

    - norm: scales and biases of BatchNorm and LayerNorm;
    - bias: all other biases, including those of SwinV2's queries and values;
    - position: class and distillation tokens, position embeddings, and their counterparts in SwinV2: the network of
      relative position biases and the logit scales of cosine attention. The authors of SwinV2 and timm exclude both
      from weight decay; torchvision and the released code decay the weights of both.

    Frozen parameters get no update and no weight decay, and the optimizer keeps no state for them. The running
    statistics of BatchNorm are not parameters; they are updated even if the layer is frozen.

    Args:
      config: `config.optimizer`.
      schedule: the learning rate, see `create_schedule`.

    Raises:
      UserError: in `init`, if an entry of `config.frozen` matches no parameter, or if all parameters are frozen.
    """
    weight_decay = _add_decayed_weights(config)
    if config.name == "adamw":
        optimizer = optax.chain(optax.scale_by_adam(), weight_decay, optax.scale_by_learning_rate(schedule))
    else:
        optimizer = optax.chain(weight_decay, optax.sgd(schedule, config.momentum, config.nesterov))
    if config.frozen:
        labels = partial(frozen_labels, frozen=config.frozen)
        optimizer = optax.partition({TRAINED: optimizer, FROZEN: optax.set_to_zero()}, labels)
    if config.layer_decay != 1:
        optimizer = optax.chain(optimizer, _scale_by_layer(config.layer_decay))
    return optimizer


def create_schedule(config: OptimizerConfig, steps_per_epoch: int, total_steps: int) -> optax.Schedule:
    """Create the learning rate schedule: linear warmup, then decay at milestones, by a half cosine or linearly.

    Args:
      config: `config.optimizer`.
      steps_per_epoch: converts the epochs of the config.
      total_steps: where the cosine or the line ends.

    Returns:
      A function of the step, counted from 0.

    Raises:
      UserError: the final learning rate is above the peak.
    """
    warmup_steps, peak = round(config.warmup_epochs * steps_per_epoch), config.learning_rate
    if config.final_learning_rate > peak:
        raise UserError(
            f"config.optimizer.final_learning_rate must be at most the learning_rate, {peak}; "
            f"got {config.final_learning_rate}"
        )
    if config.schedule == "cosine":
        final_fraction = config.final_learning_rate / peak if peak else 0.0
        decay = optax.cosine_decay_schedule(peak, max(total_steps - warmup_steps, 1), final_fraction)
    elif config.schedule == "linear":
        decay = optax.linear_schedule(peak, config.final_learning_rate, max(total_steps - warmup_steps, 1))
    else:
        milestones = Counter(round(epoch * steps_per_epoch) - warmup_steps for epoch in config.milestones_epochs)
        decay = optax.piecewise_constant_schedule(
            peak, {step: config.decay_factor**count for step, count in milestones.items()}
        )
    if not warmup_steps:
        return decay
    warmup = optax.linear_schedule(config.warmup_from * peak, peak, warmup_steps)
    return optax.join_schedules([warmup, decay], [warmup_steps])


def layer_scales(params: Mapping[str, Any], decay: float) -> dict[str, Any]:
    """Return the learning rate factor of each parameter by depth (BEiT, Bao et al. 2022, arXiv 2106.08254).

    The head has factor 1, the last block and the norm after it `decay`, the block before it `decay²`, and so on down to
    the first layer with its norm, tokens and position embeddings. Patch merging and downsampling belong to the block
    after them. In an MLP, each layer is a block and the last one is the head. The groups are those of timm.

    Args:
      params: parameters of a model of `anchor_jax.models`, or their shapes.
      decay: factor per block, in [0, 1].

    Returns:
      One float per parameter.
    """
    found = {module: _depth(module) for module in params}
    last_block = max(depth for depth in found.values() if depth and depth < _HEAD_DEPTH)
    depths = {module: depth or last_block for module, depth in found.items()}
    deepest_first = sorted(set(depths.values()), reverse=True)
    return jax.tree.map_with_path(lambda path, _: decay ** deepest_first.index(depths[path[0].key]), dict(params))


def frozen_labels(params: Mapping[str, Any], frozen: Sequence[str]) -> dict[str, Any]:
    """Label each parameter `TRAINED` or, if its name starts with an entry of `frozen`, `FROZEN`.

    Numbers match as a whole: "stage1" matches all of the first stage, and "block1" does not match "block10".

    Raises:
      UserError: an entry matches no parameter, or all parameters match.
    """
    patterns = {
        prefix: re.compile(re.escape(prefix) + (r"(?!\d)" if prefix[-1:].isdigit() else "")) for prefix in frozen
    }

    def label(path, _) -> str:
        return FROZEN if any(pattern.match(_name(path)) for pattern in patterns.values()) else TRAINED

    names = [_name(path) for path, _ in jax.tree.leaves_with_path(params)]
    for prefix, pattern in patterns.items():
        if not any(map(pattern.match, names)):
            raise unknown("parameters in config.optimizer.frozen", prefix, params)
    labels = jax.tree.map_with_path(label, dict(params))
    if TRAINED not in jax.tree.leaves(labels):
        raise UserError(f"config.optimizer.frozen must leave something to train; got {tuple(frozen)}")
    return labels


def stop_frozen_gradients(params: Mapping[str, Any], frozen: Sequence[str]) -> dict[str, Any]:
    """Stop the gradients of frozen parameters, so that they are not computed and do not count in the norm."""
    labels = frozen_labels(params, frozen)
    return jax.tree.map(lambda label, param: jax.lax.stop_gradient(param) if label == FROZEN else param, labels, params)


def _add_decayed_weights(config: OptimizerConfig) -> optax.GradientTransformation:
    """Do what `optax.add_decayed_weights` does, with the weight decay of each parameter's kind."""

    def weight_decay(name: str) -> float:
        kind = next((kind for kind, pattern in _KINDS.items() if pattern.search(name)), None)
        of_kind = config[f"{kind}_weight_decay"] if kind else -1
        return config.weight_decay if of_kind < 0 else of_kind

    def add_decay(updates, params):
        return jax.tree.map_with_path(
            lambda path, update, param: update + weight_decay(_name(path)) * param, updates, params
        )

    return optax.stateless(add_decay)


def _scale_by_layer(decay: float) -> optax.GradientTransformation:
    def scale(updates, params):
        return jax.tree.map(jnp.multiply, updates, layer_scales(params, decay))

    return optax.stateless(scale)


def _depth(module: str) -> tuple[float, float] | None:
    """Return (stage, block) of a module, both from 1; (0, 0) before all blocks, None for a norm after all of them."""
    if module == "head":
        return _HEAD_DEPTH
    if module in ("bn", "norm"):
        return None
    if block := re.fullmatch(r"(?:stage(\d+)_)?(?:block|Dense_)(\d+)", module):
        return int(block[1] or 1), int(block[2])
    if merging := re.fullmatch(r"merging(\d+)", module):
        return int(merging[1]) + 1, 1
    return 0, 0


def _name(path) -> str:
    """Return the name of a parameter, such as "stage1_block1/conv1/kernel"."""
    return "/".join(part.key for part in path)
