"""The one exception that says: this is a mistake a user can mend."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what a user gave, told in one line: what was given, what is allowed, how to mend it.

    The command lines print its message without a traceback and exit with status 1.
    """


class UserTypeError(UserError, TypeError):
    """A mistake in the type or dtype of what a user gave: a `UserError` that is a `TypeError` too."""


class DamagedData(UserWarning):
    """Something in the data that cannot be read, and goes without; of several processes each tells its own."""


def unknown(kind: str, name: object, allowed: Iterable[str]) -> UserError:
    """The error for a name that is not among those allowed; it names the nearest one that is."""
    allowed = sorted(allowed)
    nearest = difflib.get_close_matches(str(name), allowed, n=1, cutoff=0.5)
    hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
    return UserError(f"unknown {kind} '{name}'; allowed: {', '.join(allowed)}.{hint}")
