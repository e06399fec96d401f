"""Runs that start from PyTorch weights, the files of these weights, and the conversion back to PyTorch."""

import json
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from commands import quick_command
from ml_collections import ConfigDict

import anchor_jax as aj
from anchor_jax import UserError, models
from anchor_jax.models.pretrained import adapt_weights, resize_position_embedding
from anchor_jax.models.pytorch.beside import Description
from anchor_jax.models.pytorch.files import read_state_dict, source_and_file, write_state_dict
from anchor_jax.models.pytorch.module import module_file
from anchor_jax.training.loop import prepare, train
from anchor_jax.training.warm_start import read_weights

TINY_RESNET = {"stage_sizes": (1, 1), "width": 4}
TINY_VIT = {"patch_size": 2, "width": 8, "depth": 1, "num_heads": 2}


def write_weights(folder, name, num_classes, channels, options, side=6):
    """Write random weights to a file for PyTorch; return the file, the model and the variables."""
    model = models.create(name, num_classes, **options)
    variables = model.init(jax.random.key(7), jnp.zeros((1, side, side, channels)))
    file = folder / f"{name}-{num_classes}-{channels}.safetensors"
    write_state_dict(file, models.to_torch(name, variables, "torchvision", **options))
    return file, model, variables


@pytest.fixture
def warm(tiny, tmp_path):
    """A config without training steps that starts from a file of weights; images have one channel, in three classes."""
    tiny.model.name = "resnet18"
    tiny.model.options = ConfigDict(TINY_RESNET)
    tiny.training.total_epochs = 0.0
    file, model, variables = write_weights(tmp_path, "resnet18", 3, 1, TINY_RESNET)
    tiny.model.weights = f"torchvision:{file}"
    return tiny, model, variables


def test_warm_start_of_an_anchored_run_keeps_the_function(warm, tmp_path):
    config, model, variables = warm
    train(config, tmp_path / "run")
    predictor = aj.load_predictor(tmp_path / "run")
    images = np.random.default_rng(1).integers(0, 256, (5, 6, 6, 1)).astype(np.uint8)
    answer = predictor(images, num_references=4)
    record = json.loads((tmp_path / "run" / "run.json").read_text())["config"]["data"]
    x = (images / 255 - record["mean"]) / record["std"]
    expected = jax.nn.softmax(model.apply(variables, jnp.float32(x)))
    np.testing.assert_allclose(answer.probs, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(answer.probs_std, 0, atol=1e-5)


def test_warm_start_resumes_bit_for_bit_without_the_weights_file(warm, tmp_path):
    config, _, _ = warm
    config.training.total_epochs = 1.0
    uninterrupted = train(config, tmp_path / "uninterrupted")
    shutil.copytree(tmp_path / "uninterrupted", tmp_path / "interrupted")
    for folder in (tmp_path / "interrupted" / "checkpoints").glob("6"):
        shutil.rmtree(folder)
    source_and_file(config.model.weights)[1].unlink()
    resumed = train(config, tmp_path / "interrupted")
    jax.tree.map(np.testing.assert_array_equal, uninterrupted.params, resumed.params)


def test_warm_start_with_other_classes_initializes_the_head(warm, tmp_path, capsys):
    config, _, _ = warm
    weights, _, variables = write_weights(tmp_path, "resnet18", 5, 1, TINY_RESNET)
    average = {f"module.{name}": torch.tensor(tensor) for name, tensor in read_state_dict(weights).items()}
    file = tmp_path / "checkpoint.pth"
    torch.save(
        {"model": {name: tensor + 1 for name, tensor in average.items()}, "model_ema": average, "epoch": 3}, file
    )
    config.model.weights = f"torchvision:{file}"
    with pytest.raises(UserError, match=r"total_epochs=0 needs weights for the 3 classes of the data, but '.*' has"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    config.training.total_epochs, config.optimizer.learning_rate = 0.2, 0.0
    state = train(config, tmp_path / "run")
    assert (
        f"weights   torchvision:{file}; 32 tensors in 'model_ema'; not from model, which FILE#ENTRY would choose; "
        "beside the weights: epoch; head initialized for 3 classes, because the weights have 5; first layer widened"
    ) in capsys.readouterr().out
    block, expected = (tree["stage1_block1"]["conv1"]["kernel"] for tree in (state.params, variables["params"]))
    np.testing.assert_array_equal(block, expected)
    assert state.params["head"]["kernel"].shape == (8, 3)


def test_warm_start_resizes_the_position_embedding(warm, tmp_path, capsys):
    config, _, _ = warm
    config.model.name, config.model.options = "vit_b16", ConfigDict(TINY_VIT)
    file, _, _ = write_weights(tmp_path, "vit_b16", 3, 1, TINY_VIT, side=8)
    tensors = read_state_dict(file)
    for number in (1, 2):
        shard = tmp_path / f"model-0000{number}-of-00002.safetensors"
        write_state_dict(
            shard, {name: tensor for i, (name, tensor) in enumerate(tensors.items()) if i % 2 == number - 1}
        )
    config.model.weights = f"torchvision:{shard}"
    state = train(config, tmp_path / "run")
    assert state.params["position_embedding"].shape == (1, 1 + 3 * 3, 8)
    out = capsys.readouterr().out
    assert "position embedding resized to 3x3" in out
    assert "first layer widened to 2 channels, which leaves the function unchanged" in out
    digests = json.loads((tmp_path / "run" / "run.json").read_text())["weights"]["sha256"]
    assert list(digests) == [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.weights", "resnet.pth", "config.model.weights must be SOURCE:FILE, where SOURCE is one of .* got 'res"),
        ("model.weights", "torch:resnet.pth", "config.model.weights must be SOURCE:FILE.*got 'torch:resnet.pth'"),
        ("model.weights", "timm:no/such.safetensors", "no file 'no/such.safetensors'"),
        ("model.weights", "", "config.training.total_epochs must be above 0, or 0 with config.model.weights; got 0"),
        ("model.options.stage_sizes", (1, 2), "the tensors do not match torchvision's 'resnet18'; missing: layer2"),
        ("model.options.stem", "imagenet", r"wrong shape: conv1\.weight \[4, 1, 3, 3\] instead of"),
        ("anchoring.enabled", False, None),
    ],
)
def test_warm_start_rejects_weights_before_writing_the_run(warm, tmp_path, key, value, message):
    config, _, _ = warm
    with config.unlocked():
        config.update_from_flattened_dict({key: value})
    if message is None:  # the weights fit a standard run
        train(config, tmp_path / "run")
        return
    with pytest.raises(UserError, match=message):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()


def test_warm_start_rejects_anchored_weights_for_a_standard_run(warm, tmp_path):
    config, _, _ = warm
    file, _, _ = write_weights(tmp_path, "resnet18", 3, 2, TINY_RESNET)
    config.model.weights, config.anchoring.enabled = f"torchvision:{file}", False
    with pytest.raises(
        UserError, match=r"do not match the model: stem_conv/kernel is \[3, 3, 2, 4\] instead of \[3, 3, 1"
    ):
        train(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "channels", "mode", "weights_of"),
    [("resnet18", 3, "L", "RGB"), ("vit_b16", 6, "L", "RGB"), ("resnet18", 1, "RGB", "L")],
)
def test_weights_for_another_mode_name_the_key(warm, tmp_path, name, channels, mode, weights_of):
    config, _, _ = warm
    options = TINY_RESNET if name == "resnet18" else TINY_VIT
    (tmp_path / "weights").mkdir()
    file, _, _ = write_weights(tmp_path / "weights", name, 3, channels, options)
    config.model.name, config.model.options = name, ConfigDict(options)
    config.model.weights, config.data.mode = f"torchvision:{file}", mode
    message = (
        rf"the weights do not match the model: \w+/kernel is .*, --config.data.mode={weights_of}; set config.model.op"
    )
    with pytest.raises(UserError, match=message):
        prepare(config, tmp_path / "run")
    config.data.mode = weights_of
    assert prepare(config, tmp_path / "run").weights.has_head


def test_resize_position_embedding_keeps_the_tokens():
    tokens, patches = jnp.full((1, 2, 3), 7.0), jnp.linspace(0, 1, 16)[None, :, None] * jnp.ones(3)
    positions = jnp.concatenate([tokens, patches], axis=1)
    np.testing.assert_allclose(resize_position_embedding(positions, (4, 4)), positions, atol=1e-6)
    larger = resize_position_embedding(positions, (8, 6))
    assert larger.shape == (1, 2 + 48, 3)
    np.testing.assert_array_equal(larger[:, :2], tokens)
    expected = torch.nn.functional.interpolate(
        torch.tensor(np.array(patches)).reshape(1, 4, 4, 3).permute(0, 3, 1, 2), (8, 6), mode="bicubic", antialias=True
    )  # PyTorch's bicubic kernel has a = -0.75, JAX's a = -0.5
    np.testing.assert_allclose(larger[:, 2:], expected.permute(0, 2, 3, 1).reshape(1, 48, 3), atol=0.02)


def test_adapt_weights_keeps_matching_weights():
    shapes = {"params": {"head": {"bias": jnp.zeros(3)}}}
    adapted = adapt_weights({"params": {"head": {"bias": jnp.ones(3)}}}, shapes, (1, 1))
    assert adapted.has_head
    assert adapted.changes == ()
    np.testing.assert_array_equal(adapted.merge_into(shapes)["params"]["head"]["bias"], np.ones(3))


def test_adapt_weights_tells_that_there_is_no_head():
    shapes = {"params": {"norm": {"bias": jnp.zeros(2)}, "head": {"bias": jnp.zeros(3)}}}
    adapted = adapt_weights({"params": {"norm": {"bias": jnp.ones(2)}}}, shapes, (1, 1))
    assert not adapted.has_head
    assert adapted.changes == ("head initialized for 3 classes, because the weights have none",)


def test_adapt_weights_widens_only_the_first_layer():
    shapes = {"params": {"norm": {"bias": jnp.zeros(6)}}}
    with pytest.raises(UserError, match=r"do not match the model: norm/bias is \[3\] instead of \[6\]"):
        adapt_weights({"params": {"norm": {"bias": jnp.ones(3)}}}, shapes, (1, 1))


@pytest.mark.parametrize(("num", "is_square"), [(1 + 9, True), (2 + 9, False), (1 + 3 * 6, False)])
def test_adapt_weights_resizes_only_square_positions(num, is_square):
    path = ("params", "position_embedding")
    shapes = {"params": {"position_embedding": jax.ShapeDtypeStruct((1, 1 + 4 * 4, 8), jnp.float32)}}
    weights = {"params": {"position_embedding": jnp.ones((1, num, 8))}}
    if is_square:
        assert adapt_weights(weights, shapes, (4, 4)).variables[path].shape == (1, 17, 8)
    else:
        with pytest.raises(UserError, match=rf"position_embedding is \[1, {num}, 8\] instead of \[1, 17, 8\]"):
            adapt_weights(weights, shapes, (4, 4))


@pytest.mark.parametrize(
    ("num", "grid", "trained_grid", "before"),
    [
        (36, (4, 9), None, (6, 6)),  # as many patches as a square, which published networks have
        (36, (4, 9), (4, 9), None),
        (36, (6, 6), (4, 9), (4, 9)),
        (32, (4, 8), (8, 4), (8, 4)),
        (36, (6, 6), (5, 5), None),  # of another number
    ],
)
def test_adapt_weights_compares_grids_not_numbers(num, grid, trained_grid, before):
    positions = jnp.asarray(np.random.default_rng(0).normal(size=(1, 1 + num, 2)), jnp.float32)
    variables = {"params": {"position_embedding": positions}}
    adapted = adapt_weights(variables, variables, grid, trained_grid)
    expected = resize_position_embedding(positions, grid, before) if before else positions
    np.testing.assert_array_equal(adapted.variables["params", "position_embedding"], expected)
    assert len(adapted.changes) == (before is not None)


def test_files_beside_weights_tell_the_size_of_images(warm):
    config, _, _ = warm
    file = source_and_file(config.model.weights)[1]
    assert read_weights(config).trained_on is None
    module_file(file).write_text("LABEL_NAMES = ()\nIMAGE_SHAPE = (4, 9, 1)  # H, W, C\n")
    assert read_weights(config).trained_on == (4, 9)
    sizes = ({"input_size": [3, 4, 9]}, {"image_size": [4, 9]}, {"image_size": 6}, {"image_size": "6"}, {})
    assert [Description(network=content).image_size for content in sizes] == [(4, 9), (4, 9), (6, 6), None, None]


def test_to_torch_without_pytorch_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    options = {"width": 4, "stage_sizes": (1,)}
    shapes = jax.eval_shape(models.create("resnet18", 2, **options).init, jax.random.key(0), np.zeros((1, 8, 8, 3)))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    with pytest.raises(UserError, match="to_torch needs PyTorch, which is not installed"):
        models.to_torch("resnet18", variables, "torchvision", **options)


def test_to_torch_command_writes_the_weights_of_a_warm_start(warm, tmp_path):
    config, _, _ = warm
    train(config, tmp_path / "run")
    before = read_state_dict(source_and_file(config.model.weights)[1])
    out = tmp_path / "out.safetensors"
    result = quick_command("-m", "anchor_jax.to_torch", f"--workdir={tmp_path / 'run'}", f"--out={out}")
    assert result.returncode == 0, result.stderr
    assert f"tensors of step 0 to {out}" in result.stdout
    after = read_state_dict(out)
    assert after.keys() == before.keys()
    np.testing.assert_array_equal(after["conv1.weight"], np.concatenate([before["conv1.weight"]] * 2, axis=1))
    np.testing.assert_array_equal(after["fc.weight"], before["fc.weight"])
