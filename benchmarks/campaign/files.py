"""The files of a campaign."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anchor_jax.runtime.atomic_files import atomic_write

ROOT = Path(__file__).parents[2]


def write_current(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically, in place of what it held: a step writes its file after each part."""
    with atomic_write(file) as new:
        new.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")


def read(file: Path) -> dict[str, Any] | None:
    """Return the content of a JSON file, None if there is none or it is damaged."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
