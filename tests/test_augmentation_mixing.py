"""Random erasing, mixup and CutMix next to torchvision's; PixMix, its mixing images and fractals."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_same_bits
from PIL import Image, ImageOps
from scipy import stats

from anchor_jax.core.errors import UserError
from anchor_jax.data import load_mixing_images, mixup_or_cutmix, random_erasing
from anchor_jax.data.augmentation import fractals, mixing_images
from anchor_jax.data.augmentation.boxes import box_mask
from anchor_jax.data.augmentation.mixing import cutmix_box
from anchor_jax.data.augmentation.pixmix import (
    MAX_ROUNDS,
    OPERATIONS,
    _random_window,
    apply_operation,
    mix_product,
    mix_sum,
    mixing_weights,
    pixmix,
)
from anchor_jax.runtime.mesh import REPLICATED, SHARDED, mesh, pmapped

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 12, 10, 3)).astype(np.float32)
TARGETS = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0, 0]]
SWAPPED = [1, 0, 3, 2, 5, 4]


# random erasing


def test_random_erasing_zeroes_one_rectangle_with_probability():
    x = jnp.ones((400, 20, 16, 2))
    keys = jax.random.split(jax.random.key(0), 400)
    result = np.asarray(jax.jit(lambda keys, x: random_erasing(keys, x, 0.25))(keys, x))
    gone = (result == 0).all(-1)
    assert ((result == 0) | (result == 1)).all()
    assert 70 < gone.any((1, 2)).sum() < 130
    for mask in gone[gone.any((1, 2))]:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask.sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert 0.01 < mask.mean() < 0.36


def test_random_erasing_depends_on_own_key_only():
    erase = jax.jit(lambda keys, x: random_erasing(keys, x, 1.0))
    keys = jax.random.split(jax.random.key(0), len(X))
    np.testing.assert_array_equal(erase(keys[::-1], X[::-1])[::-1], erase(keys, X))
    assert random_erasing(keys, X, 0.0) is X
    traced = jax.jit(random_erasing)
    assert_same_bits(traced(keys, X, 1.0), erase(keys, X))
    assert_same_bits(traced(keys, X, 0.0), X)


# mixup and CutMix


def mix_batch(number, **alphas):
    x, targets = MIX(jax.random.key(number), X, TARGETS, **{"mixup_alpha": 0.0, "cutmix_alpha": 0.0, **alphas})
    return np.asarray(x), np.asarray(targets)


MIX = jax.jit(mixup_or_cutmix, static_argnames=("mixup_alpha", "cutmix_alpha"))


def lambda_of(targets):
    """Return λ, from the targets of the first pair."""
    return targets[0, 0]


def test_mixup_is_a_weighted_mean_of_pairs():
    shares = []
    for number in range(60):
        x, targets = mix_batch(number, mixup_alpha=0.2)
        lam = lambda_of(targets)
        np.testing.assert_allclose(x, lam * X + (1 - lam) * X[SWAPPED], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(targets, lam * TARGETS + (1 - lam) * TARGETS[SWAPPED], rtol=1e-5)
        shares.append(lam)
    assert stats.kstest(shares, stats.beta(0.2, 0.2).cdf).pvalue > 1e-3


def test_cutmix_pastes_a_box_of_the_partner():
    for number in range(20):
        x, targets = mix_batch(number, cutmix_alpha=1.0)
        own = (x == X).all((0, 3))
        np.testing.assert_array_equal(x[:, ~own], X[SWAPPED][:, ~own])
        rows, columns = np.flatnonzero(~own.all(1)), np.flatnonzero(~own.all(0))
        assert not rows.size or not own[np.ix_(rows, columns)].any()
        lam = lambda_of(targets)
        np.testing.assert_allclose(lam, own.mean(), rtol=1e-5)
        np.testing.assert_allclose(targets, lam * TARGETS + (1 - lam) * TARGETS[SWAPPED], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.9, 1.0])
def test_cutmix_box_equals_torchvision(lam):
    torch = pytest.importorskip("torch")
    v2 = pytest.importorskip("torchvision.transforms.v2")
    height, width, number = 12, 10, 30
    numbers = RNG.random((number, 2)).astype(np.float32)
    cutmix = v2.CutMix(num_classes=2)
    for at_y, at_x in numbers:
        with pytest.MonkeyPatch.context() as patch:
            draws = iter([int(at_x * width), int(at_y * height)])
            patch.setattr(torch, "randint", lambda *args, draws=draws, **options: torch.tensor([next(draws)]))
            cutmix._dist = torch.distributions.Beta(torch.tensor([1.0]), torch.tensor([1.0]))
            patch.setattr(cutmix._dist, "sample", lambda shape: torch.tensor([lam]))
            expected = cutmix.make_params([torch.zeros(2, 3, height, width)])
        box = cutmix_box(jnp.array([at_y, at_x]), (height, width), jnp.float32(lam))
        left, top, right, bottom = expected["box"]
        assert tuple(map(int, box)) == (top, left, bottom - top, right - left)
        np.testing.assert_allclose(1 - box_mask(box, (height, width)).mean(), expected["lam_adjusted"], rtol=1e-6)


@pytest.mark.parametrize("num_devices", [2, 8])
def test_cutmix_is_the_same_on_any_number_of_devices(num_devices):
    x, targets = np.tile(X, (8, 1, 1, 1))[:32], np.tile(TARGETS, (8, 1))[:32]

    def mix(key, x, targets):
        return mixup_or_cutmix(key, x, targets, mixup_alpha=0.0, cutmix_alpha=1.0)

    sharded = pmapped(mix, mesh(num_devices), in_specs=(REPLICATED, SHARDED, SHARDED), out_specs=SHARDED)
    assert_same_bits(sharded(jax.random.key(0), x, targets), jax.jit(mix)(jax.random.key(0), x, targets))


def test_mixup_or_cutmix_draws_one_of_both():
    was_mixup = []
    for number in range(60):
        x, _ = mix_batch(number, mixup_alpha=0.8, cutmix_alpha=1.0)
        own = (x == X) | (x == X[SWAPPED])
        was_mixup.append(not own.all())
    assert 18 < sum(was_mixup) < 42


def test_mixup_or_cutmix_without_alphas_is_the_identity():
    x, targets = mixup_or_cutmix(jax.random.key(0), X, TARGETS, mixup_alpha=0.0, cutmix_alpha=0.0)
    assert x is X
    assert targets is TARGETS


def test_mixup_or_cutmix_rejects_odd_batch():
    with pytest.raises(UserError, match=r"must be even, .* got 5"):
        mixup_or_cutmix(jax.random.key(0), X[:5], TARGETS[:5], mixup_alpha=1.0, cutmix_alpha=0.0)


# PixMix


def smooth(shape, seed=0):
    coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8))
    return np.asarray(coarse.resize(shape[1::-1], Image.Resampling.BICUBIC))


def released_operation(image, name, level, sign):
    """Apply an operation of the released code, with Pillow."""
    pil_image, bilinear = Image.fromarray(image), Image.Resampling.BILINEAR
    width, height = pil_image.size

    def affine(*matrix):
        return pil_image.transform(pil_image.size, Image.Transform.AFFINE, matrix, resample=bilinear)

    results = {
        "autocontrast": lambda: ImageOps.autocontrast(pil_image),
        "equalize": lambda: ImageOps.equalize(pil_image),
        "posterize": lambda: ImageOps.posterize(pil_image, 4 - int(level * 4 / 10)),
        "solarize": lambda: ImageOps.solarize(pil_image, 256 - int(level * 256 / 10)),
        "rotate": lambda: pil_image.rotate(sign * int(level * 30 / 10), resample=bilinear),
        "shear_x": lambda: affine(1, sign * level * 0.3 / 10, 0, 0, 1, 0),
        "shear_y": lambda: affine(1, 0, 0, sign * level * 0.3 / 10, 1, 0),
        "translate_x": lambda: affine(1, 0, sign * int(level * width / 3 / 10), 0, 1, 0),
        "translate_y": lambda: affine(1, 0, 0, 0, 1, sign * int(level * height / 3 / 10)),
    }
    return np.asarray(results[name]())


@pytest.mark.parametrize("name", OPERATIONS)
def test_pixmix_operations_equal_pillow(name):
    image = smooth((40, 32, 3))
    for level, sign in ((0.15, 1), (1.21, -1), (2.47, 1), (2.93, -1)):
        result = OPERATE(image, OPERATIONS.index(name), level, sign)
        apart = np.abs(np.asarray(result, int) - released_operation(image, name, level, sign))
        assert apart.max() <= 1
        assert (apart > 0).mean() < 0.001


OPERATE = jax.jit(apply_operation)


def test_pixmix_sum_and_product_match_the_paper():
    own, other = RNG.random((2, 50)).astype(np.float32)
    own[:3], other[:4] = 0, (0, 0.3, 1, 0)
    for a, b in ((0.7, 0.2), (1.3, -0.4), (1.0, 0.0)):
        expected = (a * (own * 2 - 1) + b * (other * 2 - 1) + 1) / 2
        np.testing.assert_allclose(mix_sum(own, other, a, b), expected.clip(0, 1), atol=1e-6)
        product = (own * 2.0) ** a * (other * 2.0).clip(1e-37) ** b / 2
        np.testing.assert_allclose(mix_product(own, other, a, b), product.clip(0, 1), rtol=1e-5, atol=1e-6)


def test_pixmix_weights_follow_published_distributions():
    a, b = np.asarray(mixing_weights(RNG.random((3, 4000)).astype(np.float32), 3.0))
    towards = b > 0
    assert stats.binomtest(int(towards.sum()), 4000).pvalue > 1e-3
    for values, distribution in (
        (a[towards], stats.beta(3, 1)),
        (b[towards], stats.beta(1, 3)),
        (a[~towards] - 1, stats.beta(1, 3)),
        (-b[~towards], stats.beta(1, 3)),
    ):
        assert stats.kstest(values, distribution.cdf).pvalue > 1e-3


def released_pixmix(rng, image, mixing_image):
    """Run the released loop with k = 4, β = 3 and operations of severity 3; return uint8 `[H, W, 3]`."""

    def source():
        sign = rng.choice([-1, 1])
        return released_operation(image, rng.choice(OPERATIONS), rng.uniform(0.1, 3), sign) / 255

    def random_weights():
        if rng.random() < 0.5:
            return rng.beta(3, 1), rng.beta(1, 3)
        return 1 + rng.beta(1, 3), -rng.beta(1, 3)

    own = source() if rng.random() < 0.5 else image / 255
    for _ in range(rng.integers(MAX_ROUNDS + 1)):
        other = source() if rng.random() < 0.5 else mixing_image / 255
        a, b = random_weights()
        if rng.random() < 0.5:
            own = (a * (own * 2 - 1) + b * (other * 2 - 1) + 1) / 2
        else:
            own = (own * 2) ** a * (other * 2).clip(1e-37) ** b / 2
        own = own.clip(0, 1)
    return np.round(255 * own).astype(np.uint8)


def test_pixmix_is_distributed_as_the_released_code():
    image, mixing_image = smooth((16, 16, 3)), smooth((16, 16, 3), seed=1)
    keys = jax.random.split(jax.random.key(0), 1000)
    ours = np.asarray(jax.jit(jax.vmap(lambda key: pixmix(key, image, mixing_image[None])))(keys))
    theirs = np.stack([released_pixmix(RNG, image, mixing_image) for _ in range(1000)])
    assert ours.dtype == np.uint8

    def unchanged(results):
        return (results == image).all((1, 2, 3)).mean()

    assert abs(unchanged(ours) - unchanged(theirs)) < 0.05
    for quantity in (
        lambda results: results.mean((1, 2, 3)),
        lambda results: results.std((1, 2, 3)),
        lambda results: np.abs(results - image.astype(float)).mean((1, 2, 3)),
        lambda results: np.abs(results - mixing_image.astype(float)).mean((1, 2, 3)),
    ):
        assert stats.ks_2samp(quantity(ours), quantity(theirs)).pvalue > 1e-3


def test_pixmix_uses_windows_of_all_mixing_images():
    image, windows = np.full((4, 4, 1), 128, np.uint8), np.arange(2 * 36, dtype=np.uint8).reshape(2, 6, 6, 1)
    draw = jax.jit(jax.vmap(lambda numbers: _random_window(numbers, windows, image.shape)))
    results = np.asarray(draw(jax.random.uniform(jax.random.key(0), (200, 3))))
    expected = {windows[m, i : i + 4, j : j + 4].tobytes() for m in range(2) for i in range(3) for j in range(3)}
    assert {result.tobytes() for result in results} == expected


# mixing images


def test_fractals_are_reproducible_and_distinct():
    made = fractals(0, 6, 36)
    assert (made.shape, made.dtype) == ((6, 36, 36, 3), np.uint8)
    np.testing.assert_array_equal(fractals(0, 3, 36), made[:3])
    assert (fractals(1, 3, 36) != made[:3]).any((1, 2, 3)).all()
    assert len({image.tobytes() for image in made}) == 6
    assert made.std((1, 2)).mean() > 20  # levels: not blobs


@pytest.mark.parametrize("channels", [1, 3])
def test_load_mixing_images_without_folder_are_fractals(channels, monkeypatch):
    monkeypatch.setattr(mixing_images, "NUM_FRACTALS", 2)
    made = load_mixing_images("", 32, channels)
    assert (made.shape, made.dtype) == ((2, 36, 36, channels), np.uint8)


def test_load_mixing_images_resizes_and_limits_a_folder(tmp_path, monkeypatch):
    (tmp_path / "deeper").mkdir()
    for number in range(5):
        Image.new("RGB", (30 + number, 20), (50 * number,) * 3).save(tmp_path / "deeper" / f"{number}.png")
    assert load_mixing_images(tmp_path, 16, 3)[:, 0, 0, 0].tolist() == [0, 50, 100, 150, 200]
    assert load_mixing_images(str(tmp_path), 16, 1).shape == (5, 18, 18, 1)
    monkeypatch.setattr(mixing_images, "MAX_BYTES", 3 * 18 * 18 * 3)
    assert load_mixing_images(tmp_path, 16, 3)[:, 0, 0, 0].tolist() == [0, 100, 200]


def test_load_mixing_images_rejects_invalid_arguments(tmp_path):
    with pytest.raises(UserError, match="images with 1 or 3 channels, but those of the run have 4"):
        load_mixing_images("", 32, 4)
    with pytest.raises(UserError, match="no images in"):
        load_mixing_images(tmp_path, 32, 3)


@pytest.mark.parametrize("alphas", [(0.5, 0.0), (0.0, 0.5), (0.0, 0.0)])
def test_mixup_and_cutmix_keep_dtypes(alphas):
    mix = partial(mixup_or_cutmix, mixup_alpha=alphas[0], cutmix_alpha=alphas[1])
    mixed = jax.eval_shape(mix, jax.random.key(0), X.astype(jnp.bfloat16), TARGETS.astype(jnp.float16))
    assert [part.dtype for part in mixed] == [jnp.bfloat16, jnp.float16]
