"""Exported runs: they answer as the run does, JAX alone runs them, and what is wrong is told in one line."""

import dataclasses
import json
import os
import re
import zipfile
from typing import NamedTuple

import jax
import numpy as np
import pages
import pytest
from commands import ROOT, assert_told, command, quick_command
from conftest import begun, tiny_config
from corrupt_files import left_a_mark, pickled, zipped
from ml_collections import ConfigDict

import anchor_jax as aj
from anchor_jax.core.errors import UserError, UserTypeError
from anchor_jax.export import write
from anchor_jax.export.format import METADATA, PROGRAM, Metadata, write_archive
from anchor_jax.runs.load import create_model, create_predictor, load_predictor
from anchor_jax.runs.predictor import Predictor
from anchor_jax.runs.record import Run
from anchor_jax.runtime import mesh as mesh_lib

IMAGES = np.random.default_rng(5).integers(0, 256, (17, 6, 6, 1)).astype(np.uint8)


class Untrained(NamedTuple):
    """A run of a tiny ResNet that has begun, and its predictor."""

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


def untrained(folder, *, anchored):
    config = tiny_config(folder)
    config.model.name = "resnet18"
    config.model.options = ConfigDict({"stage_sizes": (1,), "width": 4})
    config.anchoring.enabled = anchored
    config.anchoring.mask_prob = 0.5 * anchored
    run = begun(config, folder / "run").run
    shapes = jax.eval_shape(create_model(run).init, jax.random.key(0), np.zeros(run.input_shape, np.float32))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.uniform(0.1, 0.5, leaf.shape).astype(np.float32), shapes)
    return Untrained(run, create_predictor(run, variables, mesh_lib.mesh()))


@pytest.fixture(scope="module")
def anchored(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("anchored"), anchored=True)


@pytest.fixture(scope="module")
def standard(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("standard"), anchored=False)


def program_of(case, num_references, chunk_size=None, platforms=("cpu",)):
    return write.program_of(case.run, case.predictor, num_references, platforms, chunk_size)


def assert_agree(answer, expected):
    assert answer.keys() == {name for name, array in expected._asdict().items() if array is not None}
    for name, array in answer.items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, getattr(expected, name), rtol=1e-5, atol=1e-6, err_msg=name)


# --- the same answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("num", [1, 3, 17])
def test_an_exported_run_answers_as_the_run(num, file, predictor):
    classifier = aj.load_exported(file)
    answer = classifier(IMAGES[:num])
    assert_agree(answer._asdict(), predictor(IMAGES[:num], num_references=10))
    assert answer.probs_std.shape == answer.probs.shape == (num, 3)
    assert answer.probs_std.min() > 0
    assert answer.mutual_information.shape == (num,)


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_a_network_of_convolutions(chunk_size, anchored):
    program = program_of(anchored, 10, chunk_size, write.PLATFORMS)
    assert ("stablehlo.while" in program.mlir_module()) == (chunk_size is not None)
    for num in (1, 3, 17)[: 3 if chunk_size is None else 1]:
        assert_agree(program.call(IMAGES[:num]), anchored.predictor(IMAGES[:num], num_references=10))


def test_one_reference_and_a_standard_network_have_no_spread(anchored, standard):
    for case in (anchored, standard):
        answer = program_of(case, 1).call(IMAGES[:3])
        assert answer.keys() == {"logits", "probs", "entropy", "mutual_information"}
        assert_agree(answer, case.predictor(IMAGES[:3], num_references=1))
        np.testing.assert_array_equal(answer["mutual_information"], np.zeros(3))


def test_nothing_of_references_is_left_to_compute(anchored):
    program = program_of(anchored, 10).mlir_module()
    assert "tensor<10x6x6x4xf32>" in program  # what the first layer made of them
    assert "tensor<10x6x6x1x" not in program
    assert "tensor<10x6x6x2x" not in program


# --- the file -------------------------------------------------------------------------------------------


def test_the_file_tells_what_it_is(exported, workdir):
    ended, file = exported.ended, exported.file
    assert ended.returncode == 0, ended.stderr
    assert re.fullmatch(r"step 3 with 10 references for cpu, cuda, tpu in .*run\.zip, 0\.0 MB\n", ended.stdout)
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
    for told in (os.sep.join(workdir.parts[1:3]), str(ROOT), "site-packages", "inference.py"):
        assert told.encode() not in file.read_bytes()


def test_the_same_run_gives_the_same_bytes(file, workdir, tmp_path):
    write.export(workdir, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == file.read_bytes()


def test_jax_alone_runs_it_as_the_documentation_says(file, predictor, tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    _, lines = pages.python_blocks(pages.DOCS / "export.md")
    script = [
        "import sys, numpy as np",
        f"images = np.load({str(tmp_path / 'images.npy')!r})",
        lines.replace("c10.zip", str(file)),
        f"np.savez({str(tmp_path / 'answer.npz')!r}, **answer)",
        "others = {'anchor_jax', 'flax', 'orbax', 'optax'} & set(sys.modules)",
        "sys.exit(f'imported: {others}' if others or label_names != ['0', '1', '2'] else None)",
    ]
    ended = command("-c", "\n".join(script))
    assert ended.returncode == 0, ended.stderr
    with np.load(tmp_path / "answer.npz") as answer:
        assert_agree(dict(answer), predictor(IMAGES, num_references=10))


# --- mistakes -------------------------------------------------------------------------------------------


def test_wrong_commands(workdir, file, tmp_path):
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
        ([], 2, "one path must be given beside the flags, that of a new file; got []"),
        ([new, new], 2, "one path must be given beside the flags"),
    ):
        ended = quick_command("-m", "anchor_jax.export", f"--workdir={workdir}", *arguments)
        assert_told(ended, status, message)
    assert file.read_bytes() == before
    assert not list(tmp_path.iterdir())


def test_wrong_images(file):
    classifier = aj.load_exported(file)
    with pytest.raises(UserTypeError, match="images must be uint8, got float32: give them as they are stored"):
        classifier(IMAGES.astype(np.float32))
    for images, message in (
        (IMAGES[0], r"images must be \[B, H, W, C\], got shape \(6, 6, 1\)"),
        (IMAGES[:0], "images must not be empty"),
        (IMAGES[:, 1:], r"images must be \[B, 6, 6, 1\], as the run was trained on; got \[17, 5, 6, 1\]"),
    ):
        with pytest.raises(UserError, match=message):
            classifier(images)


def _edited(content: bytes, **changes) -> dict[str, bytes]:
    """The members of a file with other metadata."""
    with zipfile.ZipFile(content) as archive:
        metadata = json.loads(archive.read(METADATA)) | changes
        return {METADATA: json.dumps(metadata).encode(), PROGRAM: archive.read(PROGRAM)}


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


FILES = {
    "empty": lambda file: b"",
    "no archive": lambda file: b"rubbish" * 99,
    "truncated": lambda file: file.read_bytes()[:-30],
    "a byte is another": lambda file: _flipped(file.read_bytes()),
    "an archive of other things": lambda file: zipped({"x_train.npy": b"x"}),
    "no program": lambda file: zipped(_edited(file) | {PROGRAM: b"rubbish" * 99}),
    "a pickle for a program": lambda file: zipped(_edited(file) | {PROGRAM: pickled(file.parent)}),
    "a pickle for metadata": lambda file: zipped(_edited(file) | {METADATA: pickled(file.parent)}),
    "metadata too deep": lambda file: zipped(_edited(file) | {METADATA: b"[" * 100_000}),
    "another format": lambda file: zipped(_edited(file, format="anchor_jax.export/2")),
    "names of no strings": lambda file: zipped(_edited(file, label_names=[0, 1, 2])),
    "versions of no names": lambda file: zipped(_edited(file, versions=["0.10.2"])),
    "other classes": lambda file: zipped(_edited(file, label_names=["a", "b"])),
    "other images": lambda file: zipped(_edited(file, image_shape=[6, 6, 3])),
    "other platforms": lambda file: zipped(_edited(file, platforms=["cpu"])),
    "other outputs": lambda file: zipped(_edited(file, outputs=["probs"])),
}


@pytest.mark.parametrize("case", FILES)
def test_damaged_and_foreign_files(case, file, tmp_path):
    wrong = tmp_path / "wrong.zip"
    wrong.write_bytes(FILES[case](file))
    with pytest.raises(UserError, match=f"cannot read '{re.escape(str(wrong))}' .*; give an undamaged one") as error:
        aj.load_exported(wrong)
    assert "\n" not in str(error.value)
    assert not left_a_mark(file.parent)


def test_files_that_are_not_there():
    with pytest.raises(UserTypeError, match="file must be a path, got 3"):
        aj.load_exported(3)
    with pytest.raises(UserError, match=r"no file 'nothing\.zip'; give one that python -m anchor_jax\.export wrote"):
        aj.load_exported("nothing.zip")


def test_programs_that_cannot_run_here(standard, tmp_path):
    program = program_of(standard, 1, platforms=("cuda", "tpu"))
    outputs = tuple(jax.tree.unflatten(program.out_tree, program.out_avals))
    metadata = Metadata(("0", "1", "2"), (6, 6, 1), "resnet18", 0, None, outputs, program.platforms, {})
    write_archive(tmp_path / "tpu.zip", program, metadata)
    with pytest.raises(UserError, match=r"is for cuda, tpu, and JAX runs on cpu here; .* --platforms=cuda,tpu,cpu$"):
        aj.load_exported(tmp_path / "tpu.zip")
    write_archive(tmp_path / "newer.zip", dataclasses.replace(program, nr_devices=0), metadata)
    with pytest.raises(UserError, match=r"program.stablehlo is for 0 devices, not one\); .* or an older one$"):
        aj.load_exported(tmp_path / "newer.zip")
