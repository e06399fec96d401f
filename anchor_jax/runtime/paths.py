"""Paths that users give: "~" is the home folder; some may be in a bucket; other addresses are refused."""

import os
import re
import warnings
from pathlib import Path
from urllib.parse import unquote

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.runtime import object_storage

# A scheme has two letters at least; C: is a drive. `Path` makes one slash of two, and some stores are written with one.
_STORES = "abfss?|adl|az|cos|dbfs|ftp|gcs|gs|hdfs|hf|https?|memory|oci|oss|r2|s3[an]?|sftp|ssh|swift|viewfs|wasbs?"
_ADDRESS = re.compile(rf"[a-z][a-z0-9+.-]+://|({_STORES}):/|[^/@:]+@[^/@:]+:/", re.IGNORECASE)
_FILE = re.compile("file:(?://(?:localhost)?)?(?=/(?!/))", re.IGNORECASE)  # of a file address of this machine
_VARIABLE = re.compile(r"(?<![^/])\$([A-Z_]\w*|\{\w+\})")


def local_path(name: str, path: str | os.PathLike[str]) -> Path:
    """Return a user's path on this machine: "~" and "~user" become home folders, `file:///x%20y` becomes `/x y`.

    `./~` and `./gs:` are the folders of these names. Variables such as `$HOME` are left to the shell; a warning says so
    if nothing exists there.

    Args:
      name: of the argument, for messages.
      path: relative or absolute. A name that contains a colon, such as `runs/12:30`, is a name like any other.

    Raises:
      UserTypeError: `path` is not a path.
      UserError: it is an address such as `gs://bucket/run`, or begins with "~user" for an unknown user.

    >>> local_path("workdir", "file:///data/my%20run"), local_path("workdir", "runs/12:30")
    (PosixPath('/data/my run'), PosixPath('runs/12:30'))
    """
    checks.path(name, path)
    local = expanded(name, path)
    if (variable := _VARIABLE.search(str(local))) and not os.path.lexists(local):
        warnings.warn(
            f"{name}: '{local}' does not exist, and {variable[0]} in it is no more than a name here; only a shell "
            "replaces variables, and not within single quotes",
            stacklevel=2,
        )
    return local


def storage_path(name: str, path: str | os.PathLike[str]) -> Path:
    """Return `local_path`, or the path of an address in a bucket: `gs://bucket/run` or `s3://bucket/run`.

    Raises:
      UserTypeError: `path` is not a path.
      UserError: as for `local_path`; the bucket does not answer, or the library that serves it is not installed.
    """
    checks.path(name, path)
    if not object_storage.is_address(os.fspath(path)):
        _ = expanded(name, path, buckets=True)
        return local_path(name, path)
    remote = object_storage.remote_path(name, os.fspath(path))
    object_storage.check_answers(name, remote)
    return remote


def absolute_storage_path(name: str, path: str | os.PathLike[str]) -> Path:
    """Return `absolute_path`, or the path of an address in a bucket."""
    return absolute(storage_path(name, path))


def absolute(path: Path) -> Path:
    """Return a path as an absolute one; a path in a bucket already is."""
    return path if object_storage.is_remote(path) else Path(os.path.abspath(path))


def resolved(path: Path) -> Path:
    """Return a path with symbolic links resolved; buckets have none."""
    return path if object_storage.is_remote(path) else path.resolve()


def absolute_path(name: str, path: str | os.PathLike[str]) -> Path:
    """Return `local_path` as an absolute path; resolve "..", but not symbolic links."""
    return Path(os.path.abspath(local_path(name, path)))


def expanded(name: str, path: str | os.PathLike[str], *, buckets: bool = False) -> Path:
    """Same as `local_path` without its warning; `buckets` also allows addresses in buckets, which are not contacted."""
    text = os.fspath(path)
    if buckets and object_storage.is_address(text):
        return object_storage.remote_path(name, text)
    rest = text.removeprefix("./")
    if rest != text and (rest.startswith("~") or _ADDRESS.match(rest)):
        return Path.cwd() / rest  # `Path` drops the "./" that marks a name as such
    if address := _FILE.match(text):
        return Path(unquote(text[address.end() :]))
    if re.match("file:/", text, re.IGNORECASE):
        raise UserError(f"{name} is '{text}', but a file address of this machine is file:///PATH; give the path alone")
    if _ADDRESS.match(text):
        raise UserError(
            f"{name} is '{text}', an address; only folders of this machine and mounted ones"
            f"{', gs://BUCKET and s3://BUCKET' if buckets else ''} can be used; mount it "
            "(gcsfuse, mount-s3, rclone mount) or copy it (gcloud storage cp, aws s3 cp, hdfs dfs -get), and give the "
            "local path"
        )
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{name} is '{text}', but no home folder of {text.partition('/')[0]} is known here; give an absolute path"
        ) from error


def printable(name: str) -> str:
    r"""Escape what UTF-8 cannot encode: file names, and class names taken from them, may contain other bytes.

    >>> printable(os.fsdecode(b"caf\xe9")), printable("café")
    ('caf\\udce9', 'café')
    """
    return name.encode(errors="backslashreplace").decode()
