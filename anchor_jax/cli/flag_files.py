"""Files of flags, `--flagfile=FILE`. They are read before absl would, which knows no byte order mark."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from anchor_jax.cli.console import USAGE_STATUS, exit_with_error


def expanded(arguments: Sequence[str], including: tuple[str, ...] = ()) -> list[str]:
    """Return arguments with the lines of flag files in place of `--flagfile=FILE`, or exit with an error.

    Args:
      arguments: of a command, or lines of a flag file.
      including: the flag files that these lines are in.
    """
    found, rest = [], iter(arguments)
    for argument in rest:
        if argument == "--":
            return [*found, argument, *rest]
        flag = re.fullmatch(r"--?flagfile(=.*)?", argument)
        if not flag:
            found.append(argument)
            continue
        name = flag[1][1:] if flag[1] else next(rest, "")
        found += expanded(_lines(name, including), (*including, name))
    return found


def _lines(name: str, including: tuple[str, ...]) -> list[str]:
    """Return the lines of a flag file that are neither empty nor comments."""
    if name in including:
        exit_with_error(USAGE_STATUS, f"the flag file '{name}' includes itself; remove its line --flagfile={name}")
    try:
        text = Path(os.path.expanduser(name)).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        exit_with_error(
            USAGE_STATUS, f"Unable to open flagfile: {error}; give a text file in UTF-8 with one flag per line"
        )
    return [line for line in map(str.strip, text.split("\n")) if line and not line.startswith(("#", "//"))]
