"""What helps one platform alone changes no numbers, and is not there on any other."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import optimised

from anchor_jax.runtime import backends
from anchor_jax.runtime import mesh as mesh_lib

pytestmark = pytest.mark.min_versions

X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit, jax.vmap])
def test_computed_once_is_the_identity(transform):
    np.testing.assert_array_equal(transform(backends.materialize)(X), X)


def test_gradients_pass_through_in_both_directions():
    def loss(x):
        return jnp.sum(jnp.sin(backends.materialize(x)))

    np.testing.assert_allclose(jax.jit(jax.grad(loss))(X), np.cos(X), rtol=1e-6)
    _, tangent = jax.jvp(loss, (X,), (np.ones_like(X),))
    assert tangent == pytest.approx(np.cos(X).sum(), rel=1e-6)


@pytest.mark.parametrize("check_vma", [True, False])
def test_computed_once_under_shard_map(check_vma):
    mesh = mesh_lib.mesh(3)
    mapped = jax.shard_map(
        backends.materialize, mesh=mesh, in_specs=mesh_lib.SHARDED, out_specs=mesh_lib.SHARDED, check_vma=check_vma
    )
    np.testing.assert_array_equal(jax.jit(mapped)(X), X)


def test_an_exported_program_runs():
    exported = jax.export.export(jax.jit(backends.materialize), platforms=("cpu", "cuda", "tpu"))(X)
    np.testing.assert_array_equal(exported.call(X), X)


@pytest.mark.parametrize(("platform", "there"), [("cpu", True), ("cuda", False), ("tpu", False)])
def test_only_the_cpu_has_a_branch(platform, there):
    lowered = jax.jit(backends.materialize).trace(X).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.negate" in lowered) == there  # the branch that is never taken


def test_readers_of_what_is_computed_once_do_not_compute_it_again():
    """Why it is there: XLA on CPU would have every reader compute the ReLU anew; where it no longer does, drop it."""

    def readers(once, x):
        shared = once(jax.nn.relu(x * 2))
        return shared.T + 1, shared[::-1] * 3

    def relus(once):
        compiled = optimised(lambda x: readers(once, x)).lower(jnp.zeros((64, 64))).compile()
        return compiled.as_text().count(" maximum(")

    assert relus(backends.materialize) == 1
    assert relus(lambda x: x) == 2


def test_options_of_one_platform_are_given_to_no_other():
    assert backends.compiler_options("cpu") is not None
    assert backends.compiler_options("gpu") is None
    assert backends.compiler_options("tpu") is None
    assert backends.has_fast_device_loops("gpu")
    assert not backends.has_fast_device_loops("cpu")


@pytest.mark.parametrize("option", [("xla_cpu_no_such_option", ""), ("xla_cpu_experimental_ynn_fusion_type", "NONE")])
def test_options_and_values_that_xla_does_not_know_are_left_out(monkeypatch, option):
    monkeypatch.setattr(backends, "_CPU_OPTIONS", dict([option]))
    assert backends.compiler_options("cpu") is None


@pytest.mark.parametrize("tokens", [5, 6])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_attention_filled_up_for_cudnn_is_that_of_the_tokens_there_are(tokens, dtype, monkeypatch):
    query, key, value = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 4, tokens, 2, 8)), dtype)

    def attended():
        batched = jax.vmap(backends.attention)
        gradient = jax.grad(lambda *qkv: jnp.sum(jnp.sin(batched(*qkv).astype(jnp.float32))), argnums=(0, 1, 2))
        return batched(query, key, value), gradient(query, key, value)

    plain = attended()
    xla, asked = jax.nn.dot_product_attention, []

    def in_place_of_cudnn(*qkv, implementation, **lengths):
        asked.append((implementation, qkv[0].shape[-3]))
        return xla(*qkv, implementation="xla", **lengths)

    monkeypatch.setattr(backends, "_has_cudnn_attention", lambda dtype: True)
    monkeypatch.setattr(jax.nn, "dot_product_attention", in_place_of_cudnn)
    filled = attended()
    assert set(asked) == {("cudnn", 6)}
    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(*map(np.float32, (a, b)), atol=tolerance), plain, filled)


def test_no_cudnn_is_in_what_is_exported(monkeypatch):
    monkeypatch.setattr(backends, "_has_cudnn_attention", lambda dtype: True)
    qkv = [jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 5, 2, 4"), jnp.bfloat16)] * 3
    exported = jax.export.export(jax.jit(backends.attention), platforms=("cpu", "cuda"))(*qkv)
    assert "__cudnn$" not in exported.mlir_module()


def test_no_cudnn_is_asked_where_there_is_none():
    assert not backends._has_cudnn_attention(jnp.bfloat16)


@pytest.mark.parametrize(("stride", "groups", "channels", "features"), [(1, 2, 8, 8), (2, 3, 12, 24), (2, 6, 6, 6)])
def test_grouped_convolution_is_that_of_jax_in_value_and_derivatives(stride, groups, channels, features):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 9, 7, channels)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, channels // groups, features)).astype(np.float32)

    def derivatives(convolution):
        def convolved(x, kernel):
            return convolution(
                x,
                kernel,
                (stride, stride),
                ((1, 1), (1, 1)),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=groups,
            )

        mapped = jax.vmap(convolved, in_axes=(0, None))
        gradient = jax.grad(lambda *given: jnp.sum(jnp.sin(mapped(*given))), argnums=(0, 1))
        return jax.jit(lambda *given: (jax.jvp(mapped, given, given), gradient(*given)))(x, kernel)

    ours, plain = derivatives(backends.grouped_convolution), derivatives(jax.lax.conv_general_dilated)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, plain)
