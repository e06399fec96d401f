"""Sphinx configuration; build the site with `make docs`."""

import importlib.metadata
import os
import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))  # document this checkout, not an installed version

# pages whose source is outside docs/
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}

project, author, copyright = "anchor_jax", "The anchor_jax authors", "the anchor_jax authors"
version = release = importlib.metadata.version("anchor-jax")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme, html_title = "furo", f"anchor_jax {version}"
exclude_patterns = ["results"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

default_role = "literal"  # docstrings use single backticks for names
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_use_ivar = True
napoleon_use_rtype = False  # Returns sections hold prose, not types


def setup(app):
    """Rewrite links, which are relative to their source file so that they work on GitHub, relative to docs/."""
    app.connect("source-read", lambda app, name, source: _relink(source, DOCS))
    app.connect("include-read", lambda app, path, name, source: _relink(source, (DOCS / path).parent))


def _relink(source, folder):
    def relinked(link):
        target = (folder / link[1]).resolve()
        if not target.exists():
            return link[0]
        from_root = os.path.relpath(target, DOCS.parent)
        return f"]({os.path.relpath(DOCS / PAGES[from_root] if from_root in PAGES else target, DOCS)}{link[2]}"

    source[0] = re.sub(r"\]\(([\w./-]+)([)#])", relinked, source[0])
