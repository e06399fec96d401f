"""BatchNorm with statistics of groups of consecutive examples, independent of the number of devices.

With one group per device, this is data-parallel training without synchronized statistics. Source: Hoffer et al. 2017,
*Train longer, generalize better*, arXiv 1705.08741, "ghost batch normalization".
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from anchor_jax.models.layers import Classifier
from anchor_jax.runtime.mesh import AXIS

_GROUPS = "groups"  # name of the mapped axis over the groups of a device


class GroupSums(NamedTuple):
    """Running statistics after a step, summed over groups of examples.

    Attributes:
      statistics: sums of the running statistics as each group alone would update them; float32.
      num_groups: number of summed groups, float32 [].
    """

    statistics: Any
    num_groups: jax.Array

    @classmethod
    def zeros(cls, batch_stats: Any) -> "GroupSums":
        """Return the sums over no groups."""
        return cls(jax.tree.map(jnp.zeros_like, batch_stats), jnp.float32(0))

    def mean(self, before: Any) -> Any:
        """Return the mean over the groups; without any, the statistics before the step."""
        num = jnp.maximum(self.num_groups, 1)
        return jax.tree.map(
            lambda total, old: jnp.where(self.num_groups > 0, total / num, old), self.statistics, before
        )


def apply_in_groups(
    model: Classifier, group_size: int, variables: Any, inputs: jax.Array, mask: jax.Array | None, rngs: Any = None
) -> tuple[jax.Array, GroupSums]:
    """Apply a model in training, with BatchNorm over groups; for use inside a mapped step.

    A group is `group_size` consecutive examples of the global batch. Groups that lie on one device need no
    communication.

    Args:
      model: created with `axis_name=AXIS`.
      group_size: examples per group; divides the number of examples, or is a multiple of it.
      variables: of the model.
      inputs: of this device's examples, `[B, ...]`.
      mask: bool `[B]`, True where a group must not update the running statistics, the same for all examples of a group;
        None if all groups update them.
      rngs: random keys of the model's layers.

    Returns:
      Logits `[B, classes]`, and the running statistics of the groups on this device. A group on several devices counts
      on each of them.
    """
    options: dict[str, Any] = {"train": True, "mutable": ["batch_stats"], "rngs": rngs}
    if group_size > len(inputs):
        model = model.clone(bn_devices=group_size // len(inputs))
        logits, updates = model.apply(variables, inputs, **options)
        statistics = jax.tree.map(lambda one: one[None], updates["batch_stats"])
    else:
        model = model.clone(axis_name=(AXIS, _GROUPS), bn_devices=1)
        groups = inputs.reshape(-1, group_size, *inputs.shape[1:])
        logits, updates = jax.vmap(lambda group: model.apply(variables, group, **options), axis_name=_GROUPS)(groups)
        logits, statistics = logits.reshape(-1, *logits.shape[2:]), updates["batch_stats"]
    return logits, _sum_over_groups(statistics, mask)


def _sum_over_groups(statistics: Any, mask: jax.Array | None) -> GroupSums:
    """Sum running statistics `[groups, ...]` over the groups that are not masked."""
    num_groups = len(jax.tree.leaves(statistics)[0])
    kept = jnp.ones(num_groups, bool) if mask is None else ~mask.reshape(num_groups, -1)[:, 0]
    sums = jax.tree.map(lambda one: jnp.sum(one, axis=0, where=kept[:, None]), statistics)
    return GroupSums(sums, jnp.sum(kept, dtype=jnp.float32))


def groups_share_masks(bn_group_size: int, mask_per: str, mask_group_size: int) -> bool:
    """Return whether all examples of a group of BatchNorm have the same mask.

    >>> groups_share_masks(16, "group", 32), groups_share_masks(64, "group", 32)
    (True, False)

    Args:
      bn_group_size: `config.training.bn_group_size`; 0 if BatchNorm has no groups.
      mask_per: `config.anchoring.mask_per`.
      mask_group_size: `config.anchoring.group_size`.
    """
    if not bn_group_size or mask_per == "batch":
        return bn_group_size > 0
    masked_together = mask_group_size if mask_per == "group" else 1
    return masked_together % bn_group_size == 0
