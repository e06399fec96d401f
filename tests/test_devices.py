"""Runs on several devices of one host."""

import shutil

from commands import quick_command, xla_flags
from conftest import config_file, tiny_config


def test_sharded_run_saves_resumes_and_is_evaluated(tmp_path):
    """XLA ends the process if several of its programs wait for the same CPU devices at once."""
    config, workdir = tiny_config(tmp_path), tmp_path / "run"
    config.model.options = {"hidden": (64, 64, 64)}
    config.training.sharding, config.training.ema_decay = "fsdp", 0.9
    train = ("train.py", "--config", config_file(tmp_path, config), "--workdir", workdir)
    done = quick_command(*train, XLA_FLAGS=xla_flags(4))
    assert done.returncode == 0, done.stderr
    assert all(line.startswith("progress: ") for line in done.stderr.splitlines()), done.stderr  # on a slow machine
    assert "devices   4 x cpu" in done.stdout
    shutil.rmtree(workdir / "checkpoints/12")
    for command in (train, ("eval.py", "--workdir", workdir, "--num_references=4")):
        done = quick_command(*command, XLA_FLAGS=xla_flags(4))
        assert done.returncode == 0, done.stderr
        assert all(line.startswith("progress: ") for line in done.stderr.splitlines()), done.stderr
    assert (workdir / "checkpoints/12").is_dir()
