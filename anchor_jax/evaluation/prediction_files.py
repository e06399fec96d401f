"""The prediction for every image, as a table with one row per image, set and number of references.

While a suite is measured, its predictions are written to `<suite>-references{K}.parquet`. In the end,
`predictions.parquet` and `predictions.csv` are made from these parts.
"""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from anchor_jax.core.errors import UserError
from anchor_jax.data import EvalDataset
from anchor_jax.evaluation.anomaly_scores import SCORES, SINGLE_PASS, anomaly_scores
from anchor_jax.evaluation.predictions import PredictionTable
from anchor_jax.evaluation.results import parse_storage_name
from anchor_jax.runtime.atomic_files import atomic_write, is_incomplete
from anchor_jax.runtime.object_storage import copy, is_remote, size_of, time_modified
from anchor_jax.runtime.paths import printable

PARQUET, CSV = NAMES = "predictions.parquet", "predictions.csv"

# the columns that every run has; a missing value means that it does not apply
SCHEMA: dict[str, pa.DataType] = {
    "step": pa.int64(),  # of the checkpoint
    "suite": pa.string(),
    "protocol": pa.string(),  # how references were chosen: "random" or "blt"
    "num_references": pa.int64(),  # K; 0 for a standard network
    "set": pa.string(),
    "split": pa.string(),
    "corruption": pa.string(),
    "severity": pa.int64(),  # 1..5
    "anomaly": pa.bool_(),  # in the suite ood
    "row": pa.int64(),  # in the complete set, from 0
    "file": pa.string(),  # in the folder of the set, if its images are files
    "label": pa.int64(),  # row of the class among those of the run; missing for anomalies
    "label_name": pa.string(),
    "predicted": pa.int64(),
    "predicted_name": pa.string(),
    "confidence": pa.float32(),  # largest probability
    **{name: pa.float32() for name in SCORES},  # higher is more anomalous
}
PROBABILITY = "prob_"  # before the name of a class; missing for classes that a set does not have

_PARTS = b"anchor_jax.parts"  # in the metadata of `PARQUET`: what it was made from
_BYTES_OF_ROW, _BYTES_OF_CLASS = 170, 13  # of a CSV file, about
_UNASKED_BYTES = 10**8  # of CSV that are written unless the caller decides


class RecordedSet(NamedTuple):
    """What some predictions are about.

    Attributes:
      name: of the dataset.
      stream: its images.
      classes: rows of the logits that its labels refer to; None for all.
      corruption: of its images, or None.
      severity: of the corruption, or None.
      anomaly: whether its images are anomalies; None outside of the detection of anomalies.
    """

    name: str
    stream: EvalDataset
    classes: tuple[int, ...] | None
    corruption: str | None
    severity: int | None
    anomaly: bool | None


class Recorder:
    """Takes the predictions of suites, and writes them.

    Attributes:
      is_recording: whether the caller wants them now.
    """

    def __init__(self) -> None:
        self.is_recording = False
        self._writer: pq.ParquetWriter | None = None
        self._facts: dict[str, Any] = {}
        self._label_names: tuple[str, ...] = ()

    @contextlib.contextmanager
    def part(self, file: Path | None, step: int, num_references: int, label_names: Sequence[str]) -> Iterator[None]:
        """Record what is added inside the block, and write it if the block ends without an error.

        Args:
          file: from `part_file`; None to record without writing, as all processes but the first do.
          step: of the checkpoint.
          num_references: K; 0 for a standard network.
          label_names: of the run.
        """
        self.is_recording = True
        try:
            if file is None:
                yield
                return
            suite, protocol, _ = parse_storage_name(file.name.rpartition("-references")[0])
            facts = {"step": step, "suite": suite, "protocol": protocol, "num_references": num_references}
            self._facts, self._label_names = facts, tuple(label_names)
            with atomic_write(file) as new, pq.ParquetWriter(new, _schema(label_names), compression="zstd") as writer:
                self._writer = writer
                yield
        finally:
            self.is_recording, self._writer = False, None

    def add(self, of: RecordedSet, table: PredictionTable) -> None:
        """Record the predictions on a dataset; the table has probabilities."""
        if self._writer:
            columns = _columns(of, table, self._label_names, self._facts["num_references"]) | self._facts
            rows = _to_arrow(columns, len(table.label), self._writer.schema)
            try:
                self._writer.write_table(rows)
            except OSError as error:
                reason = error.strerror or " ".join(str(error).split())
                raise UserError(
                    f"cannot write predictions ({reason}); free some space or use --nopredictions"
                ) from error


def part_file(folder: Path, name: str, num_references: int) -> Path:
    """Return the file with the predictions of a suite, by its storage name."""
    return folder / f"{name}-references{num_references}.parquet"


def estimated_bytes(num_rows: int, num_classes: int) -> int:
    """Return about how many bytes `predictions.csv` has."""
    return num_rows * (_BYTES_OF_ROW + num_classes * _BYTES_OF_CLASS)


def is_small(num_bytes: int) -> bool:
    """Return whether a file is written unless the caller decides."""
    return num_bytes <= _UNASKED_BYTES


def format_bytes(num: float) -> str:
    """Return a number of bytes for people.

    >>> format_bytes(950), format_bytes(1.5e6)
    ('950 bytes', '1.5 MB')
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num >= size:
            return f"{num / size:.1f} {unit}"
    return f"{num:.0f} bytes"


def sizes(folder: Path) -> dict[Path, int]:
    """Return the files with all predictions that are in a folder, and their bytes."""
    return {folder / name: size_of(folder / name) for name in NAMES if (folder / name).exists()}


def write_all(folder: Path, parts: Iterable[Path], copies: Path | None) -> None:
    """Make `predictions.parquet` and `predictions.csv` from their parts, unless they are up to date.

    Args:
      folder: of the files; those that are there are removed if there are no parts.
      parts: the order of the rows; those that do not exist are left out.
      copies: another folder to copy the two files to; nothing is copied if it is `folder` or None.
    """
    parts = [part for part in parts if part.exists()]
    if parts and not _is_up_to_date(folder, parts):
        with atomic_write(folder / PARQUET) as binary, atomic_write(folder / CSV) as text:  # replaced last
            _concatenate(parts, text, binary)
    for name in NAMES:
        if not parts:
            (folder / name).unlink(missing_ok=True)
        if copies and copies != folder:  # S3 refuses to copy an object to itself
            _copy(folder / name, copies / name)


def check_parts(folder: Path) -> None:
    """Raise a `UserError` if one of the parts in a folder is corrupt."""
    for part in sorted(folder.glob("*-references*.parquet")):
        try:
            _ = is_incomplete(part) or _read_metadata(part)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"'{part}' is corrupt ({' '.join(str(error).split())}); move it away") from error


def _is_up_to_date(folder: Path, parts: Sequence[Path]) -> bool:
    try:
        found = _read_metadata(folder / PARQUET).metadata or {}
    except (pa.ArrowException, OSError):
        return False
    return (folder / CSV).exists() and found.get(_PARTS) == _identity(parts)


def _identity(parts: Sequence[Path]) -> bytes:
    """Return what changes with the parts; their times alone do not tell which files are newer, if a clock was set."""
    return repr([(part.name, size_of(part), time_modified(part)) for part in parts]).encode()


def _read_metadata(file: Path) -> pq.FileMetaData:
    with file.open("rb") as opened:
        return pq.read_metadata(opened)


def _concatenate(parts: Sequence[Path], text: Path, binary: Path) -> None:
    schema = _read_metadata(parts[0]).schema.to_arrow_schema().with_metadata({_PARTS: _identity(parts)})
    with (
        pa_csv.CSVWriter(text, schema) as lines,
        pq.ParquetWriter(binary, schema, compression="zstd") as writer,
    ):
        for part in parts:
            with part.open("rb") as opened, pq.ParquetFile(opened) as table:
                for index in range(table.num_row_groups):
                    rows = table.read_row_group(index)
                    lines.write_table(rows)
                    writer.write_table(rows)


def _copy(source: Path, target: Path) -> None:
    """Make a file appear in another folder, without using its space again if the disk allows it."""
    if not source.exists():
        target.unlink(missing_ok=True)
        return
    if is_remote(source):
        copy(source, target)
        return
    with atomic_write(target) as new:
        new.unlink()
        try:
            os.link(source, new)
        except OSError:  # of a file system without links
            shutil.copyfile(source, new)


def _schema(label_names: Sequence[str]) -> pa.Schema:
    probabilities = {PROBABILITY + printable(name): pa.float32() for name in label_names}
    return pa.schema(list((SCHEMA | probabilities).items()))


def _columns(
    of: RecordedSet, table: PredictionTable, label_names: tuple[str, ...], num_references: int
) -> dict[str, Any]:
    """Return name -> one value for all rows, or an array or list `[N]`; without `Recorder._facts`."""
    stream, num = of.stream, len(table.label)
    classes = np.arange(len(label_names)) if of.classes is None else np.array(of.classes)
    names = np.array(list(map(printable, label_names)), object)
    label, predicted = (classes[np.asarray(column)] for column in (table.label, table.predicted))
    scores = anomaly_scores(table, tuple(SCORES) if num_references > 1 else SINGLE_PASS)
    assert table.probs is not None
    return {
        "set": printable(of.name),
        "split": stream.split or None,
        "corruption": of.corruption and printable(of.corruption),
        "severity": of.severity,
        "anomaly": of.anomaly,
        "row": np.arange(num) if stream.rows is None else stream.rows,
        "file": stream.file_of and [printable(stream.file_of(row)) for row in range(num)],
        "label": None if of.anomaly else label,
        "label_name": None if of.anomaly else names[label],
        "predicted": predicted,
        "predicted_name": names[predicted],
        "confidence": table.mean_probs.confidence,
        **scores,
        **{PROBABILITY + names[row]: column for row, column in zip(classes, np.asarray(table.probs).T, strict=True)},
    }


def _to_arrow(columns: Mapping[str, Any], num: int, schema: pa.Schema) -> pa.Table:
    arrays = []
    for field in schema:
        value = columns.get(field.name)
        if value is None or isinstance(value, str | bool | int):
            arrays.append(pa.repeat(pa.scalar(value, field.type), num))
        else:
            arrays.append(pa.array(value, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)
