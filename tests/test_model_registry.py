"""Models by name: their numbers of parameters, and the errors for invalid options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anchor_jax import UserError, models


@pytest.mark.parametrize(
    ("name", "num_classes", "options", "side", "published"),
    [
        # released code, for CIFAR-10
        ("resnet18", 10, {}, 32, 11_173_962),
        ("wrn40_2", 10, {}, 32, 2_243_546),
        ("wrn28_10", 10, {}, 32, 36_479_194),
        # torchvision and timm, for ImageNet
        ("resnet18", 1000, {"stem": "imagenet"}, 32, 11_689_512),
        ("resnet34", 1000, {"stem": "imagenet"}, 32, 21_797_672),
        ("resnet50", 1000, {"stem": "imagenet"}, 32, 25_557_032),
        ("regnet_y_800mf", 1000, {}, 32, 6_432_512),
        ("regnet_y_1_6gf", 1000, {}, 32, 11_202_430),
        ("deit_s16", 1000, {}, 224, 22_050_664),
        ("vit_b16", 1000, {}, 224, 86_567_656),
        # timm; torchvision also counts a bias of the keys, which is always 0
        ("swin_v2_t", 1000, {}, 32, 28_347_154),
        ("swin_v2_s", 1000, {}, 32, 49_728_418),
        ("swin_v2_b", 1000, {}, 32, 87_918_816),
    ],
)
def test_model_has_published_number_of_parameters(name, num_classes, options, side, published):
    """An anchored model has more only in its first layer, which has three more input channels."""
    model = models.create(name, num_classes, **options)
    inputs = jax.ShapeDtypeStruct((1, side, side, 6), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), inputs)["params"]
    first = params["stem_conv" if "stem_conv" in params else "patch_embedding"]["kernel"]
    *sides, channels, width = first.shape
    assert channels == 6
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == published + np.prod(sides) * 3 * width


@pytest.mark.parametrize(
    ("name", "num_classes", "options", "message"),
    [
        ("resnet19", 10, {}, "unknown model 'resnet19'; allowed: deit_s16, fastnet, mlp, .*Did you mean 'resnet18'?"),
        ("resnet18", 1, {}, "num_classes must be at least 2.* got 1"),
        ("resnet18", 10, {"dtype": "float16"}, "unknown dtype 'float16'; allowed: bfloat16, float32"),
        (
            "resnet18",
            10,
            {"widht": 3},
            "option of model 'resnet18' 'widht'; allowed: block, dropout_rate, .*, width. Did you mean 'width'?",
        ),
        ("mlp", 10, {"width": 3}, "unknown option of model 'mlp' 'width'; allowed: hidden"),
        ("resnet18", 10, {"width": 0}, "option 'width' of model 'resnet18' must be an integer >= 1; got 0$"),
        ("resnet18", 10, {"width": True}, "option 'width' of model 'resnet18' must be an integer >= 1; got True$"),
        ("mlp", 10, {"hidden": "abc"}, "option 'hidden' of model 'mlp' must be a sequence of integers >= 1; got 'abc'"),
        ("mlp", 10, {"hidden": 8}, "option 'hidden' of model 'mlp' must be a sequence of integers >= 1; got 8"),
        ("mlp", 10, {"hidden": ()}, r"option 'hidden' of model 'mlp' must be a sequence of integers >= 1; got \(\)"),
        ("resnet18", 10, {"stem": "mnist"}, "'stem' of model 'resnet18' must be one of cifar, imagenet; got 'mnist'"),
        (
            "vit_b16",
            10,
            {"stochastic_depth": 1.0},
            r"'stochastic_depth' of model 'vit_b16' must be in \[0, 1\); got 1.0",
        ),
        ("deit_s16", 10, {"distillation_token": 1}, "'distillation_token' of .* must be True or False; got 1"),
    ],
)
def test_create_rejects_invalid_arguments(name, num_classes, options, message):
    with pytest.raises(UserError, match=message) as error:
        models.create(name, num_classes, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "vit_b16",
            {},
            "height and width of images must be multiples of patch_size=16 of the ViT; got 36x36; resize the images",
        ),
        ("vit_b16", {"patch_size": 4, "width": 10, "num_heads": 3}, "must be a multiple of num_heads=3; got 10"),
        ("wrn40_2", {"depth": 11}, "depth of a Wide ResNet must be 10, 16, 22, .*; got 11"),
        ("swin_v2_t", {"patch_size": 40}, "must be at least patch_size=40 of the SwinV2; got 36x36; resize the images"),
        ("swin_v2_t", {"window": 1}, "window of a SwinV2 must be at least 2; got 1"),
        ("swin_v2_t", {"stage_sizes": (2, 2)}, "num_heads of a SwinV2 must have 2 values, one per stage; got"),
        ("swin_v2_t", {"width": 32}, "num_heads of a SwinV2 must divide width=32, doubled in each stage; got"),
        (
            "regnet_y_800mf",
            {"widths": (8, 16, 24, 36)},
            "widths of a RegNetY must be 4 multiples of group_width=16; got",
        ),
        (
            "fastnet",
            {"width": 4, "stem_width": 4},
            "images must be at least 9 for FastNet; got 8x36; resize the images",
        ),
        ("regnet_y_800mf", {"widths": (16, 32)}, "widths of a RegNetY must be 4 multiples of group_width=16; got"),
    ],
)
def test_model_rejects_inconsistent_options(name, options, message):
    model = models.create(name, 7, **options)
    with pytest.raises(UserError, match=message) as error:
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8 if name == "fastnet" else 36, 36, 3)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("as_type", [list, np.array, iter, tuple], ids=lambda kind: kind.__name__)
def test_create_accepts_any_sequence_and_numbers_of_numpy(as_type):
    model = models.create("resnet18", np.int64(3), stage_sizes=as_type([1, 1]), width=np.int32(4))
    assert model == models.create("resnet18", 3, stage_sizes=(1, 1), width=4)
    assert hash(model) == hash(models.create("resnet18", 3, stage_sizes=(1, 1), width=4))
