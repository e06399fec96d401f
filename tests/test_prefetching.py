"""Threads and worker processes of a training stream."""

import multiprocessing
import os
import signal
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from commands import quick_command
from jax._src import xla_bridge
from train_streams import AREA, BATCH_SIZE, SIZE, folder_config, read_batches

from anchor_jax import UserError
from anchor_jax.data import open_train_stream, train_stream
from anchor_jax.data.sources import open_encoded


@pytest.fixture
def data(imagenet_like):
    return folder_config(imagenet_like)


def test_worker_processes_return_the_same_batches(data, monkeypatch):
    data.train_split, data.max_corrupt_fraction = "corrupt", 0.1
    with pytest.warns(UserWarning, match="is replaced"):
        images, labels = read_batches(data, 5, batch_size=36)
    encoded = open_encoded("folder", "corrupt", path=data.path, image_size=SIZE)
    folder_example = encoded.example

    def example(row):
        assert multiprocessing.parent_process() is not None
        assert not xla_bridge._backends  # a worker does not initialize a device
        return folder_example(row)

    monkeypatch.setattr(train_stream, "open_encoded", lambda *a, **k: encoded._replace(example=example))
    data.workers = 2
    with pytest.warns(UserWarning, match="is replaced"):
        again = read_batches(data, 3, first_step=2, shard=(1, 2), batch_size=36)
    np.testing.assert_array_equal(again[0], images[2:, 18:])
    np.testing.assert_array_equal(again[1], labels[2:, 18:])
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("is_killed", [False, True])
def test_worker_errors_are_raised_in_the_parent(data, monkeypatch, is_killed):
    data.workers, data.max_corrupt_fraction = 1, 0.01
    encoded = open_encoded("folder", "train", path=data.path, image_size=SIZE)

    def example(row):
        if is_killed:
            os.kill(os.getpid(), signal.SIGKILL)
        raise UserError(f"no row {row}")

    monkeypatch.setattr(train_stream, "open_encoded", lambda *a, **k: encoded._replace(example=example))
    message = (
        r"^an input worker process was killed \(.*exit code -9.*; if .*, decrease config.data.workers$"
        if is_killed
        else r"^3 of the 240 images of folder-train cannot be read: .* allows 2; .* the first error: no row \d+$"
    )
    stream = open_train_stream(data, area=AREA, seed=0, batch_size=BATCH_SIZE)
    with stream, pytest.raises(UserError, match=message) as error:
        next(stream.batches())
    assert "\n" not in str(error.value)
    assert not multiprocessing.active_children()


def test_workers_end_when_their_parent_is_killed(data, tmp_path):
    script = f"""
        import multiprocessing, os, signal
        from anchor_jax.config import base
        from anchor_jax.data import open_train_stream

        def main():
            data = base().data
            data.update(source="folder", path={data.path!r}, image_size=8, workers=1)
            batches = open_train_stream(data, area=(0.08, 1.0), seed=0, batch_size=8).batches()
            next(batches)
            print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

        if __name__ == "__main__":
            main()
    """
    (tmp_path / "run.py").write_text(textwrap.dedent(script))
    run = quick_command(tmp_path / "run.py")
    assert run.returncode == -signal.SIGKILL
    (worker,) = map(int, run.stdout.split())
    deadline = time.monotonic() + 30
    while _is_running(worker):
        assert time.monotonic() < deadline, "the worker outlives its parent"
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_train_stream_close_ends_threads(data):
    stream = open_train_stream(data, area=AREA, seed=0, batch_size=BATCH_SIZE)
    next(stream.batches())
    stream.close()
    for thread in threading.enumerate():
        if thread.name.startswith("grain-prefetch"):
            thread.join(timeout=30)
            assert not thread.is_alive()
