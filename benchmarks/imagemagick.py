"""ImageMagick's `convert`, which the published generators of corruptions call for motion blur."""

import os
import subprocess
from pathlib import Path


def _is_imagemagick(file: Path) -> bool:
    """Whether a program of that name is the one: others are called so too."""
    try:
        said = subprocess.run([file, "-version"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return False
    return "ImageMagick" in said


def _found() -> str | None:
    files = (Path(folder, "convert") for folder in os.get_exec_path())
    return next((str(file) for file in files if file.is_file() and _is_imagemagick(file)), None)


CONVERT = _found()
