"""The rows of a dataset's classes among those of a run."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_datasets import LABEL_NAMES

from anchor_jax.core.errors import UserError
from anchor_jax.data import class_rows


def test_class_rows_of_known_classes():
    run = ("n01", "n02", "n03", "n04")
    assert class_rows(run, run) is None
    assert _list(class_rows(("n02", "n04"), run)) == [1, 3]
    assert _list(class_rows(("n04", "n02"), run)) == [3, 1]
    assert class_rows(("0", "1", "2", "3"), run) is None  # counted as the run does
    assert _list(class_rows(("0", "3", "1", "2"), run)) == [0, 3, 1, 2]
    assert _list(class_rows(("2", "1"), ("0", "1", "2"))) == [2, 1]  # the run's own names


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
        (("0", "1"), "2 of the 2 classes of the dataset are not among the run's 3: 0, 1; the run has"),
        (tuple("012345"), "6 of the 6 classes of the dataset are not among the run's 3: 0, 1, 2, 3, 4, …; the run has"),
    ],
)
def test_class_rows_rejects_unknown_classes(names, message):
    with pytest.raises(UserError, match=message):
        class_rows(names, LABEL_NAMES)
