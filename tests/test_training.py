"""The training loop: independent of the number of devices, resumable bit for bit, and what a run logs and saves."""

import gzip
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from commands import command
from conftest import StopAfterSave, assert_same_bits, begun, records, stop_after_saves

from anchor_jax import UserError
from anchor_jax.data import Normalization
from anchor_jax.models.resnet import ResNet
from anchor_jax.runs import checkpoint, state
from anchor_jax.runs.state import Totals
from anchor_jax.runtime import backends
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.training.evaluator import Evaluator
from anchor_jax.training.logging import SilentLogger
from anchor_jax.training.loop import prepare, train
from anchor_jax.training.model_batch import TrainData
from anchor_jax.training.source import bank_rows
from anchor_jax.training.step import make_in_memory_step, make_train_step
from anchor_jax.training.summary import run_summary


def test_public_api_trains_on_a_fresh_import():
    program = (
        "import sys, anchor_jax as aj\n"
        "assert not {'flax', 'optax', 'orbax', 'tensorboardX'} & set(sys.modules), 'import anchor_jax is heavy'\n"
        "print(aj.training.train.__name__, aj.training.prepare.__name__)"
    )
    assert command("-c", program).stdout == "train prepare\n"


@pytest.mark.min_versions
@pytest.mark.parametrize("mask_per", ["batch", "example"])
@pytest.mark.parametrize("references", ["bank", "batch"])
def test_train_step_is_the_same_on_one_two_and_eight_devices(tiny, references, mask_per):
    tiny.anchoring.references, tiny.anchoring.mask_per = references, mask_per
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (48, 6, 6, 1), np.uint8), rng.integers(0, 3, 48, np.int32)
    data = TrainData(images, labels, bank_images=images[::2])
    model = ResNet(3, stage_sizes=(1,), width=4, axis_name=mesh_lib.AXIS)
    optimizer = optax.sgd(0.1, 0.9)
    train_step = make_train_step(model, optimizer, tiny, Normalization((0.5,), (0.25,)))
    outcomes = {}
    for num_devices in (1, 2, 8):
        mesh = mesh_lib.mesh(num_devices)
        run_steps = mesh_lib.run_n_steps(make_in_memory_step(train_step, 16), mesh)
        carry = state.create_state(model, optimizer, jax.random.key(0), (1, 6, 6, 2)), Totals.zeros()
        carry, on_devices = mesh_lib.replicate((carry, data), mesh)
        losses = []
        for _ in range(5):
            carry = run_steps(carry, 1, on_devices, np.random.default_rng(2).permutation(48).astype(np.int32))
            losses.append(float(carry[1].loss))
        outcomes[num_devices] = losses, jax.device_get(carry[0]), jax.device_get(carry[1])
    assert 0 < outcomes[1][2].masked_examples < outcomes[1][2].examples == 80
    for num_devices in (2, 8):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), outcomes[num_devices], outcomes[1]
        )


# resuming


@pytest.mark.min_versions
def test_resumed_run_is_the_same_bit_for_bit(tiny, tmp_path, monkeypatch):
    tiny.training.total_epochs = 1.0
    uninterrupted = train(tiny, tmp_path / "uninterrupted")
    with monkeypatch.context() as patch:
        stop_after_saves(patch, 1)
        with pytest.raises(StopAfterSave):
            train(tiny, tmp_path / "resumed")
    assert records(tmp_path / "resumed")[-1]["step"] == 3
    resumed = train(tiny, tmp_path / "resumed")
    assert int(resumed.step) == 6
    assert_same_bits(uninterrupted, resumed)
    assert records(tmp_path / "uninterrupted") == records(tmp_path / "resumed")


def test_resumed_run_discards_lines_after_its_checkpoint(tiny, tmp_path, monkeypatch):
    uninterrupted = train(tiny, tmp_path / "uninterrupted")
    with monkeypatch.context() as patch:
        stop_after_saves(patch, 2)
        with pytest.raises(StopAfterSave):
            train(tiny, tmp_path / "resumed")
    with (tmp_path / "resumed/metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "train/loss": 1.0}\n{"step": 10, "tra')
    assert_same_bits(uninterrupted, train(tiny, tmp_path / "resumed"))
    assert records(tmp_path / "uninterrupted") == records(tmp_path / "resumed")


def test_resumed_run_keeps_lines_under_other_log_settings(tiny, tmp_path):
    """Lines of a longer run, and of one that logs at other steps, follow the existing ones."""
    tiny.training.total_epochs = 1.5
    train(tiny, tmp_path / "run")
    lines = records(tmp_path / "run")
    tiny.training.total_epochs, tiny.logging.every_steps = 2.0, 0
    tiny.evaluation.every_epochs = tiny.checkpoint.every_epochs = 1.0
    train(tiny, tmp_path / "run", accept_changes=("training.total_epochs",))
    assert records(tmp_path / "run")[: len(lines)] == lines
    assert {line["step"] for line in records(tmp_path / "run")[len(lines) :]} == {12}


def test_complete_run_is_left_unchanged(tiny, tmp_path):
    first = train(tiny, tmp_path / "run")
    lines = (tmp_path / "run/metrics.jsonl").read_bytes()
    assert_same_bits(first, train(tiny, tmp_path / "run"))
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == lines


# checkpoints


@pytest.mark.min_versions
def test_checkpoint_has_its_state_while_training_continues(tiny, tmp_path):
    trainer = prepare(tiny, tmp_path / "run")
    carry, _ = trainer.train_steps(trainer.init_carry(), 3)
    expected = jax.tree.map(lambda a: np.array(a, copy=True), carry)
    with checkpoint.open_manager(tmp_path / "run", tiny) as checkpoints:
        checkpoint.save(checkpoints, checkpoint.Snapshot(carry, 2), {"accuracy": 0.5})
        trainer.train_steps(carry, 6)
        checkpoints.wait_until_finished()
        restored, last_logged = checkpoint.restore(checkpoints, trainer.carry_shapes())
        assert last_logged == 2
        assert_same_bits(expected, restored)


def test_checkpoints_kept_are_the_latest_and_the_best(tiny, tmp_path):
    tiny.checkpoint.keep = 2
    trainer = prepare(tiny, tmp_path / "run")
    current, totals = trainer.init_carry()
    with checkpoint.open_manager(tmp_path / "run", tiny) as checkpoints:
        for step, accuracy in enumerate((0.1, 0.9, 0.3, 0.2, 0.5), start=1):
            saved = checkpoint.Snapshot((current._replace(step=jnp.int32(step)), totals), step)
            checkpoint.save(checkpoints, saved, {"accuracy": accuracy})
        checkpoints.wait_until_finished()
        assert list(checkpoints.all_steps()) == [2, 4, 5]
        assert checkpoints.best_step() == 2


# divergence


def test_nan_loss_ends_the_run_with_step_and_likely_cause(tiny, tmp_path):
    tiny.optimizer.learning_rate = 1e30
    with pytest.raises(
        UserError, match=r"the loss or its gradient is not finite at step 2 of .*; no checkpoint.*learning rate"
    ):
        train(tiny, tmp_path / "run")
    assert not list((tmp_path / "run/checkpoints").glob("[0-9]*"))


def test_update_that_breaks_the_parameters_is_not_saved(tiny, tmp_path):
    tiny.optimizer.learning_rate, tiny.logging.every_steps, tiny.checkpoint.every_epochs = 1e38, 1, 1 / 6
    with pytest.raises(UserError, match=r"at step [12] .*; no checkpoint was written"):
        train(tiny, tmp_path / "run")
    assert not list((tmp_path / "run/checkpoints").glob("[0-9]*"))


def test_state_with_nan_predictions_is_not_saved(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(Evaluator, "run", lambda *_: {"accuracy": float("nan")})
    with pytest.raises(UserError, match=r"accuracy is nan at step 3 .*; no checkpoint was written"):
        train(tiny, tmp_path / "run")
    assert not list((tmp_path / "run/checkpoints").glob("[0-9]*"))


# what is trained


def test_log_has_every_log_step_once_and_masked_metrics(tiny, tmp_path):
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


def test_masked_predictions_become_uniform(tiny, tmp_path):
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


def test_standard_training_has_no_references_and_no_masks(tiny, tmp_path):
    tiny.anchoring.enabled = False
    trained = train(tiny, tmp_path / "run")
    assert trained.params["Dense_0"]["kernel"].shape == (36, 16)
    assert all(line.get("train/masked_entropy") is None for line in records(tmp_path / "run"))
    assert not (tmp_path / "run/references.npz").exists()
    assert prepare(tiny, tmp_path / "run").data.bank_images is None


def test_validation_set_is_held_out_of_the_training_set(tiny, tmp_path):
    tiny.data.validation_fraction = 0.25
    trainer = prepare(tiny, tmp_path / "run")
    assert trainer.evaluator.dataset.name == "validation"
    assert len(trainer.data.images) == 72
    assert trainer.evaluator.dataset.num_examples == 24


def test_bank_has_the_images_of_the_saved_references(tiny, tmp_path):
    tiny.anchoring.bank_size = 12
    trainer = begun(tiny, tmp_path / "run")
    rows = json.loads((tmp_path / "run/run.json").read_text())["references"]["rows"]
    assert set(rows) <= set(bank_rows(trainer.source, tiny).tolist())
    np.testing.assert_array_equal(trainer.run.references, np.asarray(trainer.data.images)[rows])
    assert {image.tobytes() for image in trainer.run.references} == {
        image.tobytes() for image in np.asarray(trainer.data.bank_images)
    }


def test_images_on_the_devices_are_rows_of_pixels(tiny, tmp_path):
    tiny.anchoring.bank_size = 12
    trainer = prepare(tiny, tmp_path / "run")
    for images in (trainer.data.images, trainer.data.bank_images):
        assert images.rows.shape == (len(images), np.prod(images.shape[1:]))
    rows = np.array([[3, 1], [0, 2]])
    np.testing.assert_array_equal(trainer.data.images[rows], trainer.source.take(rows))


def test_bank_of_all_images_shares_their_memory(tiny, tmp_path):
    data = prepare(tiny, tmp_path / "bank").data
    assert data.bank_images is data.images
    tiny.anchoring.references = "batch"
    assert prepare(tiny, tmp_path / "batch").data.bank_images is None


# compiled programs


def test_device_side_loop_makes_the_steps_of_the_host_loop(tiny, tmp_path, monkeypatch):
    by_host = train(tiny, tmp_path / "host")
    monkeypatch.setattr(backends, "has_fast_device_loops", lambda platform: True)
    by_device = train(tiny, tmp_path / "device")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), by_host, by_device)


def test_nothing_is_compiled_after_the_first_steps(tiny, tmp_path, caplog):
    tiny.training.total_epochs = 4.0
    trainer = prepare(tiny, tmp_path / "run")
    carry = trainer.init_carry()
    for until in (2, 3):
        carry, _ = trainer.train_steps(carry, until)
    trainer.evaluator.run(carry[0])
    with jax.log_compiles(), caplog.at_level("WARNING"):
        for until in (6, 9, 12, 18):
            carry, _ = trainer.train_steps(carry, until)
            trainer.evaluator.run(carry[0])
    assert not [record.getMessage() for record in caplog.records if "Compiling" in record.getMessage()]


def test_gradients_are_reduced_in_one_message(tiny, tmp_path):
    trainer = prepare(tiny, tmp_path / "run")
    config = trainer.run.config
    step = make_train_step(trainer.model, trainer.optimizer, config, Normalization((0.5,), (0.2,)))
    step = make_in_memory_step(step, config.training.batch_size)
    mapped = mesh_lib.pmapped(step, trainer.mesh, in_specs=mesh_lib.REPLICATED, out_specs=mesh_lib.REPLICATED)
    order = np.arange(len(trainer.data.images), dtype=np.int32)
    compiled = mapped.lower(trainer.init_carry(), trainer.data, order).compile().as_text()
    assert len(re.findall(r" all-reduce(?:-start)?\(", compiled)) == 1


# terminal and profile


def test_summary_says_what_is_trained_and_where_it_starts(tiny, tmp_path, capsys):
    tiny.training.total_epochs, tiny.data.name = 0.5, "imagenet2012"  # the name is of another source
    train(tiny, tmp_path / "run")
    out = capsys.readouterr().out
    assert "anchored training, 96 references in the bank, masked with probability 0.5 (target: uniform)\n" in out
    assert (
        f"data      tiny.npz (npz {tiny.data.path}): 96 training images [6, 6, 1], 3 classes; evaluated on 40 test"
        in out
    )
    assert "images    all are read as grayscale (config.data.mode=L); mean 0." in out
    assert "steps     3 in total, 6 per epoch, 16 images per step; starts at step 0\n" in out
    train(tiny, tmp_path / "run")
    assert "steps     3 in total, 6 per epoch, 16 images per step; resumes from step 3\n" in capsys.readouterr().out
    tiny.anchoring.references, tiny.anchoring.mask_prob = "batch", 0.0
    train(tiny, tmp_path / "batch")
    assert "method    anchored training, references from the batch, no masking\n" in capsys.readouterr().out
    tiny.anchoring.enabled = False
    train(tiny, tmp_path / "standard")
    assert "method    standard training\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"mask_per": "example", "mask_draw": "periodic"}, "masked with probability 0.5 per example (target: uniform)"),
        (
            {"mask_draw": "periodic", "masked_target": "label"},
            "masked in evenly spaced batches, a fraction of 0.5 (target: label)",
        ),
        (
            {"mask_per": "group", "references": "batch", "group_size": 8},
            "references from the batch, among the same 8 images, masked with probability 0.5 per group of 8",
        ),
    ],
)
def test_summary_says_what_draws_a_mask(tiny, tmp_path, changes, told):
    tiny.anchoring.update(changes)
    trainer = prepare(tiny, tmp_path / "run")
    assert told in run_summary(trainer, trainer.init_carry()[0])


def test_silent_logger_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with SilentLogger(-1) as logger:
        logger.print("text")
        logger.log(3, "train", {"loss": 1.0})
        logger.flush()
    assert logger.last_logged == 3
    assert capsys.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_profile_is_written_after_the_step_is_compiled(tiny, tmp_path):
    train(tiny, tmp_path / "run", profile=True)
    assert list((tmp_path / "run/profile").rglob("*.xplane.pb"))  # for TensorBoard
    (trace,) = (tmp_path / "run/profile").rglob("*.trace.json.gz")  # for Perfetto
    events = {event.get("name", "") for event in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]}
    assert any("train_step" in name for name in events)
    assert not any("backend_compile" in name for name in events)
