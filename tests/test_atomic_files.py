"""Files that are there whole or not at all, whenever their writer is killed."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from anchor_jax.evaluation import storage
from anchor_jax.reporting.comparison.html import check_folder
from anchor_jax.runtime.atomic_files import atomic_write, is_incomplete

WRITER = """
import sys
from pathlib import Path
from anchor_jax.files import replacing

with replacing(Path(sys.argv[1])) as file:
    file.write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path):
    """A process in the middle of writing `results.json`."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, tmp_path / "results.json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        yield process
        process.kill()


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_what_a_killed_process_left_is_removed_by_the_next_that_writes(tmp_path, writer):
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    (left,) = tmp_path.iterdir()
    assert is_incomplete(left)
    with atomic_write(tmp_path / "other.json") as file:
        file.write_text("whole")
    assert names(tmp_path) == ["other.json"]


def test_what_another_process_is_writing_is_left_alone(tmp_path, writer):
    with atomic_write(tmp_path / "results.json") as file:
        file.write_text("sooner")
    assert (tmp_path / "results.json").read_text() == "sooner"
    writer.communicate("")
    assert writer.returncode == 0
    assert (tmp_path / "results.json").read_text() == "half"
    assert names(tmp_path) == ["results.json"]


def test_what_is_not_written_yet_is_no_result_and_no_comparison(tmp_path, writer):
    assert storage.read(tmp_path) == {}
    check_folder(tmp_path)


def test_failure_leaves_what_was_there(tmp_path):
    (tmp_path / "results.json").write_text("earlier")

    def write_half():
        with atomic_write(tmp_path / "results.json") as file:
            file.write_text("half")
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        write_half()
    assert names(tmp_path) == ["results.json"]
    assert (tmp_path / "results.json").read_text() == "earlier"


def test_a_file_that_was_taken_for_abandoned_before_it_was_locked_is_begun_again(tmp_path, monkeypatch):
    lost = []
    create = os.open

    def create_and_lose_the_first(path, *arguments):
        descriptor = create(path, *arguments)
        if not lost:
            lost.append(path)
            path.unlink()
        return descriptor

    monkeypatch.setattr(os, "open", create_and_lose_the_first)
    with atomic_write(tmp_path / "results.json") as file:
        assert lost != [file]
        file.write_text("whole")
    assert names(tmp_path) == ["results.json"]


def test_others_may_read_what_was_written_as_any_new_file(tmp_path):
    with atomic_write(tmp_path / "arrays.npz") as file:
        np.savez(file, numbers=np.arange(3))
    (tmp_path / "new").write_text("")
    assert (tmp_path / "arrays.npz").stat().st_mode == (tmp_path / "new").stat().st_mode
