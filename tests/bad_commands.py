"""Helpers for tests of commands that get bad input: the error is one line, and files stay as they were."""

import contextlib
import os

from commands import quick_command
from corrupt_files import left_a_mark

# the beginning of a config file, to which a test adds lines
BASE_CONFIG = "from anchor_jax.config import base\n\n\ndef get_config():\n    config = base()\n"
# flags for the few images of a test
FEW_IMAGES = ("--config.training.batch_size=2", "--config.evaluation.num_references=1")


def contents(folder):
    """Return the content of every file and the target of every link in a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[path] = os.readlink(path)
        elif path.is_file():
            found[path] = path.read_bytes()
    return found


@contextlib.contextmanager
def unchanged(folder):
    """Assert that nothing in a folder is changed, added or removed, and that no code in its files has run."""
    before = contents(folder)
    yield
    assert contents(folder) == before
    assert not left_a_mark(folder)


def training(folder, *flags, config="configs/digits.py"):
    """Return how `train.py` ended, with a workdir in this folder."""
    return quick_command("train.py", f"--config={config}", f"--workdir={folder / 'run'}", *flags)
