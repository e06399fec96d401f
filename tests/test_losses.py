"""The anchored cross entropy compared with PyTorch's, and the effect of a mask."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from jax.sharding import PartitionSpec

import anchor_jax as aj
from anchor_jax.runtime import mesh as mesh_lib

torch = pytest.importorskip("torch")

B, C = 6, 5
RNG = np.random.default_rng(0)
LOGITS = (3 * RNG.normal(size=(B, C))).astype(np.float32)
HARD = np.array([4, 0, 1, 3, 3, 2])
SOFT = RNG.dirichlet(np.ones(C), size=B).astype(np.float32)
LABELS = pytest.mark.parametrize("labels", [HARD, SOFT], ids=["hard", "soft"])
MASK = np.array([True, False, False, True, True, False])
UNIFORM = np.full((B, C), 1 / C, np.float32)

uniform_target = partial(aj.anchored_cross_entropy, masked_target="uniform")


def torch_loss(logits, labels, label_smoothing=0.0):
    targets = torch.from_numpy(np.asarray(labels))
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none", label_smoothing=label_smoothing)


def torch_losses(labels, label_smoothing=0.0):
    return torch_loss(torch.from_numpy(LOGITS), labels, label_smoothing).numpy()


# values


@LABELS
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("mask", [None, np.zeros(B, bool)], ids=["no mask", "mask false"])
def test_cross_entropy_unmasked_equals_torch(labels, label_smoothing, mask):
    ours = aj.anchored_cross_entropy(LOGITS, labels, mask, label_smoothing=label_smoothing)
    assert (ours.shape, ours.dtype) == ((B,), jnp.float32)
    np.testing.assert_allclose(ours, torch_losses(labels, label_smoothing), rtol=1e-5)


@LABELS
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_cross_entropy_masked_target_is_uniform(labels, label_smoothing):
    ours = uniform_target(LOGITS, labels, MASK, label_smoothing=label_smoothing)
    expected = np.where(MASK, torch_losses(UNIFORM), torch_losses(labels, label_smoothing))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


@LABELS
def test_cross_entropy_masked_is_kl_from_uniform_plus_ln_c(labels):
    ours = uniform_target(LOGITS, labels, np.ones(B, bool))
    probs = scipy.special.softmax(LOGITS.astype(np.float64), axis=1)
    np.testing.assert_allclose(ours, scipy.stats.entropy(UNIFORM, probs, axis=1) + np.log(C), rtol=1e-5)


def test_cross_entropy_masked_is_minimal_for_equal_logits():
    best = uniform_target(jnp.full((B, C), 7.0), HARD, np.ones(B, bool))
    np.testing.assert_allclose(best, np.full(B, np.log(C)), rtol=1e-6)
    assert np.all(best < uniform_target(LOGITS, HARD, np.ones(B, bool)))


@LABELS
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_cross_entropy_masked_target_label_ignores_the_mask(labels, label_smoothing):
    ours = aj.anchored_cross_entropy(LOGITS, labels, MASK, masked_target="label", label_smoothing=label_smoothing)
    np.testing.assert_allclose(ours, torch_losses(labels, label_smoothing), rtol=1e-5)


def test_cross_entropy_default_masked_target_is_label():
    default = aj.anchored_cross_entropy(LOGITS, HARD, MASK)
    np.testing.assert_array_equal(default, aj.anchored_cross_entropy(LOGITS, HARD, MASK, masked_target="label"))
    assert np.all(default[MASK] != uniform_target(LOGITS, HARD, MASK)[MASK])


# gradients and independence


@LABELS
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_cross_entropy_gradients_equal_torch(labels, label_smoothing):
    weights = np.arange(1, B + 1, dtype=np.float32)

    def weighted(logits):
        return jnp.sum(weights * uniform_target(logits, labels, MASK, label_smoothing=label_smoothing))

    logits = torch.from_numpy(LOGITS.copy()).requires_grad_()
    losses = torch.where(
        torch.from_numpy(MASK), torch_loss(logits, UNIFORM), torch_loss(logits, labels, label_smoothing)
    )
    (torch.from_numpy(weights) * losses).sum().backward()
    np.testing.assert_allclose(jax.jit(jax.grad(weighted))(LOGITS), logits.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_cross_entropy_depends_only_on_its_own_example():
    together = uniform_target(LOGITS, HARD, MASK)
    alone = jax.vmap(lambda *example: uniform_target(*(a[None] for a in example))[0])(LOGITS, HARD, MASK)
    np.testing.assert_allclose(alone, together, rtol=1e-6)
    jacobian = jax.jacobian(lambda logits: uniform_target(logits, HARD, MASK))(LOGITS)  # [B, B, C]
    is_dependent = np.any(jacobian != 0, axis=-1)
    np.testing.assert_array_equal(is_dependent, np.eye(B, dtype=bool))


@pytest.mark.parametrize("size", [1e4, 1e30])
@pytest.mark.parametrize(
    ("shift", "masked", "share"),
    [(0, False, 0.0), (1, False, 1.0), (0, True, 1 - 1 / C)],
    ids=["right", "wrong", "masked"],
)
def test_cross_entropy_of_extreme_logits_is_finite(size, shift, masked, share):
    def loss(logits):
        return uniform_target(logits, np.roll(np.arange(C), shift), np.full(C, masked)).mean()

    value, gradient = jax.jit(jax.value_and_grad(loss))(size * np.eye(C, dtype=np.float32))
    np.testing.assert_allclose(value, share * size, rtol=1e-5)
    assert np.all(np.isfinite(gradient))


# dtypes and transforms


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("label_dtype", [jnp.int32, jnp.uint8])
def test_cross_entropy_of_half_precision_is_float32(dtype, label_dtype):
    logits, labels = jnp.asarray(LOGITS, dtype), jnp.asarray(HARD, label_dtype)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        losses = uniform_target(logits, labels, MASK, label_smoothing=0.1)
    assert losses.dtype == jnp.float32
    expected = uniform_target(logits.astype(jnp.float32), labels, MASK, label_smoothing=0.1)
    np.testing.assert_array_equal(losses, expected)


@LABELS
def test_cross_entropy_under_jit_and_shard_map(labels):
    expected = uniform_target(LOGITS, labels, MASK)
    np.testing.assert_allclose(jax.jit(uniform_target)(LOGITS, labels, MASK), expected, rtol=1e-6)
    over_devices = jax.shard_map(
        uniform_target,
        mesh=mesh_lib.mesh(2),
        in_specs=PartitionSpec("data"),
        out_specs=PartitionSpec("data"),
    )
    np.testing.assert_allclose(jax.jit(over_devices)(LOGITS, labels, MASK), expected, rtol=1e-6)


def test_cross_entropy_accepts_traced_label_smoothing():
    traced = jax.jit(lambda s: aj.anchored_cross_entropy(LOGITS, HARD, label_smoothing=s))(0.1)
    np.testing.assert_allclose(traced, torch_losses(HARD, 0.1), rtol=1e-5)


# unknown classes


@pytest.mark.parametrize("masked_target", ["uniform", "label"])
def test_cross_entropy_of_unknown_class_is_nan(masked_target):
    labels = jnp.asarray(HARD).at[0].set(-1).at[1].set(LOGITS.shape[1])
    mask = np.arange(len(labels)) == 1
    losses = jax.jit(aj.anchored_cross_entropy, static_argnames="masked_target")(
        LOGITS, labels, mask, masked_target=masked_target
    )
    ignored = masked_target == "uniform"  # the label of a masked example is not used
    np.testing.assert_array_equal(np.isnan(losses), (np.arange(len(labels)) < 2) & ~(mask & ignored))


# narrow labels and excluded classes


@pytest.mark.parametrize(("dtype", "num_classes"), [("int8", 200), ("uint8", 300)])
def test_cross_entropy_takes_labels_of_8_bits(dtype, num_classes):
    logits = np.random.default_rng(0).normal(size=(4, num_classes)).astype(np.float32)
    labels = np.array([0, 3, 44, 100])
    expected = torch_loss(torch.from_numpy(logits), labels)
    np.testing.assert_allclose(aj.anchored_cross_entropy(logits, jnp.asarray(labels, dtype)), expected, rtol=1e-5)


@pytest.mark.parametrize("labels", [np.array([0, 2]), np.array([[0.5, 0, 0.5], [0, 0, 1]], np.float32)])
def test_cross_entropy_of_excluded_classes_equals_torch(labels):
    logits = np.array([[0.0, -np.inf, 1.0], [-np.inf, -np.inf, 2.0]], np.float32)
    expected = torch_loss(torch.from_numpy(logits), labels) if labels.ndim == 1 else [np.log(1 + np.e) - 0.5, 0]
    np.testing.assert_allclose(aj.anchored_cross_entropy(logits, labels), expected, atol=1e-6)
    gradient = jax.grad(lambda logits: aj.anchored_cross_entropy(logits, labels).sum())(logits)
    assert np.isfinite(gradient).all()
    assert np.isinf(aj.anchored_cross_entropy(logits, np.array([1, 0]))).all()


def test_cross_entropy_of_wide_labels_is_nan_outside_classes():
    with jax.enable_x64(True):
        losses = aj.anchored_cross_entropy(np.zeros((3, 3), np.float32), jnp.asarray([2**32, -(2**32), 2]))
    np.testing.assert_allclose(losses, [np.nan, np.nan, np.log(3)], rtol=1e-6)
