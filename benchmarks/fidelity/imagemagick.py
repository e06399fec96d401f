"""Find ImageMagick's `convert`, which the published generators of corruptions call for motion blur."""

import os
import subprocess
from pathlib import Path


def _is_imagemagick(file: Path) -> bool:
    """Return whether a program is ImageMagick's; other packages install programs named `convert`, too."""
    try:
        version = subprocess.run([file, "-version"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return False
    return "ImageMagick" in version


def _find() -> str | None:
    files = (Path(folder, "convert") for folder in os.get_exec_path())
    return next((str(file) for file in files if file.is_file() and _is_imagemagick(file)), None)


CONVERT = _find()  # None if it is not installed
