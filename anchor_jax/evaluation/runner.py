"""Evaluate a run from its folder alone: suites, tables, numbers on disk and the report of them."""

import contextlib
import itertools
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from anchor_jax import config as configuration
from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.evaluation import legacy, storage
from anchor_jax.evaluation import results as on_disk
from anchor_jax.evaluation.context import EvalContext, Finding, Options
from anchor_jax.evaluation.results import SuiteResult
from anchor_jax.evaluation.suites import SUITES
from anchor_jax.evaluation.temperature import require_held_out
from anchor_jax.runs import record as run_record
from anchor_jax.runs.load import load_checkpoint
from anchor_jax.runs.predictor import Predictor
from anchor_jax.runtime import multihost
from anchor_jax.runtime.atomic_files import exclusive_lock

TRACED_BATCHES = 4
_FEW = 4  # names that are told one by one


def evaluate(
    workdir: str | os.PathLike[str],
    suites: tuple[str, ...] = ("clean",),
    num_references: tuple[int, ...] = (1, 10),
    step: int | str = "latest",
    *,
    options: Options | None = None,
    num_bins: int | None = None,
    chunk_size: int | None = None,
    profile: bool = False,
) -> dict[str, dict[str, dict[str, float]]]:
    """Evaluate a checkpoint; prints tables and writes `<workdir>/eval/`.

    Of several processes each computes all numbers, on the devices of all; only the first writes and prints.

    Args:
      workdir: the run's folder.
      suites: names from `SUITES`.
      num_references: K, one evaluation for each; a standard network uses none, its entry is "0".
      step: of the checkpoint, "latest" or "best".
      options: data sets and settings of the suites.
      num_bins: of the calibration errors; the run's own by default.
      chunk_size: references evaluated at once, 0 for as many as fill a batch; the run's own by default.
      profile: trace some batches of the test set, once all is compiled, into `<workdir>/profile/`.

    Returns:
      suite -> number of references -> metric, of these suites; fractions in [0, 1]. By the protocol "blt" a suite
      has the name "suite-blt" and one reference an image. `eval/metrics.json` has all this together with what was
      found before on the same checkpoint.

    Raises:
      UserTypeError: an argument is of the wrong type.
      UserError: no such run, checkpoint, suite or number of references, or the data do not fit the run.
    """
    checks.path("workdir", workdir)
    workdir = Path(workdir)
    checks.several("suites", suites)
    checks.several("num_references", num_references)
    if not suites or not num_references:
        raise UserError("suites and num_references must each name at least one; got none")
    options = options or Options()
    checks.instance("options", options, Options, "evaluation.Options()")
    _check_names(suites, options)
    this_run = run_record.load(workdir)
    config = this_run.config.evaluation
    config.num_bins = config.num_bins if num_bins is None else num_bins
    config.chunk_size = config.chunk_size if chunk_size is None else chunk_size
    configuration.validate(this_run.config)
    found_step, predictor = load_checkpoint(this_run, step)
    num_references = _numbers_of_references(predictor, num_references, options)

    subject = EvalContext(this_run, found_step, predictor, options, config.num_bins)
    folder = workdir / "eval" / f"step{found_step}-bins{config.num_bins}"
    is_first = multihost.is_primary()
    if is_first:
        _check_folder(folder)
    _check(subject, suites)
    results = {}
    with _reporting(subject, folder) if is_first else contextlib.nullcontext():
        for suite in dict.fromkeys(suites):
            name = on_disk.storage_name(suite, options.protocol)
            findings = ask(subject, suite, num_references, folder, name)
            results[name] = {str(num): finding.metrics for num, finding in findings.items()}
            if is_first:
                _show(folder, name, num_references)
    if profile:
        _trace(subject, num_references[-1], workdir / "profile")
    return results


def _check_folder(folder: Path) -> None:
    """Refuse a folder that is none, and damaged results of before, now and not after hours."""
    if any(place.exists() and not place.is_dir() for place in (folder, folder.parent)):
        raise UserError(f"'{folder}' or the folder that it is in is a file; move it away")
    storage.read(folder)


@contextlib.contextmanager
def _reporting(subject: EvalContext, folder: Path) -> Iterator[None]:
    """Report in the end what was found, also before a failure or an interruption; nobody else evaluates here."""
    with contextlib.ExitStack() as stack:
        with storage.writing(folder):
            stack.enter_context(exclusive_lock(folder.parent))
            folder.mkdir(parents=True, exist_ok=True)
        try:
            yield
        finally:
            if storage.read(folder):
                from anchor_jax.reporting import write_report

                report = write_report(folder, _facts_of_run(subject.run))
                _write_metrics(folder)
                _tell(f"numbers: {folder.parent / 'metrics.json'}", f"report:  {report}")


def _tell(*lines: str) -> None:
    for line in lines:
        Console().print(line, soft_wrap=True, highlight=False)


def _show(folder: Path, name: str, num_references: tuple[int, ...]) -> None:
    for title, table in _tables(folder, name, num_references):
        _tell(title)
        Console().print(table)


def _check_names(suites: tuple[str, ...], options: Options) -> None:
    for suite in suites:
        checks.known("suite", suite, SUITES)
    transducible = [name for name, suite in SUITES.items() if suite.by_any_protocol]
    if options.protocol == "blt" and (others := [suite for suite in suites if suite not in transducible]):
        raise UserError(f"suite '{others[0]}' has no protocol 'blt'; those that have it: {', '.join(transducible)}")


def _check(subject: EvalContext, suites: tuple[str, ...]) -> None:
    """Refuse, before anything is measured, what cannot be."""
    if subject.options.temperature_scaling:
        require_held_out(subject.train)
        scaled = [name for name, suite in SUITES.items() if "temperature_scaling" in suite.options]
        if not set(scaled) & set(suites):
            raise UserError(
                f"temperature scaling serves the suites {', '.join(scaled)}; ask one of them, or leave it out"
            )
        if subject.options.protocol == "blt":
            raise UserError("temperature scaling goes with random references; take protocol 'random', or leave it out")
    if subject.options.protocol == "blt":
        _ = subject.transduction  # reads the training data
    for suite in suites:
        SUITES[suite].check(subject)


def _numbers_of_references(predictor: Predictor, asked: tuple[int, ...], options: Options) -> tuple[int, ...]:
    """Each once: those that were asked for, one by transduction, none of a standard network."""
    if predictor.references is None:
        if options.protocol == "blt":
            raise UserError("protocol 'blt' picks references, and a standard network has none; take 'random'")
        return (0,)
    for num in asked:
        predictor.first_references(num)
    return (1,) if options.protocol == "blt" else tuple(dict.fromkeys(asked))


def ask(
    subject: EvalContext, suite: str, num_references: tuple[int, ...], folder: Path, name: str
) -> dict[int, Finding]:
    """What a suite finds with each number of references; every one is on disk before the next begins.

    Args:
      subject: what is asked.
      suite: a name of `SUITES`.
      num_references: K, one evaluation for each.
      folder: of the results.
      name: under which they are kept there.
    """
    findings = {}
    for num in num_references:
        started = time.perf_counter()
        finding = SUITES[suite].measure(subject, num)
        findings[num] = finding
        if not multihost.is_primary():
            continue
        facts = finding.facts | _facts_of_measurement(subject, suite) | {"seconds": time.perf_counter() - started}
        scores = legacy.import_scores(suite, finding.metrics)
        moved = storage.write(folder, SuiteResult(suite, num, scores, finding.arrays, facts, subject.options.protocol))
        if moved:
            print(f"{name}: what was found with other options was moved to {moved}")
    return findings


def _facts_of_measurement(subject: EvalContext, suite: str) -> dict[str, Any]:
    asked = {name: getattr(subject.options, name) for name in SUITES[suite].options}
    if subject.options.protocol == "blt":
        asked |= {name: getattr(subject.options, name) for name in ("blt_references", "seed")}
    return {
        "options": {name: list(value) if isinstance(value, tuple) else value for name, value in asked.items()},
        "step": subject.step,
        "num_bins": subject.num_bins,
        "anchored": subject.run.config.anchoring.enabled,
        "protocol": subject.options.protocol,
        "label_names": list(subject.run.label_names),
        "devices": [device.device_kind for device in jax.devices()],
        "host": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": run_record.package_versions(),
    }


def _facts_of_run(this_run: run_record.Run) -> dict[str, Any]:
    return {
        "workdir": this_run.workdir.name,
        "config": configuration.flatten(this_run.config),
        "label_names": list(this_run.label_names),
        "image_shape": list(this_run.image_shape),
    }


def _tables(folder: Path, suite: str, num_references: tuple[int, ...]) -> Iterator[tuple[str, Table]]:
    """The first table of a suite in the report, and what it is about, for the terminal."""
    from anchor_jax.reporting import SECTIONS
    from anchor_jax.reporting.figures import by_suite

    of_suite = by_suite(storage.read(folder))[suite]
    of_suite = of_suite._replace(results={num: of_suite.results[num] for num in num_references})
    facts, members = of_suite.facts, of_suite.facts.get("members", [])
    extent = [f"{facts['num_examples']:,} examples"] if "num_examples" in facts else []
    extent += [", ".join(members) if len(members) <= _FEW else f"{len(members)} sets"] if members else []
    for first in itertools.islice(SECTIONS[suite.removesuffix(on_disk.BLT_SUFFIX)].tables(of_suite), 1):
        table = Table(box=SIMPLE_HEAD)
        for heading in ("", *(title for title, _ in first.rows)):
            table.add_column(heading, justify="right")
        for index, metric in enumerate(first.headings):  # metrics below one another, so that they fit any terminal
            table.add_row(metric, *(cells[index].text for _, cells in first.rows))
        title = f"{suite}: {first.caption}" if first.caption else suite
        yield ", ".join([title, *extent, f"step {facts['step']:,}"]), table


def _write_metrics(folder: Path) -> None:
    results = storage.read(folder)
    storage.write_metrics(folder.parent, results)
    for place in (folder, folder.parent):
        storage.write_tables(place, (of for by_number in results.values() for of in by_number.values()))


def _trace(subject: EvalContext, num_references: int, folder: Path) -> None:
    images, _ = subject.test.first(TRACED_BATCHES * subject.predictor.batch_size)
    with multihost.profile_trace(folder):
        subject.predictor(images, num_references)
    if multihost.is_primary():
        _tell(f"profile: {folder}")
