"""How the state of training lies on the devices: all of it on each of them, or divided among them.

Divided (`config.training.sharding="fsdp"`, Rajbhandari et al. 2020, arXiv 1910.02054, stage 3), every device keeps
its share of each large parameter, of what the optimizer has on it and of its average. A parameter is gathered where it
is used, in the forward pass and once more in the backward pass (but what a model casts to bfloat16 is kept in between);
its gradient is summed up as it is divided again.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from anchor_jax.runs.state import TrainState
from anchor_jax.runtime.mesh import AXIS, REPLICATED

MIN_SIZE = 1024  # of numbers in an array that is divided: a message for less costs more than it saves


def state_partition_specs(shapes: TrainState, num_devices: int, sharding: str) -> TrainState | None:
    """Which part of the state each of so many devices holds: a `PartitionSpec` for each array, given their shapes.

    An array is divided along the longest of its axes that can be; statistics are the same everywhere. None where
    all of the state is.
    """
    if sharding == "replicated":
        return None
    divided: TrainState = jax.tree.map(lambda leaf: _spec_of(leaf.shape, num_devices), shapes)
    same: TrainState = jax.tree.map(lambda _: REPLICATED, shapes)
    average = same.average | ({"params": divided.average["params"]} if shapes.average else {})
    return same._replace(params=divided.params, opt_state=divided.opt_state, average=average)


def _spec_of(shape: tuple[int, ...], num_devices: int) -> PartitionSpec:
    axes = [axis for axis, length in enumerate(shape) if length % num_devices == 0]
    if math.prod(shape) < MIN_SIZE or not axes:
        return REPLICATED
    longest = max(axes, key=lambda axis: shape[axis])
    return PartitionSpec(*[None] * longest, AXIS)


def fsdp_loss(loss_of: Callable[..., Any], specs: Any) -> Callable[..., Any]:
    """A loss of this device's shares of the parameters, from one of all parameters, which it gathers.

    What was gathered for the forward pass is not kept for the backward pass. Inside a mapped step.
    """
    if specs is None:
        return loss_of

    def loss(shares, *args):
        return loss_of(jax.tree.map(_gathered, shares, specs), *args)

    return jax.checkpoint(loss, policy=lambda primitive, *_, **__: primitive is not jax.lax.all_gather_p)


def _gathered(share, spec):
    return jax.lax.all_gather(share, AXIS, axis=len(spec) - 1, tiled=True) if _is_divided(spec) else share


def mean_over_devices(gradients: Any, specs: Any) -> Any:
    """Each device's gradients to their mean over devices, of its shares where parameters are divided."""
    shares, same = _parted(gradients, specs)
    num_devices = jax.lax.axis_size(AXIS)
    # the shares were summed up when they were divided, see `loss_of_shares`; all others go in one message
    means = [share / num_devices for share in shares], jax.lax.pmean(same, AXIS)
    return _joined(*means, gradients, specs)


def norm(tree: Any, specs: Any) -> jax.Array:
    """The Euclidean norm of all numbers of a tree of which each device holds its shares: float32 `[]`."""
    shares, same = _parted(tree, specs)
    squares = _squares(same)
    if shares:
        squares += jax.lax.psum(_squares(shares), AXIS)
    return jnp.sqrt(squares)


def _squares(arrays):
    return sum((jnp.sum(jnp.square(array.astype(jnp.float32))) for array in arrays), jnp.float32(0))


def _parted(tree, specs):
    """The arrays of a tree: those of which a device holds its share, and those that are the same everywhere."""
    leaves, divided = jax.tree.leaves(tree), _divided(tree, specs)
    return tuple([leaf for leaf, is_share in zip(leaves, divided, strict=True) if is_share == kind] for kind in (1, 0))


def _joined(shares, same, tree, specs):
    """The inverse of `_parted`, in the form of a tree."""
    shares, same = iter(shares), iter(same)
    leaves = [next(shares if is_share else same) for is_share in _divided(tree, specs)]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def _divided(tree, specs):
    structure = jax.tree.structure(tree)
    if specs is None:
        return [False] * structure.num_leaves
    return [_is_divided(spec) for spec in structure.flatten_up_to(specs)]


def _is_divided(spec):
    return AXIS in spec
