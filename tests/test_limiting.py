"""Parts of datasets: drawn by class, the same where datasets correspond, and read alone."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from small_datasets import numbered_images, prepare_tfds, read_all, write_npz, write_split_folder

from anchor_jax import data
from anchor_jax.data.eval_dataset import eval_dataset_from_encoded
from anchor_jax.data.limiting import limit_corrupted, limit_dataset, stratified_rows
from anchor_jax.evaluation.suites.corruptions import generated


def test_stratified_rows_give_each_class_its_share():
    labels = np.random.default_rng(1).permutation(np.repeat([0, 1, 2, 3], [500, 250, 200, 50]))
    rows = stratified_rows(labels, 100, seed=0)
    assert np.bincount(labels[rows]).tolist() == [50, 25, 20, 5]
    assert (np.diff(rows) > 0).all()
    for num in (1, 7, 99, 999):
        counts = np.bincount(labels[stratified_rows(labels, num, seed=3)], minlength=4)
        assert counts.sum() == num
        assert (np.abs(counts - num * np.array([0.5, 0.25, 0.2, 0.05])) < 1).all()
    assert not np.array_equal(stratified_rows(labels, 100, seed=1), rows)
    assert set(rows) < set(stratified_rows(labels, 101, seed=0))
    assert stratified_rows(labels, 2000, seed=0).tolist() == list(range(1000))
    renumbered = np.array([7, 3, 0, 5])[labels]
    np.testing.assert_array_equal(stratified_rows(renumbered, 100, seed=0), rows)


@pytest.fixture
def specs(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepare_tfds(tmp_path / "tfds", "tiny", [row % 3 for row in range(10)])))
    folder = write_split_folder(tmp_path / "folder")
    return {
        "digits": "digits@test",
        "photographs": "photographs",
        "npz": f"npz:{write_npz(tmp_path / 'x.npz')}",
        "folder": f"folder:{folder}@train",
        "images": f"images:{folder}",
        "tfds": "tfds:tiny@train",
    }


@pytest.mark.parametrize("kind", ["digits", "photographs", "npz", "folder", "images", "tfds"])
def test_limit_takes_a_part_of_every_source(specs, kind):
    shape = {"digits": (8, 8, 1), "npz": (4, 4, 3)}.get(kind, (5, 5, 3))
    whole = data.open_dataset(specs[kind], image_shape=shape)
    part = limit_dataset(whole, 4, seed=1)
    labels = whole.labels()
    np.testing.assert_array_equal(part.rows, stratified_rows(labels, 4, seed=1))
    images, found, _ = read_all(part, 3)
    np.testing.assert_array_equal(images, whole.take(part.rows)[0])
    np.testing.assert_array_equal(found, labels[part.rows])
    assert (part.name, part.label_names, part.split) == (whole.name, whole.label_names, whole.split)
    assert (part.file_of is None) == (kind not in ("folder", "images"))
    if part.file_of:
        assert [part.file_of(row) for row in range(4)] == [whole.file_of(row) for row in part.rows]
    again, other = limit_dataset(whole, 4, seed=1), whole.subset(np.arange(4))
    assert len({part.content(), other.content(), whole.content(), limit_dataset(whole, 3, seed=1).content()}) == 4
    assert part.content() == again.content()
    assert limit_dataset(whole, whole.num_examples, seed=1) is whole
    np.testing.assert_array_equal(read_all(part.in_memory(), 3).images, images)


def test_limit_decodes_only_its_images():
    read = []

    def example(row):
        read.append(row)
        return numbered_images(0).example(row)

    encoded = numbered_images(200, example=example)
    whole = eval_dataset_from_encoded(encoded, "numbers").relabelled(("cat", "ant", "bee"), np.int32([1, 2, 0]))
    part = limit_dataset(whole, 6, seed=0).map_images((2, 3, 1), lambda images: images + 1)
    read.clear()
    images, labels, _ = read_all(part, 4)
    assert set(read) == set(part.rows.tolist())
    assert (images[:, 0, 0, 0] == part.rows + 1).all()
    np.testing.assert_array_equal(labels, np.array([1, 2, 0])[part.rows % 3])


@pytest.mark.parametrize("size", [1, 3, 50])
def test_subset_finds_rows_without_help(size):
    whole = dataclasses.replace(eval_dataset_from_encoded(numbered_images(50), "numbers"), select=None)
    for rows in ([0], [49], [3, 4, 5, 11, 40], list(range(50))):
        part = read_all(whole.subset(np.array(rows)), size)
        assert part.images[:, 0, 0, 0].tolist() == rows


def write_corrupted(root, kind, orders):
    """Write "fog" with four classes at five severities, severity s in the order `orders[s]` of the classes."""
    rng = np.random.default_rng(0)
    if kind == "npy":
        root.mkdir()
        np.save(root / "fog.npy", rng.integers(0, 256, (5 * 12, 4, 4, 1), np.uint8))
        np.save(root / "labels.npy", np.tile(np.arange(12) % 4, 5))
        return f"npy:{root}"
    for severity in range(1, 6):
        for place, label in enumerate(orders[severity - 1]):
            folder = root / "fog" / str(severity) / f"{label}"
            folder.mkdir(parents=True)
            for row in range(place + 1):
                Image.fromarray(rng.integers(0, 256, (4, 4), np.uint8)).save(folder / f"{row}.png")
    return f"folder:{root}"


@pytest.mark.filterwarnings("ignore:.* has no class names")
@pytest.mark.parametrize("kind", ["npy", "folder"])
def test_limit_takes_the_same_rows_of_all_severities(tmp_path, kind):
    spec = write_corrupted(tmp_path / "c", kind, ["abcd"] * 5)
    names = ("a", "b", "c", "d")
    whole = data.open_corrupted(spec, image_shape=(4, 4, 1), label_names=names)
    part = limit_corrupted(whole, 5, seed=2)
    first = part.stream("fog", 1)
    assert part.num_examples == first.num_examples == 5
    for severity in range(1, 6):
        stream = part.stream("fog", severity)
        np.testing.assert_array_equal(stream.rows, first.rows)
        np.testing.assert_array_equal(stream.first(9)[0], whole.stream("fog", severity).take(first.rows)[0])
    clean = data.Dataset(np.zeros((whole.num_examples, 4, 4, 1), np.uint8), whole.stream("fog", 1).labels(), names)
    np.testing.assert_array_equal(limit_dataset(data.eval_dataset(clean, "clean"), 5, seed=2).rows, first.rows)
    assert len({part.content(), whole.content(), limit_corrupted(whole, 5, seed=3).content()}) == 3
    assert limit_corrupted(whole, whole.num_examples, seed=2) is whole


def test_limit_says_if_severities_do_not_correspond(tmp_path):
    spec = write_corrupted(tmp_path / "c", "folder", [*["abcd"] * 4, "dcba"])
    whole = data.open_corrupted(spec, image_shape=(4, 4, 1), label_names=("a", "b", "c", "d"))
    part = limit_corrupted(whole, 5, seed=2)
    with pytest.warns(UserWarning, match="'fog' at severity 5 of c has its classes in another order than 'fog' at"):
        stream = part.stream("fog", 5)
    np.testing.assert_array_equal(stream.rows, stratified_rows(whole.stream("fog", 5).labels(), 5, seed=2))


@pytest.mark.parametrize("size", [2, 16])
def test_generated_corruptions_of_a_part_are_those_of_all(size):
    clean = data.open_dataset("digits@test", image_shape=(8, 8, 1))
    part = limit_dataset(clean, 5, seed=0)
    read = [generated("g", ("gaussian_noise",), of, seed=0).stream("gaussian_noise", 3) for of in (clean, part)]
    whole = np.concatenate([np.asarray(images) for images, _ in read[0].batches(180)])
    found = np.concatenate([np.asarray(images) for images, _ in read[1].batches(size)])[:5]
    np.testing.assert_array_equal(found, whole[part.rows])
