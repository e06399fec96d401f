"""The folder of a run and its record, `run.json`.

run.json         config, class names, image shape, fingerprints and absolute path of the data, references, package
                 versions, and the changes since the run was created
references.npz   pixels of the references
checkpoints/     see `checkpoint`
metrics.jsonl    one line per logged step; tensorboard/ has the same
trackers.json    identifiers of the run at other trackers, and the last steps that they were sent
eval/            results of `eval.py`
damaged/         corrupt checkpoints that were moved away
lock             locked by the training process
"""

import contextlib
import dataclasses
import glob
import hashlib
import importlib.metadata
import json
import os
import reprlib
import time
import warnings
from collections.abc import Generator, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt

from anchor_jax import config as configuration
from anchor_jax.config import RESUMABLE_CHANGES, Config, base, flatten
from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.core.short_reprs import short_repr
from anchor_jax.data.modes import AUTO, mode_of
from anchor_jax.data.orientation import EXIF, STORED, Orientation
from anchor_jax.data.sources.tfds import tfds_data_dir
from anchor_jax.models.pytorch.files import source_and_file, weight_files
from anchor_jax.runs import references as reference_file
from anchor_jax.runtime import multihost
from anchor_jax.runtime.atomic_files import atomic_write, exclusive_lock
from anchor_jax.runtime.paths import absolute, absolute_storage_path, printable, storage_path

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
RECORD = "run.json"
PATH = "data.path"
DATA = "data"  # the name of the training set among the keys that may change
_CONSEQUENCES = ("data.mean", "data.std", DATA)  # of other keys, such as data.mode, which are to be named first
REFERENCES = "references.npz"
_VISIBLE_WITHIN_SECONDS = 60


class TrainingSetInfo(Protocol):
    """The facts of a training set that a run records."""

    label_names: tuple[str, ...]
    image_shape: tuple[int, ...]

    def identity(self) -> str:
        """Return a string that distinguishes this training set from others."""
        ...

    def take(self, rows: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Return un-augmented images: int `[n]` -> uint8 `[n, H, W, C]`."""
        ...


class Change(NamedTuple):
    """A setting that differs from the record of a run."""

    key: str  # of the config, or "data"
    before: Any
    now: Any


@short_repr
@dataclasses.dataclass(frozen=True)
class Run:
    """A run, as recorded in its folder.

    Attributes:
      workdir: its folder.
      config: the complete config, including the measured normalization.
      label_names: one name per class.
      image_shape: (H, W, C).
      data: identity of the training set, see `TrainingSetInfo.identity`.
      reference_rows: rows of the training set whose images are the references, int `[R]`; None for standard training.
      references: the references, uint8 `[R, H, W, C]`; None for standard training.
      data_path: absolute path that `config.data.path` meant at training; "" if there is none, or it is unknown.
      test_data: hash of the test set at training, see `EvalDataset.content`; "" if it is unknown.
      changes: differences from the record, to be recorded when the run resumes.
      record: content of `run.json` when it was read; None if there was none.
    """

    workdir: Path
    config: Config
    label_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    data: str
    reference_rows: npt.NDArray[np.integer[Any]] | None
    references: npt.NDArray[np.uint8] | None
    data_path: str = ""
    test_data: str = ""
    changes: tuple[Change, ...] = ()
    record: bytes | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of a batch with one network input: `(1, H, W, C)`, with 2C channels for an anchored network."""
        *size, channels = self.image_shape
        return (1, *size, channels * (2 if self.config.anchoring.enabled else 1))


def open_or_create(
    workdir: Path,
    config: Config,
    train: TrainingSetInfo,
    bank: npt.NDArray[np.integer[Any]] | None,
    accept_changes: tuple[str, ...] = (),
) -> Run:
    """Open the run in a folder, or create a new one; nothing is written yet, see `lock_workdir`.

    Args:
      workdir: the folder; it need not exist.
      config: validated, with the measured normalization.
      train: the training set.
      bank: rows of the training set to draw references from, int32 `[M]`; None for a standard network.
      accept_changes: keys of the config, or "data", that may differ from the record.

    Raises:
      UserError: the folder holds another run.
    """
    for key in accept_changes:
        if key != DATA and not configuration.is_known(key):
            raise UserError(f"accept_changes takes config keys and '{DATA}'; {configuration.unknown_key(key)}")
    path = str(absolute(workdir))
    has_magic = glob.has_magic(path)
    if has_magic or path != printable(path):
        reason = "contains *, ? or [" if has_magic else "is not UTF-8"
        raise UserError(f"the path '{path}' {reason}, which orbax cannot save to; choose another --workdir")
    data, data_path = train.identity(), _absolute_path(config)
    if (workdir / RECORD).exists():
        run = load(workdir)
        changes = _changes(run, config, data)
        _check_compatible(run, train, changes, accept_changes)
        if run.data_path not in ("", data_path) and not any(change.key == PATH for change in changes):
            changes = (*changes, Change(PATH, run.data_path, data_path))  # a relative path, given in another folder
        run = dataclasses.replace(run, config=config, data=data, data_path=data_path, changes=changes)
    elif leftover := [name for name in ("checkpoints", "metrics.jsonl") if (workdir / name).exists()]:
        raise UserError(
            f"'{workdir}' holds {leftover[0]} but no run.json; restore that file or choose another --workdir"
        )
    else:
        rows = reference_file.draw_rows(config, bank) if bank is not None else None
        references = train.take(rows) if rows is not None else None
        run = Run(workdir, config, train.label_names, train.image_shape, data, rows, references, data_path)
    if run.references is not None and config.evaluation.num_references > len(run.references):
        raise UserError(
            f"config.evaluation.num_references must be at most {len(run.references)}, the references saved with the "
            f"run; got {config.evaluation.num_references}"
        )
    return run


def recorded_label_names(workdir: Path) -> tuple[str, ...]:
    """Return the class names of the run in a folder, or () if it holds none."""
    return load(workdir).label_names if (workdir / RECORD).exists() else ()


def with_test_data(run: Run, content: str) -> Run:
    """Return a run with the hash of its test set, to be recorded; warn if it was another one so far.

    Args:
      run: of `open_or_create`.
      content: see `EvalDataset.content`.
    """
    if run.record is None:
        return dataclasses.replace(run, test_data=content)
    is_asked = any(change.key.startswith("data.") and change.key != PATH for change in run.changes)
    if run.test_data in ("", content):
        return run
    if not is_asked:
        warnings.warn(f"the test set of '{run.workdir}' is not the one it had so far: its files differ", stacklevel=2)
    changes = (*run.changes, Change("test_data", run.test_data, content))
    return dataclasses.replace(run, test_data=content, changes=changes)


@contextlib.contextmanager
def lock_workdir(run: Run) -> Generator[None]:
    """Lock the folder of a run for training, and write its record if there is none.

    With multiple processes, process 0 locks and writes.

    Raises:
      UserError: another process trains there, the folder is not writable, or it is not shared by all processes.
    """
    with contextlib.ExitStack() as stack:
        multihost.on_primary(partial(_lock, run, stack), "run.json")
        if not _becomes_visible(run.workdir / RECORD):
            raise UserError(
                f"process 0 writes to another folder '{run.workdir}' than this one; give a --workdir on a file system "
                "that all hosts share"
            )
        yield


def _lock(run: Run, stack: contextlib.ExitStack) -> None:
    with _writing_errors(run.workdir):
        stack.enter_context(exclusive_lock(run.workdir))
        file = run.workdir / RECORD
        if (file.read_bytes() if file.exists() else None) != run.record:
            raise UserError(f"another process has started to train in '{run.workdir}'; start the same command again")
        if run.record is None:
            _write(run)


@contextlib.contextmanager
def _writing_errors(workdir: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write to '{workdir}' ({error.strerror}); choose another --workdir") from error


def _becomes_visible(file: Path) -> bool:
    """Return whether a file exists; on a shared file system it may take some time to appear."""
    deadline = time.monotonic() + _VISIBLE_WITHIN_SECONDS
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(1)
    return file.exists()


def _write(run: Run) -> None:
    record: dict[str, Any] = {
        "config": run.config.to_dict(),
        "label_names": run.label_names,
        "image_shape": run.image_shape,
        "data": run.data,
        "data_path": run.data_path,
        "test_data": run.test_data,
        "versions": package_versions(),
    }
    if run.config.model.weights:
        files = weight_files(source_and_file(run.config.model.weights).file)
        digests = {file.name: _digest(file) for file in files}
        record["weights"] = {"sha256": digests if len(digests) > 1 else digests[files[0].name]}
    if run.references is not None and run.reference_rows is not None:
        digest = reference_file.digest(run.references)
        record["references"] = {"seed": run.config.seed, "rows": run.reference_rows.tolist(), "sha256": digest}
        reference_file.save(run.workdir / REFERENCES, run.references)
    _write_record(run.workdir, record)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_config_changes(run: Run, step: int | None) -> None:
    """Update the record of a run that resumes with changes.

    Args:
      run: the run, with its changes.
      step: the step it resumes after; None if it has no checkpoint.
    """
    if run.changes and multihost.is_primary():
        record = json.loads((run.workdir / RECORD).read_text())
        record |= {"config": run.config.to_dict(), "data": run.data, "data_path": run.data_path}
        record |= {"test_data": run.test_data} if "test_data" in record else {}
        common = {"after_step": step, "versions": package_versions()}
        record["changes"] = [*record.get("changes", []), *(change._asdict() | common for change in run.changes)]
        with _writing_errors(run.workdir):
            _write_record(run.workdir, record)


def _write_record(workdir: Path, record: dict[str, Any]) -> None:
    with atomic_write(workdir / RECORD) as file:
        file.write_text(json.dumps(record, indent=2) + "\n")


def load(workdir: str | os.PathLike[str]) -> Run:
    """Load the record and the references of a run.

    Raises:
      UserTypeError: `workdir` is not a path.
      UserError: there is no run in the folder, or its files are missing or corrupt.
    """
    workdir = storage_path("workdir", workdir)
    file = workdir / RECORD
    if not file.exists():
        raise UserError(f"no run in '{workdir}': it has no run.json; give the --workdir of train.py")
    try:
        content = file.read_bytes()
        record = json.loads(content)
        config = _config_of(record["config"])
        configuration.validate(config)
        label_names, image_shape = _label_names(record["label_names"]), _image_shape(record["image_shape"])
        config = with_reading(config, image_shape, STORED)  # as version 0.1, whose records lack the key
        data = str(record["data"])
        data_path, test_data = str(record.get("data_path", "")), str(record.get("test_data", ""))  # not in version 0.1
        common = (workdir, config, label_names, image_shape, data)
        if not config.anchoring.enabled:
            return Run(*common, None, None, data_path, test_data, record=content)
        rows, digest = np.array(record["references"]["rows"]), record["references"]["sha256"]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"'{file}' is corrupt ({error}); restore it from a copy") from error
    references = reference_file.load(workdir / REFERENCES, digest)
    return Run(*common, rows, references, data_path, test_data, record=content)


def with_reading(config: Config, image_shape: tuple[int, ...], orientation: Orientation = EXIF) -> Config:
    """Return a config with the mode, channels and orientation of a run's images, where it leaves them open.

    Args:
      config: of the run.
      image_shape: (H, W, C).
      orientation: of its images, if the config leaves that open.
    """
    config = config.copy_and_resolve_references()
    if config.data.mode == AUTO:
        config.data.mode = mode_of(image_shape)
    if not config.data.channels and image_shape[-1] > checks.MAX_CHANNELS:
        config.data.channels = image_shape[-1]
    if config.data.orientation == AUTO:
        config.data.orientation = orientation
    return config


def is_of_version_0_1(run: Run) -> bool:
    """Return whether a run that was loaded is one of version 0.1."""
    return run.record is not None and "orientation" not in json.loads(run.record)["config"]["data"]


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that affect the numbers."""
    return {package: importlib.metadata.version(package) for package in PACKAGES}


def _absolute_path(config: Config) -> str:
    """Return what `config.data.path` means in the current folder; "" for a source without files."""
    data = config.data
    if data.source == "tfds":
        return str(tfds_data_dir(data.path))
    return str(absolute_storage_path(PATH, data.path)) if data.path else ""


def _label_names(recorded: Any) -> tuple[str, ...]:
    names = cast(list[Any], recorded)
    if not isinstance(recorded, list) or len(names) < 2 or not all(isinstance(name, str) for name in names):
        raise ValueError(f"label_names must be names of at least two classes, got {reprlib.repr(names)}")
    return tuple(names)


def _image_shape(recorded: Iterable[int]) -> tuple[int, ...]:
    return checks.image_shape("image_shape", recorded)


def _config_of(recorded: dict[str, Any]) -> Config:
    """Return a recorded config, with tuples instead of JSON's lists, and defaults for keys that were added later."""

    def with_tuples(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: with_tuples(inner) for key, inner in cast(dict[str, Any], value).items()}
        return tuple(map(with_tuples, cast(list[Any], value))) if isinstance(value, list) else value

    config = base()
    config.update(with_tuples(configuration.rename_old_keys(recorded)))
    return config


def _changes(run: Run, config: Config, data: str) -> tuple[Change, ...]:
    recorded, given = flatten(run.config), flatten(_config_of(config.to_dict()))
    recorded[DATA], given[DATA] = run.data, data
    keys = sorted(recorded.keys() | given.keys(), key=lambda key: (key in _CONSEQUENCES, key))
    pairs = ((key, recorded.get(key), given.get(key)) for key in keys)
    return tuple(Change(key, before, now) for key, before, now in pairs if before != now)


def _check_compatible(
    run: Run, train: TrainingSetInfo, changes: tuple[Change, ...], accept_changes: tuple[str, ...]
) -> None:
    if any(change.key == "anchoring.enabled" for change in changes):
        raise UserError(
            f"'{run.workdir}' holds another run: its config.anchoring.enabled is {run.config.anchoring.enabled}, which "
            "cannot change; choose another --workdir"
        )
    for key, before, now in changes:
        if not key.startswith(RESUMABLE_CHANGES) and key not in accept_changes:
            what = "its training set" if key == DATA else f"its config.{key}"
            raise UserError(
                f"'{run.workdir}' holds another run: {what} is {before!r}; got {now!r}; give the same, choose another "
                f"--workdir, or resume with the change by --accept_changes={key}"
            )
    if run.label_names != train.label_names or run.image_shape != train.image_shape:
        raise UserError(
            f"'{run.workdir}' holds another run, of {len(run.label_names)} classes and images {list(run.image_shape)}; "
            f"the data have {len(train.label_names)} and {list(train.image_shape)}; choose another --workdir"
        )
