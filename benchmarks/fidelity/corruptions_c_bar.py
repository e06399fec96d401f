"""Compare CIFAR-10-C-bar and ImageNet-C-bar corruptions with the published generator, given the same random draws.

    python -m benchmarks.fidelity.corruptions_c_bar --official ../augmentation-corruption --json c_bar_published.json

Each row has the change made by the published generator in levels of 0..255, averaged over the images: "mean", "spread"
(standard deviation over the pixels) and "psnr" (dB). "difference" is the mean absolute difference between the two
implementations, "largest" the largest one, and "differing" the fraction of values that differ.
"""

import hashlib
import importlib
import importlib.metadata
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from sklearn.datasets import load_sample_images

from anchor_jax.cli import app
from anchor_jax.core.errors import UserError
from anchor_jax.data.corruptions import c_bar
from anchor_jax.data.corruptions.c_bar import noise, occlusion, warp
from benchmarks.environment import environment
from benchmarks.report import write_rows

PACKAGES = ("scipy", "scikit-image", "scikit-learn")

JSON = app.define_path("json", None, "Result file.", what="a new file")
OFFICIAL = app.define_path("official", None, "A clone of facebookresearch/augmentation-corruption.", required=True)
SMALL_IMAGES = flags.DEFINE_integer("small_images", 154, "Photographs of 32 x 32, at most 154.", lower_bound=0)
LARGE_IMAGES = flags.DEFINE_integer("large_images", 12, "Photographs of 224 x 224, at most 12.", lower_bound=0)
CORRUPTIONS = flags.DEFINE_list("corruptions", list(c_bar.CORRUPTIONS), "Comma-separated names.")


def main() -> None:
    """Compare every corruption and severity."""
    generator = load_generator(OFFICIAL.value)
    rows = []
    for size, num in ((32, SMALL_IMAGES.value), (224, LARGE_IMAGES.value)):
        images = photographs(size)[:num]
        for name in CORRUPTIONS.value if num else ():
            for severity, level in enumerate(levels(name, size), start=1):
                rows.append({"size": size, "corruption": name, "severity": severity, "level": level})
                rows[-1] |= compare(generator[name], name, level, images)
                print(json.dumps(rows[-1]), flush=True)
    if JSON.value:
        write_rows(JSON.value, facts(), rows)


def facts() -> dict[str, Any]:
    """Return the environment, package versions and the hash of the generator's source."""
    source = OFFICIAL.value / "imagenet_c_bar/corrupt.py"
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return environment() | versions | {"sha256 of corrupt.py": hashlib.sha256(source.read_bytes()).hexdigest()}


def load_generator(clone: Path) -> Mapping[str, Any]:
    """Import the published corruptions; return them by name.

    The generator was written for packages of 2020. It runs on current ones if NumPy has `numpy.int`.
    """
    folder = clone / "imagenet_c_bar"
    if not (folder / "corrupt.py").exists():
        raise UserError(f"--official must be a clone of facebookresearch/augmentation-corruption; got '{clone}'")
    sys.path.insert(0, str(folder))
    setattr(np, "int", int)  # noqa: B010  removed from NumPy
    module: ModuleType = importlib.import_module("corrupt")
    return {c.name: c for c in vars(module).values() if getattr(c, "name", None) in c_bar.CORRUPTIONS}


def photographs(size: int) -> np.ndarray:
    """Return patches of scikit-learn's two photographs, alternating, uint8 `[N, size, size, 3]`.

    For 32 x 32 these are squares of 128 pixels, 48 apart, averaged over 4 x 4 pixels; for 224 x 224 squares of that
    size, 203 apart vertically and 208 horizontally.
    """
    side, down, across = (128, 48, 48) if size == 32 else (224, 203, 208)
    patches = []
    for photograph in load_sample_images().images:
        height, width, _ = photograph.shape
        corners = [(y, x) for y in range(0, height - side + 1, down) for x in range(0, width - side + 1, across)]
        patches.append([photograph[y : y + side, x : x + side] for y, x in corners])
    squares = np.stack(patches, axis=1).reshape(-1, size, side // size, size, side // size, 3)
    return squares.mean((2, 4)).astype(np.uint8)


def levels(name: str, size: int) -> list[float]:
    """Return the levels of severity 1..5 in the scale of the published generator."""
    corruption = c_bar.CORRUPTIONS[name]
    constants = corruption.small if size == 32 else corruption.large
    return [float(np.ravel(constant)[0]) for constant in constants]


def change(images: np.ndarray, corrupted: np.ndarray) -> dict[str, np.ndarray]:
    """Return the change of each image, uint8 `[N, H, W, 3]`: mean, spread (standard deviation) and PSNR, each `[N]`.

    Mean and spread are in levels of 0..255, PSNR in dB. The mean square is at least 0.01, so an unchanged image has
    68 dB.
    """
    difference = corrupted.astype(float) - images
    squares = np.maximum((difference**2).mean((1, 2, 3)), 0.01)
    return {
        "mean": difference.mean((1, 2, 3)),
        "spread": difference.std((1, 2, 3)),
        "psnr": 10 * np.log10(255**2 / squares),
    }


def quantize(name: str, corrupted: jax.Array) -> np.ndarray:
    """Return pixels in [0, 1] as uint8, truncated or, for one corruption, rounded as by the published generator."""
    scaled = np.clip(corrupted, 0, 1) * 255
    # the small offset keeps unchanged pixels unchanged despite rounding errors
    return (np.rint(scaled) if name == "transverse_chromatic_abberation" else np.floor(scaled + 1e-3)).astype(np.uint8)


def compare(published: Any, name: str, level: float, images: np.ndarray) -> dict[str, Any]:
    """Return the numbers of one corruption at one level.

    The largest differences are single pixels at a discontinuity of a formula (between two rings, or where a water
    surface becomes level), where float32 and float64 fall on different sides.
    """
    transform = published(severity=level, im_size=images.shape[1])
    function = jax.jit(FUNCTIONS[name])
    theirs, ours = [], []
    np.random.seed(0)  # noqa: NPY002  the published generator uses the global generator
    for image in images:
        drawn = transform.sample_parameters()
        theirs.append(transform.transform(image, **drawn))
        corrupted = function(jnp.array(image, jnp.float32) / 255, *ARGUMENTS[name](drawn, images.shape[1]))
        ours.append(quantize(name, corrupted))
    numbers = {key: values.mean() for key, values in change(images, np.stack(theirs)).items()}
    difference = np.abs(np.stack(theirs).astype(float) - np.stack(ours))
    numbers |= {"difference": difference.mean(), "largest": difference.max(), "differing": (difference > 0).mean()}
    return {"images": len(images), **{key: float(f"{value:.5g}") for key, value in numbers.items()}}


# --- the draws of the published generator, as arguments of the functions in c_bar ---


def _phases(random: np.random.RandomState, size: int) -> np.ndarray:
    half = random.uniform(low=0, high=2 * np.pi, size=(size, size // 2))
    return np.concatenate([half, half[::-1, ::-1]], axis=1)


def _brownish(drawn: Mapping[str, Any], size: int) -> tuple:
    random = np.random.RandomState(drawn["seed"])
    return np.stack([_phases(random, size) for _ in range(3)]), drawn["intensity"] / 255


def _sample(drawn: Mapping[str, Any], size: int) -> tuple:
    return _phases(np.random.RandomState(drawn["seed"]), size), drawn["threshold"]


def _stars(drawn: Mapping[str, Any], size: int) -> tuple:
    random = np.random.RandomState(drawn["seed"])
    lengths = np.zeros((5, occlusion.MAX_RAYS))
    for row, rays, radius in zip(lengths, drawn["nrays"], drawn["radii"], strict=True):
        row[:rays] = np.maximum(1, radius * (1 + 0.25 * random.randn(rays)))
    return drawn["centers"], lengths, drawn["nrays"]


def _star(drawn: Mapping[str, Any], size: int) -> tuple:
    random = np.random.RandomState(drawn["seed"])
    lengths = np.zeros(occlusion.MAX_RAYS)
    lengths[: drawn["rays"]] = drawn["radius"] * (1 + 0.25 * random.randn(drawn["rays"]))
    return drawn["center"], lengths, drawn["rays"], (100 - drawn["amount"]) / 50


def _perlin(drawn: Mapping[str, Any], size: int) -> tuple:
    generator = importlib.import_module("utils.perlin_noise").PerlinNoiseGenerator
    tables = generator(np.random.RandomState(drawn["seed"]))
    return tables.p[: noise.PERLIN_TABLE], tables.g[: noise.PERLIN_TABLE], drawn["alpha"]


def _squares(drawn: Mapping[str, Any], size: int) -> tuple:
    side = drawn["scales"][0]
    num = int(4 * size // side)
    grid = np.random.RandomState(drawn["seed"]).uniform(size=(num, num)) < drawn["fraction"]
    reach = int(np.ceil(np.hypot(size, size)))
    index = np.arange(-reach, reach)
    index = np.where(index < 0, index + 1, index) % num  # int() truncates towards 0, and negative indices wrap around
    return drawn["angle"], side, grid[np.ix_(index, index)]


def _lines(drawn: Mapping[str, Any], size: int) -> tuple:
    random = np.random.RandomState(drawn["seed"])
    ends = []
    for _ in range(int(drawn["density"] * size)):
        center = size * np.array([random.uniform(), random.uniform()])
        along = drawn["angle"] + 2 * np.pi * drawn["angle_variation"] * (random.uniform() - 0.5)
        half = size * np.array([np.cos(along), np.sin(along)])
        ends.append(np.trunc([center - half, center + half]))
    return np.array(ends), len(ends)


FUNCTIONS: Mapping[str, Callable[..., jax.Array]] = {
    "blue_noise_sample": noise.keep_above,
    "brownish_noise": noise.add_brownish,
    "caustic_refraction": lambda image, time, size, *rest: warp.refract(image, warp.caustics(image, time, size), *rest),
    "checkerboard_cutout": occlusion.cut_out_squares,
    "circular_motion_blur": warp.rotation_blur,
    "cocentric_sine_waves": noise.add_rings,
    "inverse_sparkles": occlusion.show_in_star,
    "lines": occlusion.draw_lines,
    "perlin_noise": noise.blend_turbulence,
    "pinch_and_twirl": warp.twirl,
    "plasma_noise": noise.blend_plasma,
    "ripple": warp.wave_warp,
    "single_frequency_greyscale": noise.add_wave,
    "sparkles": occlusion.add_stars,
    "transverse_chromatic_abberation": warp.magnify,
}

ARGUMENTS: Mapping[str, Callable[[Mapping[str, Any], int], tuple]] = {
    "blue_noise_sample": _sample,
    "brownish_noise": _brownish,
    "caustic_refraction": lambda d, _: (d["time"], d["size"], d["lens_scale"], d["lighting_amount"]),
    "checkerboard_cutout": _squares,
    "circular_motion_blur": lambda d, _: (np.deg2rad(d["amount"]),),
    "cocentric_sine_waves": lambda d, _: (
        d["offset"][::-1],
        d["freq"],
        d["amplitude"],
        d["ring_width"],
        d["intensity"][0] / 255,
    ),
    "inverse_sparkles": _star,
    "lines": _lines,
    "perlin_noise": _perlin,
    "pinch_and_twirl": lambda d, _: (d["angles"], d["amount"], d["num_per_axis"]),
    "plasma_noise": lambda d, _: (d["time"], d["iterations"], d["sharpness"], d["scale"], d["intensity"] / 255),
    "ripple": lambda d, _: (d["amplitudes"][0], d["wavelengths"], d["phases"]),
    "single_frequency_greyscale": lambda d, _: (d["freq"][::-1], d["phase"], d["intensity"] / 255),
    "sparkles": _stars,
    "transverse_chromatic_abberation": lambda d, _: (d["scales"],),
}


if __name__ == "__main__":
    app.run(main)
