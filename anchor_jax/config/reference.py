"""The reference page of all config keys: `python -m anchor_jax.config.reference > docs/config.md`."""

from typing import Any, Literal, get_args, get_origin, get_type_hints

from anchor_jax.config.declaration import Key, Section, declared_keys, is_section
from anchor_jax.config.keys import Config

_INTRODUCTION = """\
# Config keys

Every key of a config, with its default and the values it may take. A config file starts from
`anchor_jax.config.base()` and sets what differs; `--config.KEY=VALUE` sets a key on the command line, such as
`--config.anchoring.mask_prob=0.2`. Unknown keys and values out of range are errors.
[Train on your own data](data.md) shows a complete config.

This page is generated from [`anchor_jax/config/keys.py`](../anchor_jax/config/keys.py).
"""

_TYPES: dict[Any, str] = {
    bool: "`True`, `False`",
    int: "integer",
    float: "number",
    str: "string",
    tuple[float, ...]: "tuple of numbers",
    tuple[str, ...]: "tuple of strings",
}


def markdown() -> str:
    """Return the page: one table per section."""
    parts = [_INTRODUCTION, _table(Config)]
    for name, annotation in get_type_hints(Config).items():
        if is_section(annotation):
            parts.append(f"## config.{name}\n\n{annotation.__doc__}\n\n{_table(annotation)}")
    return "\n".join(parts)


def _table(section: type[Section]) -> str:
    rows = ["| key | default | allowed | meaning |", "| --- | --- | --- | --- |"]
    for name, annotation in get_type_hints(section).items():
        if not is_section(annotation):
            key = declared_keys(section)[name]
            rows.append(f"| `{name}` | {_default(key)} | {_allowed(key)} | {key.meaning} |")
        elif section is not Config:
            rows.append(f"| `{name}.*` | | | {annotation.__doc__} |")
    return "\n".join([*rows, ""])


def _default(key: Key) -> str:
    return f"`{key.default!r}`".replace("'", '"')


def _allowed(key: Key) -> str:
    if get_origin(key.type) is Literal:
        return ", ".join(f'`"{choice}"`' for choice in get_args(key.type))
    return _TYPES[key.type] + _range(key)


def _range(key: Key) -> str:
    if key.above is not None:
        return f" > {key.above:,}"
    if key.at_most is not None:
        return f" in [{key.at_least:,}, {key.at_most:,}]"
    return "" if key.at_least is None else f" ≥ {key.at_least:,}"


if __name__ == "__main__":
    print(markdown(), end="")
