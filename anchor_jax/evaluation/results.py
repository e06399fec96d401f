"""What suites find, on disk: numbers in `<suite>.json`, arrays in `<suite>-references{K}.npz`.

The folder is that of one checkpoint and one number of calibration bins, `<workdir>/eval/step{S}-bins{B}`. Each
file is there whole or not at all; arrays are read when they are asked for, so that numbers alone cost little.
"""

import contextlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.runtime.atomic_files import atomic_write, is_incomplete

REPORT = "report.json"  # lies beside the suites' files
ASKED = "asked"  # the fact that holds the options which make numbers answers to one question
EARLIER = "earlier"  # folder of answers to other questions, numbered
TRANSDUCED = "-blt"  # ends the name of a suite whose references bilinear transduction picked


def storage_name(suite: str, protocol: str) -> str:
    """The name under which the answers of a suite by a protocol are kept."""
    return suite + (TRANSDUCED if protocol == "blt" else "")


def base_suite(suite: str) -> str:
    """The suite, by whatever protocol it was asked."""
    return suite.removesuffix(TRANSDUCED)


class Found(NamedTuple):
    """What a suite found with one number of references."""

    metrics: dict[str, float]  # flat name such as "fog/3/accuracy" -> value, finite
    arrays: Mapping[str, np.ndarray]  # columns with a row an example, and a few images


class SuiteResult(NamedTuple):
    """What a suite has found so far on one checkpoint."""

    suite: str
    facts: dict[str, Any]  # of the newest measurement: how, where and on what; as in JSON
    results: dict[int, Found]  # number of references, from the least; 0 is a standard network
    facts_of: dict[int, dict[str, Any]]  # the same keys: the facts of each, which may come from another day


def write(folder: Path, suite: str, facts: dict[str, Any], found: dict[int, Found]) -> Path | None:
    """Keep what a suite found, beside what is there for other numbers of references.

    What is there of the suite as it was asked with other options moves to `earlier/1`, `earlier/2`, ...

    Args:
      folder: of the checkpoint; made if need be.
      suite: its name.
      facts: JSON values that say how, where and on what all of `found` was measured.
      found: number of references, 0 for a standard network -> metrics and arrays.

    Returns:
      The folder to which something moved, if it did.

    Raises:
      ValueError: a metric is NaN or infinite, or `facts` hold such a number; nothing is written.
      UserError: what is there is damaged, or cannot be written to.
    """
    for num, (metrics, _) in found.items():
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise ValueError(f"metrics must be finite; got {name} = {value} of {suite} with {num} references")
    results, facts_of, moved = {}, {}, None
    if (folder / f"{suite}.json").exists():
        earlier_facts, results, facts_of = _read_numbers(folder, suite)
        if earlier_facts.get(ASKED) != facts.get(ASKED):
            results, facts_of, moved = {}, {}, _move_away(folder, suite)
    results |= {num: {name: float(value) for name, value in new.metrics.items()} for num, new in found.items()}
    facts_of |= dict.fromkeys(found, facts)
    content = {"suite": suite, "facts": facts, "results": _by_number(results), "facts_of": _by_number(facts_of)}
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with writing(folder):
        for num, (_, arrays) in found.items():
            _write_arrays(_arrays_file(folder, suite, num), arrays)
        with atomic_write(folder / f"{suite}.json") as file:
            file.write_text(text)
    return moved


def _move_away(folder: Path, suite: str) -> Path:
    with writing(folder):
        number = next(number for number in itertools.count(1) if not (folder / EARLIER / str(number)).exists())
        place = folder / EARLIER / str(number)
        place.mkdir(parents=True)
        # the numbers last: until they have moved, the suite is there as it was
        for file in (*folder.glob(f"{suite}-references*.npz"), folder / f"{suite}.json"):
            file.rename(place / file.name)
    return place


def read(folder: Path) -> dict[str, SuiteResult]:
    """What each suite has found so far.

    Args:
      folder: of the checkpoint; one that is not there holds nothing.

    Returns:
      Suite -> what it found. `Found.arrays` reads an array when it is asked for, and forgets it.

    Raises:
      UserError: a file is damaged; also from `Found.arrays`, for what only shows when an array is read.
    """
    suites = sorted(file.stem for file in folder.glob("*.json") if file.name != REPORT and not is_incomplete(file))
    return {suite: _read_suite(folder, suite) for suite in suites}


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns the failure to write something into this folder into the error of a user.

    Raises:
      UserError: with the reason that the operating system gives.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write to '{folder}' ({error.strerror}); make room, or move it away") from error


class _StoredArrays(Mapping[str, np.ndarray]):
    """The arrays of an .npz file, each read anew whenever it is asked for."""

    def __init__(self, file: Path):
        self._file = file
        with _opened(file) as arrays:
            self._names = tuple(arrays.files)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        with _opened(self._file) as arrays:
            return arrays[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names  # without reading it

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _read_suite(folder: Path, suite: str) -> SuiteResult:
    facts, metrics, facts_of = _read_numbers(folder, suite)
    results = {num: Found(of_num, _arrays(folder, suite, num)) for num, of_num in metrics.items()}
    return SuiteResult(suite, facts, results, facts_of)


def _read_numbers(folder: Path, suite: str) -> tuple[dict[str, Any], dict[int, dict[str, float]], dict[int, Any]]:
    """The newest facts, and by number of references the metrics and the facts."""
    file = folder / f"{suite}.json"
    with _undamaged(file):
        content = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
        facts = dict(content["facts"])
        metrics = _numbered({num: _floats(of_num) for num, of_num in content["results"].items()})
        facts_of = _numbered(content.get("facts_of", dict.fromkeys(content["results"], facts)))
        if content["suite"] != suite or not metrics or facts_of.keys() != metrics.keys():
            raise ValueError(f"holds no results of '{suite}'")
    return facts, metrics, facts_of


def _arrays(folder: Path, suite: str, num: int) -> Mapping[str, np.ndarray]:
    file = _arrays_file(folder, suite, num)
    return _StoredArrays(file) if file.exists() else {}


def _arrays_file(folder: Path, suite: str, num: int) -> Path:
    return folder / f"{suite}-references{num}.npz"


def _write_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    if not arrays:
        file.unlink(missing_ok=True)  # those of an earlier measurement would be taken for this one's
        return
    with atomic_write(file) as new:
        np.savez(new, **dict(arrays))  # pyright: ignore[reportArgumentType]


def _by_number(values: dict[int, Any]) -> dict[str, Any]:
    return {str(num): values[num] for num in sorted(values)}


def _numbered(values: dict[str, Any]) -> dict[int, Any]:
    return {num: values[str(num)] for num in sorted(map(int, values))}


def _floats(metrics: dict[str, Any]) -> dict[str, float]:
    numbers = {name: float(value) for name, value in metrics.items()}
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise ValueError(f"holds {name} = {number}")
    return numbers


def _refuse(constant: str):
    raise ValueError(f"holds {constant}")


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    # by its name alone, NumPy would leave a truncated file open
    with _undamaged(file), file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
        yield arrays


@contextlib.contextmanager
def _undamaged(file: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # zipfile, zlib, json and NumPy raise a dozen kinds on damaged bytes
        reason = " ".join(str(error).split())
        raise UserError(f"'{file}' is damaged ({reason}); move it away") from error
