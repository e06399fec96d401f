"""Files of PyTorch weights: which tensors are read, which files are rejected, and what is written."""

import argparse
import collections
import json
import os
import pathlib
import pickle
import sys
import types
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import torch

from anchor_jax import UserError
from anchor_jax.models.pytorch.files import (
    read_checkpoint,
    read_state_dict,
    source_and_file,
    weight_files,
    write_state_dict,
)

TENSORS = {"a": torch.arange(3.0), "b.c": torch.ones(2, 2)}
OTHERS = {name: tensor + 1 for name, tensor in TENSORS.items()}


def prefixed(prefix, tensors=TENSORS):
    return {prefix + name: tensor for name, tensor in tensors.items()}


def assert_tensors(tensors):
    """Assert that tensors are `TENSORS`, possibly inside of a module."""
    tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items() if name != "n_averaged"}
    assert tensors.keys() == TENSORS.keys()
    assert all(np.array_equal(tensors[name], TENSORS[name]) for name in tensors)


# which weights are taken

AVERAGE = {"n_averaged": torch.tensor(9), **prefixed("module.")}
CHECKPOINTS = {
    "a state dict": (TENSORS, "."),
    "NumPy's arrays": ({name: tensor.numpy() for name, tensor in TENSORS.items()}, "."),
    "the released code": ({"net": TENSORS, "acc": 94.2, "epoch": 199}, "net"),
    "PyTorch's tutorial": ({"model_state_dict": TENSORS, "optimizer_state_dict": {"state": {0: OTHERS}}}, None),
    "torchvision": ({"model": OTHERS, "model_ema": AVERAGE, "args": argparse.Namespace(lr=0.1)}, "model_ema"),
    "timm": ({"state_dict": OTHERS, "state_dict_ema": TENSORS, "epoch": 3}, "state_dict_ema"),
    "Lightning, averaged": ({"state_dict": TENSORS, "current_model_state": OTHERS, "averaging_state": {}}, None),
    "Lightning, a callback": (
        {"state_dict": OTHERS, "callbacks": {"EMA": {"ema_state_dict": TENSORS}}},
        "callbacks.EMA.ema_state_dict",
    ),
    "Lightning, SWA": ({"state_dict": TENSORS, "callbacks": {"SWA": {"average_model_state": OTHERS}}}, "state_dict"),
    "mmengine": ({"meta": {"mmengine_version": "1"}, "state_dict": TENSORS, "ema_state_dict": OTHERS}, "state_dict"),
    "DINO": ({"student": OTHERS, "teacher": TENSORS}, "teacher"),
    "an unknown name": ({"a thing": {"inside": TENSORS}, "rng": {"x": torch.ones(1)}}, "a thing.inside"),
    "a decay beside": ({"model": TENSORS | prefixed("x"), "ema": {"decay": torch.ones(1)}}, "model"),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_read_checkpoint_takes_what_is_evaluated(tmp_path, case):
    content, entry = CHECKPOINTS[case]
    torch.save(content, tmp_path / "x.pth")
    found = read_checkpoint(tmp_path / "x.pth")
    assert_tensors({name: tensor for name, tensor in found.tensors.items() if not name.startswith("x")})
    assert found.entry == (entry or next(iter(content)))


def test_read_checkpoint_tells_what_else_is_there(tmp_path):
    content = {"epoch": 3, "state_dict": OTHERS, "state_dict_ema": TENSORS, "args": argparse.Namespace(lr=1)}
    torch.save(content, tmp_path / "x.pth")
    found = read_checkpoint(tmp_path / "x.pth")
    assert found.others == ("state_dict",)
    assert found.left_out == ("epoch", "args")


@pytest.mark.parametrize(
    ("content", "entry"),
    [
        ({"state_dict": TENSORS, "state_dict_ema": OTHERS}, "state_dict"),
        ({"state_dict": {**prefixed("student."), **prefixed("teacher.net.", OTHERS)}}, "state_dict.student"),
        ({**prefixed("model.net."), **prefixed("ema.", OTHERS)}, "model.net"),
        ({**TENSORS, "ema": OTHERS}, "."),
        ({"callbacks": {"EMA.x": {"weights": TENSORS}}, "state_dict": OTHERS}, "callbacks.EMA.x"),
    ],
)
def test_read_checkpoint_takes_the_given_entry(tmp_path, content, entry):
    torch.save(content, tmp_path / "x.pth")
    assert_tensors(read_state_dict(tmp_path / "x.pth", entry))


@pytest.mark.parametrize("is_zip", [True, False])
def test_read_checkpoint_reads_values_beside_weights(tmp_path, is_zip):
    content = {
        "state_dict": TENSORS,
        "best": np.float64(0.9),
        "confusion": np.eye(2, dtype=np.int64),
        "objects": np.array([{}, "x"]),
        "args": argparse.Namespace(out=pathlib.Path("x"), root=pathlib.PureWindowsPath("c")),
        "log": collections.defaultdict(list, loss=[1.0]),
        "torch": torch.__version__,
    }
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=is_zip)
    assert_tensors(read_state_dict(tmp_path / "x.pth"))


def test_read_checkpoint_replaces_objects_of_configs(tmp_path, monkeypatch):
    module = types.ModuleType("yacs.config")
    module.CfgNode = type("CfgNode", (dict,), {"__module__": module.__name__})
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
        patched.setitem(sys.modules, module.__name__, module)
        torch.save({"state_dict": TENSORS, "config": module.CfgNode(lr=0.1)}, tmp_path / "x.ckpt")
    assert_tensors(read_state_dict(tmp_path / "x.ckpt"))


# files

NAMES = ("a-00001-of-00002", "a-00002-of-00002")


def write_shards(folder, suffix):
    """Write `TENSORS` in two files and their index."""
    files = [f"{name}{suffix}" for name in NAMES]
    for file, (name, tensor) in zip(files, TENSORS.items(), strict=True):
        write_state_dict(folder / file, {name: tensor.numpy()})
    stem = "model.safetensors" if suffix == ".safetensors" else "pytorch_model.bin"
    (folder / f"{stem}.index.json").write_text(json.dumps({"weight_map": dict(zip(TENSORS, files, strict=True))}))
    return folder / f"{stem}.index.json"


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_read_state_dict_joins_shards(tmp_path, suffix):
    index = write_shards(tmp_path, suffix)
    for file in (index, tmp_path, *(tmp_path / f"{name}{suffix}" for name in NAMES)):
        assert_tensors(read_state_dict(file))
        assert [path.stem for path in weight_files(file)] == list(NAMES)
    (tmp_path / f"{NAMES[1]}{suffix}").unlink()
    for file in (index, tmp_path / f"{NAMES[0]}{suffix}"):
        with pytest.raises(UserError, match=r"is one of 2 shards or their index, but there is no a-00002-of-00002\."):
            read_state_dict(file)


@pytest.mark.parametrize("name", ["x.SAFETENSORS", "x.npz", "x.weights"])
def test_read_state_dict_recognizes_the_format(tmp_path, name):
    arrays = {key: tensor.numpy() for key, tensor in TENSORS.items()}
    with (tmp_path / name).open("wb") as file:
        np.savez(file, **arrays) if name == "x.npz" else file.write(safetensors.numpy.save(arrays))
    assert_tensors(read_state_dict(tmp_path / name))


def test_safetensors_need_no_pytorch_but_pth_files_do(tmp_path, monkeypatch):
    safetensors.numpy.save_file({"a": np.ones(2, ml_dtypes.bfloat16)}, tmp_path / "x.safetensors")
    monkeypatch.setitem(sys.modules, "torch", None)
    np.testing.assert_array_equal(np.float32(read_state_dict(tmp_path / "x.safetensors")["a"]), np.ones(2))
    (tmp_path / "x.pth").write_bytes(b"")
    with pytest.raises(UserError, match=r"x\.pth' needs PyTorch, which is not installed; run pip install torch"):
        read_state_dict(tmp_path / "x.pth")


class Code:
    def __reduce__(self):
        return os.mkdir, ("here",)


def write_archive(*names):
    def write(file):
        with zipfile.ZipFile(file, "w") as archive:
            for name in names:
                archive.writestr(name, b"\x93NUMPY")

    return write


def bytes_of(content):
    return lambda file: file.write_bytes(content)


def saved(content, **options):
    return lambda file: torch.save(content, file, **options)


def folder_of(*names):
    def write(folder):
        folder.mkdir()
        for name in names:
            (folder / name).touch()

    return write


REJECTED = [
    ("code.pth", saved({"a": Code()}), r"contains objects other than weights, which are not loaded \(posix.mkdir\)"),
    ("code.bin", bytes_of(pickle.dumps({"a": Code()})), "contains objects other than weights, which are not"),
    ("beside.pth", saved({"state_dict": TENSORS, "x": Code()}), "contains objects other than weights, which are not"),
    (
        "network.pt",
        saved(torch.nn.Linear(2, 2)),
        r"it holds a whole network \(torch.*Linear\), .*; save only the state",
    ),
    (
        "old.pth",
        saved({"x": argparse.ArgumentTypeError()}, _use_new_zipfile_serialization=False),
        r"objects other than weights, which are not loaded \(argparse.ArgumentTypeError\)",
    ),
    ("corrupt.pth", bytes_of(b"rubbish"), "cannot read '.*corrupt.pth'"),
    ("empty.pt", bytes_of(b""), "cannot read '.*empty.pt': it is empty"),
    ("empty.safetensors", bytes_of(b""), r"cannot read '.*empty.safetensors'"),
    ("corrupt.safetensors", bytes_of(b"rubbish" * 9), "cannot read '.*corrupt.safetensors'"),
    ("cut.pth", bytes_of(b"PK\x03\x04" + b"\0" * 90), "it is damaged or incomplete"),
    ("cut.npz", write_archive("a.npy"), r"cannot read '.*cut.npz' \(.*corrupt"),
    ("jax.npz", lambda file: np.savez(file, **{"head/kernel": np.ones(2)}), "weights of JAX; timm reads"),
    ("flax.msgpack", bytes_of(b"\x81"), "it holds weights of JAX; convert them"),
    ("script.pt", write_archive("x/data.pkl", "x/constants.pkl"), r"TorchScript; save .*torch.jit.load\('script.pt'\)"),
    ("other.zip", write_archive("resnet.pth"), "it is an archive of resnet.pth, not weights; unpack it"),
    ("page.pth", bytes_of(b"\n<!DOCTYPE html>"), "it is a web page, as failed downloads are"),
    ("lfs.bin", bytes_of(b"version https://git-lfs.github.com/spec/v1\n"), "it is a pointer of Git LFS"),
    ("keras.h5", bytes_of(b"\x89HDF\r\n"), "it is an HDF5 file"),
    ("list.pth", saved([torch.ones(2)]), "contains no state dict, neither at the top level nor as"),
    ("numbers.pth", saved({"a": 1}), r"contains no state dict, neither at the top level nor as mod.* \(a\); save"),
    ("none.pth", lambda file: None, "no file '.*none.pth'; pass a .safetensors file or one saved by PyTorch$"),
    ("config.json", bytes_of(b"{}"), "it is no index of shards"),
    ("up.json", bytes_of(b'{"weight_map": {"a": "../x.bin"}}'), "it is no index of shards"),
    (
        "folder",
        folder_of("b.pth", "a.ckpt"),
        "no file 'model.safetensors' or .* in the folder .*, such as a.ckpt, b.p",
    ),
    ("run", folder_of("run.json"), "is a run; write its weights with anchor-jax to-torch"),
    ("orbax", folder_of("_METADATA"), "is a checkpoint of orbax, weights of JAX"),
    ("dcp", folder_of(".metadata", "__0_0.distcp"), "is a distributed checkpoint; convert it with python -m torch"),
]


@pytest.mark.parametrize(("name", "write", "message"), REJECTED, ids=[name for name, _, _ in REJECTED])
def test_read_state_dict_rejects_other_files_and_runs_no_code(tmp_path, monkeypatch, name, write, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / name)
    with pytest.raises(UserError, match=message) as error:
        read_state_dict(tmp_path / name)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "here").exists()


def test_read_state_dict_lists_the_entries_for_an_unknown_one(tmp_path):
    torch.save({"model": TENSORS, "ema": {"net": OTHERS}}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"no weights in 'emma'; choose 'model' \(whose .* a, b\), 'ema.net' \(whose"):
        read_state_dict(tmp_path / "x.pth", "emma")


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_write_state_dict_round_trips_and_never_overwrites(tmp_path, name):
    tensors = {"a": np.arange(6.0, dtype=np.float32).reshape(2, 3).T, "n": np.array(3)}
    write_state_dict(tmp_path / name, tensors)
    before = (tmp_path / name).read_bytes()
    for key, tensor in read_state_dict(tmp_path / name).items():
        np.testing.assert_array_equal(tensor, tensors[key])
        assert tuple(tensor.shape) == tensors[key].shape
    with pytest.raises(UserError, match=r"'.*x\.\w+' already exists; choose another name"):
        write_state_dict(tmp_path / name, {})
    assert (tmp_path / name).read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [name]


# addresses


def test_source_and_file_splits_off_the_entry(tmp_path):
    file = tmp_path / "epoch#3.pth"
    file.touch()
    assert source_and_file(f"timm:{file}") == ("timm", file, "")
    assert source_and_file(f"timm:{file}#model_ema") == ("timm", file, "model_ema")
    assert source_and_file("timm:w.pth#a.b") == ("timm", pathlib.Path("w.pth"), "a.b")


@pytest.mark.parametrize("address", ["https://x.org/w.pth", "timm:https://x.org/w.pth", "timm:gs://bucket/w.pth"])
def test_source_and_file_rejects_addresses_of_downloads(address):
    with pytest.raises(UserError, match=f"SOURCE:FILE with a file on this machine; got '{address}'; download it"):
        source_and_file(address)


def test_read_state_dict_tells_how_to_get_files_from_a_hub():
    with pytest.raises(UserError, match=r"no file 'google/vit-base'.*, run hf download google/vit-base --local-dir"):
        read_state_dict(pathlib.Path("google/vit-base"))
