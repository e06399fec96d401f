"""Corrupted sets in their published layouts: valid ones, and incomplete or corrupt ones."""

import io
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from anchor_jax.core.errors import SkippedFilesWarning, UserError
from anchor_jax.data import CorruptedSet, Dataset, check_differs, eval_dataset, open_corrupted
from benchmarks.tfds_writer import write_tfds

pytestmark = pytest.mark.filterwarnings("ignore:.* has no class names")

_LABEL_NAMES = ("ant", "bee", "cat")
_SHAPE = (5, 5, 3)
_LABELS = [0, 0, 1, 1, 2, 2]  # six examples, sorted by class as in folders

Images = dict[tuple[str, int], np.ndarray]  # (corruption, severity) -> uint8 [6, 5, 5, 3]


def _images(*members: str) -> Images:
    rng = np.random.default_rng(0)
    return {(m, s): rng.integers(0, 256, (6, *_SHAPE), np.uint8) for m in members for s in range(1, 6)}


def _assert_contains(found: CorruptedSet, images: Images, label_names=_LABEL_NAMES, labels=_LABELS):
    assert found.members == tuple(sorted({member for member, _ in images}))
    assert found.severities == (1, 2, 3, 4, 5)
    assert found.num_examples == 6
    for (member, severity), expected in images.items():
        stream = found.stream(member, severity)
        assert stream.name == f"{found.name}-{member}-{severity}"
        assert (stream.label_names, stream.image_shape, stream.num_examples) == (label_names, _SHAPE, 6)
        batches = list(stream.batches(4))
        assert [len(part) for part, _ in batches] == [4, 2]
        np.testing.assert_array_equal(np.concatenate([part for part, _ in batches]), expected)
        assert np.concatenate([part for _, part in batches]).tolist() == labels
        assert batches[0][1].dtype == np.int32


def _open(spec: str, image_shape=_SHAPE, label_names=_LABEL_NAMES, **options) -> CorruptedSet:
    return open_corrupted(spec, image_shape=image_shape, label_names=label_names, **options)


@pytest.mark.parametrize("spec", ["", "tfds:", "tfds:a/b", "npy:", "npz:x", "folder", "cifar10_corrupted", "images:x"])
def test_open_corrupted_rejects_malformed_specs(spec):
    with pytest.raises(UserError, match=rf"^unknown corrupted set '{spec}'; allowed: tfds:NAME.*, folder:PATH$"):
        _open(spec)


# .npy files, as in CIFAR-10-C


def _write_npy(root: Path, images: Images, **arrays: np.ndarray) -> Path:
    root.mkdir()
    for member in {member for member, _ in images}:
        np.save(root / f"{member}.npy", np.concatenate([images[member, severity] for severity in range(1, 6)]))
    np.save(root / "labels.npy", np.tile(_LABELS, 5))
    for name, array in arrays.items():
        np.save(root / f"{name}.npy", array)
    return root


def test_open_corrupted_npy(tmp_path):
    images = _images("fog", "glass_blur")
    root = _write_npy(tmp_path / "CIFAR-10-C", images)
    (root / "README.txt").touch()
    (root / "._fog.npy").write_bytes(b"Mac OS X")
    with pytest.warns(SkippedFilesWarning, match=r"^1 file is not read in '.*' \(.txt: 1\), .*'README.txt'; .* .npy$"):
        found = _open(f"npy:{root}")
    assert found.name == "CIFAR-10-C"
    (root / "README.txt").unlink()
    _assert_contains(found, images)
    _assert_contains(_open(f"npy:{root}", label_names=("0", "1", "2")), images, label_names=("0", "1", "2"))


def test_open_corrupted_npy_converts_to_grayscale(tmp_path):
    images = _images("fog")
    stream = _open(f"npy:{_write_npy(tmp_path / 'c', images)}", image_shape=(5, 5, 1)).stream("fog", 2)
    expected = [np.asarray(Image.fromarray(image).convert("L")) for image in images["fog", 2]]
    np.testing.assert_array_equal(stream.first(6)[0][..., 0], expected)


_COMPLETE = np.zeros((30, *_SHAPE), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"snow": _COMPLETE[:24]}, r"labels of '.*/c/snow.npy' must be \[24\], one per image; got \[30\]"),
        ({"snow": _COMPLETE.astype(np.float32)}, r"images of '.*/c/snow.npy' must be uint8; got float32"),
        (
            {"snow": _COMPLETE[..., 0]},
            r"images of '.*/c/snow.npy' must be \[N, H, W, C\] and not empty; got \[30, 5, 5\]",
        ),
        (
            {"snow": np.zeros((30, 3, 9, 9), np.uint8)},
            r"images of '.*/c/snow.npy' must be .*; got \[30, 3, 9, 9\]; .* pass images.transpose\(0, 2, 3, 1\); if",
        ),
        ({"labels": np.tile(_LABELS, 4)}, r"'.*/c/labels.npy' must be integers or strings \[5N\]; got int64 \[24\]"),
        (
            {"labels": np.tile(_LABELS, 5) / 4},
            r"'.*/c/labels.npy' must be integers or strings; got float64, such as 0.25",
        ),
        (
            {"labels": np.tile(_LABELS, 5)[None]},
            r"'.*/c/labels.npy' must be integers or strings \[5N\]; got int64 \[1, 30\]",
        ),
        ({"labels": np.zeros(0, int)}, r"'.*/c/labels.npy' must be integers or strings \[5N\]; got int64 \[0\]"),
        (
            {"labels": np.array(["a"] * 30, object)},
            r"cannot read '.*/c/labels.npy' \(ValueError: Object arrays .* expect",
        ),
        (
            {"labels": np.tile(_LABELS[::3], 15)},
            r"2 of the 2 classes of 'fog' at severity 1 of c are not among the run's 3",
        ),
        ({"labels": np.repeat(_LABELS, 5)}, r"'.*/c/labels.npy' must repeat the same N labels five times, once per"),
        ({"labels": np.tile(_LABELS, 5) * 0}, r"'.*/c/fog.npy' must have at least 2 classes; got 1"),
    ],
)
def test_open_corrupted_npy_rejects_invalid_arrays(tmp_path, arrays, message):
    root = _write_npy(tmp_path / "c", _images("fog"), **arrays)
    with pytest.raises(UserError, match=message) as error:
        _open(f"npy:{root}")
    assert "\n" not in str(error.value)


def test_open_corrupted_npy_rejects_other_image_shapes(tmp_path):
    root = _write_npy(tmp_path / "c", _images("fog"))
    message = r"images of 'fog' are \[5, 5, 3\], but those of the run are \[8, 8, 3\]; give images of the same height"
    with pytest.raises(UserError, match=message):
        _open(f"npy:{root}", image_shape=(8, 8, 3))
    np.save(root / "snow.npy", np.zeros((30, 6, 6, 3), np.uint8))
    with pytest.raises(UserError, match=r"images of 'snow' are \[6, 6, 3\], but those of the run are \[5, 5, 3\]"):
        _open(f"npy:{root}")


def test_open_corrupted_npy_takes_many_channels_of_a_run(tmp_path):
    root = _write_npy(tmp_path / "c", {})
    np.save(root / "fog.npy", np.zeros((30, 5, 5, 13), np.uint8))
    assert _open(f"npy:{root}", image_shape=(5, 5, 13)).stream("fog", 1).image_shape == (5, 5, 13)


def test_open_corrupted_npy_rejects_unreadable_files(tmp_path):
    with pytest.raises(UserError, match=r"cannot read folder '.*/none' \(FileNotFoundError.*; expected: <corr"):
        _open(f"npy:{tmp_path}/none")
    with pytest.raises(UserError, match=r"no corruptions in '.*'; expected: <corruption>.npy \(uint8 \[5N, H"):
        _open(f"npy:{tmp_path}")
    root = _write_npy(tmp_path / "c", _images("fog"))
    (root / "labels.npy").rename(root / "labels")
    with pytest.raises(UserError, match=r"cannot read '.*/c/labels.npy' \(FileNotFoundError.*; expected: .* and la"):
        _open(f"npy:{root}")
    (root / "labels").rename(root / "labels.npy")
    content = (root / "fog.npy").read_bytes()
    for corrupt in (content[:-1], content[:50], b"", b"PK\x03\x04"):
        (root / "fog.npy").write_bytes(corrupt)
        with pytest.raises(UserError, match=r"cannot read '.*/c/fog.npy' \(.*; expected: <corruption>.npy"):
            _open(f"npy:{root}")


def test_open_corrupted_npy_memory_does_not_grow(tmp_path):
    (tmp_path / "c").mkdir()
    np.save(tmp_path / "c" / "fog.npy", np.zeros((5 * 600, 32, 32, 3), np.uint8))
    np.save(tmp_path / "c" / "labels.npy", np.arange(5 * 600) % 3)
    stream = _open(f"npy:{tmp_path}/c", image_shape=(32, 32, 3)).stream("fog", 5)
    batch, all_bytes = 20 * 32 * 32 * 3, 600 * 32 * 32 * 3
    tracemalloc.start()
    for _ in stream.batches(20):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert batch < peak < 4 * batch < all_bytes / 7


# folders, as in ImageNet-C


def _write_folders(root: Path, images: Images, severity_name=lambda severity: str(severity)) -> Path:
    for (member, severity), part in images.items():
        for row, image in enumerate(part):
            file = root / member / severity_name(severity) / _LABEL_NAMES[_LABELS[row]] / f"{row}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)
    return root


def test_open_corrupted_folder(tmp_path):
    images = _images("fog", "glass_blur")
    root = _write_folders(tmp_path / "ImageNet-C", images)
    (root / ".hidden").mkdir()
    (root / "README.txt").touch()
    _change(root, "add", "fog/1/bee/deeper")
    for name in ("2.png", "3.png"):
        (root / "fog/1/bee" / name).rename(root / "fog/1/bee/deeper" / name)
    for severity in range(1, 6):
        (root / "fog" / str(severity) / "ant" / "Thumbs.db").touch()
    with pytest.warns(SkippedFilesWarning, match=r"^6 files are not read in '.*' \(.db: 5, .txt: 1\)") as warned:
        found = _open(f"folder:{root}/")
    assert (len(warned), found.name) == (1, "ImageNet-C")
    _assert_contains(found, images)


def test_open_corrupted_folder_with_groups(tmp_path):
    images = _images("fog", "glass_blur", "gaussian_noise")
    root = _write_folders(tmp_path / "ImageNet-C", images)
    for group, member in (("weather", "fog"), ("blur", "glass_blur")):  # gaussian_noise is in no group
        (root / group).mkdir()
        (root / member).rename(root / group / member)
    _assert_contains(_open(f"folder:{root}"), images)
    _write_folders(root / "blur", _images("fog"))
    with pytest.raises(UserError, match=r"'fog' occurs twice in '.*ImageNet-C'; expected layout: <path>/<corruption>/"):
        _open(f"folder:{root}")


def test_open_corrupted_folder_sorts_strengths_as_numbers(tmp_path):
    images = _images("sparkles")
    strengths = ["1.00", "2.50", "9.15", "10.00", "12.00"]  # sorted as text, "10.00" precedes "2.50"
    root = _write_folders(tmp_path / "ImageNet-C-Bar", images, lambda severity: strengths[severity - 1])
    _assert_contains(_open(f"folder:{root}"), images)


def test_open_corrupted_folder_maps_labels_to_the_run(tmp_path):
    images = _images("fog")
    run_names = ("cat", "ant", "bee")
    found = _open(f"folder:{_write_folders(tmp_path / 'c', images)}", label_names=run_names)
    _assert_contains(found, images, label_names=run_names, labels=[1, 1, 2, 2, 0, 0])


def test_open_corrupted_folder_resizes_images(tmp_path):
    root = _write_folders(tmp_path / "c", _images("fog"))
    for shape in ((3, 3, 1), (3, 4, 3)):
        images, _ = _open(f"folder:{root}", image_shape=shape).stream("fog", 1).first(2)
        assert images.shape == (2, *shape)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("rm fog/3", r"'fog' of c lacks severity 3; all of 1 to 5 are needed"),
        ("rm fog/1 fog/5", r"'fog' of c lacks severity 1, 5; all of 1 to 5 are needed"),
        ("add fog/6/ant", r"'.*/c/fog' has the severities 1, 2, 3, 4, 5, 6; 1 to 5 or five strengths are needed"),
        (
            "rm fog/2/bee",
            r"'fog' at severity 2 of c has 4 examples, but 'fog' at severity 1 has 6; the numbers must",
        ),
        ("rm fog/1/ant/0.png", r"'fog' at severity 2 of c has 6 examples, but 'fog' at severity 1 has 5; the numbers"),
        (
            "mv fog/4/bee fog/4/eel",
            r"1 of the 3 classes of 'fog' at severity 4 of c are not among the run's 3: eel; ",
        ),
        ("add fog/x", r"no severities in '.*/c/fog/1'; expected layout: <path>/<corruption>/<severity>/<class name>/"),
        ("add snow", r"no severities in '.*/c/snow'; expected layout"),
        ("add weather/snow/mild", r"no severities in '.*/c/weather/snow'; expected layout"),
        ("rm fog", r"no corruptions in '.*/c'; expected layout: <path>/<corruption>/"),
        ("rm .", r"cannot read folder '.*/c' \(FileNotFoundError.*; expected layout: <path>/<corruption>/"),
    ],
)
def test_open_corrupted_folder_rejects_incomplete_sets(tmp_path, change, message):
    root = _write_folders(tmp_path / "c", _images("fog"))
    _change(root, *change.split())
    with pytest.raises(UserError, match=message) as error:
        _open(f"folder:{root}")
    assert "\n" not in str(error.value)


def _change(root: Path, how: str, *names: str):
    if how == "mv":
        (root / names[0]).rename(root / names[1])
    for name in names if how == "add" else ():
        (root / name).mkdir(parents=True)
    for name in names if how == "rm" else ():
        below = sorted([root / name, *(root / name).rglob("*")], reverse=True)
        for path in below:
            path.rmdir() if path.is_dir() else path.unlink()


def test_open_corrupted_folder_reports_missing_classes(tmp_path):
    images = {key: part[:4] for key, part in _images("fog").items()}
    root = _write_folders(tmp_path / "c", images)
    message = "'fog' at severity 1 of c has no example of 1 of the 3 classes: cat"
    with pytest.warns(UserWarning, match=message) as warned:
        assert _open(f"folder:{root}").stream("fog", 3).labels().tolist() == [0, 0, 1, 1]
    assert len(warned) == 1


def test_open_corrupted_folder_names_corrupt_image(tmp_path):
    root = _write_folders(tmp_path / "c", _images("fog"))
    (root / "fog" / "3" / "bee" / "3.png").write_bytes(b"no image")
    stream = _open(f"folder:{root}").stream("fog", 3)
    with pytest.raises(UserError, match=r"cannot read image .*/c/fog/3/bee/3.png \(.*; replace or remove it"):
        list(stream.batches(4))


# TensorFlow Datasets, as in cifar10_corrupted


def _prepare(data_dir: Path, name: str, images: Images, split="test", names=None, labels=_LABELS) -> Path:
    """Prepare datasets `name/corruption_severity` with these class names, or with three unnamed classes."""
    label = tfds.features.ClassLabel(names=names) if names else tfds.features.ClassLabel(num_classes=3)
    for (member, severity), part in images.items():
        configuration = f"{member}_{severity}"
        features = {"image": tfds.features.Image(shape=_SHAPE), "label": label}
        folder = write_tfds(data_dir / name, configuration, [_png(image) for image in part], labels, features)
        info = json.loads((folder / "dataset_info.json").read_text())
        info["splits"][0]["name"] = split
        (folder / "dataset_info.json").write_text(json.dumps(info))
        (records,) = folder.glob("*array_record*")
        records.rename(records.with_name(records.name.replace("-train.", f"-{split}.")))
    return data_dir


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def test_open_corrupted_tfds_without_class_names(tmp_path, monkeypatch):
    images = _images("fog", "frosted_glass_blur", "elastic")
    monkeypatch.setenv("TFDS_DATA_DIR", str(_prepare(tmp_path, "cifar10_corrupted", images)))
    published = {"fog": "fog", "frosted_glass_blur": "glass_blur", "elastic": "elastic_transform"}
    expected = {(published[member], severity): part for (member, severity), part in images.items()}
    found = _open("tfds:cifar10_corrupted")
    assert found.name == "cifar10_corrupted"
    _assert_contains(found, expected)


def test_open_corrupted_tfds_split(tmp_path):
    images = _images("fog")
    _prepare(tmp_path, "imagenet2012_corrupted", images, split="validation", names=_LABEL_NAMES)
    _assert_contains(_open("tfds:imagenet2012_corrupted", tfds_dir=tmp_path), images)
    _assert_contains(_open("tfds:imagenet2012_corrupted@validation", tfds_dir=tmp_path), images)
    with pytest.raises(UserError, match=r"split 'test' of .* is unknown or empty; allowed: validation"):
        _open("tfds:imagenet2012_corrupted@test", tfds_dir=tmp_path)


def test_open_corrupted_tfds_rejects_other_classes(tmp_path):
    _prepare(tmp_path, "cifar10_corrupted", _images("fog"))
    message = (
        "3 of the 3 classes of 'fog' at severity 1 of cifar10_corrupted are not among the run's 4: 0, 1, 2; the run"
    )
    with pytest.raises(UserError, match=message):
        _open("tfds:cifar10_corrupted", label_names=(*_LABEL_NAMES, "dog"), tfds_dir=tmp_path)


def test_open_corrupted_tfds_rejects_missing_severities(tmp_path):
    images = _images("brightness", "fog")
    _prepare(tmp_path, "cifar10_corrupted", {key: images[key] for key in images if key[0] == "fog" or key[1] == 1})
    with pytest.raises(UserError, match=r"'brightness' of cifar10_corrupted lacks severity 2, 3, 4, 5; all of 1 to 5"):
        _open("tfds:cifar10_corrupted", tfds_dir=tmp_path)


def test_open_corrupted_tfds_rejects_different_lengths(tmp_path):
    images = _images("fog")
    short = {key: images.pop(key)[:5] for key in [("fog", 4)]}
    _prepare(tmp_path, "cifar10_corrupted", images)
    _prepare(tmp_path, "cifar10_corrupted", short, labels=_LABELS[:5])
    with pytest.raises(UserError, match=r"'fog' at severity 4 of cifar10_corrupted has 5 examples, but 'fog' at .* 6;"):
        _open("tfds:cifar10_corrupted", tfds_dir=tmp_path)


def test_open_corrupted_tfds_not_prepared_prints_command(tmp_path):
    message = r"no corruption of the TFDS dataset 'cifar10_corrupted' is prepared in '.*'; corrupted datasets"
    with pytest.raises(UserError, match=message) as error:
        _open("tfds:cifar10_corrupted", tfds_dir=tmp_path)
    code = str(error.value).split('python -c "')[1].split('"')[0]
    compile(code, "<command>", "exec")
    assert f"tfds.builder('cifar10_corrupted', config=c, data_dir='{tmp_path}', file_format='array_record')" in code
    assert (
        len(tfds.builder_cls("cifar10_corrupted").builder_configs) == 95
    )  # the number of datasets that the command prepares


# comparison with the clean set


def test_check_differs_rejects_a_clean_severity(tmp_path):
    images = _images("fog")
    found = _open(f"npy:{_write_npy(tmp_path / 'c', images)}")
    clean = eval_dataset(Dataset(images["fog", 3], np.array(_LABELS, np.int32), _LABEL_NAMES), "test")
    check_differs(clean, found.stream("fog", 1))
    with pytest.raises(UserError, match=r"the first images of 'c-fog-3' are all in the clean set 'test'"):
        check_differs(clean, *(found.stream("fog", severity) for severity in range(1, 6)))
