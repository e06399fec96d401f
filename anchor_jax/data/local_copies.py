"""Copies of data in buckets, in the cache: array_record, zip archives and image decoders read files of this machine.

The name of a copy is a hash of the names, sizes and checksums of its objects, so that other data never take its place.
"""

import fnmatch
import hashlib
import os
import re
import tempfile
from pathlib import Path

from anchor_jax.core.errors import UserError
from anchor_jax.runtime import multihost, object_storage
from anchor_jax.runtime.atomic_files import cache_folder
from anchor_jax.runtime.paths import absolute, absolute_storage_path

_CHECKSUMS = ("ETag", "md5Hash", "crc32c", "generation")  # in listings; S3 has the first, GCS all


def local_data(name: str, path: str | os.PathLike[str]) -> Path:
    """Return the absolute path of data on this machine, after copying them if they are in a bucket.

    Args:
      name: of the argument, for messages.
      path: of a file or a folder, which may be in a bucket.

    Raises:
      UserError: as for `storage_path`; there is nothing in the bucket, or no space for the copy.
    """
    data = absolute_storage_path(name, path)
    return copy(data) if object_storage.is_remote(data) else data


def local_tfds(data_dir: Path, dataset: str) -> Path:
    """Return a local folder of prepared datasets that has a dataset; from a bucket, its newest version is copied.

    Args:
      data_dir: the folder of prepared datasets, which may be in a bucket.
      dataset: such as "cifar10", "cifar10:3.0.2", "cifar10:3.*.*" or "cifar10_corrupted/fog_3".
    """
    if not object_storage.is_remote(data_dir):
        return data_dir
    dataset, _, version = dataset.partition(":")
    folder = data_dir / dataset
    with object_storage.errors_of(folder):
        found = {child.name for child in folder.iterdir()} if folder.is_dir() else set[str]()
    versions = [name for name in found if re.fullmatch(r"\d+\.\d+\.\d+", name)]
    versions = fnmatch.filter(versions, version or "*")
    if not versions:
        return copy(folder, below=dataset) if found and not version else data_dir
    newest = max(versions, key=lambda name: tuple(map(int, name.split("."))))
    return copy(folder / newest, below=f"{dataset}/{newest}")


def copy(path: Path, below: str = "") -> Path:
    """Copy an object, or all objects below a path, into the cache, unless they are there; return the copy.

    Args:
      path: in a bucket.
      below: if given, the copy is at this relative path of the returned folder.

    Raises:
      UserError: there is nothing at the path, it cannot be read, or the cache cannot be written.
    """
    files, root = object_storage.file_system(path), os.fspath(path).partition("://")[2]
    try:
        with object_storage.errors_of(path):
            found = files.find(os.fspath(path), detail=True)
            found = {name: info for name, info in found.items() if not name.endswith("/")}  # those mark folders
    except OSError as error:
        raise UserError(f"cannot read '{path}' ({error.strerror}); check the bucket and the credentials") from error
    if not found:
        raise UserError(f"there is nothing at '{path}'; check the path")
    facts = [
        [name.removeprefix(root), info.get("size"), *(str(info[key]) for key in _CHECKSUMS if key in info)]
        for name, info in sorted(found.items())
    ]
    digest = hashlib.sha256(repr((os.fspath(path), facts)).encode()).hexdigest()[:16]
    try:
        target = absolute(cache_folder()) / "buckets" / digest
    except OSError as error:
        raise UserError(f"cannot copy '{path}': {error}") from error
    if not target.is_dir():
        _download(path, found, root, target, below or path.name)
    return target if below else target / path.name


def _download(path: Path, found: dict[str, dict[str, int]], root: str, target: Path, place: str) -> None:
    """Copy objects into a new folder, which gets its name when it is complete."""
    megabytes = sum(info.get("size") or 0 for info in found.values()) / 1e6
    if multihost.is_primary():
        print(f"copying '{path}' ({len(found):,} files, {megabytes:,.1f} MB) to '{target}'")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="incomplete-") as scratch:
            _fill(Path(scratch) / "copy", path, {name: f"{place}{name.removeprefix(root)}" for name in found})
            try:
                os.rename(f"{scratch}/copy", target)
            except OSError:
                if not target.is_dir():  # another process was faster
                    raise
    except OSError as error:
        raise UserError(
            f"cannot copy '{path}' to '{target}' ({error.strerror}); set ANCHOR_JAX_CACHE to a folder with enough "
            "space, or try again"
        ) from error


def _fill(folder: Path, path: Path, places: dict[str, str]) -> None:
    """Copy the objects below a path into a folder, each to a relative place there."""
    files = {name: os.path.abspath(folder / place) for name, place in places.items()}
    if outside := [name for name, file in files.items() if not file.startswith(f"{folder}/")]:
        raise UserError(f"'{path}' holds an object whose name leads out of its folder: '{outside[0]}'; rename it")
    for parent in {os.path.dirname(file) for file in files.values()}:
        os.makedirs(parent, exist_ok=True)
    with object_storage.errors_of(path):
        object_storage.file_system(path).get([*files], [*files.values()])
