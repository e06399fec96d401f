"""Adapt pretrained weights to a model with more input channels, another image size or other classes."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from anchor_jax.core.anchoring import anchored_kernel
from anchor_jax.core.errors import UserError
from anchor_jax.core.short_reprs import short_repr

Path = tuple[str, ...]  # of a variable: collection, modules, leaf
Grid = tuple[int, int]  # height and width in patches

_MAX_LISTED = 4  # mismatches in an error message
_CHANNELS = {"L": (1, 2), "RGB": (3, 6)}  # mode -> input channels of standard and of anchored networks


@short_repr
class AdaptedWeights(NamedTuple):
    """Pretrained weights that match a model."""

    variables: dict[Path, jax.Array]  # without the head if the classes differ
    changes: tuple[str, ...]  # one description of each change, for the user

    @property
    def has_head(self) -> bool:
        """Whether the weights include the head, because the classes are the same."""
        return ("params", "head", "bias") in self.variables

    def merge_into(self, initial: Mapping[str, Any]) -> dict[str, Any]:
        """Return the freshly initialized variables of the model, overwritten by these weights."""
        flat: Any = flatten_dict(dict(initial), keep_empty_nodes=True)  # "batch_stats" may be empty
        return unflatten_dict(flat | self.variables)


def adapt_weights(
    variables: Mapping[str, Any], shapes: Mapping[str, Any], grid: Grid, trained_grid: Grid | None = None
) -> AdaptedWeights:
    """Adapt pretrained weights to a model of the same family.

    - A first layer with half the channels is widened for anchored inputs, see `anchored_kernel`.
    - Position embeddings are resized to the grid of patches.
    - A head with another number of classes is left out; there may be none.

    Args:
      variables: pretrained variables, as `apply` of their network takes them.
      shapes: shapes of the variables of the model, as returned by `jax.eval_shape`.
      grid: height and width of an image in patches; used only if the model has position embeddings.
      trained_grid: the grid of the pretrained position embeddings; None, or one of another number: a square.

    Raises:
      UserError: the weights differ from the model in any other way.
    """
    pretrained: Any = flatten_dict(dict(variables))
    expected: Any = flatten_dict(dict(shapes))
    adapted: dict[Path, jax.Array] = {}
    changes, mismatches = [], []
    for path, variable in pretrained.items():
        shape = expected[path].shape if path in expected else None
        if shape and path[-1] == "position_embedding":  # 6x6 patches are as many as 4x9
            before = _grid_of(variable, shape[1] - math.prod(grid), trained_grid)
            if before and before != grid:
                variable = resize_position_embedding(variable, grid, before)
                changes.append(f"position embedding resized to {grid[0]}x{grid[1]} from {before[0]}x{before[1]}")
            elif not before and variable.shape == shape:
                changes.append(f"position embedding taken as of {grid[0]}x{grid[1]} patches, the weights do not tell")
        if variable.shape == shape:
            adapted[path] = variable
        elif shape and path[1] == "head":
            if path[-1] == "bias":
                changes.append(f"head initialized for {shape[0]} classes, because the weights have {len(variable)}")
        elif shape and variable.ndim > 1 and anchored_kernel(variable).shape == shape:
            adapted[path] = anchored_kernel(variable)
            changes.append(f"first layer widened to {shape[-2]} channels, which leaves the function unchanged")
        else:
            mismatches.append(f"{'/'.join(path[1:])} is {list(variable.shape)} instead of {list(shape or ())}")
    head = ("params", "head", "bias")
    if head in expected and head not in pretrained:
        changes.append(f"head initialized for {expected[head].shape[0]} classes, because the weights have none")
    if mismatches:
        remedy = "set config.model.options, the image size and config.anchoring.enabled to those of the weights"
        modes = {_other_mode(pretrained[path].shape, expected[path].shape) for path in pretrained.keys() & expected}
        for mode in modes - {None}:
            remedy = f"read the images as the network of the weights does, --config.data.mode={mode}; {remedy}"
        raise UserError(f"the weights do not match the model: {', '.join(mismatches[:_MAX_LISTED])}; {remedy}")
    return AdaptedWeights(adapted, tuple(changes))


def _other_mode(weights: tuple[int, ...], model: tuple[int, ...]) -> str | None:
    """Return the mode "L" or "RGB" of the images that pretrained weights take, if the model takes the other one.

    Args:
      weights: shape of a pretrained variable.
      model: shape of the same variable in the model.
    """
    if not len(weights) == len(model) == 4:
        return None
    of_weights, of_model = (
        next((mode for mode, numbers in _CHANNELS.items() if shape[2] in numbers), None) for shape in (weights, model)
    )
    return of_weights if of_model and of_weights != of_model else None


def _grid_of(positions: jax.Array, num_tokens: int, stated: Grid | None) -> Grid | None:
    """Return the grid of a position embedding `[1, T + N, D]`: as stated, or a square; None if neither fits."""
    side = trained_side(positions)
    fitting = [of for of in (stated, (side, side)) if of and math.prod(of) == positions.shape[1] - num_tokens]
    return fitting[0] if fitting else None


def trained_side(positions: jax.Array) -> int:
    """Return the side in patches of the square that a position embedding `[1, T + N, D]` covers."""
    return math.isqrt(positions.shape[1])  # the largest square, because T is only 1 or 2


def resize_position_embedding(positions: jax.Array, grid: Grid, before: Grid | None = None) -> jax.Array:
    """Resize a position embedding to another grid of patches by bicubic interpolation.

    Args:
      positions: `[1, T + N, D]`, T tokens followed by N patches.
      grid: new height and width in patches.
      before: height and width of the N patches; None: a square.

    Returns:
      `[1, T + height·width, D]`; the embeddings of the tokens are unchanged.
    """
    side = trained_side(positions)
    height, width = before or (side, side)
    tokens, patches = np.split(positions, [positions.shape[1] - height * width], axis=1)
    patches = patches.reshape(1, height, width, -1)
    resized = jax.image.resize(patches, (1, *grid, patches.shape[-1]), "bicubic")
    return jnp.concatenate([tokens, resized.reshape(1, grid[0] * grid[1], -1)], axis=1)
