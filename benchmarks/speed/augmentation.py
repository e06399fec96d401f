"""Time augmentation on the device, compared with torchvision's transforms of Pillow images on one core.

    python -m benchmarks.speed.augmentation --cases pixmix,rand_augment --sizes 32,224 --json augmentation.json

Ours augments batches of uint8 images on the device. torchvision augments one image at a time, including the conversion
from an array to a Pillow image; it has no PixMix. "compile_time" is the time of the first batch beyond a later one.
"""

import importlib
import time
from collections.abc import Callable
from functools import cache, partial
from types import ModuleType

import jax
import numpy as np
from absl import flags
from PIL import Image

from anchor_jax import config
from anchor_jax.cli import app
from anchor_jax.core.errors import unknown
from anchor_jax.data import augment, load_mixing_images
from benchmarks.report import Result, report
from benchmarks.timing import time_interleaved

OURS = "anchor_jax"
CASES = {
    "crop and flip": {"crop_padding": 4, "flip": True},
    "resized crop and flip": {"resized_crop": (0.08, 1.0), "flip": True},
    "trivial_augment": {"policy": "trivial_augment"},
    "rand_augment": {"policy": "rand_augment"},
    "pixmix": {"policy": "pixmix"},
}

JSON = app.define_path("json", None, "Result file.", what="a new file")
SAMPLES = flags.DEFINE_integer("samples", 5, "Samples per number.", lower_bound=1)
NAMES = flags.DEFINE_list("cases", list(CASES), f"Comma-separated, of {', '.join(CASES)}.")
SIZES = flags.DEFINE_list("sizes", ["32", "224"], "Comma-separated image sizes: pixels per side.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images per batch of ours.", lower_bound=1)
HOST_IMAGES = flags.DEFINE_integer("host_images", 128, "Images that torchvision augments.", lower_bound=1)


def main() -> None:
    """Time every case at every size."""
    jax.config.update("jax_enable_compilation_cache", False)  # so that compile_time is measured
    for name in NAMES.value:
        if name not in CASES:
            raise unknown("case", name, CASES)
    results = [result for size in map(int, SIZES.value) for name in NAMES.value for result in measure(name, size)]
    facts = {"batch_size": BATCH_SIZE.value, "host_images": HOST_IMAGES.value}
    report("Augmentation", facts, results, JSON.value)


def measure(name: str, size: int) -> list[Result]:
    """Return the throughput of both implementations in one case, and the compile time of ours."""
    images = random_images(max(BATCH_SIZE.value, HOST_IMAGES.value), size)
    runs, nums = {OURS: our_run(name, images[: BATCH_SIZE.value])}, {OURS: BATCH_SIZE.value}
    start = time.perf_counter()
    runs[OURS]()
    first = time.perf_counter() - start
    if (torchvision := import_torchvision_side()) and name in torchvision.TRANSFORMS:
        runs["torchvision"] = partial(torchvision.augment, name, images[: HOST_IMAGES.value])
        nums["torchvision"] = HOST_IMAGES.value
        runs["torchvision"]()
    seconds, case = time_interleaved(runs, SAMPLES.value), f"{name}, {size}x{size}"
    speeds = [
        Result(case, implementation, "images_per_second", "images/s", [nums[implementation] / s for s in samples])
        for implementation, samples in seconds.items()
    ]
    return [*speeds, Result(case, OURS, "compile_time", "s", [max(first - min(seconds[OURS]), 0)])]


@cache
def import_torchvision_side() -> ModuleType | None:
    """Return `benchmarks.pytorch.augmentation`; print a note and return None if torchvision cannot be imported."""
    try:
        return importlib.import_module("benchmarks.pytorch.augmentation")
    except (ImportError, RuntimeError) as error:
        print(f"torchvision cannot be imported ({error}); its transforms are skipped")
        return None


def our_run(name: str, images: np.ndarray) -> Callable[[], object]:
    """Return a function that augments the images on the device and waits for the result."""
    settings = config.base().augmentation
    settings.update(CASES[name])
    mixing_images = load_mixing_images("", images.shape[1], 3)[:64] if settings.policy == "pixmix" else None
    augment_batch = jax.jit(lambda keys, images, mixing: augment(keys, images, settings, mixing))
    arguments = jax.device_put((jax.random.split(jax.random.key(0), len(images)), images, mixing_images))
    return lambda: jax.block_until_ready(augment_batch(*arguments))


def random_images(num: int, size: int) -> np.ndarray:
    """Return smooth noise with slight grain, uint8 `[num, size, size, 3]`."""
    rng = np.random.default_rng(0)
    coarse = [Image.fromarray(each) for each in rng.integers(0, 256, (num, 8, 8, 3), np.uint8)]
    smooth = np.stack([np.asarray(each.resize((size, size), Image.Resampling.BICUBIC)) for each in coarse])
    return (smooth + rng.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8)


if __name__ == "__main__":
    app.run(main)
