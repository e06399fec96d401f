"""Preparation of a run: what `prepare` refuses, and when a run may resume with another config."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import begun
from ml_collections import FrozenConfigDict

from anchor_jax import UserError
from anchor_jax.data import Dataset
from anchor_jax.runs import record as run_record
from anchor_jax.training.loop import prepare, train
from anchor_jax.training.source import InMemorySource

# invalid configs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training.batch_size": 12}, r"batch_size must be divisible by the 8 devices; got 12, try 8"),
        ({"training.batch_size": 800}, r"batch_size must be at most 96, the size of the training set; got 800"),
        ({"training.total_epochs": 0.01}, r"total_epochs=0.01 is less than one step"),
        ({"anchoring.bank_size": 97}, r"bank_size=97; allowed: 0 \(all\) to 96"),
        ({"evaluation.num_references": 13}, r"num_references must be at most 12.*got 13"),
        (
            {"data.mean": (0.5, 0.5), "data.std": (1.0, 1.0)},
            r"data.mean must have one number for each of the 1",
        ),
        (
            {"model.name": "resnet81"},
            r"unknown model 'resnet81'; allowed: deit_s16, fastnet, mlp, .*Did you mean 'resnet18'",
        ),
        ({"model.dtype": "float23"}, r"unknown dtype 'float23'.*Did you mean 'float32'"),
        ({"data.test_split": "tst"}, r"no array 'x_tst'"),
        ({"anchoring.overlay_weight": 0.5}, r"overlay_weight needs .*; got enabled=True and mask_prob=0.5"),
        (
            {"anchoring.overlay_weight": 0.5, "anchoring.enabled": False, "anchoring.mask_prob": 0.0},
            r"overlay_weight needs .*; got enabled=False and mask_prob=0.0",
        ),
    ],
)
def test_prepare_refuses_a_config_that_does_not_fit(tiny, tmp_path, change, message):
    tiny.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=message):
        prepare(tiny, tmp_path / "run")


@pytest.mark.parametrize("name", ["r[b]un", os.fsdecode(b"r\xfcn")])
def test_prepare_refuses_a_path_that_orbax_cannot_save_to(tiny, tmp_path, name):
    with pytest.raises(UserError, match=r"which orbax cannot save to"):
        prepare(tiny, tmp_path / name)


@pytest.mark.parametrize("policy", ["trivial_augment", "rand_augment", "pixmix"])
def test_prepare_refuses_a_policy_for_two_channels(tiny, tmp_path, policy):
    arrays = dict(np.load(tiny.data.path))
    doubled = {name: np.repeat(array, 2, axis=-1) for name, array in arrays.items() if name.startswith("x_")}
    np.savez(tiny.data.path, **arrays | doubled)
    tiny.augmentation.policy = policy
    with pytest.raises(UserError, match=f"'{policy}' takes images with 1 or 3 channels; got 2"):
        prepare(tiny, tmp_path / "run")


def test_accept_changes_refuses_an_unknown_key(tiny, tmp_path):
    with pytest.raises(UserError, match=r"accept_changes .* 'learning_rate'; did you mean 'optimizer.learning_rate'"):
        prepare(tiny, tmp_path / "run", ("learning_rate",))


# classes


@pytest.mark.filterwarnings("ignore:labels of")
def test_prepare_keeps_the_classes_of_an_old_run(tiny, tmp_path):
    arrays = dict(np.load(tiny.data.path))
    np.savez(tiny.data.path, **arrays | {name: arrays[name] + 1 for name in ("y_train", "y_test")})
    with run_record.lock_workdir(prepare(tiny, tmp_path / "run").run):
        record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["label_names"] == ["1", "2", "3"]
    old = InMemorySource(Dataset(arrays["x_train"], np.int32(arrays["y_train"] + 1), ()))
    record |= {"label_names": ["0", "1", "2", "3"], "data": old.identity()}
    (tmp_path / "run/run.json").write_text(json.dumps(record))
    with pytest.warns(UserWarning, match="has no example of 1 of the 4 classes: 0"):
        trainer = prepare(tiny, tmp_path / "run")
    assert (trainer.run.label_names, trainer.run.changes) == (("0", "1", "2", "3"), ())
    assert set(trainer.source.labels()) == set(trainer.evaluator.dataset.labels()) == {1, 2, 3}


def test_prepare_refuses_classes_that_the_run_lacks(tiny, tmp_path):
    with run_record.lock_workdir(prepare(tiny, tmp_path / "run").run):
        arrays = dict(np.load(tiny.data.path))
    np.savez(tiny.data.path, **arrays, label_names=["0", "1", "cat"])
    message = (
        r"run' holds another run: 1 of the 3 classes of the training set are not among the run's 3: cat; .*workdir$"
    )
    with pytest.raises(UserError, match=message):
        prepare(tiny, tmp_path / "run")


# folders of other runs


def test_foreign_files_in_the_workdir_are_kept(tiny, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/metrics.jsonl").write_text("mine")
    with pytest.raises(UserError, match=r"holds metrics\.jsonl but no run\.json"):
        prepare(tiny, tmp_path / "run")
    (tmp_path / "run/metrics.jsonl").rename(tmp_path / "run/references.npz")
    with pytest.raises(UserError, match=r"references\.npz' belongs to another run .* or is not a file of anchor_jax"):
        begun(tiny, tmp_path / "run")
    assert (tmp_path / "run/references.npz").read_text() == "mine"


def test_run_with_another_config_is_refused_and_kept(tiny, tmp_path):
    begun(tiny, tmp_path / "run")
    before = (tmp_path / "run/run.json").read_bytes()
    tiny.anchoring.mask_prob = 0.25
    message = r"holds another run: its config.anchoring.mask_prob is 0.5; got 0.25; .*--accept_changes=anchoring"
    with pytest.raises(UserError, match=message):
        prepare(tiny, tmp_path / "run")
    assert (tmp_path / "run/run.json").read_bytes() == before


def test_changed_data_at_the_same_path_is_refused(tiny, tmp_path):
    begun(tiny, tmp_path / "run")
    arrays = dict(np.load(tiny.data.path))
    arrays["y_train"][0] = 1 - arrays["y_train"][0]
    np.savez(tiny.data.path, **arrays)
    message = r"its training set is '96 examples, sha256 (\w+)'; got '96 examples, sha256 (?!\1)"
    with pytest.raises(UserError, match=message):
        prepare(tiny, tmp_path / "run")
    assert prepare(tiny, tmp_path / "run", ("data",)).run.changes[0].key == "data"


def test_moved_data_is_accepted(tiny, tmp_path):
    begun(tiny, tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    tiny.data.path = str(Path(tiny.data.path).rename(tmp_path / "elsewhere/tiny.npz"))
    prepare(tiny, tmp_path / "run")


def test_standard_run_cannot_become_anchored(tiny, tmp_path):
    tiny.anchoring.enabled = False
    begun(tiny, tmp_path / "run")
    before = (tmp_path / "run/run.json").read_bytes()
    tiny.anchoring.enabled = True
    with pytest.raises(UserError, match=r"its config.anchoring.enabled is False, which cannot change"):
        train(tiny, tmp_path / "run", accept_changes=("anchoring.enabled",))
    assert (tmp_path / "run/run.json").read_bytes() == before


def test_run_started_meanwhile_by_another_process_is_kept(tiny, tmp_path):
    trainer = prepare(tiny, tmp_path / "run")
    tiny.seed = 1
    begun(tiny, tmp_path / "run")
    with (
        pytest.raises(UserError, match=r"another process has started to train in"),
        run_record.lock_workdir(trainer.run),
    ):
        pass


# accepted changes


def changes_of(workdir):
    record = json.loads((workdir / "run.json").read_text())
    return [(change["key"], change["before"], change["now"], change["after_step"]) for change in record["changes"]]


def test_resumable_changes_are_recorded_once(tiny, tmp_path):
    train(tiny, tmp_path / "run")
    tiny.logging.every_steps, tiny.checkpoint.keep = 5, 1
    train(tiny, tmp_path / "run")
    expected = [("checkpoint.keep", 3, 1, 12), ("logging.every_steps", 2, 5, 12)]
    assert changes_of(tmp_path / "run") == expected
    assert run_record.load(tmp_path / "run").config.checkpoint.keep == 1
    train(tiny, tmp_path / "run")
    assert changes_of(tmp_path / "run") == expected


def test_saved_references_of_a_run_stay(tiny, tmp_path):
    begun(tiny, tmp_path / "run")
    tiny.evaluation.saved_references = 30
    message = r"run' keeps the 12 references saved with it; config.evaluation.saved_references=30 has no effect"
    with pytest.warns(UserWarning, match=message):
        run = prepare(tiny, tmp_path / "run").run
    assert (run.changes, len(run.references), run.config.evaluation.saved_references) == ((), 12, 12)


def test_accepted_changes_resume_and_are_recorded(tiny, tmp_path):
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


def test_accepted_changes_without_a_fitting_checkpoint_fail(tiny, tmp_path):
    train(tiny, tmp_path / "run")
    before = (tmp_path / "run/run.json").read_bytes()
    tiny.model.options.hidden = (8,)
    with pytest.raises(UserError, match=r"checkpoint '.*/12' is corrupt or does not fit the model"):
        train(tiny, tmp_path / "run", accept_changes=("model.options.hidden",))
    assert (tmp_path / "run/run.json").read_bytes() == before
    assert not (tmp_path / "run/damaged").exists()


def test_frozen_config_is_the_same_config(tiny, tmp_path):
    begun(tiny, tmp_path / "run")
    assert not prepare(FrozenConfigDict(tiny), tmp_path / "run").run.changes


def test_options_given_as_a_list_are_the_same_options(tiny, tmp_path):
    tiny.model.options.hidden = [16]
    begun(tiny, tmp_path / "run")
    prepare(tiny, tmp_path / "run")


# records


def test_lost_record_is_not_rewritten_over_checkpoints(tiny, tmp_path):
    train(tiny, tmp_path / "run")
    (tmp_path / "run/run.json").unlink()
    with pytest.raises(UserError, match=r"holds checkpoints but no run\.json"):
        train(tiny, tmp_path / "run")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"config": {}}'])
def test_load_reports_a_corrupt_record(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(UserError, match=r"run.json' is corrupt"):
        run_record.load(tmp_path)


def test_load_reports_corrupt_references(tiny, tmp_path):
    begun(tiny, tmp_path / "run")
    file = tmp_path / "run/references.npz"
    other = np.zeros_like(run_record.load(tmp_path / "run").references)
    np.savez(file, images=other)
    with pytest.raises(UserError, match="their hash differs"):
        run_record.load(tmp_path / "run")
    file.unlink()
    with pytest.raises(UserError, match="is missing or corrupt"):
        run_record.load(tmp_path / "run")


# the place and the content of the data


def test_record_has_the_place_and_the_test_set_of_the_data(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.data.path = "tiny.npz"
    started = begun(tiny, tmp_path / "run").run
    assert started.data_path == str(tmp_path / "tiny.npz")
    assert len(started.test_data) == 64
    recorded = run_record.load(tmp_path / "run")
    assert (recorded.data_path, recorded.test_data) == (started.data_path, started.test_data)
    assert prepare(tiny, tmp_path / "run").run.changes == ()

    (tmp_path / "new").mkdir()
    monkeypatch.chdir(tmp_path / "new")
    message = r"cannot read .*if the data, which were at '.*tiny\.npz' at training, have moved, .* --config\.data\.path"
    with pytest.raises(UserError, match=message):
        prepare(tiny, tmp_path / "run")
    arrays = dict(np.load(tmp_path / "tiny.npz"))
    np.savez("tiny.npz", **arrays | {"x_test": 255 - arrays["x_test"]})
    with pytest.warns(UserWarning, match="the test set of '.*run' is not the one it had so far"):
        moved = prepare(tiny, tmp_path / "run").run
    run_record.record_config_changes(moved, None)
    again = run_record.load(tmp_path / "run")
    assert (again.data_path, again.test_data) == (str(tmp_path / "new/tiny.npz"), moved.test_data)
    changes = json.loads((tmp_path / "run/run.json").read_text())["changes"]
    assert [change["key"] for change in changes] == ["data.path", "test_data"]
