"""Datasets named by a string: every kind of spec, conversion of images, and mapping of classes."""

from pathlib import Path

import numpy as np
import pytest
from image_files import assert_same_dataset
from PIL import Image, ImageOps
from small_datasets import (
    LABEL_NAMES,
    prepare_tfds,
    read_all,
    write_npz,
    write_random_image,
    write_split_folder,
)

from anchor_jax import data
from anchor_jax.core.errors import SkippedFilesWarning, UserError
from anchor_jax.data import Preprocessing, load, open_dataset, sources


@pytest.fixture
def folder(tmp_path):
    return write_split_folder(tmp_path / "images")


@pytest.fixture
def npz(tmp_path):
    return write_npz(tmp_path / "some.npz")


@pytest.fixture
def prepared(tmp_path):
    """The folder of the prepared dataset "tiny": ten 5 x 5 RGB images in the split "train"."""
    return prepare_tfds(tmp_path / "tfds", "tiny", [row % 3 for row in range(10)])


@pytest.mark.parametrize(
    "spec", ["", "cifar10", "tfds", "tfds:", "tfds:@test", "folder:", "npz:", "images", "photographs:8", "digits:test",
             "digits@", "photographs@test", "tdfs:cifar10", "npy:folder"],
)  # fmt: skip
def test_open_dataset_rejects_malformed_specs(spec):
    message = rf"^unknown dataset '{spec}'; allowed: tfds:NAME\[@SPLIT\], folder:PATH\[@SPLIT\], npz:.* photographs$"
    with pytest.raises(UserError, match=message):
        open_dataset(spec, image_shape=(8, 8, 1))


def test_open_dataset_accepts_every_source():
    for name in sources.SOURCES:
        with pytest.raises(UserError) as error:
            open_dataset(
                f"{name}:/nowhere@none" if sources.SOURCES[name].located_by else f"{name}@none", image_shape=(8, 8, 1)
            )
        assert "unknown dataset" not in str(error.value)


def test_open_spec_is_the_old_name_of_open_dataset():
    assert data.open_spec is open_dataset


def test_open_dataset_digits():
    for spec, split in (("digits", "test"), ("digits@train", "train")):
        stream = open_dataset(spec, image_shape=(8, 8, 1), label_names=tuple("0123456789"))
        assert stream.name == spec.replace("@", "-")
        assert_same_dataset(read_all(stream, 500), load("digits", split))


def test_open_dataset_tfds(prepared, monkeypatch):
    with pytest.raises(UserError, match=r"split 'test' of tiny/1.0.0 is unknown or empty; allowed: train, and slices"):
        open_dataset("tfds:tiny", image_shape=(5, 5, 3), tfds_dir=prepared)
    stream = open_dataset("tfds:tiny:1.0.0@train[:4]", image_shape=(5, 5, 3), tfds_dir=prepared)
    assert stream.name == "tiny-train[:4]"
    assert_same_dataset(read_all(stream, 3), load("tfds", "train[:4]", name="tiny", path=prepared))
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    resized = open_dataset("tfds:tiny@train", image_shape=(3, 3, 3))
    assert_same_dataset(read_all(resized, 3), load("tfds", "train", name="tiny", image_size=3))


def test_open_dataset_npz(npz):
    for split in ("", "@train"):
        stream = open_dataset(f"npz:{npz}{split}", image_shape=(4, 4, 1))
        assert stream.name == "some" + split.replace("@", "-")
        assert_same_dataset(read_all(stream, 2), load("npz", split[1:] or "test", path=npz))


def test_open_dataset_folder(folder, tmp_path):
    test, train = (load("folder", split, path=folder, image_size=4) for split in ("test", "train"))
    for path, name, expected in [
        (f"{folder}", "images", test),
        (f"{folder}/", "images", test),
        (f"{folder}@test", "images-test", test),
        (f"{folder}@train", "images-train", train),
        (f"{folder}/train", "train", train),  # a folder of classes is a split: so ImageNet-R unpacks
        (f"{folder}/test/../train", "train", train),
    ]:
        stream = open_dataset(f"folder:{path}", image_shape=(4, 4, 3))
        assert stream.name == name
        assert_same_dataset(read_all(stream, 2), expected)
    moved = folder.rename(tmp_path / "im@ges")
    assert_same_dataset(read_all(open_dataset(f"folder:{moved}/train", image_shape=(4, 4, 3)), 2), train)


def test_open_dataset_rejects_missing_folder(tmp_path):
    with pytest.raises(UserError, match=r"no split 'none' in '.*'; it contains: no folders; expected layout"):
        open_dataset(f"folder:{tmp_path}/none", image_shape=(4, 4, 3))


@pytest.mark.parametrize("kind", ["folder", "npz", "images"])
def test_open_dataset_rejects_too_long_path(kind):
    with pytest.raises(UserError, match=r"File name too long|no split"):
        open_dataset(f"{kind}:{'x' * 300}", image_shape=(4, 4, 3))


def test_open_dataset_images(tmp_path):
    files = ["a.png", "b/c.JPEG", "b/d/e.png", "f.bmp"]
    for row, file in enumerate(files):
        write_random_image(tmp_path / "found" / file, (9, 6, 3) if row else (6, 9))
    for hidden in (".git/x.png", "b/.x.png"):
        write_random_image(tmp_path / "found" / hidden)
    (tmp_path / "found" / "notes.txt").touch()
    (tmp_path / "found" / "folder.png").mkdir()
    write_random_image(tmp_path / "found" / "folder.png" / "g.png")
    (tmp_path / "found" / "folder.png" / "g.png").rename(tmp_path / "found" / "g.png")
    (tmp_path / "found" / "folder.png").rmdir()
    message = r"^3 files are not read in '.*found' \(hidden: 2, .txt: 1\), such as '.git/x.png'; read are: .apng, .bmp"
    with pytest.warns(SkippedFilesWarning, match=message):
        stream = open_dataset(f"images:{tmp_path}/found", image_shape=(6, 6, 3))
    assert (stream.name, stream.label_names) == ("found", ("image",))
    found = read_all(stream, 2)
    assert found.labels.tolist() == [0] * 5
    by_class = tmp_path / "classes" / "test"
    for row, file in enumerate([*files, "g.png"]):  # the same decoding, by a source that is tested elsewhere
        target = by_class / str(row // 4) / f"{row}{Path(file).suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((tmp_path / "found" / file).read_bytes())
    np.testing.assert_array_equal(found.images, load("folder", "test", path=tmp_path / "classes", image_size=6).images)


def test_open_dataset_images_rejects_folder_without_any(tmp_path):
    with pytest.raises(UserError, match=r"no images in '.*' or its subfolders; allowed: .apng, .bmp, .dib, "):
        open_dataset(f"images:{tmp_path}", image_shape=(6, 6, 3))
    with pytest.raises(UserError, match=r"cannot read folder '.*none' \(FileNotFoundError.*; give a folder of images"):
        open_dataset(f"images:{tmp_path}/none", image_shape=(6, 6, 3))
    write_random_image(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"cannot read folder '.*a.png' \(NotADirectoryError"):
        open_dataset(f"images:{tmp_path}/a.png", image_shape=(6, 6, 3))


@pytest.mark.parametrize(
    ("file", "spec", "split"),
    [
        ("flat/1.png", "folder:{}/flat", "flat"),
        ("one/all/1.png", "folder:{}/one", "one"),
        ("two/test/all/1.png", "folder:{}/two", "two/test"),
        ("two/train/all/1.png", "folder:{}/two@train", "two/train"),
    ],
)
def test_open_dataset_offers_images_for_less_than_two_classes(tmp_path, file, spec, split):
    write_random_image(tmp_path / file)
    message = rf"'{tmp_path}/{split}' must have at least 2 class folders; got [01]; .* give images:{tmp_path}/{split}\Z"
    with pytest.raises(UserError, match=message):
        open_dataset(spec.format(tmp_path), image_shape=(6, 6, 3))
    assert open_dataset(f"images:{tmp_path}/{split}", image_shape=(6, 6, 3)).num_examples == 1
    with pytest.raises(
        UserError, match=rf"unknown dataset '{tmp_path}'; allowed: .*; .* give images:{tmp_path}, or fo"
    ):
        open_dataset(str(tmp_path), image_shape=(6, 6, 3))


def test_open_dataset_takes_many_channels_if_the_run_has_them(tmp_path):
    np.savez(tmp_path / "a.npz", x_test=np.zeros((4, 6, 6, 13), np.uint8), y_test=np.arange(4) % 2)
    assert open_dataset(f"npz:{tmp_path}/a.npz", image_shape=(6, 6, 13)).image_shape == (6, 6, 13)
    with pytest.raises(UserError, match=r"images of npz split 'test' must be .* got \[4, 6, 6, 13\]"):
        open_dataset(f"npz:{tmp_path}/a.npz", image_shape=(6, 6, 3))
    np.savez(tmp_path / "a.npz", x_test=np.zeros((4, 1, 8, 9), np.uint8), y_test=np.arange(4) % 2)
    assert open_dataset(f"npz:{tmp_path}/a.npz", image_shape=(1, 8, 9), channels=9).image_shape == (1, 8, 9)


def test_open_dataset_resizes_to_oblong_images(folder):
    stream = open_dataset(f"folder:{folder}", image_shape=(6, 5, 3))
    assert_same_dataset(read_all(stream, 9), load("folder", "test", path=folder))
    turned = read_all(open_dataset(f"folder:{folder}", image_shape=(5, 6, 3)), 9)
    files = [path for label in LABEL_NAMES for path in sorted((folder / "test" / label).iterdir())]
    np.testing.assert_array_equal(turned.images, Preprocessing(5, 6, 3)(files))


@pytest.mark.parametrize("shape", [(4, 5, 1), (5, 5, 1), (4, 4, 2)])
def test_open_dataset_does_not_resize_arrays(npz, shape):
    with pytest.raises(UserError, match=rf"images of 'some' are \[4, 4, 1\], but those of the run are \[{shape[0]}, "):
        open_dataset(f"npz:{npz}", image_shape=shape)


def test_open_dataset_converts_grayscale_to_rgb(npz, folder):
    gray = load("npz", "test", path=npz).images
    rgb = read_all(open_dataset(f"npz:{npz}", image_shape=(4, 4, 3)), 3).images
    np.testing.assert_array_equal(rgb, gray.repeat(3, axis=-1))


def test_open_dataset_converts_rgb_to_grayscale(tmp_path, folder):
    rgb = load("folder", "test", path=folder, image_size=5)
    np.savez(tmp_path / "rgb.npz", x_test=rgb.images, y_test=rgb.labels)
    expected = [np.asarray(Image.fromarray(image).convert("L")) for image in rgb.images]
    of_arrays = read_all(open_dataset(f"npz:{tmp_path}/rgb.npz", image_shape=(5, 5, 1)), 2).images
    np.testing.assert_array_equal(of_arrays[..., 0], expected)
    luma = rgb.images @ np.array([0.299, 0.587, 0.114])
    assert np.abs(of_arrays[..., 0] - luma).max() < 1
    of_files = read_all(open_dataset(f"folder:{folder}", image_shape=(5, 5, 1)), 2).images
    for image, file in zip(of_files, sorted(folder.glob("test/*/*")), strict=True):
        gray = ImageOps.fit(Image.open(file).convert("L"), (5, 5), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(image[..., 0], np.asarray(gray))


def test_open_dataset_requires_corruption_of_corrupted_tfds(tmp_path):
    for name in ("cifar10_corrupted", "imagenet2012_corrupted:1.0.0"):
        with pytest.raises(
            UserError, match=r"'.*' needs a corruption and a severity; give one, such as 'tfds:\w+/fog_3', or"
        ):
            open_dataset(f"tfds:{name}", image_shape=(4, 4, 3), tfds_dir=tmp_path)
    prepare_tfds(tmp_path / "cifar10_corrupted", "fog_3", [0, 1, 2])
    stream = open_dataset("tfds:cifar10_corrupted/fog_3@train", image_shape=(5, 5, 3), tfds_dir=tmp_path)
    assert (stream.name, stream.num_examples) == ("cifar10_corrupted-fog_3-train", 3)


def test_open_dataset_drops_empty_classes_of_imagenet_r(tmp_path):
    names = ("n01", "n02", "n03", "n04")
    for name, expected in (("imagenet_r", ("n02", "n04")), ("imagenet_sketch", names)):
        prepare_tfds(tmp_path, name, [3, 1, 1, 3], label_names=names)
        stream = open_dataset(f"tfds:{name}@train", image_shape=(5, 5, 3), tfds_dir=tmp_path)
        given = read_all(stream, 3)
        assert given.label_names == expected
        assert [given.label_names[label] for label in given.labels] == ["n04", "n02", "n02", "n04"]


# classes of a run


def test_open_dataset_maps_labels_to_the_run(folder):
    set_names = read_all(open_dataset(f"folder:{folder}", image_shape=(4, 4, 3)), 2)
    run_names = ("cat", "ant", "dog", "bee")
    with pytest.warns(UserWarning, match="^'images' has no example of 1 of the 4 classes: dog$"):
        as_run = read_all(open_dataset(f"folder:{folder}", image_shape=(4, 4, 3), label_names=run_names), 2)
    assert as_run.label_names == run_names
    assert [run_names[row] for row in as_run.labels] == [set_names.label_names[row] for row in set_names.labels]
    np.testing.assert_array_equal(as_run.images, set_names.images)


def test_open_dataset_maps_numbered_classes_to_the_run(npz):
    message = (
        "^'some' has no class names: its labels are taken as the run's classes in order, 0 as 'ant', 1 as 'bee', …"
    )
    with pytest.warns(UserWarning, match=message):
        stream = open_dataset(f"npz:{npz}", image_shape=(4, 4, 1), label_names=LABEL_NAMES)
    assert stream.label_names == LABEL_NAMES
    np.testing.assert_array_equal(read_all(stream, 4).labels, load("npz", "test", path=npz).labels)


@pytest.mark.parametrize(
    ("label_names", "message"),
    [
        (
            ("ant", "bee", "dog"),
            r"1 of the 3 classes of 'images' are not among the run's 3: cat; the run has: ant, bee",
        ),
        (("ant", "bee"), r"1 of the 3 classes of 'images' are not among the run's 2: cat; the run has: ant, bee"),
    ],
)
def test_open_dataset_rejects_other_classes(folder, label_names, message):
    with pytest.raises(UserError, match=message):
        open_dataset(f"folder:{folder}", image_shape=(4, 4, 3), label_names=label_names)


@pytest.mark.parametrize("as_type", [list, np.array, iter], ids=lambda kind: kind.__name__)
def test_shapes_and_names_may_be_any_sequence(as_type):
    names = [str(digit) for digit in range(10)]
    test = open_dataset("digits@test", image_shape=as_type([8, 8, 1]), label_names=as_type(names))
    assert (test.image_shape, test.label_names) == ((8, 8, 1), tuple(names))
    wrapped = data.eval_dataset(data.Dataset(*test.first(2), as_type(names)), "two")
    assert wrapped.label_names == tuple(names)
    assert data.class_rows(as_type(["b", "a"]), as_type(["a", "b", "c"])).tolist() == [1, 0]
