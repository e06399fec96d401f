"""Compare corrupted images with those of the published generator, for each corruption and severity.

    python -m benchmarks.fidelity.corruptions --official ../robustness --json corruptions_fidelity.json

Each row has the mean and spread of the change within an image (in levels of 0..255) and its PSNR in dB, averaged over
the images, for both implementations. Deterministic corruptions also have "differing", the fraction of values that
differ, and "furthest", the largest difference in levels. Both sides are rounded to integers.
"""

import json
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from absl import flags

from anchor_jax.cli import app
from anchor_jax.data import photographs
from anchor_jax.data.corruptions import CORRUPTIONS_19, corrupt
from benchmarks.environment import environment
from benchmarks.fidelity import published_corruptions as published
from benchmarks.report import write_rows

DETERMINISTIC = (
    *("defocus_blur", "zoom_blur", "gaussian_blur", "brightness", "contrast"),
    *("saturate", "pixelate", "jpeg_compression"),
)
SEVERITIES = (1, 2, 3, 4, 5)

JSON = app.define_path("json", None, "Result file.", what="a new file")
OFFICIAL = app.define_path("official", None, "A clone of hendrycks/robustness; tensorflow-datasets by default.")
NAMES = flags.DEFINE_list("corruptions", list(CORRUPTIONS_19), "Comma-separated names.")
SMALL_IMAGES = flags.DEFINE_integer("small_images", 200, "Images of 32 x 32; needs --official.", lower_bound=0)
LARGE_IMAGES = flags.DEFINE_integer("large_images", 20, "Photographs of 224 x 224.", lower_bound=0)


def main() -> None:
    """Compare every corruption."""
    rows = []
    for row in compare():
        print(json.dumps(row), flush=True)
        rows.append(row)
    if JSON.value:
        write_rows(JSON.value, environment() | published.versions(), rows)


def compare() -> Iterator[dict[str, Any]]:
    """Yield a row for each size, corruption and severity."""
    for size, num in ((32, SMALL_IMAGES.value if OFFICIAL.value else 0), (224, LARGE_IMAGES.value)):
        images = published.small_images(num) if size == 32 else photographs((size, size, 3), max(num, 2)).images
        functions, _ = published.published_functions(OFFICIAL.value, size)
        for name in NAMES.value if num else ():
            for severity in SEVERITIES if name in functions else ():
                np.random.seed(severity)  # noqa: NPY002  the published generator uses the global generator
                theirs = np.stack(published.apply(functions[name], images, severity))
                ours = np.asarray(corrupt(jax.random.key(severity), images, name, severity))
                row = {"size": size, "corruption": name, "severity": severity, "images": len(images)}
                row |= {"ours": change(images, ours), "theirs": change(images, theirs)}
                if name in DETERMINISTIC:
                    difference = np.abs(ours.astype(int) - theirs)
                    row |= {"differing": float((difference > 0).mean()), "furthest": int(difference.max())}
                yield row


def change(images: np.ndarray, corrupted: np.ndarray) -> dict[str, float]:
    """Return the mean and spread (levels) and PSNR (dB) of the change, averaged; an unchanged image has 68 dB."""
    difference = corrupted.astype(float) - images
    psnr = 10 * np.log10(255**2 / np.maximum((difference**2).mean((1, 2, 3)), 0.01))
    numbers = {"mean": difference.mean(), "spread": difference.std((1, 2, 3)).mean(), "psnr": psnr.mean()}
    return {key: round(float(value), 3) for key, value in numbers.items()}


if __name__ == "__main__":
    app.run(main)
