"""The pages: every block of Python runs, every command names what there is, and they build without a warning."""

import importlib.util
import re
import runpy
import shlex
from pathlib import Path

import jax
import numpy as np
import pages
import pytest
from commands import ROOT, command

import anchor_jax as aj
from anchor_jax import config

DOCS = pages.DOCS
# whose blocks have tests of their own: below, in test_frameworks.py and in test_regression_page.py
TESTED_APART = {DOCS / f"{name}.md" for name in ("finetuning", "data", "frameworks", "regression")}
WITH_PYTHON = [page for page in pages.PAGES if pages.python_blocks(page) and page not in TESTED_APART]
SCRIPTS = [
    *(
        file
        for folder in ("benchmarks", "configs", "docs", "examples", "faults", "studies")
        for file in (ROOT / folder).rglob("*.py")
    ),
    *ROOT.glob("*.py"),
]

YOURS = "configs/mine.py"  # which data.md shows how to write


def titles(files):
    return {"argvalues": files, "ids": [str(file.relative_to(ROOT)) for file in files]}


# --- Python ---------------------------------------------------------------------------------------------


def of_readme():
    """What the block in README.md stands amid: a model, images, keys, weights."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(2 * 72, 3)).astype(np.float32)

    def first_layer(params, inputs):
        return inputs.reshape(len(inputs), -1) @ params

    def rest(params, features):
        return features

    return {
        "f": first_layer,
        "first_layer": first_layer,
        "rest": rest,
        "params": kernel,
        "kernel": kernel,
        "x": rng.normal(size=(16, 6, 6, 2)).astype(np.float32),
        "bank": rng.normal(size=(40, 6, 6, 2)).astype(np.float32),
        "residuals": rng.normal(size=(40, 6, 6, 2)).astype(np.float32),
        "labels": np.arange(16) % 3,
        "key": jax.random.key(0),
        "reference_key": jax.random.key(1),
        "mask_key": jax.random.key(2),
        "images_uint8": images(6),
        "photographs_uint8": images(8),
        "state_dict": pytest.importorskip("torchvision").models.swin_v2_t(weights=None).state_dict(),
    }


def images(size):
    return np.random.default_rng(1).integers(0, 256, (4, size, size, 1), np.uint8)


# page -> names that it takes for granted
GIVEN = {
    "README.md": of_readme,
    "evaluation.md": lambda: {
        "aj": aj,
        "key": jax.random.key(0),
        "images_uint8": images(8),
    },
    "export.md": lambda: {"images": images(6), "images_uint8": images(6)},
    "models.md": lambda: {
        "aj": aj,
        "state_dict": pytest.importorskip("torchvision").models.resnet50(weights=None).state_dict(),
    },
}


@pytest.fixture
def with_runs(exported, tmp_path, monkeypatch):
    """A folder with the runs and files that the pages name."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits").symlink_to(exported.workdir)
    (tmp_path / "c10.zip").symlink_to(exported.file)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("with_runs")
@pytest.mark.parametrize("page", **titles(WITH_PYTHON))
def test_every_block_of_python_runs(page):
    given = GIVEN.get(page.name, dict)()
    assert pages.run(page.read_text(), str(page), **given).keys() > given.keys()


def test_the_guide_to_fine_tuning_begins_as_the_same_function():
    names = pages.run((DOCS / "finetuning.md").read_text(), "finetuning.md")
    assert np.std(names["before"]) > 1e-2
    np.testing.assert_allclose(names["after"], names["before"], atol=1e-5)


@pytest.mark.usefixtures("with_runs")
def test_the_guide_to_data_has_a_config_and_data_that_train():
    names = pages.run((DOCS / "data.md").read_text(), "data.md")
    config.validate(names["get_config"]())
    assert names["dataset"].images.shape == (96, 8, 8, 1)
    assert names["dataset"].label_names == ("cat", "dog", "owl")


def test_the_tutorial_on_classification_finds_what_was_not_learnt():
    names = runpy.run_path(str(DOCS / "tutorials" / "classification.py"))
    assert names["accuracy"] > 0.9
    assert names["aurocs"]["mutual information"] > 0.8
    assert names["selective_accuracy"] > names["is_correct"].mean() + 0.1


# --- commands -------------------------------------------------------------------------------------------


def script_of(words):
    """The file that `python` runs, and the words after it; nothing for a program in quotes."""
    if words[0] == "-c":
        return None, ()
    if words[0] == "-m":
        found = importlib.util.find_spec(words[1])
        assert found, f"no module {words[1]}"
        if found.submodule_search_locations:
            found = importlib.util.find_spec(f"{words[1]}.__main__")
        assert found
        assert found.origin
        return Path(found.origin), words[2:]
    return ROOT / words[0], words[1:]


def flags_of(script):
    """The names of the flags that a script defines."""
    text = script.read_text()
    names = set(re.findall(r"""DEFINE_\w+\(\s*["'](\w+)["']""", text)) | {"help"}
    if "define_config" in text:
        names.add("config")
    if "distributed=True" in text:
        names |= {"coordinator", "num_processes", "process_id"}
    return names


def check_python(words):
    script, arguments = script_of(words)
    if script is None:
        return
    assert script.is_file(), f"no file {script}"
    for number, argument in enumerate(arguments):
        if not argument.startswith("--"):
            continue
        name, _, value = argument.removeprefix("--").partition("=")
        if name.startswith("config."):
            assert config.is_known(name.removeprefix("config.")), f"no key {name}"
            continue
        assert name in flags_of(script), f"{script.name} has no flag --{name}"
        if name == "config":
            file = (value or arguments[number + 1]).partition(":")[0]
            assert file == YOURS or (ROOT / file).is_file(), f"no file {file}"


def check_make(words):
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        variable = word.partition("=")[0]
        named = rf"\$\({variable}\)|^{variable} \?=" if "=" in word else rf"^{re.escape(word)}:"
        assert re.search(named, makefile, flags=re.MULTILINE), f"nothing in the Makefile for {word}"


def check(line):
    program, *words = shlex.split(line)
    {"python": check_python, "make": check_make}[program](words)


@pytest.mark.parametrize("file", **titles([*pages.PAGES, *SCRIPTS]))
def test_every_command_names_what_there_is(file):
    for line in pages.commands(file.read_text()):
        check(line)


def test_commands_are_found():
    block = "```\nmake demo    # all\nX=1 python train.py --config configs/digits.py \\\n    --workdir runs/d\n```\n"
    found = ["make demo", "python train.py --config configs/digits.py --workdir runs/d", "make rum"]
    assert pages.commands(block + "and `make rum`") == found


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("python trian.py", "no file .*trian.py"),
        ("python -m anchor_jax.exprot", "no module anchor_jax.exprot"),
        ("python train.py --wokrdir=x", "train.py has no flag --wokrdir"),
        ("python train.py --config.sede=1", "no key config.sede"),
        ("python train.py --config configs/digit.py", "no file configs/digit.py"),
        ("make rum", "nothing in the Makefile for rum"),
        ("make demo DMEO=x", "nothing in the Makefile for DMEO"),
    ],
)
def test_a_mistake_in_a_command_is_found(line, told):
    with pytest.raises(AssertionError, match=told):
        check(line)


# --- the site -------------------------------------------------------------------------------------------


def test_the_pages_build_without_a_warning(tmp_path):
    done = command("-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", DOCS, tmp_path / "site")
    assert done.returncode == 0, done.stderr
    for name, told in (("index", "Two commands"), ("method", "Why references are masked"), ("api", "anchored_kernel")):
        assert told in (tmp_path / "site" / f"{name}.html").read_text()
