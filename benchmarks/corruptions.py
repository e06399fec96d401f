"""Corrupted images a second, ours beside the published generator; or, with --fidelity, what both do to the images.

    python benchmarks/corruptions.py --official ../robustness --json corruptions.json
    python benchmarks/corruptions.py --official ../robustness --fidelity --json corruptions_fidelity.json

The images are the test set of CIFAR-10 where $TFDS_DATA_DIR is set, else patches of scikit-learn's photographs. Ours
corrupts all --num_images of them, in batches; the published one --host_images, one after the other as it is written,
on one core. "images_per_second" is at severity 3; that of a suite is for all of its corruptions, each in its turn.
"compile_time" is that of all severities, without a cache: what their first batches take more than later ones.

The published generator is that of hendrycks/robustness, of whose two files the functions alone are run: its packages
are of 2018, and today's take their place; `convert` of ImageMagick that of Wand. Without --official it is that of
tensorflow-datasets, with the constants for 224 x 224 alone (which for the speed do not matter), without frost, and for
32 x 32 also without snow.

With --fidelity the file has a line for each corruption and severity, for 32 x 32 (with --official) and for 224 x 224
(photographs): mean and spread of the change within an image, in levels, and its PSNR in dB, averaged over the images,
ours and theirs. Where no random numbers are drawn, "differing" is the share of values that differ, and "furthest" how
many levels at most. Both are rounded to whole levels.
"""

import ast
import io
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import jax
import numpy as np
import scipy.ndimage
import skimage
import tensorflow_datasets.image_classification.corruptions as tfds_corruptions
from absl import flags
from imagemagick import CONVERT
from PIL import Image
from timing import Result, environment, interleaved, report

from anchor_jax.cli import app
from anchor_jax.core.errors import UserError
from anchor_jax.data import load, photographs
from anchor_jax.data.corruptions import CORRUPTIONS_15, CORRUPTIONS_19, corrupt
from anchor_jax.runtime.atomic_files import atomic_write

OURS = "anchor_jax"
FILES = {32: "ImageNet-C/create_c/make_cifar_c.py", 224: "ImageNet-C/imagenet_c/imagenet_c/corruptions.py"}
DETERMINISTIC = (
    *("defocus_blur", "zoom_blur", "gaussian_blur", "brightness", "contrast"),
    *("saturate", "pixelate", "jpeg_compression"),
)
SEVERITIES = (1, 2, 3, 4, 5)

JSON = flags.DEFINE_string("json", None, "Where the numbers go.")
OFFICIAL = flags.DEFINE_string("official", "", "A clone of hendrycks/robustness.")
NAMES = flags.DEFINE_list("corruptions", list(CORRUPTIONS_19), "Names, with commas between.")
NUM_IMAGES = flags.DEFINE_integer("num_images", 10_000, "Images that ours corrupts.", lower_bound=1)
HOST_IMAGES = flags.DEFINE_integer("host_images", 100, "Images that the published generator corrupts.", lower_bound=1)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 500, "Images of a batch of ours.", lower_bound=1)
SAMPLES = flags.DEFINE_integer("samples", 3, "Samples of each implementation.", lower_bound=1)
FIDELITY = flags.DEFINE_boolean("fidelity", False, "Compare what is done to the images.")
SMALL_IMAGES = flags.DEFINE_integer("small_images", 200, "Of 32 x 32, for --fidelity.", lower_bound=0)
LARGE_IMAGES = flags.DEFINE_integer("large_images", 20, "Of 224 x 224, for --fidelity.", lower_bound=0)

Corrupt = Callable[[np.ndarray, int], Any]  # (uint8 [H, W, 3], severity) -> [H, W, 3] in 0..255


def main() -> None:
    """Measure, print, write the file."""
    jax.config.update("jax_enable_compilation_cache", False)  # compile_time is without one
    if FIDELITY.value:
        rows = [row for row in fidelity() if print(json.dumps(row), flush=True) is None]
        if JSON.value:
            lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
            with atomic_write(Path(JSON.value)) as new:
                new.write_text(
                    f'{{\n "environment": {json.dumps(environment() | versions())},\n "results": [\n{lines}\n ]\n}}\n'
                )
        return
    facts = {"images": NUM_IMAGES.value, "host_images": HOST_IMAGES.value, "batch_size": BATCH_SIZE.value}
    report("corruptions", versions() | facts, speeds(), JSON.value)


def versions() -> dict[str, str]:
    """Of the packages that the published generator calls."""
    return {module.__name__: module.__version__ for module in (cv2, scipy, skimage)}


def speeds() -> list[Result]:
    """Of every corruption of 32 x 32 at severity 3, and of the suites."""
    images = small_images(NUM_IMAGES.value)
    theirs, their_name = host(32)
    results, seconds = [], {}
    for name in NAMES.value:
        compile_time = first_calls(images, name)
        runs: dict[str, Callable[[], object]] = {OURS: partial(ours, images, name)}
        if name in theirs:
            runs[their_name] = partial(one_by_one, theirs[name], images[: HOST_IMAGES.value])
        seconds[name] = interleaved(runs, SAMPLES.value)
        nums = {OURS: len(images), their_name: len(images[: HOST_IMAGES.value])}
        seconds[name] = {who: [s / nums[who] for s in samples] for who, samples in seconds[name].items()}
        results += [speed(f"{name}, 32x32", who, samples) for who, samples in seconds[name].items()]
        results.append(Result(f"{name}, 32x32", OURS, "compile_time", "s", [compile_time]))
    for suite in (CORRUPTIONS_15, CORRUPTIONS_19):
        for who in (OURS, their_name):
            if all(who in seconds.get(name, {}) for name in suite):
                means = [sum(samples) / len(suite) for samples in zip(*(seconds[n][who] for n in suite), strict=True)]
                results.append(speed(f"{len(suite)} corruptions, 32x32", who, means))
    return results


def speed(case: str, who: str, seconds: list[float]) -> Result:
    """Of samples of the seconds of one image."""
    return Result(case, who, "images_per_second", "images/s", [1 / s for s in seconds])


def ours(images: np.ndarray, name: str, severity: int = 3) -> None:
    """Corrupt all images in batches, the last one as large as they all are."""
    size = min(BATCH_SIZE.value, len(images))
    starts = [min(start, len(images) - size) for start in range(0, len(images), size)]
    jax.block_until_ready([corrupt(jax.random.key(n), images[n : n + size], name, severity) for n in starts])


def first_calls(images: np.ndarray, name: str) -> float:
    """Seconds that first batches of all severities take beyond the seconds of later ones."""
    total = 0.0
    for sign in (1, -1):
        for severity in SEVERITIES:
            started = time.perf_counter()
            ours(images[: BATCH_SIZE.value], name, severity)
            total += sign * (time.perf_counter() - started)
    return max(total, 0.0)


def one_by_one(function: Corrupt, images: np.ndarray, severity: int = 3) -> list[np.ndarray]:
    """The images after the published function, rounded."""
    return [np.around(np.asarray(function(image, severity), float)).astype(np.uint8) for image in images]


def fidelity() -> Iterator[dict[str, Any]]:
    """The numbers of every corruption and severity."""
    for size, num in ((32, SMALL_IMAGES.value if OFFICIAL.value else 0), (224, LARGE_IMAGES.value)):
        images = small_images(num) if size == 32 else photographs((size, size, 3), max(num, 2)).images
        theirs, _ = host(size)
        for name in NAMES.value if num else ():
            for severity in SEVERITIES if name in theirs else ():
                np.random.seed(severity)  # noqa: NPY002  where the published generator draws
                published = np.stack(one_by_one(theirs[name], images, severity))
                corrupted = np.asarray(corrupt(jax.random.key(severity), images, name, severity))
                row = {"size": size, "corruption": name, "severity": severity, "images": len(images)}
                row |= {"ours": change(images, corrupted), "theirs": change(images, published)}
                if name in DETERMINISTIC:
                    apart = np.abs(corrupted.astype(int) - published)
                    row |= {"differing": float((apart > 0).mean()), "furthest": int(apart.max())}
                yield row


def change(images: np.ndarray, corrupted: np.ndarray) -> dict[str, float]:
    """Mean and spread (levels) and PSNR (dB) of the change, averaged over the images; an equal image has 68 dB."""
    difference = corrupted.astype(float) - images
    psnr = 10 * np.log10(255**2 / np.maximum((difference**2).mean((1, 2, 3)), 0.01))
    numbers = {"mean": difference.mean(), "spread": difference.std((1, 2, 3)).mean(), "psnr": psnr.mean()}
    return {key: round(float(value), 3) for key, value in numbers.items()}


def small_images(num: int) -> np.ndarray:
    """The first of CIFAR-10's test set, or as many photographs."""
    if os.environ.get("TFDS_DATA_DIR"):
        return load("tfds", "test", name="cifar10").images[:num]
    return photographs((32, 32, 3), max(num, 2)).images


# the published generators


def host(size: int) -> tuple[Mapping[str, Corrupt], str]:
    """The functions of the published generator for a size, by name, and what it is called."""
    without = set() if CONVERT else {"motion_blur", "snow"}
    if OFFICIAL.value:
        functions, name = published(Path(OFFICIAL.value) / FILES[size]), "hendrycks/robustness"
    else:
        tfds_corruptions._imagemagick_bin = lambda: CONVERT
        functions, name = vars(tfds_corruptions), "tensorflow-datasets"
        without |= {"frost"} | ({"snow"} if size == 32 else set())
    return {each: functions[each] for each in CORRUPTIONS_19 if each not in without}, name


def published(file: Path) -> dict[str, Corrupt]:
    """The functions of one of the published files, which does more when it is imported, and asks for old packages."""
    if not file.exists():
        raise UserError(f"--official must be a clone of hendrycks/robustness, with {file}; that is not there")
    definitions: list[ast.stmt] = [
        node for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)
    ]
    names = {
        "np": SimpleNamespace(**vars(np) | {"float_": np.float64, "fromstring": np.frombuffer}),
        "cv2": SimpleNamespace(**vars(cv2) | {"imread": lambda name: cv2.imread(str(file.parent / name))}),
        "sk": skimage,
        "gaussian": gaussian,
        "scizoom": scipy.ndimage.zoom,
        "map_coordinates": scipy.ndimage.map_coordinates,
        "BytesIO": io.BytesIO,
        "PILImage": SimpleNamespace(**vars(Image) | {"BOX": Image.Resampling.BOX, "fromarray": from_array}),
        "MotionImage": MotionImage,
        "resource_filename": lambda package, name: name,
        "__name__": "published",
    }
    exec(compile(ast.Module(definitions, []), str(file), "exec"), names)

    def of(name: str) -> Corrupt:
        return lambda image, severity: names[name](Image.fromarray(image), severity)

    return {name: of(name) for name in CORRUPTIONS_19}


def gaussian(image: np.ndarray, sigma: float, multichannel: bool = False, **options: Any) -> np.ndarray:
    """`skimage.filters.gaussian` as it was."""
    return skimage.filters.gaussian(image, sigma=sigma, channel_axis=-1 if multichannel else None, **options)


def from_array(array: np.ndarray, mode: str) -> Image.Image:
    """`Image.fromarray` as it was, with a mode that follows from the array anyway."""
    return Image.fromarray(array)


class MotionImage:
    """The image of Wand that blurs."""

    def __init__(self, blob: bytes):
        self.blob = blob

    def motion_blur(self, radius: float, sigma: float, angle: float) -> None:
        """In place."""
        call = [str(CONVERT), "png:-", "-motion-blur", f"{radius}x{sigma}+{angle}", "png:-"]
        self.blob = subprocess.run(call, input=self.blob, stdout=subprocess.PIPE, check=True).stdout

    def make_blob(self) -> bytes:
        """PNG."""
        return self.blob


if __name__ == "__main__":
    app.run(main)
