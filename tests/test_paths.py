"""Tests of paths that users give: home folders, addresses, and names that look like addresses."""

import os
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from etils import epath

import anchor_jax as aj
from anchor_jax.cli import config_flag, path_flag
from anchor_jax.config import base
from anchor_jax.evaluation import evaluate, load_results
from anchor_jax.evaluation.ensembles import evaluate_ensemble
from anchor_jax.evaluation.suites import Options
from anchor_jax.export import write_archive
from anchor_jax.export.write import export
from anchor_jax.models.pytorch.files import read_state_dict, source_and_file, write_state_dict
from anchor_jax.reporting import write_report
from anchor_jax.reporting.comparison import compare
from anchor_jax.runtime.atomic_files import cache_folder
from anchor_jax.runtime.paths import local_path, storage_path
from anchor_jax.training.loop import train

SHAPE = (8, 8, 3)
CONFIG = base()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Make a new folder the home, and another the current one, which must stay empty."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "home"
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("~", "{home}"),
        ("~/runs/x", "{home}/runs/x"),
        (Path("~/x"), "{home}/x"),
        ("~root/x", "/root/x"),
        ("./~/x", "{here}/~/x"),
        ("runs/~", "runs/~"),
        ("file:///data/my%20run", "/data/my run"),
        ("FILE://localhost/data", "/data"),
        (Path("file:///data"), "/data"),
        ("C:/runs", "C:/runs"),
        ("runs/12:30", "runs/12:30"),
        ("lr:0.1/seed:1", "lr:0.1/seed:1"),
        ("a:b", "a:b"),
        ("./gs://x", "{here}/gs:/x"),
    ],
)
def test_local_path_is_that_of_this_machine(given, path, home):
    expected = Path(path.format(home=home, here=Path.cwd()))
    assert local_path("workdir", given) == expected
    assert local_path("workdir", expected) == expected


@pytest.mark.parametrize(
    "address",
    ["gs://bucket/x", Path("gs://bucket/x"), "S3://b", "hdfs://name:9000/x", "https://h/x", "dbfs:/x", "me@host:/x"],
)
def test_local_path_refuses_addresses(address):
    with pytest.raises(aj.UserError, match=f"workdir is '{address}', an address; only folders of this machine"):
        local_path("workdir", address)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("file://host/x", "a file address of this machine is file:///PATH"),
        ("~no-such-user/x", "no home folder of ~no-such-user is known here"),
        (3, "workdir must be a path; got 3"),
    ],
)
def test_local_path_explains_what_it_cannot_find(given, message):
    with pytest.raises(aj.UserError, match=message):
        local_path("workdir", given)


def test_local_path_warns_of_variables(home):
    with pytest.warns(UserWarning, match=r"and \$SCRATCH in it is no more than a name"):
        assert local_path("workdir", "$SCRATCH/x") == Path("$SCRATCH/x")
    (home / "$SCRATCH").mkdir()
    local_path("workdir", home / "$SCRATCH")
    local_path("workdir", "US$/x")


TAKE_PATHS = {
    "train": lambda path: train(CONFIG, path),
    "load_predictor": aj.load_predictor,
    "load_exported": aj.load_exported,
    "export": lambda path: export(path, "new.zip"),
    "export to": lambda path: export("nothing", path),
    "write_archive": lambda path: write_archive(path, None, None),
    "evaluate": evaluate,
    "evaluate_ensemble": lambda path: evaluate_ensemble(
        "ensemble", ["x"], path, ["clean"], num_members=2, options=Options()
    ),
    "load_results": load_results,
    "write_report": write_report,
    "compare": lambda path: compare([path, "y"], "new"),
    "compare to": lambda path: compare(["x", "y"], path),
    "folder": lambda path: aj.data.load("folder", "train", path=path),
    "tfds": lambda path: aj.data.load("tfds", "train", name="mnist", path=path),
    "npz": lambda path: aj.data.load("npz", "train", path=path),
    "folder:": lambda path: aj.data.open_dataset(f"folder:{path}", image_shape=SHAPE),
    "npz:": lambda path: aj.data.open_dataset(f"npz:{path}@test", image_shape=SHAPE),
    "images:": lambda path: aj.data.open_dataset(f"images:{path}", image_shape=SHAPE),
    "npy:": lambda path: aj.data.open_corrupted(f"npy:{path}", image_shape=SHAPE, label_names=("a", "b")),
    "tfds_dir": lambda path: aj.data.open_corrupted(
        "tfds:cifar10_corrupted", image_shape=SHAPE, label_names=("a", "b"), tfds_dir=path
    ),
    "mixing images": lambda path: aj.data.load_mixing_images(path, 8, 3),
    "read_state_dict": read_state_dict,
    "write_state_dict": lambda path: write_state_dict(path, {"a": np.ones(2)}),
    "weights": lambda path: source_and_file(f"timm:{path}"),
}


@pytest.mark.parametrize("function", sorted(TAKE_PATHS.keys() - {"weights"}))  # it has a message of its own
def test_functions_refuse_addresses(function):
    with pytest.raises(aj.UserError, match="'hdfs://bucket/x', an address"):
        TAKE_PATHS[function]("hdfs://bucket/x")


LOCAL = {"read_state_dict", "weights"}  # functions that take no address at all


@pytest.mark.parametrize("function", sorted(TAKE_PATHS.keys() - LOCAL))
@pytest.mark.parametrize(("address", "library"), [("gs://bucket/x", "gcsfs"), ("s3://bucket/x", "s3fs")])
def test_functions_name_the_library_of_a_bucket(function, address, library, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(aj.UserError, match=f"'{address}', which needs {library}; install it: pip install"):
        TAKE_PATHS[function](address)


def test_storage_path_is_local_without_an_address(home):
    assert storage_path("workdir", "~/x") == home / "x"
    assert storage_path("workdir", epath.Path(home)) == home  # no `pathlib.Path`, but no bucket either
    assert storage_path("workdir", "./gs:/x") == Path.cwd() / "gs:/x"
    with pytest.raises(aj.UserError, match=r"'s3a://b/x', an address; .* s3://BUCKET can be used"):
        storage_path("workdir", "s3a://b/x")


WRITE = {"train", "export to", "evaluate_ensemble", "compare to", "write_archive", "write_state_dict"}


@pytest.mark.parametrize("function", sorted(TAKE_PATHS.keys() - WRITE - {"weights", "load_results"}))
def test_functions_look_in_the_home_folder(function, home):
    with pytest.raises(aj.UserError, match=f"'{home}"):
        TAKE_PATHS[function]("~/x")


def test_outputs_are_written_to_the_home_folder(home):
    assert source_and_file("timm:~/w.pth")[:2] == ("timm", home / "w.pth")
    assert source_and_file(f"timm:file://{home}/w.pth")[:2] == ("timm", home / "w.pth")
    write_state_dict("~/w.safetensors", {"a": np.ones(2)})
    assert (home / "w.safetensors").is_file()


@pytest.mark.parametrize(
    ("variable", "value", "folder"),
    [
        ("ANCHOR_JAX_CACHE", "~/c", "{home}/c"),
        ("XDG_CACHE_HOME", "~/c", "{home}/c/anchor_jax"),
        ("XDG_CACHE_HOME", "", "{home}/.cache/anchor_jax"),
    ],
)
def test_cache_folder_expands_the_home_folder(variable, value, folder, home, monkeypatch):
    monkeypatch.delenv("ANCHOR_JAX_CACHE", raising=False)
    monkeypatch.setenv(variable, value)
    assert cache_folder() == Path(folder.format(home=home))
    monkeypatch.setenv("ANCHOR_JAX_CACHE", "gs://bucket/c")
    with pytest.raises(aj.UserError, match="ANCHOR_JAX_CACHE is 'gs://bucket/c', an address"):
        cache_folder()


def test_path_flag_takes_paths_of_this_machine(home):
    path_flag.define_path("test_path_flag", None, "A test.", what="a new file")
    try:
        flag = flags.FLAGS["test_path_flag"]
        flag.parse("~/x.json")
        assert flag.value == home / "x.json"
        for value, message in {"": "must be the path of a new file; got ''", "gs://b/x": "an address"}.items():
            with pytest.raises(flags.IllegalFlagValueError, match=message):
                flag.parse(value)
    finally:
        delattr(flags.FLAGS, "test_path_flag")


def test_config_may_be_in_the_home_folder(home):
    (home / "c.py").touch()
    assert config_flag.resolve("~/c.py:argument") == f"{home}/c.py:argument"
    assert config_flag.resolve(f"file://{home}/c.py") == os.fspath(home / "c.py")
    assert config_flag.resolve("digits:a//b").endswith("configs/digits.py:a//b")
