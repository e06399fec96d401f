"""Networks for regression on vectors: settings, parameters and standardization."""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError

_MIN_VARIANCE = 1e-6  # of standardized targets: a lower bound on the predicted variance


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
    hidden: tuple[int, ...] = (64, 64)  # width of each hidden layer, ReLU
    dropout: float = 0.0  # after each hidden layer, in [0, 1)
    mask_prob: float = 0.0  # probability that a reference is masked, in [0, 1]
    mask_per: Literal["batch", "example"] = "batch"
    masked_target: Literal["marginal", "label"] = "marginal"  # see `anchor_jax.anchored_gaussian_nll`
    steps: int = 1_000
    batch_size: int = 32  # sampled with replacement; all N examples if there are no more than this
    learning_rate: float = 1e-3  # of AdamW at the first step; cosine decay to 0
    weight_decay: float = 0.0

    def __post_init__(self):
        checks.several("hidden", self.hidden)
        for width in self.hidden:
            checks.count("hidden", width)
        for name in ("steps", "batch_size"):
            checks.count(name, getattr(self, name))
        for name in ("dropout", "mask_prob"):
            checks.number(name, getattr(self, name))
        for name in ("learning_rate", "weight_decay"):
            checks.number(name, getattr(self, name), 0, float("inf"))
        if self.dropout == 1:
            raise UserError("dropout must be below 1; got 1, which drops every unit")
        if self.mask_prob and not self.references:
            raise UserError(f"mask_prob must be 0 without references; got {self.mask_prob}")
        checks.choice("mask_per", self.mask_per, ("batch", "example"))
        checks.choice("masked_target", self.masked_target, ("marginal", "label"))


class Scale(NamedTuple):
    """Mean and standard deviation of columns, for standardization.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> aj.regression.Scale(mean=jnp.zeros(3), std=jnp.ones(3)).mean.shape
      (3,)
    """

    mean: jax.Array  # float32 [C]
    std: jax.Array  # float32 [C], above 0


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


def measure_scale(columns: jax.Array) -> Scale:
    """Return the scale of columns `[N, C]`; the standard deviation of a constant column counts as 1."""
    std = jnp.std(columns, axis=0)
    return Scale(jnp.mean(columns, axis=0), jnp.where(std == 0, 1.0, std))


def standardize(columns: jax.Array, scale: Scale) -> jax.Array:
    """Return columns `[N, C]` with the mean subtracted, divided by the standard deviation."""
    return (columns - scale.mean[None]) / scale.std[None]
