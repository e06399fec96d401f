"""Source "npz": valid files, invalid ones, and fuzzed bytes and arrays."""

import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from anchor_jax.core.errors import UserError
from anchor_jax.data import load, open_stream

pytestmark = pytest.mark.min_versions


@pytest.fixture
def npz(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "data.npz", allow_pickle=True, **arrays)
        return str(tmp_path / "data.npz")

    return write


_X = np.arange(4 * 3 * 2, dtype=np.uint8).reshape(4, 3, 2)
_Y = np.array([0, 2, 1, 2])


def test_npz_reads_keras_convention(npz):
    path = npz(x_train=_X, y_train=_Y[:, None].astype(np.uint8), x_test=_X[:2, :, :, None], y_test=_Y[:1].repeat(2))
    train, test = load("npz", "train", path=path), load("npz", "test", path=path)
    np.testing.assert_array_equal(train.images, _X[..., None])
    assert train.labels.tolist() == [0, 2, 1, 2]
    assert train.labels.dtype == np.int32
    assert test.images.shape == (2, 3, 2, 1)
    assert train.label_names == test.label_names == ("0", "1", "2")  # although the test split lacks 1 and 2


def test_npz_counts_classes_of_all_splits(npz):
    path = npz(x_train=_X, y_train=_Y, x_test=_X, y_test=_Y + 1)
    assert load("npz", "train", path=path).label_names == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("labels", "names", "rows", "message"),
    [
        (
            [1, 3, 2, 3],
            ("1", "2", "3"),
            [0, 2, 1, 2],
            r"labels of '.*' are 1..3 instead of 0..2: they make 3 classes, n",
        ),
        ([5, 20, 10, 5], ("5", "10", "20"), [0, 2, 1, 0], r"labels of '.*' are 5, 10, 20 instead of 0..2"),
        ([1, -1, 1, 1], ("-1", "1"), [1, 0, 1, 1], r"labels of '.*' are -1, 1 instead of 0..1"),
        ([0.0, 1.0, 2.0, 1.0], ("0", "1", "2"), [0, 1, 2, 1], "labels of npz split 'train' are float64; they are read"),
        ([True, False, True, True], ("0", "1"), [1, 0, 1, 1], "labels of npz split 'train' are bool; they are read"),
        (np.uint64([2**62, 0, 7, 7]), ("0", "7", str(2**62)), [2, 0, 1, 1], "labels of '.*' are 0, 7, 46"),
    ],
)
def test_npz_maps_numbers_and_tells(npz, labels, names, rows, message):
    path = npz(x_train=_X, y_train=labels, x_test=_X[:1], y_test=np.asarray(labels)[1:2], y_other=[77])
    with pytest.warns(UserWarning, match=message):
        train = load("npz", "train", path=path)
    with pytest.warns(UserWarning, match="labels of"):
        test = load("npz", "test", path=path)
    assert train.labels.tolist() == rows
    assert train.label_names == test.label_names == names  # although the test split has one of them
    assert test.labels.tolist() == rows[1:2]


@pytest.mark.parametrize("names", [(), ("öl", "cat", "ant")])
@pytest.mark.parametrize("encode", [str, lambda name: name.encode()])
def test_npz_reads_labels_that_are_names(npz, names, encode):
    decomposed = "o\u0308l"
    arrays = {"y_train": list(map(encode, ["cat", "öl", "ant", decomposed])), "y_test": [encode(decomposed)]}
    path = npz(x_train=_X, x_test=_X[:1], **arrays, **({"label_names": names} if names else {}))
    train, test = load("npz", "train", path=path), load("npz", "test", path=path)
    assert train.label_names == test.label_names == (names or ("ant", "cat", "öl"))
    assert train.labels.tolist() == ([1, 0, 2, 0] if names else [1, 2, 0, 2])
    assert test.labels.tolist() == [0 if names else 2]


def test_npz_tells_similar_names(npz):
    message = (
        "the classes 'ant' and 'Ant ' of npz split 'train' differ only in case or white space; they are two classes"
    )
    with pytest.warns(UserWarning, match=message):
        load("npz", "train", path=npz(x_train=_X, y_train=_Y, label_names=["ant", "bee", "Ant "]))


def test_npz_reads_label_names(npz):
    path = npz(x_train=_X, y_train=_Y, label_names=["ant", "bee", "cat", "dog"])
    assert load("npz", "train", path=path).label_names == ("ant", "bee", "cat", "dog")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_test": _X, "y_test": _Y}, r"no array 'x_train' in '.*data.npz'; it contains: x_test, y_test"),
        ({"x_train": _X, "y": _Y}, r"no array 'y_train' in '.*data.npz'; it contains: x_train, y$"),
        (
            {"x_train": _X / np.float32(255)},
            r"images of npz split 'train' must be uint8; got float32; .* \(255 \* images\).round\(\).astype\('uint8'\)",
        ),
        ({"x_train": _X[0]}, r"images of npz split 'train' must be \[N, H, W, C\] and not empty; got \[3, 2\]"),
        ({"x_train": _X[:0], "y_train": _Y[:0]}, r"must be \[N, H, W, C\] and not empty; got \[0, 3, 2, 1\]"),
        ({"y_train": _Y[:3]}, r"labels of npz split 'train' must be \[4\], one per image; got \[3\]"),
        ({"y_train": np.eye(4, dtype=int)}, r"must be \[N\], one per image; got \[4, 4\]; if they are one-hot, save"),
        ({"y_train": _Y / 4}, "labels of npz split 'train' must be integers or strings; got float64, such as 0.5"),
        ({"y_train": _Y * np.nan}, "must be integers or strings; got float64, such as nan"),
        ({"y_train": _Y * 1e30}, "labels of npz split 'train' must fit into 64 bits; got 2e\\+30"),
        ({"y_train": _Y * 1j}, "labels of npz split 'train' must be integers or strings; got complex128"),
        ({"y_train": ["a", "b", " ", "b"]}, "labels of npz split 'train' must not be empty strings"),
        ({"y_train": [b"a", b"b", b"\xff", b"b"]}, "are bytes that are not UTF-8; save them as strings"),
        (
            {"x_train": _X, "y_train": list("abcb"), "y_test": _Y, "x_test": _X},
            "are numbers in y_test and strings in y_train; save",
        ),
        ({"y_train": list("abcb"), "label_names": ["a", "b"]}, "1 of the labels of npz split .* label_names: c; label"),
        (
            {"y_train": _Y + 1, "label_names": list("abc")},
            r"must be in 0..2; got values from 1 to 3; the first class is",
        ),
        ({"label_names": ["caf\u00e9", "cafe\u0301", "c"]}, "two classes of npz split 'train' are named 'caf"),
        ({"y_train": _Y * 0}, "npz split 'train' must have at least 2 classes; got 1"),
        ({"label_names": ["a", "b"]}, "labels of npz split 'train' must be in 0..1; got values from 0 to 2"),
        ({"label_names": [1, 2, 3]}, r"label_names in '.*' must be strings \[classes\]; got int64 \[3\]"),
        (
            {"x_train": np.array([{}] * 4)},
            r"cannot read '.*data.npz' \(ValueError: Object arrays cannot be loaded",
        ),
    ],
)
def test_npz_rejects_invalid_arrays(npz, arrays, message):
    complete = arrays if "x_test" in arrays or "y" in arrays else {"x_train": _X, "y_train": _Y} | arrays
    with pytest.raises(UserError, match=message):
        load("npz", "train", path=npz(**complete))


@pytest.mark.parametrize("shape", [(4, 3, 9, 9), (4, 1, 9, 8), (4, 13, 9, 9), (4, 9, 9, 13), (4, 1, 9, 5)])
def test_npz_requires_the_number_of_many_channels(npz, shape):
    path = npz(x_train=np.zeros(shape, np.uint8), y_train=_Y)
    message = (
        rf"\Aimages of npz split 'train' must be \[N, H, W, C\] with up to 4 channels; got \[{str(shape)[1:-1]}\]; if "
        rf"these are \[N, C, H, W\], pass images.transpose\(0, 2, 3, 1\); .* set config.data.channels={shape[-1]}\Z"
    )
    with pytest.raises(UserError, match=message):
        load("npz", "train", path=path)
    with pytest.raises(UserError, match=message):
        open_stream("npz", "train", path=path)
    assert load("npz", "train", path=path, channels=shape[-1]).images.shape == shape
    with pytest.raises(UserError, match=rf"with {shape[1]} channels; got .* pass images.transpose\(0, 2, 3, 1\)"):
        load("npz", "train", path=path, channels=shape[1])


@pytest.mark.parametrize("source", ["npz", "digits"])
def test_load_requires_the_given_number_of_channels(npz, source):
    path = npz(x_train=_X, y_train=_Y)
    with pytest.raises(UserError, match=r"config.data.channels=3, but images of .* are \[.*, 1\]; .*mode='L' or 'RGB'"):
        load(source, "train", path=path, channels=3)
    assert load(source, "train", path=path, channels=3, mode="RGB").images.shape[-1] == 3


def test_npz_rejects_unreadable_files(tmp_path):
    with pytest.raises(UserError, match=r"data.path is empty; expected: an .npz file with the arrays x_train \(uint8"):
        load("npz", "train")
    with pytest.raises(UserError, match=r"cannot read '.*none.npz' \(FileNotFoundError.*; expected: an .npz file"):
        load("npz", "train", path=str(tmp_path / "none.npz"))
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(UserError, match=r"cannot read '.*text.npz' \(ValueError.*; expected: an .npz file"):
        load("npz", "train", path=str(tmp_path / "text.npz"))
    np.save(tmp_path / "single.npy", _X)
    with pytest.raises(UserError, match=r"cannot read '.*single.npy' .*; expected: an .npz file"):
        load("npz", "train", path=str(tmp_path / "single.npy"))


def _loads_or_explains(content: bytes):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "fuzz.npz"
        file.write_bytes(content)
        try:
            dataset = load("npz", "train", path=str(file))
        except UserError:
            return
    assert dataset.images.dtype == np.uint8
    assert dataset.images.ndim == 4
    assert dataset.labels.shape == (len(dataset.images),)
    assert 0 <= dataset.labels.min() <= dataset.labels.max() < len(dataset.label_names)


def _npz_bytes(arrays: dict) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


_ARRAYS = st_numpy.arrays(
    st.sampled_from(["u1", "i1", "i8", "u8", "f4", "f8", "?", "U3", "S2", "c8", ">i4", "M8[s]"]).map(np.dtype),
    st_numpy.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=3),
)
_KEYS = st.sampled_from(["x_train", "y_train", "label_names", "y_test", "x_test", "other"])


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=100, deadline=None, database=None)
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda tail: b"PK\x03\x04" + tail)))
def test_npz_fuzz_random_bytes(content):
    _loads_or_explains(content)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150, deadline=None, database=None)
@given(st.dictionaries(_KEYS, _ARRAYS))
def test_npz_fuzz_random_arrays(arrays):
    _loads_or_explains(_npz_bytes({"x_train": _X, "y_train": _Y} | arrays))
    _loads_or_explains(_npz_bytes(arrays))


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150, deadline=None, database=None)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4))
def test_npz_fuzz_flipped_bytes(flips):
    content = bytearray(_npz_bytes({"x_train": _X, "y_train": _Y, "label_names": ["a", "b", "c"]}))
    for place, mask in flips:
        content[int(place * len(content))] ^= mask
    _loads_or_explains(bytes(content))
