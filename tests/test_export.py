"""Exported runs: outputs equal to those of the run, with JAX alone, and one-line errors."""

import copy
import dataclasses
import json
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pages
import pytest
from commands import ROOT, assert_told, command, quick_command
from conftest import assert_same_bits, begun, tiny_config
from corrupt_files import left_a_mark, pickled, zipped
from ml_collections import ConfigDict
from pictures import opened, write_pictures

import anchor_jax as aj
from anchor_jax.core.errors import UserError, UserTypeError
from anchor_jax.export import write
from anchor_jax.export.format import METADATA, PROGRAM, Metadata, write_archive
from anchor_jax.runs.load import create_model, create_predictor, load_predictor
from anchor_jax.runs.predictor import Predictor
from anchor_jax.runs.record import Run
from anchor_jax.runtime import mesh as mesh_lib

pytestmark = pytest.mark.min_versions

IMAGES = np.random.default_rng(5).integers(0, 256, (17, 6, 6, 1)).astype(np.uint8)


class UntrainedRun(NamedTuple):
    """A run of a tiny ResNet before its first step, and its predictor."""

    run: Run
    predictor: Predictor


@pytest.fixture(scope="module")
def workdir(exported):
    return exported.workdir


@pytest.fixture(scope="module")
def predictor(workdir):
    return load_predictor(workdir)


@pytest.fixture(scope="module")
def file(exported):
    return exported.file


def untrained_run(folder, *, anchored):
    config = tiny_config(folder)
    config.model.name = "resnet18"
    config.model.options = ConfigDict({"stage_sizes": (1,), "width": 4})
    config.anchoring.enabled = anchored
    config.anchoring.mask_prob = 0.5 * anchored
    run = begun(config, folder / "run").run
    shapes = jax.eval_shape(create_model(run).init, jax.random.key(0), np.zeros(run.input_shape, np.float32))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.uniform(0.1, 0.5, leaf.shape).astype(np.float32), shapes)
    return UntrainedRun(run, create_predictor(run, variables, mesh_lib.mesh()))


@pytest.fixture(scope="module")
def anchored(tmp_path_factory):
    return untrained_run(tmp_path_factory.mktemp("anchored"), anchored=True)


@pytest.fixture(scope="module")
def standard(tmp_path_factory):
    return untrained_run(tmp_path_factory.mktemp("standard"), anchored=False)


def export_program(case, num_references, chunk_size=None, platforms=("cpu",)):
    return write.export_program(case.run, case.predictor, num_references, platforms, chunk_size)


def assert_outputs_agree(outputs, expected):
    assert outputs.keys() == {name for name, array in expected._asdict().items() if array is not None}
    for name, array in outputs.items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, getattr(expected, name), rtol=1e-5, atol=1e-6, err_msg=name)


# outputs


@pytest.mark.parametrize("num", [1, 3, 17])
def test_exported_classifier_equals_the_predictor(num, file, predictor):
    classifier = aj.load_exported(file)
    outputs = classifier(IMAGES[:num])
    assert_outputs_agree(outputs._asdict(), predictor(IMAGES[:num], num_references=10))
    assert outputs.probs_std.shape == outputs.probs.shape == (num, 3)
    assert outputs.probs_std.min() > 0
    assert outputs.mutual_information.shape == (num,)


def test_predictor_and_export_give_one_answer(predictor, file, tmp_path):
    files, classifier = sorted(write_pictures(tmp_path).iterdir()), aj.load_exported(file)
    images = predictor.preprocess(files)
    assert (
        classifier.preprocess
        == predictor.preprocess
        == aj.data.Preprocessing(6, 6, 1, orientation="exif", resize=False)
    )
    expected = predictor(images)
    for pictures in (files, opened(files)):
        for name, array in predictor(pictures)._asdict().items():
            np.testing.assert_array_equal(array, getattr(expected, name))
        for name, array in classifier(pictures)._asdict().items():
            np.testing.assert_allclose(array, getattr(expected, name), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(classifier(str(files[1])).probs, classifier(images[1:2]).probs)


@pytest.mark.skipif(jax.__version_info__ < (0, 10, 2), reason="the file was written by JAX 0.10.2")
def test_load_exported_reads_files_of_version_0_1_0(old_run):
    classifier = aj.load_exported(old_run / "run.zip")
    assert classifier.preprocess == load_predictor(old_run / "run").preprocess
    assert (classifier.metadata.model, classifier.metadata.step, classifier.num_references) == ("mlp", 132, 4)
    with np.load(old_run / "expected.npz") as expected:
        outputs = classifier(expected["images"])._asdict()
        assert outputs.keys() == set(expected) - {"images"}
        for name, array in outputs.items():
            np.testing.assert_allclose(array, expected[name], rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_export_of_a_resnet_loops_only_over_chunks(chunk_size, anchored):
    program = export_program(anchored, 10, chunk_size, write.PLATFORMS)
    assert ("stablehlo.while" in program.mlir_module()) == (chunk_size is not None)
    for num in (1, 3, 17)[: 3 if chunk_size is None else 1]:
        assert_outputs_agree(program.call(IMAGES[:num]), anchored.predictor(IMAGES[:num], num_references=10))


def test_single_reference_or_standard_model_has_no_probs_std(anchored, standard):
    for case in (anchored, standard):
        outputs = export_program(case, 1).call(IMAGES[:3])
        assert outputs.keys() == {"logits", "probs", "entropy", "mutual_information"}
        assert_outputs_agree(outputs, case.predictor(IMAGES[:3], num_references=1))
        np.testing.assert_array_equal(outputs["mutual_information"], np.zeros(3))


def test_program_contains_encoded_references_as_constants(anchored):
    program = export_program(anchored, 10).mlir_module()
    assert "tensor<10x6x6x4xf32>" in program  # outputs of the first layer
    assert "tensor<10x6x6x1x" not in program
    assert "tensor<10x6x6x2x" not in program


# the file


def test_export_command_writes_metadata_and_program(exported, workdir):
    result, file = exported.ended, exported.file
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(
        r"exported step 3 with 10 references for cpu, cuda, tpu to .*run\.zip, 0\.0 MB\n", result.stdout
    )
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist() == [METADATA, PROGRAM]
        metadata, program = json.loads(archive.read(METADATA)), archive.read(PROGRAM)
    assert metadata["format"] == "anchor_jax.export/1"
    assert metadata["versions"]["jax"] == jax.__version__
    classifier = aj.load_exported(file)
    assert classifier.label_names == ("0", "1", "2")
    assert classifier.image_shape == (6, 6, 1)
    assert classifier.num_references == 10
    assert classifier.metadata.step == 3
    assert jax.export.deserialize(bytearray(program)).platforms == ("cpu", "cuda", "tpu")
    for path in (os.sep.join(workdir.parts[1:3]), str(ROOT), "site-packages", "inference.py"):
        assert path.encode() not in file.read_bytes()


def test_export_is_deterministic(file, workdir, tmp_path):
    write.export(workdir, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == file.read_bytes()


def test_documented_script_runs_the_file_with_jax_alone(file, predictor, tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    (lines,) = (block for block in pages.python_blocks(pages.DOCS / "export.md") if "import json, zipfile" in block)
    script = [
        "import sys, numpy as np",
        f"images = np.load({str(tmp_path / 'images.npy')!r})",
        lines.replace("c10.zip", str(file)),
        f"np.savez({str(tmp_path / 'answer.npz')!r}, **answer)",
        "imported = {'anchor_jax', 'flax', 'orbax', 'optax'} & set(sys.modules)",
        "sys.exit(f'imported: {imported}' if imported or label_names != ['0', '1', '2'] else None)",
    ]
    result = command("-c", "\n".join(script))
    assert result.returncode == 0, result.stderr
    with np.load(tmp_path / "answer.npz") as answer:
        assert_outputs_agree(dict(answer), predictor(IMAGES, num_references=10))


# errors


def test_export_command_rejects_invalid_arguments(workdir, file, tmp_path):
    before = file.read_bytes()
    new = tmp_path / "new.zip"
    for arguments, status, message in (
        ([tmp_path / "new.zip", "--workdir=" + str(tmp_path)], 1, "no run in"),
        ([new, "--num_references=13"], 1, "num_references must lie in 1..12, the references saved with the run"),
        ([new, "--num_references=0"], 2, "--num_references=0"),
        ([new, "--chunk_size=0"], 2, "--chunk_size=0"),
        ([new, "--checkpoint=7"], 1, "no checkpoint 7 in"),
        (
            [new, "--platforms=cpu,cude"],
            1,
            "unknown platform 'cude'; allowed: cpu, cuda, rocm, tpu. Did",
        ),
        ([new, "--platforms="], 1, "platforms must name at least one of cpu, cuda, rocm, tpu; got none"),
        ([file], 1, "run.zip' already exists; choose another name"),
        ([workdir / "run.json" / "x.zip"], 1, "cannot write"),
        ([], 2, "expected one argument besides the flags, the path of a new file; got []"),
        ([new, new], 2, "expected one argument besides the flags, the path of a new file"),
    ):
        result = quick_command("-m", "anchor_jax.export", f"--workdir={workdir}", *arguments)
        assert_told(result, status, message)
    assert file.read_bytes() == before
    assert not list(tmp_path.iterdir())


def test_exported_classifier_rejects_invalid_images(file):
    classifier = aj.load_exported(file)
    with pytest.raises(UserTypeError, match="images must have a uint8 dtype; got float32; pass images as stored"):
        classifier(IMAGES.astype(np.float32))
    for images, message in (
        (IMAGES[:0], "images must not be empty"),
        ([IMAGES[0], b"x"], r"cannot read image images\[1\] \(UnidentifiedImageError"),
    ):
        with pytest.raises(UserError, match=message):
            classifier(images)


def _edit_metadata(file: Path, **changes) -> dict[str, bytes]:
    """Return the members of a file, with changed metadata."""
    with zipfile.ZipFile(file) as archive:
        metadata = json.loads(archive.read(METADATA)) | changes
        return {METADATA: json.dumps(metadata).encode(), PROGRAM: archive.read(PROGRAM)}


def _flip_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


SMALLER = {"height": 5, "width": 6, "channels": 1}
INVALID_FILES = {
    "empty": lambda file: b"",
    "not an archive": lambda file: b"rubbish" * 99,
    "truncated": lambda file: file.read_bytes()[:-30],
    "flipped bit": lambda file: _flip_bit(file.read_bytes()),
    "unrelated archive": lambda file: zipped({"x_train.npy": b"x"}),
    "invalid program": lambda file: zipped(_edit_metadata(file) | {PROGRAM: b"rubbish" * 99}),
    "pickled program": lambda file: zipped(_edit_metadata(file) | {PROGRAM: pickled(file.parent)}),
    "pickled metadata": lambda file: zipped(_edit_metadata(file) | {METADATA: pickled(file.parent)}),
    "deeply nested metadata": lambda file: zipped(_edit_metadata(file) | {METADATA: b"[" * 100_000}),
    "unknown format": lambda file: zipped(_edit_metadata(file, format="anchor_jax.export/2")),
    "label names of integers": lambda file: zipped(_edit_metadata(file, label_names=[0, 1, 2])),
    "versions in a list": lambda file: zipped(_edit_metadata(file, versions=["0.10.2"])),
    "wrong number of classes": lambda file: zipped(_edit_metadata(file, label_names=["a", "b"])),
    "wrong image shape": lambda file: zipped(_edit_metadata(file, image_shape=[6, 6, 3])),
    "wrong platforms": lambda file: zipped(_edit_metadata(file, platforms=["cpu"])),
    "wrong preprocessing": lambda file: zipped(_edit_metadata(file, preprocessing={"height": 7})),
    "preprocessing for another shape": lambda file: zipped(_edit_metadata(file, preprocessing=SMALLER)),
    "wrong outputs": lambda file: zipped(_edit_metadata(file, outputs=["probs"])),
}


@pytest.mark.parametrize("case", INVALID_FILES)
def test_load_exported_rejects_corrupt_and_foreign_files(case, file, tmp_path):
    invalid = tmp_path / "invalid.zip"
    invalid.write_bytes(INVALID_FILES[case](file))
    with pytest.raises(UserError, match=f"cannot read '{re.escape(str(invalid))}' .*; pass an intact file") as error:
        aj.load_exported(invalid)
    assert "\n" not in str(error.value)
    assert not left_a_mark(file.parent)


def test_load_exported_rejects_missing_files():
    with pytest.raises(UserTypeError, match="file must be a path; got 3"):
        aj.load_exported(3)
    with pytest.raises(UserError, match=r"no file 'nothing\.zip'; pass one written by python -m anchor_jax\.export"):
        aj.load_exported("nothing.zip")


def test_load_exported_rejects_programs_for_other_devices(standard, tmp_path):
    program = export_program(standard, 1, platforms=("cuda", "tpu"))
    outputs = tuple(jax.tree.unflatten(program.out_tree, program.out_avals))
    metadata = Metadata(("0", "1", "2"), (6, 6, 1), "resnet18", 0, None, outputs, program.platforms, {})
    write_archive(tmp_path / "tpu.zip", program, metadata)
    with pytest.raises(UserError, match=r"is for cuda, tpu, but JAX runs on cpu; .* --platforms=cuda,tpu,cpu$"):
        aj.load_exported(tmp_path / "tpu.zip")
    write_archive(tmp_path / "newer.zip", dataclasses.replace(program, nr_devices=0), metadata)
    with pytest.raises(UserError, match=r"program.stablehlo is for 0 devices instead of 1\); .* or older$"):
        aj.load_exported(tmp_path / "newer.zip")


def test_exports_work_inside_jit_and_vmap(file):
    first, second = aj.load_exported(file), aj.load_exported(file)
    images = np.random.default_rng(6).integers(0, 256, (4, *first.image_shape), np.uint8)
    expected = first(images).probs

    @jax.jit
    def ensemble(traced):
        return first(traced).probs, second.program(traced)["probs"], second(images).probs  # the last is constant

    for probs in ensemble(images):
        np.testing.assert_allclose(probs, expected, atol=1e-6)
    mapped = jax.jit(jax.vmap(lambda image: first(image[None]).probs[0]))(images)
    np.testing.assert_allclose(mapped, expected, atol=1e-6)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies_of_predictors_and_exports_are_equal(copied, file, predictor):
    for original in (predictor, aj.load_exported(file)):
        other = copied(original)
        assert_same_bits(other(IMAGES[:3]), original(IMAGES[:3]))
        assert len({original, other}) == 2  # hashable, so that both may be static under jit


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap, lambda f: lambda x: jax.eval_shape(f, x)])
def test_predictor_inside_transforms_is_refused(transform, predictor):
    with pytest.raises(UserTypeError, match=r"images must be arrays with values, .* the result of load_exported works"):
        transform(predictor)(IMAGES[None] if transform is jax.vmap else IMAGES)
