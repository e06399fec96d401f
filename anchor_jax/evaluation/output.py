"""Where the results of a run are: in the folder `eval` of its workdir, or in a folder of their own.

A folder of its own serves runs that cannot be written, or several evaluations at once. It names its run in the file
`evaluated_run.json`; everything that reads the results of a workdir takes such a folder as well.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from anchor_jax.core.errors import UserError
from anchor_jax.runtime.atomic_files import atomic_write, exclusive_lock, is_incomplete
from anchor_jax.runtime.object_storage import is_remote, path_of
from anchor_jax.runtime.paths import resolved, storage_path

POINTER = "evaluated_run.json"
_LOCK = "lock"


class Root(NamedTuple):
    """The folder of all results of a run, with one folder per checkpoint.

    Attributes:
      path: the folder.
      workdir: of the run.
      is_own: whether the folder is outside of the workdir.
    """

    path: Path
    workdir: Path
    is_own: bool

    def check_writable(self) -> None:
        """Raise a `UserError` if the folder cannot be written, before anything is computed."""
        if is_remote(self.path):
            return  # taking the lock, before anything is measured, shows it
        existing = next(folder for folder in (self.path.absolute(), *self.path.absolute().parents) if folder.exists())
        if existing.is_dir() and not os.access(existing, os.W_OK):
            raise self._error("it is read-only")

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock of the folder, which is created if it does not exist.

        Raises:
          UserError: another process is writing there, or the folder cannot be written.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(exclusive_lock(self.path))
                if self.is_own:
                    with atomic_write(self.path / POINTER) as file:
                        file.write_text(json.dumps({"workdir": str(resolved(self.workdir))}) + "\n")
            except OSError as error:
                raise self._error(error.strerror or str(error)) from error
            yield

    def _error(self, reason: str) -> UserError:
        advice = "choose another --out" if self.is_own else "give another folder for the results as --out"
        return UserError(f"cannot write to '{self.path}' ({reason}); {advice}")


def open_root(workdir: Path, out: str | os.PathLike[str] | None) -> Root:
    """Return the folder of the results of a run; nothing is written yet.

    Args:
      workdir: of the run.
      out: a folder of its own, or None.

    Raises:
      UserTypeError: `out` is not a path.
      UserError: `out` is a file, or holds something else than results of this run.
    """
    if out is None:
        return Root(workdir / "eval", workdir, is_own=False)
    folder = storage_path("out", out)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out '{folder}' is a file; give a folder")
    if not (folder / POINTER).exists():
        others = [file for file in folder.glob("*") if file.name != _LOCK and not is_incomplete(file)]
        if others:
            raise UserError(
                f"--out '{folder}' holds something other than results of eval.py, such as '{others[0].name}'; give a "
                "new or an empty folder"
            )
    elif (other := _pointed_to(folder)) != resolved(workdir) and other.exists():
        raise UserError(f"--out '{folder}' holds results of another run, '{other}'; give a new or an empty folder")
    return Root(folder, workdir, is_own=True)


def root_of(folder: Path) -> Path:
    """Return the folder of results, given that of a run, or a folder of results outside of it."""
    return folder if (folder / POINTER).exists() else folder / "eval"


def workdir_of(folder: Path) -> Path:
    """Return the folder of a run, given that folder, or one of its results outside of it.

    Raises:
      UserError: the file that names the run is corrupt.
    """
    return _pointed_to(folder) if (folder / POINTER).exists() else folder


def workdir_of_results(root: Path) -> Path:
    """Return the folder of a run, given the folder of all its results; see `root_of`."""
    return _pointed_to(root) if (root / POINTER).exists() else root.parent


def _pointed_to(folder: Path) -> Path:
    file = folder / POINTER
    try:
        return path_of(json.loads(file.read_text(encoding="utf-8"))["workdir"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{file}' is corrupt ({error}); move it away, or give another --out") from error
