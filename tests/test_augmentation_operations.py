"""Operations and policies next to torchvision's, which calls Pillow; crops next to its `RandomResizedCrop`."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from anchor_jax.data.augmentation import operations, policies
from anchor_jax.data.augmentation.boxes import NUM_UNIFORM, Box, random_box
from anchor_jax.data.augmentation.crops import resize, resized_crop
from anchor_jax.data.augmentation.operations import apply
from anchor_jax.data.augmentation.policies import NAMES, NUM_MAGNITUDES, magnitudes, rand_space, wide_space
from anchor_jax.runtime.backends import histogram

torch = pytest.importorskip("torch")
functional = pytest.importorskip("torchvision.transforms.functional")
autoaugment = pytest.importorskip("torchvision.transforms.autoaugment")
transforms = pytest.importorskip("torchvision.transforms")

NEAREST, BILINEAR = functional.InterpolationMode.NEAREST, functional.InterpolationMode.BILINEAR


def random_image(shape, seed=0):
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8)).resize(shape[1::-1], Image.Resampling.BICUBIC)
    grain = rng.normal(20, 9, (*shape[:2], 3))
    return (0.7 * np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)[..., : shape[2]]


def pillow(image):
    return Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])


def torchvision_operation(image, name, magnitude):
    return np.asarray(autoaugment._apply_op(pillow(image), name, magnitude, NEAREST, None)).reshape(image.shape)


@cache
def apply_every_operation(policy, shape):
    """Return the results of our operations, uint8 `[14, 31, 2, H, W, C]`."""
    space = wide_space() if policy == "wide" else rand_space(shape)
    table = policies._operation_table(space, shape[:2])
    rows = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[3:]), table)
    results = jax.jit(jax.vmap(apply, (None, 0)))(random_image(shape), rows)
    return np.asarray(results).reshape(len(NAMES), NUM_MAGNITUDES, 2, *shape)


def torchvision_space(policy, shape):
    if policy == "wide":
        return autoaugment.TrivialAugmentWide()._augmentation_space(NUM_MAGNITUDES)
    return autoaugment.RandAugment()._augmentation_space(NUM_MAGNITUDES, shape[:2])


@pytest.mark.parametrize("shape", [(32, 32, 3), (23, 37, 1)])
@pytest.mark.parametrize("policy", ["wide", "rand"])
def test_operations_equal_torchvision_at_every_magnitude(policy, shape):
    image, results, space = random_image(shape), apply_every_operation(policy, shape), torchvision_space(policy, shape)
    assert tuple(space) == NAMES
    for results_of_name, (name, (of_name, signed)) in zip(results, space.items(), strict=True):
        numbers = of_name.tolist() if of_name.ndim else [0.0] * NUM_MAGNITUDES
        for results_of_number, number in zip(results_of_name, numbers, strict=True):
            for result, sign in zip(results_of_number, (1, -1 if signed else 1), strict=True):
                expected = torchvision_operation(image, name, sign * number)
                if name == "AutoContrast":  # see the docstring of operations.py
                    np.testing.assert_allclose(result.astype(int), expected, atol=1)
                else:
                    np.testing.assert_array_equal(result, expected, err_msg=f"{name} {sign * number}")


@pytest.mark.parametrize("policy", ["wide", "rand"])
@pytest.mark.parametrize("shape", [(32, 32), (224, 224), (23, 37)])
def test_magnitudes_equal_torchvision(policy, shape):
    ours = magnitudes(wide_space() if policy == "wide" else rand_space(shape))
    for name, (expected, _) in torchvision_space(policy, shape).items():
        np.testing.assert_array_equal(ours[name], np.broadcast_to(expected.numpy(), NUM_MAGNITUDES), err_msg=name)


def test_autocontrast_table_differs_by_one_level_in_0_4_percent():
    low, high, level = np.ogrid[:256, :256, :256]
    used = (low < high) & (low <= level) & (level <= high)
    scale = 255 / np.maximum(high - low, 1)
    pillow_table = (level * scale - low * scale).astype(int)
    ours = 255 * (level - low) // np.maximum(high - low, 1)
    apart = np.abs(ours - pillow_table)[used]
    assert apart.max() == 1
    assert 0.004 < apart.mean() < 0.0045


@pytest.mark.parametrize("shape", [(2, 2, 3), (1, 5, 1)])
def test_operations_on_tiny_and_constant_images(shape):
    compiled = jax.jit(apply)
    for image in (random_image(shape), np.full(shape, 77, np.uint8)):
        for name, magnitude in (("Sharpness", 0.9), ("AutoContrast", 0.0), ("Equalize", 0.0), ("Contrast", -0.9)):
            result = compiled(image, operations.create_operation(name, magnitude, shape))
            np.testing.assert_allclose(np.asarray(result, int), torchvision_operation(image, name, magnitude), atol=1)


def test_histogram_is_the_same_on_every_platform():
    values = random_image((16, 16, 3)).ravel()
    expected = np.bincount(values, minlength=256)
    np.testing.assert_array_equal(histogram(jnp.asarray(values)), expected)
    compared = jax.jit(histogram).trace(values).lower(lowering_platforms=("cuda",)).as_text()
    assert "scatter" not in compared


def draw_operations(num):
    """Draw operations; return their indices in the table: name, magnitude and sign."""
    numbers = np.arange(len(NAMES) * NUM_MAGNITUDES * 2, dtype=np.int32).reshape(len(NAMES), NUM_MAGNITUDES, 2)
    ordinals = operations.Operation(numbers, None, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policies, "apply", lambda image, operation: operation.matrix)
        draw = jax.jit(jax.vmap(lambda key: policies._apply_random(key, None, ordinals)))
        return np.unravel_index(np.asarray(draw(jax.random.split(jax.random.key(0), num))), numbers.shape)


def test_policy_draws_operations_uniformly():
    names, numbers, signs = draw_operations(20_000)
    for values, num in ((names, len(NAMES)), (numbers, NUM_MAGNITUDES), (signs, 2)):
        counts = np.bincount(values, minlength=num)
        assert len(counts) == num
        assert stats.chisquare(counts).pvalue > 1e-3
    assert abs(np.corrcoef(names, numbers)[0, 1]) < 0.03


def test_rand_augment_applies_operations_in_sequence():
    image, space = random_image((9, 9, 3)), rand_space((9, 9))
    images = [image]
    for _ in range(2):
        signs = {name: (1, -1) for name in NAMES if name not in policies._UNSIGNED}
        images = [
            torchvision_operation(each, name, sign * float(magnitudes(space)[name][7]))
            for each in images
            for name in NAMES
            if name != "AutoContrast"
            for sign in signs.get(name, (1,))
        ]
    reachable = {each.tobytes() for each in images}
    augment = jax.jit(jax.vmap(lambda key: policies.rand_augment(key, image, num_operations=2, magnitude=7)))
    results = np.asarray(augment(jax.random.split(jax.random.key(1), 200)))
    found = sum(result.tobytes() in reachable for result in results)
    assert found > 160  # all except those with "AutoContrast", one seventh
    assert len({result.tobytes() for result in results}) > 80


# random-resized crops


@pytest.mark.parametrize(("is_bicubic", "tolerance", "fraction"), [(False, 0, 0), (True, 2, 0.01)])
def test_resize_equals_torchvision(is_bicubic, tolerance, fraction):
    shape, rng = (29, 18, 3), np.random.default_rng(0)
    image, compiled = random_image(shape), jax.jit(partial(resize, is_bicubic=is_bicubic))
    mode = functional.InterpolationMode.BICUBIC if is_bicubic else BILINEAR
    for _ in range(200):
        height, width = int(rng.integers(1, 30)), int(rng.integers(1, 19))
        top, left = int(rng.integers(30 - height)), int(rng.integers(19 - width))
        expected = functional.resized_crop(pillow(image), top, left, height, width, list(shape[:2]), mode)
        result = compiled(image, Box(*map(jnp.int32, (top, left, height, width))))
        difference = np.abs(np.asarray(result, np.int32) - np.asarray(expected))
        assert difference.max() <= tolerance
        assert (difference > 0).mean() <= fraction


@pytest.mark.parametrize(
    ("shape", "area", "aspect_ratio", "reference"),
    [
        ((40, 30), (0.08, 1.0), (3 / 4, 4 / 3), "crop"),
        ((24, 40), (0.02, 0.33), (1 / 3.3, 1 / 0.3), "erasing"),
    ],
)
def test_random_box_on_device_is_distributed_as_torchvision(shape, area, aspect_ratio, reference):
    min_side, max_sides = (1, shape) if reference == "crop" else (0, (shape[0] - 1, shape[1] - 1))

    def draw(uniform):
        return random_box(uniform, shape, area=area, aspect_ratio=aspect_ratio, min_side=min_side, max_sides=max_sides)

    boxes, fits = jax.jit(jax.vmap(draw))(jax.random.uniform(jax.random.key(0), (4000, NUM_UNIFORM)))
    ours = np.stack(boxes, -1)[np.asarray(fits)]
    torch.manual_seed(0)
    image = torch.zeros(3, *shape)
    if reference == "crop":
        expected = [transforms.RandomResizedCrop.get_params(image, list(area), list(aspect_ratio)) for _ in range(4000)]
    else:
        expected = [transforms.RandomErasing.get_params(image, area, (0.3, 3.3), [0.0])[:4] for _ in range(4000)]
    assert fits.mean() > 0.98
    for column, numbers in enumerate(np.transpose(expected)):
        assert stats.ks_2samp(ours[:, column], numbers).statistic < 0.045  # 1.95 sqrt(2 / 4000): a chance of 1 in 1,000


def test_resized_crop_falls_back_to_the_central_box():
    image = random_image((8, 40, 1))
    result = jax.jit(lambda key: resized_crop(key, image, (0.9, 1.0)))(jax.random.key(0))
    expected = functional.resized_crop(pillow(image), 0, 14, 8, 11, [8, 40], BILINEAR)
    np.testing.assert_array_equal(result[..., 0], np.asarray(expected))
    assert transforms.RandomResizedCrop.get_params(torch.zeros(1, 8, 40), [0.9, 1.0], [3 / 4, 4 / 3]) == (0, 14, 8, 11)
