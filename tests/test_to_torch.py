"""The module that to-torch writes: plain PyTorch computes what the predictor does."""

import importlib.util
import re
import sys

import jax
import numpy as np
import pages
import pytest
import torch
from commands import assert_error, quick_command
from conftest import begun, tiny_config
from ml_collections import ConfigDict

from anchor_jax.runs import published
from anchor_jax.runs import record as run_record
from anchor_jax.runs.load import create_model, create_predictor
from anchor_jax.runtime import mesh as mesh_lib

IMAGES = np.random.default_rng(5).integers(0, 256, (3, 6, 6, 1)).astype(np.uint8)
VIT = {"patch_size": 3, "width": 16, "depth": 2, "num_heads": 2}
CASES = {
    "CNN": ("resnet18", {"stage_sizes": (1, 1, 1, 1)}, True, ".safetensors"),
    "ViT": ("vit_b16", VIT, True, ".safetensors"),
    "ViT, standard, .pth": ("vit_b16", VIT, False, ".pth"),
    "SwinV2": (
        "swin_v2_t",
        {"patch_size": 1, "width": 8, "stage_sizes": (2, 1), "num_heads": (1, 2), "window": 2},
        True,
        ".pth",
    ),
    "other widths": ("resnet50", {"stage_sizes": (2, 1), "width": 4, "stem": "imagenet"}, True, ".pth"),
    "no such network": ("resnet18", {"stage_sizes": (1,) * 5, "width": 4}, True, ".pth"),
}


def saved_run(folder, name, options, is_anchored):
    """Return the workdir of a run with random weights, and its predictor."""
    config = tiny_config(folder)
    config.model.name, config.model.options = name, ConfigDict(options)
    config.anchoring.enabled, config.anchoring.mask_prob = is_anchored, 0.5 * is_anchored
    run = run_record.load(begun(config, folder / "run").run.workdir)
    shapes = jax.eval_shape(create_model(run).init, jax.random.key(0), np.zeros(run.input_shape, np.float32))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.uniform(0.05, 0.2, leaf.shape).astype(np.float32), shapes)
    (folder / "published").mkdir()
    published.write(folder / "published", run, 5, variables)
    return folder / "published", create_predictor(run, variables, mesh_lib.mesh())


def imported(file):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("case", CASES)
def test_module_of_to_torch_agrees_with_the_predictor(case, tmp_path, monkeypatch):
    name, options, is_anchored, suffix = CASES[case]
    workdir, predictor = saved_run(tmp_path, name, options, is_anchored)
    out = tmp_path / f"c10{suffix}"
    done = quick_command("-m", "anchor_jax.to_torch", f"--workdir={workdir}", f"--out={out}")
    assert (done.returncode, done.stderr) == (0, "")
    module = imported(tmp_path / "c10.py")
    assert len((tmp_path / "c10.py").read_text().splitlines()) <= 75
    assert (module.LABEL_NAMES, module.IMAGE_SHAPE) == (["0", "1", "2"], (6, 6, 1))
    is_built = case != "no such network"
    needed = "pass the network of torchvision, with 2 input channels, as load(network)"
    assert (needed in done.stdout) != is_built
    if not is_built:
        with pytest.raises(NotImplementedError, match=re.escape(needed)):
            module.load()
        return
    for num in (1, 4) if is_anchored else (10,):
        expected = predictor(IMAGES, num)._asdict()
        answer = module.load()(torch.tensor(IMAGES), *([num] if is_anchored else []))
        assert {field for field, value in answer._asdict().items() if value is None} == {
            field for field, value in expected.items() if value is None
        }
        for field, array in answer._asdict().items():
            if array is not None:
                np.testing.assert_allclose(array, expected[field], atol=1e-4, rtol=1e-4, err_msg=field)
    if is_anchored:
        monkeypatch.setitem(sys.modules, "c10", module)
        guide = pages.section((pages.DOCS / "models.md").read_text(), "Convert a run to PyTorch")
        answer = pages.run(guide, "models.md", images=torch.tensor(IMAGES))["answer"]
        np.testing.assert_allclose(answer.probs, predictor(IMAGES, 10).probs, atol=1e-4)
    with pytest.raises((ValueError, TypeError)):
        module.load()(torch.tensor(IMAGES), 13)


def test_to_torch_overwrites_nothing_beside_its_file(tmp_path):
    workdir, _ = saved_run(tmp_path, "vit_b16", VIT, True)
    (tmp_path / "net.py").write_text("mine")
    done = quick_command("-m", "anchor_jax.to_torch", f"--workdir={workdir}", f"--out={tmp_path / 'net.pth'}")
    assert_error(done, 1, "net.py' already exists; choose another name")
    assert not (tmp_path / "net.pth").exists()
