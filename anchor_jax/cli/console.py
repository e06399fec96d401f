"""Standard output and error, one-line messages, and exit statuses."""

import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import NoReturn

from anchor_jax.runtime import multihost

FAILURE_STATUS = multihost.FAILURE_STATUS  # a user error: a bad config, missing data, a corrupt checkpoint
USAGE_STATUS = 2  # an invalid command line
_CLOSED_STATUS = 128 + signal.SIGPIPE  # `head` and other readers of our output may exit before we do


def print_message(kind: str, message: str) -> None:
    """Print `kind: message` as one line on standard error.

    File and class names come from data, so control characters, which a terminal would interpret, are replaced.
    """
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(message.split()))
    print(f"{kind}: {line}", file=sys.stderr)


def exit_with_error(status: int, message: str) -> NoReturn:
    """Print an error and exit with this status."""
    print_message("error", message)
    sys.exit(status)


@contextlib.contextmanager
def guarded_streams() -> Iterator[None]:
    """Let a command print whatever its standard streams are: closed, full, a pipe that ends, of any encoding.

    If standard output cannot be written, the command ends: silently, with the status of SIGPIPE, if it is a pipe that
    nobody reads, and with a one-line error otherwise.
    """
    _open_missing_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of classes and files may not be in its encoding
    try:
        yield
        sys.stdout.flush()
    except SystemExit:
        _end_if_unwritable(sys.stdout.flush)
        raise
    except OSError as error:
        if error.filename is None and error.errno in (errno.EPIPE, errno.ENOSPC):
            _end_if_unwritable(partial(print, flush=True))
        raise


def _open_missing_streams() -> None:
    """Open the null device in place of closed streams; the next file to be opened would take their number."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _end_if_unwritable(write: Callable[[], object]) -> None:
    try:
        write()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes the rest when it exits
        is_closed = isinstance(error, BrokenPipeError)
        if not is_closed:
            print_message("error", f"cannot write to standard output ({error.strerror})")
        status = _CLOSED_STATUS if is_closed else FAILURE_STATUS
        if multihost.is_multiprocess():
            multihost.exit_now(status)
        sys.exit(status)
