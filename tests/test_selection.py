"""Selection by index: arithmetic on TPUs, with the bits of a gather, and without its loops over a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_same_bits

from anchor_jax import config as configuration
from anchor_jax.data import augment, random_erasing
from anchor_jax.data.augmentation import operations, policies
from anchor_jax.runtime import backends, selection

RNG = np.random.default_rng(0)
AUGMENTATIONS = (
    {"crop_padding": 4, "flip": True},
    {"crop_padding": 1},
    {"resized_crop": (0.1, 1.0)},
    {"policy": "trivial_augment"},
    {"policy": "rand_augment", "magnitude": 30},
    {"policy": "pixmix"},
)


@pytest.fixture
def as_on_tpu(monkeypatch):
    """Make programs that are traced from now on take the branches of TPUs."""

    def take_branch(*args, default, tpu=None, **_):
        return (tpu or default)(*args)

    monkeypatch.setattr(jax.lax, "platform_dependent", take_branch)


def augmented(keys, images, mixing_images, **options):
    config = configuration.base().augmentation
    config.update(options)
    if not options:
        return random_erasing(keys, images.astype(jnp.float32), 0.5)
    return augment(keys, images, config, mixing_images)


def example(shape, num=64):
    images, mixing_images = (RNG.integers(0, 256, (n, *shape), np.uint8) for n in (num, 3))
    return jax.random.split(jax.random.key(0), num), images, np.pad(mixing_images, ((0, 0), (0, 2), (0, 3), (0, 0)))


@pytest.mark.parametrize("shape", [(6, 9, 3), (8, 8, 1)])
@pytest.mark.parametrize("options", [*AUGMENTATIONS, {}], ids=str)
def test_augmentation_is_the_same_bits_on_tpu(options, shape, request):
    given = example(shape)
    elsewhere = jax.jit(lambda *given: augmented(*given, **options))(*given)
    request.getfixturevalue("as_on_tpu")
    assert_same_bits(jax.jit(lambda *given: augmented(*given, **options))(*given), elsewhere)


@pytest.mark.parametrize("shape", [(32, 32, 3), (9, 14, 1)])
def test_warp_of_tpu_equals_a_gather_for_every_operation(shape, as_on_tpu):
    image = RNG.integers(1, 256, shape, np.uint8)
    for space in (policies.wide_space(), policies.rand_space(shape)):
        matrices = policies._operation_table(space, shape[:2]).matrix.reshape(-1, 6)
        on_tpu = np.asarray(jax.jit(jax.vmap(operations.warp, (None, 0)))(image, matrices))
        a, b, c, d, e, f = matrices.T[..., None, None]
        y, x = np.mgrid[: shape[0], : shape[1]]
        column, row = (a * x + b * y + c) >> 16, (d * x + e * y + f) >> 16
        is_inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
        expected = image[row.clip(0, shape[0] - 1), column.clip(0, shape[1] - 1)] * is_inside[..., None]
        assert_same_bits(on_tpu, expected.astype(np.uint8))


@pytest.mark.parametrize("blocks", [1, 7])
def test_pixels_at_of_tpu_is_black_outside(blocks, as_on_tpu, monkeypatch):
    image = RNG.integers(1, 256, (5, 4, 3), np.uint8)
    row, column = RNG.integers(-2, 7, (2, 7, 6), np.int32)
    monkeypatch.setattr(selection, "_BLOCK", 7 * 6 * 4 * 3 // blocks)
    padded = np.pad(image, ((2, 2), (2, 3), (0, 0)))
    assert_same_bits(jax.jit(selection.pixels_at)(image, row, column), padded[row + 2, column + 2])


@pytest.mark.parametrize("options", [*AUGMENTATIONS, {}], ids=str)
def test_augmentation_has_no_gather_on_tpu(options):
    given = example((8, 8, 3), num=8)
    traced = jax.jit(lambda *given: augmented(*given, **options)).trace(*given)
    has_gather = {name: "stablehlo.gather" in _lowered(traced, name) for name in ("tpu", "cpu", "cuda")}
    assert has_gather["cpu"] == has_gather["cuda"]
    num_gathers = _lowered(traced, "tpu").count('"stablehlo.gather"')
    assert num_gathers == (options.get("policy") == "pixmix")  # complete mixing images


def _lowered(traced, platform):
    return traced.lower(lowering_platforms=(platform,)).as_text()


def test_histogram_of_tpu_counts_every_level(as_on_tpu):
    values = RNG.integers(0, 256, 5_000, np.uint8)
    assert_same_bits(jax.jit(backends.histogram)(values), np.bincount(values, minlength=256).astype(np.int32))
