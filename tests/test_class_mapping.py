"""The rows of a dataset's classes among those of a run."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_datasets import LABEL_NAMES

from anchor_jax.core.errors import UserError
from anchor_jax.data import class_rows
from anchor_jax.data.class_mapping import warn_shared_classes


def test_class_rows_of_known_classes():
    run = ("n01", "n02", "n03", "n04")
    assert class_rows(run, run) is None
    assert _list(class_rows(("n02", "n04"), run)) == [1, 3]
    assert _list(class_rows(("n04", "n02"), run)) == [3, 1]
    assert _list(class_rows(("2", "1"), ("0", "1", "2"))) == [2, 1]
    numbers = tuple(map(str, range(11)))
    assert _list(class_rows(numbers, tuple(sorted(numbers)))) == [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 2]  # names decide


@pytest.mark.parametrize(
    ("names", "rows"), [(("0", "1", "2"), None), (("0", "2", "1"), [0, 2, 1]), (("0", "2"), [0, 2])]
)
def test_class_rows_of_numbers_are_told(names, rows):
    with pytest.warns(UserWarning, match="^'x' has no class names: .* in order, 0 as 'ant', 1 as 'bee', …$"):
        found = class_rows(names, LABEL_NAMES, "'x'")
    assert (None if found is None else _list(found)) == rows


def test_class_rows_ignore_unicode_forms():
    run = tuple(unicodedata.normalize("NFC", name) for name in ("äpfel", "öl", "日本 ノ犬", "が"))
    names = [unicodedata.normalize("NFD", name) for name in run]
    assert _list(class_rows(tuple(names[::-1]), run)) == [3, 2, 1, 0]
    assert _list(class_rows(run[1:], tuple(names))) == [1, 2, 3]


def _list(rows: np.ndarray | None) -> list[int]:
    assert rows is not None
    assert rows.dtype == np.int32
    return rows.tolist()


@given(st.permutations(range(12)), st.integers(1, 12))
def test_class_rows_index_the_names(order, num):
    run = tuple(f"class {number}" for number in range(12))
    names = tuple(run[row] for row in order[:num])
    rows = class_rows(names, run)
    assert tuple(run[row] for row in (range(12) if rows is None else rows)) == names


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("ant", "eel"),
            "1 of the 2 classes of the dataset are not among the run's 3: eel; the run has: ant, bee, cat",
        ),
        (("1", "2", "3"), "3 of the 3 classes of the dataset are not among the run's 3: 1, 2, 3; the run has"),
        (("-1", "2"), "2 of the 2 classes of the dataset are not among the run's 3: -1, 2; the run has"),
        (("ant", "Bee"), "; 'Bee' and the run's 'bee' differ only in case or white space: rename one$"),
        (("ant ", "bee"), "; 'ant ' and the run's 'ant' differ only in case or white space: rename one$"),
        (("0", "1"), "2 of the 2 classes of the dataset are not among the run's 3: 0, 1; the run has"),
        (tuple("012345"), "6 of the 6 classes of the dataset are not among the run's 3: 0, 1, 2, 3, 4, …; the run has"),
    ],
)
def test_class_rows_rejects_unknown_classes(names, message):
    with pytest.raises(UserError, match=message):
        class_rows(names, LABEL_NAMES)


def test_warn_shared_classes_ignores_numbers():
    warn_shared_classes(("0", "1", "dog"), ("0", "1", *LABEL_NAMES), "'x'")
    with pytest.warns(UserWarning, match="^1 of the 2 classes of 'x' are also classes of the run: bee; their images"):
        warn_shared_classes(("bee", "dog"), LABEL_NAMES, "'x'")


def test_class_rows_does_not_shift_numbers():
    with pytest.raises(UserError, match="1 of the 3 classes of the dataset are not among the run's 3: 0; the run has"):
        class_rows(("0", "1", "2"), ("1", "2", "3"))
