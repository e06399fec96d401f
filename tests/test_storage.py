"""Runs on failing disks: they recover or end with a one-line error, and nothing is lost."""

import json
import os
import re
import shutil
import subprocess
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from commands import quick_command, running
from conftest import StopAfterSave, assert_same_bits, config_file, records, stop_after_saves, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st

from anchor_jax import UserError, load_predictor
from anchor_jax.core.errors import CorruptDataWarning
from anchor_jax.runs import checkpoint_integrity, fingerprint
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.runtime import multihost
from anchor_jax.runtime.atomic_files import exclusive_lock
from anchor_jax.training.loop import train

# asynchronous reads that finish after orbax has given up on a checkpoint
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run and its data, and its last state."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, train(tiny_config(folder), folder / "run")


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, to corrupt."""
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    return tmp_path / "run"


def files_of(workdir, step, item):
    files = [file for file in (workdir / f"checkpoints/{step}/{item}").rglob("*") if file.is_file()]
    return sorted(files, key=lambda file: file.stat().st_size)


def arrays_of(workdir, step, item):
    """Return the file from which arrays are read; the parts from which orbax merged it, `ocdbt.process_0`, remain."""
    return [file for file in files_of(workdir, step, item) if file.parent == workdir / f"checkpoints/{step}/{item}/d"][
        -1
    ]


def checkpoints_of(workdir):
    """Return the names of all checkpoints; step 3 is the best one."""
    return sorted(folder.name for folder in (workdir / "checkpoints").iterdir())


def flip(file, position):
    content = bytearray(file.read_bytes())
    content[position] ^= 0x10
    file.write_bytes(content)


def swap_record(workdir, step):
    """Change a recorded fingerprint, as if the disk returned another array than was written."""
    (file,) = (file for file in files_of(workdir, step, "record") if "metadata" in file.name)
    record = json.loads(file.read_text())
    record["fingerprints"]["variables"]["params/Dense_0/kernel"] ^= 1
    del record["sha256"]
    file.write_text(json.dumps(record | {"sha256": checkpoint_integrity.digest(record)}))


def change_record(workdir, step):
    """Change a number of the record; it remains valid JSON."""
    (file,) = (file for file in files_of(workdir, step, "record") if "metadata" in file.name)
    record = json.loads(file.read_text())
    record["skipped"]["total"] = 7
    file.write_text(json.dumps(record))


CORRUPTIONS = {
    "a file is missing": lambda workdir, step: arrays_of(workdir, step, "variables").unlink(),
    "a file is truncated": lambda workdir, step: os.truncate(arrays_of(workdir, step, "opt_state"), 100),
    "all files are empty": lambda workdir, step: [os.truncate(f, 0) for f in files_of(workdir, step, "variables")],
    "an item is missing": lambda workdir, step: shutil.rmtree(workdir / f"checkpoints/{step}/opt_state"),
    "a bit of an array is flipped": lambda workdir, step: flip(arrays_of(workdir, step, "variables"), -100),
    "a bit of the record is flipped": lambda workdir, step: flip(files_of(workdir, step, "record")[-1], 30),
    "another array was saved": swap_record,
    "a number of the record is changed": change_record,
}


@pytest.mark.parametrize("how", CORRUPTIONS)
def test_run_resumes_before_a_corrupt_checkpoint(copied, finished, how):
    CORRUPTIONS[how](copied, 12)
    message = r"checkpoint '.*/12' is corrupt .*; it was moved to .*, and steps 10 to 12 are repeated"
    with pytest.warns(CorruptDataWarning, match=message):
        again = train(tiny_config(finished[0]), copied)
    assert_same_bits(again, finished[1])
    assert records(copied) == records(finished[0] / "run")
    assert (copied / "damaged/12").is_dir()
    assert checkpoints_of(copied) == checkpoints_of(finished[0] / "run") == ["12", "3", "6", "9"]


def test_all_corrupt_checkpoints_are_kept(copied, finished):
    for step in (9, 12):
        CORRUPTIONS["all files are empty"](copied, step)
    (copied / "damaged/12").mkdir(parents=True)
    with pytest.warns(CorruptDataWarning, match=r"steps 7 to (9|12) are repeated"):
        assert_same_bits(train(tiny_config(finished[0]), copied), finished[1])
    assert sorted(folder.name for folder in (copied / "damaged").iterdir()) == ["12", "12-2", "9"]


def test_run_without_valid_checkpoints_is_left_unchanged(copied, finished):
    for step in (3, 6, 9, 12):
        CORRUPTIONS["all files are empty"](copied, step)
    before = sorted(copied.rglob("*"))
    with pytest.raises(UserError, match=r"checkpoint '.*/12' is corrupt .*; no other can be read either: 9, 6, 3"):
        train(tiny_config(finished[0]), copied)
    assert sorted(copied.rglob("*")) == before


def test_predictor_uses_the_latest_valid_checkpoint(copied, finished):
    CORRUPTIONS["a bit of an array is flipped"](copied, 12)
    with pytest.warns(CorruptDataWarning, match=r"checkpoint '.*/12' is corrupt .*; step 9 is used instead"):
        predictor = load_predictor(copied)
    assert_same_bits(predictor.variables, load_predictor(finished[0] / "run", step=9).variables)
    with pytest.raises(UserError, match=r"checkpoint '.*/12' is corrupt"):
        load_predictor(copied, step=12)
    assert (copied / "checkpoints/12").is_dir()


def test_predictor_reads_what_training_has_replaced(copied, monkeypatch):
    """A running training deletes an old checkpoint, and saves a new one, after they were listed."""
    read, folder, expected = checkpoint_integrity._read, copied / "checkpoints", load_predictor(copied)

    def read_later(checkpoints, like, step):
        if step == 12:
            (folder / "12").rename(folder / "15")
        return read(checkpoints, like, step)

    monkeypatch.setattr(checkpoint_integrity, "_read", read_later)
    assert_same_bits(load_predictor(copied).variables, expected.variables)
    (folder / "15").rename(folder / "12")
    with pytest.raises(UserError, match=r"no checkpoint 12 in .*; there are: 3, 6, 9, 15"):
        load_predictor(copied, step=12)


@pytest.mark.parametrize("content", ['{"accu', "", "[]", '{"accuracy": null}'])
def test_corrupt_scores_keep_the_checkpoint_usable(copied, finished, content):
    (copied / "checkpoints/12/metrics/metrics").write_text(content)
    with pytest.warns(CorruptDataWarning, match=r"the scores of checkpoint '.*/12' are corrupt; they were moved to"):
        assert_same_bits(train(tiny_config(finished[0]), copied), finished[1])
    assert checkpoints_of(copied) == ["12", "3", "6", "9"]
    assert (copied / "damaged/12-metrics").read_text() == content


def test_predictor_with_corrupt_scores_raises(copied):
    (copied / "checkpoints/12/metrics/metrics").write_text('{"accu')
    with pytest.raises(UserError, match=r"cannot read the scores in .*; resuming .* moves corrupt ones away"):
        load_predictor(copied)


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied"),
        OSError(24, "Too many open files"),
        ValueError("UNAVAILABLE: x"),
        ValueError("UNAUTHENTICATED: x"),
    ],
)
def test_failing_machine_is_not_corruption(copied, finished, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(ocp.CheckpointManager, "restore", fail)
    message = r"cannot read '.*/12' at the moment .*; nothing was changed; start the same command again"
    with pytest.raises(UserError, match=message):
        train(tiny_config(finished[0]), copied)
    assert not (copied / "damaged").exists()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 31), st.integers(0, 23))
def test_flipped_bit_changes_the_fingerprint(seed, bit, position):
    numbers = np.random.default_rng(seed).integers(0, 2**32, (2, 3, 4), np.uint32).view(np.float32)
    flipped = numbers.copy().view(np.uint32)
    flipped.reshape(-1)[position] ^= np.uint32(1 << bit)
    one, other = (fingerprint.fingerprints({"a": array}) for array in (numbers, flipped.view(np.float32)))
    assert one.keys() == {"a"}
    assert one != other


def test_several_wrong_numbers_change_the_fingerprint():
    numbers = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    two_signs = numbers * np.where(np.arange(12).reshape(3, 4) < 2, -1, 1).astype(np.float32)
    others = (numbers[::-1], numbers[:, ::-1], -numbers, two_signs, 2 * numbers, 0 * numbers)
    assert len({fingerprint.fingerprints(array)[""] for array in (numbers, *others)}) == 7


@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_fingerprint_is_independent_of_devices(num_devices):
    numbers = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
    mesh = mesh_lib.mesh(num_devices)
    expected = fingerprint.fingerprints(numbers)
    assert fingerprint.fingerprints(mesh_lib.shard_batch(numbers, mesh)) == expected
    assert fingerprint.fingerprints(mesh_lib.replicate(numbers, mesh)) == expected


def test_fingerprints_of_a_tree_are_one_program(caplog):
    arrays = [np.arange(length, dtype=np.float32) for length in (5, 6, 7)]
    with jax.log_compiles(), caplog.at_level("WARNING"):
        fingerprint.fingerprints(arrays)
        assert fingerprint.all_finite(arrays)
    assert sum("Compiling" in record.getMessage() for record in caplog.records) == 2


def test_lost_log_lines_are_reported_and_logging_continues(copied, finished):
    shutil.rmtree(copied / "checkpoints/12")
    os.truncate(copied / "metrics.jsonl", 0)
    with pytest.warns(CorruptDataWarning, match=r"metrics\.jsonl' has lost the metrics of steps 1 to 9"):
        assert_same_bits(train(tiny_config(finished[0]), copied), finished[1])
    assert records(copied) == [line for line in records(finished[0] / "run") if line["step"] > 9]


def test_clock_running_backwards_has_no_effect(finished, tmp_path, monkeypatch):
    now = time.time()
    ticks = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: now - 3600.0 * next(ticks))
    assert_same_bits(train(tiny_config(finished[0]), tmp_path / "run"), finished[1])
    assert records(tmp_path / "run") == records(finished[0] / "run")


def test_second_process_on_a_workdir_is_refused(finished, tmp_path):
    config = config_file(tmp_path, tiny_config(finished[0]))
    workdir = tmp_path / "run"
    with exclusive_lock(workdir):
        done = quick_command("train.py", "--config", config, "--workdir", workdir)
    assert done == (
        1,
        "",
        f"error: another process is writing to '{workdir}'; wait for it, stop it, or choose another folder\n",
    )
    assert [file.name for file in workdir.iterdir()] == ["lock"]
    with running("train.py", "--config", config, "--workdir", workdir) as process:
        deadline = time.monotonic() + 120
        while not (workdir / "run.json").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send(9)
        assert process.ended().returncode == -9
    assert (workdir / "lock").exists()
    done = quick_command("train.py", "--config", config, "--workdir", workdir)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 320 KiB, which can be made larger or read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=320k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("needs permission to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_reason_of_a_long_error_has_both_ends():
    error = OSError(f"cannot write {'x' * 1_000}: No space left on device\nat line 3")
    reason = checkpoint_integrity.reason(error)
    assert re.fullmatch(r"cannot write x+ … x+: No space left on device", reason)
    assert len(reason) < 510


def remount(folder, option):
    subprocess.run(["mount", "-o", f"remount,{option}", folder], check=True)


def test_full_disk_is_a_one_line_error_and_the_run_resumes(finished, small_disk, tmp_path):
    config = tiny_config(finished[0])
    config.checkpoint.keep = 100
    arguments = ("train.py", "--config", config_file(tmp_path, config), "--workdir", small_disk / "run")
    done = quick_command(*arguments)
    assert done.returncode == 1, done
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert "No space left on device" in done.stderr
    remount(small_disk, "size=10m")
    done = quick_command(*arguments)
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        alone = mesh_lib.mesh(1)
        patch.setattr(mesh_lib, "mesh", lambda: alone)
        straight = train(config, tmp_path / "straight")
        assert_same_bits(train(config, small_disk / "run"), straight)
    assert records(small_disk / "run") == records(tmp_path / "straight")


def test_read_only_disk_is_a_one_line_error(finished, small_disk, tmp_path):
    remount(small_disk, "size=10m")
    workdir = small_disk / "run"
    shutil.copytree(finished[0] / "run", workdir)
    shutil.rmtree(workdir / "checkpoints/12")
    before = {file: file.read_bytes() for file in workdir.rglob("*") if file.is_file()}
    remount(small_disk, "ro")
    arguments = ("train.py", "--config", config_file(tmp_path, tiny_config(finished[0])), "--workdir", workdir)
    done = quick_command(*arguments)
    assert done.returncode == 1, done
    assert done.stderr.startswith(f"error: cannot write to '{workdir}' (Read-only file system)")
    assert done.stderr.count("\n") == 1
    assert before == {file: file.read_bytes() for file in workdir.rglob("*") if file.is_file()}


@pytest.mark.parametrize("sizes", [(8, 1, 4, 2), (2, 8, 1, 4)])
def test_run_resumes_on_any_number_of_devices(finished, tmp_path, monkeypatch, sizes):
    """Each number of devices trains to one checkpoint; the result equals that of eight devices, up to rounding."""
    meshes = {size: mesh_lib.mesh(size) for size in sizes}
    for index, size in enumerate(sizes):
        with monkeypatch.context() as patch:
            patch.setattr(mesh_lib, "mesh", lambda size=size: meshes[size])
            if index < len(sizes) - 1:
                stop_after_saves(patch, 1)
                with pytest.raises(StopAfterSave):
                    train(tiny_config(finished[0]), tmp_path / "run")
            else:
                last = train(tiny_config(finished[0]), tmp_path / "run")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), last, finished[1])
    ours, theirs = records(tmp_path / "run"), records(finished[0] / "run")
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(
            [a[key] for key in a if a[key] is not None],
            [b[key] for key in b if b[key] is not None],
            rtol=1e-3,
            atol=1e-4,
        )


@pytest.mark.parametrize(("all_arrive", "may_move"), [(True, True), (False, True), (False, False)])
def test_checkpoint_that_only_some_processes_can_read(copied, finished, monkeypatch, all_arrive, may_move):
    """They must all start again without it; if none can read it, they resume from the one before."""
    CORRUPTIONS["a file is missing"](copied, 12)
    monkeypatch.setattr(multihost, "all_arrive", lambda _: all_arrive)
    if all_arrive:
        with pytest.warns(CorruptDataWarning, match=r"steps 10 to 12 are repeated"):
            train(tiny_config(finished[0]), copied)
        return
    moved = r"it was moved to .*/damaged/12'; " if may_move else ""
    message = rf"but only on some processes; {moved}start the same command again on all hosts"
    with pytest.raises(UserError, match=message):
        train(tiny_config(finished[0]), copied) if may_move else load_predictor(copied)
    assert (copied / "checkpoints/12").exists() != may_move
    assert (copied / "damaged/12").exists() == may_move
