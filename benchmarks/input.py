"""Images a second from files to what a network sees, beside a PyTorch DataLoader on the same files.

    python benchmarks/input.py --json input.json

The images are made here: smooth noise with a little grain, which compresses about as well as photographs. anchor_jax
decodes them once, loads them from its cache after that, and augments them on the device in every epoch. The DataLoader
decodes and augments in every epoch, or augments what it holds in memory. Both crop and mirror at random, and normalise.

What does not fit into memory is streamed: photographs of the shape that most of ImageNet's have, as JPEG files, to
random crops of 224 x 224 that are mirrored half of the time and normalised. Both sides use as many workers, and
their batches are timed when all that was ahead is used up. The share of a core is told by the time that all processes
have spent.
"""

import importlib.util
import io
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorflow_datasets as tfds
from absl import flags
from PIL import Image
from prepared import write_tfds
from timing import PAUSE, Result, interleaved, report

from anchor_jax import config
from anchor_jax.cli import app
from anchor_jax.core.errors import UserError
from anchor_jax.data import Dataset, Normalization, augment, load, normalize, open_train_stream

NAME = "made"  # of the tfds set
CLASSES = ("even", "odd")
CROP_PADDING = 4
AUGMENTATION = config.base().augmentation
AUGMENTATION.update(crop_padding=CROP_PADDING, flip=True)
MIRROR = config.base().augmentation
MIRROR.flip = True
NORMALIZATION = Normalization((0.5,) * 3, (0.25,) * 3)
AREA = (0.08, 1.0)  # of a crop
AHEAD = 6  # batches that workers may have ready

JSON = flags.DEFINE_string("json", None, "Where the numbers go.")
SAMPLES = flags.DEFINE_integer("samples", 5, "Passes over the images for each number.", lower_bound=1)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images at once, where they are augmented.", lower_bound=1)
PNG_SIZE = flags.DEFINE_integer("png_size", 32, "Pixels on a side of the PNG images.", lower_bound=1)
PNG_IMAGES = flags.DEFINE_integer("png_images", 8192, "How many there are: whole batches.", lower_bound=0)
JPEG_SIZE = flags.DEFINE_integer("jpeg_size", 224, "Pixels on a side of the JPEG images.", lower_bound=1)
JPEG_IMAGES = flags.DEFINE_integer("jpeg_images", 1024, "How many there are: whole batches.", lower_bound=0)
STREAM_SIZE = flags.DEFINE_integer("stream_size", 224, "Pixels on a side of what is streamed.", lower_bound=1)
STREAM_IMAGES = flags.DEFINE_integer("stream_images", 1024, "How many there are: whole batches.", lower_bound=0)
WORKERS = flags.DEFINE_integer("workers", os.cpu_count() or 1, "Worker processes of each side.", lower_bound=1)

Runs = dict[str, Callable[[], object]]  # implementation: case


def main() -> None:
    """Both kinds of files, one after the other."""
    kinds = (("png", PNG_SIZE.value, PNG_IMAGES.value), ("jpeg", JPEG_SIZE.value, JPEG_IMAGES.value))
    for kind, num in [(kind, num) for kind, _, num in kinds] + [("stream", STREAM_IMAGES.value)]:
        if num % BATCH_SIZE.value:
            raise UserError(f"--{kind}_images must be divisible by --batch_size={BATCH_SIZE.value}; got {num}")
    results = [result for kind, size, num in kinds if num for result in measured(kind, size, num)]
    if STREAM_IMAGES.value:
        results += streamed(STREAM_SIZE.value, STREAM_IMAGES.value)
    facts = {"batch_size": BATCH_SIZE.value, "workers": WORKERS.value}
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
    return normalize(augment(keys, images[rows], AUGMENTATION), NORMALIZATION)


def streamed(size: int, num: int) -> list[Result]:
    """Images a second of streams, and images a second of a core's time, over all processes."""
    case = f"stream of jpeg 500x375 to {size}x{size}"
    with tempfile.TemporaryDirectory() as folder:
        files, labels = write_photographs(Path(folder), num)
        settings = config.base().data
        settings.update(source="folder", path=folder, image_size=size, workers=WORKERS.value)
        with open_train_stream(settings, area=AREA, seed=0, batch_size=BATCH_SIZE.value) as feed:
            streams: dict[str, Iterator[Any]] = {"anchor_jax": _mirrored(feed.batches())}
            if importlib.util.find_spec("torch"):
                from pytorch_loading import Cropped, endless

                streams["pytorch"] = endless(Cropped(files, labels, size, AREA), BATCH_SIZE.value, WORKERS.value)
            speeds = in_steady_state(streams, num // BATCH_SIZE.value)
    results = []
    for implementation, (of_all, of_a_core) in speeds.items():
        results.append(Result(case, implementation, "images_per_second", "1/s", of_all))
        results.append(Result(case, implementation, "images_per_core_second", "1/s", of_a_core))
    return results


def in_steady_state(streams: dict[str, Iterator[Any]], num_batches: int) -> dict[str, tuple[list[float], list[float]]]:
    """Images a second, and images a second of processor time, of each stream in turn."""
    speeds = {name: ([], []) for name in streams}
    for _ in range(SAMPLES.value):
        for name, stream in streams.items():
            time.sleep(PAUSE)
            for _ in range(AHEAD):
                next(stream)
            started, spent = time.perf_counter(), _processor_time()
            for _ in range(num_batches):
                next(stream)
            images = num_batches * BATCH_SIZE.value
            speeds[name][0].append(images / (time.perf_counter() - started))
            speeds[name][1].append(images / (_processor_time() - spent))
    return speeds


def _processor_time() -> float:
    """Seconds that this process and its workers have spent so far (Linux)."""
    ticks = 0
    for worker in multiprocessing.active_children():
        fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # in user and in system mode
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _mirrored(batches: Iterator) -> Iterator[jax.Array]:
    for step, (images, _) in enumerate(batches):
        yield jax.block_until_ready(_flipped(jax.random.key(step), images))


@jax.jit
def _flipped(key, images):
    keys = jax.random.split(key, len(images))
    return normalize(augment(keys, images, MIRROR), NORMALIZATION)


def write_photographs(folder: Path, num: int) -> tuple[list[Path], np.ndarray]:
    """Parts of scikit-learn's photographs with a little grain, as JPEG files of 500 x 375 pixels, and their labels."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    photographs = [Image.fromarray(photograph) for photograph in load_sample_images().images]
    labels = np.arange(num) * len(CLASSES) // num
    files = []
    for row, label in enumerate(labels):
        photograph = photographs[row % len(photographs)]
        width = rng.uniform(250, 500)
        left, top = rng.uniform(0, photograph.width - width), rng.uniform(0, photograph.height - width * 3 / 4)
        box = (left, top, left + width, top + width * 3 / 4)
        part = photograph.resize((500, 375), Image.Resampling.BICUBIC, box=box)
        grained = np.asarray(part) + rng.normal(0, 4, (375, 500, 3))
        files.append(folder / "train" / CLASSES[label] / f"{row:06}.jpeg")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grained.clip(0, 255).astype(np.uint8)).save(files[-1], quality=90)
    return files, labels


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
    app.run(main)
