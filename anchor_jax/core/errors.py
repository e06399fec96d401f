"""Exceptions and warnings that the command lines print in one line, without a traceback."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """An invalid argument, setting or file.

    The message is one line: what was given, what is allowed and how to fix it. The command lines print it without a
    traceback and exit with status 1.

    Example:
      >>> import anchor_jax as aj
      >>> import jax
      >>> try:
      ...     aj.sample_mask(jax.random.key(0), batch_size=4, prob=1.5)
      ... except aj.UserError as error:
      ...     print(error)
      prob must be in [0, 1]; got 1.5
    """


class UserTypeError(UserError, TypeError):
    """An argument of the wrong type or dtype: a `UserError` that is also a `TypeError`."""


class Preempted(Exception):  # noqa: N818  # an orderly stop, not an error
    """A signal stopped a run, which shut down in good order.

    Args:
      signal_number: number of the signal.
      message: one line for the user.

    Attributes:
      status: exit status of the process, that of one terminated by the signal.
    """

    def __init__(self, signal_number: int, message: str):
        super().__init__(message)
        self.status = self.status_of(signal_number)

    @staticmethod
    def status_of(signal_number: int) -> int:
        """Return the exit status of a process terminated by a signal."""
        return 128 + signal_number


class CorruptDataWarning(UserWarning):
    """Unreadable data was left out. In a multi-process run each process warns about its own data."""


class SkippedFilesWarning(UserWarning):
    """Files in a folder of images were not read, because they are not images by their names."""


def unknown(kind: str, name: object, allowed: Iterable[str]) -> UserError:
    """Return the error for an unknown name, which suggests the closest allowed one.

    Args:
      kind: what is named, such as "model".
      name: the unknown name.
      allowed: all valid names.
    """
    allowed = sorted(allowed)
    nearest = difflib.get_close_matches(str(name), allowed, n=1, cutoff=0.5)
    hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
    return UserError(f"unknown {kind} '{name}'; allowed: {', '.join(allowed)}.{hint}")
