"""Scores of reverse anchoring of a regression network, in standardized units."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from anchor_jax.contrib import float64, pager
from anchor_jax.contrib.regression_network import RegressionNetwork, Scale, create_model


@partial(jax.jit, static_argnames=("refined", "chunk_size"))
def reverse_score(
    network: RegressionNetwork,
    autoencoder: RegressionNetwork | None,
    rows: jax.Array,
    examples: tuple[jax.Array, jax.Array],
    weight: float,
    *,
    refined: bool,
    chunk_size: int | None,
) -> jax.Array:
    """Return Score 1, or Score 2 if `refined`, of standardized inputs `[B, C]`.

    Args:
      network: an anchored network.
      autoencoder: an anchored autoencoder of the inputs, on any scale, for Score 2; None for no regularizer.
      rows: float32 `[B, C]`, on the scale of `network`.
      examples: standardized inputs `[K, C]` and targets `[K, D]` of training examples.
      weight: of the regularizer.
      refined: whether to return Score 2.
      chunk_size: see `pager.nonconformity`.
    """
    arguments = _means(network), network.params, rows, *examples
    if not refined:
        return pager.nonconformity(*arguments, chunk_size=chunk_size)
    regularizer = None
    if autoencoder is not None:
        reconstruct = _reconstruction(autoencoder, network.inputs)
        regularizer = partial(pager.cyclic_reconstruction, reconstruct, autoencoder.params)
    return pager.refined_nonconformity(*arguments, regularizer=regularizer, weight=weight, chunk_size=chunk_size)


def _means(network: RegressionNetwork) -> Callable[[Any, jax.Array], jax.Array]:
    """Return a function of parameters and anchored inputs `[B, 2C]` that returns means `[B, D]`, all standardized."""
    num_targets = network.labels.shape[-1]
    model = create_model(network.settings, num_targets)

    def means(params: Any, inputs: jax.Array) -> jax.Array:
        outputs: Any = model.apply(params, inputs, train=False)
        return outputs[:, :num_targets]

    return means


def _reconstruction(autoencoder: RegressionNetwork, scale: Scale) -> Callable[[Any, jax.Array], jax.Array]:
    """Return the means of an autoencoder as a function of anchored inputs on another scale, and on that scale."""
    means = _means(autoencoder)

    def reconstruct(params: Any, inputs: jax.Array) -> jax.Array:
        references, residuals = jnp.split(inputs, 2, axis=1)
        own_references = _rescale(references, scale, autoencoder.inputs)
        own_residuals = residuals * _ratio(scale, autoencoder.inputs)
        outputs = means(params, jnp.concatenate([own_references, own_residuals], axis=1))
        return _rescale(outputs, autoencoder.targets, scale)

    return reconstruct


def _rescale(rows: jax.Array, source: Scale, target: Scale) -> jax.Array:
    """Return rows `[B, C]` that one scale has standardized, standardized by another."""
    means = tuple(part[None] for part in source.parts_of("mean"))
    shift = jnp.asarray(float64.subtract(means, target.parts_of("mean")), jnp.float32)
    return rows * _ratio(source, target) + shift / jnp.asarray(target.std, jnp.float32)[None]


def _ratio(source: Scale, target: Scale) -> jax.Array:
    """Return the ratio of standard deviations, float32 `[1, C]`."""
    return (jnp.asarray(source.std, jnp.float32) / jnp.asarray(target.std, jnp.float32))[None]
