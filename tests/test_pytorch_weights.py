"""Weights of PyTorch networks: equal logits here, and the same tensors when converted back."""

import copy
import functools
from functools import partial

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from conftest import assert_same_bits
from pytorch_networks import NETWORKS, NUM_CLASSES, WideResNet, build_network, rename, torchvision_vit
from torch import nn

from anchor_jax import UserError, models
from anchor_jax.models.layers import Dropout
from anchor_jax.models.pytorch.names import NAME_TABLES
from benchmarks.pytorch.random_weights import logits_of, randomize_weights


@pytest.fixture(params=NETWORKS)
def case(request):
    return request.param


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def state_dict(case):
    """Return the tensors of a network by the names of its source."""
    return NETWORKS[case].to_source_names(build_network(case).state_dict())


def from_torch(case, tensors, num_classes=NUM_CLASSES, **options):
    """Convert tensors, named as by the source, to the variables of the equivalent model."""
    network = NETWORKS[case]
    options = {key: value for key, value in network.options.items() if key != "stem"} | options
    return models.from_torch(network.name, tensors, num_classes, network.source, **options)


@functools.cache
def variables_of(case):
    """Return the variables of a network. They are shared by all tests, which must not modify them."""
    return from_torch(case, state_dict(case))


def to_torch(case, variables):
    network = NETWORKS[case]
    return models.to_torch(network.name, variables, network.source, **network.options)


def assert_logits_agree(case, inputs):
    network = NETWORKS[case]
    expected = logits_of(build_network(case), inputs)
    logits = jax.jit(models.create(network.name, NUM_CLASSES, **network.options).apply)(variables_of(case), inputs)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * scale)
    assert expected.std(axis=0).max() > 1e-2 * scale  # the logits depend on the images


# the same function


def test_pytorch_networks_cover_every_source_and_family():
    covered = {(models.MODELS[network.name].family, network.source) for network in NETWORKS.values()}
    same_as_torchvision = {  # the released code uses torchvision's networks for ImageNet
        (family, "anchoring")
        for family, tables in NAME_TABLES.items()
        if tables["anchoring"] == tables.get("torchvision")
    }
    assert covered | same_as_torchvision == {
        (family, source) for family, tables in NAME_TABLES.items() for source in tables
    }


def test_from_torch_reproduces_the_logits(case):
    network = NETWORKS[case]
    assert_logits_agree(case, images(2, network.side, network.side, network.channels))


@pytest.mark.parametrize("size", [(22, 18), (6, 6), (8, 24)], ids=["odd", "within a window", "one window high"])
def test_swin_agrees_with_torchvision_for_any_image_size(size):
    assert_logits_agree("torchvision's Swin", images(2, *size, 3))


def test_swin_window_shrinks_in_late_stages_as_in_timm():
    from timm.models.swin_transformer_v2 import SwinTransformerV2

    options = {"patch_size": 2, "window": 16, "stage_sizes": (2, 2), "num_heads": (1, 2), "width": 8}
    torch.manual_seed(0)
    network = SwinTransformerV2(32, 2, depths=(2, 2), num_heads=(1, 2), embed_dim=8, window_size=16, num_classes=5)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    inputs = images(2, 32, 32, 3)
    expected = logits_of(network.eval(), inputs)
    variables = models.from_torch("swin_v2_t", network.state_dict(), 5, "timm", **options)
    model = models.create("swin_v2_t", 5, window_shrinks=True, **options)
    np.testing.assert_allclose(jax.jit(model.apply)(variables, inputs), expected, rtol=1e-4, atol=1e-5)


def test_resnet_batch_norm_trains_as_in_pytorch():
    case, inputs = "the released ResNet", images(5, 16, 16, 6)
    network, trained = NETWORKS[case], copy.deepcopy(build_network(case)).train()
    expected = logits_of(trained, inputs)
    model, before = models.create(network.name, NUM_CLASSES, **network.options), variables_of(case)
    train = jax.jit(partial(model.apply, train=True, mutable=["batch_stats"]))
    logits, updates = train(before, inputs)
    np.testing.assert_allclose(logits, expected, rtol=2e-3, atol=2e-3)
    after = from_torch(case, network.to_source_names(trained.state_dict()))["batch_stats"]
    for (path, actual), theirs in zip(
        jax.tree.leaves_with_path(updates["batch_stats"]), jax.tree.leaves(after), strict=True
    ):
        if path[-1].key == "mean":
            np.testing.assert_allclose(actual, theirs, rtol=1e-3, atol=1e-4)
    # PyTorch's running variance is unbiased, Flax's is biased
    old, new = (tree["stem_bn"]["var"] for tree in (before["batch_stats"], after))
    count = inputs[..., 0].size
    biased = old * 0.9 + (new - old * 0.9) * (count - 1) / count
    np.testing.assert_allclose(updates["batch_stats"]["stem_bn"]["var"], biased, rtol=1e-4, atol=1e-5)


def test_wide_resnet_drops_where_the_released_code_does(monkeypatch):
    """Both drop the same activations, by a mask that depends on their place."""
    case, inputs = "the released Wide ResNet", images(2, 16, 16, 6)

    def drop(x, rate):
        return x * (np.random.default_rng(x.shape[-1]).random(x.shape[1:]) >= rate).astype(np.float32) / (1 - rate)

    def drop_ours(function, args, kwargs, context):
        return drop(args[0], context.module.rate) if isinstance(context.module, Dropout) else function(*args, **kwargs)

    def drop_theirs(x, rate, training):
        return torch.tensor(drop(x.permute(0, 2, 3, 1).numpy(), rate)).permute(0, 3, 1, 2) if training else x

    monkeypatch.setattr(torch.nn.functional, "dropout", drop_theirs)
    network = WideResNet(16, 1, dropout=0.3)
    network.load_state_dict(state_dict(case))
    for module in network.eval().modules():
        module.training = not isinstance(module, nn.BatchNorm2d)
    options = NETWORKS[case].options | {"dropout_rate": 0.3}
    with flax.linen.intercept_methods(drop_ours):
        logits = models.create("wrn40_2", NUM_CLASSES, **options).apply(variables_of(case), inputs)
    expected = logits_of(network, inputs)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert np.abs(expected - logits_of(build_network(case), inputs)).max() > 1e-3 * np.abs(expected).max()


def test_resnet_initial_weights_are_distributed_as_in_pytorch():
    model = models.create("resnet18", NUM_CLASSES, width=128, stage_sizes=(1,))
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 6)))["params"]
    for layer, torch_layer in (("stem_conv", nn.Conv2d(6, 128, 3)), ("head", nn.Linear(128, NUM_CLASSES))):
        kernel = torch_layer.weight.detach()
        assert np.abs(params[layer]["kernel"]).max() == pytest.approx(float(kernel.abs().max()), rel=0.05)
        assert np.std(params[layer]["kernel"]) == pytest.approx(float(kernel.std()), rel=0.1)
    assert 0 < np.abs(params["head"]["bias"]).max() <= 128**-0.5


# round trips


def test_to_torch_inverts_from_torch(case):
    network, expected = NETWORKS[case], state_dict(case)
    tensors = to_torch(case, variables_of(case))
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name])
    other = randomize_weights(network.build(), seed=1)
    other.load_state_dict(network.to_own_names(tensors), strict=True)
    inputs = images(2, network.side, network.side, network.channels)
    np.testing.assert_array_equal(logits_of(other, inputs), logits_of(build_network(case), inputs))


def test_batch_norm_counters_are_ignored_and_written_as_zero():
    case = "the released Wide ResNet"
    with_counts = {
        name: tensor + 3 if name.endswith("num_batches_tracked") else tensor
        for name, tensor in state_dict(case).items()
    }
    assert_same_bits(from_torch(case, with_counts), variables_of(case))
    tensors = to_torch(case, variables_of(case))
    assert {int(tensor) for name, tensor in tensors.items() if name.endswith("num_batches_tracked")} == {0}


# variants of state dicts


@pytest.mark.parametrize(
    "variant",
    [
        lambda tensors: {f"module.net.{name}": tensor for name, tensor in tensors.items()},
        lambda tensors: {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()},
        lambda tensors: (
            {f"module.{name}": tensor for name, tensor in tensors.items()} | {"n_averaged": torch.tensor(9)}
        ),
        lambda tensors: {name: tensor.numpy() for name, tensor in tensors.items()},
        lambda tensors: {name: tensor.numpy().astype(np.float64) for name, tensor in tensors.items()},
    ],
    ids=["released code", "torch.compile", "average", "NumPy", "double precision"],
)
def test_from_torch_accepts_wrappers_and_arrays(variant):
    case = "the released Wide ResNet"
    assert_same_bits(from_torch(case, variant(state_dict(case))), variables_of(case))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_from_torch_converts_half_precision_to_float32(dtype):
    case = "torchvision's RegNet"
    half = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state_dict(case).items()
    }
    variables = from_torch(case, half)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert_same_bits(variables, from_torch(case, {name: tensor.float() for name, tensor in half.items()}))


HUGGING_FACE_4 = [
    (".layers.", ".encoder.layer."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
    (".attention.q_proj.", ".attention.attention.query."),
    (".attention.k_proj.", ".attention.attention.key."),
    (".attention.v_proj.", ".attention.attention.value."),
    (".attention.o_proj.", ".attention.output.dense."),
]
TORCHVISION_FILES = [("mlp.0.", "mlp.linear_1."), ("mlp.3.", "mlp.linear_2.")]
SWIN_AUTHORS_FILES = [("layers.1.downsample", "layers.0.downsample"), ("head.fc.", "head.")]


@pytest.mark.parametrize(
    ("case", "renamings"),
    [
        ("Hugging Face's ViT", HUGGING_FACE_4),
        ("Hugging Face's DeiT", HUGGING_FACE_4),
        ("torchvision's ViT", TORCHVISION_FILES),
        ("timm's Swin", SWIN_AUTHORS_FILES),
    ],
)
def test_from_torch_accepts_names_of_older_versions(case, renamings):
    older = rename(state_dict(case), renamings)
    assert all(any(new in name for name in older) for _, new in renamings)
    assert_same_bits(from_torch(case, older), variables_of(case))


@pytest.mark.parametrize(
    ("case", "features", "renamings"),
    [
        ("Hugging Face's ViT", "vit", []),
        ("Hugging Face's DeiT", "deit", HUGGING_FACE_4),
        ("Hugging Face's ResNet, basic", "resnet", []),
        ("Hugging Face's RegNet", "regnet", []),
        ("Hugging Face's Swin", "swinv2", []),
    ],
)
def test_from_torch_reads_features_of_hugging_face(case, features, renamings):
    tensors = rename(state_dict(case), renamings)
    base = {n.removeprefix(f"{features}."): tensor for n, tensor in tensors.items() if not n.startswith("classifier")}
    pooler = {"pooler.dense.weight": torch.ones(16, 16), "embeddings.mask_token": torch.ones(1, 1, 16)}
    variables = from_torch(case, base | pooler, num_classes=None)
    expected = {**variables_of(case), "params": {**variables_of(case)["params"]}}
    del expected["params"]["head"]
    assert_same_bits(variables, expected)


def test_from_torch_ignores_buffers_of_the_swin_authors():
    case = "timm's Swin"
    buffers = {"attn_mask": torch.zeros(4, 16, 16), "attn.relative_coords_table": torch.zeros(1, 7, 7, 2)}
    tensors = state_dict(case) | {f"layers.0.blocks.1.{name}": buffer for name, buffer in buffers.items()}
    assert_same_bits(from_torch(case, tensors), variables_of(case))


@pytest.mark.parametrize(("case", "side"), [("the released ResNet", 3), ("timm's ResNet", 7)])
def test_from_torch_infers_the_stem_and_keeps_the_channels(case, side):
    kernel = variables_of(case)["params"]["stem_conv"]["kernel"]
    assert kernel.shape == (side, side, NETWORKS[case].channels, 64)


def test_from_torch_keeps_the_position_embedding():
    tensors = torchvision_vit(side=96, patch_size=4).state_dict()
    variables = from_torch("torchvision's ViT", tensors, patch_size=4)
    expected = tensors["encoder.pos_embedding"]
    assert expected.shape == (1, 577, 16)
    np.testing.assert_array_equal(variables["params"]["position_embedding"], expected)


@pytest.mark.parametrize(
    "case",
    [
        "timm's ResNet",
        "the released Wide ResNet",
        "torchvision's RegNet",
        "Hugging Face's DeiT",
        "timm's Swin",
    ],
)
def test_from_torch_infers_the_number_of_classes(case):
    assert_same_bits(from_torch(case, state_dict(case), num_classes=None), variables_of(case))


# errors


def without(case, *names):
    return {name: tensor for name, tensor in state_dict(case).items() if name not in names}


RELEASED, SWIN, TIMM, DEIT = "the released Wide ResNet", "torchvision's Swin", "timm's DeiT", "Hugging Face's DeiT"


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (
            lambda: from_torch(RELEASED, without(RELEASED, "bn1.bias", "block1.layer.0.conv1.weight")),
            "the tensors do not match anchoring's 'wrn40_2'; missing: block1.layer.0.conv1.weight, bn1.bias; check",
        ),
        (
            lambda: from_torch(RELEASED, without(RELEASED, "fc.bias"), num_classes=None),
            "missing: fc.bias; wrong shape",
        ),
        (lambda: from_torch(RELEASED, {}), "missing: .* and [0-9]+ more; check the source, the number of classes"),
        (
            lambda: from_torch(
                RELEASED, state_dict(RELEASED) | {"aux.weight": torch.zeros(1), "aux.bias": torch.zeros(1)}
            ),
            "'wrn40_2'; unexpected: aux.bias, aux.weight; check the source",
        ),
        (
            lambda: from_torch(RELEASED, state_dict(RELEASED), num_classes=9),
            r"wrong shape: fc.bias \[5\] instead of \[9\], fc.weight \[5, 64\] instead of \[9, 64\]; check the",
        ),
        (
            lambda: from_torch(RELEASED, state_dict(RELEASED), depth=10),
            "'wrn40_2'; unexpected: block1.layer.1.bn1.bias, .* and [0-9]+ more; check",
        ),
        (
            lambda: from_torch(SWIN, state_dict(SWIN), window=8),
            "'swin_v2_t'; wrong window: features.1.0.attn.relative_coords_table, .* and 4 more; check",
        ),
        (
            lambda: from_torch(DEIT, state_dict(DEIT), distillation_token=False),
            "unexpected: deit.embeddings.distillation_token; check",
        ),
        (
            lambda: from_torch(TIMM, state_dict(TIMM), distillation_token=True),
            "no network of this source has distillation_token; set another source or other options",
        ),
        (
            lambda: from_torch(TIMM, state_dict(TIMM), widht=3),
            "unknown option of model 'deit_s16' 'widht'; .*Did you mean 'width'?",
        ),
        (lambda: models.from_torch("resnet19", {}, 5, "timm"), "unknown model 'resnet19'; .*Did you mean 'resnet18'?"),
        (
            lambda: models.from_torch("resnet18", {}, 5, "tim"),
            "unknown source 'tim'; allowed: anchoring, huggingface, timm, torchvision. Did you mean 'timm'?",
        ),
        (lambda: models.from_torch("wrn40_2", {}, 5, "timm"), "timm has no 'wrn40_2'; allowed sources: anchoring$"),
        (lambda: models.from_torch("mlp", {}, 5, "timm"), "timm has no 'mlp'; allowed sources: none"),
        (lambda: models.to_torch("mlp", {}, "timm"), "timm has no 'mlp'; allowed sources: none"),
        (
            lambda: models.to_torch("wrn40_2", variables_of(RELEASED), "anchoring"),
            "the variables do not match 'wrn40_2'; .*stage1_block3.* and [0-9]+ more$",
        ),
        (
            lambda: models.to_torch("vit_b16", variables_of(SWIN), "timm"),
            "the variables do not match 'vit_b16'; .* more$",
        ),
        (
            lambda: models.to_torch("resnet18", variables_of(SWIN), "timm"),
            "the variables do not match 'resnet18'; missing: params/stem_conv/kernel",
        ),
        (
            lambda: models.to_torch("vit_b16", {"params": {}}, "timm"),
            "the variables do not match 'vit_b16'; missing: params/head/bias",
        ),
    ],
)
def test_conversion_rejects_tensors_that_do_not_match(convert, message):
    with pytest.raises(UserError, match=message) as error:
        convert()
    assert "\n" not in str(error.value)


def test_to_torch_rejects_variables_of_another_width():
    variables = models.create("resnet18", 5, width=4, stage_sizes=(1,)).init(jax.random.key(0), np.zeros((1, 8, 8, 3)))
    with pytest.raises(UserError, match=r"the variables do not match 'resnet18'; .*: batch_stats/stage1_"):
        models.to_torch("resnet18", variables, "torchvision", width=8, stage_sizes=(1,))
