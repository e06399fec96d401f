"""Weights of PyTorch networks that others wrote: the same logits here, the same tensors back."""

import copy
import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from conftest import assert_same_bits
from pytorch_networks import NETWORKS, NUM_CLASSES, built, renamed, torchvision_vit
from torch import nn

from anchor_jax import UserError, models
from anchor_jax.models.pytorch.names import NAMES
from benchmarks.pytorch.random_weights import logits_of, randomize_weights

# compiling is nearly all that these tests take


@pytest.fixture(params=NETWORKS)
def case(request):
    return request.param


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def state_dict(case):
    """By the names of its source."""
    return NETWORKS[case].released(built(case).state_dict())


def read(case, tensors, num_classes=NUM_CLASSES, **options):
    """Variables of the model that a network is, from tensors by the names of its source."""
    network = NETWORKS[case]
    options = {key: value for key, value in network.options.items() if key != "stem"} | options
    return models.from_torch(network.name, tensors, num_classes, network.source, **options)


@functools.cache
def variables_of(case):
    """Variables from a network's own tensors, not to be changed."""
    return read(case, state_dict(case))


def written(case, variables):
    network = NETWORKS[case]
    return models.to_torch(network.name, variables, network.source, **network.options)


def assert_logits_agree(case, inputs):
    network = NETWORKS[case]
    expected = logits_of(built(case), inputs)
    logits = jax.jit(models.create(network.name, NUM_CLASSES, **network.options).apply)(variables_of(case), inputs)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * scale)
    assert expected.std(axis=0).max() > 1e-2 * scale  # the images matter


# the same function


def test_every_source_of_every_family_is_checked():
    checked = {(models.MODELS[network.name][0], network.source) for network in NETWORKS.values()}
    as_torchvision = {  # the released code has torchvision's networks for ImageNet
        (family, "anchoring") for family, tables in NAMES.items() if tables["anchoring"] == tables.get("torchvision")
    }
    assert checked | as_torchvision == {(family, source) for family, tables in NAMES.items() for source in tables}


def test_logits_are_those_of_the_pytorch_network(case):
    network = NETWORKS[case]
    assert_logits_agree(case, images(2, network.side, network.side, network.channels))


@pytest.mark.parametrize("size", [(22, 18), (6, 6), (8, 24)], ids=["odd", "within a window", "a window high"])
def test_a_swin_takes_images_of_any_size_as_that_of_torchvision_does(size):
    assert_logits_agree("torchvision's Swin", images(2, *size, 3))


def test_resnet_normalises_by_the_batch_in_training_as_pytorch_does():
    case, inputs = "the released ResNet", images(5, 16, 16, 6)
    network, trained = NETWORKS[case], copy.deepcopy(built(case)).train()
    expected = logits_of(trained, inputs)
    model, before = models.create(network.name, NUM_CLASSES, **network.options), variables_of(case)
    train = jax.jit(partial(model.apply, train=True, mutable=["batch_stats"]))
    logits, updates = train(before, inputs)
    np.testing.assert_allclose(logits, expected, rtol=2e-3, atol=2e-3)
    after = read(case, network.released(trained.state_dict()))["batch_stats"]
    for (path, mine), theirs in zip(
        jax.tree.leaves_with_path(updates["batch_stats"]), jax.tree.leaves(after), strict=True
    ):
        if path[-1].key == "mean":
            np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4)
    # PyTorch's running variance is the unbiased one, Flax's the biased
    old, new = (of["stem_bn"]["var"] for of in (before["batch_stats"], after))
    count = inputs[..., 0].size
    biased = old * 0.9 + (new - old * 0.9) * (count - 1) / count
    np.testing.assert_allclose(updates["batch_stats"]["stem_bn"]["var"], biased, rtol=1e-4, atol=1e-5)


def test_initial_weights_of_a_resnet_for_cifar_are_spread_as_those_of_pytorch():
    model = models.create("resnet18", NUM_CLASSES, width=128, stage_sizes=(1,))
    ours = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 6)))["params"]
    for layer, theirs in (("stem_conv", nn.Conv2d(6, 128, 3)), ("head", nn.Linear(128, NUM_CLASSES))):
        kernel = theirs.weight.detach()
        assert np.abs(ours[layer]["kernel"]).max() == pytest.approx(float(kernel.abs().max()), rel=0.05)
        assert np.std(ours[layer]["kernel"]) == pytest.approx(float(kernel.std()), rel=0.1)
    assert 0 < np.abs(ours["head"]["bias"]).max() <= 128**-0.5


# there and back


def test_tensors_come_back_as_they_were_and_the_network_takes_them(case):
    network, expected = NETWORKS[case], state_dict(case)
    tensors = written(case, variables_of(case))
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name])
    other = randomize_weights(network.build(), seed=1)
    other.load_state_dict(network.own(tensors), strict=True)
    inputs = images(2, network.side, network.side, network.channels)
    np.testing.assert_array_equal(logits_of(other, inputs), logits_of(built(case), inputs))


def test_counters_of_batch_norm_are_not_read_and_written_as_zero():
    case = "the released Wide ResNet"
    counted = {
        name: tensor + 3 if name.endswith("num_batches_tracked") else tensor
        for name, tensor in state_dict(case).items()
    }
    assert_same_bits(read(case, counted), variables_of(case))
    tensors = written(case, variables_of(case))
    assert {int(tensor) for name, tensor in tensors.items() if name.endswith("num_batches_tracked")} == {0}


# what a state dictionary may look like


@pytest.mark.parametrize(
    "wrapped",
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
def test_wrappers_and_arrays_make_no_difference(wrapped):
    case = "the released Wide ResNet"
    assert_same_bits(read(case, wrapped(state_dict(case))), variables_of(case))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_as_float32(dtype):
    case = "torchvision's RegNet"
    half = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state_dict(case).items()
    }
    variables = read(case, half)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert_same_bits(variables, read(case, {name: tensor.float() for name, tensor in half.items()}))


HUGGING_FACE_4 = [
    (".layers.", ".encoder.layer."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
    (".attention.q_proj.", ".attention.attention.query."),
    (".attention.k_proj.", ".attention.attention.key."),
    (".attention.v_proj.", ".attention.attention.value."),
    (".attention.o_proj.", ".attention.output.dense."),
]
FILES_OF_TORCHVISION = [("mlp.0.", "mlp.linear_1."), ("mlp.3.", "mlp.linear_2.")]
FILES_OF_THE_AUTHORS_OF_SWIN = [("layers.1.downsample", "layers.0.downsample"), ("head.fc.", "head.")]


@pytest.mark.parametrize(
    ("case", "changes"),
    [
        ("Hugging Face's ViT", HUGGING_FACE_4),
        ("Hugging Face's DeiT", HUGGING_FACE_4),
        ("torchvision's ViT", FILES_OF_TORCHVISION),
        ("timm's Swin", FILES_OF_THE_AUTHORS_OF_SWIN),
    ],
)
def test_names_of_older_versions_are_read_too(case, changes):
    older = renamed(state_dict(case), changes)
    assert all(any(new in name for name in older) for _, new in changes)
    assert_same_bits(read(case, older), variables_of(case))


def test_tables_that_the_authors_of_swin_keep_beside_weights_are_left_aside():
    case = "timm's Swin"
    tables = {"attn_mask": torch.zeros(4, 16, 16), "attn.relative_coords_table": torch.zeros(1, 7, 7, 2)}
    tensors = state_dict(case) | {f"layers.0.blocks.1.{name}": tensor for name, tensor in tables.items()}
    assert_same_bits(read(case, tensors), variables_of(case))


@pytest.mark.parametrize(("case", "side"), [("the released ResNet", 3), ("timm's ResNet", 7)])
def test_the_stem_of_a_resnet_is_told_from_its_tensors_and_channels_are_taken_as_they_are(case, side):
    kernel = variables_of(case)["params"]["stem_conv"]["kernel"]
    assert kernel.shape == (side, side, NETWORKS[case].channels, 64)


def test_positions_are_taken_as_they_are():
    tensors = torchvision_vit(side=96, patch_size=4).state_dict()
    variables = read("torchvision's ViT", tensors, patch_size=4)
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
def test_classes_are_counted_where_their_number_is_not_given(case):
    assert_same_bits(read(case, state_dict(case), num_classes=None), variables_of(case))


# mistakes


def without(case, *names):
    return {name: tensor for name, tensor in state_dict(case).items() if name not in names}


RELEASED, SWIN, TIMM, DEIT = "the released Wide ResNet", "torchvision's Swin", "timm's DeiT", "Hugging Face's DeiT"


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (
            lambda: read(RELEASED, without(RELEASED, "bn1.bias", "block1.layer.0.conv1.weight")),
            "the tensors are not those of anchoring's 'wrn40_2', missing: block1.layer.0.conv1.weight, bn1.bias; give",
        ),
        (lambda: read(RELEASED, without(RELEASED, "fc.bias"), num_classes=None), "missing: fc.bias; of another shape"),
        (lambda: read(RELEASED, {}), "missing: .* and [0-9]+ more; give the source, the number of classes"),
        (
            lambda: read(RELEASED, state_dict(RELEASED) | {"aux.weight": torch.zeros(1), "aux.bias": torch.zeros(1)}),
            "'wrn40_2', left over: aux.bias, aux.weight; give the source",
        ),
        (
            lambda: read(RELEASED, state_dict(RELEASED), num_classes=9),
            r"'wrn40_2', of another shape: fc.bias \[5\], not \[9\], fc.weight \[5, 64\], not \[9, 64\]; give the",
        ),
        (
            lambda: read(RELEASED, state_dict(RELEASED), depth=10),
            "'wrn40_2', left over: block1.layer.1.bn1.bias, .* and [0-9]+ more; give",
        ),
        (
            lambda: read(SWIN, state_dict(SWIN), window=8),
            "'swin_v2_t', of another window: features.1.0.attn.relative_coords_table, .* and 4 more; give",
        ),
        (
            lambda: read(DEIT, state_dict(DEIT), distillation_token=False),
            "left over: deit.embeddings.distillation_token; give",
        ),
        (
            lambda: read(TIMM, state_dict(TIMM), distillation_token=True),
            "no network of this source has distillation_token; choose another source or other options",
        ),
        (
            lambda: read(TIMM, state_dict(TIMM), widht=3),
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
            "the variables are not those of 'wrn40_2': .*stage1_block3.* and [0-9]+ more$",
        ),
        (
            lambda: models.to_torch("vit_b16", variables_of(SWIN), "timm"),
            "the variables are not those of 'vit_b16': .* more$",
        ),
        (
            lambda: models.to_torch("resnet18", variables_of(SWIN), "timm"),
            "the variables are not those of 'resnet18': they have no .*stem_conv",
        ),
        (
            lambda: models.to_torch("vit_b16", {"params": {}}, "timm"),
            "the variables are not those of 'vit_b16': they have no .*head",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(mistake, message):
    with pytest.raises(UserError, match=message) as error:
        mistake()
    assert "\n" not in str(error.value)


def test_windows_shrink_in_late_stages_as_those_of_timm():
    from timm.models.swin_transformer_v2 import SwinTransformerV2

    options = {"patch_size": 2, "window": 16, "stage_sizes": (2, 2), "num_heads": (1, 2), "width": 8}
    torch.manual_seed(0)
    network = SwinTransformerV2(32, 2, depths=(2, 2), num_heads=(1, 2), embed_dim=8, window_size=16, num_classes=5)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    with torch.no_grad():
        expected = network.eval()(torch.tensor(images).permute(0, 3, 1, 2)).numpy()
    variables = models.from_torch("swin_v2_t", network.state_dict(), 5, "timm", **options)
    model = models.create("swin_v2_t", 5, window_shrinks=True, **options)
    np.testing.assert_allclose(jax.jit(model.apply)(variables, images), expected, rtol=1e-4, atol=1e-5)


def test_variables_of_another_shape_are_told():
    variables = models.create("resnet18", 5, width=4, stage_sizes=(1,)).init(jax.random.key(0), np.zeros((1, 8, 8, 3)))
    with pytest.raises(UserError, match="the variables are not those of 'resnet18': batch_stats/stage1_"):
        models.to_torch("resnet18", variables, "torchvision", width=8, stage_sizes=(1,))
