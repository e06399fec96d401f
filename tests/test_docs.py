"""Tests of the documentation: its Python runs, its commands exist, and the site builds without a warning."""

import importlib.util
import re
import runpy
import shlex
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pages
import pytest
from commands import ROOT, command, quick_command
from PIL import Image

import anchor_jax as aj
from anchor_jax import config
from anchor_jax.cli import config_flag, main

DOCS = pages.DOCS
# pages whose blocks are tested below, in test_frameworks.py and in test_regression_page.py
TESTED_SEPARATELY = {DOCS / f"{name}.md" for name in ("finetuning", "data", "frameworks", "regression")}
# sections whose blocks are tested in test_export_onnx.py, test_hub.py and test_to_torch.py
OTHER_SECTIONS = {"export.md": ("ONNX", "Hugging Face Hub"), "models.md": ("Convert a run to PyTorch",)}
WITH_PYTHON = [page for page in pages.PAGES if pages.python_blocks(page) and page not in TESTED_SEPARATELY]
SCRIPTS = [
    *(
        file
        for folder in ("anchor_jax/cli", "benchmarks", "configs", "docs", "examples", "faults", "studies")
        for file in (ROOT / folder).rglob("*.py")
    ),
    *ROOT.glob("*.py"),
]

YOUR_CONFIG = "configs/mine.py"  # data.md shows how to write it
# script or module -> the command of `anchor-jax` that it runs
COMMANDS = {"train.py": "train", "eval.py": "evaluate"} | {
    f"anchor_jax.{name.replace('-', '_')}": name for name in main.COMMANDS
}


def titles(files):
    return {"argvalues": files, "ids": [str(file.relative_to(ROOT)) for file in files]}


# --- Python ---------------------------------------------------------------------------------------------


def names_of_readme():
    """Return what the blocks of README.md assume: a model, images, labels and keys."""
    rng = np.random.default_rng(0)

    def first_layer(params, inputs):
        return inputs.reshape(len(inputs), -1) @ params

    return {
        "f": first_layer,
        "params": rng.normal(size=(2 * 72, 3)).astype(np.float32),
        "x": rng.normal(size=(16, 6, 6, 2)).astype(np.float32),
        "bank": rng.normal(size=(40, 6, 6, 2)).astype(np.float32),
        "labels": np.arange(16) % 3,
        "reference_key": jax.random.key(1),
        "mask_key": jax.random.key(2),
        "images_uint8": images(6),
    }


def names_of_api():
    """Return what the blocks of api.md assume: those of README.md, weights, and predictions of held-out examples."""
    names, rng = names_of_readme(), np.random.default_rng(5)
    logits = rng.normal(size=(60, 3))
    held_out = {"held_out_logits": logits, "held_out_labels": (logits + rng.gumbel(size=logits.shape)).argmax(1)}

    def rest(params, features):
        return features

    return names | {
        **held_out,
        "first_layer": names["f"],
        "rest": rest,
        "kernel": names["params"],
        "residuals": np.random.default_rng(3).normal(size=(40, 6, 6, 2)).astype(np.float32),
        "key": jax.random.key(0),
        "old_statistics": {"mean": np.zeros(3)},
        "new_statistics": {"mean": np.ones(3)},
        "photographs_uint8": images(8),
        "state_dict": pytest.importorskip("torchvision").models.swin_v2_t(weights=None).state_dict(),
    }


def names_of_evaluation():
    """Return what the blocks of evaluation.md assume: images, and predictions of a network with their labels."""
    names = names_of_readme()
    x = np.random.default_rng(4).normal(size=(60, 6, 6, 2)).astype(np.float32)
    answer = aj.classify(names["f"], names["params"] / 8, x, names["bank"][:5])
    labels = np.asarray(answer.probs.argmax(-1)) * (np.arange(60) % 5 > 0)  # most of them are right
    return {"aj": aj, "key": jax.random.key(0), "images_uint8": images(8), "answer": answer, "labels": labels}


def images(size):
    return np.random.default_rng(1).integers(0, 256, (4, size, size, 1), np.uint8)


# page -> function that returns the names it assumes
ASSUMED = {
    "README.md": names_of_readme,
    "api.md": names_of_api,
    "evaluation.md": names_of_evaluation,
    "export.md": lambda: {"images": images(6), "images_uint8": images(6)},
    "models.md": lambda: {
        "aj": aj,
        "state_dict": pytest.importorskip("torchvision").models.resnet50(weights=None).state_dict(),
    },
}


@pytest.fixture
def with_runs(exported, tmp_path, monkeypatch):
    """Change to a folder with the runs and files that the pages name."""
    (tmp_path / "runs").mkdir()
    for name in ("digits", "mine"):
        (tmp_path / "runs" / name).symlink_to(exported.workdir)
    for name in ("7.jpg", "3.png", "cat.jpg", "dog.png"):
        Image.new("RGB", (50, 30)).save(tmp_path / name)
    (tmp_path / "c10.zip").symlink_to(exported.file)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("with_runs")
@pytest.mark.parametrize("page", **titles(WITH_PYTHON))
def test_python_blocks_run(page):
    assumed, text = ASSUMED.get(page.name, dict)(), page.read_text()
    for title in OTHER_SECTIONS.get(page.name, ()):
        text = text.replace(pages.section(text, title), "")
    assert pages.run(text, str(page), **assumed).keys() > assumed.keys()


@pytest.mark.parametrize("page", **titles(pages.PAGES))
def test_python_is_in_blocks_that_are_run(page):
    for kind, block in re.findall(r"^```(.*?)\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL):
        assert kind == "python" or not re.search(r"^(import|from) \w", block, flags=re.MULTILINE), block


def test_finetuning_guide_starts_from_the_same_function():
    names = pages.run((DOCS / "finetuning.md").read_text(), "finetuning.md")
    assert np.std(names["before"]) > 1e-2
    np.testing.assert_allclose(names["after"], names["before"], atol=1e-5)


@pytest.mark.usefixtures("with_runs")
def test_data_guide_has_a_valid_config_and_dataset():
    names = pages.run((DOCS / "data.md").read_text(), "data.md")
    config.validate(names["get_config"]())
    assert names["dataset"].images.shape == (96, 8, 8, 1)
    assert names["dataset"].label_names == ("cat", "dog", "owl")


def test_contributing_guide_has_a_working_suite(digits_context):
    suite = pages.run((ROOT / "CONTRIBUTING.md").read_text(), "CONTRIBUTING.md")["Certainty"]()
    result = suite.measure(suite.prepare(digits_context), 2)
    assert 0 < result.metrics["entropy"] < np.log(10)
    (table,) = suite.tables({2: result})
    assert [column.title for column in table.columns] == ["entropy"]


def test_contributing_guide_has_a_working_corruption(monkeypatch):
    names = pages.run((ROOT / "CONTRIBUTING.md").read_text(), "CONTRIBUTING.md")
    monkeypatch.setitem(aj.data.corruptions.CORRUPTIONS, "invert", names["CORRUPTIONS"]["invert"])
    corrupted = aj.data.corrupt(jax.random.key(0), images(8), "invert", severity=5)
    np.testing.assert_allclose(corrupted, 127.5, atol=0.5)


def test_classification_tutorial_detects_unseen_classes():
    names = runpy.run_path(str(DOCS / "tutorials" / "classification.py"))
    assert names["accuracy"] > 0.9
    assert names["aurocs"]["mutual information"] > 0.8
    assert names["selective_accuracy"] > names["is_correct"].mean() + 0.1


def test_readme_figure_is_drawn(tmp_path):
    runpy.run_path(str(DOCS / "images" / "uncertainty.py"))["main"](str(tmp_path))
    with Image.open(tmp_path / "uncertainty.png") as drawn, Image.open(DOCS / "images/uncertainty.png") as committed:
        assert drawn.size == committed.size
        assert np.asarray(drawn.convert("RGB")).std() > 10


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


# --- commands -------------------------------------------------------------------------------------------


@cache
def help_flags(name):
    """Return the flags of a command of `anchor-jax`, from its help."""
    done = quick_command("-m", "anchor_jax", name, "--help")
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"^  --(?:\[no\])?(\w+)", done.stdout, flags=re.MULTILINE))


def script_flags(file):
    """Return the flags that a script defines."""
    text = file.read_text()
    names = set(re.findall(r"""(?:DEFINE_\w+|define_path)\(\s*["'](\w+)["']""", text)) | {"help"}
    if "distributed=True" in text:
        names |= {"coordinator", "num_processes", "process_id", "connect_timeout"}
    return names


def file_of_module(name):
    """Return the file that `python -m` runs."""
    found = importlib.util.find_spec(name)
    assert found, f"no module {name}"
    if found.submodule_search_locations:
        found = importlib.util.find_spec(f"{name}.__main__")
    assert found
    assert found.origin
    return Path(found.origin)


def check_python(words):
    if words[0] == "-c":
        return
    is_module = words[0] == "-m"
    target, arguments = words[int(is_module)], words[int(is_module) + 1 :]
    if target == "anchor_jax" and arguments:
        check_anchor_jax(arguments)
        return
    file = file_of_module(target) if is_module else ROOT / target
    assert file.is_file(), f"no file {file}"
    name = COMMANDS.get(target)
    check_flags(target, arguments, help_flags(name) if name else script_flags(file))


def check_anchor_jax(words):
    name, *arguments = words
    if not name.startswith("-"):
        assert name in main.COMMANDS, f"anchor-jax has no command {name}"
        check_flags(f"anchor-jax {name}", arguments, help_flags(name))


def check_flags(program, arguments, allowed):
    for number, argument in enumerate(arguments):
        if not argument.startswith("--"):
            continue
        name, _, value = argument.removeprefix("--").partition("=")
        if name.startswith("config."):
            assert config.is_known(name.removeprefix("config.")), f"no key {name}"
            continue
        assert name in allowed, f"{program} has no flag --{name}"
        if name == "config":
            file = (value or arguments[number + 1]).partition(":")[0]
            assert file in (YOUR_CONFIG, *config_flag.names()) or (ROOT / file).is_file(), f"no file {file}"


def check_make(words):
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        variable = word.partition("=")[0]
        named = rf"\$\({variable}\)|^{variable} \?=" if "=" in word else rf"^{re.escape(word)}:"
        assert re.search(named, makefile, flags=re.MULTILINE), f"nothing in the Makefile for {word}"


def check(line):
    program, *words = shlex.split(line)
    {"python": check_python, "make": check_make, "anchor-jax": check_anchor_jax}[program](words)


@pytest.mark.parametrize("file", **titles([*pages.PAGES, *SCRIPTS]))
def test_commands_name_what_exists(file):
    for line in pages.commands(file.read_text()):
        check(line)


def test_commands_are_found():
    block = "```\nmake demo    # all\nX=1 python train.py --config configs/digits.py \\\n    --workdir runs/d\n```\n"
    found = ["make demo", "python train.py --config configs/digits.py --workdir runs/d", "make rum"]
    assert pages.commands(block + "and `make rum`") == found
    assert pages.commands("  anchor-jax train --config digits\nor `anchor-jax export`, of anchor-jax") == [
        "anchor-jax train --config digits",
        "anchor-jax export",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("python trian.py", "no file .*trian.py"),
        ("python -m anchor_jax.exprot", "no module anchor_jax.exprot"),
        ("python -m anchor_jax trian", "anchor-jax has no command trian"),
        ("anchor-jax trian", "anchor-jax has no command trian"),
        ("anchor-jax evaluate --suite=clean", "anchor-jax evaluate has no flag --suite"),
        ("anchor-jax train --config digit", "no file digit"),
        ("python train.py --wokrdir=x", "train.py has no flag --wokrdir"),
        ("python train.py --config.sede=1", "no key config.sede"),
        ("python train.py --config configs/digit.py", "no file configs/digit.py"),
        ("make rum", "nothing in the Makefile for rum"),
        ("make demo DMEO=x", "nothing in the Makefile for DMEO"),
    ],
)
def test_commands_with_a_mistake_are_detected(line, message):
    with pytest.raises(AssertionError, match=message):
        check(line)


# --- the site -------------------------------------------------------------------------------------------


def test_site_builds_without_a_warning(tmp_path):
    done = command("-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", DOCS, tmp_path / "site")
    assert done.returncode == 0, done.stderr
    for name, text in (("index", "Two commands"), ("method", "Why references are masked"), ("api", "anchored_kernel")):
        assert text in (tmp_path / "site" / f"{name}.html").read_text()
