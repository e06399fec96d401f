"""The files of a campaign."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anchor_jax.runtime.atomic_files import atomic_write

ROOT = Path(__file__).parents[2]


def write_current(file: Path, content: Mapping[str, Any]) -> None:
    """Write or replace a JSON file atomically: steps write their file after each part."""
    with atomic_write(file) as new:
        new.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")


def read(file: Path) -> dict[str, Any] | None:
    """Return the content of a JSON file; None if it is missing or damaged."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
