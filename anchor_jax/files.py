"""Files that are either there whole or not at all, and those that can be made again."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from anchor_jax.errors import UserError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; it takes the place of `path` once all is written, in one step, or never."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # a folder beside the final place: on the same disk, so that the move is atomic, and gone after any failure
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="incomplete-") as scratch:
        incomplete = Path(scratch) / path.name
        yield incomplete
        with incomplete.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(incomplete, path)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
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


def keep_newest(folder: Path, max_bytes: int) -> None:
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
