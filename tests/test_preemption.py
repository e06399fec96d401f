"""Stops by signal: the run saves, exits cleanly, and resumes to the same bits."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest
from commands import ROOT, environment_of_command, running
from conftest import assert_same_bits, records, tiny_config

from anchor_jax.cli import app
from anchor_jax.core.errors import Preempted
from anchor_jax.runtime import preemption
from anchor_jax.training import pace
from anchor_jax.training.evaluator import Evaluator
from anchor_jax.training.loop import train


def stop_after(monkeypatch, num_steps):
    """Make a run receive SIGTERM after a number of steps."""

    @contextlib.contextmanager
    def catch_stop_signals():
        calls = []
        yield lambda: calls.append(1) or (signal.SIGTERM if len(calls) > num_steps else 0)

    monkeypatch.setattr(preemption, "catch_stop_signals", catch_stop_signals)
    monkeypatch.setattr(pace, "_CHUNK_SECONDS", 0.0)  # check for signals after every step


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The last state and the folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("straight")
    config = averaging(tiny_config(folder))
    return train(config, folder / "run"), folder / "run"


def averaging(config):
    """Turn on the moving average, and log every fourth step."""
    config.training.ema_decay, config.logging.every_steps = 0.9, 4
    return config


@pytest.mark.parametrize("num_steps", [1, 5, 6])
def test_stopped_run_resumes_to_the_same_bits_and_lines(tiny, tmp_path, monkeypatch, straight, num_steps):
    """It stops between two log lines, at the step of one, and after a checkpoint."""
    averaging(tiny)
    with monkeypatch.context() as patch:
        stop_after(patch, num_steps)
        with pytest.raises(Preempted, match=rf"SIGTERM: {num_steps} of 12 steps are done and saved") as stopped:
            train(tiny, tmp_path / "run")
    assert stopped.value.status == 143
    assert (tmp_path / f"run/checkpoints/{num_steps}").is_dir()
    assert_same_bits(train(tiny, tmp_path / "run"), straight[0])
    assert records(tmp_path / "run") == records(straight[1])


def test_repeatedly_stopped_run_finishes(tiny, tmp_path, monkeypatch, straight):
    averaging(tiny)
    with monkeypatch.context() as patch:
        for done in (5, 10):
            stop_after(patch, 5)
            with pytest.raises(Preempted, match=f"{done} of 12 steps are done"):
                train(tiny, tmp_path / "run")
        stop_after(patch, 5)
        assert_same_bits(train(tiny, tmp_path / "run"), straight[0])
    assert records(tmp_path / "run") == records(straight[1])


def test_stop_between_log_lines_keeps_the_accumulated_sums(tiny, tmp_path, monkeypatch):
    """Even if the resumed run logs at other steps."""
    tiny.training.total_epochs = 1.0
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        with pytest.raises(Preempted):
            train(tiny, tmp_path / "run")
    before = records(tmp_path / "run")
    assert [line["step"] for line in before] == [2, 3, 3, 4]
    tiny.logging.every_steps, tiny.checkpoint.every_epochs = 0, 1.0
    train(tiny, tmp_path / "run")
    straight = train_to(tiny, tmp_path / "straight", every_steps=2)
    assert records(tmp_path / "run")[:4] == before
    assert records(tmp_path / "run")[4:] == straight[-2:]  # means of steps 5 and 6


def train_to(config, workdir, every_steps):
    config.logging.every_steps = every_steps
    train(config, workdir)
    return records(workdir)


def test_stop_during_the_last_evaluation_is_reported_at_the_end(tiny, tmp_path, monkeypatch):
    evaluations = []

    @contextlib.contextmanager
    def catch_stop_signals():
        yield lambda: signal.SIGINT if evaluations else 0

    run_evaluation = Evaluator.run
    monkeypatch.setattr(Evaluator, "run", lambda *args: evaluations.append(1) or run_evaluation(*args))
    monkeypatch.setattr(preemption, "catch_stop_signals", catch_stop_signals)
    tiny.evaluation.every_epochs = tiny.checkpoint.every_epochs = 2.0
    with pytest.raises(Preempted, match="SIGINT: the run is complete") as stopped:
        train(tiny, tmp_path / "run")
    assert stopped.value.status == 130
    assert (tmp_path / "run/checkpoints/12").is_dir()


def test_stop_before_the_first_step_saves_nothing(tiny, tmp_path, monkeypatch):
    stop_after(monkeypatch, 0)
    with pytest.raises(Preempted, match="no step is done yet; run the same command to start again"):
        train(tiny, tmp_path / "run")
    assert not list((tmp_path / "run/checkpoints").glob("[0-9]*"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_ends_a_command_with_its_status(tmp_path, number, status):
    """A run that would take hours is stopped in its first seconds."""
    config = tmp_path / "config.py"
    config.write_text(
        "from anchor_jax.config import base\n\n\ndef get_config():\n    config = base()\n"
        '    config.model.name = "mlp"\n    config.training.total_epochs = 1e6\n    return config\n'
    )
    with running("train.py", "--config", config, "--workdir", tmp_path / "run") as process:
        lines = tmp_path / "run/metrics.jsonl"
        deadline = time.monotonic() + 120
        while not (lines.exists() and lines.stat().st_size):
            assert time.monotonic() < deadline, process.err.read_text()
            time.sleep(0.05)
        process.send(number)
        done = process.ended()
    assert done.returncode == status
    notice, stopped = done.stderr.splitlines()
    name = signal.Signals(number).name
    assert notice == f"{name}: stopping after this step; send it again to stop immediately"
    assert stopped.startswith(f"stopped: {name}: ")
    (saved,) = (folder.name for folder in (tmp_path / "run/checkpoints").glob("[0-9]*"))
    assert f"{int(saved):,} of 11,000,000 steps are done" in stopped


BUSY = """
import signal, time
from anchor_jax.runtime import preemption
with preemption.catch_stop_signals() as stop_signal:
    # the main thread receives no signals, as if it waited for the compiler
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    print("ready", flush=True)
    while not stop_signal():
        time.sleep(0.01)
    print("received", flush=True)
    time.sleep(60)
"""


def test_second_signal_ends_a_busy_process_immediately():
    line = [sys.executable, "-c", BUSY]
    with subprocess.Popen(
        line, cwd=ROOT, env=environment_of_command(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stderr.close()  # Ctrl-C also ended what read it
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "received\n"
        process.send_signal(signal.SIGTERM)  # the same request, sent to the process and to its group
        time.sleep(1.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130


def test_signal_handlers_are_restored():
    before = signal.getsignal(signal.SIGTERM)
    with preemption.catch_stop_signals() as stop_signal:
        assert stop_signal() == 0
        os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + 10
        while not stop_signal():
            assert time.monotonic() < deadline
        assert stop_signal() == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_keyboard_interrupt_is_a_one_line_error(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(app.app, "run", lambda main, flags_parser: main(["eval.py"]))
    for name in ("enable_compilation_cache", "_disable_faulthandler"):
        monkeypatch.setattr(app, name, lambda: None)
    monkeypatch.setattr(app.sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(app.warnings, "showwarning", app.warnings.showwarning)
    with pytest.raises(SystemExit) as ended:
        app.run(interrupt)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "error: interrupted\n"
