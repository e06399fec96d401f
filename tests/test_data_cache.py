"""The cache of decoded images: reuse, invalidation, and corrupt or unwritable files."""

import os
import pwd
from pathlib import Path

import numpy as np
import pytest
from image_files import assert_same_dataset, forbid_decoding, write_image, write_small_folder

from anchor_jax.data import load

pytestmark = pytest.mark.min_versions


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keep the tests out of the user's cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ANCHOR_JAX_CACHE", str(folder))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_small_folder(tmp_path / "images")


def test_cache_returns_the_decoded_dataset(folder, cache, monkeypatch):
    decoded = load("folder", "train", path=str(folder))
    assert [file.suffix for file in cache.iterdir()] == [".npz"]
    forbid_decoding(monkeypatch)
    assert_same_dataset(decoded, load("folder", "train", path=str(folder)))


def test_cache_dir_overrides_the_environment(folder, cache, tmp_path):
    load("folder", "train", path=str(folder), cache_dir=tmp_path / "other")
    assert len(list((tmp_path / "other").iterdir())) == 1
    assert not cache.exists()


@pytest.mark.parametrize(("variable", "expected"), [("XDG_CACHE_HOME", "anchor_jax"), ("HOME", ".cache/anchor_jax")])
def test_cache_default_folder(folder, tmp_path, monkeypatch, variable, expected):
    monkeypatch.delenv("ANCHOR_JAX_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "home"))
    load("folder", "train", path=str(folder))
    assert len(list((tmp_path / "home" / expected).iterdir())) == 1


@pytest.mark.parametrize(
    ("folder_of_cache", "reason"),
    [
        (None, "there is no home directory; set ANCHOR_JAX_CACHE to a folder"),
        ("~/cache", "ANCHOR_JAX_CACHE is '~/cache', but no home folder of ~ is known here; give an absolute path"),
        ("gs://bucket", "ANCHOR_JAX_CACHE is 'gs://bucket', an address"),
    ],
)
def test_cache_without_home_warns(folder, cache, monkeypatch, folder_of_cache, reason):
    def nobody(_):
        raise KeyError

    for variable in ("ANCHOR_JAX_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(variable, raising=False)
    if folder_of_cache:
        monkeypatch.setenv("ANCHOR_JAX_CACHE", folder_of_cache)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.warns(UserWarning, match=f"cannot cache decoded images: {reason}"):
        assert len(load("folder", "train", path=str(folder)).images)


def test_cache_is_invalidated_by_a_changed_file(folder):
    before = load("folder", "train", path=str(folder))
    file = folder / "train" / "ant" / "z.bmp"  # BMP: other pixels, same number of bytes
    size, time = file.stat().st_size, file.stat().st_mtime_ns
    pixels = write_image(file, seed=99)
    os.utime(file, ns=(time + 1, time + 1))
    assert file.stat().st_size == size
    after = load("folder", "train", path=str(folder))
    np.testing.assert_array_equal(after.images[0], pixels)
    np.testing.assert_array_equal(after.images[1:], before.images[1:])
    write_image(folder / "train" / "eel" / "1.png")
    assert load("folder", "train", path=str(folder)).label_names == ("ant", "cat", "dog", "eel")


def _flip_pixel(file: Path):
    content = bytearray(file.read_bytes())
    content[len(content) // 4] ^= 1
    file.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "corrupt",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-100]),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"not a zip"),
        _flip_pixel,
        lambda file: np.savez(file, images=np.zeros((4, 6, 6, 3))),
        lambda file: np.savez(file, images=np.zeros((4, 6, 6, 3)), labels=np.zeros(4, int), label_names=["a", "b"]),
        lambda file: np.savez(file, images=np.zeros((4, 6), np.uint8), labels=np.zeros(4, int), label_names=["a", "b"]),
        lambda file: np.savez(file, images=np.array([{}]), labels=np.zeros(1, int), label_names=["a", "b"]),
    ],
    ids=["truncated", "empty", "text", "flipped bit", "keys", "dtype", "shape", "pickle"],
)
def test_cache_is_rebuilt_if_corrupt(folder, cache, monkeypatch, corrupt):
    decoded = load("folder", "train", path=str(folder))
    (file,) = cache.iterdir()
    corrupt(file)
    with pytest.warns(UserWarning, match="rebuilding a corrupt cache: .*images-train-0px"):
        assert_same_dataset(decoded, load("folder", "train", path=str(folder)))
    forbid_decoding(monkeypatch)
    assert_same_dataset(decoded, load("folder", "train", path=str(folder)))
    assert list(cache.iterdir()) == [file]


def test_cache_warns_if_folder_is_not_writable(folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="cannot cache decoded images in '.*file/inside'"):
        dataset = load("folder", "train", path=str(folder), cache_dir=tmp_path / "file" / "inside")
    assert len(dataset.images) == 4


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_cache_interrupted_write_leaves_no_file(folder, cache, monkeypatch, error):
    def write_half(file, **arrays):
        Path(file).write_bytes(b"half")
        raise error

    monkeypatch.setattr(np, "savez", write_half)
    if isinstance(error, OSError):
        with pytest.warns(UserWarning, match="cannot cache decoded images in .*No space left"):
            load("folder", "train", path=str(folder))
    else:
        with pytest.raises(KeyboardInterrupt):
            load("folder", "train", path=str(folder))
    assert list(cache.iterdir()) == []
