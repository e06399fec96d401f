"""What SECURITY.md promises: nothing that is loaded runs code."""

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
_LOADERS_OF_CODE = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml", "runpy"}
_SAFE = {
    "np.load": ("allow_pickle", False),
    "read_array": ("allow_pickle", False),
    "torch.load": ("weights_only", True),
}


def _nodes(kind):
    for file in _SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, kind):
                yield file, node


def test_package_imports_nothing_that_loads_code():
    names = {alias.name.split(".")[0] for _, node in _nodes(ast.Import) for alias in node.names}
    names |= {(node.module or "").split(".")[0] for _, node in _nodes(ast.ImportFrom)}
    assert not names & _LOADERS_OF_CODE


def test_every_loader_that_could_run_code_is_told_not_to():
    calls = [(file, ast.unparse(node.func), node) for file, node in _nodes(ast.Call)]
    assert not [file for file, name, _ in calls if name in ("eval", "exec", "compile", "__import__")]
    loads = [(file, name, node) for file, name, node in calls if name in _SAFE]
    assert {name for _, name, _ in loads} == set(_SAFE)
    for file, name, node in loads:
        given = {
            keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg in _SAFE[name]
        }
        assert given == dict([_SAFE[name]]), file


def _npz_data(place):
    (place / "data.npz").write_bytes(npz(x_train=np.array([Mark(place)] * 4), y_train=np.arange(4)))
    load("npz", "train", path=place / "data.npz")


def _results(place):
    folder = place / "eval"
    write_results(folder, "clean", {}, {1: ({"accuracy": 0.5}, {"correct": np.zeros(3)})})
    (folder / "clean-references1.npz").write_bytes(npz(correct=np.array([Mark(place)])))
    _ = storage.read(folder)["clean"][1].arrays["correct"]


def _references(place):
    (place / "run.json").write_text(
        '{"config": {}, "label_names": ["a"], "image_shape": [1, 1, 1], "references": {"rows": [0], "sha256": ""}}'
    )
    (place / "references.npz").write_bytes(npz(images=np.array([Mark(place)])))
    run_record.load(place)


def _saved_by_torch(place):
    torch.save({"weight": Mark(place)}, place / "w.pth")
    read_state_dict(place / "w.pth")


def _pickled_weights(place):
    (place / "w.bin").write_bytes(pickled(place))
    read_state_dict(place / "w.bin")


@pytest.mark.parametrize("load_it", [_npz_data, _results, _references, _saved_by_torch, _pickled_weights])
def test_pickles_are_refused_and_not_run(load_it, tmp_path):
    with pytest.raises(UserError) as error:
        load_it(tmp_path)
    assert "weights_only" not in str(error.value)  # which PyTorch advises to turn off
    assert not left_a_mark(tmp_path)


@pytest.mark.parametrize("read", [lambda x: decode(x, mode="RGB"), lambda x: random_resized_crop(x, 4, (0.1, 1), [0])])
def test_images_are_read_by_no_other_program_and_are_no_bombs(read, monkeypatch):
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
