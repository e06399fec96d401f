"""Hashes of the content of datasets: equal for moved files, different for changed ones."""

import numpy as np
import pytest
from PIL import Image

from anchor_jax import data
from anchor_jax.data import content
from anchor_jax.data.files import FileList


def write_images(root, value, folders):
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for number in range(2):
            Image.new("L", (6, 6), value + number).save(root / folder / f"{number}.bmp")


def write_npz(root, value, _):
    root.mkdir(parents=True)
    np.savez(root / "x.npz", x_test=np.full((4, 6, 6, 1), value, np.uint8), y_test=np.arange(4) % 2)


def write_npy(root, value, _):
    root.mkdir(parents=True)
    np.save(root / "fog.npy", np.full((10, 6, 6, 1), value, np.uint8))
    np.save(root / "labels.npy", np.tile([0, 1], 5))


CORRUPTED = [f"fog/{severity}/{label}" for severity in range(1, 6) for label in "01"]
KINDS = {  # spec -> what opens it, what writes it, folders of images
    "images:{}": (data.open_dataset, write_images, ["", "inner"]),
    "folder:{}@test": (data.open_dataset, write_images, ["test/0", "test/1"]),
    "npz:{}/x.npz": (data.open_dataset, write_npz, []),
    "npy:{}": (data.open_corrupted, write_npy, []),
    "folder:{}": (data.open_corrupted, write_images, CORRUPTED),
}


@pytest.mark.parametrize("kind", KINDS)
def test_content_is_that_of_the_files_wherever_they_are(tmp_path, kind):
    opener, write, folders = KINDS[kind]

    def content_of(root):
        named = {"label_names": ("0", "1")} if opener is data.open_corrupted else {}
        return opener(kind.format(root), image_shape=(6, 6, 1), **named).content()

    for place, value in (("a", 0), ("b/moved", 0), ("c", 7)):
        write(tmp_path / place, value, folders)
    assert len(content_of(tmp_path / "a")) == 64
    assert content_of(tmp_path / "a") == content_of(tmp_path / "b/moved")
    assert content_of(tmp_path / "a") != content_of(tmp_path / "c")  # files of the same names and sizes


@pytest.mark.parametrize("limit", ["_MAX_READ_FILES", "_MAX_READ_BYTES", "_MAX_SIZES"])
def test_content_of_large_sets_is_sampled(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(content, limit, 1)
    monkeypatch.setattr(content, "_SAMPLED_FILES", 2)
    read = []
    monkeypatch.setattr(content, "open_file", lambda file: read.append(file.name) or file.open("rb"))
    for name in "abc":
        (tmp_path / name).write_bytes(bytes(100_000))
    files = FileList(tmp_path, "abc")
    before = content.content_of_files(files)
    assert read == ["a", "c"]
    (tmp_path / "c").write_bytes(bytes(99_999) + b"1")
    assert content.content_of_files(files) != before
    assert content.content_of_files(files, "other facts") != content.content_of_files(files)


def test_combined_content_ignores_the_order():
    assert content.combined_content(["a", "b"]) == content.combined_content(["b", "a"])
    assert content.combined_content(["a"]) == "a"
    assert content.combined_content(["a", ""]) == content.combined_content([]) == ""
