"""Layers of the models: stochastic depth, dropout, normalized vectors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_same_bits
from flax import linen as nn
from tiny_models import BATCH, NUM_CLASSES, assert_close, normal, on_host, tiny_model

from anchor_jax import models
from anchor_jax.models.fastnet import identity_kernel_init
from anchor_jax.models.layers import (
    ChannelDropout,
    Dropout,
    StochasticDepth,
    max_pool,
    stochastic_depth_rates,
    torch_kernel_init,
)
from anchor_jax.models.swin_v2 import expand_to_pairs, l2_normalize, relative_positions
from anchor_jax.runtime import mesh as mesh_lib


def test_stochastic_depth_drops_examples_and_scales_the_others():
    branch, key = normal(5, 400, 3, 2), jax.random.key(0)
    dropped = StochasticDepth(0.25, None).apply({}, branch, True, rngs={"stochastic_depth": key})
    kept = (np.asarray(dropped) != 0).all(axis=(1, 2))
    assert_close(dropped, np.where(kept[:, None, None], branch / 0.75, 0))
    assert abs(kept.mean() - 0.75) < 4 * (0.25 * 0.75 / 400) ** 0.5
    assert_same_bits(StochasticDepth(0.25, None).apply({}, branch, False), branch)
    assert_same_bits(StochasticDepth(0.0, None).apply({}, branch, True), branch)


def test_channel_dropout_drops_channels_only_with_a_key():
    x = normal(5, 200, 3, 2, 10)
    dropped = ChannelDropout(0.2, None).apply({}, x, rngs={"dropout": jax.random.key(0)})
    kept = (np.asarray(dropped) != 0).all(axis=(1, 2))
    assert_close(dropped, np.where(kept[:, None, None], x / 0.8, 0))
    assert abs(kept.mean() - 0.8) < 4 * (0.2 * 0.8 / 2000) ** 0.5
    assert_same_bits(ChannelDropout(0.2, None).apply({}, x), x)
    assert_same_bits(ChannelDropout(0.0, None).apply({}, x, rngs={"dropout": jax.random.key(0)}), x)


def test_dropout_drops_single_activations_only_with_a_key():
    x = normal(5, 200, 3, 2, 10)
    dropped = np.asarray(Dropout(0.3, None).apply({}, x, rngs={"dropout": jax.random.key(0)}))
    kept = dropped != 0
    assert_close(dropped, np.where(kept, x / 0.7, 0))
    for axes in ((1, 2, 3), (0, 2, 3), (0, 1, 2)):  # within an example, and over rows and channels of all
        of_rest = kept.mean(axis=axes)
        assert (abs(of_rest - 0.7) < 5 * (0.3 * 0.7 * len(of_rest) / kept.size) ** 0.5).all()
    assert_same_bits(Dropout(0.3, None).apply({}, x), x)
    assert_same_bits(Dropout(0.0, None).apply({}, x, rngs={"dropout": jax.random.key(0)}), x)


@pytest.mark.parametrize("layer", [Dropout, ChannelDropout])
def test_dropout_layers_are_the_same_on_all_device_counts(layer):
    x, rngs = normal(7, 16, 3, 2, 10), {"dropout": jax.random.key(0)}
    expected = layer(0.5, None).apply({}, x, rngs=rngs)
    for num in (2, 8):
        drop = mesh_lib.pmapped(
            lambda x: layer(0.5, mesh_lib.AXIS).apply({}, x, rngs=rngs),
            mesh_lib.mesh(num),
            in_specs=mesh_lib.SHARDED,
            out_specs=mesh_lib.SHARDED,
        )
        assert_same_bits(drop(x), expected)
    in_groups = mesh_lib.pmapped(
        jax.vmap(lambda x: layer(0.5, (mesh_lib.AXIS, "groups")).apply({}, x, rngs=rngs), axis_name="groups"),
        mesh_lib.mesh(2),
        in_specs=mesh_lib.SHARDED,
        out_specs=mesh_lib.SHARDED,
    )
    assert_same_bits(in_groups(x.reshape(4, 4, *x.shape[1:])).reshape(x.shape), expected)


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_resnet_dropout_draws_a_subnetwork_per_key(block):
    options = {"stage_sizes": (1, 1), "width": 4, "block": block}
    plain, dropout = (models.create("resnet18", 3, dropout_rate=rate, **options) for rate in (0.0, 0.5))
    inputs = normal(6, 2, 8, 8, 6)
    variables = plain.init(jax.random.key(0), inputs)
    assert jax.tree.structure(dropout.init(jax.random.key(0), inputs)) == jax.tree.structure(variables)
    logits = plain.apply(variables, inputs)
    assert_close(dropout.apply(variables, inputs), logits)
    first, again, other = (
        np.asarray(dropout.apply(variables, inputs, rngs={"dropout": jax.random.key(seed)})) for seed in (1, 1, 2)
    )
    assert_same_bits(first, again)
    assert (first != other).all()
    assert (first != np.asarray(logits)).all()


@pytest.mark.parametrize(
    ("last_rate", "num_blocks", "rates"), [(0.3, 4, [0, 0.1, 0.2, 0.3]), (0.5, 1, [0]), (0.0, 2, [0, 0])]
)
def test_stochastic_depth_rates_rise_linearly_from_zero(last_rate, num_blocks, rates):
    assert list(stochastic_depth_rates(last_rate, num_blocks)) == pytest.approx(rates)


@pytest.mark.parametrize(
    ("case", "rates"),
    [
        ("vit, stochastic depth", {"block1": 0, "block2": 0.5}),
        ("swin, stochastic depth", {"stage1_block1": 0, "stage1_block2": 0.25, "stage2_block1": 0.5}),
    ],
)
def test_stochastic_depth_drops_blocks_at_their_rates(case, rates):
    """Before the first branch that can be dropped, training equals evaluation."""
    tiny = tiny_model(case)

    def branches(train, seed):
        _, intermediates = tiny.model.apply(
            tiny.variables,
            tiny.inputs,
            train,
            rngs={"stochastic_depth": jax.random.key(seed)},
            capture_intermediates=lambda module, _: isinstance(module, StochasticDepth),
            mutable=["intermediates", "batch_stats"],
        )
        return intermediates["intermediates"]

    both = on_host(jax.jit(lambda seed: (branches(False, seed), branches(True, seed))))
    first, second, *_ = rates
    scales = []
    for seed in range(4):
        evaluated, trained = both(seed)
        assert evaluated.keys() == rates.keys()
        assert_close(trained[first], evaluated[first])
        (branch,), (dropped,) = (blocks[second]["drop1"]["__call__"] for blocks in (evaluated, trained))
        scales += list(dropped.reshape(BATCH, -1).sum(axis=1) / branch.reshape(BATCH, -1).sum(axis=1))
    assert sorted(set(np.round(scales, 3))) == pytest.approx([0, 1 / (1 - rates[second])], abs=1e-3)


def test_swin_without_stochastic_depth_needs_no_key_to_train():
    tiny = tiny_model("swin, stochastic depth")
    model = models.create(tiny.name, NUM_CLASSES, **tiny.options | {"stochastic_depth": 0.0})
    logits = jax.jit(partial(model.apply, train=True))(tiny.variables, tiny.inputs)
    assert_close(logits, tiny.evaluated.logits)


def test_l2_normalize_has_a_finite_gradient_at_zero():
    x = normal(6, 5, 3)
    x[0] = 0
    lengths = np.linalg.norm(l2_normalize(x), axis=-1)
    np.testing.assert_allclose(lengths, [0, 1, 1, 1, 1], rtol=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(l2_normalize(x) * normal(7, 5, 3)))(x)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("window", [2, 3])
def test_expand_to_pairs_equals_indexing_with_its_gradient(window):
    _, index = relative_positions(window, window)
    table, weights = normal(7, (2 * window - 1) ** 2, 3), normal(8, 3, window**2, window**2)
    assert_same_bits(expand_to_pairs(table, window), np.moveaxis(table[index], -1, 0))
    gradient = jax.grad(lambda table: jnp.sum(weights * expand_to_pairs(table, window)))(table)
    expected = np.zeros_like(table)
    np.add.at(expected, index, np.moveaxis(weights, 0, -1))
    assert_close(gradient, expected)


@pytest.mark.parametrize("side", [6, 7])
def test_max_pool_equals_flax_with_its_gradient(side):
    x, weights = normal(8, 2, side, side, 3), normal(9, 2, side // 2, side // 2, 3)
    value, gradient = jax.value_and_grad(lambda x: jnp.sum(weights * max_pool(x, 2)))(x)
    expected = jax.value_and_grad(lambda x: jnp.sum(weights * nn.max_pool(x, (2, 2), (2, 2))))(x)
    assert_close((value, gradient), expected)


@pytest.mark.parametrize("outputs", [2, 8])
def test_identity_kernel_copies_inputs_to_the_first_outputs(outputs):
    x, key = normal(10, 2, 5, 5, 3), jax.random.key(0)
    kernels = identity_kernel_init(key, (3, 3, 3, outputs)), torch_kernel_init(key, (3, 3, 3, outputs))
    convolve = partial(jax.lax.conv_general_dilated, window_strides=(1, 1), padding="SAME")
    ours, drawn = (np.asarray(convolve(x, kernel, dimension_numbers=("NHWC", "HWIO", "NHWC"))) for kernel in kernels)
    num_copied = min(3, outputs)
    assert_close(ours[..., :num_copied], x[..., :num_copied])
    assert_close(ours[..., num_copied:], drawn[..., num_copied:])
