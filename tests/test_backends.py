"""Platform-specific code: it changes no numbers, and is absent on the other platforms."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import optimised
from scipy import special

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


@pytest.mark.parametrize(("platform", "num_loops"), [("cpu", 0), ("cuda", 1), ("tpu", 1)])
def test_scan_is_a_loop_except_on_cpu(platform, num_loops):
    def sums(x):
        return backends.scan(lambda total, each: (total + each, total), jnp.zeros(4), x, len(x))

    lowered = jax.jit(sums).trace(X).lower(lowering_platforms=(platform,)).as_text()
    assert lowered.count("stablehlo.while") == num_loops
    np.testing.assert_allclose(sums(X)[0], X.sum(0), rtol=1e-6)


@pytest.mark.parametrize("option", [("xla_cpu_no_such_option", ""), ("xla_cpu_experimental_ynn_fusion_type", "NONE")])
def test_options_unknown_to_xla_are_dropped(monkeypatch, option):
    monkeypatch.setattr(backends, "_CPU_OPTIONS", dict([option]))
    assert backends.compiler_options("cpu") is None


@pytest.mark.parametrize("tokens", [5, 6])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_attention_padded_for_cudnn_equals_the_unpadded(tokens, dtype, monkeypatch):
    query, key, value = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 4, tokens, 2, 8)), dtype)

    def attended(attention):
        batched = jax.vmap(attention)
        gradient = jax.grad(lambda *qkv: jnp.sum(jnp.sin(batched(*qkv).astype(jnp.float32))), argnums=(0, 1, 2))
        return batched(query, key, value), gradient(query, key, value)

    plain = attended(backends.attention)
    xla, calls = jax.nn.dot_product_attention, []

    def instead_of_cudnn(*qkv, implementation, **lengths):
        calls.append((implementation, qkv[0].shape[-3]))
        return xla(*qkv, implementation="xla", **lengths)

    monkeypatch.setattr(jax.nn, "dot_product_attention", instead_of_cudnn)
    padded = attended(backends._attention_by_cudnn)
    assert set(calls) == {("cudnn", 6)}
    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(*map(np.float32, (a, b)), atol=tolerance), plain, padded)


@pytest.fixture
def with_cudnn(monkeypatch):
    """Stand in for cuDNN, which cannot be traced without JAX's plug-in for NVIDIA GPUs."""
    monkeypatch.setattr(backends, "_has_cudnn_attention", backends._has_cudnn_attention.__wrapped__)
    monkeypatch.setattr(backends, "_attention_by_cudnn", lambda query, key, value: jnp.tan(query + key + value))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_attention_of_tpu_equals_that_of_other_platforms(dtype):
    query, key, value = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 5, 2, 8)), dtype)

    def derivatives(attention):
        gradient = jax.grad(lambda *qkv: jnp.sum(jnp.sin(attention(*qkv).astype(jnp.float32))), argnums=(0, 1, 2))
        second = lambda *qkv: jax.jvp(gradient, qkv, (key, value, query))[1]  # noqa: E731
        of = (attention, gradient, second) if dtype == jnp.float32 else (attention, gradient)
        return jax.jit(lambda *qkv: [each(*qkv) for each in of])(query, key, value)

    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(*map(np.float32, (a, b)), atol=tolerance),
        derivatives(backends._attention_by_einsum),
        derivatives(backends.attention),
    )


@pytest.mark.parametrize(
    ("platform", "dtype", "called"),
    [("cuda", "bfloat16", True), ("cuda", "float32", False), ("tpu", "bfloat16", False), ("cpu", "bfloat16", False)],
)
def test_attention_calls_cudnn_in_programs_for_nvidia(platform, dtype, called, with_cudnn):
    def loss(*qkv):
        return jnp.sum(backends.attention(*qkv).astype(jnp.float32))

    qkv = [jax.ShapeDtypeStruct((2, 5, 2, 8), dtype)] * 3
    for function in (backends.attention, jax.grad(loss)):
        lowered = jax.jit(function).trace(*qkv).lower(lowering_platforms=(platform,)).as_text()
        assert ("stablehlo.tan " in lowered) == called
        assert ("stablehlo.exponential" in lowered) != called


def test_exported_attention_does_not_use_cudnn(with_cudnn):
    qkv = [jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 5, 2, 4"), jnp.bfloat16)] * 3
    exported = jax.export.export(jax.jit(backends.attention), platforms=("cpu", "cuda"))(*qkv)
    assert "stablehlo.tan " not in exported.mlir_module()


def test_attention_that_cudnn_does_not_have_is_left_to_xla(monkeypatch):
    def unavailable(query, key, value):
        raise NotImplementedError("The head dim must be <= 128 and a multiple of 8, but got 4.")

    qkv = [jnp.ones((2, 5, 2, 4), jnp.bfloat16)] * 3
    expected = backends.attention(*qkv)
    monkeypatch.setattr(backends, "_attention_by_cudnn", unavailable)
    backends._has_cudnn_attention.cache_clear()
    assert not backends._has_cudnn_attention(qkv[0].shape, qkv[0].dtype)
    np.testing.assert_array_equal(backends.attention(*qkv), expected)


def test_gelu_of_tpu_is_exact_in_bfloat16():
    bits = np.arange(2**16, dtype=np.uint16)
    x = bits[bits & 0x7F80 != 0x7F80].view(jnp.bfloat16)  # all finite numbers
    wide = x.astype(np.float64)
    with np.errstate(all="ignore"):
        density = np.exp(-(wide**2) / 2) / np.sqrt(2 * np.pi)
        exact, slope = wide * special.ndtr(wide), special.ndtr(wide) + wide * density
    ours, ours_slope = jax.jit(lambda x: jax.jvp(backends._gelu_by_tanh, (x,), (jnp.ones_like(x),)))(x)
    for value, expected in ((ours, exact), (ours_slope, slope)):
        # half a unit in the last place of bfloat16, and the rounding of float32
        np.testing.assert_allclose(np.asarray(value, np.float64), expected, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize(
    ("platform", "dtype", "approximated"),
    [("tpu", "bfloat16", True), ("tpu", "float32", False), ("cuda", "bfloat16", False), ("cpu", "bfloat16", False)],
)
def test_gelu_avoids_the_error_function_on_tpu(platform, dtype, approximated):
    gradient = jax.grad(lambda x: jnp.sum(backends.gelu(x).astype(jnp.float32)))
    for function in (backends.gelu, gradient):
        traced = jax.jit(function).trace(jax.ShapeDtypeStruct((4, 4), dtype))
        assert ("stablehlo.tanh" in traced.lower(lowering_platforms=(platform,)).as_text()) == approximated


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
