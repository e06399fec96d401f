"""The pages: README.md and docs/, and what of them can be run."""

import re
from pathlib import Path
from typing import Any

from commands import ROOT

DOCS = ROOT / "docs"
PAGES = sorted((*ROOT.glob("*.md"), *DOCS.rglob("*.md")))


def python_blocks(page: Path) -> list[str]:
    """The blocks of Python on a page."""
    return _blocks(page.read_text())


def run(text: str, where: str, **names: Any) -> dict[str, Any]:
    """Run all blocks of Python in a text, one after the other; the names that they leave behind."""
    exec(compile("\n".join(_blocks(text)), where, "exec"), names)
    return names


def commands(text: str) -> list[str]:
    """The commands of Python and make in a text: lines that begin with one, and what stands in backticks."""
    one_line = re.sub(r"\\\n\s*", "", text)
    found = re.findall(r"^\s*(?:\w+=\S+ )*((?:python|make) .*)|`((?:python|make) [^`]+)`", one_line, flags=re.MULTILINE)
    return [line.split(" #")[0].strip() or quoted for line, quoted in found]


def _blocks(text):
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
