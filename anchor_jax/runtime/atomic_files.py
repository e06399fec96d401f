"""Files that are either there whole or not at all, and those that can be made again."""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from anchor_jax.core.errors import UserError

_INCOMPLETE = "incomplete-"


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path to write to; it takes the place of `path` once all is written, in one step, or never.

    It is beside `path` and ends in the same name. What a process left there that was killed while it wrote is removed;
    what another one is writing is left alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent)
    incomplete, held = _begun(path)
    try:
        yield incomplete
        with incomplete.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(incomplete, path)
    finally:
        incomplete.unlink(missing_ok=True)
        os.close(held)


@contextlib.contextmanager
def write_new_file(path: Path) -> Iterator[Path]:
    """As `replacing`, of what is not there yet.

    Raises:
      UserError: there is something at `path` already, or it cannot be written to.
    """
    check_does_not_exist(path)
    try:
        with atomic_write(path) as file:
            yield file
    except OSError as error:
        raise UserError(f"cannot write '{path}' ({error.strerror})") from error


def check_does_not_exist(path: Path) -> None:
    """Refuses what is there already."""
    if path.exists():
        raise UserError(f"'{path}' is there already; choose another name")


def is_incomplete(file: Path) -> bool:
    """Whether a file is being written by `replacing`, or was when its process was killed."""
    return file.name.startswith(_INCOMPLETE)


def _begun(path: Path) -> tuple[Path, int]:
    """A new file, and the descriptor by which it is locked until that is closed or this process is no more."""
    while True:
        incomplete = path.with_name(f"{_INCOMPLETE}{secrets.token_hex(4)}-{path.name}")
        held = os.open(incomplete, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        with contextlib.suppress(OSError):  # some disks of a network know no locks: there nothing is ever removed
            fcntl.flock(held, fcntl.LOCK_EX)
        if incomplete.exists():  # nobody took it for abandoned before it was locked
            return incomplete, held
        os.close(held)


def _remove_abandoned(folder: Path) -> None:
    for file in folder.glob(f"{_INCOMPLETE}*"):
        with contextlib.suppress(OSError), file.open("r+b") as opened:  # it may be gone, or belong to somebody else
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink()


@contextlib.contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Be the only process that writes to a folder.

    The file `lock` in it stays; left by a process that is dead, it is no obstacle.

    Raises:
      UserError: another process is in it.
      OSError: it cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        told = f"another process writes to '{folder}'; wait for it, end it, or choose another folder"
        raise UserError(told) from error
    try:
        yield
    finally:
        lock.release()


def cache_folder() -> Path:
    """Of what can be made again: $ANCHOR_JAX_CACHE, then $XDG_CACHE_HOME/anchor_jax, then ~/.cache/anchor_jax."""
    default = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "anchor_jax")
    return Path(os.environ.get("ANCHOR_JAX_CACHE") or default).expanduser()


def prune_cache(folder: Path, max_bytes: int) -> None:
    """Remove the oldest files in a folder, as far as that can be done, until no more than so many bytes are left."""
    found = []
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):  # another process may be at it too
            status = file.stat()
            found += [(status.st_mtime, status.st_size, file)] if file.is_file() else []
    total = 0
    for _, size, file in sorted(found, reverse=True):
        total += size
        if total > max_bytes:
            with contextlib.suppress(OSError):
                file.unlink()
