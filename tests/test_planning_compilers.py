"""Tests of plans by the compilers of TPUs and GPUs, with the smallest networks; skipped where these are not installed.

pip install -e '.[plan-tpu]'    # or '.[plan-gpu]'
"""

import importlib.util
import json

import pytest
from commands import command

SMALL = ("--config.model.name=mlp", "--config.model.options.hidden=(8,8)")
NUM_PARAMETERS = (2 * 64 * 8 + 8) + (8 * 8 + 8) + (8 * 10 + 10)


def is_installed(*names):
    try:
        return any(importlib.util.find_spec(name) for name in names)
    except ModuleNotFoundError:
        return False


TPU = pytest.param(
    "v5e:2x2", marks=pytest.mark.skipif(not is_installed("libtpu"), reason="libtpu is not installed: [plan-tpu]")
)
GPU = pytest.param(
    "h200:4",
    marks=pytest.mark.skipif(
        not is_installed("jax_plugins.xla_cuda13"), reason="the CUDA plug-in is not installed: [plan-gpu]"
    ),
)


def planned(tmp_path, target, *flags):
    file = tmp_path / "plan.json"
    done = command("-m", "anchor_jax.plan", "--config", "digits", "--target", target, "--json", str(file), *flags)
    assert done.returncode == 0, done.stderr
    (content,) = json.loads(file.read_text())
    return content, done.stdout


@pytest.mark.parametrize("target", [TPU, GPU])
def test_compiler_states_memory_time_and_communication(target, tmp_path):
    content, printed = planned(tmp_path, target, *SMALL)
    memory = content["memory_bytes"]
    assert content["fits"]
    assert memory["parameters"] == 4 * NUM_PARAMETERS
    assert memory["optimizer"] == 8 * NUM_PARAMETERS + 8
    assert memory["total"] == sum(memory.values()) - memory["total"] - memory["available"]
    assert content["step"]["computation_seconds"] > 0
    assert 0 < content["fraction_of_peak"] < 1
    kinds = {one["kind"]: one for one in content["step"]["collectives"]}
    assert kinds["all-reduce"]["num_bytes"] >= 4 * NUM_PARAMETERS
    # forward, and the gradients of the weights and of the inputs of all layers but the first
    products = 3 * (2 * 64 * 8 + 8 * 8 + 8 * 10) - 2 * 64 * 8
    assert content["flop_per_step_and_device"] == 16 * 2 * products
    assert "the costliest operations of a step" in printed


@pytest.mark.parametrize("target", [TPU])
def test_compiler_finds_a_change_that_fits(target, tmp_path):
    flags = ("--image_shape=512,512,3", "--num_examples=100000", "--num_classes=10", "--config.anchoring.bank_size=16")
    huge = ("--config.data.source=folder", "--config.data.path=/none", "--config.data.streaming=True")
    normalization = ("--config.data.mean=(0.5,0.5,0.5)", "--config.data.std=(0.2,0.2,0.2)")
    batch = ("--config.training.batch_size=16384", "--config.augmentation.crop_padding=0")
    content, printed = planned(tmp_path, target, *SMALL, *flags, *huge, *normalization, *batch)
    assert not content["fits"]
    assert content["trials"][-1]["fits"]
    assert "does not fit" in printed
    assert ": fits, " in printed
