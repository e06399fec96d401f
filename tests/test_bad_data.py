"""Tests of `train.py` with bad data: the error is one line, and files stay as they were."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from bad_commands import BASE_CONFIG, FEW_IMAGES, training, unchanged
from commands import assert_error, quick_command
from corrupt_files import (
    HUGE,
    POSTSCRIPT,
    Mark,
    image,
    image_folder,
    npy,
    npy_array,
    npy_of,
    npz,
    pickled,
    png_of,
    prepared_set,
    zipped,
)

X, Y = np.arange(24, dtype=np.uint8).reshape(4, 3, 2), np.array([0, 1, 0, 1])


def _good(**others):
    return {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y} | others


_MEMBERS = {f"{name}.npy": npy_array(array) for name, array in _good().items()}

NPZ = {
    "pickle for images": (lambda at: npz(**_good(x_train=np.array([Mark(at)] * 4))), "Object arrays cannot be loaded"),
    "pickle for names": (lambda at: npz(**_good(label_names=np.array([Mark(at)]))), "Object arrays cannot be loaded"),
    "pickle of another split": (lambda at: npz(**_good(y_more=np.array([Mark(at)]))), "Object arrays cannot be loaded"),
    "pickle for an array": (lambda at: zipped(_MEMBERS | {"y_train.npy": pickled(at)}), "labels of npz split 'train'"),
    "pickle for the file": (pickled, "pickled (object) data"),
    "code in a header": (lambda at: zipped(_MEMBERS | {"x_train.npy": npy("open('mark', 'w')")}), "malformed node"),
    "names that lead out": (
        lambda at: zipped({f"../../{name}": content for name, content in _MEMBERS.items()}),
        "no array 'x_train' in",
    ),
    "terabytes": (lambda at: zipped(_MEMBERS | {"x_train.npy": npy_of((HUGE, 3, 2))}), "MemoryError: Unable to alloc"),
    "more than can be counted": (lambda at: zipped(_MEMBERS | {"x_train.npy": npy_of((1 << 62, 1 << 62))}), "cannot r"),
    "wrong magic": (lambda at: b"PK\3\5" + npz(**_good())[4:], "cannot read"),
    "truncated": (lambda at: npz(**_good())[:-30], "cannot read"),
    "empty": (lambda at: b"", "cannot read"),
    "images of floats": (lambda at: npz(**_good(x_train=X / 255)), "must be uint8; got float64"),
    "images of nan": (lambda at: npz(**_good(x_train=X * np.nan)), "must be uint8; got float64"),
    "images of rank 2": (lambda at: npz(**_good(x_train=X[0])), "must be [N, H, W, C] and not empty; got [3, 2]"),
    "labels of floats": (
        lambda at: npz(**_good(y_train=Y / 2)),
        "must be integers or strings; got float64, such as 0.5",
    ),
    "one-hot labels": (
        lambda at: npz(**_good(y_train=np.eye(2)[Y])),
        "if they are one-hot, save labels.argmax(axis=1)",
    ),
    "one class": (lambda at: npz(**_good(y_train=Y * 0, y_test=Y * 0)), "must have at least 2 classes; got 1"),
    "two classes of one name": (lambda at: npz(**_good(label_names=["a", "a"])), "two classes of npz split 'train' ar"),
    "a name that a terminal obeys": (lambda at: npz(**{"\x1b[31m": X}), "it contains: ?[31m"),
    "test images of another size": (lambda at: npz(**_good(x_test=X[:, :2])), "images of split 'test' are [2, 2, 1]"),
    "no test set": (lambda at: npz(x_train=X, y_train=Y), "no array 'x_test' in"),
}


@pytest.mark.parametrize("case", NPZ)
def test_train_rejects_bad_npz_files(case, tmp_path):
    make, message = NPZ[case]
    path = tmp_path / "data.npz"
    path.write_bytes(make(tmp_path))
    with unchanged(tmp_path):
        assert_error(
            training(tmp_path, *FEW_IMAGES, "--config.data.source=npz", f"--config.data.path={path}"), 1, message
        )


def _replaced(content, name="0.png"):
    """Return a function that makes a folder of images, one of which has other bytes or is made by `content`."""

    def make(place):
        root = image_folder(place / "images")
        (root / "train/ant/0.png").unlink()
        file = root / "train/ant" / name
        if callable(content):
            content(file)
        else:
            file.write_bytes(content)
        return root

    return make


def _other_test_classes(place):
    root = image_folder(place / "images")
    (root / "test/bee").rename(root / "test/cat")
    return root


def _empty_class(place):
    root = image_folder(place / "images")
    (root / "train/cat").mkdir()
    return root


def _loop(place):
    root = image_folder(place / "images")
    shutil.rmtree(root / "train")
    (root / "train").symlink_to("train")
    return root


FOLDERS = {
    "missing": (lambda at: at / "nothing", "FileNotFoundError"),
    "a file": (lambda at: Path(__file__), "NotADirectoryError"),
    "no user's": (lambda at: Path("~nobody_of_that_name/images"), "no home folder of ~nobody_of_that_name is known"),
    "no split": (lambda at: at, "no split 'train' in"),
    "one class": (lambda at: image_folder(at / "images", ("ant",)), "images-train must have at least 2 classes; got 1"),
    "no class": (lambda at: image_folder(at / "images", ()), "no class folders in"),
    "an empty class": (_empty_class, "no images in class folder"),
    "other classes to test": (
        _other_test_classes,
        "1 of the 2 classes of split 'test' are not among the run's 2: cat; the",
    ),
    "links in a circle": (_loop, "no split 'train' in"),
    "text": (_replaced(b"no image"), "UnidentifiedImageError"),
    "nothing": (_replaced(b""), "UnidentifiedImageError"),
    "truncated PNG": (_replaced(image(size=60)[:-400]), "OSError: image file is truncated"),
    "truncated JPEG": (_replaced(image("jpeg", 60)[:-300], "0.jpg"), "ant/0.jpg (OSError"),
    "PostScript": (_replaced(POSTSCRIPT), "UnidentifiedImageError"),
    "bomb": (_replaced(png_of(100_000, 100_000)), "DecompressionBombError"),
    "bomb called .jpg": (_replaced(png_of(100_000, 100_000), "0.jpg"), "DecompressionBombError"),
    "small bomb": (
        _replaced(png_of(10_000, 10_000)),
        "DecompressionBombError: 10000 x 10000 pixels are more than 89478485",
    ),
    "no pixels": (_replaced(png_of(0, 0)), "ant/0.png (UnidentifiedImageError"),
    "another size": (_replaced(image(size=7)), "images differ in size"),
    "a pipe": (_replaced(os.mkfifo), "ant/0.png (OSError: not a regular file); replace or remove it"),
    "a device": (_replaced(lambda file: file.symlink_to("/dev/zero")), "not a regular file"),
    "a folder": (_replaced(Path.mkdir), "ant/0.png (IsADirectoryError"),
    "a link to nothing": (_replaced(lambda file: file.symlink_to("nothing")), "ant/0.png' (FileNotFoundError"),
    "a link to itself": (_replaced(lambda file: file.symlink_to(file)), "Too many levels of symbolic links"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_train_rejects_bad_folders_of_images(case, tmp_path):
    make, message = FOLDERS[case]
    path = make(tmp_path)
    with unchanged(tmp_path):
        assert_error(
            training(tmp_path, *FEW_IMAGES, "--config.data.source=folder", f"--config.data.path={path}"), 1, message
        )


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_train_reports_an_image_without_read_permission(tmp_path):
    root = image_folder(tmp_path / "images")
    (root / "train/ant/0.png").chmod(0)
    done = training(tmp_path, "--config.data.source=folder", f"--config.data.path={root}")
    assert_error(done, 1, "PermissionError")


def _corrupt_dataset(damage):
    def make(place):
        damage(prepared_set(place))
        return "tiny"

    return make


def _shards(number):
    def damage(folder):
        info = json.loads((folder / "dataset_info.json").read_text())
        info["splits"][0]["shardLengths"] = number
        (folder / "dataset_info.json").write_text(json.dumps(info))

    return damage


def _cut_records(folder):
    file = next(folder.glob("*array_record*"))
    file.write_bytes(file.read_bytes()[:100])


_PARSING = "Parsing builder name string"

PREPARED = {
    "name that leads out": (lambda at: "../../etc/passwd", _PARSING),
    "absolute name": (lambda at: "/etc/passwd", _PARSING),
    "version that leads out": (lambda at: "mnist:../..", _PARSING),
    "empty name": (lambda at: "", "data.name is empty"),
    "long name": (lambda at: "x" * 300, "unknown TFDS dataset"),
    "garbage for features": (
        _corrupt_dataset(lambda f: (f / "features.json").write_text("{")),
        "cannot read TFDS dataset",
    ),
    "another class in features": (
        _corrupt_dataset(lambda f: (f / "features.json").write_text('{"pythonClassName": "os.system"}')),
        "cannot read TFDS dataset",
    ),
    "garbage for info": (
        _corrupt_dataset(lambda f: (f / "dataset_info.json").write_bytes(b"\xff")),
        "cannot read TFDS",
    ),
    "more shards than files": (_corrupt_dataset(_shards(["2", "2"])), "cannot read"),
    "more examples than there are": (_corrupt_dataset(_shards(["9"])), "cannot read"),
    "truncated records": (_corrupt_dataset(_cut_records), "cannot read"),
}


@pytest.mark.parametrize("case", PREPARED)
def test_train_rejects_bad_tfds_datasets(case, tmp_path):
    make, message = PREPARED[case]
    name = make(tmp_path)
    with unchanged(tmp_path):
        done = training(
            tmp_path,
            "--config.data.source=tfds",
            f"--config.data.name={name}",
            f"--config.data.path={tmp_path}",
            "--config.data.test_split=train",
        )
    assert_error(done, 1, message)


def test_commands_accept_spaces_and_unicode_in_paths(tmp_path):
    place = tmp_path / "ein Käfer 虫"
    place.mkdir()
    root = image_folder(place / "images", ("ant 1", 'bee\'s "2"', "虫"))
    (place / "c ö.py").write_text(
        f"{BASE_CONFIG}    config.model.name = 'mlp'\n    config.model.options.hidden = (4,)\n"
        "    config.training.total_epochs = 1.0\n    return config\n"
    )
    flags = ("--config.data.source=folder", f"--config.data.path={root}")
    done = training(place, *FEW_IMAGES, *flags, config=place / "c ö.py")
    assert (done.returncode, done.stderr) == (0, "")
    done = quick_command("eval.py", f"--workdir={place / 'run'}", "--num_references=1")
    assert (done.returncode, done.stderr) == (0, "")
