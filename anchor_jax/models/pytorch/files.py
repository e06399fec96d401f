"""State dicts in files: .safetensors, files saved by PyTorch (.pth, .pt, .bin, .ckpt), .npz, and shards of these."""

import json
import os
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from anchor_jax.core.errors import UserError
from anchor_jax.models.pytorch import torch_files
from anchor_jax.models.pytorch.entries import StateDict, find_state_dict, listed
from anchor_jax.models.pytorch.names import SOURCES
from anchor_jax.runtime.atomic_files import write_new_file
from anchor_jax.runtime.paths import local_path, storage_path

# what transformers, timm and accelerate write into a folder, in the order in which transformers looks for it
_IN_FOLDER = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_SHARD = re.compile(r"(.*)-\d{5}-of-(\d{5})(\.[^.]+)")  # such as model-00001-of-00002.safetensors
_WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
# first bytes of files that are mistaken for weights, and what they are
_OTHER_FORMATS = {
    b"version https://git-lfs": "a pointer of Git LFS and not the file itself; run git lfs pull",
    b"<": "a web page, as failed downloads are; download the file again",
    b"\x89HDF": "an HDF5 file, as Keras writes; convert it to a state dict of PyTorch",
    b"\x1f\x8b": "compressed by gzip; unpack it",
    b"\x93NUMPY": "a single array of NumPy; save a state dict",
}
_FLAX = "weights of JAX; convert them to the names of a network of timm, save its state dict, and pass it as timm:FILE"


class Address(NamedTuple):
    """Where weights are: the parts of "SOURCE:FILE#ENTRY", `config.model.weights`; `entry` is "" if not given."""

    source: str
    file: Path
    entry: str = ""


def source_and_file(weights: str) -> Address:
    """Split "SOURCE:FILE" or "SOURCE:FILE#ENTRY", the format of `config.model.weights`.

    A "#" belongs to the name of the file if there is a file of that name.

    Raises:
      UserError: the format is another one, or the source is unknown.
    """
    source, _, file = weights.partition(":")
    if any(re.match(r"(?!file:)\w[\w.+-]*://", part) for part in (weights, file)):
        raise UserError(
            f"config.model.weights must be SOURCE:FILE with a file on this machine; got '{weights}'; download it first"
        )
    if not file or source not in SOURCES:
        raise UserError(
            f"config.model.weights must be SOURCE:FILE, where SOURCE is one of {', '.join(SOURCES)}; got '{weights}'"
        )
    path = local_path("config.model.weights", file)
    name, _, entry = file.rpartition("#")
    if not name or not entry or os.path.exists(path):
        return Address(source, path)
    return Address(source, local_path("config.model.weights", name), entry)


def read_state_dict(file: str | os.PathLike[str], entry: str = "") -> dict[str, Any]:
    """Read the state dict of a file as `read_checkpoint` does; return arrays or `torch.Tensor` by name."""
    return read_checkpoint(file, entry).tensors


def read_checkpoint(file: str | os.PathLike[str], entry: str = "") -> StateDict:
    """Read a state dict from a file, without running any code in it.

    In a training checkpoint, the weights that its framework evaluates are taken, see `find_state_dict`.

    Args:
      file: a .safetensors file, a file written by `torch.save`, which needs PyTorch, an .npz file, the index or any
        shard of a file in shards, or a folder with a file named as by transformers.
      entry: the entry of a checkpoint to take, see `find_state_dict`.

    Raises:
      UserError: the file does not exist, is corrupt or contains more than weights, there is no such entry, or PyTorch
        is not installed.
    """
    file = local_path("file", file)
    files = weight_files(file)
    content = _load(files[0])
    for shard in files[1:]:
        content = {**content, **_load(shard)}
    if (index := _index_of(file)) and (missing := index.keys() - content.keys()):
        raise UserError(f"the shards of '{file}' lack tensors: {listed(sorted(missing), 4)}; download them again")
    try:
        found = find_state_dict(content, entry)
    except UserError as error:
        raise UserError(f"cannot read '{file}': {error}") from error
    if not found:
        raise UserError(
            f"'{file}' contains no state dict, neither at the top level nor as model_ema, state_dict, model, or any "
            f"other entry{_keys_of(content)}; save one with torch.save(network.state_dict(), FILE)"
        )
    return found


def weight_files(file: Path) -> list[Path]:
    """Return the files that hold the weights of a file: itself, all shards of it, or those in a folder.

    Raises:
      UserError: there is no such file, or a shard is missing.
    """
    if os.path.isdir(file):
        return weight_files(_in_folder(file))
    if not os.path.isfile(file):
        raise UserError(f"no file '{file}'; pass a .safetensors file or one saved by PyTorch{_hub_hint(file)}")
    if index := _index_of(file):
        shards = sorted(set(index.values()))
    elif shard := _SHARD.fullmatch(file.name):
        start, count, suffix = shard.groups()
        shards = [f"{start}-{number:05}-of-{count}{suffix}" for number in range(1, int(count) + 1)]
    else:
        return [file]
    if missing := [name for name in shards if not (file.parent / name).is_file()]:
        raise UserError(f"'{file}' is one of {len(shards)} shards or their index, but there is no {listed(missing, 4)}")
    return [file.parent / name for name in shards]


def write_state_dict(file: str | os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Write a state dict to a new file: .safetensors, or the format of `torch.save` for any other suffix.

    Raises:
      UserError: the file exists or cannot be written, or PyTorch is needed and not installed.
    """
    file = storage_path("file", file)
    arrays = {name: np.ascontiguousarray(tensor).reshape(tensor.shape) for name, tensor in tensors.items()}
    with write_new_file(file) as new_file:
        if file.suffix.lower() == ".safetensors":
            safetensors.numpy.save_file(arrays, new_file, metadata={"format": "pt"})  # required by transformers
        else:
            torch = torch_files.import_torch(file)
            torch.save({name: torch.tensor(array) for name, array in arrays.items()}, new_file)


def _index_of(file: Path) -> dict[str, str]:
    """Return the names of tensors and of their shards in an index; {} for any other file."""
    if file.suffix.lower() != ".json" or not os.path.isfile(file):
        return {}
    try:
        index = json.loads(file.read_bytes())["weight_map"]
        if index and all(isinstance(name, str) and name == Path(name).name for name in index.values()):
            return index
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise UserError(f"cannot read '{file}': it is no index of shards, a 'weight_map' of names and files next to it")


def _in_folder(folder: Path) -> Path:
    """Return the file of weights in a folder."""
    if found := [name for name in _IN_FOLDER if (folder / name).is_file()]:
        return folder / found[0]
    names = sorted(path.name for path in folder.iterdir())
    if "run.json" in names:
        raise UserError(f"'{folder}' is a run; write its weights with anchor-jax to-torch, and pass that file")
    if ".metadata" in names:
        raise UserError(
            f"'{folder}' is a distributed checkpoint; convert it with python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch {folder} FILE"
        )
    if {"_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt"} & {*names}:
        raise UserError(f"'{folder}' is a checkpoint of orbax, {_FLAX}")
    files = [name for name in names if name.lower().endswith(_WEIGHTS_SUFFIXES)]
    raise UserError(
        f"no file '{_IN_FOLDER[0]}' or '{_IN_FOLDER[2]}' in the folder '{folder}'; pass the file of the weights"
        + (f", such as {listed(files, 4)}" if files else "")
    )


def _hub_hint(file: Path) -> str:
    """Return how to get a network that is named as on a hub."""
    is_name = re.fullmatch(r"[\w.-]+/[\w.-]+", str(file)) and not file.name.lower().endswith(_WEIGHTS_SUFFIXES)
    return f"; to get a network from a hub, run hf download {file} --local-dir FOLDER" if is_name else ""


def _keys_of(content: Any) -> str:
    return f" ({listed(map(str, content), 4)})" if isinstance(content, Mapping) and content else ""


def _load(file: Path) -> Any:
    """Return the content of one file, by the format that its first bytes show."""
    try:
        with file.open("rb") as opened:
            start = opened.read(64)
    except OSError as error:
        raise UserError(f"cannot read '{file}' ({error.strerror}); check its permissions") from error
    is_safetensors = start[8:9] == b"{" and int.from_bytes(start[:8], "little") < file.stat().st_size
    if is_safetensors or (file.suffix.lower() == ".safetensors" and start[:2] != b"PK"):
        return _load_safetensors(file)
    for first, what in _OTHER_FORMATS.items():
        if start.lstrip()[: len(first)] == first:
            raise UserError(f"cannot read '{file}': it is {what}")
    if file.suffix.lower() == ".msgpack":
        raise UserError(f"cannot read '{file}': it holds {_FLAX}")
    return _zip_loader(file)(file) if start[:4] == b"PK\x03\x04" else torch_files.load(file)


def _zip_loader(file: Path) -> Callable[[Path], Any]:
    """Return the function that loads a zip archive, as PyTorch and NumPy write."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"cannot read '{file}': it is damaged or incomplete; copy or download it again") from error
    if any(name.endswith("/constants.pkl") for name in names):
        raise UserError(
            f"cannot read '{file}': it is a program of TorchScript; save its weights with "
            f"torch.save(torch.jit.load('{file.name}').state_dict(), FILE)"
        )
    if all(name.endswith(".npy") for name in names):
        return _load_npz
    if any(name.endswith("/data.pkl") for name in names) and "archive_format" not in "".join(names):
        return torch_files.load
    raise UserError(
        f"cannot read '{file}': it is an archive of {listed(names, 2)}, not weights; unpack it, or save a state dict"
    )


def _load_safetensors(file: Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(file)
    except Exception as error:  # corrupt files, and dtypes that NumPy lacks, raise many types
        reason = str(error).partition("\n")[0][:200]
        raise UserError(f"cannot read '{file}' ({reason}); pass an intact .safetensors file") from error


def _load_npz(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            content = {name: archive[name] for name in archive.files}
    except Exception as error:  # corrupt files raise many types; pickles a ValueError
        raise UserError(f"cannot read '{file}' ({type(error).__name__}); it is corrupt, or holds objects") from error
    if any("/" in name for name in content):
        raise UserError(
            f"cannot read '{file}': it holds weights of JAX; timm reads those of big_vision: save the state_dict() of "
            f"timm.create_model(NAME, checkpoint_path='{file.name}'), and pass it as timm:FILE"
        )
    return content
