"""Source "folder": image files in one folder per class; and any folder of images without classes."""

import os
from collections.abc import Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.data.decoding import EncodedDataset, Example, common_mode
from anchor_jax.data.eval_dataset import EvalDataset, eval_dataset_from_encoded
from anchor_jax.data.files import reading_errors
from anchor_jax.data.sources.source import SourceRequest
from anchor_jax.runtime.paths import absolute_path

_LAYOUT = "expected layout: <data.path>/<split>/<class name>/<image>.png"
_IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def open_folder(request: SourceRequest) -> EncodedDataset:
    """Open `path/split`: its subfolders, sorted by name, are the classes; no image is read."""
    root = request.required_path(f"source 'folder' needs a folder; {_LAYOUT}")
    with reading_errors(f"folder '{root}'", _LAYOUT):
        splits = subfolders(root)
        if request.split not in splits:
            raise UserError(
                f"no split '{request.split}' in '{root}'; it contains: {', '.join(splits) or 'no folders'}; {_LAYOUT}"
            )
        label_names = subfolders(root / request.split)
        files, labels = _list_images(root / request.split, label_names)
    return _encoded_files(f"{root.name}-{request.split}", tuple(label_names), files, labels)


def open_images(
    path: str | os.PathLike[str], *, image_size: int, mode: str, title: str, crop_fraction: float = 1.0
) -> EvalDataset:
    """Open all images in a folder, at any depth, sorted by path; they have the single class "image".

    Args:
      path: the folder; hidden files and folders are ignored.
      image_size: see `load`.
      mode: "L", "RGB" or "auto", see `load`.
      title: name of the dataset.
      crop_fraction: see `load`.

    Raises:
      UserError: there is no such folder, or no image in it. An image that is corrupt or differs in size raises when its
        batch is read.
    """
    root = absolute_path("the folder of images", path)
    with reading_errors(f"folder '{root}'", "give a folder of images"):
        os.listdir(root)  # rglob finds nothing, and raises nothing, if there is no folder
        files = sorted(
            file for file in root.rglob("*") if is_image(file.name) and not _is_hidden(file.relative_to(root))
        )
    if not files:
        raise UserError(f"no images in '{root}' or its subfolders; allowed: {', '.join(sorted(_IMAGE_SUFFIXES))}")
    names = [os.path.relpath(file, root) for file in files]
    encoded = _encoded_files(root.name, ("image",), FileList(root, names), np.zeros(len(files), np.int32))
    encoded = encoded._replace(image_size=image_size, crop_fraction=crop_fraction, given_mode=mode)
    return eval_dataset_from_encoded(encoded, title)


def subfolders(folder: Path) -> list[str]:
    """Return the sorted names of the folders in a folder, without hidden ones."""
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def is_image(name: str) -> bool:
    """Return whether a file of this name is treated as an image."""
    return os.path.splitext(name)[1].lower() in _IMAGE_SUFFIXES and not name.startswith(".")


class FileList(Sequence[Path]):
    """Files in one folder, stored as a single byte string: millions of `Path` objects would take gigabytes."""

    def __init__(self, folder: Path, names: Iterable[str]):
        encoded = [os.fsencode(name) for name in names]
        self._folder = folder
        self._names = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, row: int) -> Path:  # pyright: ignore[reportIncompatibleMethodOverride]  # no slices
        if not 0 <= row < len(self):
            raise IndexError(row)
        return self._folder / os.fsdecode(self._names[self._ends[row] : self._ends[row + 1]])


class _FileExamples(NamedTuple):
    """The examples of image files, by row."""

    files: Sequence[Path]
    labels: np.ndarray  # int32 [N]

    def __call__(self, row: int) -> Example:
        file = self.files[row]
        return Example(file, int(self.labels[row]), str(file))


def _encoded_files(
    title: str, label_names: tuple[str, ...], files: Sequence[Path], labels: np.ndarray
) -> EncodedDataset:
    example = _FileExamples(files, labels)

    own_mode = cache(partial(common_mode, example, len(files)))
    return EncodedDataset(title, label_names, len(files), example, own_mode, 0, files)


def _list_images(split: Path, label_names: list[str]) -> tuple[FileList, np.ndarray]:
    """List the images of a split, class by class; return the files and their labels int32 `[N]`."""
    if not label_names:
        raise UserError(f"no class folders in '{split}'; {_LAYOUT}")
    names, counts = [], []
    for label_name in label_names:
        images = sorted(filter(is_image, os.listdir(split / label_name)))
        if not images:
            raise UserError(f"no images in class folder '{split / label_name}'; {_LAYOUT}")
        names += [os.path.join(label_name, name) for name in images]
        counts.append(len(images))
    return FileList(split, names), np.repeat(np.arange(len(label_names), dtype=np.int32), counts)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
