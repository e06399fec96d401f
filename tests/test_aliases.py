"""Old module paths: the same module objects as the new ones, in fresh interpreters, in any order, under `python -m`."""

import importlib
import importlib.util
import pickle
import sys

import pytest
from commands import command, quick_command

import anchor_jax as aj
from anchor_jax import _aliases, metrics
from anchor_jax.core import errors, inference

# those that define flags are imported in processes of their own
COMMANDS = ("anchor_jax.compare", "anchor_jax.to_torch")
MODULES = {old: new for old, new in _aliases.MOVED.items() if old not in COMMANDS}


def passes(program: str) -> None:
    """Run a program in a fresh interpreter."""
    done = command("-c", program)
    assert done.returncode == 0, done.stderr


def passes_each(lines: list[str]) -> None:
    """Run each line in a process of its own, which has imported nothing but `anchor_jax`."""
    passes(
        "import os, sys, warnings, anchor_jax as aj\n"
        "warnings.simplefilter('ignore')  # JAX warns of forks, which is harmless before it has started its backend\n"
        f"for line in {lines!r}:\n"
        "    if not (child := os.fork()):\n"
        "        exec(line)\n"
        "        os._exit(0)\n"
        "    assert os.waitpid(child, 0)[1] == 0, line\n"
    )


@pytest.mark.parametrize("old", MODULES)
def test_alias_is_the_module_at_the_new_path(old):
    module = importlib.import_module(old)
    assert module is importlib.import_module(MODULES[old])
    assert module.__name__ == module.__spec__.name == MODULES[old]
    assert getattr(importlib.import_module(old.rpartition(".")[0]), old.rpartition(".")[2]) is module
    assert importlib.util.find_spec(old) is module.__spec__


def test_alias_is_importable_first_or_last_in_a_fresh_interpreter():
    same = [f"assert sys.modules[{old!r}] is sys.modules[{new!r}]" for old, new in MODULES.items()]
    each_first = [f"import {old}, {new}; {check}" for (old, new), check in zip(MODULES.items(), same, strict=True)]
    all_last = f"import {', '.join([*MODULES.values(), *MODULES])}; {'; '.join(same)}"
    passes_each([*each_first, all_last])


def test_alias_serves_every_form_of_import():
    passes(
        "import anchor_jax.training.prediction\n"
        "from anchor_jax.objective import anchored_cross_entropy\n"
        "from anchor_jax import errors\n"
        "import anchor_jax.core.losses as losses, anchor_jax.runs.load as load\n"
        "import anchor_jax as aj\n"
        "assert anchor_jax.training.prediction is load\n"
        "assert anchor_jax.training.prediction.load_predictor is aj.load_predictor\n"
        "assert anchored_cross_entropy is losses.anchored_cross_entropy is aj.objective.anchored_cross_entropy\n"
        "assert errors.UserError is aj.UserError\n"
    )


def test_alias_of_a_package_loads_no_submodule_twice():
    old = importlib.import_module("anchor_jax.comparison.paper")
    assert old is importlib.import_module("anchor_jax.reporting.comparison.paper")


def test_alias_survives_a_reload():
    passes(
        "import importlib, anchor_jax.errors, anchor_jax.core.errors\n"
        "assert importlib.reload(anchor_jax.errors) is anchor_jax.core.errors\n"
        "assert anchor_jax.errors.__spec__.name == 'anchor_jax.core.errors'\n"
    )


def test_alias_of_a_missing_module_is_not_found():
    for name in ("anchor_jax.nothing", "anchor_jax.comparison.nothing", "anchor_jax.inference.nothing"):
        with pytest.raises(ModuleNotFoundError, match="nothing"):
            importlib.import_module(name)


def test_aliases_are_installed_once():
    _aliases.install()
    assert sum(isinstance(finder, _aliases.MovedModules) for finder in sys.meta_path) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"canchor_jax.inference\nClassification\n.", inference.Classification),
        (b"canchor_jax.errors\nUserError\n.", errors.UserError),
        (b"canchor_jax.regression\nSettings\n.", aj.regression.Settings),
        (b"canchor_jax.regression\nNetwork\n.", aj.regression.RegressionNetwork),
    ],
)
def test_pickles_of_old_paths_are_read(old, new):
    assert pickle.loads(old) is new
    assert pickle.loads(pickle.dumps(new)) is new


@pytest.mark.parametrize("name", aj.__all__)
def test_public_name_is_available(name):
    assert getattr(aj, name) is not None


def test_lazy_name_is_available_on_a_fresh_import():
    names = ("Predictor", "data", "evaluation", "load_exported", "models", "pager", "regression", "training")
    passes_each([f"assert aj.{name} is aj.{name}" for name in names])


def test_old_names_of_metrics_are_the_new_objects():
    assert metrics.Outcomes is metrics.PerExampleScores
    assert metrics.outcomes is metrics.per_example_scores
    assert metrics.summary_of is metrics.summarize
    assert aj.regression.mixture is aj.regression.combine_members


@pytest.mark.parametrize("old", COMMANDS)
def test_old_command_prints_its_help(old):
    done = quick_command("-m", old, "--help")
    assert "flags" in done.stdout
    assert "--help" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("old", COMMANDS)
def test_old_command_is_importable_as_a_module(old):
    new = _aliases.MOVED[old]
    passes(f"import importlib; assert importlib.import_module({old!r}) is importlib.import_module({new!r})")
