"""One-line messages on standard error, and exit statuses."""

import sys
from typing import NoReturn

from anchor_jax.runtime import multihost

FAILURE_STATUS = multihost.FAILURE_STATUS  # a user error: a bad config, missing data, a corrupt checkpoint
USAGE_STATUS = 2  # an invalid command line


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
