"""What a step of training may do beside the plain one: in parts, averaged, clipped, divided among devices."""

import itertools
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import StopAfterSave, assert_same_bits, stop_after_saves

from anchor_jax import UserError, load_predictor, models
from anchor_jax.data import Normalization
from anchor_jax.runs import state
from anchor_jax.runs.state import Totals
from anchor_jax.runtime import backends
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.training import optimizer, sharding
from anchor_jax.training.loop import prepare, train
from anchor_jax.training.step import TrainData, draw_step, from_memory, make_train_step, step_keys

CLASSES = 3
NORMALIZATION = Normalization((0.5,), (0.25,))


def assert_close(one, other, **tolerances):
    jax.tree.map(partial(np.testing.assert_allclose, **({"rtol": 2e-4, "atol": 2e-6} | tolerances)), one, other)


@pytest.fixture
def small(tiny):
    """Steps of plain gradient descent on an MLP large enough to be divided."""
    tiny.model.options.hidden = (64, 64)
    tiny.optimizer.momentum, tiny.optimizer.weight_decay = 0.0, 0.0
    return tiny


def stepped(config, num_steps, num_devices=1, shift=0):
    """States after each of some steps on random images, their labels shifted, and the totals of all steps."""
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (48, 6, 6, 1), np.uint8), rng.integers(0, CLASSES, 48, np.int32)
    labels = (labels + shift) % CLASSES
    model = models.create(config.model.name, CLASSES, axis_name=mesh_lib.AXIS, **config.model.options)
    transformation = optimizer.create(config.optimizer, optimizer.create_schedule(config.optimizer, 3, 100))
    variables = state.init_variables(model, jax.random.key(0), (1, 6, 6, 2))
    first = state.initial_state(variables, transformation, averages=config.training.ema_decay > 0)
    mesh = mesh_lib.mesh(num_devices)
    specs = sharding.state_partition_specs(first, num_devices, config.training.sharding)
    step = from_memory(make_train_step(model, transformation, config, NORMALIZATION, specs), config.training.batch_size)
    run_steps = mesh_lib.run_n_steps(step, mesh, (specs or mesh_lib.REPLICATED, mesh_lib.REPLICATED))
    carry = mesh_lib.place_state(first, specs, mesh), mesh_lib.replicate(Totals.zeros(), mesh)
    data = mesh_lib.replicate(TrainData(images, labels, np.arange(48, dtype=np.int32)), mesh)
    states = [jax.device_get(carry[0])]
    for _ in range(num_steps):
        carry = run_steps(carry, 1, data, np.arange(48, dtype=np.int32))
        states.append(jax.device_get(carry[0]))
    return states, jax.device_get(carry[1]), carry[0]


# in parts


@pytest.mark.parametrize("on_device", [False, True])
def test_a_batch_in_parts_makes_the_step_that_it_makes_at_once(small, monkeypatch, on_device):
    monkeypatch.setattr(backends, "has_fast_device_loops", lambda platform: on_device)
    small.anchoring.mask_per = "example"
    at_once, totals, _ = stepped(small, 2)
    small.training.accumulation_steps = 4
    for num_devices in (1, 2):
        in_parts, totals_in_parts, _ = stepped(small, 2, num_devices)
        assert_close(in_parts[-1], at_once[-1])
        assert_close(totals_in_parts, totals, rtol=1e-5)


def test_statistics_see_one_part_after_the_other(small):
    small.model.name, small.model.options = "resnet18", {"stage_sizes": (1,), "width": 4}
    (before, at_once), _, _ = stepped(small, 1)
    small.training.accumulation_steps = 2
    (_, in_parts), _, _ = stepped(small, 1)
    assert_close(in_parts.params, at_once.params, atol=0.05, rtol=0.1)
    old, one, two = (of.batch_stats["stem_bn"]["mean"] for of in (before, at_once, in_parts))
    # of equal parts the mean is that of all, but two steps of 0.1 forget more than one
    np.testing.assert_array_equal(old, 0)
    assert (np.abs(two) > 1.5 * np.abs(one)).all()


def test_a_batch_that_does_not_come_in_parts_is_refused(tiny, tmp_path):
    tiny.training.accumulation_steps = 3
    with pytest.raises(UserError, match="by the 8 devices times 3 accumulation_steps; got 16, try 24"):
        prepare(tiny, tmp_path / "run")


# the average


@pytest.mark.parametrize("every", [1, 2])
def test_the_average_is_that_of_parameters_and_statistics_over_the_steps(small, every):
    small.model.name, small.model.options = "resnet18", {"stage_sizes": (1,), "width": 4}
    small.training.ema_decay, small.training.ema_every_steps = 0.8, every
    states, _, _ = stepped(small, 4)
    expected = state.variables(states[0])
    assert_same_bits(states[0].average, expected)
    for done, after in enumerate(states[1:], start=1):
        if done % every == 0:
            expected = jax.tree.map(lambda old, new: 0.8 * old + 0.2 * new, expected, state.variables(after))
        assert_close(after.average, expected)
    assert (states[-1].params["head"]["kernel"] != states[-1].average["params"]["head"]["kernel"]).any()


def test_the_average_is_what_is_evaluated_saved_and_gone_on_with(tiny, tmp_path):
    tiny.training.ema_decay = 0.7
    ended = train(tiny, tmp_path / "run")
    predictor = load_predictor(tmp_path / "run")
    assert_same_bits(predictor.variables, ended.average)
    assert_same_bits(train(tiny, tmp_path / "run"), ended)
    training = prepare(tiny, tmp_path / "run")
    plain = ended._replace(average={})
    assert training.evaluate(ended) != training.evaluate(plain)
    assert training.evaluate(ended) == training.evaluate(plain._replace(**ended.average))


# norms


def test_gradients_are_clipped_as_those_of_pytorch(small):
    torch = pytest.importorskip("torch")
    (before, free), totals, _ = stepped(small, 1)
    gradient = jax.tree.map(lambda old, new: (old - new) / 0.05, before.params, free.params)
    assert totals.steps == 1
    np.testing.assert_allclose(totals.gradient_norm, optax.tree.norm(gradient), rtol=1e-4)
    small.optimizer.clip_norm = 0.5 * float(totals.gradient_norm)
    (_, clipped), totals_clipped, _ = stepped(small, 1)
    theirs = [torch.nn.Parameter(torch.zeros(leaf.shape)) for leaf in jax.tree.leaves(gradient)]
    for parameter, leaf in zip(theirs, jax.tree.leaves(gradient), strict=True):
        parameter.grad = torch.tensor(np.asarray(leaf))
    torch.nn.utils.clip_grad_norm_(theirs, small.optimizer.clip_norm)
    ours = jax.tree.map(lambda old, new: (old - new) / 0.05, before.params, clipped.params)
    for parameter, leaf in zip(theirs, jax.tree.leaves(ours), strict=True):
        np.testing.assert_allclose(leaf, parameter.grad.numpy(), rtol=2e-3, atol=2e-6)
    assert totals_clipped.gradient_norm == totals.gradient_norm  # told as it was
    small.optimizer.clip_norm = 2 * float(totals.gradient_norm)
    (_, unchanged), _, _ = stepped(small, 1)
    assert_same_bits(unchanged, free)


# divided among the devices


@pytest.mark.parametrize("num_devices", [2, 8])
def test_a_divided_state_makes_the_steps_of_a_replicated_one(small, num_devices):
    small.optimizer.name, small.optimizer.learning_rate, small.optimizer.clip_norm = "adamw", 1e-2, 0.7
    small.training.ema_decay, small.training.accumulation_steps = 0.9, 2
    expected, expected_totals, _ = stepped(small, 3)
    small.training.sharding = "fsdp"
    states, totals, on_devices = stepped(small, 3, num_devices)
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


def test_arrays_are_divided_along_their_longest_axis_that_can_be():
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


def lowered(config, num_devices):
    """The program of one step."""
    model = models.create("mlp", CLASSES, axis_name=mesh_lib.AXIS, **config.model.options)
    transformation = optax.sgd(0.1)
    first = jax.eval_shape(lambda: state.create_state(model, transformation, jax.random.key(0), (1, 6, 6, 2)))
    specs = sharding.state_partition_specs(first, num_devices, config.training.sharding)
    step = from_memory(make_train_step(model, transformation, config, NORMALIZATION, specs), 16)
    carry_specs = (specs or mesh_lib.REPLICATED, mesh_lib.REPLICATED)
    in_specs = (carry_specs, mesh_lib.REPLICATED, mesh_lib.REPLICATED)
    mapped = mesh_lib.pmapped(step, mesh_lib.mesh(num_devices), in_specs=in_specs, out_specs=carry_specs)
    data = TrainData(np.zeros((48, 6, 6, 1), np.uint8), np.zeros(48, np.int32), np.arange(48, dtype=np.int32))
    return mapped.lower((first, Totals.zeros()), data, np.arange(48, dtype=np.int32)).as_text()


def test_divided_parameters_are_gathered_for_both_passes_and_their_gradients_divided(small):
    small.training.sharding = "fsdp"
    program = lowered(small, num_devices=8)
    assert len(re.findall("stablehlo.all_gather", program)) == 3  # two kernels; the input has no gradient
    assert len(re.findall("stablehlo.reduce_scatter", program)) == 2


def test_a_run_may_go_on_divided_otherwise(tiny, tmp_path, monkeypatch):
    tiny.model.options.hidden = (64, 64)
    straight = train(tiny, tmp_path / "straight")
    with monkeypatch.context() as patch:
        stop_after_saves(patch, 1)
        with pytest.raises(StopAfterSave):
            train(tiny, tmp_path / "run")
    tiny.training.sharding = "fsdp"
    ended = train(tiny, tmp_path / "run")
    assert ended.params["Dense_1"]["kernel"].addressable_shards[0].data.size == 64 * 64 // 8
    assert_close(jax.device_get(ended), jax.device_get(straight), atol=2e-5)
    assert_close(jax.device_get(load_predictor(tmp_path / "run").variables["params"]), jax.device_get(ended.params))


# references out of the batch


@pytest.mark.parametrize("group_size", [0, 4])
def test_references_out_of_groups_are_the_same_on_any_number_of_devices(small, group_size):
    small.anchoring.references, small.anchoring.group_size = "batch", group_size
    expected, _, _ = stepped(small, 1)
    for num_devices in (2, 8):  # with two images on a device, a group of four lies on two of them
        assert_close(stepped(small, 1, num_devices)[0], expected)


def test_a_reference_is_of_the_same_group(small):
    small.anchoring.references, small.anchoring.group_size = "batch", 4
    draws = [draw_step(step_keys(jax.random.key(seed)), 16, 5, small.anchoring).references for seed in range(8)]
    assert all((rows // 4 == np.arange(16) // 4).all() for rows in draws)
    assert {int(row) for rows in draws for row in rows} == set(range(16))


def test_groups_that_lie_on_one_device_send_no_images(small):
    small.anchoring.references, small.anchoring.group_size = "batch", 8
    assert "all_gather" not in lowered(small, num_devices=2)
    assert "all_gather" in lowered(small, num_devices=8)


def test_without_replacement_a_group_is_permuted(small):
    small.anchoring.references, small.anchoring.group_size, small.anchoring.replace = "batch", 4, False
    draws = [draw_step(step_keys(jax.random.key(seed)), 16, 5, small.anchoring).references for seed in range(8)]
    groups = np.array(draws).reshape(8, 4, 4)
    np.testing.assert_array_equal(np.sort(groups), np.broadcast_to(np.arange(16).reshape(4, 4), groups.shape))
    assert len({tuple(group - 4 * place) for draw in groups for place, group in enumerate(draw)}) > 10
    small.anchoring.group_size = 0
    assert_close(stepped(small, 2, num_devices=8)[0], stepped(small, 2)[0])


def test_without_replacement_no_row_of_the_bank_comes_twice(small, tmp_path):
    small.anchoring.replace = False
    draws = [draw_step(step_keys(jax.random.key(seed)), 16, 20, small.anchoring).references for seed in range(8)]
    assert {len(set(draw.tolist())) for draw in draws} == {16}
    assert {int(row) for draw in draws for row in draw} == set(range(20))
    small.anchoring.bank_size = 15
    with pytest.raises(UserError, match=r"replace=False needs as many references as a batch has images, 16; .* has 15"):
        prepare(small, tmp_path / "run")


# statistics of masked batches


def test_a_masked_batch_leaves_the_statistics_alone_unless_that_is_asked(small):
    small.model.name, small.model.options = "resnet18", {"stage_sizes": (1,), "width": 4}
    small.anchoring.mask_prob = 0.5
    left_alone, totals, _ = stepped(small, 6)
    small.anchoring.update_bn_when_masked = True
    counted, _, _ = stepped(small, 6)
    assert 0 < totals.masked_examples < totals.examples
    changed = [
        (after.batch_stats["stem_bn"]["mean"] != before.batch_stats["stem_bn"]["mean"]).any()
        for before, after in itertools.pairwise(left_alone)
    ]
    assert sum(changed) * 16 == totals.examples - totals.masked_examples
    assert_same_bits(left_alone[-1].params, counted[-1].params)  # training normalises by the batch
    assert (left_alone[-1].batch_stats["stem_bn"]["mean"] != counted[-1].batch_stats["stem_bn"]["mean"]).any()


def test_where_all_batches_are_masked_they_count(small):
    small.model.name, small.model.options = "resnet18", {"stage_sizes": (1,), "width": 4}
    small.anchoring.mask_prob = 1.0
    states, _, _ = stepped(small, 1)
    assert (states[1].batch_stats["stem_bn"]["mean"] != states[0].batch_stats["stem_bn"]["mean"]).any()


def test_statistics_are_of_all_examples_where_each_has_its_own_mask(small):
    small.model.name, small.model.options = "resnet18", {"stage_sizes": (1,), "width": 4}
    small.anchoring.mask_prob, small.anchoring.mask_per = 0.5, "example"
    default, _, _ = stepped(small, 3)
    small.anchoring.update_bn_when_masked = True
    assert_same_bits(stepped(small, 3)[0], default)


# dropout


def test_channels_are_left_out_the_same_way_on_any_number_of_devices(small):
    small.model.name, small.model.options = "resnet18", {"stage_sizes": (1,), "width": 4, "dropout_rate": 0.5}
    expected, _, _ = stepped(small, 2)
    assert_close(stepped(small, 2, num_devices=8)[0], expected, atol=1e-5)
    small.model.options = {"stage_sizes": (1,), "width": 4}
    without, _, _ = stepped(small, 2)
    assert (without[-1].params["head"]["kernel"] != expected[-1].params["head"]["kernel"]).any()


# mixed images


def test_mixed_images_have_mixed_targets_and_masked_ones_the_uniform_target(small):
    """Whatever the mixing did, a masked example is asked for the uniform distribution."""
    small.augmentation.mixup_alpha = small.augmentation.cutmix_alpha = 1.0
    small.anchoring.references, small.anchoring.mask_prob = "batch", 1.0
    states, totals, _ = stepped(small, 1)
    assert totals.masked_examples == totals.examples == 16
    assert_same_bits(stepped(small, 1, shift=1)[0], states)  # labels do not matter
    assert_close(stepped(small, 1, num_devices=8)[0], states)


def test_pairs_that_do_not_fit_on_a_device_are_refused(tiny, tmp_path):
    tiny.augmentation.cutmix_alpha, tiny.training.batch_size = 1.0, 24
    with pytest.raises(UserError, match=r"an even number on each of the 8 devices.*; got 24, try 32"):
        prepare(tiny, tmp_path / "run")
