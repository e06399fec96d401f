"""Tests of `anchor-jax`, its commands and their `--help`."""

import importlib
import re

import pytest
from commands import command, quick_command

from anchor_jax.cli import config_flag, main, usage
from anchor_jax.core.errors import UserError

MODULES = {
    "train": "train",
    "plan": "plan",
    "push": "push",
    "evaluate": "evaluate",
    "compare": "compare",
    "export": "export",
    "serve": "serve",
    "to-torch": "to_torch",
}
SCRIPTS = {"train": ("train.py",), "evaluate": ("eval.py",)} | {
    name: ("-m", f"anchor_jax.{module}")
    for name, module in MODULES.items()
    if name not in ("train", "evaluate", "serve")
}
# prints the flags that the module of a command defines, those of several processes, and its docstring
PROGRAM = """
import sys
from absl import flags
from anchor_jax.cli import processes
import anchor_jax.cli.{module} as module
names = {{flag.name for flag in flags.FLAGS.flags_by_module_dict()[module.__name__]}}
names |= {{"config"}} if hasattr(module, "CONFIG") else set()
print(",".join(sorted(names)))
print(module.__doc__)
"""


@pytest.fixture(scope="module", params=MODULES)
def helped(request):
    """Return the name of a command and its help."""
    done = quick_command("-m", "anchor_jax", request.param, "--help", COLUMNS="100")
    assert (done.returncode, done.stderr) == (0, "")
    return request.param, done.stdout


def test_help_lists_every_flag_of_the_command_once(helped):
    name, text = helped
    defined, docstring = quick_command("-c", PROGRAM.format(module=MODULES[name])).stdout.splitlines()
    listed = re.findall(r"^  --(?:\[no\])?(\w+)", text, flags=re.MULTILINE)
    assert len(set(listed)) == len(listed) - ("config" in listed)  # --config and --config.KEY
    several = (
        {"coordinator", "num_processes", "process_id", "connect_timeout"} if name in ("train", "evaluate") else set()
    )
    assert set(listed) == {*defined.split(","), *several, "flagfile", "help"}
    assert docstring == main.COMMANDS[name]
    assert docstring in text


def test_help_is_short_and_shows_examples(helped):
    name, text = helped
    lines = text.splitlines()
    assert lines[0].startswith(f"usage: anchor-jax {name} ")
    assert len(lines) <= 75
    assert all(len(line) <= 100 for line in lines[: lines.index("Examples:")])
    assert f"\n  anchor-jax {name} " in text[text.index("Examples:") :]


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_and_old_modules_print_the_same_help(name):
    done = quick_command(*SCRIPTS[name], "--help")
    program = " ".join(("python", *SCRIPTS[name]))
    expected = quick_command("-m", "anchor_jax", name, "--help").stdout
    assert done.returncode == 0
    assert " ".join(done.stdout.replace(program, f"anchor-jax {name}").split()) == " ".join(expected.split())


def test_anchor_jax_lists_its_commands():
    done = command("-m", "anchor_jax", "--help", COLUMNS="100")
    assert (done.returncode, done.stderr) == (0, "")
    for name, description in main.COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(description)}$", done.stdout, flags=re.MULTILINE)
    alone = command("-m", "anchor_jax", COLUMNS="100")
    assert (alone.returncode, alone.stdout) == (2, done.stdout)


def test_every_command_has_a_module():
    assert main.COMMANDS.keys() == MODULES.keys()
    assert all(importlib.util.find_spec(f"anchor_jax.cli.{module}") for module in MODULES.values())


def test_config_names_are_those_of_the_config_files():
    names = config_flag.names()
    assert {"cifar10", "digits", "finetune", "imagenet_vit_b16"} <= set(names)
    assert not [name for name in names if name.startswith("_")]
    for name in names:
        assert config_flag.resolve(name) == str(config_flag.folder() / f"{name}.py")


def test_config_resolve_keeps_paths_and_arguments(tmp_path):
    file = tmp_path / "without_suffix"
    file.write_text("")
    assert config_flag.resolve(f"{file}:wide") == f"{file}:wide"
    assert config_flag.resolve("digits:wide") == f"{config_flag.folder() / 'digits.py'}:wide"
    with pytest.raises(UserError, match=r"unknown config 'digit'; allowed: .* Did you mean 'digits'\?"):
        config_flag.resolve("digit")


def test_help_table_wraps_and_aligns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    table = usage.format_table("Flags", {"--a": "word " * 12, "--a_rather_long_name_of_a_flag": "It is long."})
    first, second, third, fourth, fifth = table.splitlines()
    assert first == "Flags:"
    assert second.startswith("  --a" + " " * 23 + "word")
    assert third.startswith(" " * 28 + "word")
    assert (fourth, fifth) == ("  --a_rather_long_name_of_a_flag", " " * 28 + "It is long.")
