"""Wheel and source distribution: what is in them, and that what was installed from them works."""

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
from commands import ROOT

import anchor_jax as aj

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOT_SOURCE = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "site")


def python(*arguments, cwd):
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of a source distribution, and of a wheel that was built from it."""
    folder = tmp_path_factory.mktemp("distribution")
    shutil.copytree(ROOT, folder / "source", ignore=NOT_SOURCE)
    python("-m", "build", "--no-isolation", "--outdir", folder / "dist", folder / "source", cwd=folder)
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(built):
    (file,) = built.glob("*.whl")
    return file


def files_of(folder):
    """The files below a folder of the project, as paths from the project's own."""
    found = (file.relative_to(ROOT) for file in (ROOT / folder).rglob("*") if file.is_file())
    return {file.as_posix() for file in found if not any(part.startswith((".", "__pycache__")) for part in file.parts)}


def test_the_wheel_has_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == files_of("anchor_jax")
    assert {"anchor_jax/py.typed", "anchor_jax/evaluation/report/page.html.j2"} <= names


def test_the_wheel_tells_what_it_is(wheel):
    with zipfile.ZipFile(wheel) as archive:
        about = f"anchor_jax-{PROJECT['version']}.dist-info"
        metadata = Parser().parsestr(archive.read(f"{about}/METADATA").decode())
        assert archive.read(f"{about}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Name"] == "anchor-jax"
    assert metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra")) == PROJECT["optional-dependencies"].keys()
    assert {"bench", "cuda13", "docs", "serve", "test", "tfds-prepare", "torch", "tpu"} == set(
        metadata.get_all("Provides-Extra")
    )
    assert metadata.get_payload().startswith("# anchor_jax")


def test_the_source_distribution_has_what_make_test_needs(built):
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    folders = ("anchor_jax", "benchmarks", "configs", "docs", "examples", "faults", "studies", "tests")
    assert set().union(*map(files_of, folders)) <= names
    assert {"Makefile", "README.md", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", "train.py"} <= names
    assert not {name for name in names if name.endswith(".pyc")}


def test_an_installed_wheel_works(wheel, tmp_path):
    python(
        "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", tmp_path / "new", wheel, cwd=tmp_path
    )
    told = python(
        "-c", "import anchor_jax as aj, anchor_jax.export; print(aj.__version__, aj.__file__)", cwd=tmp_path / "new"
    )
    assert told.split() == [PROJECT["version"], str(tmp_path / "new/anchor_jax/__init__.py")]


def test_the_version_is_in_one_place():
    assert aj.__version__ == PROJECT["version"]
    newest = re.search(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert newest
    assert newest[1] == PROJECT["version"]


def test_the_oldest_versions_are_those_that_are_allowed():
    bounds = dict(re.findall(r"^([\w-]+)>=([\d.]+)", "\n".join(PROJECT["dependencies"]), flags=re.MULTILINE))
    oldest = dict(re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / "tests/min_versions.txt").read_text(), flags=re.MULTILINE))
    assert oldest.pop("jaxlib") == bounds["jax"]

    def numbers(version):
        return [int(part) for part in re.sub(r"(\.0)+$", "", version).split(".")]

    assert {name: numbers(version) for name, version in oldest.items()} == {
        name: numbers(version) for name, version in bounds.items()
    }


def test_the_citation_names_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation.keys() >= {"cff-version", "message", "title", "authors"}  # what the format asks for
    assert [author["name"] for author in citation["authors"]] == [PROJECT["authors"][0]["name"]]
    (paper,) = citation["references"]
    assert paper["identifiers"][0]["value"].removeprefix("arXiv:") in (aj.__doc__ or "")
