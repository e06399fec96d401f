"""Tests of commands with bad weights and bad runs: the error is one line, and files stay as they were."""

import json
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from bad_commands import training, unchanged
from commands import assert_error, quick_command
from conftest import tiny_config, write_results
from corrupt_files import (
    HUGE,
    Mark,
    npz,
    pickled,
)

from anchor_jax.training.loop import train


def _safetensors(header, length=None):
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(content) if length is None else length) + content


WEIGHTS = {
    "missing": ("nothing.safetensors", None, "no file '"),
    "a folder": ("folder.pth", Path.mkdir, "no file '"),
    "a pipe": ("pipe.safetensors", os.mkfifo, "no file '"),
    "huge header": ("w.safetensors", _safetensors({}, 1 << 60), "cannot read"),
    "truncated header": ("w.safetensors", _safetensors({}, 100), "cannot read"),
    "tensor beyond the end": (
        "w.safetensors",
        _safetensors({"a": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4 * HUGE]}}),
        "cannot read",
    ),
    "type that NumPy lacks": (
        "w.safetensors",
        _safetensors({"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}) + b"\0",
        "cannot read",
    ),
    "other tensors": (
        "w.safetensors",
        _safetensors({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}) + b"\0",
        "the tensors do not match torchvision's 'resnet18'; missing: bn1.bias",
    ),
    "pickle": ("w.pth", pickled, "contains objects other than weights, which are not loaded"),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_train_rejects_bad_weights(case, tmp_path):
    name, content, message = WEIGHTS[case]
    file = tmp_path / name
    if content is pickled:
        file.write_bytes(pickled(tmp_path))
    elif callable(content):
        content(file)
    elif content:
        file.write_bytes(content)
    with unchanged(tmp_path):
        done = training(tmp_path, f"--config.model.weights=torchvision:{file}", "--config.model.options.width=4")
    assert_error(done, 1, message)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the folder of a tiny run with results of an evaluation."""
    folder = tmp_path_factory.mktemp("finished")
    train(tiny_config(folder), folder / "run")
    write_results(folder / "run/eval/step12-bins15", "clean", {}, {1: ({"accuracy": 0.5}, {})})
    return folder / "run"


@pytest.fixture
def copied(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


EVALUATIONS = {
    "--suites=": (1, "suites and num_references must each name at least one"),
    "--suites=clean,,": (1, "unknown suite ''; allowed: clean"),
    "--suites=Clean": (1, "unknown suite 'Clean'; allowed: clean"),
    "--config.data.path=/data": (2, "flag 'config.data.path'; the config is that of the run; the place of data that"),
    "--num_references=": (1, "suites and num_references must each name at least one"),
    "--num_references=1.5": (2, "--num_references takes integers; got '1.5'"),
    "--num_references=-3": (1, "num_references must lie in 1..12"),
    "--num_references=1000000000000000000000000": (1, "num_references must lie in 1..12"),
    "--checkpoint=": (2, "--checkpoint must be a step, 'latest' or 'best'; got ''"),
    "--checkpoint=newest": (2, "--checkpoint must be a step, 'latest' or 'best'; got 'newest'"),
    "--checkpoint=-1": (1, "no checkpoint -1 in"),
    "--checkpoint=1000000000000000000000000": (1, "no checkpoint 1000000000000000000000000 in"),
    "--chunk_size=-1": (1, "evaluation.chunk_size must be at least 0; got -1"),
    "--num_bins=0": (1, "evaluation.num_bins must be in [1, 10000]; got 0"),
    "--num_bins=1e3": (2, "--num_bins=1e3: invalid literal for int()"),
    "--protocol=best": (2, "value should be one of <random|blt>"),
    "--draws=0": (2, "--draws=0"),
    "--seed=-1": (1, "seed must be at least 0; got -1"),
    "--suites=ood --ood=": (1, "ood"),
    "--suites=ood --ood=near=": (1, "unknown dataset ''; allowed: tfds:NAME"),
    "--suites=ood --ood=images:/nowhere/at/all": (1, "cannot read folder '/nowhere/at/all'"),
    "--suites=ood --ood=tfds:../../etc": (1, "cannot read TFDS dataset '../../etc'"),
    "--suites=ood --ood=photographs,photographs": (1, "datasets must have different names; got 'photographs' twice"),
    "--suites=corruptions --corruptions=fog": (1, "unknown corrupted set 'fog'; allowed: tfds:NAME[@SPLIT]"),
    "--suites=corruptions --corruptions=npy:/nowhere": (1, "cannot read folder '/nowhere'"),
    "--suites=shift": (1, "suite 'shift' needs datasets with the run's classes"),
    "--suites=shift --shift=digits": (1, "images of 'digits' are [8, 8, 1], but those of the run are [6, 6, 1]"),
    "--suites=shift --shift=npz:/nowhere.npz@": (1, "cannot read '/nowhere.npz@'"),
    "--suites=probe --probe=folder:": (1, "unknown dataset 'folder:'; allowed: tfds:NAME"),
}


@pytest.mark.parametrize("flags", EVALUATIONS)
def test_evaluate_rejects_invalid_flags(flags, finished):
    status, message = EVALUATIONS[flags]
    with unchanged(finished):
        assert_error(quick_command("eval.py", f"--workdir={finished}", *flags.split()), status, message)


def _edited(**changes):
    """Return a function that changes values in the record of a run."""

    def damage(run):
        record = json.loads((run / "run.json").read_text())
        for key, value in changes.items():
            *groups, last = key.split("__")
            inner = record
            for group in groups:
                inner = inner[group]
            inner[last] = value
        (run / "run.json").write_text(json.dumps(record))

    return damage


def _pickle_for_references(run):
    (run / "references.npz").write_bytes(npz(images=np.array([Mark(run)] * 12)))


def _eval_json(change):
    def damage(run):
        file = next(run.glob("eval/step*/clean.json"))
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return damage


RUNS = {
    "garbage": (lambda run: (run / "run.json").write_text("{"), "run.json' is corrupt"),
    "not utf-8": (lambda run: (run / "run.json").write_bytes(b"\xff\xfe"), "run.json' is corrupt"),
    "a list": (lambda run: (run / "run.json").write_text("[]"), "run.json' is corrupt"),
    "a string for a number": (_edited(config__seed="one"), "run.json' is corrupt"),
    "a number for a section": (_edited(config__training=5), "run.json' is corrupt"),
    "a huge number": (_edited(config__seed=10**400), "seed must be in [0, 4294967295]"),
    "nan": (_edited(config__anchoring__mask_prob=float("nan")), "mask_prob must be in [0, 1]; got nan"),
    "an unknown key": (_edited(config__color=1), "color"),
    "another model": (_edited(config__model__name="../resnet"), "unknown model '../resnet'"),
    "pickle for references": (_pickle_for_references, "references.npz' is missing or corrupt (Object arrays"),
    "no references": (lambda run: (run / "references.npz").unlink(), "references.npz' is missing or corrupt"),
    "no checkpoints": (lambda run: shutil.rmtree(run / "checkpoints"), "no checkpoint in"),
    "infinite results": (
        _eval_json(lambda content: content["results"]["1"].update(accuracy=10**400)),
        "clean.json' is corrupt",
    ),
    "results of no suite": (_eval_json(lambda content: content.pop("suite")), "clean.json' is corrupt"),
    "results too deep": (
        lambda run: next(run.glob("eval/step*/clean.json")).write_text("[" * 100_000),
        "clean.json' is corrupt",
    ),
}


@pytest.mark.parametrize("case", RUNS)
def test_evaluate_rejects_corrupt_runs(case, copied):
    damage, message = RUNS[case]
    damage(copied)
    with unchanged(copied):
        assert_error(quick_command("eval.py", f"--workdir={copied}"), 1, message)


def test_evaluate_rejects_a_workdir_without_a_run(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    with unchanged(tmp_path):
        for name in ("file", "loop", "nothing"):
            assert_error(quick_command("eval.py", f"--workdir={tmp_path / name}"), 1, "no run in")


def test_to_torch_rejects_invalid_flags(finished, tmp_path):
    (tmp_path / "there.pth").write_text("")
    for flags, status, message in (
        ([f"--out={tmp_path / 'there.pth'}"], 1, "torchvision has no 'mlp'; allowed sources: none"),
        (["--out="], 2, "--out must be the path of a new file; got ''"),
        (["--out=x", "--source=keras"], 2, "value should be one of <torchvision|timm|huggingface|anchoring>"),
        (["--out=x", "--checkpoint=last"], 2, "--checkpoint must be a step, 'latest' or 'best'; got 'last'"),
    ):
        with unchanged(tmp_path):
            done = quick_command("-m", "anchor_jax.to_torch", f"--workdir={finished}", *flags)
        assert_error(done, status, message)


def test_compare_rejects_invalid_arguments(finished, tmp_path):
    (tmp_path / "file").write_text("")
    for arguments, status, message in (
        ([finished, f"--out={tmp_path / 'out'}"], 1, "a comparison takes at least two runs; got 1"),
        ([finished, finished, f"--out={tmp_path / 'out'}"], 1, "are the same run: config and seed 0 are equal"),
        ([finished, tmp_path, f"--out={tmp_path / 'out'}"], 1, "no run in"),
        ([finished, finished, "--out="], 2, "--out must be the path of a folder; got ''"),
        ([finished, finished, f"--out={tmp_path / 'file'}"], 1, "file'"),
        ([finished, finished, f"--out={tmp_path / 'out'}", "--num_references=0"], 2, "--num_references=0"),
        ([finished, finished], 2, "--out must have a value"),
    ):
        with unchanged(tmp_path):
            assert_error(quick_command("-m", "anchor_jax.compare", *arguments), status, message)
