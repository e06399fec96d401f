"""Augmented images a second, ours on the device beside torchvision's transforms of Pillow images on one core.

    python benchmarks/augmentation.py --json augmentation.json

The images are made here: smooth noise with a little grain. Ours are uint8 on the device before and after, a batch at
once; theirs are made Pillow images, and augmented one by one. "compile_time" is what the first batch takes more than
later ones. torchvision has no PixMix.
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
from timing import Result, interleaved, report

from anchor_jax import config
from anchor_jax.cli import app
from anchor_jax.core.errors import unknown
from anchor_jax.data import load_mixing_images

OURS = "anchor_jax"
CASES = {
    "crop and flip": {"crop_padding": 4, "flip": True},
    "resized crop and flip": {"resized_crop": (0.08, 1.0), "flip": True},
    "trivial_augment": {"policy": "trivial_augment"},
    "rand_augment": {"policy": "rand_augment"},
    "pixmix": {"policy": "pixmix"},
}

JSON = flags.DEFINE_string("json", None, "Where the numbers go.")
SAMPLES = flags.DEFINE_integer("samples", 5, "Of each number.", lower_bound=1)
NAMES = flags.DEFINE_list("cases", list(CASES), "Names, with commas between.")
SIZES = flags.DEFINE_list("sizes", ["32", "224"], "Pixels on a side of the images, with commas between.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images of a batch of ours.", lower_bound=1)
HOST_IMAGES = flags.DEFINE_integer("host_images", 128, "Images that torchvision augments.", lower_bound=1)


def main() -> None:
    """Measure, print, write the file."""
    jax.config.update("jax_enable_compilation_cache", False)  # compile_time is without one
    for name in NAMES.value:
        if name not in CASES:
            raise unknown("case", name, CASES)
    results = [result for size in map(int, SIZES.value) for name in NAMES.value for result in measured(name, size)]
    facts = {"batch_size": BATCH_SIZE.value, "host_images": HOST_IMAGES.value}
    report("Augmentation", facts, results, JSON.value)


def measured(name: str, size: int) -> list[Result]:
    """Images a second of one case, ours and theirs, and what ours takes to compile."""
    images = made_images(max(BATCH_SIZE.value, HOST_IMAGES.value), size)
    runs, nums = {OURS: ours(name, images[: BATCH_SIZE.value])}, {OURS: BATCH_SIZE.value}
    started = time.perf_counter()
    runs[OURS]()
    first = time.perf_counter() - started
    if (torchvision := installed_torchvision()) and name in torchvision.TRANSFORMS:
        runs["torchvision"] = partial(torchvision.augment, name, images[: HOST_IMAGES.value])
        nums["torchvision"] = HOST_IMAGES.value
        runs["torchvision"]()
    seconds, case = interleaved(runs, SAMPLES.value), f"{name}, {size}x{size}"
    speeds = [
        Result(case, who, "images_per_second", "images/s", [nums[who] / s for s in samples])
        for who, samples in seconds.items()
    ]
    return [*speeds, Result(case, OURS, "compile_time", "s", [max(first - min(seconds[OURS]), 0)])]


@cache
def installed_torchvision() -> ModuleType | None:
    """The other side; None, and a line that says so, where torchvision is missing or made for another PyTorch."""
    try:
        return importlib.import_module("pytorch_augmentation")
    except (ImportError, RuntimeError) as error:
        print(f"torchvision cannot be imported ({error}): its transforms are left out")
        return None


def ours(name: str, images: np.ndarray) -> Callable[[], object]:
    """A call that augments the images, and returns when that is done."""
    settings = config.base().augmentation
    settings.update(CASES[name])
    pictures = load_mixing_images("", images.shape[1], 3)[:64] if settings.policy == "pixmix" else None
    augment = jax.jit(lambda keys, images, pictures: augment(keys, images, settings, pictures))
    keys, images, pictures = jax.device_put((jax.random.split(jax.random.key(0), len(images)), images, pictures))
    return lambda: jax.block_until_ready(augment(keys, images, pictures))


def made_images(num: int, size: int) -> np.ndarray:
    """Uint8 `[num, size, size, 3]`."""
    rng = np.random.default_rng(0)
    coarse = [Image.fromarray(each) for each in rng.integers(0, 256, (num, 8, 8, 3), np.uint8)]
    smooth = np.stack([np.asarray(each.resize((size, size), Image.Resampling.BICUBIC)) for each in coarse])
    return (smooth + rng.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8)


if __name__ == "__main__":
    app.run(main)
