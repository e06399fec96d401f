"""Models of every framework under the transforms: the examples of docs/frameworks.md, executed unchanged."""

import dataclasses
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

# the function and the parameters of the trained model in each example
TRAINED = {
    "Flax Linen": lambda example: (example["model"].apply, example["variables"]),
    "Flax NNX": lambda example: (example["f"], example["model"]),
    "Equinox": lambda example: (example["predict_fn"], example["trained"]),
    "Haiku": lambda example: (example["predict_fn"], example["trained"]),
    "A plain function": lambda example: (example["predict_fn"], example["params"]),
}


def jit_with_static_function(function):
    return jax.jit(function, static_argnums=0)


# frameworks whose parameters are a model have their own jit
JIT = {"Flax NNX": lambda function: nnx.jit(function, static_argnums=0), "Equinox": eqx.filter_jit}


@pytest.fixture(scope="module", autouse=True)
def fast_compilation():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()  # no other test may use unoptimized programs


@pytest.fixture(scope="module", params=EXAMPLES)
def example(request):
    """Run an example; return its variables and the title of its section."""
    return {"section": request.param} | pages.run(PREFACE + EXAMPLES[request.param], f"{PAGE}, {request.param}")


def loop(f, params, x, references):
    """Return the outputs of one reference after the other, `[K, B, C]`."""
    pairs = [(np.broadcast_to(reference, x.shape), x - reference) for reference in np.asarray(references)]
    return np.stack([f(params, jnp.concatenate(pair, axis=-1)) for pair in pairs])


def test_example_learns(example):
    assert np.isfinite(example["loss"])
    nll = aj.anchored_cross_entropy(jnp.log(example["answer"].probs), example["labels"]).mean()
    assert nll < 0.8 < np.log(3)  # of a uniform guess


def test_example_predictions_equal_loop_over_references(example):
    f, params = TRAINED[example["section"]](example)
    x, references = np.asarray(example["x"]), example["bank"][:10]
    outputs = loop(f, params, x, references)
    close = {"rtol": 1e-3, "atol": 1e-5}
    np.testing.assert_allclose(example["mean"], outputs.mean(0), **close)
    np.testing.assert_allclose(example["std"], outputs.std(0, ddof=1), **close)
    np.testing.assert_allclose(example["answer"].logits, outputs.mean(0), **close)
    np.testing.assert_allclose(example["answer"].probs, jax.nn.softmax(outputs).mean(0), **close)
    chunked = JIT.get(example["section"], jit_with_static_function)(partial(aj.predict, chunk_size=4))(
        f, params, x, references
    )
    np.testing.assert_allclose(chunked.mean, outputs.mean(0), **close)


def test_example_conversion_keeps_the_image_network(example):
    assert np.std(example["before"], axis=0).min() > 1e-3
    np.testing.assert_allclose(example["after"], example["before"], atol=1e-5)


@pytest.mark.parametrize("example", ["Flax NNX", "Equinox"], indirect=True)
def test_example_split_model_equals_the_plain_model(example):
    for answer in (example["split_answer"], example["encoded_answer"]):
        for found, expected in zip(answer, example["answer"], strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# one step of each example with BatchNorm on its batch: (parameters, statistics) before and after it


def linen_step(example, anchored, *batch):
    before = example["variables"]
    after, _, _ = example["train_step"](anchored, before, example["opt_state"], *batch)
    return [(variables["params"], variables["batch_stats"]) for variables in (before, after)]


def nnx_step(example, anchored, *batch):
    model, optimizer = nnx.clone(example["model"]), nnx.clone(example["optimizer"])
    model.train()
    example["train_step"](anchored, model, optimizer, *batch)
    return [[nnx.state(each, kind) for kind in (nnx.Param, nnx.BatchStat)] for each in (example["model"], model)]


def equinox_step(example, anchored, *batch):
    model, state = eqx.nn.inference_mode(example["model"], value=False), example["state"]
    after = example["train_step"](anchored, model, state, example["opt_state"], *batch)
    return [(eqx.filter(model, eqx.is_array), state) for model, state in ((model, state), after[:2])]


def haiku_step(example, anchored, *batch):
    before = example["params"], example["state"]
    return before, example["train_step"](anchored, *before, example["opt_state"], *batch)[:2]


STEPS = {"Flax Linen": linen_step, "Flax NNX": nnx_step, "Equinox": equinox_step, "Haiku": haiku_step}


def key_of_step(section, masked):
    """Return a key whose draw of the mask is this one."""
    for seed in range(100):
        key = jax.random.key(seed)
        anchor_key = key if section == "Flax NNX" else jax.random.split(key)[0]
        if bool(aj.sample_mask(jax.random.split(anchor_key)[1], 24, 0.25)[0]) == masked:
            return key
    raise AssertionError


@pytest.mark.parametrize("example", STEPS, indirect=True)
def test_example_keeps_statistics_of_masked_batches(example):
    section = example["section"]
    for masked in (True, False):
        batch = example["x"], example["labels"], key_of_step(section, masked)
        (params, statistics), (new_params, new_statistics) = STEPS[section](example, example["anchored"], *batch)
        assert differs(params, new_params)
        assert jax.tree.leaves(statistics)
        assert differs(statistics, new_statistics) != masked


def test_statistics_that_nnx_changes_in_place_must_be_copied():
    model, mask = nnx.BatchNorm(2, rngs=nnx.Rngs(0)), jnp.ones(3, bool)
    statistics = nnx.state(model, nnx.BatchStat)
    model(jnp.ones((3, 2)))
    with pytest.raises(aj.UserError, match=r"the same variables, .* jax.tree.map\(jnp.copy, nnx.state"):
        aj.keep_statistics(statistics, nnx.state(model, nnx.BatchStat), mask)


def differs(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return any(np.asarray(a).tobytes() != np.asarray(b).tobytes() for a, b in pairs)


@pytest.mark.parametrize("example", STEPS, indirect=True)
def test_example_step_has_no_constant_of_the_bank(example):
    bank = jnp.zeros((4000, *example["x"].shape[1:])).at[0].set(1)
    texts = []

    def train_step(*args):
        texts.append(example["train_step"].lower(*args).as_text())
        raise StopAsyncIteration

    batch = example["x"], example["labels"], jax.random.key(0)
    with pytest.raises(StopAsyncIteration):
        STEPS[example["section"]](
            example | {"train_step": train_step}, dataclasses.replace(example["anchored"], bank=bank), *batch
        )
    assert "tensor<4000x6x6x2xf32>" in texts[0]  # an argument
    assert len(texts[0]) < bank.nbytes / 2


# training arguments of each model for a dropout key: function, parameters, positional and keyword arguments


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


def test_anchored_passes_statistics_dropout_and_aux_through(example):
    training, x, references = TRAINING[example["section"]], example["x"], example["bank"][24:]
    mask = np.arange(len(x)) % 3 == 0
    visible = jnp.where(mask[:, None, None, None], 0, references)

    def results(key):
        f, params, args, options = training(example, key)
        outputs = aj.anchored(f)(params, x, references, *args, mask=mask, **options)
        f, params, args, options = training(example, key)  # NNX models are modified in place
        assert_same_bits(outputs, f(params, jnp.concatenate([visible, x - references], axis=-1), *args, **options))
        return outputs

    (logits, auxiliary), (other_logits, other_auxiliary) = results(jax.random.key(5)), results(jax.random.key(6))
    assert np.any(logits != other_logits)  # dropout differs
    assert_same_bits(auxiliary, other_auxiliary)  # statistics and features precede dropout
    assert jax.tree.leaves(auxiliary)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nnx.Linear(6, 2, rngs=nnx.Rngs(0)), "got Linear, which holds its own parameters; pass lambda model, inputs"),
        (eqx.nn.Linear(6, 2, key=jax.random.key(0)), "got Linear, which holds its own parameters; pass lambda model"),
        (linen.Dense(2), "got Dense; pass its apply method, or a function of parameters and inputs that calls it"),
        (hk.transform(hk.Linear), "got Transformed; pass its apply method, or a function of parameters and inputs"),
    ],
)
def test_classify_rejects_model_instead_of_function(model, message):
    with pytest.raises(aj.UserError, match=message):
        aj.classify(model, None, np.ones((4, 3)), np.ones((2, 3)))


@pytest.mark.parametrize("function", [eqx.filter_jit(jnp.dot), jax.tree_util.Partial(jnp.dot, precision=np.array(0))])
def test_anchored_accepts_functions_that_are_pytrees(function):
    assert callable(aj.anchored(function))


# first layers


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
def test_anchored_kernel_first_layer_is_same_function(layers, kind):
    shape = (3, 2) if kind == "dense" else (3, 6, 6, 2)
    x, references = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    before, after = layers(kind, x, aj.anchor(x, references))
    assert np.std(before) > 0.1
    np.testing.assert_allclose(after, before, atol=1e-5)


# what does not fit: the first convolution of each framework, for C input channels or of another dtype


def linen_conv(channels):
    model = linen.Conv(3, (6, 6), padding="VALID")
    return model.apply, model.init(jax.random.key(0), jnp.zeros((1, 6, 6, channels)))


def nnx_conv(channels):
    return lambda model, inputs: model(inputs), nnx.Conv(channels, 3, (6, 6), padding="VALID", rngs=nnx.Rngs(0))


def equinox_conv(channels):
    def f(model, inputs):
        return jnp.moveaxis(jax.vmap(model)(jnp.moveaxis(inputs, -1, 1)), 1, -1)

    return f, eqx.nn.Conv2d(channels, 3, 6, key=jax.random.key(0))


def haiku_conv(channels):
    model = hk.without_apply_rng(hk.transform(lambda inputs: hk.Conv2D(3, 6, padding="VALID")(inputs)))
    return lambda params, inputs: model.apply(params, inputs), model.init(
        jax.random.key(0), jnp.zeros((1, 6, 6, channels))
    )


X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6, 6, 2)), jnp.float32)
CALLS = {
    "anchored": lambda f, params, x: aj.anchored(f)(params, x, x[::-1]),
    "predict": lambda f, params, x: aj.predict(f, params, x, x[:2]).mean,
    "jit": lambda f, params, x: eqx.filter_jit(aj.predict)(f, params, x, x[:2]).mean,
    "encode_references": lambda f, params, x: aj.encode_references(aj.SplitModel(f, f), params, x),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("conv", [linen_conv, nnx_conv, equinox_conv, haiku_conv])
def test_model_with_undoubled_channels_is_explained(conv, call):
    message = r"\Athe model takes 2 input channels; \w+ passes 4, .* first layer for 4 channels, or widen .*_kernel"
    with pytest.raises(aj.UserError, match=message) as raised:
        CALLS[call](*conv(2), X)
    assert raised.value.__cause__ is not None


@pytest.mark.parametrize("call", ["anchored", "predict"])
@pytest.mark.parametrize("conv", [equinox_conv, haiku_conv])
@pytest.mark.parametrize(("params", "x"), [("bfloat16", "float32"), ("float32", "bfloat16"), ("float16", "float32")])
def test_model_that_does_not_mix_dtypes_is_explained(conv, call, params, x):
    f, variables = conv(4)
    variables = jax.tree.map(lambda leaf: leaf.astype(params) if eqx.is_array(leaf) else leaf, variables)
    with pytest.raises(
        aj.UserError, match=rf"dtype of the parameters, {params}, .* got {x}; pass x.astype\('{params}'"
    ):
        CALLS[call](f, variables, X.astype(x))
    assert CALLS[call](f, variables, X.astype(params)).shape == (4, 1, 1, 3)


def test_model_with_channels_first_is_explained():
    model = eqx.nn.Conv2d(4, 3, 6, key=jax.random.key(0))
    with pytest.raises(aj.UserError, match=r"takes images \[B, 2C, H, W\]; .* with jnp.moveaxis\(inputs, -1, 1\)"):
        aj.predict(lambda model, inputs: jax.vmap(model)(inputs), model, X, X[:2])


def test_other_errors_of_a_model_are_raised_as_they_are():
    def f(params, inputs):
        raise KeyError("conv")

    with pytest.raises(KeyError, match="conv"):
        aj.predict(f, {}, X, X[:2])
