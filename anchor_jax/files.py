"""Files that are either there whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; it takes the place of `path` once all is written, in one step, or never."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # a folder beside the final place: on the same disk, so that the move is atomic, and gone after any failure
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="incomplete-") as scratch:
        incomplete = Path(scratch) / path.name
        yield incomplete
        with incomplete.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(incomplete, path)
