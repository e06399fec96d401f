"""Weather: snow, frost, fog, brightness and spatter."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.data.corruptions.blur import motion_kernel, move
from anchor_jax.data.corruptions.common import Array, Corruption, filter_axes, gaussian_axes, luma, zoom_filter


def brighter_levels(added: float, shape: tuple[int, int]) -> tuple[float, np.ndarray]:
    """What is added to V, and whither each of the 256 levels of V goes: those half way as float64 rounds them."""
    del shape
    return added, np.around(255 * np.minimum(np.arange(256) / 255 + added, 1)).astype(np.float32)


def brightness(key: jax.Array, image: jax.Array, constants: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Adds to the value V of HSV, up to 1; with H and S as they are, each channel grows as V does."""
    del key
    added, levels = constants
    value = image.max(-1, keepdims=True)
    brightest = levels[jnp.round(255 * value).astype(jnp.int32)] / 255
    others = image * jnp.minimum(value + added, 1) / jnp.where(value > 0, value, 1)
    return jnp.where(image == value, brightest, others)


# snow


class Snow(NamedTuple):
    """Constants of `snow` for one image size."""

    mean: float  # of the flakes, normally distributed
    spread: float
    rows: Array  # [H, H] zooms
    columns: Array  # [W, W]
    least: float  # flakes below are left out
    kernel: Array  # of their motion
    kept: float  # part of the image that is not whitened


def snow_constants(constants: tuple[float, ...], shape: tuple[int, int]) -> Snow:
    """Of the published mean, spread, zoom, threshold, radius and sigma of the motion, and part kept."""
    mean, spread, zoom, least, radius, sigma, kept = constants
    rows, columns = (zoom_filter(size, zoom) for size in shape)
    return Snow(mean, spread, rows, columns, least, motion_kernel((int(radius), sigma), shape), kept)


def snow(key: jax.Array, image: jax.Array, constants: Snow) -> jax.Array:
    """Whitens, and adds flakes that fall within 45 degrees of straight down, together with themselves turned around."""
    flakes_key, angle_key = jax.random.split(key)
    drawn = constants.mean + constants.spread * jax.random.normal(flakes_key, image.shape[:2])
    angle = jax.random.uniform(angle_key, minval=-3 / 4 * jnp.pi, maxval=-1 / 4 * jnp.pi)
    return let_snow(image, drawn, angle, constants)


def let_snow(image: jax.Array, drawn: jax.Array, angle: jax.Array, constants: Snow) -> jax.Array:
    """With flakes from normally distributed numbers `[H, W]` that move at an angle (see `move`)."""
    flakes = filter_axes(drawn, constants.rows, constants.columns)[..., None]
    flakes = jnp.floor(255 * jnp.clip(jnp.where(flakes < constants.least, 0, flakes), 0, 1)) / 255
    flakes = move(flakes, constants.kernel, angle)
    white = jnp.maximum(image, 1.5 * luma(image) + 0.5)
    return constants.kept * image + (1 - constants.kept) * white + flakes + flakes[::-1, ::-1]


# frost


class Ice(NamedTuple):
    """Constants of `frost` for one image size."""

    kept: float  # part of the image
    added: float  # part of the frost
    amplitudes: Array  # [pictures, H, W // 2 + 1] of the frequencies, in levels
    needles: Array  # [directions, H, W // 2 + 1] of frequencies across needles of each direction


# What the pictures of the published generator measure, of which the second counts for two that are nearly the same:
# mean of the channels and their spread, in levels, and power of their mean at frequencies, in cycles a pixel
PICTURES = np.array([0, 1, 1, 2, 3])
MEANS = np.array([[77, 148, 164], [199, 203, 212], [144, 159, 171], [102, 113, 125]], np.float32)
SPREADS = np.array([[26.9, 16.5, 15.3], [21.4, 22.1, 22.6], [28.5, 28.5, 29.9], [44.4, 43.3, 41.7]], np.float32)
FREQUENCIES = np.array([0.002, 0.006, 0.011, 0.02, 0.035, 0.063, 0.114, 0.206, 0.372, 0.6])
POWERS = np.array(
    [
        [6.0e6, 4.0e5, 3.8e4, 7.0e3, 1.7e3, 530, 310, 210, 64, 25],
        [1.9e6, 4.0e5, 2.2e4, 1.5e4, 7.3e3, 3900, 1000, 395, 90, 20],
        [1.9e6, 4.2e5, 1.9e4, 1.7e4, 1.1e4, 5300, 2600, 1150, 300, 80],
        [5.0e6, 4.8e5, 1.4e5, 8.3e4, 3.1e4, 9700, 3300, 1060, 350, 150],
    ]
)
DIRECTIONS = 8


def ice(constants: tuple[float, float, int], shape: tuple[int, int]) -> Ice:
    """Of the published parts of image and frost, and of how many pixels of a picture one is taken."""
    kept, added, spacing = constants
    height, width = shape
    y, x = (np.fft.fftfreq(size * spacing) for size in shape)
    frequency = np.log(np.maximum(np.hypot(y[:, None], x), FREQUENCIES[0]))
    power = np.stack([np.exp(np.interp(frequency, np.log(FREQUENCIES), np.log(row))) for row in POWERS])
    power = power.reshape(-1, spacing, height, spacing, width).mean((1, 3))  # what lies beyond is seen below
    amplitudes = np.sqrt(power)[..., : width // 2 + 1].astype(np.float32)
    angle = np.arctan2(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    needles = np.cos(angle - np.pi / DIRECTIONS * np.arange(DIRECTIONS)[:, None, None]) ** 20
    return Ice(kept, added, amplitudes, (needles / np.linalg.norm(needles, axis=0)).astype(np.float32))


def frost(key: jax.Array, image: jax.Array, constants: Ice) -> jax.Array:
    """Adds frost that resembles one of the published pictures, of which none is needed: its colour and its spectrum."""
    picture_key, crystals_key = jax.random.split(key)
    picture = jnp.asarray(PICTURES)[jax.random.randint(picture_key, (), 0, len(PICTURES))]
    relief = crystals(crystals_key, image.shape[:2], constants.amplitudes[picture], constants.needles)
    spread = jnp.asarray(SPREADS)[picture]
    ice = jnp.asarray(MEANS)[picture] + spread / spread.mean() * relief[..., None]
    return constants.kept * image + constants.added * jnp.clip(ice, 0, 255) / 255


def crystals(key: jax.Array, shape: tuple[int, ...], amplitudes: Array, needles: Array) -> jax.Array:
    """Many needles `[H, W]`, few of them strong: sparse noise, convolved with a needle of each direction."""
    direction_key, normal_key = jax.random.split(key)
    direction = jax.random.bits(direction_key, shape, "uint8") % len(needles)
    strength = jax.random.normal(normal_key, shape) ** 3 * jnp.sqrt(len(needles) / 15)  # each direction's variance is 1
    sparse = jnp.where(direction == jnp.arange(len(needles))[:, None, None], strength, 0)
    spectrum = (jnp.fft.rfft2(sparse) * needles).sum(0) * amplitudes
    return jnp.fft.irfft2(spectrum, shape)


# fog


def fog(key: jax.Array, image: jax.Array, constants: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Adds a plasma fractal, and darkens the sum so that white stays white."""
    amount, decay = constants
    height, width, _ = image.shape
    plasma = plasma_fractal(key, 1 << (max(height, width) - 1).bit_length(), decay)[:height, :width, None]
    brightest = image.max()
    return (image + amount * plasma) * brightest / (brightest + amount)


def plasma_fractal(key: jax.Array, size: int, decay: jax.Array) -> jax.Array:
    """Diamond-square heights `[size, size]`, in [0, 1] from the least to the greatest; periodic.

    Args:
      key: of the random numbers.
      size: a power of two.
      decay: by which what is added at random becomes less from a scale to the next, half as large.
    """
    noise = jax.random.uniform(key, (size * size,), minval=-1, maxval=1)
    heights, amplitude = jnp.zeros((1, 1)), 100.0
    while (n := len(heights)) < size:
        for_middle, for_top, for_left = amplitude**2 * noise[n**2 - 1 : 4 * n**2 - 1].reshape(3, n, n)
        below, right = jnp.roll(heights, -1, 0), jnp.roll(heights, -1, 1)
        middle = (heights + below + right + jnp.roll(below, -1, 1)) / 4 + for_middle
        top = (heights + right + middle + jnp.roll(middle, 1, 0)) / 4 + for_top
        left = (heights + below + middle + jnp.roll(middle, 1, 1)) / 4 + for_left
        quarters = jnp.stack([jnp.stack([heights, top], -1), jnp.stack([left, middle], -1)], axis=1)
        heights, amplitude = quarters.reshape(2 * n, 2 * n), amplitude / decay
    heights -= heights.min()
    return heights / heights.max()


# spatter


class Drops(NamedTuple):
    """What falls on the image in `spatter`, normally distributed, smoothed, and left out below a threshold."""

    mean: float
    spread: float
    rows: Array  # [H, H] a Gaussian blur
    columns: Array  # [W, W]
    least: float


class Water(NamedTuple):
    """Drops of water."""

    drops: Drops
    amount: float


class Mud(NamedTuple):
    """Drops of mud."""

    drops: Drops
    rows: Array  # [H, H] a Gaussian blur of what they cover
    columns: Array  # [W, W]


WATER = np.array([175, 238, 238], np.float32) / 255
MUD = np.array([63, 42, 20], np.float32) / 255
SQUARE = np.ones((3, 3))
SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])  # along x
LIGHT = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
# of OpenCV's distance: (dy, dx, length) of every step to a side, to a corner, and of a knight
STEPS = [
    (dy, dx, {1: 1.0, 2: 1.4, 5: 2.1969}[dy**2 + dx**2])
    for dy in range(-2, 3)
    for dx in range(-2, 3)
    if dy**2 + dx**2 in (1, 2, 5)
]


def spatter_constants(constants: tuple[float, ...], shape: tuple[int, int]) -> Water | Mud:
    """Of the published mean, spread, sigma, threshold, amount of water or sigma of mud, and whether it is mud."""
    mean, spread, sigma, least, last, is_mud = constants
    drops = Drops(mean, spread, *gaussian_axes(sigma, shape), least)
    return Mud(drops, *gaussian_axes(last, shape)) if is_mud else Water(drops, last)


def spatter(key: jax.Array, image: jax.Array, constants: Water | Mud) -> jax.Array:
    """Drops of water, lit from one side, or of mud."""
    mean, spread, rows, columns, least = constants.drops
    liquid = filter_axes(mean + spread * jax.random.normal(key, image.shape[:2]), rows, columns)
    if isinstance(constants, Water):
        return wet(image, jnp.where(liquid < least, 0, liquid), constants.amount)
    covered = filter_axes(jnp.where(liquid > least, 1.0, 0.0), constants.rows, constants.columns)[..., None]
    covered = jnp.where(covered < 0.8, 0, covered)
    return (1 - covered) * image + covered * MUD


def wet(image: jax.Array, liquid: jax.Array, amount: float) -> jax.Array:
    """Adds the colour of water where a layer of liquid `[H, W]` is; how much, its relief tells.

    In between are whole levels, as OpenCV's functions have them that the published generator calls.
    """
    liquid = jnp.floor(255 * liquid).astype(jnp.int32) % 256  # what is above 1 wraps around there
    distance = distance_to(canny(liquid, 50, 150), 20)
    height = equalized(jnp.floor(correlated(distance, SQUARE) / 9 + 1e-4).astype(jnp.int32))
    slope = jnp.clip(correlated(height, LIGHT), 0, 255)
    depth = liquid * jnp.round(correlated(slope, SQUARE) / 9)
    return image + amount * (depth / jnp.maximum(depth.max(), 1))[..., None] * WATER


def canny(picture: jax.Array, low: int, high: int) -> jax.Array:
    """Edges, bool `[H, W]`, of a picture int32 `[H, W]`, as `cv2.Canny` finds them.

    The steepness is |dx| + |dy| of Sobel's gradient. An edge is steeper than `low`, and than its neighbours across; and
    it is connected with one that is steeper than `high`.
    """
    dx, dy = correlated(picture, SOBEL, "edge"), correlated(picture, SOBEL.T, "edge")
    steepness = jnp.abs(dx) + jnp.abs(dy)
    near = neighbours(steepness, "constant")
    rise, run = jnp.abs(dy) << 15, 13573 * jnp.abs(dx)  # 13573 / 2^15 is tan(22.5 degrees)
    falling = (dx < 0) == (dy < 0)
    highest = jnp.select(
        [rise < run, rise > run + (jnp.abs(dx) << 16), falling],
        [
            (steepness > near(0, -1)) & (steepness >= near(0, 1)),
            (steepness > near(-1, 0)) & (steepness >= near(1, 0)),
            (steepness > near(-1, -1)) & (steepness > near(1, 1)),
        ],
        (steepness > near(-1, 1)) & (steepness > near(1, -1)),
    )
    edges = highest & (steepness > low)

    def grow(connected):
        return edges & (correlated(connected.astype(jnp.int32), SQUARE, "constant") > 0)

    return settled(grow, edges & (steepness > high))


def distance_to(marked: jax.Array, most: float) -> jax.Array:
    """Distance float32 `[H, W]` to the nearest marked pixel, bool `[H, W]`, as `cv2.distanceTransform`; at most `most`.

    It is that of the shortest way of steps to neighbours in squares of 5 x 5, whose lengths OpenCV has chosen.
    """

    def walk(distance):
        near = neighbours(distance, "edge", reach=2)
        return jnp.stack([distance, *(near(dy, dx) + length for dy, dx, length in STEPS)]).min(0)

    return settled(walk, jnp.where(marked, 0.0, most))


def equalized(levels: jax.Array) -> jax.Array:
    """Levels int32 `[H, W]` in 0..255 by their rank, as `cv2.equalizeHist`."""
    counts = jnp.bincount(levels.ravel(), length=256)
    least = counts[levels.min()]
    above = levels.size - least
    ranks = jnp.round((jnp.cumsum(counts) - least) * (255 / jnp.maximum(above, 1))).astype(jnp.int32)
    return jnp.where(above > 0, ranks[levels], levels)


def settled(step: Callable[[jax.Array], jax.Array], start: jax.Array) -> jax.Array:
    """What repeated steps come to when nothing changes any more."""

    def changes(pair):
        return (pair[0] != pair[1]).any()

    return jax.lax.while_loop(changes, lambda pair: (pair[1], step(pair[1])), (start, step(start)))[1]


def correlated(picture: jax.Array, kernel: np.ndarray, mode: str = "reflect") -> jax.Array:
    """Sums of the 3 x 3 neighbours of each pixel of `[H, W]` with whole weights; modes as `jnp.pad` names them."""
    near = neighbours(picture, mode)
    return sum(
        (int(kernel[i, j]) * near(i - 1, j - 1) for i, j in np.argwhere(kernel)), start=jnp.zeros((), picture.dtype)
    )


def neighbours(picture: jax.Array, mode: str, reach: int = 1) -> Callable[[int, int], jax.Array]:
    """A function (dy, dx) -> the pixels `[H, W]` so far from each pixel; modes as `jnp.pad` names them."""
    height, width = picture.shape
    padded = jnp.pad(picture, reach, mode=mode)
    return lambda dy, dx: padded[reach + dy : reach + dy + height, reach + dx : reach + dx + width]


CORRUPTIONS = {
    "snow": Corruption(
        snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        snow_constants,
    ),
    "frost": Corruption(
        frost,
        ((1.0, 0.2, 5), (1.0, 0.3, 5), (0.9, 0.4, 5), (0.85, 0.4, 5), (0.75, 0.45, 5)),
        ((1.0, 0.4, 1), (0.8, 0.6, 1), (0.7, 0.7, 1), (0.65, 0.7, 1), (0.6, 0.75, 1)),
        ice,
    ),
    "fog": Corruption(
        fog,
        ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)),
        ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)),
    ),
    "brightness": Corruption(brightness, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5), brighter_levels),
    "spatter": Corruption(
        spatter,
        (
            (0.62, 0.1, 0.7, 0.7, 0.5, False),
            (0.65, 0.1, 0.8, 0.7, 0.5, False),
            (0.65, 0.3, 1, 0.69, 0.5, False),
            (0.65, 0.1, 0.7, 0.69, 0.6, True),
            (0.65, 0.1, 0.5, 0.68, 0.6, True),
        ),
        (
            (0.65, 0.3, 4, 0.69, 0.6, False),
            (0.65, 0.3, 3, 0.68, 0.6, False),
            (0.65, 0.3, 2, 0.68, 0.5, False),
            (0.65, 0.3, 1, 0.65, 1.5, True),
            (0.67, 0.4, 1, 0.65, 1.5, True),
        ),
        spatter_constants,
    ),
}
