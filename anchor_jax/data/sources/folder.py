"""Source "folder": image files in one folder per class; and any folder of images without classes."""

import os
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.data import orientation as orientations
from anchor_jax.data import resampling
from anchor_jax.data.decoding import EncodedDataset, Example, Size, common_mode
from anchor_jax.data.eval_dataset import EvalDataset, eval_dataset_from_encoded
from anchor_jax.data.files import FileList, reading_errors
from anchor_jax.data.image_files import (
    IMAGE_SUFFIXES,
    Skipped,
    count_reasons,
    files_beside,
    find_images,
    subfolders,
    warn_skipped,
)
from anchor_jax.data.local_copies import local_data
from anchor_jax.data.sources.source import SourceRequest

_LAYOUT = "expected layout: <data.path>/<split>/<class name>/<image>.png"


def open_folder(request: SourceRequest) -> EncodedDataset:
    """Open `path/split`: its subfolders, sorted by name, are the classes; no image is read.

    The images of a class are those in its folder at any depth. Files that are not read cause a warning.
    """
    root = request.required_path(f"source 'folder' needs a folder; {_LAYOUT}")
    with reading_errors(f"folder '{root}'", _LAYOUT):
        splits = subfolders(root)
        if request.split not in splits:
            raise UserError(
                f"no split '{request.split}' in '{root}'; it contains: {', '.join(splits) or 'no folders'}; {_LAYOUT}"
            )
        label_names = subfolders(root / request.split)
        files, labels, skipped = _list_images(root / request.split, label_names)
    warn_skipped(root / request.split, skipped)
    return _encoded_files(f"{root.name}-{request.split}", tuple(label_names), files, labels)


def open_images(
    path: str | os.PathLike[str],
    *,
    image_size: Size,
    mode: str,
    title: str,
    crop_fraction: float = 1.0,
    interpolation: str = resampling.AUTO,
    resizing: str = resampling.AUTO,
    orientation: str = orientations.AUTO,
) -> EvalDataset:
    """Open all images in a folder, at any depth, sorted by path; they have the single class "image".

    Args:
      path: the folder; files that are not read cause a warning.
      image_size: see `load`.
      mode: "L", "RGB" or "auto", see `load`.
      title: name of the dataset.
      crop_fraction: see `load`.
      interpolation: see `load`.
      resizing: see `load`.
      orientation: see `load`.

    Raises:
      UserError: there is no such folder, or no image in it. An image that is corrupt or differs in size raises when its
        batch is read.
    """
    root = local_data("the folder of images", path)
    with reading_errors(f"folder '{root}'", "give a folder of images"):
        names, skipped = find_images(root)
    if not names:
        raise UserError(f"no images in '{root}' or its subfolders; allowed: {', '.join(sorted(IMAGE_SUFFIXES))}")
    warn_skipped(root, skipped)
    encoded = _encoded_files(root.name, ("image",), FileList(root, names), np.zeros(len(names), np.int32))
    size = {"image_size": image_size, "crop_fraction": crop_fraction, "interpolation": interpolation}
    encoded = encoded._replace(**size, resizing=resizing, orientation=orientation, given_mode=mode)
    return eval_dataset_from_encoded(encoded, title)


class _FileExamples(NamedTuple):
    """The examples of image files, by row."""

    files: FileList
    labels: np.ndarray  # int32 [N]

    def __call__(self, row: int) -> Example:
        file = self.files[row]
        return Example(file, int(self.labels[row]), str(file))


def _encoded_files(title: str, label_names: tuple[str, ...], files: FileList, labels: np.ndarray) -> EncodedDataset:
    example = _FileExamples(files, labels)

    own_mode = cache(partial(common_mode, example, len(files)))
    return EncodedDataset(title, label_names, len(files), example, own_mode, 0, files, file_of=files.name)


def _list_images(split: Path, label_names: list[str]) -> tuple[FileList, np.ndarray, list[Skipped]]:
    """List the images of a split, class by class; return the files, their labels int32 `[N]`, and what is skipped."""
    if not label_names:
        raise UserError(f"no class folders in '{split}'; {_LAYOUT}")
    names, counts, skipped = [], [], files_beside(split, label_names, "class folders")
    for label_name in label_names:
        found = find_images(split, label_name)
        if not found.images:
            others = f", but {count_reasons(found.skipped)}" if found.skipped else ""
            raise UserError(f"no images in class folder '{split / label_name}'{others}; {_LAYOUT}")
        names += sorted(found.images, key=os.path.split)  # the order of torchvision's ImageFolder
        skipped += found.skipped
        counts.append(len(found.images))
    return FileList(split, names), np.repeat(np.arange(len(label_names), dtype=np.int32), counts), skipped
