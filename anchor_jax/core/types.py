"""Types shared by the functions of this package."""

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    AnyArray: TypeAlias = jax.Array | npt.NDArray[Any]
else:
    AnyArray = jax.Array | np.ndarray  # jaxtyping takes classes alone on Python 3.13
"""An array of JAX or NumPy, as the functions accept; they return `jax.Array`."""

Params: TypeAlias = Any
"""Parameters of a model: any pytree. They are passed to the model unchanged."""

Members: TypeAlias = Any
"""Members of an ensemble: an array `[K, ...]`, or a pytree of such arrays, such as stacked parameters."""


@runtime_checkable
class Apply(Protocol):
    """A model as a pure function, such as the `apply` method of a Flax Linen module.

    It maps parameters and anchored inputs `[B, ..., 2C]` to outputs `[B, ...]`. Each output must depend on its own
    input alone: use running statistics in BatchNorm and no dropout.

    Example:
      >>> import anchor_jax as aj
      >>> def apply_fn(params, inputs):
      ...     return inputs @ params
      >>> isinstance(apply_fn, aj.inference.Apply)
      True
    """

    def __call__(self, params: Params, inputs: jax.Array, /) -> jax.Array:
        """Return the outputs `[B, ...]` for anchored inputs `[B, ..., 2C]`."""
        ...
