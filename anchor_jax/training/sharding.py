"""Placement of the training state: replicated on every device, or sharded over the devices.

With `config.training.sharding="fsdp"` (Rajbhandari et al. 2020, arXiv 1910.02054, stage 3), every device stores a shard
of each large parameter, of its optimizer state and of its moving average. A parameter is gathered where it is used, in
the forward pass and again in the backward pass (except that what a model casts to bfloat16 is kept in between). Its
gradient is summed over the devices and scattered in one operation.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from anchor_jax.runs.state import TrainState
from anchor_jax.runtime.mesh import AXIS, REPLICATED

MIN_SIZE = 1024  # elements of a sharded array; for smaller ones, the communication costs more than sharding saves


def state_partition_specs(shapes: TrainState, num_devices: int, sharding: str) -> TrainState | None:
    """Return the `PartitionSpec` of each array of the state, or None if the state is replicated.

    An array is sharded along the longest axis that `num_devices` divides. BatchNorm statistics are replicated.

    Args:
      shapes: shapes of the state, see `jax.eval_shape`.
      num_devices: number of devices.
      sharding: "replicated" or "fsdp".
    """
    if sharding == "replicated":
        return None
    sharded: TrainState = jax.tree.map(lambda leaf: _array_spec(leaf.shape, num_devices), shapes)
    replicated: TrainState = jax.tree.map(lambda _: REPLICATED, shapes)
    average = replicated.average | ({"params": sharded.average["params"]} if shapes.average else {})
    return replicated._replace(params=sharded.params, opt_state=sharded.opt_state, average=average)


def _array_spec(shape: tuple[int, ...], num_devices: int) -> PartitionSpec:
    axes = [axis for axis, length in enumerate(shape) if length % num_devices == 0]
    if math.prod(shape) < MIN_SIZE or not axes:
        return REPLICATED
    longest = max(axes, key=lambda axis: shape[axis])
    return PartitionSpec(*[None] * longest, AXIS)


def fsdp_loss(loss_fn: Callable[..., Any], specs: Any) -> Callable[..., Any]:
    """Turn a loss of the parameters into a loss of this device's shards, which are gathered before use.

    The gathered parameters are not kept for the backward pass. For use inside a mapped step.

    Args:
      loss_fn: function of parameters and other arguments.
      specs: partition specs of the parameters; None if they are replicated.
    """
    if specs is None:
        return loss_fn

    def loss_of_shards(shards, *args):
        return loss_fn(jax.tree.map(_gather, shards, specs), *args)

    return jax.checkpoint(loss_of_shards, policy=lambda primitive, *_, **__: primitive is not jax.lax.all_gather_p)


def _gather(shard: jax.Array, spec: PartitionSpec) -> jax.Array:
    return jax.lax.all_gather(shard, AXIS, axis=len(spec) - 1, tiled=True) if _is_sharded(spec) else shard


def mean_over_devices(grads: Any, specs: Any) -> Any:
    """Average gradients over the devices; for use inside a mapped step.

    Args:
      grads: gradients on this device; of sharded parameters, the sums of `fsdp_loss` over the devices.
      specs: partition specs of the parameters; None if they are replicated.
    """
    shards, replicated = _partition(grads, specs)
    num_devices = jax.lax.axis_size(AXIS)
    # the gradient of `all_gather` has already summed the shards; all other gradients go into one all-reduce
    means = [shard / num_devices for shard in shards], jax.lax.pmean(replicated, AXIS)
    return _combine(*means, grads, specs)


def global_norm(tree: Any, specs: Any) -> jax.Array:
    """Compute the Euclidean norm of all elements of a tree, float32 `[]`; for use inside a mapped step.

    Args:
      tree: arrays; of sharded ones, this device's shards.
      specs: partition specs of the tree; None if it is replicated.
    """
    shards, replicated = _partition(tree, specs)
    squares = _sum_of_squares(replicated)
    if shards:
        squares += jax.lax.psum(_sum_of_squares(shards), AXIS)
    return jnp.sqrt(squares)


def _sum_of_squares(arrays):
    return sum((jnp.sum(jnp.square(array.astype(jnp.float32))) for array in arrays), jnp.float32(0))


def _partition(tree, specs):
    """Separate the arrays of a tree into shards and replicated arrays."""
    leaves, sharded = jax.tree.leaves(tree), _which_are_sharded(tree, specs)
    shards = [leaf for leaf, is_sharded in zip(leaves, sharded, strict=True) if is_sharded]
    replicated = [leaf for leaf, is_sharded in zip(leaves, sharded, strict=True) if not is_sharded]
    return shards, replicated


def _combine(shards, replicated, tree, specs):
    """Undo `_partition`; the result has the structure of `tree`."""
    shards, replicated = iter(shards), iter(replicated)
    leaves = [next(shards if is_sharded else replicated) for is_sharded in _which_are_sharded(tree, specs)]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def _which_are_sharded(tree, specs) -> list[bool]:
    structure = jax.tree.structure(tree)
    if specs is None:
        return [False] * structure.num_leaves
    return [_is_sharded(spec) for spec in structure.flatten_up_to(specs)]


def _is_sharded(spec: PartitionSpec) -> bool:
    return AXIS in spec
