"""Find the image files in a folder, and report the other files that lie there."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from anchor_jax.core.errors import SkippedFilesWarning
from anchor_jax.data.files import warn_once

# Pillow's name of each format that is decoded -> suffixes of its files, in lower case
FORMATS = {
    "BMP": (".bmp",),
    "DIB": (".dib",),  # BMP without the header of a file; with it, read as BMP
    "GIF": (".gif",),
    "JPEG": (".jfif", ".jpe", ".jpeg", ".jpg", ".mpo"),
    "PNG": (".apng", ".png"),
    "PPM": (".pbm", ".pgm", ".pnm", ".ppm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
IMAGE_SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)

# what macOS leaves in folders and archives; its files "._NAME" contain no image, whatever NAME is
_MAC_NAMES = {".AppleDouble", ".DS_Store", ".Spotlight-V100", ".Trashes", ".fseventsd", "__MACOSX"}

_LOOP = "links to a folder above"
_NUM_REASONS = 5  # in a warning


class Skipped(NamedTuple):
    """A file that is not read."""

    name: str  # relative to the folder that is searched
    reason: str  # its suffix, or what else tells it from the images that are read


class FoundFiles(NamedTuple):
    """The files in a folder, by their paths relative to it."""

    images: list[str]  # sorted
    skipped: list[Skipped]


def is_image(name: str) -> bool:
    """Return whether a file of this name is read as an image."""
    return _suffix(name) in IMAGE_SUFFIXES and not name.startswith(".")


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is hidden, or a leftover of macOS."""
    return name.startswith(".") or name in _MAC_NAMES


def subfolders(folder: Path) -> list[str]:
    """Return the sorted names of the folders in a folder, without hidden ones and links to a folder above."""
    names = sorted(name for name in os.listdir(folder) if not is_hidden(name))
    return [name for name in names if os.path.isdir(folder / name) and not _is_loop(folder / name)]


def find_images(root: Path, folder: str = "") -> FoundFiles:
    """Find the images in `root / folder`, at any depth; links are followed, except those to a folder above them.

    Leftovers of macOS, and hidden files without an image suffix, are ignored.

    Returns:
      The images, and the files that are skipped; both are named relative to `root`.

    Raises:
      OSError: the folder, or one in it, cannot be read.
    """
    images: list[str] = []
    skipped: list[Skipped] = []
    for place, is_shown, names in _walk(root, folder):
        for name in names:
            if not is_shown or name.startswith("."):
                if _suffix(name) in IMAGE_SUFFIXES:
                    skipped.append(Skipped(os.path.join(place, name), "hidden"))
            elif _suffix(name) in IMAGE_SUFFIXES:
                images.append(os.path.join(place, name))
            elif name.endswith(os.sep):
                skipped.append(Skipped(os.path.join(place, name), _LOOP))
            else:
                skipped.append(skipped_file(os.path.join(place, name)))
    images.sort(key=lambda name: name.split(os.sep))
    return FoundFiles(images, skipped)


def files_beside(root: Path, folders: Sequence[str], what: str) -> list[Skipped]:
    """Return the files in `root`, and the images in its hidden folders, which are skipped.

    Args:
      root: a folder.
      folders: its subfolders that are read.
      what: what these are, such as "class folders".
    """
    skipped = []
    for name in set(os.listdir(root)).difference(folders):
        if _is_from_macos(name):
            continue
        if os.path.isdir(root / name):
            skipped += [Skipped(name, _LOOP)] if _is_loop(root / name) else find_images(root, name).skipped
        elif _suffix(name) in IMAGE_SUFFIXES:
            skipped.append(Skipped(name, f"images beside the {what}"))
        elif not name.startswith("."):
            skipped.append(skipped_file(name))
    return skipped


def skipped_file(name: str) -> Skipped:
    """Return a file that is skipped because of its suffix."""
    return Skipped(name, _suffix(name) or "without a suffix")


def count_reasons(skipped: Iterable[Skipped]) -> str:
    """Return how many files are skipped for each reason, such as ".txt: 3, hidden: 1"."""
    counts = sorted(Counter(file.reason for file in skipped).items(), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(f"{reason}: {count}" for reason, count in counts[:_NUM_REASONS])
    return listed + (", …" if len(counts) > _NUM_REASONS else "")


def warn_skipped(root: Path, skipped: Sequence[Skipped], read: str = "") -> None:
    """Warn once about all files in a folder that are not read: how many, why, and an example."""
    if skipped:
        what = "1 file is" if len(skipped) == 1 else f"{len(skipped)} files are"
        warn_once(
            f"{what} not read in '{root}' ({count_reasons(skipped)}), such as '{min(skipped).name}'; "
            f"read are: {read or ', '.join(sorted(IMAGE_SUFFIXES))}",
            SkippedFilesWarning,
        )


class _Place(NamedTuple):
    folder: str  # relative to the root
    is_shown: bool  # neither it nor a folder that it is in is hidden
    names: list[str]  # of its files; a link to a folder above ends in a slash


def _walk(root: Path, folder: str) -> Iterator[_Place]:
    """Walk through the folders in `root / folder`, without those of macOS and hidden ones that cannot be read."""

    def fail(error: OSError) -> None:
        if not has_hidden_part(os.path.relpath(error.filename, root)):
            raise error

    def has_hidden_part(path: str) -> bool:
        return path != "." and any(part.startswith(".") for part in path.split(os.sep))

    for place, folders, files in os.walk(root / folder, onerror=fail, followlinks=True):
        folders[:] = [name for name in folders if not _is_from_macos(name)]
        loops = [name for name in folders if _is_loop(Path(place, name))]
        # a folder that is called like an image is reported when it is read
        odd = [name for name in folders if is_image(name) and name not in loops]
        folders[:] = [name for name in folders if name not in (*loops, *odd)]
        relative = os.path.relpath(place, root)
        names = [name for name in files if not _is_from_macos(name)]
        names += [*odd, *(name + os.sep for name in loops)]
        yield _Place("" if relative == "." else relative, not has_hidden_part(relative), names)


def _is_loop(folder: Path) -> bool:
    """Return whether a folder is a link to one that it is in, directly or through other links."""
    if not os.path.islink(folder):
        return False
    target = os.path.realpath(folder)
    above = map(os.path.realpath, folder.parents)
    return any(os.path.commonpath([place, target]) == target for place in above)


def _is_from_macos(name: str) -> bool:
    return name.startswith("._") or name in _MAC_NAMES


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
