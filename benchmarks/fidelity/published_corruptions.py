"""The published generators of CIFAR-10-C and ImageNet-C, run on current versions of their dependencies.

The generator is that of hendrycks/robustness. Only the functions in its two files are executed, because they import
packages of 2018; current versions replace these, and ImageMagick's `convert` replaces Wand. Without a clone, it is that
of tensorflow-datasets, with the constants for 224 x 224 (which does not affect its speed); frost is skipped, and snow
for 32 x 32.
"""

import ast
import io
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import scipy.ndimage
import skimage
import tensorflow_datasets.image_classification.corruptions as tfds_corruptions
from PIL import Image

from anchor_jax.core.errors import UserError
from anchor_jax.data import load, photographs
from anchor_jax.data.corruptions import CORRUPTIONS_19
from benchmarks.fidelity.imagemagick import CONVERT

FILES = {32: "ImageNet-C/create_c/make_cifar_c.py", 224: "ImageNet-C/imagenet_c/imagenet_c/corruptions.py"}

Corrupt = Callable[[np.ndarray, int], Any]  # (uint8 [H, W, 3], severity) -> [H, W, 3] in 0..255


def published_functions(official: Path | None, size: int) -> tuple[Mapping[str, Corrupt], str]:
    """Return the published functions for images of a size, 32 or 224, by corruption, and the generator's name.

    Args:
      official: a clone of hendrycks/robustness; None for tensorflow-datasets.
      size: height and width of the images.
    """
    skipped = set() if CONVERT else {"motion_blur", "snow"}
    if official:
        functions, name = _load_functions(official / FILES[size]), "hendrycks/robustness"
    else:
        tfds_corruptions._imagemagick_bin = lambda: CONVERT
        functions, name = vars(tfds_corruptions), "tensorflow-datasets"
        skipped |= {"frost"} | ({"snow"} if size == 32 else set())
    return {each: functions[each] for each in CORRUPTIONS_19 if each not in skipped}, name


def apply(function: Corrupt, images: np.ndarray, severity: int = 3) -> list[np.ndarray]:
    """Apply a published function to one image after another; return the results, rounded to uint8."""
    return [np.around(np.asarray(function(image, severity), float)).astype(np.uint8) for image in images]


def small_images(num: int) -> np.ndarray:
    """Return test images of CIFAR-10 if $TFDS_DATA_DIR is set, else patches of photographs; uint8 `[N, 32, 32, 3]`."""
    if os.environ.get("TFDS_DATA_DIR"):
        return load("tfds", "test", name="cifar10").images[:num]
    return photographs((32, 32, 3), max(num, 2)).images


def versions() -> dict[str, str]:
    """Return the versions of the packages that the generator calls."""
    return {module.__name__: module.__version__ for module in (cv2, scipy, skimage)}


def _load_functions(file: Path) -> dict[str, Corrupt]:
    """Execute the function definitions of a published file, without its imports and top-level code."""
    if not file.exists():
        raise UserError(f"--official must be a clone of hendrycks/robustness; '{file}' does not exist")
    definitions: list[ast.stmt] = [
        node for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)
    ]
    names = {
        "np": SimpleNamespace(**vars(np) | {"float_": np.float64, "fromstring": np.frombuffer}),
        "cv2": SimpleNamespace(**vars(cv2) | {"imread": lambda name: cv2.imread(str(file.parent / name))}),
        "sk": skimage,
        "gaussian": _gaussian,
        "scizoom": scipy.ndimage.zoom,
        "map_coordinates": scipy.ndimage.map_coordinates,
        "BytesIO": io.BytesIO,
        "PILImage": SimpleNamespace(**vars(Image) | {"BOX": Image.Resampling.BOX, "fromarray": _from_array}),
        "MotionImage": _MotionImage,
        "resource_filename": lambda package, name: name,
        "__name__": "published",
    }
    exec(compile(ast.Module(definitions, []), str(file), "exec"), names)

    def by_name(name: str) -> Corrupt:
        return lambda image, severity: names[name](Image.fromarray(image), severity)

    return {name: by_name(name) for name in CORRUPTIONS_19}


def _gaussian(image: np.ndarray, sigma: float, multichannel: bool = False, **options: Any) -> np.ndarray:
    """`skimage.filters.gaussian` with its former argument."""
    return skimage.filters.gaussian(image, sigma=sigma, channel_axis=-1 if multichannel else None, **options)


def _from_array(array: np.ndarray, mode: str) -> Image.Image:
    """`Image.fromarray` with its former argument; the mode follows from the array."""
    return Image.fromarray(array)


class _MotionImage:
    """The subclass of Wand's image that the generator uses for motion blur."""

    def __init__(self, blob: bytes):
        self.blob = blob

    def motion_blur(self, radius: float, sigma: float, angle: float) -> None:
        """Blur the image in place."""
        call = [str(CONVERT), "png:-", "-motion-blur", f"{radius}x{sigma}+{angle}", "png:-"]
        self.blob = subprocess.run(call, input=self.blob, stdout=subprocess.PIPE, check=True).stdout

    def make_blob(self) -> bytes:
        """Return the image as PNG."""
        return self.blob
