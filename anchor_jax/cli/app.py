"""What the command lines share: flags in, one line and an exit status out."""

import errno
import faulthandler
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from anchor_jax import config
from anchor_jax.config import Config
from anchor_jax.core.errors import CorruptDataWarning, Preempted, UserError
from anchor_jax.runtime import backends, multihost
from anchor_jax.runtime.compilation_cache import discard_corrupt_entries, enable_compilation_cache

FAILURE_STATUS, USAGE_STATUS = multihost.FAILURE_STATUS, 2

# what a disk says that is full, is not to be written to, or fails
_OF_STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}

# flag -> the variable of the environment that gives it, too
_PROCESSES = {
    "coordinator": "JAX_COORDINATOR_ADDRESS",
    "num_processes": "JAX_NUM_PROCESSES",
    "process_id": "JAX_PROCESS_ID",
}


def run(main: Callable[..., object], *, arguments: bool = False, distributed: bool = False) -> None:
    """Parse the flags, call `main` and exit: 0, 1 for a mistake in what was given, 2 for a wrong command line.

    Where it was asked to stop and did, the status is that of the signal, 143 (SIGTERM) or 130 (SIGINT).

    With `arguments`, what stands beside the flags goes to `main`, one string each; without, there must be none.
    With `distributed`, it may be one of many that do the same together, see `processes.start`; it has flags for that.
    """
    logging.set_verbosity(logging.FATAL)  # orbax tells of every file it touches; what it cannot do it raises, too
    sys.unraisablehook = _unraisablehook
    warnings.showwarning = _showwarning
    warnings.filterwarnings("ignore", "Image size .* exceeds limit")  # by Pillow; we refuse the image, and say so
    enable_compilation_cache()
    if distributed:
        _define_processes()
        backends.keep_freed_host_memory()

    def main_of_app(argv):
        if argv[1:] and not arguments:
            _exit(USAGE_STATUS, f"unexpected argument '{argv[1]}'; flags are written --name=value")
        given = _given_processes() if distributed else {}
        try:
            if distributed:
                multihost.initialize(**given)
                _quieten()
            main(*argv[1:])
            multihost.shutdown()
        except UserError as error:
            _fail(str(error))
        except Preempted as stopped:
            if multihost.is_primary():
                _tell("stopped", str(stopped))
            multihost.shutdown()
            sys.exit(stopped.status)
        except KeyboardInterrupt:
            _interrupted()
        except OSError as error:
            if error.errno not in _OF_STORAGE:
                raise
            _fail(f"{error.strerror}: '{error.filename}'; see to the disk, then start the same command again")
        except Exception as error:
            if out_of_memory := _out_of_memory(error):
                _fail(out_of_memory)
            if not multihost.is_multiprocess():
                raise
            _end_all(error)

    app.run(main_of_app, flags_parser=_parse)


def integer(flag: str, value: str) -> int:
    """The whole number that a flag was given."""
    try:
        return int(value)
    except ValueError:
        _exit(USAGE_STATUS, f"--{flag} takes whole numbers; got '{value}'")


def step(flag: str, value: str) -> int | str:
    """The checkpoint that a flag was given: a step, "latest" or "best"."""
    return value if value in ("latest", "best") else integer(flag, value)


def path(flag: str, value: str, what: str = "a folder") -> Path:
    """The path that a flag was given."""
    if not value:
        _exit(USAGE_STATUS, f"--{flag} takes the path of {what}; got ''")
    return Path(value)


def define_config(description: str) -> flags.FlagHolder[Config]:
    """The flag `--config`, of a config file; see `loaded`."""
    try:
        # any option of a model may be given, whether or not the file has it; all else is checked
        flag = config_flags.DEFINE_config_file(
            "config", None, description, lock_config=False, accept_new_attributes=True
        )
    except flags.Error as error:  # a --flagfile is read now
        _exit(USAGE_STATUS, str(error).removeprefix("ERROR:: "))
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS["config"])  # told by --help
    return flag


def only_path(arguments: tuple[str, ...], what: str) -> Path:
    """The path that was given beside the flags, which must be there once."""
    if len(arguments) != 1 or not arguments[0]:
        _exit(USAGE_STATUS, f"one path must be given beside the flags, that of {what}; got {list(arguments)}")
    return Path(arguments[0])


def load_config(flag: flags.FlagHolder[Config]) -> Config:
    """The config of a config-file flag; the file is read when it is first looked at."""
    if flag.default is None and not flag.present:
        _exit(USAGE_STATUS, f"--{flag.name} must have a value, a file of configs/; see --help")
    try:
        config.flatten(flag.value)
    except Exception as error:  # the file is code, which may fail in any way
        _cannot_load(error.__cause__ or error)
    return flag.value


def _define_processes():
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where several processes do this together.")
    flags.DEFINE_integer("num_processes", None, "Of all hosts.", lower_bound=1)
    flags.DEFINE_integer("process_id", None, "Of this process: 0 to num_processes - 1.", lower_bound=0)
    for flag in _PROCESSES:
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[flag])  # told by --help


def _given_processes() -> dict[str, Any]:
    """What was given of the processes, as `processes.start` takes it: all or nothing."""
    given: dict[str, Any] = {flag: _flag_or_variable(flag, variable) for flag, variable in _PROCESSES.items()}
    missing = [f"--{flag} (or {_PROCESSES[flag]})" for flag, value in given.items() if value is None]
    if len(missing) == len(given):
        return {}
    if missing:
        _exit(USAGE_STATUS, f"--coordinator, --num_processes and --process_id go together; give {missing[0]} too")
    if not re.fullmatch(r".+:\d+", given["coordinator"]):
        _exit(USAGE_STATUS, f"--coordinator must be HOST:PORT of process 0; got '{given['coordinator']}'")
    if not 0 <= given["process_id"] < given["num_processes"]:
        last = given["num_processes"] - 1
        _exit(USAGE_STATUS, f"--process_id must lie in 0..{last}, below num_processes; got {given['process_id']}")
    return given


def _flag_or_variable(flag, variable):
    value, default = flags.FLAGS[flag].value, os.environ.get(variable)
    if value is not None or default is None:
        return value
    return default if flag == "coordinator" else integer(flag, default)


def _quieten():
    if multihost.is_multiprocess():
        faulthandler.disable()  # JAX aborts where process 0 died, and says so: what each thread did adds nothing


def _fail(message: str) -> NoReturn:
    """End with a mistake, which process 0 tells if all processes make it, and else the one that makes it."""
    if not multihost.all_fail():
        _tell(f"error of process {jax.process_index()} of {jax.process_count()}", message)
        multihost.exit_now(FAILURE_STATUS)
    if multihost.is_primary():
        _tell("error", message)
    sys.exit(FAILURE_STATUS)


def _end_all(error: Exception) -> NoReturn:
    """End one of many processes after an error that no user made, without a wait for the others."""
    if isinstance(error, jax.errors.JaxRuntimeError) and re.search("gloo|nccl|coordination", str(error), re.IGNORECASE):
        _tell("error", f"{multihost.LOST_PROCESS} ({str(error).splitlines()[0]})")
    else:
        traceback.print_exception(error)
    multihost.exit_now(FAILURE_STATUS)


def _showwarning(message, category, *_):
    if multihost.is_primary() or issubclass(category, CorruptDataWarning):
        _tell("warning", str(message))
    discard_corrupt_entries(str(message))


def _parse(argv):
    for argument in argv[1:]:
        override = re.match(r"--?config\.([^=]*)", argument)
        if override and not config.is_known(override[1]):
            _exit(USAGE_STATUS, config.unknown_key(override[1]))
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        if in_config_file := _error_in_config_file(error):
            _cannot_load(in_config_file)
        _exit(USAGE_STATUS, f"{error}; see --help")
    except KeyboardInterrupt:
        _interrupted()
    except (Exception, SystemExit) as error:  # the config file is code, which may end in any way
        if any(re.match("--?help", argument) for argument in argv[1:]):
            raise
        _cannot_load(error)


def _error_in_config_file(error: flags.Error) -> BaseException | None:
    """What a config file raised, of which ml_collections makes an error of the flag with a traceback in its text."""
    wrapped = error.__context__
    return wrapped.__context__ if wrapped and str(wrapped).startswith("Error whilst parsing config file") else None


def _out_of_memory(error: Exception) -> str:
    """What to say of an error that tells of too little memory, of the device or the host; "" of any other."""
    of_device = isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    if not of_device and not isinstance(error, MemoryError):
        return ""
    return (
        f"out of memory ({(str(error).splitlines() or ['none left'])[0]}); take a smaller batch or model, more "
        "config.training.accumulation_steps, or for large sets config.data.streaming"
    )


def _interrupted():
    _exit(Preempted.status_of(signal.SIGINT), "interrupted")


def _cannot_load(error):
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    # a locked ConfigDict tells of all fields there are, and then of the nearest
    reason = re.sub(r"Other fields present:.*\n", "", text.strip('"').replace("\\n", "\n"))
    mend = "its get_config() must return base() of anchor_jax.config, with what differs"
    _exit(FAILURE_STATUS, f"cannot load the config file ({type(error).__name__}: {reason}); {mend}")


def _unraisablehook(unraisable):
    # reads of a damaged checkpoint come back to orbax after it has given up on them
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _exit(status: int, message: str) -> NoReturn:
    _tell("error", message)
    sys.exit(status)


def _tell(kind, message):
    # names in data may hold what a terminal obeys, or what cannot be printed
    told = "".join(letter if letter.isprintable() else "?" for letter in " ".join(message.split()))
    print(f"{kind}: {told}", file=sys.stderr)
