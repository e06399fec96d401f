"""The orientation in which an image is to be shown, which cameras write into its EXIF data."""

from typing import Literal

from PIL import Image

from anchor_jax.core import checks

Orientation = Literal["auto", "exif", "stored"]

AUTO: Orientation = "auto"  # "exif"; in a config: as the run in this folder, if there is one
EXIF: Orientation = "exif"  # turn images upright
STORED: Orientation = "stored"  # ignore the orientation, as version 0.1
_ORIENTATIONS = (AUTO, EXIF, STORED)

_TAG = 0x0112
_UPRIGHT = 1
_MARKS = (b"Exif\0\0", b"tiff:Orientation")  # a JPEG file has an orientation only if it contains one of them
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FIRST_SIDEWAYS = 5  # from here on, width and height are exchanged


def check_orientation(orientation: str) -> str:
    """Return how orientations are read.

    Raises:
      UserError: there is no such way.
    """
    checks.choice("orientation", orientation, _ORIENTATIONS)
    return orientation


def recorded(image: Image.Image) -> int:
    """Return the orientation in the EXIF or XMP data of an image, 1 to 8; 1 is upright, and means none.

    Data that are corrupt have no orientation. The pixels are read first, except those of JPEG: in a PNG file, the data
    may follow them, and those of TIFF are already turned by Pillow.

    Raises:
      OSError: the pixels are corrupt.
    """
    if image.format not in ("JPEG", "MPO"):
        image.load()
    try:
        orientation = image.getexif().get(_TAG, _UPRIGHT)
    except Exception:  # Pillow raises many types for corrupt data; the pixels can be read nevertheless
        return _UPRIGHT
    return orientation if orientation in _TRANSPOSE else _UPRIGHT


def may_be_recorded(jpeg: bytes) -> bool:
    """Return whether a JPEG file may have an orientation; this is faster than to look for it."""
    return any(mark in jpeg for mark in _MARKS)


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """Return an image upright, given its orientation."""
    return image if orientation == _UPRIGHT else image.transpose(_TRANSPOSE[orientation])


def is_sideways(orientation: int) -> bool:
    """Return whether width and height are exchanged when the image is turned."""
    return orientation >= _FIRST_SIDEWAYS
