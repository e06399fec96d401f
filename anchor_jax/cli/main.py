"""The command `anchor-jax`: train, evaluate, compare and export models."""

import importlib
import sys

import anchor_jax
from anchor_jax.cli.console import USAGE_STATUS, exit_with_error, guarded_streams
from anchor_jax.cli.usage import COMMANDS, HELP_FLAGS, format_table
from anchor_jax.core import errors

_EXAMPLES = """
Examples:
  anchor-jax train --config digits --workdir runs/digits
  anchor-jax evaluate --workdir runs/digits --suites clean,ood
  anchor-jax train --help
"""


def main() -> None:
    """Run the command that the first argument names."""
    with guarded_streams():
        _run()


def _run() -> None:
    name = sys.argv[1] if sys.argv[1:] else "--help"
    if name in HELP_FLAGS:
        print(_help())
        sys.exit(0 if sys.argv[1:] else USAGE_STATUS)
    if name == "--version":
        print(f"anchor-jax {getattr(anchor_jax, '__version__', '(not installed)')}")
        sys.exit(0)
    if name not in COMMANDS:
        exit_with_error(USAGE_STATUS, str(errors.unknown("command", name, COMMANDS)))
    sys.argv = [f"anchor-jax {name}", *sys.argv[2:]]
    importlib.import_module(f"anchor_jax.cli.{name.replace('-', '_')}").run()


def _help() -> str:
    commands = format_table("Commands", COMMANDS)
    other = format_table("Other", {"--version": "Print the version.", "--help": "Print this help."})
    head = "usage: anchor-jax COMMAND [flags]\n\nAnchored training, inference and evaluation of vision models in JAX."
    return "\n\n".join([head, commands, other, _EXAMPLES.strip()])
