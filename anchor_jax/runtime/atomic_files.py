"""Atomic writes, exclusive locks on folders, and the cache folder."""

import contextlib
import errno
import fcntl
import itertools
import os
import secrets
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from anchor_jax.core.errors import UserError
from anchor_jax.runtime import leases, object_storage
from anchor_jax.runtime.paths import local_path

_INCOMPLETE = "incomplete-"
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}  # on some network file systems


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path; when the block ends without an error, rename it to `path` in one step.

    The temporary file is in the same folder, and its name ends with the name of `path`. Temporary files of killed
    processes are removed; those that another process is still writing are kept. For an object in a bucket, the path is
    that of a local file, which is then uploaded; this also replaces the object in one step.
    """
    if object_storage.is_remote(path):
        with object_storage.write_object(path) as file:
            yield file
            leases.check_held(path)  # not earlier: the lock may be lost while the file is being written
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent)
    incomplete, descriptor = _create_locked(path)
    try:
        yield incomplete
        with incomplete.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(incomplete, path)
    finally:
        incomplete.unlink(missing_ok=True)
        os.close(descriptor)


@contextlib.contextmanager
def write_new_file(path: Path) -> Iterator[Path]:
    """Same as `atomic_write`, for a file that must not exist yet.

    Raises:
      UserError: `path` exists, or cannot be written.
    """
    check_does_not_exist(path)
    try:
        with atomic_write(path) as file:
            yield file
    except OSError as error:
        raise UserError(f"cannot write '{path}' ({error.strerror})") from error


def keep_earlier(folder: Path, files: Iterable[Path]) -> Path:
    """Move files of a folder to `earlier/1`, `earlier/2`, ... in it, before others take their place.

    Args:
      folder: the folder.
      files: in it or in its subfolders.

    Returns:
      The folder they moved to, where they keep their names and subfolders.
    """
    earlier = folder / "earlier"
    target = next(earlier / str(number) for number in itertools.count(1) if not (earlier / str(number)).exists())
    for file in files:
        move(file, target / file.relative_to(folder))
    return target


def move(source: Path, target: Path) -> Path:
    """Move a file or folder to a path that does not exist, and return that path.

    In a bucket, all objects are copied, then deleted, the commit file of a checkpoint first.
    """
    if object_storage.is_remote(source):
        leases.check_held(source)
        object_storage.move(source, target)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    return source.rename(target)


def write_texts(texts: Mapping[Path, str], *belonging: Path) -> None:
    """Write text files of one folder; if one exists with another text, all of them move away first, with a message.

    Args:
      texts: path -> text, in the order in which they are written; they move in the reverse order.
      *belonging: other files of the folder that would move with them, and are written by the caller.
    """
    others = [file for file, text in texts.items() if file.exists() and file.read_bytes() != text.encode()]
    if others:
        folder = others[0].parent
        earlier = keep_earlier(folder, (file for file in (*belonging, *reversed([*texts])) if file.exists()))
        print(f"earlier results in '{folder}' were moved to '{earlier}': {', '.join(file.name for file in texts)}")
    for file, text in texts.items():
        with atomic_write(file) as new:
            new.write_text(text, encoding="utf-8")


def check_does_not_exist(path: Path) -> None:
    """Raise a `UserError` if a path exists."""
    if path.exists():
        raise UserError(f"'{path}' already exists; choose another name")


def is_incomplete(file: Path) -> bool:
    """Return whether a file is a temporary file of `atomic_write`, still being written or abandoned."""
    return file.name.startswith(_INCOMPLETE)


def _create_locked(path: Path) -> tuple[Path, int]:
    """Create a temporary file; return it and the descriptor whose lock lasts until it is closed or the process ends."""
    while True:
        incomplete = path.with_name(f"{_INCOMPLETE}{secrets.token_hex(4)}-{path.name}")
        descriptor = os.open(incomplete, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        with contextlib.suppress(OSError):  # some network file systems have no locks; nothing is ever removed there
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if incomplete.exists():  # no other process removed it as abandoned before it was locked
            return incomplete, descriptor
        os.close(descriptor)


def _remove_abandoned(folder: Path) -> None:
    for file in folder.glob(f"{_INCOMPLETE}*"):
        with contextlib.suppress(OSError), file.open("r+b") as opened:  # it may be gone, or owned by another user
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink()


@contextlib.contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, the file `lock` in it, so that only this process writes there.

    The file remains afterwards. A lock is released when its process dies, so a leftover file does not block. In a copy
    of a folder from a bucket, where `lock` is a folder, the file is `lock/lock`. Where the file system has no locks,
    warns that nothing keeps a second process out. In a bucket, see `leases`.

    Raises:
      UserError: another process holds the lock.
      OSError: the folder cannot be written.
    """
    if object_storage.is_remote(folder):
        with leases.hold(folder):
            yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "lock" / "lock" if (folder / "lock").is_dir() else folder / "lock"
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        message = f"another process is writing to '{folder}'; wait for it, stop it, or choose another folder"
        raise UserError(message) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        warnings.warn(
            f"the file system of '{folder}' has no locks ({error.strerror}); make sure that no other process writes "
            "there",
            stacklevel=2,
        )


def cache_folder() -> Path:
    """Return the cache folder: $ANCHOR_JAX_CACHE, then $XDG_CACHE_HOME/anchor_jax, then ~/.cache/anchor_jax.

    Raises:
      OSError: there is no home directory.
      UserError: a variable is an address, or names a home folder that is not known.
    """
    if folder := os.environ.get("ANCHOR_JAX_CACHE"):
        return local_path("ANCHOR_JAX_CACHE", folder)
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return local_path("XDG_CACHE_HOME", folder) / "anchor_jax"
    try:
        return local_path("the cache folder", "~/.cache/anchor_jax")
    except UserError as error:
        raise OSError("there is no home directory; set ANCHOR_JAX_CACHE to a folder") from error


def prune_cache(folder: Path, max_bytes: int) -> None:
    """Remove the oldest files of a folder until at most `max_bytes` remain; skip files that cannot be removed."""
    files: list[tuple[float, int, Path]] = []
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):  # another process may be removing it, too
            status = file.stat()
            files += [(status.st_mtime, status.st_size, file)] if file.is_file() else []
    total = 0
    for _, size, file in sorted(files, reverse=True):
        total += size
        if total > max_bytes:
            with contextlib.suppress(OSError):
                file.unlink()
