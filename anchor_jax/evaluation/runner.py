"""Evaluate a run from its folder: prepare the suites, measure them, and store their results."""

import contextlib
import copy
import dataclasses
import os
import platform
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax

from anchor_jax import config as configuration
from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.data import EvalDataset
from anchor_jax.evaluation import output, prediction_files, question, storage
from anchor_jax.evaluation.context import EvalContext, EvalSettings
from anchor_jax.evaluation.progress import progress_bar
from anchor_jax.evaluation.results import Results, SuiteResult, parse_storage_name, storage_name
from anchor_jax.evaluation.suite import Suite
from anchor_jax.evaluation.suites import SUITES, Options, find
from anchor_jax.runs import record as run_record
from anchor_jax.runs.data_location import locate
from anchor_jax.runs.load import load_checkpoint
from anchor_jax.runs.predictor import Predictor
from anchor_jax.runtime import multihost
from anchor_jax.runtime.paths import resolved
from anchor_jax.runtime.settings import with_own_settings

_TRACED_BATCHES = 4


class Reporter(Protocol):
    """Presents results while they are measured; see `anchor_jax.reporting.Reporter`."""

    def suite_finished(self, results: Results) -> None:
        """Present what a suite just measured, by number of references."""
        ...

    def evaluation_finished(self, folder: Path, results: Mapping[str, Results], run_facts: Mapping[str, Any]) -> None:
        """Present all results of a checkpoint; also called if the evaluation is interrupted or fails.

        Args:
          folder: of the checkpoint's results.
          results: by storage name of the suite.
          run_facts: JSON values about the run; see `facts_of_run`.
        """
        ...

    def profile_written(self, folder: Path) -> None:
        """Present the folder of a profile."""
        ...


@with_own_settings
def evaluate(
    workdir: str | os.PathLike[str],
    suites: tuple[str, ...] = ("clean",),
    num_references: tuple[int, ...] = (1, 10),
    step: int | str = "latest",
    *,
    options: Options | None = None,
    num_bins: int | None = None,
    chunk_size: int | None = None,
    data_path: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    profile: bool = False,
    predictions: bool | None = None,
    report: Reporter | None = None,
) -> dict[str, dict[str, dict[str, float]]]:
    """Evaluate a checkpoint of a run.

    Write `metrics.json`, `results.parquet` and `results.csv` to `<workdir>/eval/`, and the results of each checkpoint
    to `<workdir>/eval/step{S}-bins{B}/`, merged with those of earlier evaluations. Results with `options.limit` are
    only in a folder of their own, `step{S}-bins{B}-limit{N}/`. With multiple processes, each one computes all numbers
    on the devices of all processes, and only the first writes.

    Args:
      workdir: folder of the run.
      suites: names from `SUITES`.
      num_references: numbers of references K, each evaluated separately; a standard network uses none, and its entry is
        "0".
      step: step of the checkpoint, "latest" or "best".
      options: datasets and settings of the suites.
      num_bins: bins of the calibration errors; by default those of the run's config.
      chunk_size: references computed at once, 0 for as many as fill a batch; by default that of the run's config.
      data_path: where the data of the run are now, if they have moved since training; takes the place of
        `config.data.path`.
      out: folder that takes the place of `<workdir>/eval/`; nothing is written to the workdir then.
      profile: trace some batches of the first dataset, after compilation, into `<workdir>/profile/`, or
        `<out>/profile/`.
      predictions: whether the prediction for every image is written, to `predictions.parquet` and `predictions.csv`;
        None: if the latter takes at most 100 MB.
      report: presents the results; `anchor_jax.reporting.Reporter()` prints tables and writes the HTML report, as
        `eval.py` does. `anchor_jax.reporting.write_report(workdir)` writes the report later.

    Returns:
      suite -> number of references -> flat name -> value, of these suites; fractions in [0, 1]. With the protocol "blt"
      a suite is named "suite-blt" and has one reference per image; with `options.data` the suite "clean" has an entry
      "clean@NAME" for each dataset. `anchor_jax.evaluation.load_results(workdir)`
      returns all results of the run as one long-form table.

    Raises:
      UserTypeError: an argument has the wrong type.
      UserError: no such run, checkpoint, suite or number of references, or the data do not match the run.
    """
    suites, num_references = checks.several("suites", suites), checks.several("num_references", num_references)
    if not suites or not num_references:
        raise UserError("suites and num_references must each name at least one; got none")
    options = options or Options()
    checks.instance("options", options, Options, "evaluation.Options()")
    predictions = None if predictions is None else checks.flag("predictions", predictions)
    _check_names(suites, options)
    run = locate(run_record.load(workdir), data_path)
    workdir = run.workdir
    root = output.open_root(workdir, out)
    found_step, predictor, settings = _load(run, step, num_bins, chunk_size)
    num_references = _valid_num_references(predictor, num_references, options)

    context = EvalContext(run, found_step, predictor, options, settings)
    if multihost.is_primary():
        root.check_writable()
        _check_folder(root.path / storage.folder_name(found_step, settings.num_bins, options.limit))
    prepared = prepare(context, suites)
    _check_data(context, is_moved=data_path is not None)
    folder = root.path / storage.folder_name(found_step, settings.num_bins, options.limit if context.is_limited else 0)
    if multihost.is_primary():
        _check_folder(folder)
    recorded = _recorded(prepared, num_references, run, predictions)
    measured: dict[str, dict[int, SuiteResult]] = {}
    with _storing(context, root, folder, report) as store, _progress_of_all(context, prepared, num_references):
        for num in num_references:
            context.temperature(num)
        for key, of_suite in prepared.items():
            name = _with_protocol(key, options.protocol)
            for num in num_references:
                file = prediction_files.part_file(folder, name, num) if store else None
                with _recording(context, file, num) if key in recorded else contextlib.nullcontext():
                    result = measure(context, key, of_suite, num)
                    measured.setdefault(name, {})[num] = result
                    if store:
                        storage.add_and_tell(store, result)
            if report and store:
                report.suite_finished(measured[name])
    if profile:
        _trace(context, prepared, num_references[-1], (workdir if out is None else root.path) / "profile", report)
    return {name: {str(num): of.metrics for num, of in results.items()} for name, results in measured.items()}


def prepare(context: EvalContext, suites: Sequence[str]) -> dict[str, Any]:
    """Prepare suites, so that whatever is wrong is reported before anything is measured.

    Args:
      context: what is evaluated.
      suites: names from `SUITES`; repeated ones are prepared once.

    Returns:
      storage name without the protocol, such as "clean" -> what `prepare` of its suite returns.

    Raises:
      UserError: the run or the options do not allow the evaluation.
    """
    options = context.options
    if options.data and "clean" not in suites:
        raise UserError("the datasets given as --data are for the suite clean; add it to --suites, or omit --data")
    if options.temperature_scaling:
        _ = context.held_out
        scaled = [name for name, suite in SUITES.items() if "temperature_scaling" in _option_names(suite.options)]
        if not set(scaled) & set(suites):
            raise UserError(f"temperature scaling applies to the suites {', '.join(scaled)}; add one, or turn it off")
        if options.protocol == "blt":
            raise UserError("temperature scaling needs random references; use protocol 'random', or turn it off")
    if options.protocol == "blt":
        if context.predictor.references is None:
            raise UserError("protocol 'blt' chooses references, and a standard network has none; use 'random'")
        _ = context.transduction  # reads the training data
    by_suite = [SUITES[suite].prepare_all(context) for suite in dict.fromkeys(suites)]
    return {name: prepared for of_suite in by_suite for name, prepared in of_suite.items()}


def measure(context: EvalContext, name: str, prepared: Any, num_references: int) -> SuiteResult:
    """Measure one suite with one number of references, and add the facts that all suites have.

    Args:
      context: what is evaluated.
      name: from `prepare`.
      prepared: what `prepare` returned for it.
      num_references: K; 0 for a standard network.
    """
    started, suite = time.perf_counter(), find(name)
    with progress_bar(name, suite.num_predictions(prepared, num_references)):
        result = suite.measure(prepared, num_references)
    seconds = time.perf_counter() - started
    facts = {**result.facts, **_facts_of_measurement(context, suite, prepared), "seconds": seconds}
    return dataclasses.replace(result, facts=facts, protocol=context.options.protocol)


def facts_of_run(run: run_record.Run) -> dict[str, Any]:
    """Return JSON values about a run, for its report."""
    return {
        "workdir": resolved(run.workdir).name,
        "config": configuration.flatten(run.config),
        "label_names": list(run.label_names),
        "image_shape": list(run.image_shape),
    }


def _load(
    run: run_record.Run, step: int | str, num_bins: int | None, chunk_size: int | None
) -> tuple[int, Predictor, EvalSettings]:
    """Load a checkpoint with the settings of this evaluation; the recorded config of the run stays as it is."""
    config = copy.deepcopy(run.config)
    config.evaluation.num_bins = config.evaluation.num_bins if num_bins is None else num_bins
    config.evaluation.chunk_size = config.evaluation.chunk_size if chunk_size is None else chunk_size
    configuration.validate(config)
    found_step, predictor = load_checkpoint(dataclasses.replace(run, config=config), step)
    return found_step, predictor, EvalSettings(config.evaluation.num_bins, config.evaluation.chunk_size)


def _check_names(suites: tuple[str, ...], options: Options) -> None:
    for suite in suites:
        checks.known("suite", suite, SUITES)
    supported = [name for name, suite in SUITES.items() if suite.supports_blt]
    if options.protocol == "blt" and (others := [suite for suite in suites if suite not in supported]):
        raise UserError(f"suite '{others[0]}' does not support protocol 'blt'; supported: {', '.join(supported)}")


def _valid_num_references(predictor: Predictor, requested: tuple[int, ...], options: Options) -> tuple[int, ...]:
    """Return each number once: the requested ones, 1 with transduction, 0 for a standard network."""
    if predictor.references is None:
        return (0,)
    for num in requested:
        predictor.first_references(num)
    return (1,) if options.protocol == "blt" else tuple(dict.fromkeys(requested))


def _check_folder(folder: Path) -> None:
    """Reject a path that is no folder, and corrupt earlier results, before hours are spent."""
    if any(place.exists() and not place.is_dir() for place in (folder, folder.parent)):
        raise UserError(f"'{folder}' or its parent is a file; move it away")
    storage.read(folder)
    prediction_files.check_parts(folder)


def _recorded(
    prepared: Mapping[str, Any], num_references: Sequence[int], run: run_record.Run, predictions: bool | None
) -> list[str]:
    """Return the suites whose predictions are written: unless the caller decides, none if the files would be large."""
    names = [name for name in prepared if find(name).records_predictions]
    if predictions is not None:
        return names if predictions else []
    num_rows = sum(
        find(name).num_predictions(prepared[name], num) // max(num, 1) for name in names for num in num_references
    )
    num_bytes = prediction_files.estimated_bytes(num_rows, len(run.label_names))
    if prediction_files.is_small(num_bytes):
        return names
    if multihost.is_primary():
        file, size = prediction_files.CSV, prediction_files.format_bytes(num_bytes)
        print(
            f"predictions: {file} would have {num_rows:,} rows, about {size}, and is not written; --predictions writes "
            "it, --nopredictions omits this line"
        )
    return []


def _recording(context: EvalContext, file: Path | None, num_references: int) -> contextlib.AbstractContextManager[None]:
    return context.recorder.part(file, context.step, num_references, context.run.label_names)


def _progress_of_all(
    context: EvalContext, prepared: Mapping[str, Any], num_references: Sequence[int]
) -> contextlib.AbstractContextManager[None]:
    """Return one bar for all suites, datasets and numbers of references."""
    held_out = context.held_out.num_examples if context.options.temperature_scaling else 0
    total = sum(held_out * max(num, 1) for num in num_references)
    total += sum(
        find(name).num_predictions(of_suite, num) for name, of_suite in prepared.items() for num in num_references
    )
    return progress_bar("", total)


def _with_protocol(name: str, protocol: str) -> str:
    parsed = parse_storage_name(name)
    return storage_name(parsed.suite, protocol, parsed.dataset)


def _check_data(context: EvalContext, *, is_moved: bool) -> None:
    """Warn if the data are not those of training, or if that cannot be checked though they have moved."""
    if is_moved and not context.run.test_data:
        try:
            _ = context.train
        except UserError as error:
            warnings.warn(f"cannot check that the data are those of training: {error}", stacklevel=2)
    context.warn_of_other_data()


@contextlib.contextmanager
def _storing(
    context: EvalContext, root: output.Root, folder: Path, report: Reporter | None
) -> Iterator[storage.ResultStore | None]:
    """Lock the folder and yield the store of its results; None on all processes but the first.

    Summaries and report are written in the end, also after a failure or an interruption.
    """
    if not multihost.is_primary():
        yield None
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(root.lock())
        with storage.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        store = storage.ResultStore(folder)
        try:
            yield store
        finally:
            store.write_summaries()
            if report and store.results:
                report.evaluation_finished(folder, store.results, facts_of_run(context.run))


def _option_names(options: type) -> list[str]:
    return [field.name for field in dataclasses.fields(options)]


def _facts_of_measurement(context: EvalContext, suite: Suite[Any], prepared: Any) -> dict[str, Any]:
    options, candidates = context.options_of(suite.options).facts(), {}
    if context.is_limited:  # results on all images do not name it, as those of earlier versions do not
        options |= {"limit": context.options.limit, "seed": context.options.seed}
    if context.options.protocol == "blt":
        options |= {"blt_references": context.options.blt_references, "seed": context.options.seed}
        candidates = context.transduction.facts()
    datasets = suite.datasets(context, prepared)
    return {
        **candidates,
        "options": options,
        "data": question.data_facts(context, datasets),
        "test_set": context.test.content() if any(map(context.is_test, datasets)) and multihost.is_primary() else None,
        "network": question.network_facts(context, suite.options),
        "step": context.step,
        **context.settings._asdict(),
        "anchored": context.run.config.anchoring.enabled,
        "protocol": context.options.protocol,
        "label_names": list(context.run.label_names),
        "devices": [device.device_kind for device in jax.devices()],
        "host": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": run_record.package_versions(),
    }


def _trace(
    context: EvalContext, prepared: Mapping[str, Any], num_references: int, folder: Path, report: Reporter | None
) -> None:
    evaluated = (each for name, of_suite in prepared.items() for each in find(name).datasets(context, of_suite))
    dataset = next((each for each in evaluated if isinstance(each, EvalDataset)), None)
    dataset = context.test if dataset is None else dataset
    images, _ = dataset.first(_TRACED_BATCHES * context.predictor.batch_size)
    with multihost.profile_trace(folder):
        context.predictor(images, num_references)
    if report and multihost.is_primary():
        report.profile_written(folder)
