"""The datasets that a config names, validation splits, label noise, and the rows of a reference bank."""

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from anchor_jax import UserError
from anchor_jax.data import load_test, load_train, open_test, select_rows
from anchor_jax.data.label_noise import draw_label_offsets

LABEL_NAMES, IMAGE_SHAPE = ("0", "1", "2"), (6, 6, 1)


def test_load_train_without_fraction_holds_nothing_out(tiny):
    train, held_out = load_train(tiny.data, seed=0)
    assert len(train.images) == len(train.labels) == 96
    assert held_out is None


def test_load_train_holds_out_a_stratified_reproducible_part(tiny):
    complete, _ = load_train(tiny.data, seed=0)
    tiny.data.validation_fraction = 0.25
    train, held_out = load_train(tiny.data, seed=0)
    assert np.bincount(train.labels).tolist() == [24, 24, 24]
    assert np.bincount(held_out.labels).tolist() == [8, 8, 8]
    both = np.concatenate([train.images, held_out.images]).reshape(96, -1)
    assert {row.tobytes() for row in both} == {image.tobytes() for image in complete.images}
    again, other = load_train(tiny.data, seed=0)[1], load_train(tiny.data, seed=1)[1]
    np.testing.assert_array_equal(held_out.images, again.images)
    assert (held_out.images != other.images).any()


@pytest.mark.parametrize("noise", [0.25, 1.0])
def test_load_train_label_noise_replaces_training_labels(tiny, noise):
    tiny.data.validation_fraction = 0.25
    train, held_out = load_train(tiny.data, seed=0)
    tiny.data.label_noise = noise
    noisy, held_out_too = load_train(tiny.data, seed=0)
    assert noisy.labels.dtype == np.int32
    assert (noisy.labels != train.labels).sum() == round(noise * 72)
    assert set(noisy.labels) == {0, 1, 2}
    np.testing.assert_array_equal(noisy.images, train.images)
    np.testing.assert_array_equal(held_out_too.labels, held_out.labels)
    np.testing.assert_array_equal(load_train(tiny.data, seed=0)[0].labels, noisy.labels)


def test_draw_label_offsets_is_symmetric():
    offsets = draw_label_offsets(30_000, 5, 0.4, seed=3)
    counts = np.bincount(offsets, minlength=5)
    assert counts[0] == 18_000
    assert scipy.stats.chisquare(counts[1:]).pvalue > 1e-3
    assert (offsets != draw_label_offsets(30_000, 5, 0.4, seed=4)).any()


def test_load_train_rejects_too_small_fraction(tiny):
    tiny.data.validation_fraction = 0.01
    with pytest.raises(UserError, match=r"config.data.validation_fraction=0.01 does not fit"):
        load_train(tiny.data, seed=0)


def test_load_test_requires_matching_classes_and_images(tiny):
    assert len(load_test(tiny.data, LABEL_NAMES, IMAGE_SHAPE).images) == 40
    with pytest.raises(UserError, match=r"1 of the 3 classes of split 'test' are not among the run's 2: 2; the run"):
        load_test(tiny.data, ("0", "1"), IMAGE_SHAPE)
    with pytest.raises(UserError, match=r"images of split 'test' are \[6, 6, 3\], but .* \[8, 8, 3\]"):
        load_test(tiny.data, LABEL_NAMES, (8, 8, 3))


@pytest.fixture
def folders(tiny, tmp_path, monkeypatch):
    """Configure `tiny` for a folder of images; return a function that writes one image."""
    monkeypatch.setenv("ANCHOR_JAX_CACHE", str(tmp_path / "cache"))
    tiny.data.source, tiny.data.path = "folder", str(tmp_path / "images")

    def write(file, mode="RGB", size=(4, 5)):
        (tmp_path / "images" / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size).save(tmp_path / "images" / file)

    for file in ("train/ant/1.png", "train/bee/1.png", "test/ant/1.png"):
        write(file)
    return write


def test_load_test_accepts_matching_folder(tiny, folders):
    folders("test/bee/1.png")
    train, _ = load_train(tiny.data, seed=0)
    test = load_test(tiny.data, train.label_names, train.images.shape[1:])
    assert test.images.shape == (2, 5, 4, 3)
    assert test.label_names == ("ant", "bee")


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ("test/cat/1.png", {}, "1 of the 2 classes of split 'test' are not among the run's 2: cat; the run has: ant"),
        ("test/bee/1.png", {"size": (6, 7)}, r"images of split 'test' are \[7, 6, 3\], but .* \[5, 4, 3\]; give"),
    ],
    ids=["classes", "size"],
)
def test_load_test_rejects_differing_folder(tiny, folders, file, options, message):
    folders("test/ant/1.png", **options)
    folders(file, **options)
    train, _ = load_train(tiny.data, seed=0)
    with pytest.raises(UserError, match=message):
        load_test(tiny.data, train.label_names, train.images.shape[1:])


@pytest.fixture
def numbered(tiny, tmp_path):
    """Configure `tiny` for an .npz file; return a function that writes it with these labels."""
    tiny.data.source, tiny.data.path = "npz", str(tmp_path / "data.npz")

    def write(train, test, **arrays):
        np.savez(
            tiny.data.path,
            x_train=np.zeros((len(train), 2, 2), np.uint8),
            y_train=train,
            x_test=np.zeros((len(test), 2, 2), np.uint8),
            y_test=test,
            **arrays,
        )

    return write


def test_load_train_reports_empty_classes(tiny, numbered):
    numbered([0, 1, 2], [3, 0])
    with pytest.warns(UserWarning, match="^the training set has no example of 1 of the 4 classes: 3$"):
        load_train(tiny.data, seed=0)
    with pytest.warns(UserWarning, match="^split 'test' has no example of 2 of the 4 classes: 1, 2$"):
        load_test(tiny.data, ("0", "1", "2", "3"), (2, 2, 1))


@pytest.mark.filterwarnings("ignore:labels of")
def test_load_maps_labels_to_the_classes_of_an_old_run(tiny, numbered):
    numbered([1, 2, 3], [3, 1])
    old = ("0", "1", "2", "3")  # 0 has never had an example
    with pytest.warns(UserWarning, match="no example of 1 of the 4 classes: 0"):
        assert load_train(tiny.data, 0, old)[0].labels.tolist() == [1, 2, 3]
    with pytest.warns(UserWarning, match="no example of 2 of the 4 classes: 0, 2"):
        assert load_test(tiny.data, old, (2, 2, 1)).labels.tolist() == [3, 1]
    with pytest.warns(UserWarning, match="no example of 1 of the 4 classes: 0"):
        assert open_test(tiny.data, old, (2, 2, 1)).labels().tolist() == [3, 1]


def test_load_maps_names_in_another_order(tiny, numbered):
    numbered([0, 1, 2], [2, 0, 1], label_names=["ant", "bee", "cat"])
    run = ("cat", "ant", "bee")
    assert load_train(tiny.data, 0, run)[0].labels.tolist() == [1, 2, 0]
    for test in (load_test(tiny.data, run, (2, 2, 1)).labels, open_test(tiny.data, run, (2, 2, 1)).labels()):
        assert test.tolist() == [0, 1, 2]


# the rows of a bank

_LABELS = np.repeat(np.arange(4), [50, 30, 15, 5]).astype(np.int32)


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("size", [0, 4, 20, 99, 100])
def test_select_rows_is_distinct_sorted_and_reproducible(per_class, size):
    rows = select_rows(_LABELS, size, per_class=per_class, seed=7)
    assert rows.dtype == np.int32
    assert len(rows) == (size or 100)
    assert (np.diff(rows) > 0).all()
    assert rows[0] >= 0
    assert rows[-1] < 100
    np.testing.assert_array_equal(rows, select_rows(_LABELS, size, per_class=per_class, seed=7))


def test_select_rows_depends_on_the_seed():
    assert not np.array_equal(select_rows(_LABELS, 20, seed=0), select_rows(_LABELS, 20, seed=1))


@pytest.mark.parametrize("per_class", [False, True])
def test_select_rows_is_uniform(per_class):
    labels = np.arange(20) % 4  # in a balanced dataset all rows are equally likely
    counts = sum(np.isin(np.arange(20), select_rows(labels, 5, per_class=per_class, seed=s)) for s in range(2_000))
    # each count is binomial(2000, 1/4): mean 500, standard deviation 19.4
    assert np.abs(np.asarray(counts) - 500).max() < 5 * 19.4


@pytest.mark.parametrize(
    ("size", "counts"), [(4, [1, 1, 1, 1]), (20, [5, 5, 5, 5]), (23, [6, 6, 6, 5]), (60, [20, 20, 15, 5])]
)
def test_select_rows_per_class_balances_classes(size, counts):
    rows = select_rows(_LABELS, size, per_class=True, seed=3)
    assert np.bincount(_LABELS[rows]).tolist() == counts


def test_select_rows_per_class_with_a_remainder():
    labels = np.arange(100) % 10
    counts = np.bincount(labels[select_rows(labels, 25, per_class=True, seed=0)])
    assert sorted(counts) == [2] * 5 + [3] * 5


@pytest.mark.parametrize("size", [-1, 101])
def test_select_rows_rejects_size_out_of_range(size):
    with pytest.raises(UserError, match=rf"anchoring.bank_size={size}; allowed: 0 \(all\) to 100, the number of"):
        select_rows(_LABELS, size, seed=0)


def test_select_rows_per_class_rejects_too_small_size():
    message = r"anchoring.bank_size=3 with anchoring.bank_per_class; allowed: 0 \(all\) or 4 \(the number of classes\)"
    with pytest.raises(UserError, match=message):
        select_rows(_LABELS, 3, per_class=True, seed=0)
