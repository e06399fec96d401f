"""The compilation cache of the command lines: the same numbers, faster; corrupt entries are replaced."""

import json
import os

import jax
import pytest
from commands import command, quick_command
from conftest import assert_same_bits

import anchor_jax as aj
from anchor_jax.runtime.atomic_files import prune_cache
from anchor_jax.runtime.compilation_cache import MIN_JAX_VERSION

CONFIG = """
from anchor_jax.config import base


def get_config():
    config = base()
    config.model.name = "mlp"
    config.training.total_epochs = 1.0
    return config
"""

pytestmark = pytest.mark.skipif(jax.__version_info__ < MIN_JAX_VERSION, reason="this version of JAX is not cached")


# the environment of a user, without the flags of the tests
USER = {"XLA_FLAGS": ""}


class Runs:
    """Short runs of one config, each in its own folder."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "config.py").write_text(CONFIG)

    def train(self, name, run=quick_command, **environment):
        arguments = ("train.py", "--config", self.folder / "config.py", "--workdir", self.folder / name)
        done = run(*arguments, **USER, **environment)
        assert done.returncode == 0, done.stderr
        return done

    def numbers(self, name):
        lines = (self.folder / name / "metrics.jsonl").read_text().splitlines()
        return [{key: n for key, n in json.loads(line).items() if "per_second" not in key} for line in lines]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run that started with an empty cache, and the cache as it was after the run."""
    folder = tmp_path_factory.mktemp("runs")
    runs = Runs(folder)
    assert runs.train("cold", ANCHOR_JAX_CACHE=str(folder / "cache")).stderr == ""
    return runs


def programs(cache):
    return {file.relative_to(cache): file.read_bytes() for file in cache.rglob("*-cache")}


def test_cached_programs_give_the_same_bits(runs):
    cache = runs.folder / "cache"
    kept = programs(cache)
    assert any("train_step" in file.name for file in kept)
    done = runs.train("warm", command, ANCHOR_JAX_CACHE=str(cache), JAX_RAISE_PERSISTENT_CACHE_ERRORS="1")
    assert done.stderr == ""
    assert programs(cache) == kept
    runs.train("without", command, ANCHOR_JAX_CACHE=str(cache), JAX_ENABLE_COMPILATION_CACHE="0")
    for name in ("warm", "without"):
        assert runs.numbers(name) == runs.numbers("cold")
        one, other = (aj.load_predictor(runs.folder / run).variables for run in (name, "cold"))
        assert_same_bits(one, other)


def test_evaluation_uses_the_cache(runs):
    arguments = ("eval.py", "--workdir", runs.folder / "cold", "--num_references=10")
    cache = runs.folder / "evaluation"
    kept = []
    for run in (quick_command, command):
        done = run(*arguments, **USER, ANCHOR_JAX_CACHE=str(cache), JAX_RAISE_PERSISTENT_CACHE_ERRORS="1")
        assert done.returncode == 0
        assert all(line.startswith("progress: ") for line in done.stderr.splitlines()), done.stderr
        kept.append(programs(cache))
    assert kept[0]
    assert kept[0] == kept[1]


def small(cache, run=quick_command, **environment):
    """Run a command that compiles a few small programs."""
    program = "from anchor_jax.cli import app; import jax; app.run(lambda: print(jax.numpy.ones(3).sum()))"
    done = run("-c", program, ANCHOR_JAX_CACHE=str(cache), **environment)
    assert (done.returncode, done.stdout) == (0, "3.0\n")
    return done


def test_corrupt_programs_are_reported_and_replaced(tmp_path):
    assert small(tmp_path).stderr == ""
    kept = programs(tmp_path)
    assert len(kept) > 1
    for file in kept:  # truncated, as by a process that was killed while writing
        (tmp_path / file).write_bytes(kept[file][:100])
    warnings = small(tmp_path).stderr.splitlines()
    assert 0 < len(warnings) <= len(kept)
    prefix = "warning: Error reading persistent compilation cache entry for 'jit_"
    assert all(line.startswith(prefix) for line in warnings)
    assert small(tmp_path).stderr == ""
    assert programs(tmp_path).keys() == kept.keys()


def test_unwritable_cache_folder_is_a_one_line_warning(tmp_path):
    (tmp_path / "file").write_text("")
    warning = small(tmp_path / "file/inside").stderr
    assert warning.startswith("warning: cannot cache compiled programs: ")
    assert warning.count("\n") == 1


def test_settings_of_jax_take_precedence(tmp_path):
    always = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    small(tmp_path / "ours", command, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own"), **always)
    assert list(tmp_path.glob("own/*-cache"))
    small(tmp_path / "ours", command, JAX_ENABLE_COMPILATION_CACHE="0", **always)
    small(tmp_path / "sometimes", command, JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="1000")
    assert not (tmp_path / "ours").exists()
    assert not programs(tmp_path / "sometimes")


def test_import_does_not_enable_the_cache(tmp_path):
    program = "import anchor_jax, jax; print(jax.config.jax_compilation_cache_dir)"
    assert command("-c", program, ANCHOR_JAX_CACHE=str(tmp_path / "cache")).stdout == "None\n"


def test_prune_cache_removes_the_oldest_files(tmp_path):
    for age, name in enumerate(("new", "sub/middle", "old")):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bytes(10))
        os.utime(file, (1000 - age, 1000 - age))
    prune_cache(tmp_path, 25)
    assert {file.name for file in tmp_path.rglob("*") if file.is_file()} == {"new", "middle"}
    prune_cache(tmp_path, 0)
    prune_cache(tmp_path / "nowhere", 0)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]
