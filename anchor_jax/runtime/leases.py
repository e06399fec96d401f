"""Locks on folders in buckets, where there are no file locks: objects with heartbeats.

The lock of a folder is the object with the highest number in `lock/`. A process takes it by creating the next number,
on the condition that there is no such object, and then writes a heartbeat into it. Another process takes it over if it
was released, if its holder is a process of this machine that has ended, or if it has had no heartbeat for a while. A
holder that finds a higher number, or another owner, has lost the lock and stops. No clocks are compared.
"""

import contextlib
import errno
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from anchor_jax.core.errors import UserError
from anchor_jax.runtime import multihost, object_storage

_held: "dict[str, _Lease]" = {}


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder in a bucket.

    Raises:
      UserError: another process holds the lock.
      OSError: the bucket cannot be written.
    """
    lease = _Lease(folder)
    lease.acquire()
    _held[str(folder)] = lease
    try:
        yield
    finally:
        del _held[str(folder)]
        lease.release()


def check_held(path: Path) -> None:
    """Raise a `UserError` if this process has lost its lock on a folder above a path."""
    for folder, lease in _held.items():
        if f"{path}/".startswith(f"{folder}/"):
            lease.check()


class _Lease:
    """The lock of one folder."""

    def __init__(self, folder: Path):
        self._folder, self._number, self._beat = folder, 0, 0
        self._owner = secrets.token_hex(8)
        self._patience = multihost.patience_seconds()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send_heartbeats, daemon=True)

    def acquire(self) -> None:
        """Take the lock; if its holder may have died, first wait for a heartbeat."""
        while True:
            number, content = self._newest()
            if number and not content.get("released"):
                self._check_dead(number, content)
            self._number = number + 1
            object_storage.create(self._object(self._number), self._content())
            if self._is_own():  # read it: a repeated request finds its own object, and a store may ignore the condition
                break
        for earlier in range(max(1, self._number - 3), self._number):
            with contextlib.suppress(OSError):
                object_storage.delete(self._object(earlier))
        self._thread.start()

    def release(self) -> None:
        """Let others take the lock. Errors are ignored: without heartbeats, the lock soon counts as free anyway."""
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            if self._is_own() and not self._is_superseded():
                self._write(released=True)

    def check(self) -> None:
        """Raise a `UserError` if another process has taken the lock."""
        with contextlib.suppress(OSError):  # if the bucket fails, so will the write that follows
            if self._is_superseded() or not self._is_own():
                raise UserError(
                    f"another process has taken over '{self._folder}', because no heartbeat of this one arrived for "
                    f"{self._patience} s; this one stops; complete checkpoints are kept"
                )

    def _check_dead(self, number: int, content: dict[str, Any]) -> None:
        """Return once the holder of the lock is known to be dead; raise a `UserError` if it lives."""
        where, process = str(content.get("machine")), content.get("process")
        if where == _machine() and not _is_running(process):
            return
        print(
            f"'{self._folder}' is locked by process {process} on {content.get('host')}; waiting at most "
            f"{self._patience} s for its heartbeat",
            file=sys.stderr,
        )
        deadline = time.monotonic() + self._patience
        while time.monotonic() < deadline:
            time.sleep(min(1.0, self._patience / 10))
            now = self._read(number)
            if now.get("released") or self._exists(number + 1):
                return
            if now.get("beat") != content.get("beat"):
                raise UserError(
                    f"another process is writing to '{self._folder}' (process {process} on {content.get('host')}); "
                    "wait for it, stop it, or choose another folder"
                )

    def _send_heartbeats(self) -> None:
        while not self._stop.wait(self._patience / 6):
            with contextlib.suppress(OSError):  # the network may fail for a moment
                if self._is_superseded() or not self._is_own():
                    return
                self._beat += 1
                self._write()

    def _write(self, *, released: bool = False) -> None:
        place = self._object(self._number)
        with object_storage.errors_of(place):
            place.write_bytes(self._content(released=released))

    def _content(self, *, released: bool = False) -> bytes:
        content = {"owner": self._owner, "host": socket.gethostname(), "machine": _machine(), "process": _process()}
        return json.dumps(content | {"beat": self._beat, "released": released}).encode()

    def _newest(self) -> tuple[int, dict[str, Any]]:
        """Return the number and the content of the newest lock; the number is 0 if there is none."""
        place = self._folder / "lock"
        with object_storage.errors_of(place):
            names = [file.name for file in place.glob("*")]
        number = max((int(name) for name in names if name.isdigit()), default=0)
        return number, self._read(number) if number else {}

    def _read(self, number: int) -> dict[str, Any]:
        """Return the content of a lock; a deleted one counts as released."""
        with object_storage.errors_of(self._object(number)):
            try:
                return dict(json.loads(self._object(number).read_bytes()))
            except FileNotFoundError:
                return {"released": True}
            except OSError as error:
                if error.errno != errno.EBUSY:  # s3: a heartbeat replaced the object after its size was asked for
                    raise
                return self._read(number)
            except (ValueError, TypeError):
                return {}

    def _is_own(self) -> bool:
        return self._read(self._number).get("owner") == self._owner

    def _is_superseded(self) -> bool:
        return self._exists(self._number + 1)

    def _exists(self, number: int) -> bool:
        with object_storage.errors_of(self._object(number)):
            return self._object(number).exists()

    def _object(self, number: int) -> Path:
        return self._folder / "lock" / f"{number:06}"


def _machine() -> str:
    """Return an identifier of this machine, its current boot and this container."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


def _process() -> str:
    return f"{os.getpid()} {_start_time(os.getpid())}"


def _is_running(process: Any) -> bool:
    """Return whether a process of this machine may still be running, as is assumed if its start time is unknown."""
    number, _, started = str(process).partition(" ")
    return not number.isdigit() or not started or _start_time(int(number)) == started


def _start_time(process: int) -> str:
    """Return the start time of a process, or "" if it has ended or the system does not provide this."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
