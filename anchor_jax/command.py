"""What the command lines share: flags in, one line and an exit status out."""

import re
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags, logging

from anchor_jax import config
from anchor_jax.compilation import forget_damaged, keep_compiled
from anchor_jax.config import Config
from anchor_jax.errors import UserError

FAILED, WRONG_COMMAND_LINE = 1, 2


def run(main: Callable[..., object], *, arguments: bool = False) -> None:
    """Parse the flags, call `main` and exit: 0, 1 for a mistake in what was given, 2 for a wrong command line.

    With `arguments`, what stands beside the flags goes to `main`, one string each; without, there must be none.
    """
    logging.set_verbosity(logging.ERROR)  # orbax tells of every file it touches
    sys.unraisablehook = _unraisablehook
    warnings.showwarning = _showwarning
    keep_compiled()

    def main_of_app(argv):
        if argv[1:] and not arguments:
            _exit(WRONG_COMMAND_LINE, f"unexpected argument '{argv[1]}'; flags are written --name=value")
        try:
            main(*argv[1:])
        except UserError as error:
            _exit(FAILED, str(error))

    app.run(main_of_app, flags_parser=_parse)


def integer(flag: str, value: str) -> int:
    """The whole number that a flag was given."""
    try:
        return int(value)
    except ValueError:
        _exit(WRONG_COMMAND_LINE, f"--{flag} takes whole numbers; got '{value}'")


def step(flag: str, value: str) -> int | str:
    """The checkpoint that a flag was given: a step, "latest" or "best"."""
    return value if value in ("latest", "best") else integer(flag, value)


def loaded(flag: flags.FlagHolder[Config]) -> Config:
    """The config of a config-file flag; the file is read when it is first looked at."""
    try:
        flag.value.items()
    except Exception as error:  # the file is code, which may fail in any way
        _cannot_load(error.__cause__ or error)
    return flag.value


def _showwarning(message, *_):
    _tell("warning", str(message))
    forget_damaged(str(message))


def _parse(argv):
    for argument in argv[1:]:
        override = re.match(r"--?config\.([^=]+)", argument)
        if override and not config.is_known(override[1]):
            _exit(WRONG_COMMAND_LINE, config.unknown_key(override[1]))
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        _exit(WRONG_COMMAND_LINE, f"{error}; see --help")
    except Exception as error:  # the config file is code, which may fail in any way
        _cannot_load(error)


def _cannot_load(error):
    # a locked ConfigDict tells of all fields there are, and then of the nearest
    reason = re.sub(r"Other fields present:.*\n", "", str(error).strip("'").replace("\\n", "\n"))
    _exit(FAILED, f"cannot load the config file ({type(error).__name__}): {reason}")


def _unraisablehook(unraisable):
    # reads of a damaged checkpoint come back to orbax after it has given up on them
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _exit(status: int, message: str) -> NoReturn:
    _tell("error", message)
    sys.exit(status)


def _tell(kind, message):
    print(f"{kind}: {' '.join(message.split())}", file=sys.stderr)
