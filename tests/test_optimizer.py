"""Optimizers and schedules, compared with PyTorch on the same gradients, with the parameter groups of timm."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import timm.optim
import torch
from conftest import assert_same_bits
from flax import linen as nn
from pytorch_networks import NETWORKS, NUM_CLASSES, REGNET, build_network

from anchor_jax import UserError, models
from anchor_jax import config as configuration
from anchor_jax.runs import checkpoint, state
from anchor_jax.runs.state import Totals
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.training import optimizer

# one of each family, and one of each kind of ResNet block
ONE_OF_EACH_KIND = ["mlp", "fastnet", "resnet18", "resnet50", "wrn40_2", "regnet_y_800mf", "deit_s16", "swin_v2_t"]
DECAYS = {"weight_decay": 0.3, "norm_weight_decay": 0.1, "bias_weight_decay": 0.02, "position_weight_decay": 0.0}
LAYER_DECAY = 0.7


def settings(**changed):
    """Return `config.optimizer` with some keys changed."""
    config = configuration.base().optimizer
    config.update(changed)
    return config


def names_of(tree):
    """Return the leaves of a tree by name."""
    return {optimizer._name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def shapes_of(name, side=32, **options):
    """Return the shapes of a model's parameters."""
    inputs = jax.ShapeDtypeStruct((1, side, side, 6), jnp.float32)
    return jax.eval_shape(models.create(name, NUM_CLASSES, **options).init, jax.random.key(0), inputs)["params"]


def normal_like(tree, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), tree)


def after_steps(transformation, params, gradients):
    """Return the parameters after one step per gradient."""

    @jax.jit
    def step(params, opt_state, gradient):
        updates, opt_state = transformation.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    opt_state = jax.jit(transformation.init)(params)
    for gradient in gradients:
        params, opt_state = step(params, opt_state, gradient)
    return params


# against PyTorch


def read(case, tensors):
    """Convert tensors with the names of a PyTorch network to parameters of our model."""
    network = NETWORKS[case]
    options = {key: value for key, value in network.options.items() if key != "stem"}
    tensors = network.to_source_names(build_network(case).state_dict() | tensors)
    return models.from_torch(network.name, tensors, NUM_CLASSES, network.source, **options)["params"]


def weight_decay_of(network, name):
    """Return the weight decay of a PyTorch parameter, by module type as in torchvision's recipes, and by name."""
    if any(part in name for part in ("cls_token", "class_token", "pos_embed", "cpb_mlp", "logit_scale")):
        return DECAYS["position_weight_decay"]
    if isinstance(network.get_submodule(name.rpartition(".")[0]), (torch.nn.BatchNorm2d, torch.nn.LayerNorm)):
        return DECAYS["norm_weight_decay"]
    return DECAYS["bias_weight_decay" if name.endswith("bias") else "weight_decay"]


def layer_scales_of_timm(network):
    groups = timm.optim.param_groups_layer_decay(network, layer_decay=LAYER_DECAY)
    by_id = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
    return {name: by_id[id(parameter)] for name, parameter in network.named_parameters()}


def random_gradient(network, seed):
    generator = torch.Generator().manual_seed(seed)
    gradient = {}
    for name, parameter in network.named_parameters():
        gradient[name] = torch.randn(parameter.shape, generator=generator)
        if name.endswith("attn.qkv.bias"):
            gradient[name].chunk(3)[1].zero_()  # keys have no bias in torchvision's SwinV2
    return gradient


@pytest.mark.parametrize(
    ("case", "which", "scaled"),
    [
        ("timm's RegNet", "sgd", True),
        ("timm's DeiT", "adamw", True),
        ("timm's Swin", "adamw", True),
        ("torchvision's Swin", "sgd", False),
        ("torchvision's ViT", "adamw", False),
    ],
)
def test_steps_match_pytorch_with_parameter_groups(case, which, scaled):
    original = build_network(case)
    weights = {name: torch.nn.Parameter(value.detach().clone()) for name, value in original.named_parameters()}
    scales = layer_scales_of_timm(original) if scaled else dict.fromkeys(weights, 1.0)
    groups = [
        {"params": [weight], "weight_decay": weight_decay_of(original, name), "scale": scales[name]}
        for name, weight in weights.items()
    ]
    config = settings(name=which, schedule="cosine", learning_rate=0.02, warmup_epochs=5.0, warmup_from=0.1, **DECAYS)
    config.layer_decay = LAYER_DECAY if scaled else 1.0
    schedule = optimizer.create_schedule(config, 1, 20)
    theirs = torch.optim.SGD(groups, 1, momentum=0.9) if which == "sgd" else torch.optim.AdamW(groups, 1)
    one, other = (random_gradient(original, seed) for seed in (0, 1))
    mixed = [(math.cos(step), math.sin(step)) for step in range(20)]
    for step, (a, b) in enumerate(mixed):
        for group in theirs.param_groups:
            group["lr"] = float(schedule(step)) * group["scale"]
        for name, weight in weights.items():
            weight.grad = a * one[name] + b * other[name]
        theirs.step()

    expected = names_of(read(case, {name: weight.detach() for name, weight in weights.items()}))
    one, other = (jax.device_get(read(case, gradient)) for gradient in (one, other))
    gradients = [
        jax.tree.map(lambda x, y, a=a, b=b: np.float32(a) * x + np.float32(b) * y, one, other) for a, b in mixed
    ]
    ours = after_steps(optimizer.create(config, schedule), jax.device_get(read(case, {})), gradients)
    for name, weight in names_of(ours).items():
        np.testing.assert_allclose(weight, expected[name], rtol=1e-5, atol=2e-5, err_msg=name)


def test_sgd_matches_pytorch_with_milestones():
    config = settings(learning_rate=0.05, weight_decay=0.01, milestones_epochs=(1, 2))
    weights = np.random.default_rng(0).normal(size=5).astype(np.float32)
    schedule = optimizer.create_schedule(config, 3, 9)
    ours = optimizer.create(config, schedule)
    params, opt_state = jnp.array(weights), ours.init(jnp.array(weights))
    theirs = torch.nn.Parameter(torch.tensor(weights))
    sgd = torch.optim.SGD([theirs], lr=0.05, momentum=0.9, weight_decay=0.01)
    decay = torch.optim.lr_scheduler.MultiStepLR(sgd, [1, 2], gamma=0.2)
    for step in range(9):
        grads = np.sin(np.arange(5) + step).astype(np.float32)
        updates, opt_state = ours.update(jnp.array(grads), opt_state, params)
        params = optax.apply_updates(params, updates)
        theirs.grad = torch.tensor(grads)
        sgd.step()
        if step % 3 == 2:
            decay.step()
        np.testing.assert_allclose(params, theirs.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_nesterov_matches_pytorch_with_triangular_rate():
    config = settings(learning_rate=0.5, nesterov=True, weight_decay=0.01, schedule="linear", warmup_epochs=1.0)
    weights = np.random.default_rng(0).normal(size=5).astype(np.float32)
    schedule = optimizer.create_schedule(config, 3, 9)
    theirs = torch.nn.Parameter(torch.tensor(weights))
    sgd = torch.optim.SGD([theirs], lr=1, momentum=0.9, weight_decay=0.01, nesterov=True)
    grads = [np.sin(np.arange(5) + step).astype(np.float32) for step in range(9)]
    for step, grad in enumerate(grads):
        sgd.param_groups[0]["lr"] = 0.5 * (step / 3 if step < 3 else (9 - step) / 6)
        theirs.grad = torch.tensor(grad)
        sgd.step()
    ours = after_steps(optimizer.create(config, schedule), jnp.array(weights), [jnp.array(grad) for grad in grads])
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert float(schedule(9)) == 0


@pytest.mark.parametrize(("warmup", "start", "last"), [(4, 0.1, 1e-2), (3, 0.033, 0.0), (0, 0.5, 1e-3)])
def test_cosine_schedule_matches_pytorch(warmup, start, last):
    config = settings(schedule="cosine", learning_rate=0.5, warmup_epochs=warmup / 2, warmup_from=start)
    config.final_learning_rate = last
    ours, total = optimizer.create_schedule(config, 2, 15), 15
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, total - warmup, eta_min=last)
    if warmup:
        begin = torch.optim.lr_scheduler.LinearLR(sgd, start_factor=start, total_iters=warmup)
        theirs = torch.optim.lr_scheduler.SequentialLR(sgd, [begin, theirs], milestones=[warmup])
    for step in range(total + 1):
        assert float(ours(step)) == pytest.approx(sgd.param_groups[0]["lr"], rel=1e-5, abs=1e-7), step
        sgd.step()
        theirs.step()
    assert float(ours(10 * total)) == pytest.approx(last, abs=1e-7)


def test_cosine_schedule_warms_up_and_ends_at_zero():
    schedule = optimizer.create_schedule(settings(schedule="cosine", learning_rate=0.05, warmup_epochs=2.0), 10, 100)
    rates = [float(schedule(step)) for step in range(101)]
    assert rates[0] == 0
    assert rates[20] == pytest.approx(0.05) == max(rates)
    assert rates[60] == pytest.approx(0.025)
    assert rates[100] == pytest.approx(0, abs=1e-9)


def test_learning_rate_of_zero_stays_zero():
    schedule = optimizer.create_schedule(settings(schedule="cosine", learning_rate=0.0), 1, 5)
    assert [float(schedule(step)) for step in (0, 3, 5)] == [0, 0, 0]


# optax without groups


@pytest.mark.parametrize("which", ["sgd", "adamw"])
def test_single_weight_decay_has_the_state_tree_of_optax(which):
    """Checkpoints of older runs must fit."""
    config, schedule = settings(name=which, weight_decay=0.01), optax.linear_schedule(0.1, 0.0, 7)
    plain = {
        "sgd": optax.chain(optax.add_decayed_weights(0.01), optax.sgd(schedule, 0.9)),
        "adamw": optax.adamw(schedule, weight_decay=0.01),
    }[which]
    params = normal_like(shapes_of("mlp", 4, hidden=(3,)))
    ours = optimizer.create(config, schedule)
    opt_state, gradients = plain.init(params), [normal_like(params, seed) for seed in range(3)]
    assert jax.tree.structure(ours.init(params)) == jax.tree.structure(opt_state)
    assert_same_bits(after_steps(ours, params, gradients), after_steps(plain, params, gradients))


# kinds


def test_one_model_of_every_family_is_tested():
    assert {models.MODELS[name][0] for name in ONE_OF_EACH_KIND} == {family for family, _ in models.MODELS.values()}


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_kinds_of_parameters_follow_their_modules(name):
    norms = set()

    def record_norms(call, args, kwargs, context):
        if isinstance(context.module, (nn.BatchNorm, nn.LayerNorm)):
            norms.add("/".join(context.module.path))
        return call(*args, **kwargs)

    with nn.intercept_methods(record_norms):
        params = shapes_of(name, **({"distillation_token": True} if name == "deit_s16" else {}))
    assert norms or name == "mlp"
    for parameter in names_of(params):
        kind = next((kind for kind, names in optimizer._KINDS.items() if names.search(parameter)), None)
        module, _, leaf = parameter.rpartition("/")
        if module in norms:
            assert kind == "norm", parameter
        elif any(part in parameter for part in ("token", "position", "logit_scale")):
            assert kind == "position", parameter
        else:
            assert kind == ("bias" if leaf.endswith("bias") else None), parameter


def test_swin_excludes_from_decay_what_its_authors_exclude():
    case = "timm's Swin"
    ones = {name: torch.zeros_like(value) for name, value in build_network(case).named_parameters()}
    for name in build_network(case).no_weight_decay():
        ones[name] += 1
    config = settings(weight_decay=1.0, position_weight_decay=0.0, learning_rate=1.0, momentum=0.0)
    params = jax.tree.map(np.ones_like, read(case, {}))
    after = after_steps(optimizer.create(config, lambda _: 1.0), params, [jax.tree.map(np.zeros_like, params)])
    assert_same_bits(after, read(case, ones))


# depth


@pytest.mark.parametrize(
    ("name", "options", "powers"),
    [
        ("mlp", {"hidden": (4,) * 11}, {f"Dense_{layer}": 11 - layer for layer in range(12)}),
        (
            "wrn40_2",
            {"depth": 10, "widen": 1},
            {"stem_conv": 4, "stage1_block1": 3, "stage2_block1": 2, "stage3_block1": 1, "bn": 1, "head": 0},
        ),
        (
            "deit_s16",
            {"patch_size": 8, "width": 8, "depth": 11, "num_heads": 2, "distillation_token": True},
            {
                **dict.fromkeys(("patch_embedding", "class_token", "distillation_token", "position_embedding"), 12),
                **{f"block{block}": 12 - block for block in range(1, 12)},
                "norm": 1,
                "head": 0,
            },
        ),
    ],
)
def test_layer_scales_decay_from_the_head_to_the_first_layer(name, options, powers):
    params = shapes_of(name, **options)
    scales = optimizer.layer_scales(params, 0.5)
    assert jax.tree.structure(scales) == jax.tree.structure(params)
    assert {module: set(jax.tree.leaves(scales[module])) for module in params} == {
        module: {0.5**power} for module, power in powers.items()
    }


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_layer_scales_have_one_level_per_block_and_two_more(name):
    params = shapes_of(name)
    blocks = {module for module in params if "block" in module or module.startswith("Dense_")}
    scales = set(jax.tree.leaves(optimizer.layer_scales(params, 0.5)))
    num = len(blocks) + (0 if name == "mlp" else 2)
    assert scales == {0.5**power for power in range(num)}


# frozen parameters


def test_frozen_parameters_stay_and_have_no_optimizer_state():
    params, frozen = normal_like(shapes_of("regnet_y_800mf", **REGNET)), ("stem", "stage1", "stage2_block1/conv1")
    config = settings(name="adamw", layer_decay=0.5, **DECAYS)
    gradients = [normal_like(params, seed) for seed in range(2)]
    plain, cut = (optimizer.create(settings(**config.to_dict() | {"frozen": f}), lambda _: 0.1) for f in ((), frozen))
    stays = {name for name in names_of(params) if name.startswith(frozen)}
    assert {name.split("/")[0] for name in stays} == {"stem_conv", "stem_bn", "stage1_block1", "stage2_block1"}
    expected = names_of(after_steps(plain, params, gradients)) | {name: names_of(params)[name] for name in stays}
    assert_same_bits(names_of(after_steps(cut, params, gradients)), expected)

    sizes = [sum(leaf.size for leaf in jax.tree.leaves(each.init(params))) for each in (plain, cut)]
    assert sizes[0] - sizes[1] == 2 * sum(names_of(params)[name].size for name in stays)


def test_frozen_prefixes_match_complete_numbers():
    params = {f"block{block}": {"kernel": 0} for block in range(1, 12)} | {"head": {"kernel": 0}}
    labels = optimizer.frozen_labels(params, ("block1", "block2/k"))
    assert {module for module in params if labels[module]["kernel"] == optimizer.FROZEN} == {"block1", "block2"}
    every = optimizer.frozen_labels(params, ("block",))
    assert {module for module in params if every[module]["kernel"] == optimizer.TRAINED} == {"head"}


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        (
            ("Dense_0", "Dens_1"),
            "unknown parameters in config.optimizer.frozen 'Dens_1'; allowed: Dense_0, Dense_1. Did you mean 'Dense_1",
        ),
        (("Dense",), r"config.optimizer.frozen must leave something to train; got \('Dense',\)"),
        (("",), "must leave something to train"),
    ],
)
def test_init_refuses_invalid_frozen_names(frozen, message):
    transformation = optimizer.create(settings(frozen=frozen), lambda _: 0.1)
    with pytest.raises(UserError, match=message):
        jax.eval_shape(transformation.init, shapes_of("mlp", 4, hidden=(3,)))


def test_final_learning_rate_above_the_peak_is_refused():
    with pytest.raises(UserError, match=r"final_learning_rate must be at most the learning_rate, 0.1; got 0.2"):
        optimizer.create_schedule(settings(final_learning_rate=0.2), 1, 1)


# state


@pytest.mark.parametrize("frozen", [(), ("Dense_0",)])
@pytest.mark.parametrize("which", ["sgd", "adamw"])
def test_optimizer_state_is_saved_and_restored(tmp_path, tiny, which, frozen):
    config = settings(name=which, layer_decay=0.5, frozen=frozen, **DECAYS)
    transformation = optimizer.create(config, lambda _: 0.1)
    params = jax.tree.map(jnp.asarray, normal_like(shapes_of("mlp", 4, hidden=(3,))))
    _, opt_state = transformation.update(params, transformation.init(params), params)
    carry = state.TrainState(jnp.int32(1), params, {}, opt_state, {}, state.NonFiniteCounter.zero()), Totals.zeros()
    with checkpoint.open_manager(tmp_path / "run", tiny) as checkpoints:
        checkpoint.save(checkpoints, checkpoint.Snapshot(carry, 1), {"accuracy": 0.5})
        checkpoints.wait_until_finished()
        restored, reported = checkpoint.restore(checkpoints, mesh_lib.replicated_shapes(carry, mesh_lib.mesh(1)))
    assert reported == 1
    assert jax.tree.structure(restored) == jax.tree.structure(carry)
    assert_same_bits(restored, carry)


def test_shards_make_the_steps_of_complete_parameters():
    """The shards are flat parts of all arrays, as on two devices."""
    params = normal_like(shapes_of("vit_b16", 8, patch_size=4, width=4, depth=1, num_heads=2))
    config = settings(name="adamw", layer_decay=0.5, frozen=("block1/mlp",), **DECAYS)
    make = partial(optimizer.create, config, lambda _: 0.1)
    gradients = [normal_like(params, seed) for seed in range(2)]
    whole = after_steps(make(), params, gradients)
    for part in (slice(0, 1), slice(1, None)):

        def cut(tree, part=part):
            return jax.tree.map(lambda leaf: leaf.reshape(-1)[part], tree)

        divided = after_steps(make(), cut(params), [cut(gradient) for gradient in gradients])
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), divided, cut(whole))
