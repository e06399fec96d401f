"""Tests of plans: targets, memory, operations, advice and errors; none needs the compiler of a chip."""

import dataclasses
import math
import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from commands import assert_error, quick_command

from anchor_jax.config import base
from anchor_jax.core.errors import UserError
from anchor_jax.data.augmentation import mixing_images
from anchor_jax.planning import advice, flops, memory, plan, report
from anchor_jax.planning.estimate import Estimate
from anchor_jax.planning.facts import DataFacts, data_facts
from anchor_jax.planning.step import plan_step
from anchor_jax.planning.targets import CHIPS, parse_target
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.runtime.topologies import is_installed
from anchor_jax.training.preparation import prepare

DIGITS = DataFacts(1_437, 10, (8, 8, 1))


def config_of(**changes):
    config = base()
    config.data.source, config.model.name, config.model.options.hidden = "digits", "mlp", (8, 8)
    config.training.batch_size = 64
    config.update_from_flattened_dict(changes)
    return config


@pytest.mark.parametrize(
    ("name", "num_devices", "topology"),
    [
        ("v5e:4x4", 16, "v5e:4x4"),
        ("V6E:1x1", 1, "v6e:1x1"),
        ("v5p:2x2x1", 4, "v5p:2x2x1"),
        ("h200:8", 8, "1x1x8"),
        ("a100:16", 16, "1x2x8"),
    ],
)
def test_parse_target_reads_slices_and_gpus(name, num_devices, topology):
    target = parse_target(name)
    assert (target.num_devices, target.topology) == (num_devices, topology)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("h20:8", "unknown chip 'h20'; allowed: .* Did you mean 'h200'"),
        ("", "unknown chip ''"),
        ("h200", "must name a number of GPUs, such as 'h200:8'"),
        ("h200:0", "must name a number of GPUs"),
        ("h200:2x2", "must name a number of GPUs"),
        ("h200:12", "at most 8 GPUs, or a multiple"),
        ("v5e:4", "must name a slice with 2 sides, such as 'v5e:4x4'"),
        ("v5e:0x4", "must name a slice with 2 sides"),
        ("v5p:2x2", "must name a slice with 3 sides, such as 'v5p:2x2x1'"),
    ],
)
def test_parse_target_explains_what_is_allowed(name, message):
    with pytest.raises(UserError, match=message):
        parse_target(name)


def test_chips_agree_with_their_data_sheets():
    """Cycles times FLOP per cycle give the FLOP/s of the data sheets."""
    peaks = {"v5e": 197e12, "v5p": 459e12, "v6e": 918e12, "a100": 312e12, "h100": 989e12, "h200": 989e12}
    assert {name: chip.peak("bfloat16") for name, chip in CHIPS.items()} == pytest.approx(peaks, rel=0.002)


@pytest.mark.parametrize(("name", "stated"), [("a100", False), ("h100", True), ("h200", True)])
def test_target_config_states_what_hopper_accelerates(name, stated):
    chip = CHIPS[name]
    (capability,) = re.findall(r"cuda_compute_capability \{ (.*?) \}", chip.gpu.target_config(chip.bandwidth))
    major, minor = chip.gpu.capability
    features = " feature_extension: ACCELERATED_FEATURES" if stated else ""
    assert capability == f"major: {major} minor: {minor}{features}"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, DIGITS),
        ({"data.validation_fraction": 0.1}, DIGITS._replace(num_examples=1_293)),
        ({"data.mode": "RGB"}, DIGITS._replace(image_shape=(8, 8, 3))),
        ({"data.classes": "classes.txt"}, DIGITS._replace(num_classes=3)),
        (
            {"data.source": "tfds", "data.name": "imagenet2012", "data.image_size": 224},
            DataFacts(1_281_167, 1_000, (224, 224, 3)),
        ),
    ],
)
def test_data_facts_follow_from_the_config(changes, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    assert data_facts(config_of(**changes).data) == expected


def test_data_facts_resize_images_of_any_shape():
    data = config_of(**{"data.source": "folder", "data.path": "/none", "data.image_size": 64}).data
    found = data_facts(data, num_examples=10, num_classes=2, image_shape=(375, 500, 3))
    assert found == DataFacts(10, 2, (64, 64, 3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.source": "folder", "data.path": "/none"}, "give --num_examples, --num_classes and --image_shape"),
        ({"data.source": "tfds", "data.name": "imagenet2012"}, "set config.data.image_size"),
        ({"data.train_split": "train[:90%]"}, "give --num_examples"),
        ({"data.source": "fodler"}, "unknown data source 'fodler'"),
        ({"data.image_size": 16}, "only those of tfds, folder are resized"),
    ],
)
def test_data_facts_explain_what_is_missing(changes, message):
    with pytest.raises(UserError, match=message):
        data_facts(config_of(**changes).data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.image_size": 0}, "config.data.image_size=0; a stream needs"),
        ({"data.image_size": 8}, "source 'digits' cannot be streamed"),
        ({"training.total_epochs": 0.0, "model.weights": "a.safetensors"}, "there is nothing to plan"),
    ],
)
def test_plan_is_of_a_run_that_can_be_trained(changes, message):
    config = config_of(**{"data.streaming": True, "data.mean": (0,), "data.std": (1,)} | changes)
    with pytest.raises(UserError, match=message):
        plan_step(config, DIGITS, mesh_lib.mesh(1))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"anchoring.references": "batch"},
        {"anchoring.bank_size": 100, "training.ema_decay": 0.9, "optimizer.name": "adamw"},
        {"augmentation.policy": "pixmix", "data.mode": "RGB"},
        {"anchoring.enabled": False, "training.sharding": "fsdp", "data.validation_fraction": 0.1},
    ],
)
def test_planned_shapes_are_those_of_training(changes, tmp_path, monkeypatch):
    monkeypatch.setattr(mixing_images, "NUM_FRACTALS", 2)
    config = config_of(**changes)
    trainer, mesh = prepare(config, tmp_path), mesh_lib.mesh()
    step = plan_step(config, data_facts(config.data), mesh)
    assert step.carry == trainer.carry_shapes()
    assert step.schedule == trainer.schedule
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), trainer.data)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), step.data) == shapes


NUM_PARAMETERS = (2 * 64 * 8 + 8) + (8 * 8 + 8) + (8 * 10 + 10)


@pytest.mark.parametrize(
    ("optimizer", "num_bytes"), [("sgd", 4 * NUM_PARAMETERS + 4), ("adamw", 8 * NUM_PARAMETERS + 8)]
)
def test_memory_counts_parameters_and_optimizer_to_the_byte(optimizer, num_bytes):
    config = config_of(**{"optimizer.name": optimizer, "training.ema_decay": 0.5})
    known = memory.known_memory(plan_step(config, DIGITS, mesh_lib.mesh(2)))
    assert known["parameters"] == known["average"] == 4 * NUM_PARAMETERS
    assert known["optimizer"] == num_bytes
    # images, which are the bank too, labels and order
    assert known["data"] == 1_437 * (64 + 64 + 4 + 4)


def test_memory_divides_what_is_sharded():
    config = config_of(**{"optimizer.name": "adamw", "training.sharding": "fsdp"})
    known = memory.known_memory(plan_step(config, DIGITS, mesh_lib.mesh(2)))
    first_layer = 2 * 64 * 8  # the only array that is large enough
    assert known["parameters"] == 4 * (NUM_PARAMETERS - first_layer // 2)
    assert known["optimizer"] == 8 * (NUM_PARAMETERS - first_layer // 2) + 8


@pytest.mark.parametrize("accumulation_steps", [1, 4])
def test_memory_sums_to_what_the_compiler_states(accumulation_steps):
    config = config_of(**{"training.accumulation_steps": accumulation_steps})
    step = plan_step(config, DIGITS, mesh_lib.mesh(2))
    analysis = step.trace().lower().compile().memory_analysis()
    found = memory.compiled_memory(step, analysis, available=10**9)
    bank = 1_437 * 64  # shares the memory of the images
    needed = analysis.argument_size_in_bytes + analysis.temp_size_in_bytes + analysis.generated_code_size_in_bytes
    results = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    assert found.total == needed + max(results, 0) - bank
    assert found.padding == 0  # on a CPU
    assert found.fits
    assert not found._replace(available=found.total - 1).fits


REFUSALS = {
    "Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G.": 20.5 * 2**30,
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (20.50G) exceeds "
    "available HBM (15.75G).": 20.5 * 2**30 + 2 * 4 * NUM_PARAMETERS + 4 + 1_437 * (64 + 64 + 4 + 4),
}


@pytest.mark.parametrize("message", REFUSALS)
def test_memory_of_a_refused_program_is_in_the_message(message):
    step = plan_step(config_of(), DIGITS, mesh_lib.mesh(1))
    found = memory.exceeding_memory(step, message, available=0)
    assert found is not None
    assert found.total == round(REFUSALS[message])
    assert found.available == round(15.75 * 2**30)
    assert memory.exceeding_memory(step, "INTERNAL: a bug", 0) is None


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(("stride", "has_gradient"), [(1, False), (2, False), (2, True)])
def test_flops_of_convolutions_are_those_of_xla(stride, has_gradient, groups):
    def function(x, kernel):
        options: Any = {"feature_group_count": groups, "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        return jnp.sum(jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", **options))

    function = jax.value_and_grad(function, (0, 1)) if has_gradient else function
    args = jax.ShapeDtypeStruct((2, 7, 7, 3), jnp.float32), jax.ShapeDtypeStruct((3, 3, 3 // groups, 6), jnp.float32)
    traced = jax.jit(function).trace(*args)
    counted = flops.count_flops(traced.jaxpr, "cpu")
    others = 1_000  # additions
    assert counted <= traced.lower().cost_analysis()["flops"] <= counted + others


def test_flops_count_loops_and_the_branch_of_the_platform():
    a = jax.ShapeDtypeStruct((4, 4), jnp.float32)

    def looped(a):
        return jax.lax.scan(lambda carry, _: (carry @ a, None), a, None, length=3)[0]

    def branched(a):
        return jax.lax.platform_dependent(a, cpu=lambda a: a @ a @ a, default=lambda a: a @ a)

    assert flops.count_flops(jax.make_jaxpr(looped)(a), "tpu") == 3 * 2 * 4**3
    assert flops.count_flops(jax.make_jaxpr(branched)(a), "tpu") == 2 * 4**3
    assert flops.count_flops(jax.make_jaxpr(branched)(a), "cpu") == 2 * 2 * 4**3


def planned(config, target="h200:2", temporaries=0, available=1000):
    """Return a plan with some parameters, optimizer state and temporaries, as a compiler would state them."""
    needs = memory.Memory(100, 200, 0, 50, 10, 0, temporaries, available)
    return plan.Plan(config, parse_target(target), plan.TrainingSchedule(10, 100), needs, 10**9, None, 0.0)


def stub_compiler(config, *, per_example):
    """Return the plan of a network whose temporaries are proportional to the examples at once."""
    examples = config.training.batch_size // 2 // config.training.accumulation_steps
    kept = per_example * examples / (3 if config.model.remat else 1)
    made = planned(config, temporaries=math.ceil(kept))
    if config.training.sharding == "fsdp":
        made = dataclasses.replace(made, memory=made.memory._replace(parameters=50, optimizer=100))
    return made


@pytest.mark.parametrize(
    ("per_example", "changes"),
    [
        (40, {"training.accumulation_steps": 2}),
        (200, {"training.accumulation_steps": 16}),
        (640, {"training.accumulation_steps": 32}),
        (1500, {"training.accumulation_steps": 32, "model.remat": True}),
    ],
)
def test_advice_finds_the_first_change_that_fits(per_example, changes):
    compiler = partial(stub_compiler, per_example=per_example)
    first = compiler(config_of())
    assert not first.memory.fits
    trials = advice.find_fitting(first, compiler)
    assert dict(trials[-1].changes) == changes
    assert trials[-1].plan.memory.fits
    lines = report.advice_lines(first, trials)
    assert any("work on parts of a batch" in line for line in lines)
    assert any(f"{advice.described(changes)}: fits" in line for line in lines)


def test_advice_ends_where_nothing_fits():
    def compiler(config):
        return planned(config, temporaries=2000)

    first = compiler(config_of())
    trials = advice.find_fitting(first, compiler)
    assert len(trials) == advice.MAX_TRIALS
    assert "use a smaller batch or model, or more chips" in report.advice_lines(first, trials)[-1]
    assert len(report.advice_lines(first, None)) == 1  # none was to be tried


def test_advice_says_what_a_smaller_batch_changes_and_what_failed():
    def compiler(config):
        if config.training.batch_size == 64:
            raise UserError("no parts")
        return planned(config, temporaries=config.training.batch_size)

    said = []
    first = planned(config_of(**{"optimizer.learning_rate": 0.3}), temporaries=700)
    trials = advice.find_fitting(first, compiler, said.append)
    assert trials[-1].changes["training.batch_size"] == 32
    assert "training.accumulation_steps" not in trials[-1].changes
    assert said[1] == "not possible: no parts"
    assert "  a smaller batch needs another learning rate than 0.3" in report.advice_lines(first, trials)


def test_advice_names_the_fraction_of_a_gpus_memory():
    first = planned(config_of(), temporaries=740)  # 1,100 of 1,333 bytes
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION=0.85" in report.advice_lines(first, [])[-1]
    assert "XLA_PYTHON" not in report.advice_lines(planned(config_of(), "v5e:1x2", 740), [])[-1]


def test_plan_multiplies_steps_into_hours():
    estimated = Estimate(0.5, None, 1, 1, 0, 0.0, 0.0, [], [], [])
    made = dataclasses.replace(planned(config_of()), estimate=estimated, flops=int(1e14))
    assert made.images_per_second == 128
    assert made.run_hours == pytest.approx(50 / 3600)
    assert made.chip_hours == pytest.approx(100 / 3600)
    assert made.fraction_of_peak == pytest.approx(2e14 / 494.7e12)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--target", "v5x:4x4"], 1, "unknown chip 'v5x'"),
        ([], 2, "--target must have a value, such as v5e:4x4 or h200:8"),
        (["--target", "h200:3"], 1, "config.training.batch_size must be divisible by the 3 devices; got 64, try 63"),
    ],
)
def test_plan_command_explains_in_one_line(arguments, status, message):
    assert_error(quick_command("-m", "anchor_jax.plan", "--config", "digits", *arguments), status, message)


@pytest.mark.parametrize(
    ("target", "platform", "extra"), [("v5e:1x1", "tpu", "plan-tpu"), ("h200:1", "cuda", "plan-gpu")]
)
def test_plan_command_says_what_to_install(target, platform, extra):
    if is_installed(platform):
        pytest.skip("the compiler is installed")
    done = quick_command("-m", "anchor_jax.plan", "--config", "digits", "--target", target)
    assert_error(done, 1, f"is installed; pip install 'anchor-jax[{extra}]'")
