"""Time the input pipeline, from image files to network inputs, compared with a PyTorch DataLoader.

    python -m benchmarks.speed.input --json input.json

Measures small images that fit into memory (PNG and JPEG), then a stream of JPEG files cropped to 224 x 224. Both sides
read the same files with equally many workers, and crop, flip and normalize at random.
"""

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

from anchor_jax import config
from anchor_jax.cli import app
from anchor_jax.core.errors import UserError
from anchor_jax.data import Dataset, Normalization, augment, load, normalize, open_train_stream
from benchmarks import pytorch
from benchmarks.report import Result, report
from benchmarks.tfds_writer import write_tfds
from benchmarks.timing import PAUSE, time_interleaved

NAME = "made"  # of the TFDS dataset
CLASSES = ("even", "odd")
CROP_PADDING = 4
AUGMENTATION = config.base().augmentation
AUGMENTATION.update(crop_padding=CROP_PADDING, flip=True)
FLIP = config.base().augmentation
FLIP.flip = True
NORMALIZATION = Normalization((0.5,) * 3, (0.25,) * 3)
AREA = (0.08, 1.0)  # of a random crop, as a fraction of the image
PREFETCHED = 6  # batches that the workers may have prepared

JSON = app.define_path("json", None, "Result file.", what="a new file")
SAMPLES = flags.DEFINE_integer("samples", 5, "Passes over the images per number.", lower_bound=1)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images per batch.", lower_bound=1)
PNG_SIZE = flags.DEFINE_integer("png_size", 32, "Pixels per side of the PNG images.", lower_bound=1)
PNG_IMAGES = flags.DEFINE_integer("png_images", 8192, "PNG images: complete batches.", lower_bound=0)
JPEG_SIZE = flags.DEFINE_integer("jpeg_size", 224, "Pixels per side of the JPEG images.", lower_bound=1)
JPEG_IMAGES = flags.DEFINE_integer("jpeg_images", 1024, "JPEG images: complete batches.", lower_bound=0)
STREAM_SIZE = flags.DEFINE_integer("stream_size", 224, "Pixels per side of the streamed crops.", lower_bound=1)
STREAM_IMAGES = flags.DEFINE_integer("stream_images", 1024, "Streamed images: complete batches.", lower_bound=0)
WORKERS = flags.DEFINE_integer("workers", os.cpu_count() or 1, "Worker processes per implementation.", lower_bound=1)

Runs = dict[str, Callable[[], object]]  # by "implementation: case"


def main() -> None:
    """Time images in memory, then the stream."""
    kinds = (("png", PNG_SIZE.value, PNG_IMAGES.value), ("jpeg", JPEG_SIZE.value, JPEG_IMAGES.value))
    for kind, num in [(kind, num) for kind, _, num in kinds] + [("stream", STREAM_IMAGES.value)]:
        if num % BATCH_SIZE.value:
            raise UserError(f"--{kind}_images must be divisible by --batch_size={BATCH_SIZE.value}; got {num}")
    results = [result for kind, size, num in kinds if num for result in measure_in_memory(kind, size, num)]
    if STREAM_IMAGES.value:
        results += measure_stream(STREAM_SIZE.value, STREAM_IMAGES.value)
    facts = {"batch_size": BATCH_SIZE.value, "workers": WORKERS.value}
    report("Input pipeline", facts, results, JSON.value)


def measure_in_memory(kind: str, size: int, num: int) -> list[Result]:
    """Return the images per second of each stage, for PNG or JPEG files.

    anchor_jax decodes the files once, later loads them from its cache, and augments them on the device in every epoch.
    The DataLoader decodes and augments in every epoch, or augments decoded images from memory.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = write_images(Path(folder), kind, size, num)
        dataset = load("folder", "train", path=Path(folder) / "folder", cache_dir=Path(folder) / "cache")
        runs = our_runs(Path(folder), dataset)
        if pytorch.is_installed():
            runs |= pytorch_runs(files, dataset)
        time_interleaved(runs, 1)  # compiles, and starts the workers
        seconds = time_interleaved(runs, SAMPLES.value)
    results = []
    for run, samples in seconds.items():
        implementation, case = run.split(": ")
        speeds = [num / sample for sample in samples]
        results.append(Result(f"{kind} {size}x{size}, {case}", implementation, "images_per_second", "1/s", speeds))
    return results


def our_runs(folder: Path, dataset: Dataset) -> Runs:
    """Return decoding with an empty cache, which is written; loading from the cache; augmentation on the device."""
    load_folder = partial(load, "folder", "train", path=folder / "folder")
    load_records = partial(load, "tfds", "train", name=NAME, path=folder / "tfds")
    return {
        "anchor_jax: decode a folder": partial(_with_empty_cache, load_folder),
        "anchor_jax: decode array_record": partial(_with_empty_cache, load_records),
        "anchor_jax: load what is decoded": partial(load_folder, cache_dir=folder / "cache"),
        "anchor_jax: augment": partial(_augment_all, jax.device_put(dataset.images)),
    }


def pytorch_runs(files: list[Path], dataset: Dataset) -> Runs:
    """Return epochs of a DataLoader on the files, and on the decoded images."""
    from benchmarks.pytorch.loading import AugmentedImages, Epoch

    sources = {"decode a folder and augment": files, "augment": dataset.images}
    return {
        f"pytorch: {case}": Epoch(
            AugmentedImages(images, dataset.labels, CROP_PADDING), BATCH_SIZE.value, WORKERS.value
        )
        for case, images in sources.items()
    }


def _with_empty_cache(load_from: Callable[..., Dataset]) -> None:
    with tempfile.TemporaryDirectory() as cache:
        load_from(cache_dir=cache)


def _augment_all(images: jax.Array) -> None:
    batches = np.random.default_rng(0).permutation(len(images)).reshape(-1, BATCH_SIZE.value)
    jax.block_until_ready([_augment_rows(jax.random.key(step), images, rows) for step, rows in enumerate(batches)])


@jax.jit
def _augment_rows(key, images, rows):
    keys = jax.random.split(key, len(rows))
    return normalize(augment(keys, images[rows], AUGMENTATION), NORMALIZATION)


def measure_stream(size: int, num: int) -> list[Result]:
    """Return the images per second of streaming, and per second of CPU time.

    The files are JPEG photographs of ImageNet's most common shape. Each becomes a random crop, flipped with
    probability 1/2 and normalized.
    """
    case = f"stream of jpeg 500x375 to {size}x{size}"
    with tempfile.TemporaryDirectory() as folder:
        files, labels = write_photographs(Path(folder), num)
        settings = config.base().data
        settings.update(source="folder", path=folder, image_size=size, workers=WORKERS.value)
        with open_train_stream(settings, area=AREA, seed=0, batch_size=BATCH_SIZE.value) as stream:
            streams: dict[str, Iterator[Any]] = {"anchor_jax": _flipped_batches(stream.batches())}
            if pytorch.is_installed():
                from benchmarks.pytorch.loading import CroppedFiles, endless

                streams["pytorch"] = endless(CroppedFiles(files, labels, size, AREA), BATCH_SIZE.value, WORKERS.value)
            speeds = steady_speeds(streams, num // BATCH_SIZE.value)
    results = []
    for implementation, (per_second, per_cpu_second) in speeds.items():
        results.append(Result(case, implementation, "images_per_second", "1/s", per_second))
        results.append(Result(case, implementation, "images_per_core_second", "1/s", per_cpu_second))
    return results


def steady_speeds(streams: dict[str, Iterator[Any]], num_batches: int) -> dict[str, tuple[list[float], list[float]]]:
    """Return images per second and per second of CPU time, after the prefetched batches are used up; interleaved."""
    speeds = {name: ([], []) for name in streams}
    for _ in range(SAMPLES.value):
        for name, stream in streams.items():
            time.sleep(PAUSE)
            for _ in range(PREFETCHED):
                next(stream)
            start, cpu_start = time.perf_counter(), _cpu_seconds()
            for _ in range(num_batches):
                next(stream)
            images = num_batches * BATCH_SIZE.value
            speeds[name][0].append(images / (time.perf_counter() - start))
            speeds[name][1].append(images / (_cpu_seconds() - cpu_start))
    return speeds


def _cpu_seconds() -> float:
    """Return the CPU time of this process and its workers so far (Linux)."""
    ticks = 0
    for worker in multiprocessing.active_children():
        fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # user and system time
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _flipped_batches(batches: Iterator) -> Iterator[jax.Array]:
    for step, (images, _) in enumerate(batches):
        yield jax.block_until_ready(_flip_and_normalize(jax.random.key(step), images))


@jax.jit
def _flip_and_normalize(key, images):
    keys = jax.random.split(key, len(images))
    return normalize(augment(keys, images, FLIP), NORMALIZATION)


def write_photographs(folder: Path, num: int) -> tuple[list[Path], np.ndarray]:
    """Write crops of scikit-learn's photographs with slight noise as JPEG files of 500 x 375 pixels.

    Returns:
      The files and their labels.
    """
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
        noisy = np.asarray(part) + rng.normal(0, 4, (375, 500, 3))
        files.append(folder / "train" / CLASSES[label] / f"{row:06}.jpeg")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(files[-1], quality=90)
    return files, labels


def write_images(folder: Path, kind: str, size: int, num: int) -> list[Path]:
    """Write the same images as files in `folder / "folder"` and as a TFDS dataset in `folder / "tfds"`.

    Returns:
      The files, in the order of the dataset.
    """
    rng = np.random.default_rng(0)
    encoded = [_encode_random_image(rng, kind, size) for _ in range(num)]
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


def _encode_random_image(rng: np.random.Generator, kind: str, size: int) -> bytes:
    """Return smooth noise with slight grain, which compresses about as well as photographs."""
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    grain = rng.normal(0, 4, (size, size, 3))
    file = io.BytesIO()
    Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)).save(file, kind, quality=90)
    return file.getvalue()


if __name__ == "__main__":
    app.run(main)
