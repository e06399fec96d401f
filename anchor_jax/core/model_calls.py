"""Call the user's model, and explain in one line the errors of its framework that anchored inputs cause."""

# JAX leaves some parameters unannotated.
# pyright: reportUnknownMemberType=false
from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from anchor_jax.core.errors import UserError, UserTypeError
from anchor_jax.core.types import AnyArray

_MAX_CONSTANT = 2**20  # bytes of an array that may be a constant of a program without a warning


def call_model(
    name: str, function: Callable[..., Any], params: Any, inputs: AnyArray, *args: Any, **kwargs: Any
) -> Any:
    """Return `function(params, inputs, *args, **kwargs)`; explain an error that its anchored inputs cause.

    The cause is found by trial: the model is called again with inputs of half the channels, of another dtype, or with
    their channels first.

    Args:
      name: of the function, for messages.
      function: the model.
      params: its parameters.
      inputs: anchored inputs `[B, ..., 2C]`.
      *args: passed to the function.
      **kwargs: passed to the function.

    Raises:
      UserError: the model takes C channels, or channels first.
      UserTypeError: the model does not mix the dtypes of its parameters and of the inputs.
    """
    try:
        return function(params, inputs, *args, **kwargs)
    except UserError:
        raise
    except Exception as error:
        for changed, explanation in _causes(name, params, inputs):
            if _accepts(function, params, changed, *args, **kwargs):
                raise explanation from error
        raise


def warn_of_constant(name: str, array: Any) -> None:
    """Warn if an array that is not an argument of the program being traced would become a constant of it."""
    if isinstance(array, Tracer) or not hasattr(array, "nbytes") or array.nbytes <= _MAX_CONSTANT:
        return
    if isinstance(jnp.zeros(()), Tracer):  # in `jax.jit`, unlike in an eager `jax.grad` or `jax.vmap`
        warnings.warn(
            f"{name} ({array.nbytes / 2**20:.0f} MiB) becomes a constant of the compiled program, which then takes "
            f"longer to compile; make it an argument of the compiled function",
            stacklevel=2,
        )


def _causes(name: str, params: Any, inputs: AnyArray) -> Iterator[tuple[AnyArray, UserError]]:
    """Yield changed inputs that a model may accept, and what it means if it does."""
    channels = inputs.shape[-1] // 2
    yield (
        inputs[..., :channels],
        UserError(
            f"the model takes {channels} input channels; {name} passes {2 * channels}, those of the reference and of "
            f"the residual: build its first layer for {2 * channels} channels, or widen the kernel of a trained one "
            "with anchor_jax.anchored_kernel"
        ),
    )
    for dtype in _floating_dtypes(params) - {str(inputs.dtype)}:
        yield (
            inputs.astype(dtype),
            UserTypeError(
                f"x must have the dtype of the parameters, {dtype}, because this model does not mix dtypes; got "
                f"{inputs.dtype}; pass x.astype('{dtype}') and references.astype('{dtype}'), or let {name} cast its "
                "inputs or its parameters"
            ),
        )
    if inputs.ndim == 4:
        yield (
            jnp.moveaxis(inputs, -1, 1),
            UserError(
                f"the model takes images [B, 2C, H, W]; {name} passes anchored inputs {list(inputs.shape)}, channels "
                "last: let it call the model with jnp.moveaxis(inputs, -1, 1)"
            ),
        )


def _accepts(function: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
    try:
        function(*args, **kwargs)
    except Exception:  # of any framework
        return False
    return True


def _floating_dtypes(params: Any) -> set[str]:
    """Return the names of the floating dtypes of all parameters."""
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(params) if hasattr(leaf, "dtype")}
    return {str(dtype) for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)}
