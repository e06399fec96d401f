"""The pages of the documentation, README.md and docs/, and what of them can be run."""

import re
from pathlib import Path
from typing import Any

from commands import ROOT

DOCS = ROOT / "docs"
PAGES = sorted((*ROOT.glob("*.md"), *DOCS.rglob("*.md")))

_PROGRAM = "(?:python|make|anchor-jax)"


def python_blocks(page: Path) -> list[str]:
    """Return the blocks of Python on a page."""
    return _blocks(page.read_text())


def section(text: str, title: str) -> str:
    """Return the section under a heading `## title`, without the heading."""
    (found,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return found


def run(text: str, where: str, **names: Any) -> dict[str, Any]:
    """Run all blocks of Python in a text, one after the other, and return the names that they define."""
    exec(compile("\n".join(_blocks(text)), where, "exec"), names)
    return names


def commands(text: str) -> list[str]:
    """Return the commands in a text: lines that begin with `python`, `make` or `anchor-jax`, and those in backticks."""
    joined = re.sub(r"\\\n\s*", "", text)
    found = re.findall(rf"^\s*(?:\w+=\S+ )*({_PROGRAM} .*)|`({_PROGRAM} [^`]+)`", joined, flags=re.MULTILINE)
    return [line.split(" #")[0].strip() or quoted for line, quoted in found]


def _blocks(text):
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
