"""Weights of one network to begin another one from: of more input channels, another image size, other classes."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from anchor_jax.core.anchoring import anchored_kernel
from anchor_jax.core.errors import UserError

Path = tuple[str, ...]  # of a variable: collection, modules and leaf


class Adapted(NamedTuple):
    """Weights that fit a model."""

    variables: dict[Path, jax.Array]  # by their paths; without the head, where it is of other classes
    changes: tuple[str, ...]  # what was done, in words

    @property
    def has_head(self) -> bool:
        """Whether the classes are the same."""
        return ("params", "head", "bias") in self.variables

    def over(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """The model's freshly drawn variables, with these in their places."""
        flat: Any = flatten_dict(dict(drawn), keep_empty_nodes=True)  # a model may have no statistics
        return unflatten_dict(flat | self.variables)


def adapt(variables: Mapping[str, Any], shapes: Mapping[str, Any], grid: tuple[int, int]) -> Adapted:
    """Fit the weights of a network to a model of the same family.

    - A first layer of half the channels becomes that of an anchored network, see `anchored_kernel`.
    - Positions are resized to another grid of patches.
    - A head of other classes is left out.

    Args:
      variables: what the network's `apply` takes.
      shapes: of the model's variables, see `jax.eval_shape`.
      grid: height and width of an image in patches, where the model has positions.

    Raises:
      UserError: they differ in more than that.
    """
    given: Any = flatten_dict(dict(variables))
    wanted: Any = flatten_dict(dict(shapes))
    adapted, changes, problems = {}, [], []
    for path, variable in given.items():
        shape = wanted[path].shape if path in wanted else None
        if variable.shape == shape:
            adapted[path] = variable
        elif shape and path[1] == "head":
            if path[-1] == "bias":
                changes.append(f"head drawn anew for {shape[0]} classes, not {len(variable)}")
        elif shape and path[-1] == "position_embedding":
            adapted[path] = resized_positions(variable, grid)
            changes.append(f"positions resized to {grid[0]}x{grid[1]}")
        elif shape and variable.ndim > 1 and anchored_kernel(variable).shape == shape:
            adapted[path] = anchored_kernel(variable)
            changes.append(f"first layer widened to {shape[-2]} channels, the same function")
        else:
            problems.append(f"{'/'.join(path[1:])} {list(variable.shape)}, not {list(shape or ())}")
    if problems:
        raise UserError(
            f"the weights do not fit the model: {'; '.join(problems[:4])}; set config.model.options, the images or "
            "config.anchoring.enabled as the weights have it"
        )
    return Adapted(adapted, tuple(changes))


def resized_positions(positions: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """The position embedding of another number of patches, bicubic between the old ones.

    Args:
      positions: `[1, T + N, D]`, of T tokens beside the patches and of N patches in a square.
      grid: height and width of the patches that there are to be.

    Returns:
      `[1, T + height·width, D]`.
    """
    side = math.isqrt(positions.shape[1])  # the largest square; there are one or two tokens beside it
    tokens, patches = np.split(positions, [positions.shape[1] - side**2], axis=1)
    patches = patches.reshape(1, side, side, -1)
    resized = jax.image.resize(patches, (1, *grid, patches.shape[-1]), "bicubic")
    return jnp.concatenate([tokens, resized.reshape(1, grid[0] * grid[1], -1)], axis=1)
