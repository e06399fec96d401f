"""Images a second from files to what a network sees, beside a PyTorch DataLoader on the same files.

    python benchmarks/input.py --json input.json

The images are made here: smooth noise with a little grain, which compresses about as well as photographs. anchor_jax
decodes them once, loads them from its cache after that, and augments them on the device in every epoch. The DataLoader
decodes and augments in every epoch, or augments what it holds in memory. Both crop and mirror at random, and normalise.
"""

import importlib.util
import io
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np
import tensorflow_datasets as tfds
from absl import flags
from measuring import Result, interleaved, report
from PIL import Image
from prepared import write_tfds

from anchor_jax import command, config
from anchor_jax.data import Dataset, Normalization, augmented, load, normalize
from anchor_jax.errors import UserError

NAME = "made"  # of the tfds set
CLASSES = ("even", "odd")
CROP_PADDING = 4
AUGMENTATION = config.base().augmentation
AUGMENTATION.update(crop_padding=CROP_PADDING, flip=True)
NORMALIZATION = Normalization((0.5,) * 3, (0.25,) * 3)

JSON = flags.DEFINE_string("json", None, "Where the numbers go.")
SAMPLES = flags.DEFINE_integer("samples", 5, "Passes over the images for each number.", lower_bound=1)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images at once, where they are augmented.", lower_bound=1)
PNG_SIZE = flags.DEFINE_integer("png_size", 32, "Pixels on a side of the PNG images.", lower_bound=1)
PNG_IMAGES = flags.DEFINE_integer("png_images", 8192, "How many there are: whole batches.", lower_bound=0)
JPEG_SIZE = flags.DEFINE_integer("jpeg_size", 224, "Pixels on a side of the JPEG images.", lower_bound=1)
JPEG_IMAGES = flags.DEFINE_integer("jpeg_images", 1024, "How many there are: whole batches.", lower_bound=0)
WORKERS = flags.DEFINE_integer("workers", os.cpu_count() or 1, "Processes of a DataLoader.", lower_bound=1)

Runs = dict[str, Callable[[], object]]  # implementation: case


def main() -> None:
    """Both kinds of files, one after the other."""
    kinds = (("png", PNG_SIZE.value, PNG_IMAGES.value), ("jpeg", JPEG_SIZE.value, JPEG_IMAGES.value))
    for kind, _, num in kinds:
        if num % BATCH_SIZE.value:
            raise UserError(f"--{kind}_images must be divisible by --batch_size={BATCH_SIZE.value}; got {num}")
    results = [result for kind, size, num in kinds if num for result in measured(kind, size, num)]
    facts = {"batch_size": BATCH_SIZE.value, "workers_of_pytorch": WORKERS.value}
    report("From files to what a network sees", facts, results, JSON.value)


def measured(kind: str, size: int, num: int) -> list[Result]:
    """Images a second of everything, for one kind of files."""
    with tempfile.TemporaryDirectory() as folder:
        files = write_images(Path(folder), kind, size, num)
        dataset = load("folder", "train", path=Path(folder) / "folder", cache_dir=Path(folder) / "cache")
        runs = ours(Path(folder), dataset)
        if importlib.util.find_spec("torch"):
            runs |= pytorch(files, dataset)
        interleaved(runs, 1)  # compiles, starts the workers
        seconds = interleaved(runs, SAMPLES.value)
    results = []
    for run, samples in seconds.items():
        implementation, case = run.split(": ")
        speeds = [num / sample for sample in samples]
        results.append(Result(f"{kind} {size}x{size}, {case}", implementation, "images_per_second", "1/s", speeds))
    return results


def ours(folder: Path, dataset: Dataset) -> Runs:
    """Decoding with an empty cache, which is written; loading from it; augmentation on the device."""
    load_folder = partial(load, "folder", "train", path=folder / "folder")
    load_records = partial(load, "tfds", "train", name=NAME, path=folder / "tfds")
    return {
        "anchor_jax: decode a folder": partial(_with_empty_cache, load_folder),
        "anchor_jax: decode array_record": partial(_with_empty_cache, load_records),
        "anchor_jax: load what is decoded": partial(load_folder, cache_dir=folder / "cache"),
        "anchor_jax: augment": partial(_augment_all, jax.device_put(dataset.images)),
    }


def pytorch(files: list[Path], dataset: Dataset) -> Runs:
    """The same, in every epoch."""
    from pytorch_loading import Augmented, Epoch

    images = {"decode a folder and augment": files, "augment": dataset.images}
    return {
        f"pytorch: {case}": Epoch(Augmented(of, dataset.labels, CROP_PADDING), BATCH_SIZE.value, WORKERS.value)
        for case, of in images.items()
    }


def _with_empty_cache(load_from: Callable[..., Dataset]) -> None:
    with tempfile.TemporaryDirectory() as cache:
        load_from(cache_dir=cache)


def _augment_all(images: jax.Array) -> None:
    batches = np.random.default_rng(0).permutation(len(images)).reshape(-1, BATCH_SIZE.value)
    jax.block_until_ready([_inputs(jax.random.key(step), images, rows) for step, rows in enumerate(batches)])


@jax.jit
def _inputs(key, images, rows):
    keys = jax.random.split(key, len(rows))
    return normalize(augmented(keys, images[rows], AUGMENTATION), NORMALIZATION)


def write_images(folder: Path, kind: str, size: int, num: int) -> list[Path]:
    """Images as files in `folder / "folder"`, and as a prepared TFDS set in `folder / "tfds"`; the files, in order."""
    rng = np.random.default_rng(0)
    encoded = [_encoded(rng, kind, size) for _ in range(num)]
    labels = [row * len(CLASSES) // num for row in range(num)]
    files = []
    for row, (content, label) in enumerate(zip(encoded, labels, strict=True)):
        files.append(folder / "folder/train" / CLASSES[label] / f"{row:06}.{kind}")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        files[-1].write_bytes(content)
    image = tfds.features.Image(shape=(size, size, 3), encoding_format=kind)
    features = {"image": image, "label": tfds.features.ClassLabel(names=CLASSES)}
    write_tfds(folder / "tfds", NAME, encoded, labels, features)
    return files


def _encoded(rng: np.random.Generator, kind: str, size: int) -> bytes:
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    grain = rng.normal(0, 4, (size, size, 3))
    file = io.BytesIO()
    Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)).save(file, kind, quality=90)
    return file.getvalue()


if __name__ == "__main__":
    command.run(main)
