"""Images like those of ImageNet: JPEG files of odd sizes, modes and orientations, and a few other formats."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from benchmarks.tfds_writer import write_tfds

LABEL_NAMES = ("n01440764", "n01443537", "n01484850", "n01491361")
NUM = {"train": 240, "val": 60, "corrupt": 40}  # images per split

CORRUPT = {5: "truncated", 6: "empty", 23: "text", 39: "floats"}  # rows of the split "corrupt"

RGBA_ROW, EXIF_ROW, LARGE_ROW = 3, 4, 8  # of the split "train"


class ImagenetLike(NamedTuple):
    """The dataset as folders with the splits of `NUM`, and as one TFDS dataset each for "train" and "corrupt"."""

    folder: Path
    tfds_dir: Path  # of the datasets "like_train" and "like_corrupt", which have the single split "train"

    def files(self, split: str) -> list[Path]:
        """Return the files of a split, in the order of its rows."""
        return sorted((self.folder / split).glob("*/*"))


def write(root: Path) -> ImagenetLike:
    """Write the dataset into a folder; it is the same every time."""
    like = ImagenetLike(root / "folder", root / "tfds")
    for split, num in NUM.items():
        rng = np.random.default_rng(num)
        for row in range(num):
            name = LABEL_NAMES[row * len(LABEL_NAMES) // num]
            file = like.folder / split / name / f"{name}_{row:04}.JPEG"  # of any format, as in ImageNet
            file.parent.mkdir(parents=True, exist_ok=True)
            how = CORRUPT.get(row) if split == "corrupt" else None
            file.write_bytes(_corrupt_image(how, rng) if how else _encoded_image(row % 20, rng))
    for split in ("train", "corrupt"):
        files = like.files(split)
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=LABEL_NAMES),
        }
        labels = [LABEL_NAMES.index(file.parent.name) for file in files]
        write_tfds(like.tfds_dir, f"like_{split}", [file.read_bytes() for file in files], labels, features)
    return like


def _encoded_image(kind: int, rng: np.random.Generator) -> bytes:
    """Return one of 20 kinds of images; twelve of them are ordinary JPEG files."""
    width, height = rng.integers(30, 130, 2)
    image = _smooth_noise(rng, {6: 1, LARGE_ROW: 420}.get(kind, width), {7: 1, LARGE_ROW: 300}.get(kind, height))
    if kind == 0:
        return _save(image.convert("L"), "jpeg")
    if kind == 1:
        return _save(image.convert("CMYK"), "jpeg")
    if kind == 2:
        return _save(image, "png")
    if kind == RGBA_ROW:
        image.putalpha(100)
        return _save(image, "png")
    if kind == EXIF_ROW:
        exif = Image.Exif()
        exif[0x0112] = 6  # rotated by 90 degrees
        return _save(image, "jpeg", exif=exif)
    if kind == 5:
        return _save(image.convert("P"), "png", transparency=bytes([0, 128]))
    if kind == 9:
        return _save(image, "webp")
    return _save(image, "jpeg", progressive=kind == 10, subsampling="4:4:4" if kind == 11 else "4:2:0")


def _corrupt_image(how: str, rng: np.random.Generator) -> bytes:
    image = _smooth_noise(rng, 60, 50)
    if how == "truncated":
        return _save(image, "jpeg")[:-400]
    if how == "floats":
        return _save(Image.fromarray(np.full((50, 60), 0.5, np.float32)), "tiff")
    return b"" if how == "empty" else b"not an image"


def _smooth_noise(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Return smooth noise with a little grain."""
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    smooth = np.asarray(coarse.resize((int(width), int(height)), Image.Resampling.BICUBIC))
    return Image.fromarray((smooth + rng.normal(0, 3, smooth.shape)).clip(0, 255).astype(np.uint8))


def _save(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 90} if kind == "jpeg" else {}), **options)
    return file.getvalue()
