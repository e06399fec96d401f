"""Models of every framework under the transforms; the examples of docs/frameworks.md, run as they stand."""

import re
from functools import partial

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pages
import pytest
from conftest import assert_same_bits
from flax import linen, nnx

import anchor_jax as aj

PAGE = pages.DOCS / "frameworks.md"
PREFACE, *SECTIONS = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
EXAMPLES = {section.splitlines()[0]: section for section in SECTIONS}

# how each example asks its trained model: function and parameters
ASKED = {
    "Flax Linen": lambda example: (example["model"].apply, example["variables"]),
    "Flax NNX": lambda example: (example["f"], example["model"]),
    "Equinox": lambda example: (example["predict_fn"], example["trained"]),
    "Haiku": lambda example: (example["predict_fn"], example["trained"]),
    "A plain function": lambda example: (example["predict_fn"], example["params"]),
}


def statically(ask):
    return jax.jit(ask, static_argnums=0)


# how they are compiled whose parameters are a model
COMPILED = {"Flax NNX": lambda ask: nnx.jit(ask, static_argnums=0), "Equinox": eqx.filter_jit}


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()  # so that no other test runs what was compiled here


@pytest.fixture(scope="module", params=EXAMPLES)
def example(request):
    """The names that an example leaves behind, and its own."""
    return {"section": request.param} | pages.run(PREFACE + EXAMPLES[request.param], f"{PAGE}, {request.param}")


def loop(f, params, x, references):
    """Outputs of one reference after the other, `[K, B, C]`."""
    pairs = [(np.broadcast_to(reference, x.shape), x - reference) for reference in np.asarray(references)]
    return np.stack([f(params, jnp.concatenate(pair, axis=-1)) for pair in pairs])


def test_an_example_learns(example):
    assert np.isfinite(example["loss"])
    nll = aj.anchored_cross_entropy(jnp.log(example["answer"].probs), example["labels"]).mean()
    assert nll < 0.8 < np.log(3)  # of guessing


def test_an_example_predicts_as_a_loop_over_references(example):
    f, params = ASKED[example["section"]](example)
    x, references = np.asarray(example["x"]), example["bank"][:10]
    outputs = loop(f, params, x, references)
    close = {"rtol": 1e-3, "atol": 1e-5}
    np.testing.assert_allclose(example["mean"], outputs.mean(0), **close)
    np.testing.assert_allclose(example["std"], outputs.std(0, ddof=1), **close)
    np.testing.assert_allclose(example["answer"].logits, outputs.mean(0), **close)
    np.testing.assert_allclose(example["answer"].probs, jax.nn.softmax(outputs).mean(0), **close)
    chunked = COMPILED.get(example["section"], statically)(partial(aj.predict, chunk_size=4))(f, params, x, references)
    np.testing.assert_allclose(chunked.mean, outputs.mean(0), **close)


def test_an_example_begins_as_its_network_of_images(example):
    assert np.std(example["before"], axis=0).min() > 1e-3
    np.testing.assert_allclose(example["after"], example["before"], atol=1e-5)


# what an example hands to its model in training, for a key of dropout: function, parameters, more arguments


def linen_training(example, key):
    options = {"train": True, "mutable": ["batch_stats"], "rngs": {"dropout": key}}
    return example["model"].apply, example["variables"], (), options


def nnx_training(example, key):
    def f(model, inputs):
        return model(inputs), nnx.state(model, nnx.BatchStat)

    model = example["Net"](2 * example["x"].shape[-1], nnx.Rngs(params=1, dropout=key))
    model.train()
    return f, model, (), {}


def equinox_training(example, key):
    model, state = example["trained"]
    keys = jax.random.split(key, len(example["x"]))
    return example["f"], eqx.nn.inference_mode(model, value=False), (state, keys), {}


def haiku_training(example, key):
    return example["f"], example["params"], (example["state"],), {"key": key, "train": True}


def plain_training(example, key):
    def f(params, inputs, rate, *, key):
        logits, features = example["f"](params, inputs)
        kept = jax.random.bernoulli(key, 1 - rate, logits.shape)
        return jnp.where(kept, logits, 0), {"features": features}

    return f, example["params"], (0.5,), {"key": key}


TRAINING = {
    "Flax Linen": linen_training,
    "Flax NNX": nnx_training,
    "Equinox": equinox_training,
    "Haiku": haiku_training,
    "A plain function": plain_training,
}


def test_statistics_dropout_and_auxiliary_outputs_pass_through(example):
    training, x, references = TRAINING[example["section"]], example["x"], example["bank"][24:]
    mask = np.arange(len(x)) % 3 == 0
    shown = jnp.where(mask[:, None, None, None], 0, references)

    def results(key):
        f, params, args, options = training(example, key)
        outputs = aj.anchored(f)(params, x, references, *args, mask=mask, **options)
        f, params, args, options = training(example, key)  # NNX has changed its own
        assert_same_bits(outputs, f(params, jnp.concatenate([shown, x - references], axis=-1), *args, **options))
        return outputs

    (logits, auxiliary), (others, same) = results(jax.random.key(5)), results(jax.random.key(6))
    assert np.any(logits != others)  # another dropout
    assert_same_bits(auxiliary, same)  # which comes after statistics and features
    assert jax.tree.leaves(auxiliary)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nnx.Linear(6, 2, rngs=nnx.Rngs(0)), "got a Linear that holds its own parameters: give lambda model, inputs"),
        (eqx.nn.Linear(6, 2, key=jax.random.key(0)), "got a Linear that holds its own parameters: give lambda model"),
        (linen.Dense(2), "got a Dense: give its method apply, or a function of parameters and inputs that calls it"),
        (hk.transform(hk.Linear), "got a Transformed: give its method apply, or a function of parameters and inputs"),
    ],
)
def test_a_model_in_place_of_a_function_is_told(model, message):
    with pytest.raises(aj.UserError, match=message):
        aj.classify(model, None, np.ones((4, 3)), np.ones((2, 3)))


@pytest.mark.parametrize("function", [eqx.filter_jit(jnp.dot), jax.tree_util.Partial(jnp.dot, precision=np.array(0))])
def test_a_function_that_is_a_pytree_is_one(function):
    assert callable(aj.anchored(function))


# first layers alone


def linen_layers(kind, x, inputs):
    bias_init = linen.initializers.normal()
    layer = {"dense": linen.Dense(4, bias_init=bias_init), "conv": linen.Conv(4, (3, 3), 2, bias_init=bias_init)}[kind]
    params = layer.init(jax.random.key(0), x)["params"]
    widened = params | {"kernel": aj.anchored_kernel(params["kernel"])}
    return layer.apply({"params": params}, x), layer.apply({"params": widened}, inputs)


def nnx_layers(kind, x, inputs):
    options = {"bias_init": nnx.initializers.normal(), "rngs": nnx.Rngs(0)}
    layer = nnx.Linear(2, 4, **options) if kind == "dense" else nnx.Conv(2, 4, (3, 3), 2, **options)
    before = layer(x)
    layer.kernel = nnx.Param(aj.anchored_kernel(layer.kernel))
    return before, layer(inputs)


def equinox_layers(kind, x, inputs):
    key = jax.random.key(0)
    layer = eqx.nn.Linear(2, 4, key=key) if kind == "dense" else eqx.nn.Conv2d(2, 4, 3, 2, key=key)
    widened = eqx.tree_at(lambda layer: layer.weight, layer, aj.anchored_kernel(layer.weight, axis=1))
    if kind == "conv":
        x, inputs = jnp.moveaxis(x, -1, 1), jnp.moveaxis(inputs, -1, 1)
    return jax.vmap(layer)(x), jax.vmap(widened)(inputs)


def haiku_layers(kind, x, inputs):
    b_init = hk.initializers.RandomNormal()

    @hk.transform
    def layer(x):
        return (hk.Linear(4, b_init=b_init) if kind == "dense" else hk.Conv2D(4, 3, 2, b_init=b_init))(x)

    params = layer.init(jax.random.key(0), x)
    widened = {name: {**leaves, "w": aj.anchored_kernel(leaves["w"])} for name, leaves in params.items()}
    return layer.apply(params, None, x), layer.apply(widened, None, inputs)


@pytest.mark.parametrize("kind", ["dense", "conv"])
@pytest.mark.parametrize("layers", [linen_layers, nnx_layers, equinox_layers, haiku_layers])
def test_a_widened_first_layer_is_the_same_function(layers, kind):
    shape = (3, 2) if kind == "dense" else (3, 6, 6, 2)
    x, references = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    before, after = layers(kind, x, aj.anchor(x, references))
    assert np.std(before) > 0.1
    np.testing.assert_allclose(after, before, atol=1e-5)
