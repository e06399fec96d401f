"""Networks for regression on vectors: settings, parameters and standardization."""

import copy
import dataclasses
import math
from collections.abc import Hashable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import serialization, struct
from jax.core import Tracer

from anchor_jax.contrib import float64
from anchor_jax.core import checks, precision
from anchor_jax.core.errors import UserError
from anchor_jax.core.short_reprs import short_repr

_MIN_VARIANCE = 1e-6  # of standardized targets: a lower bound on the predicted variance
# A column counts as constant if its standard deviation is at most this many units in the last place, by bytes per
# number. In float64, computed constants vary by a few units. In float32, real data far from zero may do so too, hence
# the low limit. Coarser dtypes have none: any variation counts.
_ROUNDING = {8: 8.0, 4: 0.5}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of `fit`; static under `jit`, but another learning rate or weight decay does not recompile `fit`.

    Raises:
      UserTypeError: a setting has the wrong type.
      UserError: a setting is out of range.

    Example:
      >>> import anchor_jax as aj
      >>> aj.regression.Settings(mask_prob=0.25, mask_per="example").hidden
      (64, 64)
    """

    references: bool = True  # whether the network is anchored
    noise: bool = True  # whether to predict the variance of each target (Gaussian likelihood) or only its mean
    hidden: tuple[int, ...] = (64, 64)  # width of each hidden layer, ReLU; any sequence of integers becomes a tuple
    dropout: float = 0.0  # after each hidden layer, in [0, 1)
    mask_prob: float = 0.0  # probability that a reference is masked, in [0, 1]
    mask_per: Literal["batch", "example"] = "batch"
    masked_target: Literal["marginal", "label"] = "marginal"  # see `anchor_jax.anchored_gaussian_nll`
    steps: int = 1_000
    batch_size: int = 32  # sampled with replacement; all N examples if there are no more than this
    learning_rate: float = 1e-3  # of AdamW at the first step; cosine decay to 0
    weight_decay: float = 0.0

    def __post_init__(self):
        values: dict[str, Any] = {"hidden": checks.counts("hidden", self.hidden)}
        values |= {name: checks.flag(name, getattr(self, name)) for name in ("references", "noise")}
        values |= {name: checks.count(name, getattr(self, name)) for name in ("steps", "batch_size")}
        values |= {name: checks.static_number(name, getattr(self, name)) for name in ("dropout", "mask_prob")}
        for name in ("learning_rate", "weight_decay"):
            rate = getattr(self, name)
            values[name] = rate if isinstance(rate, Tracer) else checks.static_number(name, rate, 0, math.inf)
        for name, value in values.items():  # plain numbers, which can be hashed
            object.__setattr__(self, name, value)
        if self.dropout == 1:
            raise UserError("dropout must be below 1; got 1, which drops every unit")
        if self.mask_prob and not self.references:
            raise UserError(f"mask_prob must be 0 without references; got {self.mask_prob}")
        checks.choice("mask_per", self.mask_per, ("batch", "example"))
        checks.choice("masked_target", self.masked_target, ("marginal", "label"))

    def untraced(self) -> "Settings":
        """Return the settings, with NaN for a rate that is traced, such as one of several under `vmap`."""
        settings = copy.copy(self)
        for name in ("learning_rate", "weight_decay"):
            if isinstance(getattr(self, name), Tracer):
                object.__setattr__(settings, name, math.nan)
        return settings


class Scale(float64.Float64Fields):
    """Mean and standard deviation of columns, for standardization.

    Both are float64 of NumPy `[C]`, or float32 of JAX where they are traced; the standard deviation is above 0. Under
    `jit` and `vmap` they keep their float64: each is a pytree of three float32 arrays whose sum it is.

    Example:
      >>> import anchor_jax as aj
      >>> import numpy as np
      >>> aj.regression.Scale(mean=np.full(3, 1.75e9 + 1), std=np.ones(3)).mean.tolist()
      [1750000001.0, 1750000001.0, 1750000001.0]
    """

    fields = ("mean", "std")

    def __new__(cls, mean: Any, std: Any) -> "Scale":
        """Return a scale; what was pickled when it was a tuple calls this, too."""
        return cls.of_parts(float64.split(mean), float64.split(std))

    @property
    def mean(self) -> Any:
        """Mean of each column."""
        return self._field("mean")

    @property
    def std(self) -> Any:
        """Standard deviation of each column, above 0."""
        return self._field("std")


# one array per field, as when it was a tuple of float32
serialization.register_serialization_state(Scale, lambda scale: scale._asdict(), lambda _, state: Scale(**state))


@short_repr
@struct.dataclass
class RegressionNetwork:
    """A trained network, as returned by `fit`; under `vmap`, each array has a leading axis of networks.

    Example:
      >>> import anchor_jax as aj
      >>> import jax, jax.numpy as jnp
      >>> x, settings = jnp.arange(4.0)[:, None], aj.regression.Settings(hidden=(4,), steps=1)
      >>> network = aj.regression.fit(jax.random.key(0), x, x[:, 0] + 1, settings)
      >>> network.bank.shape, network.targets.mean.tolist()
      ((4, 1), [2.5])
    """

    params: Any
    inputs: Scale
    targets: Scale
    bank: jax.Array  # float32 [N, C], training inputs, standardized
    labels: jax.Array  # float32 [N, D], training targets, standardized
    settings: Settings = struct.field(pytree_node=False)
    target_shape: tuple[int, ...] = struct.field(pytree_node=False)  # of one example: () or (D,)
    columns: tuple[Hashable, ...] | None = struct.field(pytree_node=False, default=None)  # names, of a DataFrame


class MLP(nn.Module):
    """A multi-layer perceptron with ReLU and dropout: `[B, features]` to `[B, outputs]`.

    Attributes:
      hidden: width of each hidden layer.
      outputs: number of outputs.
      dropout: dropout rate after each hidden layer, in [0, 1).

    Example:
      >>> import anchor_jax as aj
      >>> import jax, jax.numpy as jnp
      >>> model = aj.regression.MLP(hidden=(8,), outputs=2, dropout=0.0)
      >>> outputs, variables = model.init_with_output(jax.random.key(0), jnp.zeros((5, 3)), train=False)
      >>> outputs.shape
      (5, 2)
    """

    hidden: tuple[int, ...]
    outputs: int
    dropout: float

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool) -> jax.Array:
        """Return the outputs; with `train`, dropout needs a key named "dropout"."""
        for width in self.hidden:
            inputs = nn.relu(nn.Dense(width)(inputs))
            inputs = nn.Dropout(self.dropout, deterministic=not train)(inputs)
        return nn.Dense(self.outputs)(inputs)


def create_model(settings: Settings, num_targets: int) -> MLP:
    """Return the network of these settings: one output per target, or two with `noise`."""
    return MLP(settings.hidden, num_targets * (1 + settings.noise), settings.dropout)


def split_moments(outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Split outputs `[B, 2D]` into means and variances, `[B, D]` each."""
    means, logits = jnp.split(outputs, 2, axis=-1)
    return means, nn.softplus(logits) + _MIN_VARIANCE


def measure_scale(name: str, columns: Any) -> Scale:
    """Return the scale of columns `[N, C]`, measured in float64 on the host unless they are traced.

    The standard deviation of a column that varies by rounding alone counts as 1.

    Args:
      name: name of the argument, for errors.
      columns: real `[N, C]`.

    Raises:
      UserError: a column varies by less than float32 can represent.
    """
    numpy: Any = np if precision.is_concrete(columns) else jnp
    first = float64.split(columns[0])
    with np.errstate(invalid="ignore", over="ignore"):  # NaN or infinity in arrays of JAX, which are not checked
        shifted = float64.subtract(columns, first)
        std, offset = numpy.std(shifted, axis=0), numpy.mean(shifted, axis=0)
        std = numpy.where(std <= _rounding_of(columns, numpy), 1.0, std)
    if numpy is np and (std < np.finfo(np.float32).tiny).any():
        raise UserError(
            f"{name} must vary by more than 1e-38, the least of float32, or not at all; got a standard deviation of "
            f"{std.min():.3g}; give it in a smaller unit"
        )
    return Scale.of_parts(float64.add(first, offset), float64.split(std))


def _rounding_of(columns: Any, numpy: Any) -> Any:
    """Return the largest standard deviation of each column `[N, C]` that is due to rounding, `[C]`."""
    if not jnp.issubdtype(columns.dtype, jnp.floating) or columns.dtype.itemsize not in _ROUNDING:
        return 0.0
    unit = float(_ROUNDING[columns.dtype.itemsize] * jnp.finfo(columns.dtype).eps)
    return unit * numpy.max(numpy.abs(columns), axis=0)


def standardize(columns: Any, scale: Scale) -> jax.Array:
    """Return columns `[N, C]` with the mean subtracted, divided by the standard deviation, as float32."""
    with np.errstate(invalid="ignore", over="ignore"):
        shifted = float64.subtract(columns, scale.parts_of("mean"))
        std = scale.std if isinstance(shifted, np.ndarray) else jnp.asarray(scale.std, jnp.float32)
        return jnp.asarray(shifted / std[None], jnp.float32)


def in_unit_of(scale: Scale, values: jax.Array) -> float64.Parts:
    """Return the parts of standardized values `[B, C]` in the unit of their columns."""
    high, middle, low = (jnp.broadcast_to(part, values.shape) for part in scale.parts_of("mean"))
    return float64.add((high, middle, low), deviations_in_unit_of(scale, values))


def deviations_in_unit_of(scale: Scale, values: jax.Array) -> jax.Array:
    """Return standardized standard deviations `[B, C]` in the unit of their columns."""
    return values * jnp.asarray(scale.std, jnp.float32)[None]
