"""How configs are declared: a `Section` is a class with one annotated `key(...)` per config key."""

import dataclasses
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast, get_type_hints

from ml_collections import ConfigDict

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Key:
    """The declaration of one config key: its default, its meaning and the values it may take."""

    default: Any
    meaning: str
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    type: Any = None  # the annotation of the attribute; a `Literal` lists the only values allowed


def key(
    default: T,
    meaning: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
) -> T:
    """Declare a key inside a `Section`.

    Args:
      default: its value in `base()`.
      meaning: one or two sentences for the reference page, with units.
      at_least: minimum of a number.
      at_most: maximum of a number.
      above: exclusive minimum of a number.

    Returns:
      A `Key`. Type checkers see the type of `default`, the type of the attribute in a config.
    """
    return cast(T, Key(default, meaning, at_least, at_most, above))


if TYPE_CHECKING:

    class _ConfigDict:
        """The methods of `ConfigDict`, with types; other attributes are the declared keys."""

        def __getitem__(self, key: str) -> Any: ...
        def __setitem__(self, key: str, value: Any) -> None: ...
        def __contains__(self, key: str) -> bool: ...
        def keys(self) -> Iterable[str]: ...
        def items(self) -> Iterable[tuple[str, Any]]: ...
        def to_dict(self) -> dict[str, Any]: ...
        def update(self, *other: Mapping[str, Any] | Self, **values: Any) -> None: ...
        def update_from_flattened_dict(self, flattened_dict: Mapping[str, Any], strip_prefix: str = "") -> None: ...
        def copy_and_resolve_references(self) -> Self: ...
        def lock(self) -> Self: ...
        def unlock(self) -> Self: ...
        def unlocked(self) -> AbstractContextManager[Self]: ...
        def __delitem__(self, key: str) -> None: ...

else:
    _ConfigDict = object


class Section(_ConfigDict):
    """A group of config keys, declared as class attributes, or of further sections.

    The classes exist for readers and type checkers. A config itself is a plain `ml_collections.ConfigDict` (see
    `defaults`), so that config files, `--config.KEY=VALUE` flags, locking and copying work as everywhere else.
    """


S = TypeVar("S", bound=Section)


def declared_keys(section: type[Section], prefix: str = "") -> dict[str, Key]:
    """Return the keys of a section and of the sections inside it, by dotted name."""
    keys: dict[str, Key] = {}
    for name, annotation in get_type_hints(section).items():
        if is_section(annotation):
            keys |= declared_keys(annotation, f"{prefix}{name}.")
        else:
            keys[prefix + name] = dataclasses.replace(getattr(section, name), type=annotation)
    return keys


def defaults(section: type[S]) -> S:
    """Return a `ConfigDict` with the default of every key of a section; it is not locked."""
    config = ConfigDict()
    for name, annotation in get_type_hints(section).items():
        config[name] = defaults(annotation) if is_section(annotation) else getattr(section, name).default
    return cast(S, config)


def is_section(annotation: Any) -> bool:
    """Return whether an annotation is a section, as opposed to the type of a key."""
    return isinstance(annotation, type) and issubclass(annotation, Section)
