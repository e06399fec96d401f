"""Tests of plans by the compilers of TPUs and GPUs, with the smallest networks; skipped where these are not installed.

pip install -e '.[plan-tpu]'    # or '.[plan-gpu]'
"""

import json

import pytest
from commands import command
from conftest import config_file
from ml_collections import ConfigDict
from step_programs import CASES, is_over_batch, max_all_reduces, small_step

from anchor_jax.planning.step import plan_step
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.runtime.topologies import is_installed
from configs import digits

MAX_COPIES = 0.2  # of the time of tiny networks, whose rows are shorter than those of the chips
NUM_PARAMETERS = (2 * 64 * 8 + 8) + (8 * 8 + 8) + (8 * 10 + 10)

TPU = pytest.param(
    "v5e:2x2", marks=pytest.mark.skipif(not is_installed("tpu"), reason="libtpu is not installed: [plan-tpu]")
)
GPU = pytest.param(
    "h200:4",
    marks=pytest.mark.skipif(not is_installed("cuda"), reason="the CUDA plug-in is not installed: [plan-gpu]"),
)


@pytest.fixture
def small(tmp_path):
    """The file of a config of an MLP on digits."""
    config = digits.get_config()
    config.model.name, config.model.options = "mlp", ConfigDict({"hidden": (8, 8)})
    return config_file(tmp_path, config)


def planned(tmp_path, target, config, *flags):
    file = tmp_path / "plan.json"
    done = command("-m", "anchor_jax.plan", "--config", config, "--target", target, "--json", str(file), *flags)
    assert done.returncode == 0, done.stderr
    (content,) = json.loads(file.read_text())
    return content, done.stdout


@pytest.mark.parametrize("target", [TPU, GPU])
def test_compiler_states_memory_time_and_communication(target, small, tmp_path):
    content, printed = planned(tmp_path, target, small)
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
def test_targets_are_checked_before_the_first_is_compiled(target, small):
    done = command("-m", "anchor_jax.plan", "--config", small, "--target", target, "--target", "v5e:1x2")
    assert (done.returncode, done.stdout) == (1, "")
    assert "does not accept the topology v5e:1x2" in done.stderr


@pytest.mark.parametrize("target", [TPU])
def test_compiler_finds_a_change_that_fits(target, small, tmp_path):
    flags = ("--image_shape=512,512,3", "--num_examples=100000", "--num_classes=10", "--config.anchoring.bank_size=16")
    huge = ("--config.data.source=folder", "--config.data.path=/none", "--config.data.streaming=True")
    reading = ("--config.data.image_size=512", "--config.data.mean=(0.5,0.5,0.5)", "--config.data.std=(0.2,0.2,0.2)")
    batch = ("--config.training.batch_size=16384", "--config.augmentation.crop_padding=0")
    content, printed = planned(tmp_path, target, small, *flags, *huge, *reading, *batch)
    assert not content["fits"]
    assert content["trials"][-1]["fits"]
    assert "does not fit" in printed
    assert ": fits, " in printed


@pytest.mark.parametrize("target", [TPU, GPU])
@pytest.mark.parametrize("case", CASES)
def test_compiled_step_has_no_batch_loop_and_few_messages(case, target, tmp_path):
    config, facts = small_step(case, num_devices=4)
    sizes = (f"--num_examples={facts.num_examples}", f"--num_classes={facts.num_classes}")
    shape = f"--image_shape={','.join(map(str, facts.image_shape))}"
    content, _ = planned(tmp_path, target, config_file(tmp_path, config), *sizes, shape)
    step = content["step"]
    assert [loop for loop in step["loops"] if loop["trips"] is None or is_over_batch(loop["trips"])] == []
    ((kind, times),) = [(one["kind"], one["times"]) for one in step["collectives"]]
    assert kind == "all-reduce"
    assert times <= max_all_reduces(plan_step(config, facts, mesh_lib.mesh(4)))
    assert step["layout_copy_seconds"] <= MAX_COPIES * step["computation_seconds"]
