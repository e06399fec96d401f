"""Results on disk, in `<workdir>/eval/step{S}-bins{B}/`: one folder per checkpoint and number of calibration bins.

`<suite>.json` holds scores and facts, `<suite>-references{K}.npz` the arrays, `results.parquet` and `results.csv` the
long-form table of all suites, and the files of `prediction_files` the prediction for every image. Each file is written
completely or not at all. Within a process results stay in memory; files are read only to merge earlier results, to
compare runs, and to make a report of an earlier evaluation.
"""

import contextlib
import dataclasses
import glob
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.evaluation import legacy, prediction_files, question
from anchor_jax.evaluation.output import root_of
from anchor_jax.evaluation.presentation import format_num_references
from anchor_jax.evaluation.results import Score, SuiteResult, fields_of, flat_name, parse_storage_name, to_frame
from anchor_jax.runtime.atomic_files import atomic_write, is_incomplete, keep_earlier
from anchor_jax.runtime.paths import printable, storage_path

METRICS = "metrics.json"
DATA = "data.json"
REPORT = "report.json"  # next to the files of the suites
_SUMMARIES = (METRICS, DATA, REPORT)
_FOLDER = re.compile(r"step(\d+)-bins(\d+)(?:-limit(\d+))?")
_TIMES = ("seconds_per_1000",)  # metrics that differ between any two measurements
_INTEGERS = {"severity", "draw", "draw_size"}


def checkpoint_folder(workdir: Path, step: int, num_bins: int) -> Path:
    """Return the folder of one checkpoint's results."""
    return root_of(workdir) / folder_name(step, num_bins)


def folder_name(step: int, num_bins: int, limit: int = 0) -> str:
    """Return the name of the folder of one checkpoint's results; `limit` is that of the images, 0 for all.

    >>> folder_name(12, 15), folder_name(12, 15, limit=100)
    ('step12-bins15', 'step12-bins15-limit100')
    """
    return f"step{step}-bins{num_bins}" + (f"-limit{limit}" if limit else "")


def summary_folder(folder: Path) -> Path:
    """Return where the summaries of a checkpoint's results are: on all images next to its folder, else only in it."""
    match = _FOLDER.fullmatch(folder.name)
    return folder if match and match[3] else folder.parent


def checkpoint_folders(workdir: Path, limit: int = 0) -> dict[int, dict[int, Path]]:
    """Return the folders with results of a run: step -> number of calibration bins -> folder, highest step first.

    Args:
      workdir: folder of the run.
      limit: of the images; 0 for results on all.
    """
    found: dict[int, dict[int, Path]] = {}
    for folder, step, num_bins, of_limit in _all_folders(workdir):
        if of_limit == limit:
            found.setdefault(step, {})[num_bins] = folder
    return dict(sorted(found.items(), reverse=True))


def limits_of(workdir: Path) -> list[int]:
    """Return the values of `--limit` that a run has results for, sorted; 0 means all images."""
    return sorted({limit for *_, limit in _all_folders(workdir)})


def _all_folders(workdir: Path) -> Iterator[tuple[Path, int, int, int]]:
    """Yield each folder with results of a run, its step, its number of calibration bins and its limit."""
    for folder in root_of(workdir).glob("step*-bins*"):
        if match := _FOLDER.fullmatch(folder.name):
            yield folder, int(match[1]), int(match[2]), int(match[3] or 0)


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
    files = (file for file in folder.glob("*.json") if file.name not in _SUMMARIES and not is_incomplete(file))
    return {name: _read_suite(folder, name) for name in sorted(file.stem for file in files)}


def load_results(workdir: str | os.PathLike[str], limit: int = 0) -> pd.DataFrame:
    """Load all results of a run as one long-form table, without the arrays.

    Args:
      workdir: folder of the run.
      limit: of the images that were evaluated; 0 for results on all images.

    Returns:
      One row per score, with the columns of `results.SCHEMA`; empty if the run is not evaluated.

    Raises:
      UserError: a file is corrupt.

    >>> load_results("runs/none")[["suite", "num_references", "metric", "value"]].shape
    (0, 4)
    """
    limit = checks.count("limit", limit, 0)
    by_step = checkpoint_folders(storage_path("workdir", workdir), limit)
    folders = [folder for by_bins in by_step.values() for folder in by_bins.values()]
    return to_frame(result for folder in folders for of in read(folder).values() for result in of.values())


class ResultStore:
    """The results of one checkpoint, in memory and on disk.

    Attributes:
      folder: see `checkpoint_folder`; created when a result is added.
      results: storage name of the suite -> number of references -> result; those of earlier evaluations, and what was
        added.

    Raises:
      UserError: an existing file is corrupt.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.results = read(folder)

    def add(self, result: SuiteResult) -> Path | None:
        """Store a result; those of the same suite for other numbers of references stay.

        Earlier results of the suite that were measured with other options, on other data or with another network move
        to `earlier/1`, `earlier/2`, ...; so do the report and the pictures that show them.

        Returns:
          The folder to which earlier results moved; None if none did.

        Raises:
          ValueError: a score is NaN or infinite, the facts contain such a number, or two scores have the same name.
          UserError: the folder is not writable.
        """
        for name, value in result.metrics.items():
            if not math.isfinite(value):
                raise ValueError(
                    f"scores must be finite; got {name} = {value} of {result.name} with {result.num_references} "
                    "references"
                )
        earlier = self.results.get(result.name, {})
        others = bool(self.differences(result))
        results = {} if others else {num: of for num, of in earlier.items() if num != result.num_references}
        text = _to_json([*results.values(), result])
        moved = _move_away(self.folder, result.name) if others else None
        with writing(self.folder):
            _write_arrays(_arrays_file(self.folder, result.name, result.num_references), result.arrays)
            _write_text(self.folder / f"{result.name}.json", text)
        results[result.num_references] = result
        self.results[result.name] = dict(sorted(results.items()))
        return moved

    def differences(self, result: SuiteResult) -> list[str]:
        """Return in words how the stored results of a suite answer another question than a new one; [] if none does."""
        earlier = self.results.get(result.name, {}).values()
        return list(dict.fromkeys(each for of in earlier for each in question.differences(of.facts, result.facts)))

    def write_summaries(self) -> None:
        """Write the summaries into the folder, and those of results on all images also next to it.

        They are `metrics.json`, `data.json`, `results.parquet` and `results.csv`, and `predictions.parquet` and
        `predictions.csv` if predictions were recorded.

        Raises:
          UserError: a folder is not writable.
        """
        if not self.results:
            return
        results = dict(sorted(self.results.items()))
        frame = to_frame(result for by_number in results.values() for result in by_number.values())
        metrics = {name: {str(num): of.metrics for num, of in by_number.items()} for name, by_number in results.items()}
        newest = {name: by_number[max(by_number)].facts for name, by_number in results.items()}
        data = {name: facts.get("data") for name, facts in newest.items()}  # the same for all results of a suite
        with writing(self.folder):
            for folder in dict.fromkeys((self.folder, summary_folder(self.folder))):
                _write_text(folder / METRICS, json.dumps(metrics, indent=2) + "\n")
                _write_text(folder / DATA, json.dumps(data, indent=2) + "\n")
                with atomic_write(folder / "results.parquet") as file:
                    frame.to_parquet(file, index=False)
                with atomic_write(folder / "results.csv") as file:
                    frame.to_csv(file, index=False)
            parts = (prediction_files.part_file(self.folder, name, num) for name in results for num in results[name])
            prediction_files.write_all(self.folder, parts, summary_folder(self.folder))


def add_and_tell(store: ResultStore, result: SuiteResult) -> None:
    """Store a result, and print what happens to earlier ones."""
    name, reasons = printable(result.name), store.differences(result)
    replaced = store.results.get(result.name, {}).get(result.num_references)
    moved = store.add(result)
    if moved:
        first, *others = reasons
        also = f"; they were also measured {' and '.join(others)}" if others else ""
        print(f"{name}: earlier results, measured {first}, were moved to {printable(str(moved))}{also}")
    elif replaced and _timeless(replaced) != _timeless(result):
        num = format_num_references(result.num_references)
        predictions = prediction_files.part_file(store.folder, result.name, result.num_references)
        also = ", with its predictions" if predictions.exists() else ""
        predictions.unlink(missing_ok=True)
        print(
            f"{name}: the earlier result, {num}, was replaced{also}; it answered the same question with other numbers"
        )


def _timeless(result: SuiteResult) -> dict[str, float]:
    return {flat_name(score): score.value for score in result.scores if score.metric not in _TIMES}


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


def _to_json(results: Sequence[SuiteResult]) -> str:
    """`scores` says what each flat name means, so that no reader takes a name apart; the last result is the newest."""
    content = {
        "suite": results[-1].name,
        "facts": results[-1].facts,
        "results": _by_number({of.num_references: of.metrics for of in results}),
        "facts_of": _by_number({of.num_references: of.facts for of in results}),
        "scores": {flat_name(score): fields_of(score) for of in results for score in of.scores},
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _read_suite(folder: Path, name: str) -> dict[int, SuiteResult]:
    file = folder / f"{name}.json"
    with _uncorrupted(file):
        content = json.loads(file.read_text(encoding="utf-8"), parse_constant=_reject_constant)
        suite, protocol, dataset = parse_storage_name(name)
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
            results[num] = SuiteResult(suite, num, scores, {}, legacy.import_facts(facts_of[num]), protocol, dataset)
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
    escaped = glob.escape(name)  # which may contain that of a dataset
    shown = [folder / file for file in ("report.html", REPORT)]
    shown += sorted([*folder.glob(f"pictures/{escaped}-*.png"), *folder.glob(f"tables/{escaped}-*.csv")])
    arrays = sorted(file for end in ("npz", "parquet") for file in folder.glob(f"{escaped}-references*.{end}"))
    with writing(folder):
        # the scores last: until they have moved, the earlier results are complete where they were
        return keep_earlier(folder, [*(file for file in shown if file.exists()), *arrays, folder / f"{name}.json"])


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
