"""Compiled programs kept by the command lines: the same numbers sooner, whatever becomes of the files."""

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

pytestmark = pytest.mark.skipif(jax.__version_info__ < MIN_JAX_VERSION, reason="this JAX keeps no programs")


# as users compile, who have set nothing
USUAL = {"XLA_FLAGS": ""}


class Runs:
    """Short runs of one config, each in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "config.py").write_text(CONFIG)

    def train(self, name, run=quick_command, **environment):
        arguments = ("train.py", "--config", self.folder / "config.py", "--workdir", self.folder / name)
        done = run(*arguments, **USUAL, **environment)
        assert done.returncode == 0, done.stderr
        return done

    def numbers(self, name):
        lines = (self.folder / name / "metrics.jsonl").read_text().splitlines()
        return [{key: n for key, n in json.loads(line).items() if "per_second" not in key} for line in lines]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run with an empty cache, in `cache`, which is left as it was at the end of the run."""
    folder = tmp_path_factory.mktemp("runs")
    these = Runs(folder)
    assert these.train("cold", ANCHOR_JAX_CACHE=str(folder / "cache")).stderr == ""
    return these


def programs(cache):
    return {file.relative_to(cache): file.read_bytes() for file in cache.rglob("*-cache")}


def test_programs_are_loaded_and_give_the_same_bits(runs):
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


def test_evaluation_loads_its_programs(runs):
    arguments = ("eval.py", "--workdir", runs.folder / "cold", "--num_references=10")
    cache = runs.folder / "evaluation"
    kept = []
    for run in (quick_command, command):
        done = run(*arguments, **USUAL, ANCHOR_JAX_CACHE=str(cache), JAX_RAISE_PERSISTENT_CACHE_ERRORS="1")
        assert (done.returncode, done.stderr) == (0, "")
        kept.append(programs(cache))
    assert kept[0]
    assert kept[0] == kept[1]


def small(cache, run=quick_command, **environment):
    """A command that compiles a few small programs."""
    program = "from anchor_jax import command; import jax; command.run(lambda: print(jax.numpy.ones(3).sum()))"
    done = run("-c", program, ANCHOR_JAX_CACHE=str(cache), **environment)
    assert (done.returncode, done.stdout) == (0, "3.0\n")
    return done


def test_damaged_programs_are_told_and_made_again(tmp_path):
    assert small(tmp_path).stderr == ""
    kept = programs(tmp_path)
    assert len(kept) > 1
    for file in kept:  # as a process leaves them that is killed while it writes
        (tmp_path / file).write_bytes(kept[file][:100])
    told = small(tmp_path).stderr.splitlines()
    assert 0 < len(told) <= len(kept)
    assert all(line.startswith("warning: Error reading persistent compilation cache entry for 'jit_") for line in told)
    assert small(tmp_path).stderr == ""
    assert programs(tmp_path).keys() == kept.keys()


def test_folder_that_cannot_be_written_to_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    told = small(tmp_path / "file/inside").stderr
    assert told.startswith("warning: compiled programs cannot be kept: ")
    assert told.count("\n") == 1


def test_settings_of_jax_itself_win(tmp_path):
    always = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    small(tmp_path / "ours", command, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own"), **always)
    assert list(tmp_path.glob("own/*-cache"))
    small(tmp_path / "ours", command, JAX_ENABLE_COMPILATION_CACHE="0", **always)
    small(tmp_path / "sometimes", command, JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="1000")
    assert not (tmp_path / "ours").exists()
    assert not programs(tmp_path / "sometimes")


def test_import_alone_keeps_nothing(tmp_path):
    program = "import anchor_jax, jax; print(jax.config.jax_compilation_cache_dir)"
    assert command("-c", program, ANCHOR_JAX_CACHE=str(tmp_path / "cache")).stdout == "None\n"


def test_oldest_files_go_first(tmp_path):
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
