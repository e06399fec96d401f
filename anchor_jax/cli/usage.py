"""The text of `--help`."""

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from absl import flags

# not taken from docstrings, which PYTHONOPTIMIZE=2 removes
COMMANDS = {
    "train": "Train a network, or resume a run.",
    "plan": "Plan a run on TPUs or GPUs that are not there: memory and time.",
    "evaluate": "Evaluate a run: accuracy, calibration, robustness, anomaly detection.",
    "compare": "Compare evaluated runs side by side.",
    "serve": "Serve an exported run over HTTP.",
    "export": "Export a run to a single file that JAX alone can run, or ONNX.",
    "push": "Push a run to the Hugging Face Hub, with a model card.",
    "to-torch": "Write the weights of a run for PyTorch, and a module that runs them.",
}

HELP_FLAGS = ("-h", "-?", "-help", "--help", "-helpshort", "--helpshort")

Flag: TypeAlias = flags.FlagHolder[Any] | flags.Flag

_COLUMN, _MIN_WIDTH, _MAX_WIDTH = 28, 60, 100  # where the meanings of flags begin; the length of a line
_OVERRIDE = "Override a key of the config, such as --config.seed=1. The module anchor_jax.config documents all keys."
_OTHER = {
    "--flagfile=FILE": "Read more flags from FILE, one per line.",
    "--help": "Print this help.",
}


@dataclass(frozen=True)
class Usage:
    """What `--help` prints about a command.

    Attributes:
      description: what the command does.
      synopsis: the arguments, such as "--workdir=WORKDIR [flags]".
      groups: title -> the flags under it.
      examples: what an example shows -> its arguments, without the name of the program.
      notes: title -> text printed after the flags.
    """

    description: str | None
    synopsis: str = "[flags]"
    groups: Mapping[str, Sequence[Flag]] = field(default_factory=dict)
    examples: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_main_module(cls) -> "Usage":
        """Return the usage of a script: its docstring and its flags."""
        own_flags = flags.FLAGS.get_key_flags_for_module(sys.argv[0])
        return cls(sys.modules["__main__"].__doc__, groups={"Flags": own_flags} if own_flags else {})


def program() -> str:
    """Return the command as it was typed, without its arguments."""
    name, spec = sys.argv[0], getattr(sys.modules["__main__"], "__spec__", None)
    if name.startswith("anchor-jax"):  # set by `cli.main`
        return name
    if spec is not None and spec.name != "__main__":
        return f"python -m {spec.name.removesuffix('.__main__')}"
    return f"python {os.path.relpath(name)}"


def format_help(usage: Usage, process_flags: Sequence[Flag] = ()) -> str:
    """Return the help of a command: synopsis, description, grouped flags, notes, examples."""
    synopsis = f"usage: {program()} {usage.synopsis}"
    parts = [_fill(synopsis, hanging=2), (usage.description or "").strip()]
    groups = {**usage.groups, "Several processes": process_flags}
    for title, members in groups.items():
        if members:
            parts.append(format_table(title, _entries(flags.FLAGS[member.name] for member in members)))
    parts.append(format_table("Other", _OTHER))
    parts += [f"{title}:\n{_fill('  ' + text, hanging=2)}" for title, text in usage.notes.items()]
    if usage.examples:
        lines = (f"  # {comment}\n  {program()} {arguments}" for comment, arguments in usage.examples.items())
        parts.append("\n".join(["Examples:", *lines]))
    return "\n\n".join(parts)


def format_table(title: str, entries: Mapping[str, str]) -> str:
    """Return a title and, below it, two columns: names and their meanings."""
    lines = [f"{title}:"]
    for name, text in entries.items():
        first, *others = textwrap.wrap(text, _width() - _COLUMN, break_on_hyphens=False)
        if len(name) + 4 <= _COLUMN:
            lines.append(f"{'  ' + name:<{_COLUMN}}{first}")
        else:
            lines += [f"  {name}", " " * _COLUMN + first]
        lines += [" " * _COLUMN + line for line in others]
    return "\n".join(lines)


def _entries(members: Iterable[flags.Flag]) -> dict[str, str]:
    """Return the two columns of each flag: its name with the values it takes, its meaning with the default."""
    entries = {}
    for flag in members:
        name = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}={_values(flag)}"
        text = str(flag.help).removeprefix(f"<{_values(flag)}>: ")  # absl's prefix for choices
        default = ",".join(flag.default) if isinstance(flag.default, list) else flag.default
        has_default = not flag.boolean and default is not None and default != ""
        entries[name] = f"{text} Default: {default}." if has_default else text
        if flag.flag_type() == "config object":  # of ml_collections
            entries[f"--{flag.name}.KEY=VALUE"] = _OVERRIDE
    return entries


def _values(flag: flags.Flag) -> str:
    """Return what stands for the value of a flag."""
    if isinstance(flag.parser, flags.EnumParser):
        return "|".join(flag.parser.enum_values)
    kind = flag.flag_type()
    return "A,B,..." if kind == "comma separated list of strings" else "N" if kind == "int" else flag.name.upper()


def _width() -> int:
    return max(_MIN_WIDTH, min(_MAX_WIDTH, shutil.get_terminal_size((_MAX_WIDTH, 0)).columns))


def _fill(text: str, hanging: int) -> str:
    return textwrap.fill(
        text, _width(), subsequent_indent=" " * hanging, break_on_hyphens=False, break_long_words=False
    )
