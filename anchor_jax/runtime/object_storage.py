"""Objects in buckets of Google Cloud Storage (`gs://`) and S3 (`s3://`), through etils.epath and fsspec.

A path in a bucket is an `epath.Path`. It is typed as a `Path`, whose methods it has as far as the package uses them.
This module provides what buckets lack: folders, renames and appends.
"""

import contextlib
import errno
import functools
import importlib.util
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from anchor_jax.core.errors import UserError

# scheme -> the library that serves it, and the extra that installs that
LIBRARIES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}
_ADDRESS = re.compile(r"(gs|s3):/+", re.IGNORECASE)
COMMIT_FILE = "commit_success.txt"  # orbax writes it last; without it, a checkpoint is incomplete
_CLIENTS = ("gcsfs", "s3fs", "botocore", "aiobotocore", "aiohttp", "google", "requests", "urllib3")


def is_address(text: str) -> bool:
    """Return whether a text is the address of an object in a bucket; one slash suffices, since `Path` merges two."""
    return _ADDRESS.match(text) is not None


def is_remote(path: object) -> bool:
    """Return whether a path is one in a bucket."""
    return isinstance(path, os.PathLike) and not isinstance(path, Path) and is_address(os.fspath(path))


def remote_path(name: str, text: str) -> Path:
    """Return the path of an address such as `gs://bucket/run`; the bucket is not contacted, see `check_answers`.

    Args:
      name: of the argument, for messages.
      text: the address, see `is_address`.

    Raises:
      UserError: the library that serves it is not installed, or it names no bucket.
    """
    match = _ADDRESS.match(text)
    assert match
    scheme, place = match[1].lower(), text[match.end() :].strip("/")
    library, extra = LIBRARIES[scheme]
    if importlib.util.find_spec(library) is None:
        raise UserError(f"{name} is '{text}', which needs {library}; install it: pip install 'anchor-jax[{extra}]'")
    bucket, _, key = place.partition("/")
    if not bucket or (key and any(part in ("", ".", "..") for part in key.split("/"))):
        raise UserError(f"{name} is '{text}'; expected {scheme}://BUCKET/FOLDER, without '.', '..' and empty names")
    return path_of(f"{scheme}://{place}")


def path_of(address: str | os.PathLike[str]) -> Path:
    """Return the path in a bucket for an address, and else the path on this machine."""
    text = os.fspath(address)
    if not is_address(text):
        return Path(text)
    _configure()
    from etils import epath

    return cast(Path, epath.Path(text))


def file_system(path: Path) -> Any:
    """Return the file system of fsspec that epath uses for a path in a bucket."""
    _configure()
    from etils.epath import backend

    return backend.fsspec_backend.fs(os.fspath(path))


def _configure() -> None:
    """Make epath, fsspec and tensorstore use the same servers, and no caches.

    If TensorFlow is installed, epath would use its client. Cached listings would miss what other processes write.
    tensorstore reads the address of an emulator from another variable.
    """
    os.environ.setdefault("EPATH_USE_TF", "false")
    from etils.epath import gpath
    from fsspec.config import conf

    if forget := getattr(getattr(gpath, "_is_tf_installed", None), "cache_clear", None):
        forget()

    for protocol in ("gs", "gcs", "s3"):
        conf.setdefault(protocol, {}).setdefault("use_listings_cache", False)
    if host := os.environ.get("STORAGE_EMULATOR_HOST"):
        host = host if "://" in host else f"http://{host}"
        os.environ.setdefault("TENSORSTORE_GCS_HTTP_URL", host)
        conf["gcs"].setdefault("token", "anon")
        conf["gcs"].setdefault("endpoint_url", host)
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # uses gRPC, which emulators lack


@functools.cache
def s3_options() -> dict[str, Any]:
    """Return settings of tensorstore's client of S3, which reads less of the environment than botocore."""
    files = file_system(path_of("s3://any"))
    files.connect()
    meta = files.s3.meta
    options: dict[str, Any] = {}
    if not meta.endpoint_url.endswith(".amazonaws.com"):  # there, it finds the region of a bucket itself
        options = {"endpoint": meta.endpoint_url, "aws_region": meta.region_name or "us-east-1"}
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        options["aws_credentials"] = {"type": "environment"}  # the default chain warns of missing files
    return options


def check_answers(name: str, path: Path) -> None:
    """Raise a `UserError` if the bucket of a path does not exist or does not answer; checked once per process."""
    scheme, _, place = str(path).partition("://")
    _check_bucket(name, f"{scheme}://{place.partition('/')[0]}")


@functools.cache
def _check_bucket(name: str, address: str) -> None:
    path = path_of(address)
    try:
        with errors_of(path):
            exists = file_system(path).exists(os.fspath(path))
    except OSError as error:
        raise UserError(
            f"{name}: cannot open '{path}' ({error.strerror}); check the bucket and the credentials"
        ) from error
    if not exists:
        raise UserError(f"{name}: there is no bucket '{path}', or it may not be read; create it first")


def reason_of(error: BaseException) -> str:
    """Return what to print for an error of a type that clients of buckets define, "" for any other error."""
    return _one_line(error) if type(error).__module__.startswith(_CLIENTS) else ""


def reason_of_os_error(error: OSError) -> str:
    """Return what to print for an `OSError` about an object, or that a client raised; "" for any other."""
    if is_address(str(error.filename)):
        return f"{error.strerror}: '{error.filename}'"
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    module = str(trace.tb_frame.f_globals.get("__name__")) if trace else ""
    return _one_line(error) if module.startswith(_CLIENTS) else ""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


@contextlib.contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Turn an error of a client into an `OSError` with a reason; clients raise a dozen types of errors."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        if error.strerror:
            raise
        kind = type(error) if type(error).__module__ == "builtins" else OSError  # those of clients take other arguments
        raise kind(error.errno or errno.EIO, _one_line(error), str(path)) from error
    except Exception as error:
        if not (reason := reason_of(error)):
            raise
        raise OSError(errno.EIO, reason, str(path)) from error


@contextlib.contextmanager
def write_object(path: Path) -> Iterator[Path]:
    """Yield a local file; when the block ends without an error, it becomes the object, completely or not at all."""
    with tempfile.TemporaryDirectory(prefix="anchor_jax-") as folder:
        file = Path(folder) / path.name
        yield file
        upload(file, path)


@contextlib.contextmanager
def write_folder(path: Path) -> Iterator[Path]:
    """Yield a local folder: the path itself, or a temporary one, which is uploaded when the block ends."""
    with contextlib.closing(AppendedFiles(path)) as files:
        yield files.folder
        files.publish()


class AppendedFiles:
    """Files of a folder that are appended to; for a bucket, local copies that `publish` uploads.

    Attributes:
      folder: where to append: the folder itself, or a temporary one for a folder in a bucket.
    """

    def __init__(self, folder: Path, *names: str):
        """Download the files of these names, as far as they exist, from a folder in a bucket."""
        self._target, self._sizes = folder, dict[Path, int]()
        self._scratch = tempfile.TemporaryDirectory(prefix="anchor_jax-") if is_remote(folder) else None
        self.folder = Path(self._scratch.name) if self._scratch else folder
        for name in names if self._scratch else ():
            with contextlib.suppress(FileNotFoundError):
                download(folder / name, self.folder / name)

    @property
    def are_copies(self) -> bool:
        """Whether the files are copies that have to be published."""
        return self._scratch is not None

    def publish(self) -> None:
        """Upload the files that have changed in size; do nothing for a folder of this machine."""
        if not self._scratch:
            return
        for file in sorted(self.folder.rglob("*")):
            if file.is_file() and self._sizes.get(file) != (size := file.stat().st_size):
                upload(file, self._target / str(file.relative_to(self.folder)))
                self._sizes[file] = size

    def close(self) -> None:
        """Remove the temporary folder, if there is one."""
        if self._scratch:
            self._scratch.cleanup()


def upload(file: Path, path: Path) -> None:
    """Upload a local file; an earlier object of this name remains until the upload is complete.

    Raises:
      OSError: the bucket cannot be written.
    """
    with errors_of(path):
        file_system(path).put_file(str(file), os.fspath(path))


def download(path: Path, file: Path) -> None:
    """Copy an object to a local file.

    Raises:
      OSError: it does not exist or cannot be read.
    """
    with errors_of(path):
        file_system(path).get_file(os.fspath(path), str(file))


@contextlib.contextmanager
def local_file(path: Path) -> Iterator[Path]:
    """Yield a file of this machine: the path itself, or a temporary copy of an object.

    Raises:
      OSError: it does not exist or cannot be read.
    """
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="anchor_jax-") as folder:
        download(path, Path(folder) / path.name)
        yield Path(folder) / path.name


def size_of(path: Path) -> int:
    """Return the bytes of a file or an object."""
    return cast(Any, path.stat()).length if is_remote(path) else path.stat().st_size


def time_modified(path: Path) -> float:
    """Return the modification time of a file or an object in seconds; that of an object is rounded down."""
    return cast(Any, path.stat()).mtime if is_remote(path) else path.stat().st_mtime_ns / 1e9


def copy(source: Path, target: Path) -> None:
    """Copy an object within its bucket.

    Raises:
      OSError: the bucket cannot be written.
    """
    with errors_of(target):
        file_system(source).cp_file(os.fspath(source), os.fspath(target))


def create(path: Path, content: bytes) -> None:
    """Create an object on the condition that there is none of this name; do nothing if there is one.

    Raises:
      OSError: the bucket cannot be written.
    """
    with contextlib.suppress(FileExistsError), errors_of(path):
        file_system(path).pipe_file(os.fspath(path), content, mode="create")


def move(source: Path, target: Path) -> None:
    """Move an object, or all objects below a path: copy them, then delete them, a checkpoint's commit file first.

    Raises:
      OSError: the bucket cannot be written.
    """
    files = file_system(source)
    with errors_of(source):
        below = _objects_below(source)
        for object_ in below or [""]:
            files.cp_file(f"{source}{object_}", f"{target}{object_}")
        delete(source)


def delete(path: Path) -> None:
    """Delete an object, or all objects below a path, a checkpoint's commit file first; do nothing if there are none."""
    files = file_system(path)
    with errors_of(path):
        below = _objects_below(path)
        if f"/{COMMIT_FILE}" in below:
            files.rm_file(f"{path}/{COMMIT_FILE}")
            below.remove(f"/{COMMIT_FILE}")
        if below:
            files.rm([f"{path}{object_}" for object_ in below])
        elif files.isfile(os.fspath(path)):
            files.rm_file(os.fspath(path))


def _objects_below(path: Path) -> list[str]:
    """Return the names of the objects below a path, relative to it, each with a leading slash."""
    root = os.fspath(path).partition("://")[2]
    return [name.removeprefix(root) for name in file_system(path).find(os.fspath(path)) if name != root]
