"""The promise of SECURITY.md: loading a file never runs code from it."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_results
from corrupt_files import POSTSCRIPT, Mark, left_a_mark, npz, pickled, png_of
from PIL import Image

import anchor_jax
from anchor_jax.core.errors import UserError
from anchor_jax.data import load
from anchor_jax.data.cropping import random_resized_crop
from anchor_jax.data.decoding import Example, decode
from anchor_jax.evaluation import storage
from anchor_jax.models.pytorch.files import read_state_dict
from anchor_jax.runs import record as run_record

_SOURCES = sorted(Path(anchor_jax.__file__).parent.rglob("*.py"))
_UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml", "runpy"}
_REQUIRED_ARGUMENTS = {
    "np.load": ("allow_pickle", False),
    "read_array": ("allow_pickle", False),
    "torch.load": ("weights_only", True),
}


def _nodes(kind):
    for file in _SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, kind):
                yield file, node


def test_package_imports_no_module_that_can_load_code():
    names = {alias.name.split(".")[0] for _, node in _nodes(ast.Import) for alias in node.names}
    names |= {(node.module or "").split(".")[0] for _, node in _nodes(ast.ImportFrom)}
    assert not names & _UNSAFE_MODULES


def test_package_loads_arrays_and_weights_without_code():
    calls = [(file, ast.unparse(node.func), node) for file, node in _nodes(ast.Call)]
    assert not [file for file, name, _ in calls if name in ("eval", "exec", "compile", "__import__")]
    loads = [(file, name, node) for file, name, node in calls if name in _REQUIRED_ARGUMENTS]
    assert {name for _, name, _ in loads} == set(_REQUIRED_ARGUMENTS)
    for file, name, node in loads:
        given = {
            keyword.arg: ast.literal_eval(keyword.value)
            for keyword in node.keywords
            if keyword.arg in _REQUIRED_ARGUMENTS[name]
        }
        assert given == dict([_REQUIRED_ARGUMENTS[name]]), file


def _load_npz_data(folder):
    (folder / "data.npz").write_bytes(npz(x_train=np.array([Mark(folder)] * 4), y_train=np.arange(4)))
    load("npz", "train", path=folder / "data.npz")


def _load_results(place):
    folder = place / "eval"
    write_results(folder, "clean", {}, {1: ({"accuracy": 0.5}, {"correct": np.zeros(3)})})
    (folder / "clean-references1.npz").write_bytes(npz(correct=np.array([Mark(place)])))
    _ = storage.read(folder)["clean"][1].arrays["correct"]


def _load_references(folder):
    (folder / "run.json").write_text(
        '{"config": {}, "label_names": ["a"], "image_shape": [1, 1, 1], "references": {"rows": [0], "sha256": ""}}'
    )
    (folder / "references.npz").write_bytes(npz(images=np.array([Mark(folder)])))
    run_record.load(folder)


def _load_torch_file(folder):
    torch.save({"weight": Mark(folder)}, folder / "w.pth")
    read_state_dict(folder / "w.pth")


def _load_pickled_weights(folder):
    (folder / "w.bin").write_bytes(pickled(folder))
    read_state_dict(folder / "w.bin")


@pytest.mark.parametrize(
    "load_pickle", [_load_npz_data, _load_results, _load_references, _load_torch_file, _load_pickled_weights]
)
def test_loading_a_pickle_raises_and_runs_nothing(load_pickle, tmp_path):
    with pytest.raises(UserError) as error:
        load_pickle(tmp_path)
    assert "weights_only" not in str(error.value)  # PyTorch's message suggests to disable it
    assert not left_a_mark(tmp_path)


@pytest.mark.parametrize("read", [lambda x: decode(x, mode="RGB"), lambda x: random_resized_crop(x, 4, (0.1, 1), [0])])
def test_decoding_runs_no_program_and_rejects_bombs(read, monkeypatch):
    def run_program(*_, **__):
        raise AssertionError("Pillow would run Ghostscript")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", run_program)
    for content, reason in (
        (POSTSCRIPT, "UnidentifiedImageError"),
        (png_of(100_000, 100_000), "DecompressionBombError"),
        (png_of(10_000, 9_000), "DecompressionBombWarning"),
    ):
        with pytest.raises(UserError, match=rf"cannot read image x \({reason}.*; replace or remove it"):
            read(Example(content, 0, "x"))
    assert Image.MAX_IMAGE_PIXELS == 89_478_485
