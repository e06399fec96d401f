"""Pictures of one scene in every mode and orientation that is read."""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

ORIENTATION = 0x0112  # in EXIF data
SIDEWAYS = Image.Exif()
SIDEWAYS[ORIENTATION] = 6

_COARSE = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8)
PHOTOGRAPH = Image.fromarray(_COARSE).resize((500, 300), Image.Resampling.BICUBIC)
GRAY = PHOTOGRAPH.convert("L")
DEEP = Image.fromarray(np.asarray(GRAY).astype(np.uint16) * 256 + 77)  # 16 bits
RGBA = PHOTOGRAPH.copy()
RGBA.putalpha(GRAY)

# name -> image, and options of its file
KINDS = {
    "color.jpg": (PHOTOGRAPH, {}),
    "gray.png": (GRAY, {}),
    "rgba.png": (RGBA, {}),
    "gray_alpha.png": (RGBA.convert("LA"), {}),
    "palette.png": (PHOTOGRAPH.convert("P"), {"transparency": bytes([0, 128])}),
    "bits.png": (PHOTOGRAPH.convert("1"), {}),
    "cmyk.jpg": (PHOTOGRAPH.convert("CMYK"), {}),
    "deep.png": (DEEP, {}),
    "deep.tif": (DEEP, {}),
    "sideways.jpg": (PHOTOGRAPH, {"exif": SIDEWAYS}),
    "sideways.png": (PHOTOGRAPH, {"exif": SIDEWAYS}),
    "sideways.webp": (PHOTOGRAPH, {"exif": SIDEWAYS}),
    "sideways.tif": (PHOTOGRAPH, {"exif": SIDEWAYS}),
    "animated.gif": (PHOTOGRAPH, {"save_all": True, "append_images": [PHOTOGRAPH.rotate(180)]}),
}


def write_pictures(folder: Path) -> Path:
    """Write a file of every kind into a folder; return it."""
    for name, (image, options) in KINDS.items():
        image.save(folder / name, **options)
    return folder


def encoded(image: Image.Image, kind="png", **options) -> bytes:
    """Return the bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def opened(files: Iterable[Path]) -> list[Image.Image]:
    """Return images that Pillow has opened, but not read yet."""
    return [Image.open(io.BytesIO(file.read_bytes())) for file in files]
