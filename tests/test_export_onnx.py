"""Runs exported to ONNX: ONNX Runtime computes what the predictor does, for any batch size."""

import importlib
import json
import pkgutil
import shutil
import sys
import warnings

import jax
import numpy as np
import onnx
import onnxruntime
import pages
import pytest
from commands import ROOT
from jax2onnx.plugins import plugin_system
from ml_collections import ConfigDict
from test_export import untrained_run
from tiny_models import TINY

import anchor_jax as aj
from anchor_jax.core.errors import UserError
from anchor_jax.export import onnx_file, write
from anchor_jax.export.plain_program import plain
from anchor_jax.runs.load import create_predictor, load_predictor
from anchor_jax.runs.network import CompiledNetwork
from anchor_jax.runtime import mesh as mesh_lib

NAMES = ("logits", "probs", "probs_std", "entropy", "mutual_information")
CASES = ["resnet, basic, CIFAR", "resnet, bottleneck, ImageNet", "vit, stochastic depth", "swin, stochastic depth"]


@pytest.fixture(scope="module", autouse=True)
def plugins_for_operations_only():
    """Load what plain programs need of jax2onnx: its plugins for models of Equinox take ten seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        package = importlib.import_module("jax2onnx.plugins.jax.lax")
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugin_system, "_already_imported_plugins", True)
        yield


def images_of(predictor, num):
    return np.random.default_rng(6).integers(0, 256, (num, *predictor.image_shape)).astype(np.uint8)


def assert_agrees(file, predictor, num_references):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", ["batch", *predictor.image_shape])
    names = [output.name for output in session.get_outputs()]
    images = images_of(predictor, 4)
    expected = predictor(images, num_references)._asdict()
    assert {*names} == {name for name, array in expected.items() if array is not None}
    for num in (1, 4):
        for name, array in zip(names, session.run(names, {"images": images[:num]}), strict=True):
            np.testing.assert_allclose(array, expected[name][:num], atol=1e-4, err_msg=name)


def tiny_predictor(case):
    name, options, side = TINY[case]
    model, rng = aj.models.create(name, 7, **options), np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, side, side, 6), np.float32))
    ranges = {"params": (-0.3, 0.3), "batch_stats": (0.5, 1.5)}
    variables = {
        of: jax.tree.map(
            lambda leaf, limits=ranges[of]: rng.uniform(*limits, leaf.shape).astype(np.float32), shapes[of]
        )
        for of in shapes
    }
    normalization = aj.data.Normalization((0.5,) * 3, (0.25,) * 3)
    network = CompiledNetwork(model, normalization, aj.parallel.mesh(1), anchored=True, inputs_at_once=64)
    references = rng.integers(0, 256, (3, side, side, 3)).astype(np.uint8)
    return aj.Predictor(variables, references, tuple("abcdefg"), (side, side, 3), network, 1, 8)


@pytest.mark.parametrize("case", CASES)
def test_onnx_file_of_a_model_agrees_with_the_predictor(case, tmp_path):
    predictor = tiny_predictor(case)
    metadata = aj.export.Metadata(predictor.label_names, predictor.image_shape, case, 1, 3, NAMES, (), {})
    onnx_file.write_onnx(tmp_path / "model.onnx", predictor, 3, metadata)
    assert_agrees(tmp_path / "model.onnx", predictor, 3)


@pytest.mark.parametrize(("num_references", "is_spread"), [(4, True), (1, False)])
def test_export_to_onnx_holds_the_metadata(num_references, is_spread, exported, tmp_path, monkeypatch):
    file = tmp_path / "run.ONNX"
    metadata = write.export(exported.workdir, file, num_references=num_references)
    assert ("probs_std" in metadata.outputs) == is_spread
    assert_agrees(file, load_predictor(exported.workdir), num_references)
    content = {entry.key: json.loads(entry.value) for entry in onnx.load(file).metadata_props}
    assert (content["label_names"], content["image_shape"]) == (["0", "1", "2"], [6, 6, 1])
    assert (content["num_references"], content["step"], content["outputs"]) == (num_references, 3, [*metadata.outputs])
    assert content["preprocessing"]["height"] == 6
    assert content["versions"].keys() >= {"jax", "jax2onnx"}
    shutil.copy(file, tmp_path / "c10.onnx")
    monkeypatch.chdir(tmp_path)
    guide = pages.section((pages.DOCS / "export.md").read_text(), "ONNX")
    images = images_of(load_predictor(exported.workdir), 2)
    names = pages.run(guide, "export.md", images=images)
    assert (names["label_names"], {*names["answer"]}) == (["0", "1", "2"], {*metadata.outputs})
    for path in (str(exported.workdir.parents[1]), str(ROOT), "site-packages"):
        assert path.encode() not in file.read_bytes()


def test_standard_run_in_bfloat16_exports_in_float32(tmp_path):
    run, predictor = untrained_run(tmp_path, anchored=False)
    config = ConfigDict(run.config)
    config.model.dtype = "bfloat16"
    run = run.__class__(**{**run.__dict__, "config": config})
    of_bfloat16 = create_predictor(run, predictor.variables, mesh_lib.mesh())
    with pytest.warns(UserWarning, match="the ONNX file computes in float32, because few runtimes can in bfloat16"):
        metadata = write.export_onnx(run, of_bfloat16, tmp_path / "run.onnx", 0, 10)
    assert metadata.num_references is None
    assert_agrees(tmp_path / "run.onnx", predictor, 10)


def test_export_to_onnx_refuses_what_it_cannot_write(exported, tmp_path, monkeypatch):
    file = tmp_path / "run.onnx"
    with pytest.raises(UserError, match=r"platforms is no option of an ONNX file; .* choose a name without \.onnx"):
        write.export(exported.workdir, file, platforms=("cpu",))
    with pytest.raises(UserError, match="chunk_size is no option of an ONNX file"):
        write.export(exported.workdir, file, chunk_size=2)
    monkeypatch.setattr(onnx_file, "_TOLERANCE", -1.0)
    with pytest.raises(UserError, match="ONNX Runtime computes other logits than the predictor"):
        write.export(exported.workdir, file)
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(UserError, match=r"jax2onnx cannot be imported; run pip install 'anchor-jax\[onnx\]'"):
        write.export(exported.workdir, file)
    assert not [*tmp_path.iterdir()]
    file.touch()
    with pytest.raises(UserError, match="is an ONNX file; run it with onnxruntime"):
        aj.load_exported(file)


def test_plain_program_pads_and_pools_as_jax_does():
    def function(x):
        padded = jax.numpy.pad(x, ((0, 0), (1, 0), (0, 2)), constant_values=3.0)
        return jax.lax.reduce_window(padded, -np.inf, jax.lax.max, (1, 3, 2), (1, 2, 1), ((0, 0), (1, 1), (0, 1)))

    x = np.random.default_rng(0).normal(size=(2, 7, 5)).astype(np.float32)
    (found,) = plain(function, jax.ShapeDtypeStruct(x.shape, x.dtype))(x)
    np.testing.assert_array_equal(found, function(x))
