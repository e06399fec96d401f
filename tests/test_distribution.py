"""Tests of the wheel and the source distribution: their content, and what is installed from them."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser

import pytest
import yaml
from commands import ROOT, assert_error, run_process

import anchor_jax as aj

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def not_source(folder, names):
    """Return what `shutil.copytree` leaves out: hidden files, caches, and what make targets and runs write."""
    patterns = (".*", "__pycache__", "*.egg-info", *(("build", "dist", "runs", "site") if folder == str(ROOT) else ()))
    return shutil.ignore_patterns(*patterns)(folder, names)


def python(*arguments, cwd):
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return a folder with a source distribution and the wheel built from it."""
    folder = tmp_path_factory.mktemp("distribution")
    shutil.copytree(ROOT, folder / "source", ignore=not_source)
    python("-m", "build", "--no-isolation", "--outdir", folder / "dist", folder / "source", cwd=folder)
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(built):
    (file,) = built.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Return a folder in which the wheel is installed; dependencies are those of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    python("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", folder, wheel, cwd=folder)
    return folder


@pytest.fixture
def anchor_jax_command(installed, tmp_path):
    """Return a function that runs the installed command in an empty folder."""

    def run(*arguments):
        line = (sys.executable, installed / "bin/anchor-jax", *arguments)
        return run_process(*line, cwd=tmp_path, PYTHONPATH=str(installed))

    return run


def files_of(folder):
    """Return the files below a folder of the project, as paths from the project's root."""
    files = (file.relative_to(ROOT) for file in (ROOT / folder).rglob("*") if file.is_file())
    return {file.as_posix() for file in files if not any(part.startswith((".", "__pycache__")) for part in file.parts)}


def test_wheel_has_the_package_and_the_configs_only(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == files_of("anchor_jax") | {f"anchor_jax/{name}" for name in files_of("configs")}
    assert {"anchor_jax/py.typed", "anchor_jax/reporting/page.html.j2", "anchor_jax/configs/_imagenet.py"} <= names


def test_wheel_metadata_is_that_of_pyproject(wheel):
    with zipfile.ZipFile(wheel) as archive:
        about = f"anchor_jax-{PROJECT['version']}.dist-info"
        metadata = Parser().parsestr(archive.read(f"{about}/METADATA").decode())
        assert archive.read(f"{about}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Name"] == "anchor-jax"
    assert metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra")) == PROJECT["optional-dependencies"].keys()
    extras = {"bench", "cuda13", "docs", "mlflow", "plan-gpu", "plan-tpu", "serve", "test", "tfds-prepare", "torch"}
    extras |= {"tpu", "wandb", "hub", "onnx", "gcs", "s3"}
    assert extras == set(metadata.get_all("Provides-Extra"))
    assert metadata.get_payload().startswith("# anchor_jax")


def test_source_distribution_has_what_make_test_needs(built):
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    folders = ("anchor_jax", "benchmarks", "configs", "docs", "faults", "studies", "tests")
    assert set().union(*map(files_of, folders)) <= names
    assert {"Makefile", "README.md", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", "setup.py", "train.py"} <= names
    assert not {name for name in names if name.endswith(".pyc")}


def test_installed_package_is_importable(installed):
    output = python(
        "-c", "import anchor_jax as aj, anchor_jax.export; print(aj.__version__, aj.__file__)", cwd=installed
    )
    assert output.split() == [PROJECT["version"], str(installed / "anchor_jax/__init__.py")]


def test_installed_command_prints_its_version(anchor_jax_command):
    assert anchor_jax_command("--version") == (0, f"anchor-jax {PROJECT['version']}\n", "")


def test_installed_command_finds_configs_by_name(anchor_jax_command):
    """The config imports two others, and fails only where its data would be read."""
    done = anchor_jax_command(
        "train", "--config", "cifar100_pixmix", "--workdir=run", "--config.data.path=nowhere", "--config.seed=7"
    )
    assert_error(done, 1, "download_and_prepare()")


def test_installed_config_trains(anchor_jax_command, tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/base.py").write_text("EPOCHS = 0.1\n")
    (tmp_path / "configs/mine.py").write_text(
        "from configs import base, digits\n\n\ndef get_config():\n    config = digits.get_config()\n"
        "    config.model.name, config.model.options = 'mlp', {'hidden': (4,)}\n"
        "    config.training.total_epochs, config.optimizer.warmup_epochs = base.EPOCHS, 0.0\n    return config\n"
    )
    done = anchor_jax_command("train", "--config", "configs/mine.py", "--workdir", "run")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run/run.json").is_file()


def test_version_is_in_one_place():
    assert aj.__version__ == PROJECT["version"]
    released = re.findall(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert released[0] == PROJECT["version"]


def test_min_versions_are_the_lower_bounds_of_pyproject():
    bounds = dict(re.findall(r"^([\w-]+)>=([\d.]+)", "\n".join(PROJECT["dependencies"]), flags=re.MULTILINE))
    pins = dict(re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / "tests/min_versions.txt").read_text(), flags=re.MULTILINE))
    assert pins.pop("jaxlib") == bounds["jax"]

    def numbers(version):
        return [int(part) for part in re.sub(r"(\.0)+$", "", version).split(".")]

    assert {name: numbers(version) for name, version in pins.items()} == {
        name: numbers(version) for name, version in bounds.items()
    }


def test_citation_names_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation.keys() >= {"cff-version", "message", "title", "authors"}  # required by the format
    assert [author["name"] for author in citation["authors"]] == [PROJECT["authors"][0]["name"]]
    (paper,) = citation["references"]
    assert paper["identifiers"][0]["value"].removeprefix("arXiv:") in (aj.__doc__ or "")
