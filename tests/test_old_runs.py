"""A run made by version 0.1.0 (commit f34c7b4): it loads, predicts the same, and resumes.

The archive also holds its config file, and `expected.npz` with the predictions of version 0.1.0 for 16 images.
"""

import json
import shutil

import jax
import numpy as np
import pytest

import anchor_jax as aj
from anchor_jax import config as configuration
from anchor_jax.runs import checkpoint, checkpoint_integrity
from anchor_jax.runs import record as run_record
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.training.loop import prepare, train


def config_of(folder):
    """Return the config of the archive, with its old keys under their new names."""
    text = (folder / "config.py").read_text()
    for old, new in configuration.RENAMED_KEYS.items():
        text = text.replace(f"config.{old} = ", f"config.{new} = ")
    names = {}
    exec(text, names)
    return names["get_config"]()


def checkpoint_record(workdir, step):
    return workdir / f"checkpoints/{step}/record/metadata"


def test_record_is_read_under_the_new_keys(old_run):
    recorded = json.loads((old_run / "run/run.json").read_text())["config"]
    assert recorded["training"]["max_skipped"] == 3
    config = run_record.load(old_run / "run").config
    assert config.training.max_consecutive_nonfinite == 3
    assert config.anchoring.update_bn_when_masked is True
    assert config.data.max_corrupt_fraction == 0.002
    assert config.augmentation.mixing_images_dir == ""
    assert not {key for key in configuration.RENAMED_KEYS if key in configuration.flatten(config)}


def test_predictor_gives_the_recorded_predictions(old_run):
    expected = dict(np.load(old_run / "expected.npz"))
    answer = aj.load_predictor(old_run / "run")(expected.pop("images"), num_references=4)
    assert answer._asdict().keys() == expected.keys()
    for name, array in answer._asdict().items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-5, atol=1e-5)


def test_training_resumes_to_the_recorded_parameters(old_run, monkeypatch, capsys):
    workdir = old_run / "run"
    final = aj.load_predictor(workdir, step=132).variables
    before = (workdir / "run.json").read_bytes()
    shutil.rmtree(workdir / "checkpoints/132")
    one_device = mesh_lib.mesh(1)  # as it was made, so that sums are rounded alike
    monkeypatch.setattr(mesh_lib, "mesh", lambda: one_device)
    last = train(config_of(old_run), workdir)
    assert int(last.step) == 132
    out = capsys.readouterr().out
    assert ", and not turned upright (config.data.orientation=stored); " in out
    assert " (target: uniform)\n" in out  # the default of version 0.1
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        last.params,
        jax.device_get(final)["params"],
    )
    assert (workdir / "run.json").read_bytes() == before  # renamed keys are no changes


def test_former_default_changes_if_that_is_accepted(old_run):
    changes = prepare(config_of(old_run), old_run / "run", ("anchoring.masked_target",)).run.changes
    assert changes == (run_record.Change("anchoring.masked_target", "uniform", "label"),)


def test_old_fields_of_a_checkpoint_record_are_read(old_run):
    workdir = old_run / "run"
    shutil.rmtree(workdir / "checkpoints/132")
    record = json.loads(checkpoint_record(workdir, 66).read_text())
    del record["sha256"]
    record["skipped"] = {"total": 5, "in_a_row": 2, "longest": 3, "until": 40}
    record["sha256"] = checkpoint_integrity.digest(record)
    checkpoint_record(workdir, 66).write_text(json.dumps(record))
    config = config_of(old_run)
    training = prepare(config, workdir)
    assert training.run.changes == ()
    with checkpoint.open_manager(workdir, config) as checkpoints:
        (state, _), reported = checkpoint.restore(checkpoints, training.carry_shapes())
    assert reported == 66
    assert jax.device_get(state.skipped)._asdict() == {"total": 5, "consecutive": 2, "longest": 2, "until": 66}


@pytest.mark.parametrize("key", configuration.RENAMED_KEYS.values())
def test_real_change_of_a_renamed_key_is_still_a_change(old_run, key):
    config = config_of(old_run)
    section, name = key.split(".")
    config[section][name] = {bool: False, int: 7, float: 0.5, str: "elsewhere"}[type(config[section][name])]
    changes = prepare(config, old_run / "run", (key,)).run.changes
    assert [change.key for change in changes] == [key]
