"""Images like those of ImageNet: JPEG files of odd sizes, modes and orientations, and a few that are no JPEG at all."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from benchmarks.tfds_writer import write_tfds

LABEL_NAMES = ("n01440764", "n01443537", "n01484850", "n01491361")
NUM = {"train": 240, "val": 60, "worn": 40}  # images of each split

DAMAGED = {5: "truncated", 6: "empty", 23: "text", 39: "16 bits"}  # rows of the split "worn"

RGBA_ROW, EXIF_ROW, LARGE_ROW = 3, 4, 8  # of the split "train"


class ImagenetLike(NamedTuple):
    """Where the set is, as folders with the splits of `NUM`, and as a TFDS set for each of "train" and "worn"."""

    folder: Path
    tfds_dir: Path  # with the sets "like_train" and "like_worn", each with the one split "train"

    def files(self, split: str) -> list[Path]:
        """In the order of the rows."""
        return sorted((self.folder / split).glob("*/*"))


def write(root: Path) -> ImagenetLike:
    """Make it below a folder; the same every time."""
    like = ImagenetLike(root / "folder", root / "tfds")
    for split, num in NUM.items():
        rng = np.random.default_rng(num)
        for row in range(num):
            name = LABEL_NAMES[row * len(LABEL_NAMES) // num]
            file = like.folder / split / name / f"{name}_{row:04}.JPEG"  # whatever is in it, as in ImageNet
            file.parent.mkdir(parents=True, exist_ok=True)
            damage = DAMAGED.get(row) if split == "worn" else None
            file.write_bytes(_damaged(damage, rng) if damage else _encoded(row % 20, rng))
    for split in ("train", "worn"):
        files = like.files(split)
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=LABEL_NAMES),
        }
        labels = [LABEL_NAMES.index(file.parent.name) for file in files]
        write_tfds(like.tfds_dir, f"like_{split}", [file.read_bytes() for file in files], labels, features)
    return like


def _encoded(kind: int, rng: np.random.Generator) -> bytes:
    """One of 20 kinds, of which twelve are the usual one."""
    width, height = rng.integers(30, 130, 2)
    image = _picture(rng, {6: 1, LARGE_ROW: 420}.get(kind, width), {7: 1, LARGE_ROW: 300}.get(kind, height))
    if kind == 0:
        return _saved(image.convert("L"), "jpeg")
    if kind == 1:
        return _saved(image.convert("CMYK"), "jpeg")
    if kind == 2:
        return _saved(image, "png")
    if kind == RGBA_ROW:
        image.putalpha(100)
        return _saved(image, "png")
    if kind == EXIF_ROW:
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by 90 degrees
        return _saved(image, "jpeg", exif=exif)
    if kind == 5:
        return _saved(image.convert("P"), "png", transparency=bytes([0, 128]))
    if kind == 9:
        return _saved(image, "webp")
    return _saved(image, "jpeg", progressive=kind == 10, subsampling="4:4:4" if kind == 11 else "4:2:0")


def _damaged(how: str, rng: np.random.Generator) -> bytes:
    image = _picture(rng, 60, 50)
    if how == "truncated":
        return _saved(image, "jpeg")[:-400]
    if how == "16 bits":
        return _saved(Image.fromarray(np.full((50, 60), 1000, np.uint16)), "png")
    return b"" if how == "empty" else b"not an image"


def _picture(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Smooth noise with a little grain."""
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    smooth = np.asarray(coarse.resize((int(width), int(height)), Image.Resampling.BICUBIC))
    return Image.fromarray((smooth + rng.normal(0, 3, smooth.shape)).clip(0, 255).astype(np.uint8))


def _saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 90} if kind == "jpeg" else {}), **options)
    return file.getvalue()
