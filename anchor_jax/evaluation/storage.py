"""Results on disk, in `<workdir>/eval/step{S}-bins{B}/`: one folder per checkpoint and number of calibration bins.

`<suite>.json` holds scores and facts, `<suite>-references{K}.npz` the arrays, `results.parquet` and `results.csv` the
long-form table of all suites. Each file is written completely or not at all. Within a process results stay in memory;
files are read only to merge earlier results, to compare runs, and to make a report of an earlier evaluation.
"""

import contextlib
import dataclasses
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.evaluation import legacy
from anchor_jax.evaluation.results import BLT_SUFFIX, FIELDS, Results, Score, SuiteResult, flat_name, to_frame
from anchor_jax.runtime.atomic_files import atomic_write, is_incomplete

METRICS = "metrics.json"
REPORT = "report.json"  # next to the files of the suites
EARLIER = "earlier"  # numbered folders of results that were measured with other options
_INTEGERS = {"severity", "draw", "draw_size"}


def checkpoint_folder(workdir: Path, step: int, num_bins: int) -> Path:
    """Return the folder of one checkpoint's results."""
    return workdir / "eval" / f"step{step}-bins{num_bins}"


def checkpoint_folders(workdir: Path) -> dict[int, dict[int, Path]]:
    """Return the folders with results of a run: step -> number of calibration bins -> folder, highest step first."""
    found: dict[int, dict[int, Path]] = {}
    for folder in (workdir / "eval").glob("step*-bins*"):
        if match := re.fullmatch(r"step(\d+)-bins(\d+)", folder.name):
            found.setdefault(int(match[1]), {})[int(match[2])] = folder
    return dict(sorted(found.items(), reverse=True))


def read(folder: Path) -> dict[str, dict[int, SuiteResult]]:
    """Read the results of one checkpoint.

    Args:
      folder: see `checkpoint_folder`; it may be missing.

    Returns:
      Storage name of the suite -> number of references, from the smallest -> result. Each array is read from disk
      whenever it is accessed, and not kept.

    Raises:
      UserError: a file is corrupt; also on access to an array that is corrupt.
    """
    files = (file for file in folder.glob("*.json") if file.name != REPORT and not is_incomplete(file))
    return {name: _read_suite(folder, name) for name in sorted(file.stem for file in files)}


def write(folder: Path, result: SuiteResult) -> Path | None:
    """Write a result, and keep those of the same suite for other numbers of references.

    Earlier results of the suite that were measured with other options move to `earlier/1`, `earlier/2`, ...

    Args:
      folder: see `checkpoint_folder`; created if missing.
      result: of one suite and number of references.

    Returns:
      The folder to which earlier results moved; None if there were none.

    Raises:
      ValueError: a score is NaN or infinite, the facts contain such a number, or two scores have the same name.
      UserError: an existing file is corrupt, or the folder is not writable.
    """
    for name, value in result.metrics.items():
        if not math.isfinite(value):
            raise ValueError(
                f"scores must be finite; got {name} = {value} of {result.name} with {result.num_references} references"
            )
    earlier = _read_suite(folder, result.name) if (folder / f"{result.name}.json").exists() else {}
    moved = None
    if any(each.facts.get("options") != result.facts.get("options") for each in earlier.values()):
        text = _to_json(result, {})
        moved = _move_away(folder, result.name)
    else:
        text = _to_json(result, earlier)
    with writing(folder):
        _write_arrays(_arrays_file(folder, result.name, result.num_references), result.arrays)
        _write_text(folder / f"{result.name}.json", text)
    return moved


def write_tables(folder: Path, results: Iterable[SuiteResult]) -> None:
    """Write `results.parquet` and `results.csv`, both with the columns of `results.SCHEMA`.

    Raises:
      UserError: the folder is not writable.
    """
    frame = to_frame(results)
    with writing(folder):
        with atomic_write(folder / "results.parquet") as file:
            frame.to_parquet(file, index=False)
        with atomic_write(folder / "results.csv") as file:
            frame.to_csv(file, index=False)


def write_metrics(folder: Path, results: Mapping[str, Results]) -> Path:
    """Write `metrics.json`: suite -> number of references -> flat name -> value.

    Raises:
      UserError: the folder is not writable.
    """
    content = {name: _by_number({num: of.metrics for num, of in results[name].items()}) for name in results}
    with writing(folder):
        _write_text(folder / METRICS, json.dumps(content, indent=2) + "\n")
    return folder / METRICS


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Convert an operating system error into a `UserError` that names the folder and the reason."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write to '{folder}' ({error.strerror}); free some space or move it away") from error


class _StoredArrays(Mapping[str, np.ndarray]):
    """The arrays of an .npz file; each is read from disk whenever it is accessed."""

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


def _to_json(newest: SuiteResult, earlier: Results) -> str:
    """`scores` says what each flat name means, so that no reader takes a name apart."""
    results = {**earlier, newest.num_references: newest}
    content = {
        "suite": newest.name,
        "facts": newest.facts,
        "results": _by_number({num: of.metrics for num, of in results.items()}),
        "facts_of": _by_number({num: of.facts for num, of in results.items()}),
        "scores": {flat_name(score): _fields(score) for of in results.values() for score in of.scores},
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _fields(score: Score) -> dict[str, Any]:
    """The fields of a score other than its value that are not the default."""
    default = Score("", 0)
    values = {name: getattr(score, name) for name in FIELDS}
    return {name: value for name, value in values.items() if value != getattr(default, name)}


def _read_suite(folder: Path, name: str) -> dict[int, SuiteResult]:
    file = folder / f"{name}.json"
    with _uncorrupted(file):
        content = json.loads(file.read_text(encoding="utf-8"), parse_constant=_reject_constant)
        suite, protocol = (name.removesuffix(BLT_SUFFIX), "blt") if name.endswith(BLT_SUFFIX) else (name, "random")
        facts = dict(content["facts"])
        metrics = {int(num): _finite(of) for num, of in content["results"].items()}
        facts_of = {int(num): dict(of) for num, of in content.get("facts_of", {}).items()}
        facts_of = facts_of or dict.fromkeys(metrics, facts)
        if content["suite"] != name or not metrics or facts_of.keys() != metrics.keys():
            raise ValueError(f"holds no results of '{name}'")
        results = {}
        for num in sorted(metrics):
            if "scores" in content:
                scores = tuple(_score(flat, value, content["scores"][flat]) for flat, value in metrics[num].items())
            else:
                scores = legacy.import_scores(suite, metrics[num])
            results[num] = SuiteResult(suite, num, scores, {}, legacy.import_facts(facts_of[num]), protocol)
    return {num: dataclasses.replace(of, arrays=_read_arrays(folder, name, num)) for num, of in results.items()}


def _score(name: str, value: float, fields: Mapping[str, Any]) -> Score:
    if any(not isinstance(of, int if field in _INTEGERS else str) for field, of in fields.items()):
        raise ValueError(f"holds {dict(fields)} for {name}")
    score = Score(value=value, **fields)
    if flat_name(score) != name:
        raise ValueError(f"holds {flat_name(score)} under the name {name}")
    return score


def _finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    numbers = {name: float(value) for name, value in metrics.items()}
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise ValueError(f"holds {name} = {number}")
    return numbers


def _reject_constant(constant: str):
    raise ValueError(f"holds {constant}")


def _move_away(folder: Path, name: str) -> Path:
    with writing(folder):
        number = next(number for number in itertools.count(1) if not (folder / EARLIER / str(number)).exists())
        target = folder / EARLIER / str(number)
        target.mkdir(parents=True)
        # the scores last: until they have moved, the earlier results are complete where they were
        for file in (*folder.glob(f"{name}-references*.npz"), folder / f"{name}.json"):
            file.rename(target / file.name)
    return target


def _by_number(values: Mapping[int, Any]) -> dict[str, Any]:
    return {str(num): values[num] for num in sorted(values)}


def _arrays_file(folder: Path, name: str, num_references: int) -> Path:
    return folder / f"{name}-references{num_references}.npz"


def _read_arrays(folder: Path, name: str, num_references: int) -> Mapping[str, np.ndarray]:
    file = _arrays_file(folder, name, num_references)
    return _StoredArrays(file) if file.exists() else {}


def _write_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    if not arrays:
        file.unlink(missing_ok=True)  # those of an earlier measurement do not belong to the new scores
        return
    with atomic_write(file) as new:
        np.savez(new, **dict(arrays))  # pyright: ignore[reportArgumentType]


def _write_text(file: Path, text: str) -> None:
    with atomic_write(file) as new:
        new.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    # by its name alone, NumPy would leave a truncated file open
    with _uncorrupted(file), file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
        yield arrays


@contextlib.contextmanager
def _uncorrupted(file: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # zipfile, zlib, json and NumPy raise a dozen kinds on corrupt bytes
        reason = " ".join(str(error).split())
        raise UserError(f"'{file}' is corrupt ({reason}); move it away") from error
