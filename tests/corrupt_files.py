"""Corrupt, mislabeled and malicious files."""

import io
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from benchmarks.tfds_writer import write_tfds

HUGE = 1 << 42  # bytes, more than any machine has


class Mark:
    """Creates a folder when it is unpickled."""

    def __init__(self, place: Path):
        self.folder = str(place / "mark")

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def left_a_mark(place: Path) -> bool:
    """Return whether a `Mark` was unpickled."""
    return (place / "mark").exists()


def npz(**arrays) -> bytes:
    """Return an .npz file; object arrays are pickled."""
    file = io.BytesIO()
    np.savez(file, allow_pickle=True, **arrays)
    return file.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    """Return an .npz file of members with any names and contents."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def npy(header: str) -> bytes:
    """Return an .npy file that has only a header."""
    line = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(line)) + line


def npy_of(shape: tuple[int, ...]) -> bytes:
    """Return the .npy file of an array of bytes, without the bytes."""
    return npy(repr({"descr": "|u1", "fortran_order": False, "shape": shape}))


def npy_array(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def image(kind: str = "png", size: int = 6) -> bytes:
    """Return an image file of random pixels."""
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def png_of(width: int, height: int) -> bytes:
    """Return a PNG file whose header claims this size."""

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 6\n%%EndComments\nshowpage\n%%EOF\n"


def image_folder(root: Path, classes: tuple[str, ...] = ("ant", "bee"), content: bytes | None = None) -> Path:
    """Write the splits train and test with one image per class; return `root`."""
    for split in ("train", "test"):
        (root / split).mkdir(parents=True)
        for name in classes:
            (root / split / name).mkdir()
            (root / split / name / "0.png").write_bytes(content or image())
    return root


def prepared_set(data_dir: Path, name: str = "tiny") -> Path:
    """Prepare a TFDS dataset with the split "train"; return the folder of its files."""
    features = {
        "image": tfds.features.Image(shape=(6, 6, 3)),
        "label": tfds.features.ClassLabel(names=["ant", "bee"]),
    }
    return write_tfds(data_dir, name, [image()] * 4, [0, 1, 0, 1], features)


def pickled(place: Path) -> bytes:
    return pickle.dumps({"weight": Mark(place)})
