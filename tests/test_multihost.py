"""Runs of several processes on one machine: they train, evaluate, fail and resume like a single process."""

import contextlib
import json
import os
import re
import shutil
import socket

import jax
import numpy as np
import pytest
from commands import quick_command, running, xla_flags
from conftest import assert_same_bits, config_file, records, tiny_config

from anchor_jax import UserError
from anchor_jax.evaluation import evaluate
from anchor_jax.runs import record as run_record
from anchor_jax.runs.load import load_checkpoint
from anchor_jax.runtime import multihost
from anchor_jax.training.loop import train

LOST = "error: another process of this run ended or cannot be reached; start the same command again on all hosts"

# Kills itself at the second checkpoint, once the first is complete.
KILLED = """
import os, runpy, signal, sys
from anchor_jax.runs import checkpoint
save, saved = checkpoint.save, []
def save_or_die(checkpoints, *args):
    saved.append(1)
    if len(saved) == 2:
        checkpoints.wait_until_finished()
        os.kill(os.getpid(), signal.SIGKILL)
    save(checkpoints, *args)
checkpoint.save = save_or_die
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_processes(num, *arguments, only=None):
    """Run a command as `num` processes of two devices each; `only` has arguments to prepend for one of them."""
    settings = {"XLA_FLAGS": xla_flags(2), "ANCHOR_JAX_PATIENCE_SECONDS": "5"}
    together = (f"--coordinator=127.0.0.1:{free_port()}", f"--num_processes={num}")
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                running(*(only or {}).get(index, ()), *arguments, *together, f"--process_id={index}", **settings)
            )
            for index in range(num)
        ]
        ended = [process.ended() for process in processes]
    return [(done.returncode, without_gloo(done.stdout), done.stderr) for done in ended]


def without_gloo(text):
    """Return the output of a process without the lines that Gloo prints."""
    return "\n".join(line for line in text.splitlines() if "[Gloo]" not in line and "peer ranks" not in line)


def output_of_success(ended):
    """Check that all processes succeeded and only process 0 printed, with its progress as errors; return its output."""
    for index, (status, _, errors) in enumerate(ended):
        assert status == 0, errors
        assert not [line for line in errors.splitlines() if index or not line.startswith("progress: ")], errors
    assert all(out == "" for _, out, _ in ended[1:])
    return ended[0][1]


def final_variables(workdir):
    step, predictor = load_checkpoint(run_record.load(workdir), "latest")
    assert step == 12
    return jax.device_get(predictor.variables)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def alone(folder):
    """The run of a single process on eight devices."""
    train(tiny_config(folder), folder / "alone")
    return folder / "alone"


@pytest.fixture(scope="module")
def two(folder):
    """The run of two processes."""
    out = output_of_success(run_processes(2, "train.py", "--config", config_file(folder), "--workdir", folder / "two"))
    assert "devices   4 x cpu" in out
    assert "step 12/12: test accuracy" in out
    return folder / "two"


def assert_close(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, other)


def without_wait(line):
    return {key: value for key, value in line.items() if "wait" not in key}


def assert_same_run(workdir, alone):
    ours, theirs = ([without_wait(line) for line in records(folder)] for folder in (workdir, alone))
    assert [line.keys() for line in ours] == [line.keys() for line in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert_close({k: v for k, v in a.items() if v is not None}, {k: v for k, v in b.items() if v is not None})
    assert_close(final_variables(workdir), final_variables(alone))


def test_two_processes_reproduce_the_run_of_one(two, alone):
    assert_same_run(two, alone)


def test_four_processes_reproduce_the_run_of_one(folder, alone):
    output_of_success(run_processes(4, "train.py", "--config", config_file(folder), "--workdir", folder / "four"))
    assert_same_run(folder / "four", alone)


def test_processes_share_decoding_and_sharded_state(folder, imagenet_like):
    """Each process decodes its own part of every batch, and holds its own shard of the parameters."""
    config = tiny_config(folder)
    config.data.source, config.data.path, config.data.test_split = "folder", str(imagenet_like.folder), "val"
    config.data.streaming, config.data.image_size, config.data.repeats = True, 16, 2
    config.data.mean, config.data.std = (0.5,) * 3, (0.25,) * 3
    config.augmentation.resized_crop, config.augmentation.mixup_alpha = (0.3, 1.0), 0.2
    config.anchoring.references, config.model.options.hidden = "batch", (32, 32)
    config.training.batch_size, config.training.total_epochs, config.training.ema_decay = 80, 4.0, 0.5
    train(config, folder / "stream alone")
    config.training.sharding = "fsdp"
    (folder / "stream").mkdir()
    output_of_success(
        run_processes(
            2, "train.py", "--config", config_file(folder / "stream", config), "--workdir", folder / "stream 2"
        )
    )
    assert_same_run(folder / "stream 2", folder / "stream alone")


def test_only_process_0_writes_files(two, alone):
    def names(workdir):
        # except checkpoints, to which orbax writes files of every process
        return sorted(
            str(file.relative_to(workdir)).replace("incomplete-", "")
            for file in workdir.rglob("*")
            if "checkpoints/" not in str(file) and "events." not in file.name
        )

    assert names(two) == names(alone)
    assert len(list((two / "tensorboard").glob("events.*"))) == 1
    assert json.loads((two / "run.json").read_text()) == json.loads((alone / "run.json").read_text())
    assert (two / "references.npz").read_bytes() == (alone / "references.npz").read_bytes()


def test_evaluation_by_two_processes_equals_that_of_one(two, folder):
    shutil.copytree(two, folder / "evaluated")
    suites = ("clean", "protocols")
    out = output_of_success(
        run_processes(
            2, "eval.py", "--workdir", folder / "evaluated", "--suites", ",".join(suites), "--num_references", 2
        )
    )
    assert out.count("numbers:") == 1
    numbers = json.loads((folder / "evaluated/eval/metrics.json").read_text())
    expected = evaluate(two, suites, (2,))

    def without_times(results):
        return {suite: {k: v for k, v in by_k["2"].items() if "seconds" not in k} for suite, by_k in results.items()}

    assert_close(without_times(numbers), without_times(expected))


def test_killed_process_ends_the_others_and_the_run_resumes(two, folder):
    arguments = ("train.py", "--config", config_file(folder), "--workdir", folder / "killed")
    (status, _, errors), (killed, _, _) = run_processes(2, *arguments, only={1: ("-c", KILLED)})
    assert killed == -9
    assert status == 1
    assert errors.startswith(LOST)
    assert errors.count("\n") == 1
    assert [file.name for file in (folder / "killed/checkpoints").glob("[0-9]*") if file.name.isdigit()] == ["3"]
    out = output_of_success(run_processes(2, *arguments))
    assert "resumes from step 3" in out
    assert_same_bits(final_variables(folder / "killed"), final_variables(two))
    assert records(folder / "killed") == records(two)


# Sends itself SIGTERM after the first checkpoint.
TERMINATED = """
import os, runpy, signal, sys
from anchor_jax.runs import checkpoint
save = checkpoint.save
def save_and_terminate(*args):
    save(*args)
    os.kill(os.getpid(), signal.SIGTERM)
checkpoint.save = save_and_terminate
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_signal_to_one_process_stops_all_at_the_same_step(two, folder):
    arguments = ("train.py", "--config", config_file(folder), "--workdir", folder / "stopped")
    (status, _, errors), (other, _, noted) = run_processes(2, *arguments, only={1: ("-c", TERMINATED)})
    assert (status, other) == (143, 143)
    assert re.fullmatch(r"stopped: SIGTERM: \d of 12 steps are done and saved; .*\n", errors)
    assert noted == "SIGTERM: stopping after this step; send it again to stop immediately\n"
    output_of_success(run_processes(2, *arguments))
    assert_same_bits(final_variables(folder / "stopped"), final_variables(two))
    assert records(folder / "stopped") == records(two)


def test_error_of_all_processes_is_printed_once(folder):
    arguments = ("train.py", "--config", config_file(folder), "--workdir", folder / "wrong")
    ended = run_processes(2, *arguments, "--config.anchoring.mask_prob=1.5")
    assert [status for status, _, _ in ended] == [1, 1]
    assert ended[0][2] == "error: config.anchoring.mask_prob must be in [0, 1]; got 1.5\n"
    assert ended[1][2] == ""


def test_error_of_one_process_ends_the_others(folder):
    wrong = "import runpy, sys; sys.argv = [*sys.argv[1:], '--config.anchoring.mask_prob=7']; "
    wrong += "runpy.run_path(sys.argv[0], run_name='__main__')"
    arguments = ("train.py", "--config", config_file(folder), "--workdir", folder / "wrong")
    ended = run_processes(2, *arguments, only={1: ("-c", wrong)})
    assert [status for status, _, _ in ended] == [1, 1]
    assert ended[0][2].startswith(LOST)
    assert ended[1][2] == "error of process 1 of 2: config.anchoring.mask_prob must be in [0, 1]; got 7.0\n"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--process_id=0",), "give --coordinator (or JAX_COORDINATOR_ADDRESS) and --num_processes"),
        (("--coordinator=here", "--num_processes=2", "--process_id=0"), "must be HOST:PORT of process 0; got 'here'"),
        (("--coordinator=here:1", "--num_processes=2", "--process_id=2"), "--process_id must lie in 0..1"),
    ],
)
def test_invalid_flags_exit_with_status_2(given, message, tmp_path):
    done = quick_command("eval.py", "--workdir", tmp_path, *given)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.fixture
def initialize(monkeypatch):
    """Record the calls of `jax.distributed.initialize`, which finds no cluster."""
    calls = []

    def not_found(*args, **kwargs):
        calls.append((args, kwargs))
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", not_found)
    for variable in [name for name in os.environ if re.match("SLURM_|OMPI_|PMI_|MV2_|WORLD_SIZE|TPU_", name)]:
        monkeypatch.delenv(variable)
    return calls


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_NTASKS": "8"},  # the script of a batch job, outside of `srun`
        {"SLURM_NTASKS": "1", "SLURM_STEP_NODELIST": "node1"},
        {"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NODELIST": "node1"},  # the shell of `salloc`
        {"OMPI_COMM_WORLD_SIZE": "1"},
        {"PMI_SIZE": "1", "PMI_RANK": "0"},
        {"WORLD_SIZE": "1", "RANK": "0"},
        {"WORLD_SIZE": "8"},
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
    ],
)
def test_single_process_does_not_initialize_jax_distributed(initialize, monkeypatch, environment):
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    multihost.initialize()
    multihost.initialize("127.0.0.1:1", 1, 0)
    assert initialize == []


@pytest.mark.parametrize(
    "environment",
    [
        {"SLURM_NTASKS": "2", "SLURM_STEP_NODELIST": "node[1-2]"},
        {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "4", "SLURM_STEP_NODELIST": "node[1-2]"},
        {"OMPI_COMM_WORLD_SIZE": "2"},
    ],
)
def test_cluster_that_jax_cannot_connect_raises(initialize, monkeypatch, environment):
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(
        UserError, match=r"cannot connect them .*; give --coordinator, --num_processes and --process_id"
    ):
        multihost.initialize()
    ((arguments, _),) = initialize
    assert arguments == (None, 2, None)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"PMI_SIZE": "4", "PMI_RANK": "1"}, r"4 processes were started by MPI \(PMI_SIZE=4\), .*; give --coordinator"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, r"2 processes were started by torchrun .* --num_processes=1 to run this"),
        ({"SLURM_NTASKS": "x", "SLURM_STEP_NODELIST": "a"}, "SLURM_NTASKS must be an integer; got 'x'"),
    ],
)
def test_other_launchers_raise_unless_told_to_run_alone(initialize, monkeypatch, environment, message):
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=message):
        multihost.initialize()
    multihost.initialize(num_processes=1)
    assert initialize == []


def test_process_0_reports_processes_that_never_come(tmp_path):
    port = free_port()
    flags = (f"--coordinator=127.0.0.1:{port}", "--num_processes=2", "--process_id=0", "--connect_timeout=1")
    done = quick_command("eval.py", "--workdir", tmp_path, *flags)
    assert done.returncode == 1
    waiting, error = done.stderr.splitlines()
    assert waiting == f"waiting for all 2 processes at 127.0.0.1:{port}, at most 1 s"
    assert error.startswith(f"error: waited 1 s for all 2 processes at 127.0.0.1:{port}; start all of them")


def test_single_tpu_host_needs_no_coordinator(initialize, monkeypatch):
    monkeypatch.setenv("TPU_ML_PLATFORM", "JAX")
    multihost.initialize()
    assert len(initialize) == 1


def test_unreachable_process_0_raises(initialize):
    with pytest.raises(UserError, match=r"cannot reach process 0 at 127.0.0.1:\d+ in 0 s .*; start it, and check"):
        multihost.initialize(f"127.0.0.1:{free_port()}", 2, 1, timeout=0)
    assert initialize == []
