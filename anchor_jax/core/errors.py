"""What a user is told in one line: a mistake that can be mended, damage, and that a run was stopped."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what a user gave, told in one line: what was given, what is allowed, how to mend it.

    The command lines print its message without a traceback and exit with status 1.
    """


class UserTypeError(UserError, TypeError):
    """A mistake in the type or dtype of what a user gave: a `UserError` that is a `TypeError` too."""


class Preempted(Exception):  # noqa: N818  # it is none
    """Somebody asked a run to stop, and it did so in good order.

    Attributes:
      status: the exit status that says so, that of a process which the signal ended.
    """

    def __init__(self, number: int, told: str):
        super().__init__(told)
        self.status = self.status_of(number)

    @staticmethod
    def status_of(number: int) -> int:
        """The exit status of a process that stops by the signal of this number."""
        return 128 + number


class CorruptDataWarning(UserWarning):
    """Something in the data that cannot be read, and goes without; of several processes each tells its own."""


def unknown(kind: str, name: object, allowed: Iterable[str]) -> UserError:
    """The error for a name that is not among those allowed; it names the nearest one that is."""
    allowed = sorted(allowed)
    nearest = difflib.get_close_matches(str(name), allowed, n=1, cutoff=0.5)
    hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
    return UserError(f"unknown {kind} '{name}'; allowed: {', '.join(allowed)}.{hint}")
