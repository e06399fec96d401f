"""What every model must do, each family at reduced size; and the sizes that were published."""

import functools
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import assert_same_bits

import anchor_jax as aj
from anchor_jax import UserError, models
from anchor_jax.data import Normalization
from anchor_jax.models.layers import ChannelDropout, StochasticDepth, depth_rates
from anchor_jax.models.swin_v2 import unit
from anchor_jax.runs import state
from anchor_jax.runs.load import create_model
from anchor_jax.runs.state import Totals
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.training.loop import prepare
from anchor_jax.training.model_batch import TrainData
from anchor_jax.training.step import make_in_memory_step, make_train_step

NUM_CLASSES = 7
BATCH = 4

TINY_RESNET = {"width": 4, "stage_sizes": (1, 1)}
TINY_VIT = {"patch_size": 4, "width": 16, "depth": 2, "num_heads": 2}
DEEP_VIT = TINY_VIT | {"depth": 5}
TINY_SWIN = {"patch_size": 2, "width": 8, "stage_sizes": (2, 1), "num_heads": (1, 2), "window": 4}

# name, options and side of the images: every family, with the blocks, stems and tokens that it has
TINY = {
    "mlp": ("mlp", {"hidden": (8, 8)}, 8),
    "resnet, basic, CIFAR": ("resnet18", TINY_RESNET, 8),
    "resnet, bottleneck, ImageNet": ("resnet50", TINY_RESNET | {"stem": "imagenet", "stage_sizes": (1,)}, 16),
    "wide resnet": ("wrn40_2", {"depth": 10, "widen": 1}, 8),
    "regnet": (
        "regnet_y_800mf",
        {"stage_sizes": (1, 1), "widths": (8, 16), "group_width": 4, "stem_width": 8},
        16,
    ),
    "deit, distilled": ("deit_s16", TINY_VIT | {"depth": 1, "distillation_token": True, "stochastic_depth": 0.0}, 8),
    "vit, stochastic depth": ("vit_b16", TINY_VIT | {"stochastic_depth": 0.5}, 8),
    "swin, stochastic depth": ("swin_v2_t", TINY_SWIN | {"stochastic_depth": 0.5}, 16),
}
ONE_OF_EACH_FAMILY = {models.MODELS[name][0]: case for case, (name, *_) in TINY.items()}


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_close(one, other, rtol=1e-4, atol=1e-5):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def on_host(function):
    """The same, of which NumPy gets the results: operations of JAX outside of jit are compiled for every shape."""
    return lambda *args: jax.device_get(function(*args))


class Parts(NamedTuple):
    """What evaluation gives."""

    first: jax.Array
    features: jax.Array
    rest: jax.Array
    logits: jax.Array
    statistics: Any


class Trained(NamedTuple):
    """What training gives."""

    loss: jax.Array
    logits: jax.Array
    statistics: Any
    gradients: Any


class Tiny:
    """A model of one family at reduced size, variables none of which is at its first value, inputs, and outputs."""

    def __init__(self, name, options, side):
        self.name, self.options, self.side = name, options, side
        self.model = models.create(name, NUM_CLASSES, **options)
        self.inputs = normal(0, BATCH, side, side, 6)
        self.init = on_host(jax.jit(self.model.init))
        self.first_variables = self.init(jax.random.key(0), self.inputs)
        rng = np.random.default_rng(1)
        self.variables = jax.tree.map(
            lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32), self.first_variables
        )
        self.has_batch_norm = name.startswith(("resnet", "wrn", "regnet"))
        self.rate = options.get("stochastic_depth", 0)

    @functools.cached_property
    def evaluate(self):
        """Inputs -> `Parts`, compiled."""

        def parts(inputs):
            first = self.model.apply(self.variables, inputs, method="first_layer")
            features, rest = (self.model.apply(self.variables, first, method=method) for method in ("features", "rest"))
            logits, updates = self.model.apply(self.variables, inputs, mutable=["batch_stats"])
            return Parts(first, features, rest, logits, updates.get("batch_stats"))

        return on_host(jax.jit(parts))

    @functools.cached_property
    def evaluated(self):
        return self.evaluate(self.inputs)

    @property
    def rematerialised(self):
        """The same model, which computes its blocks again."""
        return models.create(self.name, NUM_CLASSES, remat=True, **self.options)

    def loss(self, model, params, draw):
        """A loss of training, and what else comes of it: logits and new statistics."""
        variables, rngs = {**self.variables, "params": params}, {"stochastic_depth": jax.random.key(draw)}
        logits, updates = model.apply(variables, self.inputs, train=True, mutable=["batch_stats"], rngs=rngs)
        return jnp.sum(jnp.square(logits)), (logits, updates.get("batch_stats"))

    @functools.cached_property
    def train(self):
        """The number of a draw -> `Trained`, plain and rematerialised, compiled."""

        def trained(model, draw):
            loss = jax.value_and_grad(partial(self.loss, model), has_aux=True)
            (value, (logits, statistics)), gradients = loss(self.variables["params"], draw)
            return Trained(value, logits, statistics, gradients)

        return on_host(jax.jit(lambda draw: (trained(self.model, draw), trained(self.rematerialised, draw))))

    @functools.cached_property
    def trained(self):
        return self.train(0)[0]


@functools.cache
def tiny_of(case):
    return Tiny(*TINY[case])


@pytest.fixture(params=TINY, scope="module")
def tiny_model(request):
    return tiny_of(request.param)


def test_every_family_is_checked():
    assert ONE_OF_EACH_FAMILY.keys() == {family for family, _ in models.MODELS.values()}


# dtypes and shapes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_parameters_and_statistics_are_float32_whatever_is_computed_in(tiny_model, dtype):
    model = models.create(tiny_model.name, NUM_CLASSES, dtype=dtype, **tiny_model.options)
    variables = jax.eval_shape(model.init, jax.random.key(0), tiny_model.inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    seeing_inside = partial(model.apply, capture_intermediates=True, mutable="intermediates")
    logits, intermediates = jax.eval_shape(seeing_inside, variables, tiny_model.inputs)
    assert logits.shape == (BATCH, NUM_CLASSES)
    assert logits.dtype == jnp.float32
    assert jnp.dtype(dtype) in {leaf.dtype for leaf in jax.tree.leaves(intermediates)}


def test_more_channels_only_widen_the_first_layer(tiny_model):
    shapes = [
        jax.eval_shape(tiny_model.model.init, jax.random.key(0), tiny_model.inputs[..., :channels])
        for channels in (3, 6)
    ]
    standard, anchored = (
        {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(tree)} for tree in shapes
    )
    widened = {path for path in standard.keys() | anchored.keys() if standard.get(path) != anchored.get(path)}
    first = jax.eval_shape(partial(tiny_model.model.init, method="first_layer"), jax.random.key(0), tiny_model.inputs)[
        "params"
    ]
    (layer,) = first
    assert widened == {f"['params']['{layer}']['kernel']"}
    (kernel,) = widened
    *_, channels, width = standard[kernel]
    assert anchored[kernel] == (*standard[kernel][:-2], 2 * channels, width)


# randomness


def test_same_key_same_parameters_and_other_key_others(tiny_model):
    first, init = tiny_model.first_variables, tiny_model.init
    assert_same_bits(init(jax.random.key(0), 10 * tiny_model.inputs), first)
    others = init(jax.random.key(1), tiny_model.inputs)
    differs = jax.tree.leaves_with_path(jax.tree.map(lambda one, other: (one != other).all(), first, others))
    assert all(differ for path, differ in differs if path[-1].key == "kernel")


def test_same_key_same_output(tiny_model):
    assert_same_bits(tiny_model.train(0)[0], tiny_model.trained)
    other, _ = tiny_model.train(1)
    assert (other.loss == tiny_model.trained.loss) == (tiny_model.rate == 0)


# training and evaluation


def test_training_and_evaluation_differ_only_where_they_should(tiny_model):
    statistics = tiny_model.variables.get("batch_stats")
    trained, evaluated = tiny_model.trained, tiny_model.evaluated
    assert (statistics is not None) == tiny_model.has_batch_norm
    assert_same_bits(evaluated.statistics, statistics)
    changed = jax.tree.map(lambda before, after: (before != after).any(), statistics, trained.statistics)
    assert all(jax.tree.leaves(changed))
    if tiny_model.has_batch_norm or tiny_model.rate:
        assert not np.allclose(trained.logits, evaluated.logits, rtol=1e-2)
    else:
        assert_close(trained.logits, evaluated.logits)


def test_evaluation_does_not_depend_on_neighbours(tiny_model):
    logits = tiny_model.evaluate(np.concatenate([tiny_model.inputs[:1], 10 * tiny_model.inputs[1:]])).logits
    assert_close(logits[0], tiny_model.evaluated.logits[0])
    assert not np.allclose(logits[1:], tiny_model.evaluated.logits[1:], rtol=1e-2)


def test_gradients_are_finite_and_reach_every_parameter(tiny_model):
    for gradient in jax.tree.leaves(tiny_model.trained.gradients):
        assert np.isfinite(gradient).all()
        assert (gradient != 0).any()


def test_rematerialisation_gives_the_same(tiny_model):
    first = jax.eval_shape(tiny_model.rematerialised.init, jax.random.key(0), tiny_model.inputs)
    assert first == jax.eval_shape(lambda: tiny_model.first_variables)
    plain, again = tiny_model.train(0)
    largest = max(np.abs(gradient).max() for gradient in jax.tree.leaves(plain.gradients))
    assert_close(again, plain, atol=1e-5 * largest)


def test_rematerialisation_is_for_the_model_in_training_alone(tiny, tmp_path):
    tiny.model.remat = True
    training = prepare(tiny, tmp_path / "run")
    assert training.model.remat
    assert not create_model(training.run).remat


def test_rematerialisation_needs_less_memory():
    """As XLA plans it, for the gradient of a deep ViT; nothing changes where nothing is trained."""
    plain, again = (models.create("vit_b16", NUM_CLASSES, remat=remat, **DEEP_VIT) for remat in (False, True))
    inputs = jax.ShapeDtypeStruct((BATCH, 16, 16, 6), jnp.float32)
    variables = jax.eval_shape(plain.init, jax.random.key(0), inputs)
    # XLA on CPU drops the barriers between what is computed twice, and makes one of them again
    as_elsewhere = {"xla_disable_hlo_passes": "cse_barrier_expander,optimization-barrier-expander,cse"}

    def planned(model):
        gradient = jax.jit(jax.grad(lambda variables, inputs: jnp.sum(model.apply(variables, inputs, train=True))))
        compiled = gradient.lower(variables, inputs).compile(compiler_options=as_elsewhere)
        return compiled.memory_analysis().temp_size_in_bytes

    assert planned(again) < 0.5 * planned(plain)
    evaluations = [str(jax.make_jaxpr(model.apply)(variables, inputs)) for model in (plain, again)]
    assert evaluations[0] == evaluations[1]


def test_jit_and_vmap_give_what_the_plain_call_gives(tiny_model):
    apply, inputs, logits = tiny_model.model.apply, tiny_model.inputs, tiny_model.evaluated.logits
    assert_close(apply(tiny_model.variables, inputs), logits)
    mapped = jax.jit(jax.vmap(apply, in_axes=(None, 0)))(tiny_model.variables, np.stack([inputs[::-1], inputs]))
    assert_close(mapped, np.stack([logits[::-1], logits]))


# parts and references


def test_first_layer_is_linear_but_for_its_bias_and_the_rest_follows_it(tiny_model):
    one, other = tiny_model.inputs, normal(2, *tiny_model.inputs.shape)
    first, of_other, of_sum, constant = (
        tiny_model.evaluate(inputs).first for inputs in (one, other, one + other, np.zeros_like(one))
    )
    assert_close(first + of_other - constant, of_sum, atol=1e-4)
    assert_close(tiny_model.evaluated.rest, tiny_model.evaluated.logits, rtol=1e-6)


def test_logits_are_linear_in_the_features(tiny_model):
    features, params = tiny_model.evaluated.features, jax.tree.leaves(tiny_model.variables["params"])
    (kernel,) = (leaf for leaf in params if leaf.shape == (features.shape[1], NUM_CLASSES))
    (bias,) = (leaf for leaf in params if leaf.shape == (NUM_CLASSES,))
    assert features.dtype == jnp.float32
    assert_close(features @ kernel + bias, tiny_model.evaluated.logits)


def test_predict_of_three_references_is_the_mean_and_spread_of_three_calls(tiny_model):
    apply, variables = tiny_model.model.apply, tiny_model.variables
    x, references = np.split(normal(3, BATCH + 3, tiny_model.side, tiny_model.side, 3), [BATCH])
    one_call = aj.anchored(lambda _, inputs: tiny_model.evaluate(inputs).logits)
    each = np.stack([one_call(None, x, np.broadcast_to(reference, x.shape)) for reference in references])
    split = aj.SplitModel(*(partial(apply, method=method) for method in ("first_layer", "rest")))
    predict = jax.jit(aj.predict, static_argnames="apply_fn")
    for apply_fn in (apply, split):
        assert_close(predict(apply_fn, variables, x, references), (each.mean(axis=0), each.std(axis=0, ddof=1)))


# stochastic depth


def test_stochastic_depth_leaves_examples_out_and_scales_those_it_keeps():
    branch, key = normal(5, 400, 3, 2), jax.random.key(0)
    dropped = StochasticDepth(0.25, None).apply({}, branch, True, rngs={"stochastic_depth": key})
    kept = (np.asarray(dropped) != 0).all(axis=(1, 2))
    assert_close(dropped, np.where(kept[:, None, None], branch / 0.75, 0))
    assert abs(kept.mean() - 0.75) < 4 * (0.25 * 0.75 / 400) ** 0.5
    assert_same_bits(StochasticDepth(0.25, None).apply({}, branch, False), branch)
    assert_same_bits(StochasticDepth(0.0, None).apply({}, branch, True), branch)


def test_channel_dropout_leaves_whole_channels_out_where_it_is_given_random_numbers():
    x = normal(5, 200, 3, 2, 10)
    dropped = ChannelDropout(0.2, None).apply({}, x, rngs={"dropout": jax.random.key(0)})
    kept = (np.asarray(dropped) != 0).all(axis=(1, 2))
    assert_close(dropped, np.where(kept[:, None, None], x / 0.8, 0))
    assert abs(kept.mean() - 0.8) < 4 * (0.2 * 0.8 / 2000) ** 0.5
    assert_same_bits(ChannelDropout(0.2, None).apply({}, x), x)
    assert_same_bits(ChannelDropout(0.0, None).apply({}, x, rngs={"dropout": jax.random.key(0)}), x)


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_a_thinned_network_is_another_one_for_each_key_and_the_whole_one_without(block):
    options = {"stage_sizes": (1, 1), "width": 4, "block": block}
    whole, thinned = (aj.models.create("resnet18", 3, dropout_rate=rate, **options) for rate in (0.0, 0.5))
    inputs = normal(6, 2, 8, 8, 6)
    variables = whole.init(jax.random.key(0), inputs)
    assert jax.tree.structure(thinned.init(jax.random.key(0), inputs)) == jax.tree.structure(variables)
    logits = whole.apply(variables, inputs)
    assert_close(thinned.apply(variables, inputs), logits)
    one, again, other = (
        np.asarray(thinned.apply(variables, inputs, rngs={"dropout": jax.random.key(key)})) for key in (1, 1, 2)
    )
    assert_same_bits(one, again)
    assert (one != other).all()
    assert (one != np.asarray(logits)).all()


@pytest.mark.parametrize(
    ("last", "num_blocks", "rates"), [(0.3, 4, [0, 0.1, 0.2, 0.3]), (0.5, 1, [0]), (0.0, 2, [0, 0])]
)
def test_rates_of_stochastic_depth_rise_evenly_from_zero(last, num_blocks, rates):
    assert list(depth_rates(last, num_blocks)) == pytest.approx(rates)


@pytest.mark.parametrize(
    ("case", "rates"),
    [
        ("vit, stochastic depth", {"block1": 0, "block2": 0.5}),
        ("swin, stochastic depth", {"stage1_block1": 0, "stage1_block2": 0.25, "stage2_block1": 0.5}),
    ],
)
def test_blocks_of_a_model_are_left_out_as_their_rates_say(case, rates):
    """Up to the first branch that can be left out all is as in evaluation."""
    tiny_model = tiny_of(case)

    def branches(train, draw):
        _, intermediates = tiny_model.model.apply(
            tiny_model.variables,
            tiny_model.inputs,
            train,
            rngs={"stochastic_depth": jax.random.key(draw)},
            capture_intermediates=lambda module, _: isinstance(module, StochasticDepth),
            mutable=["intermediates", "batch_stats"],
        )
        return intermediates["intermediates"]

    both = on_host(jax.jit(lambda draw: (branches(False, draw), branches(True, draw))))
    first, second, *_ = rates
    scales = []
    for draw in range(4):
        evaluated, trained = both(draw)
        assert evaluated.keys() == rates.keys()
        assert_close(trained[first], evaluated[first])
        (branch,), (dropped,) = (of[second]["drop1"]["__call__"] for of in (evaluated, trained))
        scales += list(dropped.reshape(BATCH, -1).sum(axis=1) / branch.reshape(BATCH, -1).sum(axis=1))
    assert sorted(set(np.round(scales, 3))) == pytest.approx([0, 1 / (1 - rates[second])], abs=1e-3)


def test_without_stochastic_depth_a_swin_trains_as_it_evaluates_and_needs_no_random_numbers():
    tiny_model = tiny_of("swin, stochastic depth")
    model = models.create(tiny_model.name, NUM_CLASSES, **tiny_model.options | {"stochastic_depth": 0.0})
    logits = jax.jit(partial(model.apply, train=True))(tiny_model.variables, tiny_model.inputs)
    assert_close(logits, tiny_model.evaluated.logits)


# devices


@pytest.mark.parametrize("case", ONE_OF_EACH_FAMILY.values())
def test_one_step_of_training_is_the_same_on_one_and_on_two_devices_that_rematerialise(tiny, case):
    tiny_model = tiny_of(case)
    tiny.augmentation.crop_padding, tiny.augmentation.flip = 0, False
    create = partial(models.create, tiny_model.name, NUM_CLASSES, axis_name=mesh_lib.AXIS, **tiny_model.options)
    optimizer = optax.sgd(0.1)
    rng, num = np.random.default_rng(4), tiny.training.batch_size
    images = rng.integers(0, 256, (num, tiny_model.side, tiny_model.side, 3), np.uint8)
    rows = np.arange(num, dtype=np.int32)
    data = TrainData(images, rng.integers(0, NUM_CLASSES, num, np.int32), bank_images=images)
    variables = {"batch_stats": {}} | tiny_model.first_variables
    before = jax.device_get((state.initial_state(variables, optimizer, averages=False), Totals.zeros()))
    after = []
    for num_devices, remat in ((1, False), (2, True)):
        mesh = mesh_lib.mesh(num_devices)
        step = make_train_step(create(remat=remat), optimizer, tiny, Normalization((0.5,) * 3, (0.25,) * 3))
        step = make_in_memory_step(step, num)
        carry, held = mesh_lib.replicate((before, data), mesh)
        after.append(jax.device_get(mesh_lib.run_n_steps(step, mesh)(carry, 1, held, rows)))
    assert_close(after[1], after[0], rtol=2e-4, atol=2e-5)
    moved = jax.tree.map(lambda old, new: (old != new).any(), before[0].params, after[0][0].params)
    assert all(jax.tree.leaves(moved))


# sizes


@pytest.mark.parametrize(
    ("name", "num_classes", "options", "side", "published"),
    [
        # of the released code, for CIFAR-10
        ("resnet18", 10, {}, 32, 11_173_962),
        ("wrn40_2", 10, {}, 32, 2_243_546),
        ("wrn28_10", 10, {}, 32, 36_479_194),
        # of torchvision and timm, for ImageNet
        ("resnet18", 1000, {"stem": "imagenet"}, 32, 11_689_512),
        ("resnet34", 1000, {"stem": "imagenet"}, 32, 21_797_672),
        ("resnet50", 1000, {"stem": "imagenet"}, 32, 25_557_032),
        ("regnet_y_800mf", 1000, {}, 32, 6_432_512),
        ("regnet_y_1_6gf", 1000, {}, 32, 11_202_430),
        ("deit_s16", 1000, {}, 224, 22_050_664),
        ("vit_b16", 1000, {}, 224, 86_567_656),
        # of timm; torchvision counts a bias of the keys, which is always 0
        ("swin_v2_t", 1000, {}, 32, 28_347_154),
        ("swin_v2_s", 1000, {}, 32, 49_728_418),
        ("swin_v2_b", 1000, {}, 32, 87_918_816),
    ],
)
def test_parameters_are_as_many_as_published_and_the_wider_first_layer(name, num_classes, options, side, published):
    model = models.create(name, num_classes, **options)
    inputs = jax.ShapeDtypeStruct((1, side, side, 6), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), inputs)["params"]
    first = params["stem_conv" if "stem_conv" in params else "patch_embedding"]["kernel"]
    *sides, channels, width = first.shape
    assert channels == 6
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == published + np.prod(sides) * 3 * width


# mistakes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("resnet19", 10, {}), "unknown model 'resnet19'; allowed: deit_s16, mlp, .*Did you mean 'resnet18'?"),
        (("resnet18", 1, {}), "num_classes must be at least 2, got 1"),
        (("resnet18", 10, {"dtype": "float16"}), "unknown dtype 'float16'; allowed: bfloat16, float32"),
        (
            ("resnet18", 10, {"widht": 3}),
            "option of model 'resnet18' 'widht'; allowed: block, dropout_rate, .*, width. Did you mean 'width'?",
        ),
        (("mlp", 10, {"width": 3}), "unknown option of model 'mlp' 'width'; allowed: hidden"),
        (
            ("resnet18", 10, {"width": 0}),
            "option 'width' of model 'resnet18' must be a whole number, at least 1; got 0",
        ),
        (("mlp", 10, {"hidden": "abc"}), "option 'hidden' of model 'mlp' must be whole numbers, at least 1; got 'abc'"),
        (("resnet18", 10, {"stem": "mnist"}), "'stem' of model 'resnet18' must be one of cifar, imagenet; got 'mnist'"),
        (
            ("vit_b16", 10, {"stochastic_depth": 1.0}),
            r"'stochastic_depth' of model 'vit_b16' must be in \[0, 1\); got 1.0",
        ),
        (("deit_s16", 10, {"distillation_token": 1}), "'distillation_token' of .* must be True or False; got 1"),
    ],
)
def test_wrong_model_is_told_in_one_line(given, message):
    name, num_classes, options = given
    with pytest.raises(UserError, match=message) as error:
        models.create(name, num_classes, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "vit_b16",
            {},
            "a ViT with patches of 16 pixels takes images whose sides are multiples of it; got 36x36; resize them",
        ),
        ("vit_b16", {"patch_size": 4, "width": 10, "num_heads": 3}, "must be a multiple of its 3 heads; got 10"),
        ("wrn40_2", {"depth": 11}, "depth of a Wide ResNet must be 10, 16, 22, .*; got 11"),
        ("swin_v2_t", {"window": 1}, "window of a SwinV2 must be at least 2; got 1"),
    ],
)
def test_what_a_family_cannot_do_is_told_in_one_line(name, options, message):
    model = models.create(name, NUM_CLASSES, **options)
    with pytest.raises(UserError, match=message) as error:
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 36, 36, 3)))
    assert "\n" not in str(error.value)


# numerics


def test_unit_vectors_of_a_swin_have_length_one_and_a_finite_gradient_at_zero():
    x = normal(6, 5, 3)
    x[0] = 0
    lengths = np.linalg.norm(unit(x), axis=-1)
    np.testing.assert_allclose(lengths, [0, 1, 1, 1, 1], rtol=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(unit(x) * normal(7, 5, 3)))(x)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mlp", {"hidden": 8}, "option 'hidden' of model 'mlp' must be whole numbers, at least 1; got 8"),
        ("mlp", {"hidden": ()}, "option 'hidden' of model 'mlp' must be whole numbers, at least 1; got"),
        (
            "resnet18",
            {"width": True},
            "option 'width' of model 'resnet18' must be a whole number, at least 1; got True",
        ),
        ("swin_v2_t", {"stage_sizes": (2, 2)}, "num_heads of a SwinV2 must be 2, one a stage; got"),
        ("swin_v2_t", {"width": 32}, "the heads of a SwinV2 must divide its width 32"),
        (
            "regnet_y_800mf",
            {"widths": (8, 16, 24, 36)},
            "widths of a RegNetY must be 4 multiples of its group_width 16",
        ),
        ("regnet_y_800mf", {"widths": (16, 32)}, "widths of a RegNetY must be 4 multiples of its group_width 16; got"),
    ],
)
def test_options_that_do_not_fit_each_other_are_told(name, options, message):
    with pytest.raises(aj.UserError, match=message):
        jax.eval_shape(models.create(name, NUM_CLASSES, **options).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
