"""Atomic writes: a file exists completely or not at all, whenever its writer is killed. Locks on folders."""

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from anchor_jax import UserError
from anchor_jax.evaluation import storage
from anchor_jax.reporting.comparison.report import check_folder
from anchor_jax.runtime.atomic_files import atomic_write, exclusive_lock, is_incomplete, write_texts

WRITER = """
import sys
from pathlib import Path
from anchor_jax.runtime.atomic_files import atomic_write

with atomic_write(Path(sys.argv[1])) as file:
    file.write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path):
    """A process that is halfway through writing `results.json`."""
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


def test_next_write_removes_files_of_killed_processes(tmp_path, writer):
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    (left,) = tmp_path.iterdir()
    assert is_incomplete(left)
    with atomic_write(tmp_path / "other.json") as file:
        file.write_text("complete")
    assert names(tmp_path) == ["other.json"]


def test_files_of_other_writers_are_kept(tmp_path, writer):
    with atomic_write(tmp_path / "results.json") as file:
        file.write_text("sooner")
    assert (tmp_path / "results.json").read_text() == "sooner"
    writer.communicate("")
    assert writer.returncode == 0
    assert (tmp_path / "results.json").read_text() == "half"
    assert names(tmp_path) == ["results.json"]


def test_incomplete_files_are_not_read_as_results(tmp_path, writer):
    assert storage.read(tmp_path) == {}
    check_folder(tmp_path)


def test_failed_write_keeps_the_previous_file(tmp_path):
    (tmp_path / "results.json").write_text("earlier")

    def write_half():
        with atomic_write(tmp_path / "results.json") as file:
            file.write_text("half")
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        write_half()
    assert names(tmp_path) == ["results.json"]
    assert (tmp_path / "results.json").read_text() == "earlier"


def test_file_removed_before_it_was_locked_is_created_again(tmp_path, monkeypatch):
    removed = []
    create = os.open

    def create_and_remove_the_first(path, *arguments):
        descriptor = create(path, *arguments)
        if not removed:
            removed.append(path)
            path.unlink()
        return descriptor

    monkeypatch.setattr(os, "open", create_and_remove_the_first)
    with atomic_write(tmp_path / "results.json") as file:
        assert removed != [file]
        file.write_text("complete")
    assert names(tmp_path) == ["results.json"]


def test_written_file_has_the_usual_permissions(tmp_path):
    with atomic_write(tmp_path / "arrays.npz") as file:
        np.savez(file, numbers=np.arange(3))
    (tmp_path / "new").write_text("")
    assert (tmp_path / "arrays.npz").stat().st_mode == (tmp_path / "new").stat().st_mode


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_exclusive_lock_without_file_locks_warns(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    message = r"has no locks \(.*\); make sure that no other process"
    with contextlib.ExitStack() as stack, pytest.warns(UserWarning, match=message):
        stack.enter_context(exclusive_lock(tmp_path))


def test_lock_of_a_folder_copied_from_a_bucket(tmp_path):
    (tmp_path / "lock").mkdir()
    (tmp_path / "lock" / "000001").touch()  # see `runtime.leases`
    with exclusive_lock(tmp_path), pytest.raises(UserError, match="another process"), exclusive_lock(tmp_path):
        pass


def test_write_texts_keeps_a_corrupt_file(tmp_path):
    (tmp_path / "table.csv").write_bytes(b"\xff")
    write_texts({tmp_path / "table.csv": "é"})
    assert (tmp_path / "table.csv").read_text(encoding="utf-8") == "é"
    assert (tmp_path / "earlier/1/table.csv").read_bytes() == b"\xff"


def test_write_texts_keeps_files_with_another_text(tmp_path, capsys):
    table, figure = tmp_path / "table.md", tmp_path / "table.png"
    for text in ("one", "one"):
        write_texts({table: text}, figure)
    figure.write_text("of one")
    assert not capsys.readouterr().out
    for number, text in enumerate(("two", "three"), start=1):
        write_texts({table: text}, figure)
        assert f"were moved to '{tmp_path / 'earlier' / str(number)}': table.md" in capsys.readouterr().out
    kept = {str(file.relative_to(tmp_path)): file.read_text() for file in tmp_path.rglob("*.*")}
    assert kept == {
        **{"table.md": "three", "earlier/1/table.md": "one", "earlier/1/table.png": "of one"},
        **{"earlier/2/table.md": "two"},
    }
