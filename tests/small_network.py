"""A small network on vectors, its inputs and references, and predictions by a loop in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

import anchor_jax as aj

B, H, C = 4, 5, 3  # inputs, features of an input, classes
MAX_REFERENCES = 12

# compiled, since each call outside of jit compiles its loop anew; test_inference compares with and without jit
predict = jax.jit(aj.predict, static_argnames=("apply_fn", "chunk_size"))
classify = jax.jit(aj.classify, static_argnames=("apply_fn", "chunk_size", "temper"))


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


X, REFERENCES = normal(0, B, H), normal(1, MAX_REFERENCES, H)
PARAMS = {"in": normal(2, 2 * H, 8), "out": normal(3, 8, C)}


def mlp(params, inputs):
    return jnp.tanh(inputs @ params["in"]) @ params["out"]


def reference_as_logits(_, inputs):
    """Return the reference: a network with any desired logits."""
    return jnp.split(inputs, 2, axis=-1)[0]


def predict_in_loop(apply_fn, params, x, references):
    """Return outputs float64 `[K, B, ...]`: one reference after the other, anchored in NumPy."""
    outputs = []
    for reference in references:
        repeated = np.broadcast_to(reference, x.shape)
        outputs.append(np.asarray(apply_fn(params, np.concatenate([repeated, x - repeated], axis=-1))))
    return np.stack(outputs).astype(np.float64)


def classify_logits(logits):
    """Return the classification of a single input whose K references have logits `[K, C]`."""
    return classify(reference_as_logits, None, np.zeros((1, logits.shape[1]), np.float32), logits)


def assert_close(one, other, rtol=1e-4, atol=1e-5):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
