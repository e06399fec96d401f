"""Evaluate a run from its folder alone: a table, `metrics.json` and pictures."""

import json
import os
import platform
from pathlib import Path

import jax
from rich.console import Console
from rich.table import Table

from anchor_jax import config as configuration
from anchor_jax.data import load_test
from anchor_jax.errors import UserError, unknown
from anchor_jax.evaluation import plots
from anchor_jax.evaluation.suites import SUITES, Evaluation
from anchor_jax.files import replacing
from anchor_jax.predictor import Predictor
from anchor_jax.training import run
from anchor_jax.training.prediction import load_checkpoint

TRACED_BATCHES = 4
COLUMNS = {
    "accuracy": ".2%",
    "nll": ".4f",
    "brier": ".4f",
    "ece": ".2%",
    "rms_ece": ".2%",
    "smooth_ece": ".2%",
}


def evaluate(
    workdir: Path,
    suites: tuple[str, ...] = ("clean",),
    num_references: tuple[int, ...] = (1, 10),
    step: int | str = "latest",
    *,
    num_bins: int | None = None,
    chunk_size: int | None = None,
    profile: bool = False,
) -> dict[str, dict[str, dict[str, float]]]:
    """Evaluate a checkpoint; prints a table and writes `<workdir>/eval/`.

    Args:
      workdir: the run's folder.
      suites: names from `SUITES`.
      num_references: K, one evaluation for each; a standard network uses none, its entry is "0".
      step: of the checkpoint, "latest" or "best".
      num_bins: of the calibration errors; the run's own by default.
      chunk_size: references evaluated at once, 0 for as many as fill a batch; the run's own by default.
      profile: trace some batches of the test set, once all is compiled, into `<workdir>/profile/`.

    Returns:
      suite -> number of references -> metric, as in `metrics.json`; fractions in [0, 1].

    Raises:
      UserError: no such run, checkpoint, suite or number of references, or the data do not fit the run.
    """
    if not suites or not num_references:
        raise UserError("suites and num_references must each name at least one; got none")
    for suite in suites:
        if suite not in SUITES:
            raise unknown("suite", suite, SUITES)
    this_run = run.load(workdir)
    config = this_run.config.evaluation
    config.num_bins = config.num_bins if num_bins is None else num_bins
    config.chunk_size = config.chunk_size if chunk_size is None else chunk_size
    configuration.validate(this_run.config)
    num_references = tuple(dict.fromkeys(num_references)) if this_run.config.anchoring.enabled else (0,)
    found_step, predictor = load_checkpoint(this_run, step)
    for num in num_references:
        predictor.first_references(num)

    folder, console = workdir / "eval", Console()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"'{folder}' is no folder; move it away")
    results = {}
    for suite in suites:
        evaluations = SUITES[suite](this_run, predictor, num_references)
        results[suite] = {str(num): evaluation.metrics for num, evaluation in evaluations.items()}
        console.print(_table(suite, found_step, evaluations))
        _draw(suite, found_step, evaluations, config.num_bins, folder)
    _write(results, found_step, config.num_bins, folder)
    if profile:
        _trace(this_run, predictor, num_references[-1], workdir / "profile")
        console.print(f"profile: {workdir / 'profile'}", soft_wrap=True, highlight=False)
    console.print(f"numbers and pictures: {folder}", soft_wrap=True, highlight=False)
    return results


def _trace(this_run: run.Run, predictor: Predictor, num_references: int, folder: Path) -> None:
    test = load_test(this_run.config.data, this_run.label_names, this_run.image_shape)
    with jax.profiler.trace(str(folder)):
        predictor(test.images[: TRACED_BATCHES * predictor.batch_size], num_references)


def _table(suite: str, step: int, evaluations: dict[int, Evaluation]) -> Table:
    num_examples = len(next(iter(evaluations.values())).labels)
    table = Table(title=f"{suite}: {num_examples:,} examples, step {step:,}", title_justify="left")
    for name in ("references", *COLUMNS):
        table.add_column(name, justify="right")
    for num, evaluation in evaluations.items():
        table.add_row(str(num), *(format(evaluation.metrics[name], form) for name, form in COLUMNS.items()))
    return table


def _draw(suite: str, step: int, evaluations: dict[int, Evaluation], num_bins: int, folder: Path) -> None:
    for num, evaluation in evaluations.items():
        title = f"{suite}, {num} reference{'s' * (num != 1)}, step {step:,}"
        name = f"{suite}-step{step}-references{num}"
        plots.reliability_diagram(evaluation, num_bins, title, folder / f"{name}-reliability.png")
        plots.uncertainty_histogram(evaluation, title, folder / f"{name}-uncertainty.png")


def _write(results: dict[str, dict[str, dict[str, float]]], step: int, num_bins: int, folder: Path) -> None:
    """Join the results to earlier ones of the same checkpoint, in a file of its own and as `metrics.json`."""
    file = folder / f"step{step}-bins{num_bins}.json"
    try:
        earlier = json.loads(file.read_text())["results"] if file.exists() else {}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{file}' is damaged ({error}); move it away") from error
    results = {suite: earlier.get(suite, {}) | results.get(suite, {}) for suite in earlier | results}
    facts = {
        "step": step,
        "num_bins": num_bins,
        "devices": [device.device_kind for device in jax.devices()],
        "host": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": run.versions(),
    }
    for path, content in ((file, {"facts": facts, "results": results}), (folder / "metrics.json", results)):
        with replacing(path) as new:
            new.write_text(json.dumps(content, indent=2) + "\n")
