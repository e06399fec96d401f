"""Training: the same on any number of devices, the same after a resume, and what a run leaves behind."""

import gzip
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import StopAfterSave, assert_same_bits, begun, records, stop_after_saves

from anchor_jax import UserError
from anchor_jax.data import Normalization
from anchor_jax.models.resnet import ResNet
from anchor_jax.runs import checkpoint, state
from anchor_jax.runs import record as run_record
from anchor_jax.runs.state import Totals
from anchor_jax.runtime import backends
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.training import loop, optimizer
from anchor_jax.training.loop import TrainingSchedule, prepare, train
from anchor_jax.training.step import (
    TrainData,
    draw_step,
    epoch_order,
    from_memory,
    make_train_step,
    seed_keys,
    step_keys,
)


@pytest.mark.parametrize("mask_per", ["batch", "example"])
@pytest.mark.parametrize("references", ["bank", "batch"])
def test_one_two_and_eight_devices_give_the_same_losses_and_parameters(tiny, references, mask_per):
    tiny.anchoring.references, tiny.anchoring.mask_per = references, mask_per
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (48, 6, 6, 1), np.uint8), rng.integers(0, 3, 48, np.int32)
    model = ResNet(3, stage_sizes=(1,), width=4, axis_name=mesh_lib.AXIS)
    transformation = optax.sgd(0.1, 0.9)
    outcomes = {}
    for num_devices in (1, 2, 8):
        mesh = mesh_lib.mesh(num_devices)
        run_steps = mesh_lib.run_n_steps(
            from_memory(make_train_step(model, transformation, tiny, Normalization((0.5,), (0.25,))), 16), mesh
        )
        carry = state.create_state(model, transformation, jax.random.key(0), (1, 6, 6, 2)), Totals.zeros()
        data = TrainData(images, labels, np.arange(0, 48, 2, dtype=np.int32))
        carry, data = mesh_lib.replicate((carry, data), mesh)
        losses = []
        for _ in range(5):
            carry = run_steps(carry, 1, data, np.random.default_rng(2).permutation(48).astype(np.int32))
            losses.append(float(carry[1].loss))
        outcomes[num_devices] = losses, jax.device_get(carry[0]), jax.device_get(carry[1])
    assert outcomes[1][2].masked_examples > 0
    assert outcomes[1][2].masked_examples < outcomes[1][2].examples == 80
    for num_devices in (2, 8):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5),
            outcomes[num_devices],
            outcomes[1],
        )


def test_resumed_run_ends_in_the_same_bits(tiny, tmp_path, monkeypatch):
    tiny.training.total_epochs = 1.0
    straight = train(tiny, tmp_path / "straight")
    with monkeypatch.context() as patch:
        stop_after_saves(patch, 1)
        with pytest.raises(StopAfterSave):
            train(tiny, tmp_path / "resumed")
    assert records(tmp_path / "resumed")[-1]["step"] == 3
    resumed = train(tiny, tmp_path / "resumed")
    assert int(resumed.step) == 6
    assert_same_bits(straight, resumed)
    assert records(tmp_path / "straight") == records(tmp_path / "resumed")


def test_lines_written_after_the_checkpoint_are_not_told_twice(tiny, tmp_path, monkeypatch):
    straight = train(tiny, tmp_path / "straight")
    with monkeypatch.context() as patch:
        stop_after_saves(patch, 2)
        with pytest.raises(StopAfterSave):
            train(tiny, tmp_path / "resumed")
    with (tmp_path / "resumed/metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "train/loss": 1.0}\n{"step": 10, "tra')
    assert_same_bits(straight, train(tiny, tmp_path / "resumed"))
    assert records(tmp_path / "straight") == records(tmp_path / "resumed")


def test_a_finished_run_is_left_as_it_is(tiny, tmp_path, capsys):
    first = train(tiny, tmp_path / "run")
    lines = (tmp_path / "run/metrics.jsonl").read_bytes()
    assert_same_bits(first, train(tiny, tmp_path / "run"))
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == lines


def test_saved_state_is_that_of_its_step_although_training_goes_on(tiny, tmp_path):
    training = prepare(tiny, tmp_path / "run")
    carry, _ = training.advance(training.first_carry(), 3)
    expected = jax.tree.map(lambda a: np.array(a, copy=True), carry)
    with checkpoint.open_manager(tmp_path / "run", tiny) as checkpoints:
        checkpoint.save(checkpoints, checkpoint.Snapshot(carry, 2), {"accuracy": 0.5})
        training.advance(carry, 6)
        checkpoints.wait_until_finished()
        restored, reported = checkpoint.restore(checkpoints, training.carry_shapes())
        assert reported == 2
        assert_same_bits(expected, restored)


def test_newest_and_best_checkpoints_are_kept(tiny, tmp_path):
    tiny.checkpoint.keep = 2
    training = prepare(tiny, tmp_path / "run")
    current, totals = training.first_carry()
    with checkpoint.open_manager(tmp_path / "run", tiny) as checkpoints:
        for step, accuracy in enumerate((0.1, 0.9, 0.3, 0.2, 0.5), start=1):
            saved = checkpoint.Snapshot((current._replace(step=jnp.int32(step)), totals), step)
            checkpoint.save(checkpoints, saved, {"accuracy": accuracy})
        checkpoints.wait_until_finished()
        assert list(checkpoints.all_steps()) == [2, 4, 5]
        assert checkpoints.best_step() == 2


def test_log_lines_cover_every_step_once_and_tell_of_masked_inputs(tiny, tmp_path):
    train(tiny, tmp_path / "run")
    lines = records(tmp_path / "run")
    trained = [line for line in lines if "train/loss" in line]
    assert [line["step"] for line in trained] == [2, 3, 4, 6, 8, 9, 10, 12]
    assert any(line["train/masked_entropy"] is not None for line in trained)
    assert all(
        0 <= line["train/masked_entropy"] <= np.log(3) + 1e-6 for line in trained if line["train/masked_entropy"]
    )
    assert {line["step"] for line in lines if "test/accuracy" in line} == {3, 6, 9, 12}
    assert list((tmp_path / "run/tensorboard").glob("events.*"))


def test_masked_inputs_are_answered_uniformly_in_the_end(tiny, tmp_path):
    tiny.data.source = "digits"
    tiny.model.options.hidden = (64,)
    tiny.optimizer.name, tiny.optimizer.learning_rate = "adamw", 1e-2
    tiny.training.batch_size, tiny.training.total_epochs = 64, 25.0
    tiny.checkpoint.every_epochs = tiny.evaluation.every_epochs = 25.0
    tiny.augmentation.crop_padding, tiny.anchoring.mask_prob = 0, 0.25
    tiny.augmentation.flip, tiny.logging.every_steps = False, 0
    train(tiny, tmp_path / "run")
    last, scores = records(tmp_path / "run")[-2:]
    assert last["train/masked_entropy"] > 0.8 * np.log(10)
    assert last["train/masked_accuracy"] < 0.5
    assert scores["test/accuracy"] > 0.9


def test_standard_training_sees_no_references_and_no_mask(tiny, tmp_path):
    tiny.anchoring.enabled = False
    trained = train(tiny, tmp_path / "run")
    assert trained.params["Dense_0"]["kernel"].shape == (36, 16)
    assert all(line.get("train/masked_entropy") is None for line in records(tmp_path / "run"))
    assert not (tmp_path / "run/references.npz").exists()


def test_validation_is_held_out_of_the_training_set(tiny, tmp_path):
    tiny.data.validation_fraction = 0.25
    training = prepare(tiny, tmp_path / "run")
    assert training.evaluation_set.name == "validation"
    assert len(training.data.images) == 72
    assert training.evaluation_set.num_examples == 24


def test_references_of_a_run_are_rows_of_its_bank(tiny, tmp_path):
    tiny.anchoring.bank_size = 12
    training = begun(tiny, tmp_path / "run")
    record = json.loads((tmp_path / "run/run.json").read_text())
    bank = np.asarray(training.data.bank)
    assert set(record["references"]["rows"]) <= set(bank.tolist())
    np.testing.assert_array_equal(
        training.run.references, np.asarray(training.data.images)[record["references"]["rows"]]
    )


def test_nan_loss_stops_the_run_with_step_and_cause(tiny, tmp_path):
    tiny.optimizer.learning_rate = 1e30
    with pytest.raises(
        UserError, match=r"the loss or its gradient is not finite at step 2 of .*; no checkpoint.*learning rate"
    ):
        train(tiny, tmp_path / "run")
    assert not list((tmp_path / "run/checkpoints").glob("[0-9]*"))


def test_last_update_that_breaks_the_parameters_is_not_saved(tiny, tmp_path):
    tiny.optimizer.learning_rate, tiny.logging.every_steps, tiny.checkpoint.every_epochs = 1e38, 1, 1 / 6
    with pytest.raises(UserError, match=r"at step [12] .*; no checkpoint was written"):
        train(tiny, tmp_path / "run")
    assert not list((tmp_path / "run/checkpoints").glob("[0-9]*"))


def test_a_loop_on_the_device_does_the_same_steps(tiny, tmp_path, monkeypatch):
    by_host = train(tiny, tmp_path / "host")
    monkeypatch.setattr(backends, "has_fast_device_loops", lambda platform: True)
    by_device = train(tiny, tmp_path / "device")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), by_host, by_device)


def test_path_that_orbax_cannot_save_to_is_refused(tiny, tmp_path):
    with pytest.raises(UserError, match=r"which orbax cannot save to"):
        prepare(tiny, tmp_path / "r[b]un")


def test_files_of_somebody_else_are_left_alone(tiny, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/metrics.jsonl").write_text("mine")
    with pytest.raises(UserError, match=r"holds metrics\.jsonl but no run\.json"):
        prepare(tiny, tmp_path / "run")
    (tmp_path / "run/metrics.jsonl").rename(tmp_path / "run/references.npz")
    with pytest.raises(UserError, match=r"references\.npz' is missing or corrupt"):
        begun(tiny, tmp_path / "run")
    assert (tmp_path / "run/references.npz").read_text() == "mine"


def test_predictions_that_are_no_numbers_are_not_saved(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(loop.Training, "evaluate", lambda *_: {"accuracy": float("nan")})
    with pytest.raises(UserError, match=r"accuracy is nan at step 3 .*; no checkpoint was written"):
        train(tiny, tmp_path / "run")
    assert not list((tmp_path / "run/checkpoints").glob("[0-9]*"))


def test_options_given_as_a_list_are_the_same_when_the_run_goes_on(tiny, tmp_path):
    tiny.model.options.hidden = [16]
    begun(tiny, tmp_path / "run")
    prepare(tiny, tmp_path / "run")


def test_draws_depend_on_seed_and_step_alone(tiny):
    step_key = seed_keys(3).step
    draw = jax.jit(lambda step: draw_step(step_keys(jax.random.fold_in(step_key, step)), 16, 5, tiny.anchoring))
    one, again, other = draw(4), draw(4), draw(5)
    assert_same_bits(one._replace(augment_keys=0, erase_keys=0), again._replace(augment_keys=0, erase_keys=0))
    assert (one.references != other.references).any()
    assert set(np.unique(one.references)) <= set(range(5))


def test_no_key_of_a_step_is_used_twice(tiny):
    keys = step_keys(jax.random.key(3))
    draw = draw_step(keys, 16, 5, tiny.anchoring)
    used = [draw.augment_keys, draw.erase_keys, jax.random.split(keys.references, 16), jnp.stack([keys.mask, keys.mix])]
    assert len({tuple(data) for some in used for data in np.asarray(jax.random.key_data(some))}) == 3 * 16 + 2


def test_an_epoch_shows_every_example_once_in_an_order_of_its_own():
    orders = [np.asarray(epoch_order(jax.random.key(0), epoch, 50)) for epoch in range(2)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert (orders[0] != orders[1]).any()


def test_stops_are_log_points_ends_of_epochs_and_what_is_due(tiny):
    tiny.logging.every_steps, tiny.evaluation.every_epochs, tiny.checkpoint.every_epochs = 4, 1.0, 2.0
    assert list(TrainingSchedule(10, 25).stops(0, tiny)) == [4, 8, 10, 14, 18, 20, 24, 25]
    assert list(TrainingSchedule(10, 25).stops(14, tiny)) == [18, 20, 24, 25]
    tiny.logging.every_steps = 0
    assert list(TrainingSchedule(10, 25).stops(0, tiny)) == [10, 20, 25]


def test_sgd_is_that_of_pytorch(tiny):
    torch = pytest.importorskip("torch")
    tiny.optimizer.weight_decay, tiny.optimizer.milestones_epochs = 0.01, (1, 2)
    weights = np.random.default_rng(0).normal(size=5).astype(np.float32)
    schedule = optimizer.create_schedule(tiny.optimizer, 3, 9)
    ours = optimizer.create(tiny.optimizer, schedule)
    params, opt_state = jnp.array(weights), ours.init(jnp.array(weights))
    theirs = torch.nn.Parameter(torch.tensor(weights))
    sgd = torch.optim.SGD([theirs], lr=0.05, momentum=0.9, weight_decay=0.01)
    decay = torch.optim.lr_scheduler.MultiStepLR(sgd, [1, 2], gamma=0.2)
    for step in range(9):
        grads = np.sin(np.arange(5) + step).astype(np.float32)
        updates, opt_state = ours.update(jnp.array(grads), opt_state, params)
        params = optax.apply_updates(params, updates)
        theirs.grad = torch.tensor(grads)
        sgd.step()
        if step % 3 == 2:
            decay.step()
        np.testing.assert_allclose(params, theirs.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_cosine_schedule_warms_up_and_ends_at_zero(tiny):
    tiny.optimizer.schedule, tiny.optimizer.warmup_epochs = "cosine", 2.0
    schedule = optimizer.create_schedule(tiny.optimizer, 10, 100)
    rates = [float(schedule(step)) for step in range(101)]
    assert rates[0] == 0
    assert rates[20] == pytest.approx(0.05) == max(rates)
    assert rates[60] == pytest.approx(0.025)
    assert rates[100] == pytest.approx(0, abs=1e-9)


def test_another_run_in_the_folder_is_left_alone(tiny, tmp_path):
    begun(tiny, tmp_path / "run")
    before = (tmp_path / "run/run.json").read_bytes()
    tiny.anchoring.mask_prob = 0.25
    message = r"holds another run: its config.anchoring.mask_prob is 0.5; got 0.25; .*--accept_changes=anchoring"
    with pytest.raises(UserError, match=message):
        prepare(tiny, tmp_path / "run")
    assert (tmp_path / "run/run.json").read_bytes() == before


def test_other_data_in_the_same_place_are_refused(tiny, tmp_path):
    begun(tiny, tmp_path / "run")
    arrays = dict(np.load(tiny.data.path))
    arrays["y_train"][0] = 1 - arrays["y_train"][0]
    np.savez(tiny.data.path, **arrays)
    message = r"its training set is '96 examples, sha256 (\w+)'; got '96 examples, sha256 (?!\1)"
    with pytest.raises(UserError, match=message):
        prepare(tiny, tmp_path / "run")
    assert prepare(tiny, tmp_path / "run", ("data",)).run.changes[0].key == "data"


def test_the_same_data_may_move(tiny, tmp_path):
    begun(tiny, tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    tiny.data.path = str(Path(tiny.data.path).rename(tmp_path / "elsewhere/tiny.npz"))
    prepare(tiny, tmp_path / "run")


def changes_of(workdir):
    record = json.loads((workdir / "run.json").read_text())
    return [(change["key"], change["before"], change["now"], change["after_step"]) for change in record["changes"]]


def test_what_may_change_is_recorded_once_the_run_goes_on(tiny, tmp_path):
    train(tiny, tmp_path / "run")
    tiny.logging.every_steps, tiny.checkpoint.keep = 5, 1
    train(tiny, tmp_path / "run")
    expected = [("checkpoint.keep", 3, 1, 12), ("logging.every_steps", 2, 5, 12)]
    assert changes_of(tmp_path / "run") == expected
    assert run_record.load(tmp_path / "run").config.checkpoint.keep == 1
    train(tiny, tmp_path / "run")
    assert changes_of(tmp_path / "run") == expected


def test_accepted_changes_go_on_and_are_recorded(tiny, tmp_path):
    train(tiny, tmp_path / "run")
    tiny.training.total_epochs, tiny.optimizer.learning_rate = 3.0, 0.01
    with pytest.raises(UserError, match=r"optimizer.learning_rate is 0.05; got 0.01"):
        train(tiny, tmp_path / "run", accept_changes=("training.total_epochs",))
    last = train(tiny, tmp_path / "run", accept_changes=("training.total_epochs", "optimizer.learning_rate"))
    assert int(last.step) == 18
    assert [change[:3] for change in changes_of(tmp_path / "run")] == [
        ("optimizer.learning_rate", 0.05, 0.01),
        ("training.total_epochs", 2.0, 3.0),
    ]


def test_accepted_changes_that_no_checkpoint_fits_change_nothing(tiny, tmp_path):
    train(tiny, tmp_path / "run")
    before = (tmp_path / "run/run.json").read_bytes()
    tiny.model.options.hidden = (8,)
    with pytest.raises(UserError, match=r"checkpoint '.*/12' is corrupt or does not fit the model"):
        train(tiny, tmp_path / "run", accept_changes=("model.options.hidden",))
    assert (tmp_path / "run/run.json").read_bytes() == before
    assert not (tmp_path / "run/damaged").exists()


def test_a_standard_network_never_becomes_an_anchored_one(tiny, tmp_path):
    tiny.anchoring.enabled = False
    begun(tiny, tmp_path / "run")
    before = (tmp_path / "run/run.json").read_bytes()
    tiny.anchoring.enabled = True
    with pytest.raises(UserError, match=r"its config.anchoring.enabled is False, which cannot change"):
        train(tiny, tmp_path / "run", accept_changes=("anchoring.enabled",))
    assert (tmp_path / "run/run.json").read_bytes() == before


def test_a_run_that_another_process_has_begun_meanwhile_is_left_alone(tiny, tmp_path):
    training = prepare(tiny, tmp_path / "run")
    tiny.seed = 1
    begun(tiny, tmp_path / "run")
    with (
        pytest.raises(UserError, match=r"another process has started to train in"),
        run_record.lock_workdir(training.run),
    ):
        pass


def test_what_was_reported_stays_whatever_is_reported_from_then_on(tiny, tmp_path):
    """Lines of a longer run, and of one that reports otherwise, go on after those that are there."""
    tiny.training.total_epochs = 1.5
    train(tiny, tmp_path / "run")
    lines = records(tmp_path / "run")
    tiny.training.total_epochs, tiny.logging.every_steps = 2.0, 0
    tiny.evaluation.every_epochs = tiny.checkpoint.every_epochs = 1.0
    train(tiny, tmp_path / "run", accept_changes=("training.total_epochs",))
    assert records(tmp_path / "run")[: len(lines)] == lines
    assert {line["step"] for line in records(tmp_path / "run")[len(lines) :]} == {12}


def test_unknown_key_of_accepted_changes_is_told(tiny, tmp_path):
    with pytest.raises(UserError, match=r"accept_changes .* 'learning_rate'; did you mean 'optimizer.learning_rate'"):
        prepare(tiny, tmp_path / "run", ("learning_rate",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training.batch_size": 12}, r"batch_size must be divisible by the 8 devices; got 12, try 8"),
        ({"training.batch_size": 800}, r"batch_size must be at most 96, the training set; got 800"),
        ({"training.total_epochs": 0.01}, r"total_epochs=0.01 is less than one step"),
        ({"anchoring.bank_size": 97}, r"bank_size=97; allowed: 0 \(all\) to 96"),
        ({"evaluation.num_references": 13}, r"num_references must be at most 12.*got 13"),
        (
            {"data.mean": (0.5, 0.5), "data.std": (1.0, 1.0)},
            r"data.mean must have one number for each of the 1",
        ),
        (
            {"model.name": "resnet81"},
            r"unknown model 'resnet81'; allowed: deit_s16, mlp, .*Did you mean 'resnet18'",
        ),
        ({"model.dtype": "float23"}, r"unknown dtype 'float23'.*Did you mean 'float32'"),
        ({"data.test_split": "tst"}, r"no array 'x_tst'"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_step(tiny, tmp_path, change, message):
    tiny.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=message):
        prepare(tiny, tmp_path / "run")


def test_lost_record_is_not_written_anew_over_checkpoints(tiny, tmp_path):
    train(tiny, tmp_path / "run")
    (tmp_path / "run/run.json").unlink()
    with pytest.raises(UserError, match=r"holds checkpoints but no run\.json"):
        train(tiny, tmp_path / "run")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"config": {}}'])
def test_damaged_record_is_named(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(UserError, match=r"run.json' is corrupt"):
        run_record.load(tmp_path)


def test_damaged_references_are_named(tiny, tmp_path):
    begun(tiny, tmp_path / "run")
    file = tmp_path / "run/references.npz"
    other = np.zeros_like(run_record.load(tmp_path / "run").references)
    np.savez(file, images=other)
    with pytest.raises(UserError, match="their hash differs"):
        run_record.load(tmp_path / "run")
    file.unlink()
    with pytest.raises(UserError, match="is missing or corrupt"):
        run_record.load(tmp_path / "run")


def test_nothing_is_compiled_after_the_first_steps(tiny, tmp_path, caplog):
    tiny.training.total_epochs = 4.0
    training = prepare(tiny, tmp_path / "run")
    carry = training.first_carry()
    for stop in (2, 3):
        carry, _ = training.advance(carry, stop)
    training.evaluate(carry[0])
    with jax.log_compiles(), caplog.at_level("WARNING"):
        for stop in (6, 9, 12, 18):
            carry, _ = training.advance(carry, stop)
            training.evaluate(carry[0])
    assert not [record.getMessage() for record in caplog.records if "Compiling" in record.getMessage()]


def test_gradients_of_all_parameters_are_reduced_in_one_message(tiny, tmp_path):
    training = prepare(tiny, tmp_path / "run")
    config = training.run.config
    transformation = optimizer.create(config.optimizer, training.schedule)
    step = make_train_step(training.model, transformation, config, Normalization((0.5,), (0.2,)))
    step = from_memory(step, config.training.batch_size)
    mapped = mesh_lib.pmapped(step, training.mesh, in_specs=mesh_lib.REPLICATED, out_specs=mesh_lib.REPLICATED)
    carry = training.first_carry()
    order = np.arange(len(training.data.images), dtype=np.int32)
    compiled = mapped.lower(carry, training.data, order).compile().as_text()
    assert len(re.findall(r" all-reduce(?:-start)?\(", compiled)) == 1


def test_profile_is_written_once_the_step_is_compiled(tiny, tmp_path, capsys):
    train(tiny, tmp_path / "run", profile=True)
    assert list((tmp_path / "run/profile").rglob("*.xplane.pb"))  # what TensorBoard opens
    (trace,) = (tmp_path / "run/profile").rglob("*.trace.json.gz")  # what Perfetto opens
    events = {event.get("name", "") for event in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]}
    assert any("train_step" in name for name in events)
    assert not any("backend_compile" in name for name in events)
