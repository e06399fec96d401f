"""Platform-specific code: it changes no numbers, and is absent on the other platforms."""

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
def test_materialize_is_the_identity(transform):
    np.testing.assert_array_equal(transform(backends.materialize)(X), X)


def test_materialize_passes_gradients_in_both_modes():
    def loss(x):
        return jnp.sum(jnp.sin(backends.materialize(x)))

    np.testing.assert_allclose(jax.jit(jax.grad(loss))(X), np.cos(X), rtol=1e-6)
    _, tangent = jax.jvp(loss, (X,), (np.ones_like(X),))
    assert tangent == pytest.approx(np.cos(X).sum(), rel=1e-6)


@pytest.mark.parametrize("check_vma", [True, False])
def test_materialize_works_under_shard_map(check_vma):
    mesh = mesh_lib.mesh(3)
    mapped = jax.shard_map(
        backends.materialize, mesh=mesh, in_specs=mesh_lib.SHARDED, out_specs=mesh_lib.SHARDED, check_vma=check_vma
    )
    np.testing.assert_array_equal(jax.jit(mapped)(X), X)


def test_exported_program_with_materialize_runs():
    exported = jax.export.export(jax.jit(backends.materialize), platforms=("cpu", "cuda", "tpu"))(X)
    np.testing.assert_array_equal(exported.call(X), X)


@pytest.mark.parametrize(("platform", "has_branch"), [("cpu", True), ("cuda", False), ("tpu", False)])
def test_materialize_adds_a_branch_on_cpu_only(platform, has_branch):
    lowered = jax.jit(backends.materialize).trace(X).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.negate" in lowered) == has_branch  # the branch that is never taken


def test_materialize_prevents_recomputation_on_cpu():
    """Without it, XLA on CPU computes the ReLU once per consumer; if it no longer does, remove `materialize`."""

    def consumers(shared_by, x):
        shared = shared_by(jax.nn.relu(x * 2))
        return shared.T + 1, shared[::-1] * 3

    def num_relus(shared_by):
        compiled = optimised(lambda x: consumers(shared_by, x)).lower(jnp.zeros((64, 64))).compile()
        return compiled.as_text().count(" maximum(")

    assert num_relus(backends.materialize) == 1
    assert num_relus(lambda x: x) == 2


def test_cpu_options_are_not_used_on_other_platforms():
    assert backends.compiler_options("cpu") is not None
    assert backends.compiler_options("gpu") is None
    assert backends.compiler_options("tpu") is None
    assert backends.has_fast_device_loops("gpu")
    assert not backends.has_fast_device_loops("cpu")


@pytest.mark.parametrize("option", [("xla_cpu_no_such_option", ""), ("xla_cpu_experimental_ynn_fusion_type", "NONE")])
def test_options_unknown_to_xla_are_dropped(monkeypatch, option):
    monkeypatch.setattr(backends, "_CPU_OPTIONS", dict([option]))
    assert backends.compiler_options("cpu") is None


@pytest.mark.parametrize("tokens", [5, 6])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_attention_padded_for_cudnn_equals_the_unpadded(tokens, dtype, monkeypatch):
    query, key, value = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 4, tokens, 2, 8)), dtype)

    def attended():
        batched = jax.vmap(backends.attention)
        gradient = jax.grad(lambda *qkv: jnp.sum(jnp.sin(batched(*qkv).astype(jnp.float32))), argnums=(0, 1, 2))
        return batched(query, key, value), gradient(query, key, value)

    plain = attended()
    xla, calls = jax.nn.dot_product_attention, []

    def instead_of_cudnn(*qkv, implementation, **lengths):
        calls.append((implementation, qkv[0].shape[-3]))
        return xla(*qkv, implementation="xla", **lengths)

    monkeypatch.setattr(backends, "_has_cudnn_attention", lambda dtype: True)
    monkeypatch.setattr(jax.nn, "dot_product_attention", instead_of_cudnn)
    padded = attended()
    assert set(calls) == {("cudnn", 6)}
    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(*map(np.float32, (a, b)), atol=tolerance), plain, padded)


def test_exported_attention_does_not_use_cudnn(monkeypatch):
    monkeypatch.setattr(backends, "_has_cudnn_attention", lambda dtype: True)
    qkv = [jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 5, 2, 4"), jnp.bfloat16)] * 3
    exported = jax.export.export(jax.jit(backends.attention), platforms=("cpu", "cuda"))(*qkv)
    assert "__cudnn$" not in exported.mlir_module()


def test_attention_does_not_use_cudnn_on_cpu():
    assert not backends._has_cudnn_attention(jnp.bfloat16)


@pytest.mark.parametrize(("stride", "groups", "channels", "features"), [(1, 2, 8, 8), (2, 3, 12, 24), (2, 6, 6, 6)])
def test_grouped_convolution_equals_jax_with_derivatives(stride, groups, channels, features):
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
