"""The folder of a run: its record and references, written once, and what evaluation needs to read it back.

run.json         config, class names, image shape, what the data are, which references, versions, and what has
                 changed since the run began; there when it has
references.npz   pixels of the inference references
checkpoints/     see `checkpoint`
metrics.jsonl    one line a log point
tensorboard/     the same for TensorBoard
eval/            what `eval.py` writes
damaged/         checkpoints that could not be read, if there are any
lock             held by the process that trains
"""

import contextlib
import dataclasses
import glob
import hashlib
import importlib.metadata
import json
import reprlib
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from anchor_jax import config as configuration
from anchor_jax.config import RESUMABLE_CHANGES, Config, base, flatten
from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.models.pytorch.files import source_and_file
from anchor_jax.runtime import multihost
from anchor_jax.runtime.atomic_files import atomic_write, exclusive_lock

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
RECORD = "run.json"
DATA = "data"  # stands for the images and labels of the training set among what may change
_SHOWN_WITHIN_SECONDS = 60


class TrainingSetInfo(Protocol):
    """The facts of a training set that a run records."""

    label_names: tuple[str, ...]
    image_shape: tuple[int, ...]

    def identity(self) -> str:
        """Return what distinguishes this training set from others."""
        ...

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return un-augmented images: int `[n]` -> uint8 `[n, H, W, C]`."""
        ...


class Change(NamedTuple):
    """What is no longer as it was when a run began."""

    key: str  # of the config, or "data"
    before: Any
    now: Any


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's record.

    Attributes:
      workdir: its folder.
      config: complete, with the normalisation measured.
      label_names: one name a class.
      image_shape: H, W and C.
      data: what tells the training set from others, see `TrainingData.identity`.
      reference_rows: int `[R]`, rows of the training set, drawn once from the bank; None for a standard network.
      references: uint8 `[R, H, W, C]`, their images, for inference.
      changes: in what it now differs from its record.
      record: the bytes of that when it was looked at; None where there was none.
    """

    workdir: Path
    config: Config
    label_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    data: str
    reference_rows: np.ndarray | None
    references: np.ndarray | None
    changes: tuple[Change, ...] = ()
    record: bytes | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one batch of one, as the network sees it: `[1, H, W, C]`, 2C where anchored."""
        *size, channels = self.image_shape
        return (1, *size, channels * (2 if self.config.anchoring.enabled else 1))


def open_or_create(
    workdir: Path, config: Config, train: TrainingSetInfo, bank: np.ndarray, accept_changes: tuple[str, ...] = ()
) -> Run:
    """The run of a folder, or a new one for it, of which nothing is written yet (see `claimed`).

    Args:
      workdir: the folder, which need not be there.
      config: validated, with the normalisation measured.
      train: the training set.
      bank: int32 `[M]`, rows of the training set that serve as references.
      accept_changes: keys of the config, or "data", that may differ from the record.

    Raises:
      UserError: the folder holds another run.
    """
    for key in accept_changes:
        if key != DATA and not configuration.is_known(key):
            raise UserError(f"accept_changes takes keys of the config and '{DATA}'; {configuration.unknown_key(key)}")
    if glob.has_magic(str(workdir.absolute())):
        raise UserError(
            f"'{workdir}' has one of *, ? and [ in its path, which orbax cannot save to; choose another --workdir"
        )
    data = train.identity()
    if (workdir / RECORD).exists():
        run = load(workdir)
        changes = _changes(run, config, data)
        _check(run, train, changes, accept_changes)
        run = dataclasses.replace(run, config=config, data=data, changes=changes)
    elif left := [name for name in ("checkpoints", "metrics.jsonl") if (workdir / name).exists()]:
        raise UserError(f"'{workdir}' holds {left[0]} but no run.json; restore that file or choose another --workdir")
    else:
        rows = _reference_rows(config, bank) if config.anchoring.enabled else None
        references = train.take(rows) if rows is not None else None
        run = Run(workdir, config, train.label_names, train.image_shape, data, rows, references)
    if run.references is not None and config.evaluation.num_references > len(run.references):
        raise UserError(
            f"config.evaluation.num_references must be at most {len(run.references)}, the references saved with the "
            f"run; got {config.evaluation.num_references}"
        )
    return run


@contextlib.contextmanager
def lock_workdir(run: Run) -> Iterator[None]:
    """Be the only one that trains in the folder of a run; its record is written, if there is none.

    Of several processes the first claims and writes.

    Raises:
      UserError: another process has claimed it, it cannot be written to, or is not the same one for all processes.
    """
    with contextlib.ExitStack() as stack:
        multihost.on_primary(partial(_claim, run, stack), "run.json")
        if not _appears(run.workdir / RECORD):
            raise UserError(
                f"'{run.workdir}' is not the folder that process 0 writes to; give a --workdir on a disk that all share"
            )
        yield


def _claim(run, stack):
    with _writing(run.workdir):
        stack.enter_context(exclusive_lock(run.workdir))
        record = run.workdir / RECORD
        if (record.read_bytes() if record.exists() else None) != run.record:
            raise UserError(f"another process has begun to train in '{run.workdir}'; start the same command again")
        if run.record is None:
            _write(run)


@contextlib.contextmanager
def _writing(workdir):
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write to '{workdir}' ({error.strerror}); choose another --workdir") from error


def _appears(file):
    """Whether a file is there; a disk that is shared may show it late."""
    deadline = time.monotonic() + _SHOWN_WITHIN_SECONDS
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(1)
    return file.exists()


def _write(run):
    record: dict[str, Any] = {
        "config": run.config.to_dict(),
        "label_names": run.label_names,
        "image_shape": run.image_shape,
        "data": run.data,
        "versions": package_versions(),
    }
    if run.config.model.weights:
        _, weights = source_and_file(run.config.model.weights)
        with weights.open("rb") as file:
            record["weights"] = {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    if run.references is not None and run.reference_rows is not None:
        rows, digest = run.reference_rows.tolist(), _digest(run.references)
        record["references"] = {"seed": run.config.seed, "rows": rows, "sha256": digest}
        references = run.workdir / "references.npz"
        if references.exists():
            _check_left(references, digest)
        with atomic_write(references) as file:
            np.savez_compressed(file, images=run.references)
    _write_record(run.workdir, record)


def _check_left(references, digest):
    """Refuse references that are not those of this run, of a folder without a run."""
    try:
        _load_references(references, digest)
    except UserError as error:
        raise UserError(
            f"'{references}' is of another run, whose start was cut off, or of somebody else ({error}); move it away, "
            "or choose another --workdir"
        ) from error


def record_config_changes(run: Run, step: int | None) -> None:
    """Bring the record of a run up to date, once it goes on from the checkpoint of this step."""
    if run.changes and multihost.is_primary():
        record = json.loads((run.workdir / RECORD).read_text())
        record |= {"config": run.config.to_dict(), "data": run.data}
        since = {"after_step": step, "versions": package_versions()}
        record["changes"] = [*record.get("changes", []), *(change._asdict() | since for change in run.changes)]
        with _writing(run.workdir):
            _write_record(run.workdir, record)


def _write_record(workdir, record):
    with atomic_write(workdir / RECORD) as file:
        file.write_text(json.dumps(record, indent=2) + "\n")


def load(workdir: Path) -> Run:
    """The record of a run.

    Raises:
      UserError: there is no run in the folder, or its record is damaged.
    """
    file = workdir / RECORD
    if not file.exists():
        raise UserError(f"no run in '{workdir}': it has no run.json; give the --workdir of train.py")
    try:
        content = file.read_bytes()
        record = json.loads(content)
        config = _config_of(record["config"])
        configuration.validate(config)
        label_names, image_shape = _names(record["label_names"]), _image_shape(record["image_shape"])
        data = str(record["data"])
        if not config.anchoring.enabled:
            return Run(workdir, config, label_names, image_shape, data, None, None, record=content)
        rows, digest = np.array(record["references"]["rows"]), record["references"]["sha256"]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"'{file}' is damaged ({error}); restore it from a copy") from error
    references = _load_references(workdir / "references.npz", digest)
    return Run(workdir, config, label_names, image_shape, data, rows, references, record=content)


def _names(names):
    if not isinstance(names, list) or len(names) < 2 or not all(isinstance(name, str) for name in names):
        raise ValueError(f"label_names must be names of at least two classes, got {reprlib.repr(names)}")
    return tuple(names)


def _image_shape(shape):
    checks.image_shape("image_shape", tuple(shape))
    return tuple(shape)


def package_versions() -> dict[str, str]:
    """Of the packages whose change may change the numbers."""
    return {package: importlib.metadata.version(package) for package in PACKAGES}


def _reference_rows(config, bank):
    num = min(config.evaluation.saved_references, len(bank))
    return np.random.default_rng(config.seed).choice(bank, num, replace=False)


def _load_references(file, digest):
    try:
        with np.load(file, allow_pickle=False) as arrays:
            references = arrays["images"]
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds on damaged bytes
        raise UserError(f"'{file}' is missing or damaged ({error}); restore it from a copy") from error
    if _digest(references) != digest:
        raise UserError(
            f"'{file}' does not hold the references of the run (their hash differs); restore it from a copy"
        )
    return references


def _digest(images):
    return hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()


def _config_of(record: dict[str, Any]) -> Config:
    """The config of a record, with tuples where JSON has lists, and defaults for keys that came later."""

    def restored(value):
        if isinstance(value, dict):
            return {key: restored(inner) for key, inner in value.items()}
        return tuple(map(restored, value)) if isinstance(value, list) else value

    config = base()
    config.update(restored(configuration.rename_old_keys(record)))
    return config


def _changes(run, config, data):
    recorded, given = flatten(run.config), flatten(_config_of(config.to_dict()))
    recorded[DATA], given[DATA] = run.data, data
    pairs = ((key, recorded.get(key), given.get(key)) for key in sorted(recorded.keys() | given.keys()))
    return tuple(Change(key, before, now) for key, before, now in pairs if before != now)


def _check(run, train, changes, accepted):
    if any(change.key == "anchoring.enabled" for change in changes):
        raise UserError(
            f"'{run.workdir}' holds another run: its config.anchoring.enabled is {run.config.anchoring.enabled}, which "
            "cannot change; choose another --workdir"
        )
    for key, before, now in changes:
        if not key.startswith(RESUMABLE_CHANGES) and key not in accepted:
            what = "its training set" if key == DATA else f"its config.{key}"
            raise UserError(
                f"'{run.workdir}' holds another run: {what} is {before!r}, given is {now!r}; give the same, another "
                f"--workdir, or, if it is to go on all the same, --accept_changes={key}"
            )
    if run.label_names != train.label_names or run.image_shape != train.image_shape:
        raise UserError(
            f"'{run.workdir}' holds another run, of {len(run.label_names)} classes and images {list(run.image_shape)}; "
            f"the data have {len(train.label_names)} and {list(train.image_shape)}; choose another --workdir"
        )
