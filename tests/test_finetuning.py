"""Fine-tuning of published networks: the function of their own packages, on images that are prepared as theirs."""

import json

import jax
import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers as hf
from ml_collections import ConfigDict
from PIL import Image
from pytorch_networks import NETWORKS, NUM_CLASSES, build_network

import anchor_jax as aj
from anchor_jax import UserError
from anchor_jax.config import validate
from anchor_jax.data import open_test
from anchor_jax.data.decoding import Example, decode
from anchor_jax.data.labels import read_class_names
from anchor_jax.data.loading import name_of
from anchor_jax.data.resampling import resized_size
from anchor_jax.models import MODELS, create
from anchor_jax.models.pytorch import to_arrays
from anchor_jax.models.pytorch.beside import describe
from anchor_jax.models.pytorch.files import write_state_dict
from anchor_jax.models.pytorch.fitting import fit, stated_options, wrong_stated
from anchor_jax.models.pytorch.preprocessing import preprocessing_of
from anchor_jax.models.swin_v2 import SwinV2
from anchor_jax.models.vit import ViT
from anchor_jax.runs import record
from anchor_jax.training.choices import choose
from anchor_jax.training.loop import prepare, train
from anchor_jax.training.summary import run_summary
from benchmarks.pytorch.random_weights import randomize_weights
from configs import finetune

CLASSES = ("ant", "bee", "cat")
# name of the model -> timm's name, what makes that network small, and the same as options
TIMM = {
    "resnet50": ("resnet50", {"layers": (1, 1), "channels": (64, 128)}, {"stage_sizes": (1, 1)}, 32),
    "vit_b16": (
        "vit_base_patch16_224",
        {"img_size": 32, "embed_dim": 64, "depth": 1, "num_heads": 1},
        {"width": 64, "depth": 1, "num_heads": 1},
        32,
    ),
    "swin_v2_t": (
        "swinv2_tiny_window8_256",
        {"img_size": 32, "embed_dim": 32, "depths": (1,), "num_heads": (1,)},
        {"width": 32, "stage_sizes": (1,), "num_heads": (1,)},
        32,
    ),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of JPEG files of odd sizes in three classes."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split in ("train", "test"):
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
            for row in range(2):
                coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8))
                size = rng.integers(70, 150, 2).tolist()
                coarse.resize(size, Image.Resampling.BICUBIC).save(root / split / name / f"{row}.jpg", quality=90)
    return root


def config_of(photos, name, weights, options, **changes):
    """Return the config of a command: finetune.py, the model, the weights, the data, and `total_epochs=0`."""
    config = finetune.get_config()
    config.update_from_flattened_dict({"data.source": "folder", "data.path": str(photos), "model.name": name})
    config.update_from_flattened_dict({"model.weights": weights, "training.total_epochs": 0.0})
    config.model.options = ConfigDict(options)
    config.update_from_flattened_dict({"data.test_split": "test", "evaluation.num_references": 2})
    config.update_from_flattened_dict({"evaluation.batch_size": 8, **changes})
    return config


def timm_network(name):
    timm_name, arguments, _, _ = TIMM[name]
    network = timm.create_model(timm_name, num_classes=3, **arguments)
    if name == "resnet50":
        network.layer3 = network.layer4 = torch.nn.Identity()  # timm has no ResNet of two stages
    return randomize_weights(network)


def transform_of(network, size):
    data = timm.data.resolve_model_data_config(network, {"input_size": (3, size, size)})
    return timm.data.create_transform(**data, is_training=False)


def assert_equal_timm(workdir, network, transform, photos):
    """Assert equal pixels and probabilities on the test images; the latter must depend on the image."""
    run = record.load(workdir)
    images, _ = open_test(run.config.data, run.label_names, run.image_shape).first(6)
    files = sorted((photos / "test").glob("*/*"))
    theirs = torch.stack([transform(Image.open(file).convert("RGB")) for file in files])
    mean, std = (np.array(run.config.data[key], np.float32) for key in ("mean", "std"))
    np.testing.assert_allclose((images / np.float32(255) - mean) / std, theirs.permute(0, 2, 3, 1), atol=1e-6)
    with torch.no_grad():
        expected = network(theirs).softmax(-1).numpy()
    found = aj.load_predictor(workdir)(files, num_references=2)
    np.testing.assert_allclose(found.probs, expected, rtol=0, atol=2e-6)
    assert expected.std(axis=0).max() > 1e-3


@pytest.mark.parametrize("name", TIMM)
def test_finetuning_keeps_the_function_of_timm(name, photos, tmp_path, capsys):
    network, (_, _, options, size) = timm_network(name), TIMM[name]
    torch.save(network.state_dict(), tmp_path / "network.pth")
    changes = {} if name == "vit_b16" else {"data.image_size": size}  # which the positions of a ViT tell
    train(config_of(photos, name, f"timm:{tmp_path}/network.pth", options, **changes), tmp_path / "run")
    assert_equal_timm(tmp_path / "run", network, transform_of(network, size), photos)
    said = capsys.readouterr().out
    assert "head kept, its 3 outputs taken as the classes in order" in said
    assert f"data      {photos.name} (folder {photos}): 6 training images" in said
    assert "references from the batch" in said
    assert f"timm's {network.pretrained_cfg['architecture']}.{network.pretrained_cfg['tag']}, by the table" in said
    assert "computed in float32" in said


def test_finetuning_asks_for_windows_as_in_timm(photos, tmp_path):
    network, (_, _, options, _) = timm_network("swin_v2_t"), TIMM["swin_v2_t"]
    torch.save(network.state_dict(), tmp_path / "network.pth")
    changes = {"data.image_size": 16}  # 4 tokens along a side, half the window
    config = config_of(photos, "swin_v2_t", f"timm:{tmp_path}/network.pth", options, **changes)
    with pytest.raises(UserError, match=r"smaller, 4, than its window, 8, which timm .*options\.window_shrinks=True"):
        prepare(config, tmp_path / "run")
    config.model.options.window_shrinks = True
    trainer = prepare(config, tmp_path / "run")
    assert trainer.weights.has_head
    assert (trainer.run.config.data.name, name_of(trainer.run.config.data)) == ("", photos.name)


def test_finetuning_resumes_without_the_weights(photos, tmp_path):
    """What the weights and the files beside them told is in the record."""
    network, (_, _, options, _) = timm_network("vit_b16"), TIMM["vit_b16"]
    timm.models.save_for_hf(network, tmp_path / "vit", safe_serialization=True)
    config = config_of(photos, "vit_b16", f"timm:{tmp_path}/vit", options)
    first = prepare(config, tmp_path / "run")
    assert f"this is the preprocessing of '{tmp_path}/vit/config.json'" in run_summary(first, first.init_carry()[0])
    train(config, tmp_path / "run")
    (tmp_path / "vit" / "model.safetensors").unlink()
    (tmp_path / "vit" / "config.json").unlink()
    again = prepare(config, tmp_path / "run")
    assert again.run.config == first.run.config
    assert again.run.changes == ()


# --- preprocessing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("flat", [True, False], ids=["older", "newer"])
@pytest.mark.parametrize(
    "stated",
    [
        {"crop_pct": 0.95, "interpolation": "bicubic", "crop_mode": "center", "input_size": (3, 48, 48)},
        {"crop_pct": 0.8, "interpolation": "bilinear", "crop_mode": "squash", "input_size": (3, 31, 31)},
        {"crop_pct": 1.0, "mean": (0.5, 0.4, 0.3), "std": (0.1, 0.2, 0.3), "input_size": (3, 50, 50)},
    ],
    ids=["center", "squash", "normalization"],
)
def test_preprocessing_follows_the_config_of_timm(photos, tmp_path, stated, flat):
    content = {"architecture": "vit_tiny_patch16_224", **(stated if flat else {"pretrained_cfg": stated})}
    (tmp_path / "config.json").write_text(json.dumps(content))
    found = preprocessing_of(tmp_path / "model.safetensors", "timm", "vit_b16", {})
    assert found.notes == ()
    theirs = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=stated), is_training=False)
    options = {name: getattr(found, name) for name in ("image_size", "crop_fraction", "interpolation", "resizing")}
    for file in sorted((photos / "train").glob("*/*")):
        ours = decode(Example(file, 0, ""), mode="RGB", **options) / np.float32(255)
        ours = (ours - np.float32(found.mean)) / np.float32(found.std)
        np.testing.assert_allclose(ours, theirs(Image.open(file)).permute(1, 2, 0), atol=1e-6)


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        (hf.ViTImageProcessor(), (224, 1.0, "bilinear", "stretch")),
        (hf.DeiTImageProcessor(), (224, 0.875, "bicubic", "stretch")),
        (
            hf.ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.875, resample=3),
            (224, 0.875, "bicubic", "shorter_side"),
        ),
        (hf.ConvNextImageProcessor(size={"shortest_edge": 384}), (384, 1.0, "bicubic", "stretch")),
        (hf.BitImageProcessor(), (224, 1.0, "bicubic", "shorter_side")),
    ],
    ids=["ViT", "DeiT", "ConvNext", "ConvNext 384", "Bit"],
)
def test_preprocessing_follows_the_processor_of_transformers(tmp_path, processor, expected):
    processor.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    found = preprocessing_of(tmp_path, "huggingface", "vit_b16", {})
    assert found[:4] == expected
    assert found.mean == pytest.approx(processor.image_mean)
    assert found.std == pytest.approx(processor.image_std)


@pytest.mark.parametrize(
    "name", [name for name in MODELS if name.startswith(("resnet", "regnet", "vit", "deit", "swin"))]
)
def test_preprocessing_without_files_is_of_the_first_weights(tmp_path, name):
    found = preprocessing_of(tmp_path / "none.pth", "timm", name, {})
    their_name, _, tag = found.stated_by.removeprefix("of timm's ").partition(",")[0].partition(".")
    cfg = timm.get_pretrained_cfg(their_name)
    assert (cfg.tag, cfg.crop_mode) == (tag, "center")
    assert found[:3] == (cfg.input_size[1], cfg.crop_pct, cfg.interpolation)
    assert (found.mean, found.std) == (cfg.mean, cfg.std)
    for weights in (
        () if name == "deit_s16" else torchvision.models.get_model_weights(name.replace("vit_b16", "vit_b_16"))
    ):
        file, theirs = tmp_path / weights.url.split("/")[-1], weights.transforms()
        found = preprocessing_of(file, "torchvision", name, {})
        size = found.image_size, found.image_size
        resized, _ = resized_size((999, 999), size, found.crop_fraction, found.resizing)
        assert ([found.image_size], [resized]) == (theirs.crop_size, theirs.resize_size)
        assert (found.interpolation, list(found.mean)) == (theirs.interpolation.value, theirs.mean)


def test_preprocessing_of_another_network_is_not_used(tmp_path):
    (tmp_path / "config.json").write_text('{"architecture": "convnext_tiny", "pretrained_cfg": {"crop_pct": 0.5}}')
    found = preprocessing_of(tmp_path / "resnet50.pth", "timm", "resnet50", {})
    assert found.crop_fraction == 0.95
    assert found.notes == (f"'{tmp_path}/config.json' is not used, because it is of 'convnext_tiny'",)
    (tmp_path / "config.json").write_text('{"architecture": "resnet50", "input_size": 7}')
    with pytest.raises(
        UserError, match=r"config.json' .* does not say how images are prepared .*; repair or remove it"
    ):
        preprocessing_of(tmp_path / "resnet50.pth", "timm", "resnet50", {})


@pytest.mark.parametrize("name", MODELS)
def test_finetuning_config_serves_every_model(name):
    config = finetune.get_config()
    config.model.name = name
    chosen = choose(config).config
    validate(chosen)
    assert ("stochastic_depth" in chosen.model.options) == name.startswith(("vit", "deit", "swin"))
    assert create(name, 2, dtype=chosen.model.dtype, **chosen.model.options)
    assert chosen.model.dtype == "bfloat16"
    assert chosen.data.image_size == (256 if name.startswith("swin") else 224)
    assert len(chosen.data.mean) == len(chosen.data.std) == 3
    assert choose(chosen).config == chosen


# --- options that fit -----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", NETWORKS)
def test_fit_finds_the_options_of_every_network(case):
    network = NETWORKS[case]
    state_dict = network.to_source_names(build_network(case).state_dict())
    untold = {"num_heads"} if MODELS[network.name].family is ViT else {"window", "pretrained_window"}
    found = fit({f"model.{name}": tensor for name, tensor in state_dict.items()}, network.source, "resnet18")
    assert found.family is MODELS[network.name].family
    assert {**found.options, **network.options} == {**network.options, **found.options}
    assert network.options.keys() - found.options.keys() <= untold
    assert found.num_classes == NUM_CLASSES


def vit_of(folder, num_classes=3, **options):
    """Write the weights of a ViT in timm's names; return their address."""
    shapes = jax.eval_shape(create("vit_b16", num_classes, **options).init, jax.random.key(0), np.zeros((1, 32, 32, 3)))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    write_state_dict(folder / "vit.safetensors", to_arrays("vit_b16", variables, "timm", **options))
    return f"timm:{folder}/vit.safetensors"


HEADS_3 = {"architecture": "vit_tiny_patch16_224", "input_size": [3, 32, 32]}


@pytest.mark.parametrize(
    ("name", "options", "beside", "message"),
    [
        (
            "vit_b16",
            {"depth": 2},
            None,
            "the file's width is 192, num_heads is probably 3: --config.model.options.width=192 "
            "--config.model.options.num_heads=3 (read at the top level of",
        ),
        (
            "vit_b16",
            {"width": 192, "num_heads": 3},
            None,
            "the file's depth is 2: --config.model.options.depth=2 (read",
        ),
        (
            "vit_b16",
            {"width": 192, "num_heads": 3, "depth": 2, "patch_size": 8},
            None,
            "the file's patch_size is 16: --config.model.options.patch_size=16 (read",
        ),
        ("resnet18", {}, None, "the file holds a ViT: --config.model.name=vit_b16 (read"),
        (
            "vit_b16",
            {"width": 192, "depth": 2},
            HEADS_3,
            "the network of the weights has num_heads=3, as '",
        ),
        ("vit_b16", {"depth": 2}, HEADS_3, "the file's width is 192, num_heads is 3: --config.model.options.width=192"),
    ],
    ids=["width", "depth", "patch size", "model", "heads", "width and heads"],
)
def test_finetuning_names_the_options_that_fit(photos, tmp_path, name, options, beside, message):
    address = vit_of(tmp_path, width=192, num_heads=3, depth=2)
    if beside:
        (tmp_path / "config.json").write_text(json.dumps(beside))
    with pytest.raises(UserError) as error:
        prepare(config_of(photos, name, address, options), tmp_path / "run")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("architecture", "options", "wrong"),
    [
        ("swinv2_tiny_window16_256", {}, {"window": 16}),
        ("swinv2_base_window12to16_192to256", {"window": 16}, {"pretrained_window": (12, 12, 12, 6)}),
        ("swinv2_tiny_window8_256", {"window": 16, "pretrained_window": 8}, {}),
    ],
)
def test_stated_options_tell_the_window(tmp_path, architecture, options, wrong):
    (tmp_path / "config.json").write_text(json.dumps({"architecture": architecture}))
    stated = stated_options(describe(tmp_path / "x.pth", "timm", SwinV2), SwinV2)
    assert wrong_stated(create("swin_v2_t", 2, **options), stated) == wrong


# --- classes --------------------------------------------------------------------------------------------


def test_finetuning_keeps_the_head_for_some_of_its_classes(photos, tmp_path):
    names = ("dog", "cat", "bee", "ant", "elk")
    (tmp_path / "classes.txt").write_text("\n".join(names) + "\n")
    options = {"width": 64, "num_heads": 1, "depth": 1}
    config = config_of(photos, "vit_b16", vit_of(tmp_path, num_classes=5, **options), options)
    with pytest.raises(
        UserError, match=r"the 3 classes of the data, but .* has 5 classes; .* --config.data.classes=FILE"
    ):
        prepare(config, tmp_path / "run")
    config.data.classes = str(tmp_path / "classes.txt")
    with pytest.warns(UserWarning, match="has no example of 2 of the 5 classes: dog, elk"):
        trainer = prepare(config, tmp_path / "run")
    assert trainer.run.label_names == names
    assert trainer.weights.has_head
    config.data.classes = str(tmp_path / "others.txt")
    (tmp_path / "others.txt").write_text("dog\ncat\n")
    with pytest.raises(UserError, match=r"others.txt' does not name all classes of the data: 2 of the 3 classes"):
        prepare(config, tmp_path / "run")


@pytest.mark.parametrize(
    "content",
    [
        {"id2label": {"1": "bee", "0": "ant"}},
        {"label_names": ["ant", "bee"]},
        ["ant", "bee"],
        {"a": 1},
        ["ant", "ant"],
        3,
    ],
)
def test_read_class_names_of_json_keeps_the_order(tmp_path, content):
    (tmp_path / "config.json").write_text(json.dumps(content))
    if "bee" in json.dumps(content):
        assert read_class_names(tmp_path / "config.json") == ("ant", "bee")
        return
    with pytest.raises(UserError, match="must hold at least two different names"):
        read_class_names(tmp_path / "config.json")


@pytest.mark.parametrize("name", ["names.txt", "config.json", "CONFIG.JSON"])
def test_read_class_names_of_windows(tmp_path, name):
    text = "ant\r\nbee\r\n" if name.endswith("txt") else '{"label_names": ["ant", "bee"]}\r\n'
    (tmp_path / name).write_bytes(text.encode("utf-8-sig"))
    assert read_class_names(tmp_path / name) == ("ant", "bee")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"id2label": {"1": "ant", "2": "bee"}}, "id2label must number its 2 classes from 0; it has no 0"),
        ([["n01", "ant"], ["n02", "bee"]], r"a class must have a name, a string; got \['n01', 'ant'\]"),
        (["ant", " "], "a class must have a name, a string; got ' '"),
    ],
)
def test_read_class_names_refuses_what_is_no_name(tmp_path, content, message):
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        read_class_names(tmp_path / "config.json")
