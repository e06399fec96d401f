"""Options of the training step: accumulation, moving average, clipping, sharding, references and masks."""

import itertools
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import StopAfterSave, assert_same_bits, stop_after_saves
from train_steps import CLASSES, NORMALIZATION, lower_step, run_steps

from anchor_jax import UserError, load_predictor
from anchor_jax.data import Batch, normalize
from anchor_jax.runs import state
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.training import sharding
from anchor_jax.training.draws import draw_step, step_keys
from anchor_jax.training.loop import prepare, train
from anchor_jax.training.model_batch import TrainData, make_model_batch


def assert_close(one, other, **tolerances):
    jax.tree.map(partial(np.testing.assert_allclose, **({"rtol": 2e-4, "atol": 2e-6} | tolerances)), one, other)


@pytest.fixture
def small(tiny):
    """A config of plain gradient descent on an MLP that is large enough to be sharded."""
    tiny.model.options.hidden = (64, 64)
    tiny.optimizer.momentum, tiny.optimizer.weight_decay = 0.0, 0.0
    return tiny


def lowered(config, num_devices):
    """The program of one step, as StableHLO."""
    return lower_step(config, num_devices).as_text()


# gradient accumulation


@pytest.mark.parametrize("on_device", [False, True])
def test_accumulated_gradients_make_the_same_step(small, monkeypatch, on_device):
    if on_device:  # the form of a program for accelerators
        monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, default, **_: default(*args))
    small.anchoring.mask_per = "example"
    complete, totals, _ = run_steps(small, 2)
    small.training.accumulation_steps = 4
    for num_devices in (1, 2):
        accumulated, totals_accumulated, _ = run_steps(small, 2, num_devices)
        assert_close(accumulated[-1], complete[-1])
        assert_close(totals_accumulated, totals, rtol=1e-5)


def test_accumulation_updates_statistics_once_per_part(small):
    small.model.name, small.model.options = "resnet18", {"stage_sizes": (1,), "width": 4}
    (before, complete), _, _ = run_steps(small, 1)
    small.training.accumulation_steps = 2
    (_, accumulated), _, _ = run_steps(small, 1)
    assert_close(accumulated.params, complete.params, atol=0.05, rtol=0.1)
    old, one, two = (each.batch_stats["stem_bn"]["mean"] for each in (before, complete, accumulated))
    # equal parts have the mean of the complete batch, but two updates with momentum 0.9 move further than one
    np.testing.assert_array_equal(old, 0)
    assert (np.abs(two) > 1.5 * np.abs(one)).all()


# moving average


@pytest.mark.parametrize("every", [1, 2])
def test_moving_average_follows_parameters_and_statistics(small, every):
    small.model.name, small.model.options = "resnet18", {"stage_sizes": (1,), "width": 4}
    small.training.ema_decay, small.training.ema_every_steps = 0.8, every
    states, _, _ = run_steps(small, 4)
    expected = state.variables(states[0])
    assert_same_bits(states[0].average, expected)
    for done, after in enumerate(states[1:], start=1):
        if done % every == 0:
            expected = jax.tree.map(lambda old, new: 0.8 * old + 0.2 * new, expected, state.variables(after))
        assert_close(after.average, expected)
    assert (states[-1].params["head"]["kernel"] != states[-1].average["params"]["head"]["kernel"]).any()


def test_moving_average_is_evaluated_saved_and_restored(tiny, tmp_path):
    tiny.training.ema_decay = 0.7
    last = train(tiny, tmp_path / "run")
    predictor = load_predictor(tmp_path / "run")
    assert_same_bits(predictor.variables, last.average)
    assert_same_bits(train(tiny, tmp_path / "run"), last)
    evaluate = prepare(tiny, tmp_path / "run").evaluator.run
    without_average = last._replace(average={})
    assert evaluate(last) != evaluate(without_average)
    assert evaluate(last) == evaluate(without_average._replace(**last.average))


# clipping


def test_clipping_matches_pytorch(small):
    torch = pytest.importorskip("torch")
    (before, free), totals, _ = run_steps(small, 1)
    gradient = jax.tree.map(lambda old, new: (old - new) / 0.05, before.params, free.params)
    assert totals.steps == 1
    np.testing.assert_allclose(totals.gradient_norm, optax.tree.norm(gradient), rtol=1e-4)
    small.optimizer.clip_norm = 0.5 * float(totals.gradient_norm)
    (_, clipped), totals_clipped, _ = run_steps(small, 1)
    theirs = [torch.nn.Parameter(torch.zeros(leaf.shape)) for leaf in jax.tree.leaves(gradient)]
    for parameter, leaf in zip(theirs, jax.tree.leaves(gradient), strict=True):
        parameter.grad = torch.tensor(np.asarray(leaf))
    torch.nn.utils.clip_grad_norm_(theirs, small.optimizer.clip_norm)
    ours = jax.tree.map(lambda old, new: (old - new) / 0.05, before.params, clipped.params)
    for parameter, leaf in zip(theirs, jax.tree.leaves(ours), strict=True):
        np.testing.assert_allclose(leaf, parameter.grad.numpy(), rtol=2e-3, atol=2e-6)
    assert totals_clipped.gradient_norm == totals.gradient_norm  # logged before clipping
    small.optimizer.clip_norm = 2 * float(totals.gradient_norm)
    (_, unchanged), _, _ = run_steps(small, 1)
    assert_same_bits(unchanged, free)


# sharding


@pytest.mark.min_versions
@pytest.mark.parametrize("num_devices", [2, 8])
def test_sharded_state_makes_the_steps_of_a_replicated_one(small, num_devices):
    small.optimizer.name, small.optimizer.learning_rate, small.optimizer.clip_norm = "adamw", 1e-2, 0.7
    small.training.ema_decay, small.training.accumulation_steps = 0.9, 2
    expected, expected_totals, _ = run_steps(small, 3)
    small.training.sharding = "fsdp"
    states, totals, on_devices = run_steps(small, 3, num_devices)
    assert_close(states[-1], expected[-1], atol=2e-5)
    assert_close(totals, expected_totals, rtol=1e-4)
    shared = (on_devices.params, on_devices.average["params"], on_devices.opt_state)
    sizes = {leaf.size: leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(shared)}
    assert sizes == {
        72 * 64: 72 * 64 // num_devices,
        64 * 64: 64 * 64 // num_devices,
        64: 64,
        64 * 3: 64 * 3,
        3: 3,
        1: 1,
    }


def test_partition_specs_shard_the_longest_divisible_axis():
    shapes = {"a": (3, 3, 64, 128), "b": (512, 90), "c": (30, 50), "d": (64,), "e": (4096,), "f": ()}
    params = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    first = state.TrainState(params["f"], params, {"mean": params["e"]}, (), {}, state.NonFiniteCounter.zero())
    specs = sharding.state_partition_specs(first, 8, "fsdp")
    assert {name: tuple(spec) for name, spec in specs.params.items()} == {
        "a": (None, None, None, "data"),
        "b": ("data",),
        "c": (),
        "d": (),
        "e": ("data",),
        "f": (),
    }
    assert tuple(specs.batch_stats["mean"]) == ()
    assert sharding.state_partition_specs(first, 8, "replicated") is None


def test_fsdp_gathers_in_both_passes_and_scatters_gradients(small):
    small.training.sharding = "fsdp"
    program = lowered(small, num_devices=8)
    assert (
        len(re.findall("stablehlo.all_gather", program)) == 3
    )  # two kernels, and the second again in the backward pass
    assert len(re.findall("stablehlo.reduce_scatter", program)) == 2


def test_run_resumes_with_another_sharding(tiny, tmp_path, monkeypatch):
    tiny.model.options.hidden = (64, 64)
    uninterrupted = train(tiny, tmp_path / "uninterrupted")
    with monkeypatch.context() as patch:
        stop_after_saves(patch, 1)
        with pytest.raises(StopAfterSave):
            train(tiny, tmp_path / "run")
    tiny.training.sharding = "fsdp"
    resumed = train(tiny, tmp_path / "run")
    assert resumed.params["Dense_1"]["kernel"].addressable_shards[0].data.size == 64 * 64 // 8
    assert_close(jax.device_get(resumed), jax.device_get(uninterrupted), atol=2e-5)
    assert_close(jax.device_get(load_predictor(tmp_path / "run").variables["params"]), jax.device_get(resumed.params))


# references


@pytest.mark.parametrize("group_size", [0, 4])
def test_batch_references_are_the_same_on_all_device_counts(small, group_size):
    small.anchoring.references, small.anchoring.group_size = "batch", group_size
    expected, _, _ = run_steps(small, 1)
    for num_devices in (2, 8):  # with two images on a device, a group of four lies on two of them
        assert_close(run_steps(small, 1, num_devices)[0], expected)


def test_group_masks_are_the_same_on_all_device_counts(small):
    small.anchoring.update({"mask_prob": 0.5, "mask_per": "group", "references": "batch", "group_size": 8})
    expected, totals, _ = run_steps(small, 2)
    assert totals.masked_examples % 8 == 0 < totals.masked_examples < totals.examples
    for num_devices in (2, 4):  # with four images on a device, a group of eight lies on two of them
        states, others, _ = run_steps(small, 2, num_devices)
        assert_close(states, expected)
        assert others.masked_examples == totals.masked_examples


def test_groups_on_one_device_need_no_communication(small):
    small.anchoring.references, small.anchoring.group_size = "batch", 8
    assert "all_gather" not in lowered(small, num_devices=2)
    assert "all_gather" in lowered(small, num_devices=8)


def test_batch_permutations_are_the_same_on_all_device_counts(small):
    small.anchoring.references, small.anchoring.replace = "batch", False
    assert_close(run_steps(small, 2, num_devices=8)[0], run_steps(small, 2)[0])


def test_bank_smaller_than_a_batch_needs_replacement(small, tmp_path):
    small.anchoring.replace = False
    small.anchoring.bank_size = 15
    with pytest.raises(UserError, match=r"needs at least as many references as images in a batch, 16; .* has 15"):
        prepare(small, tmp_path / "run")


# BatchNorm statistics of masked batches


def test_masked_batches_update_statistics_only_if_configured(small):
    small.model.name, small.model.options = "resnet18", {"stage_sizes": (1,), "width": 4}
    small.anchoring.mask_prob = 0.5
    kept, totals, _ = run_steps(small, 6)
    small.anchoring.update_bn_when_masked = True
    updated, _, _ = run_steps(small, 6)
    assert 0 < totals.masked_examples < totals.examples
    changed = [
        (after.batch_stats["stem_bn"]["mean"] != before.batch_stats["stem_bn"]["mean"]).any()
        for before, after in itertools.pairwise(kept)
    ]
    assert sum(changed) * 16 == totals.examples - totals.masked_examples
    assert_same_bits(kept[-1].params, updated[-1].params)  # training normalizes by the batch
    assert (kept[-1].batch_stats["stem_bn"]["mean"] != updated[-1].batch_stats["stem_bn"]["mean"]).any()


def test_statistics_are_updated_if_all_batches_are_masked(small):
    small.model.name, small.model.options = "resnet18", {"stage_sizes": (1,), "width": 4}
    small.anchoring.mask_prob = 1.0
    states, _, _ = run_steps(small, 1)
    assert (states[1].batch_stats["stem_bn"]["mean"] != states[0].batch_stats["stem_bn"]["mean"]).any()


@pytest.mark.parametrize("mask_per", ["group", "example"])
def test_masks_below_batches_do_not_affect_statistics(small, mask_per):
    small.model.name, small.model.options = "resnet18", {"stage_sizes": (1,), "width": 4}
    small.anchoring.update({"mask_prob": 0.5, "mask_per": mask_per, "references": "batch", "group_size": 4})
    default, _, _ = run_steps(small, 3)
    small.anchoring.update_bn_when_masked = True
    assert_same_bits(run_steps(small, 3)[0], default)


# overlays on the images of a standard network


@pytest.mark.parametrize("weight", [-1.0, 0.5])
def test_overlay_adds_the_reference_to_masked_examples(small, weight):
    anchoring = small.anchoring
    anchoring.mask_per = "example"
    small.augmentation.crop_padding, small.augmentation.flip = 0, False
    images = np.random.default_rng(0).integers(0, 256, (16, 6, 6, 1), np.uint8)
    batch = Batch(images, np.arange(16, dtype=np.int32) % CLASSES)

    @partial(mesh_lib.pmapped, mesh=mesh_lib.mesh(1), in_specs=(), out_specs=mesh_lib.REPLICATED)
    def model_batches():
        draws = draw_step(step_keys(jax.random.key(0)), 0, 16, 16, anchoring)
        make = partial(make_model_batch, draws, TrainData(bank_images=jnp.asarray(images)), batch)
        anchored = make(small, NORMALIZATION, CLASSES)
        control = small.copy_and_resolve_references()
        control.anchoring.enabled, control.anchoring.overlay_weight = False, weight
        rows = draws.per_example.reference_rows
        return anchored, make(control, NORMALIZATION, CLASSES), normalize(jnp.asarray(images)[rows], NORMALIZATION)

    anchored, control, references = model_batches()
    assert control.mask is None
    np.testing.assert_array_equal(control.targets, batch.labels)
    x, mask = normalize(images, NORMALIZATION), anchored.mask[:, None, None, None]
    assert 0 < mask.sum() < 16
    np.testing.assert_allclose(control.inputs, np.where(mask, x + weight * references, x), rtol=1e-5, atol=1e-6)
    if weight == -1:  # what the anchored network sees besides the masked reference
        np.testing.assert_allclose(control.inputs[mask.ravel()], anchored.inputs[mask.ravel()][..., 1:], rtol=1e-5)


# crops of a stream


@pytest.mark.parametrize(("area", "is_unchanged"), [((0.3, 1.0), True), ((), False)])
def test_resized_crop_of_a_stream_overrides_padding(small, area, is_unchanged):
    small.data.streaming, small.anchoring.enabled = True, False
    small.augmentation.crop_padding, small.augmentation.resized_crop, small.augmentation.flip = 2, area, False
    images = np.random.default_rng(0).integers(1, 256, (16, 6, 6, 1), np.uint8)
    batch = Batch(images, np.zeros(16, np.int32))

    @partial(mesh_lib.pmapped, mesh=mesh_lib.mesh(1), in_specs=(), out_specs=mesh_lib.REPLICATED)
    def model_inputs():
        draws = draw_step(step_keys(jax.random.key(0)), 0, 16, 16, small.anchoring)
        return make_model_batch(draws, TrainData(), batch, small, NORMALIZATION, CLASSES).inputs

    assert np.allclose(model_inputs(), normalize(images, NORMALIZATION), atol=1e-6) == is_unchanged


# dropout


def test_dropout_is_the_same_on_all_device_counts(small):
    small.model.name, small.model.options = "resnet18", {"stage_sizes": (1,), "width": 4, "dropout_rate": 0.5}
    expected, _, _ = run_steps(small, 2)
    assert_close(run_steps(small, 2, num_devices=8)[0], expected, atol=1e-5)
    small.model.options = {"stage_sizes": (1,), "width": 4}
    without, _, _ = run_steps(small, 2)
    assert (without[-1].params["head"]["kernel"] != expected[-1].params["head"]["kernel"]).any()


# interpolation


def test_crops_in_memory_take_the_interpolation_of_the_config(small):
    small.augmentation.resized_crop = (0.1, 1.0)
    programs = {}
    for interpolation in ("auto", "bilinear", "bicubic"):
        small.data.interpolation = interpolation
        programs[interpolation] = lowered(small, num_devices=1)
    assert programs["auto"] == programs["bilinear"] != programs["bicubic"]


# mixup and CutMix


def test_masked_mixed_images_have_the_uniform_target(small):
    small.augmentation.mixup_alpha = small.augmentation.cutmix_alpha = 1.0
    small.anchoring.references, small.anchoring.mask_prob = "batch", 1.0
    small.anchoring.masked_target = "uniform"
    states, totals, _ = run_steps(small, 1)
    assert totals.masked_examples == totals.examples == 16
    assert_same_bits(run_steps(small, 1, shift=1)[0], states)  # labels do not matter
    assert_close(run_steps(small, 1, num_devices=8)[0], states)


# standard training


def test_standard_step_does_no_anchoring_work(small):
    """Its program does not depend on the anchoring options, although they change that of an anchored step."""
    options = {"mask_prob": 1.0, "mask_per": "example", "update_bn_when_masked": True, "references": "batch"}
    small.anchoring.update(options | {"enabled": False})
    program = lowered(small, num_devices=2)
    small.anchoring.update({"mask_prob": 0.5, "mask_per": "batch", "update_bn_when_masked": False})
    assert lowered(small, num_devices=2) == program
    small.anchoring.enabled = True
    assert len(lowered(small, num_devices=2)) > len(program)


def test_step_without_masking_computes_no_masked_metrics(small):
    entropy = re.compile("stablehlo.log ")
    small.anchoring.mask_prob = 0.0
    unmasked = len(entropy.findall(lowered(small, num_devices=1)))
    small.anchoring.mask_prob = 0.5
    assert len(entropy.findall(lowered(small, num_devices=1))) > unmasked
