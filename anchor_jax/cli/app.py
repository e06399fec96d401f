"""Run a command: parse its flags, call its function, turn errors into one line and an exit status."""

import errno
import faulthandler
import logging as python_logging
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import jax
from absl import app, flags, logging

from anchor_jax.cli import config_flag, processes
from anchor_jax.cli.config_flag import define_config as define_config
from anchor_jax.cli.config_flag import load_config as load_config
from anchor_jax.cli.console import FAILURE_STATUS, USAGE_STATUS, exit_with_error, guarded_streams, print_message
from anchor_jax.cli.path_flag import define_path as define_path
from anchor_jax.cli.usage import COMMANDS as COMMANDS
from anchor_jax.cli.usage import HELP_FLAGS, format_help
from anchor_jax.cli.usage import Usage as Usage
from anchor_jax.core.errors import CorruptDataWarning, Preempted, UserError
from anchor_jax.runtime import backends, multihost
from anchor_jax.runtime.compilation_cache import discard_corrupt_entries, enable_compilation_cache
from anchor_jax.runtime.object_storage import reason_of, reason_of_os_error
from anchor_jax.runtime.paths import storage_path

# a local or network disk is full, read-only, failing or gone
_NETWORK_ERRNOS = {errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ETIMEDOUT}  # also of sockets
_STORAGE_ERRNOS = _NETWORK_ERRNOS | {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)
}
_PATH_ERRNOS = {errno.ENAMETOOLONG, errno.ELOOP}


def run(
    main: Callable[..., object], *, arguments: bool = False, distributed: bool = False, usage: Usage | None = None
) -> None:
    """Parse the flags, call `main` and exit.

    The exit status is 0, 1 for a user error, 2 for an invalid command line, and 128 + the number of the signal for a
    command that was stopped: 143 (SIGTERM) or 130 (SIGINT). `UserError`s are printed as one line.

    Args:
      main: called without arguments, or with the positional arguments, strings, if `arguments` is true.
      arguments: whether the command takes positional arguments.
      distributed: whether several processes may run the command together, see `multihost.initialize`; adds the flags
        of `processes`.
      usage: text of `--help`; by default the docstring and the flags of the main module.
    """
    logging.set_verbosity(logging.FATAL)  # orbax logs every file it touches; its errors are raised as well
    _print_log_lines()
    sys.unraisablehook = _unraisablehook
    warnings.showwarning = _showwarning
    warnings.filterwarnings("ignore", "Image size .* exceeds limit")  # Pillow's; `data` raises an error of its own
    warnings.filterwarnings("ignore", "coroutine 'Store")  # of orbax, which drops other reads when one of them fails
    enable_compilation_cache()
    process_flags = processes.define_flags() if distributed else ()
    if distributed:
        backends.keep_freed_host_memory()

    def main_of_app(argv: Sequence[str]) -> None:
        if argv[1:] and not arguments:
            exit_with_error(USAGE_STATUS, f"unexpected argument '{argv[1]}'; write flags as --name=value")
        process_arguments = processes.arguments() if distributed else {}
        try:
            if distributed:
                multihost.initialize(**process_arguments)
                _disable_faulthandler()
            main(*argv[1:])
            multihost.shutdown()
        except UserError as error:
            _fail(str(error))
        except Preempted as preempted:
            if multihost.is_primary():
                print_message("stopped", str(preempted))
            multihost.shutdown()
            sys.exit(preempted.status)
        except KeyboardInterrupt:
            _exit_interrupted()
        except OSError as error:
            if not (message := _bucket_message(error) or _storage_message(error)):
                raise
            _fail(message)
        except Exception as error:
            if message := _out_of_memory_message(error) or _no_device_message(error) or _bucket_message(error):
                _fail(message)
            if not multihost.is_multiprocess():
                raise
            _abort(error)

    with guarded_streams():
        app.run(main_of_app, flags_parser=partial(_parse, usage, process_flags))


def integer(flag: str, value: str) -> int:
    """Return the value of a flag as an integer, or exit with an error."""
    try:
        return int(value)
    except ValueError:
        exit_with_error(USAGE_STATUS, f"--{flag} takes integers; got '{value}'")


def step(flag: str, value: str) -> int | str:
    """Return the value of a flag that selects a checkpoint: a step, "latest" or "best"."""
    if value in ("latest", "best"):
        return value
    try:
        return int(value)
    except ValueError:
        exit_with_error(USAGE_STATUS, f"--{flag} must be a step, 'latest' or 'best'; got '{value}'")


def only_path(arguments: tuple[str, ...], what: str) -> Path:
    """Return the only positional argument, a path, or exit with an error."""
    if len(arguments) != 1 or not arguments[0]:
        exit_with_error(
            USAGE_STATUS, f"expected one argument besides the flags, the path of {what}; got {list(arguments)}"
        )
    return storage_path(what, arguments[0])


def _parse(usage: Usage | None, process_flags: tuple[flags.FlagHolder[Any], ...], argv: Sequence[str]) -> Sequence[str]:
    """Parse the flags and return the positional arguments; print the help if requested."""
    if any(argument in HELP_FLAGS for argument in argv[1:]):
        print(format_help(usage or Usage.of_main_module(), process_flags))
        sys.exit(0)
    config_flag.check_overrides(argv[1:])
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        config_flag.exit_if_config_error(error)
        message = re.sub(r"flag --\w+=None: Flag (--\w+ must have a value) other than None\.", r"\1", str(error))
        exit_with_error(USAGE_STATUS, f"{message}; {_hint(error)}")
    except KeyboardInterrupt:
        _exit_interrupted()
    except (Exception, SystemExit) as error:  # a config file is a program and may raise anything
        if any(re.match("--?help", argument) for argument in argv[1:]):
            raise  # --helpfull exits
        config_flag.exit_with_load_error(error)


def _hint(error: flags.Error) -> str:
    is_config_key = isinstance(error, flags.UnrecognizedFlagError) and error.flagname.startswith("config.")
    if is_config_key and "data_path" in flags.FLAGS:
        return "the config is that of the run; the place of data that have moved is given as --data_path"
    return "see --help"


def _disable_faulthandler() -> None:
    if multihost.is_multiprocess():
        faulthandler.disable()  # if process 0 dies, JAX aborts with a message; stacks of all threads would bury it


def _fail(message: str) -> NoReturn:
    """Exit with a user error, printed once if all processes have it, and else by the process that has it."""
    if not multihost.all_fail():
        print_message(f"error of process {jax.process_index()} of {jax.process_count()}", message)
        multihost.exit_now(FAILURE_STATUS)
    if multihost.is_primary():
        print_message("error", message)
    sys.exit(FAILURE_STATUS)


def _abort(error: Exception) -> NoReturn:
    """End one of several processes after an unexpected error, without waiting for the others."""
    if isinstance(error, jax.errors.JaxRuntimeError) and re.search("gloo|nccl|coordination", str(error), re.IGNORECASE):
        print_message("error", f"{multihost.LOST_PROCESS} ({str(error).splitlines()[0]})")
    else:
        traceback.print_exception(error)
    multihost.exit_now(FAILURE_STATUS)


def _print_log_lines() -> None:
    """Print what the package logs, whatever the verbosity of its libraries."""
    logger = python_logging.getLogger("anchor_jax")
    logger.setLevel(python_logging.WARNING)
    logger.handlers, logger.propagate = [_LogLines()], False


class _LogLines(python_logging.Handler):
    def emit(self, record: python_logging.LogRecord) -> None:
        if multihost.is_primary():
            print_message(record.levelname.lower(), record.getMessage())


def _showwarning(message, category, *_) -> None:
    if multihost.is_primary() or issubclass(category, CorruptDataWarning):
        print_message("warning", str(message))
    discard_corrupt_entries(str(message))


def _storage_message(error: OSError) -> str:
    """Return what to print if the disk, a path or the limit of open files is the reason, "" for any other error."""
    of_file = f": '{error.filename}'" if error.filename else ""
    if error.errno in _PATH_ERRNOS:
        return f"{error.strerror}{of_file}; give another path"
    if error.errno in _STORAGE_ERRNOS and (of_file or error.errno not in _NETWORK_ERRNOS):
        return f"{error.strerror}{of_file}; check the disk, then run the same command again"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{error.strerror}{of_file}; raise the limit (ulimit -n), then run the same command again"
    return ""


def _no_device_message(error: Exception) -> str:
    """Return what to print if JAX finds no device of the platform that the environment names, "" otherwise."""
    is_missing = isinstance(error, RuntimeError) and str(error).startswith(("Unable to initialize", "Unknown backend"))
    return f"{str(error).splitlines()[0]}; check JAX_PLATFORMS and the driver" if is_missing else ""


def _bucket_message(error: Exception) -> str:
    """Return what to print if a bucket cannot be read or written, "" for any other error."""
    reason = reason_of(error) or (reason_of_os_error(error) if isinstance(error, OSError) else "")
    advice = "check the bucket, the network and the credentials, then run the same command again"
    return f"{reason}; {advice}" if reason else ""


def _out_of_memory_message(error: Exception) -> str:
    """Return what to print if the device or the host ran out of memory, "" for any other error."""
    on_device = isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    if not on_device and not isinstance(error, MemoryError):
        return ""
    reason = (str(error).splitlines() or ["no memory left"])[0]
    return (
        f"out of memory ({reason}); use a smaller batch or model, a larger config.training.accumulation_steps, or "
        "config.data.streaming for a large dataset"
    )


def _exit_interrupted() -> NoReturn:
    exit_with_error(Preempted.status_of(signal.SIGINT), "interrupted")


def _unraisablehook(unraisable) -> None:
    # reads of a corrupt checkpoint may return to orbax after it has given up on them
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)
