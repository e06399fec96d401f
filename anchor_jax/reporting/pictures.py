"""What trackers show: pictures of a training, scores and figures of an evaluation."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from anchor_jax.evaluation.output import POINTER, workdir_of_results
from anchor_jax.evaluation.presentation import ImageGrid, ImageStrip, Plot, ReliabilityDiagrams
from anchor_jax.evaluation.results import Results, flat_name
from anchor_jax.metrics import ReliabilityBins
from anchor_jax.reporting import plots
from anchor_jax.reporting.terminal import print_lines
from anchor_jax.runs import record as run_record
from anchor_jax.runtime.object_storage import is_remote
from anchor_jax.training.trackers import Trackers


class TrainingPictures:
    """Draws the pictures that trackers show of a training; pass it to `anchor_jax.training.train` as `pictures`."""

    def examples(self, references: np.ndarray | None, images: np.ndarray) -> bytes:
        """Draw references and images, uint8 `[n, H, W, C]` each, as a PNG."""
        strips = {} if references is None else {"references": ImageStrip(references)}
        return _png(ImageGrid({**strips, "images that are evaluated": ImageStrip(images)}, len(images)))

    def reliability(self, bins: ReliabilityBins, title: str) -> bytes:
        """Draw a reliability diagram as a PNG."""
        return _png(ReliabilityDiagrams({title: bins}))


def send_results(trackers: Sequence[str], folder: Path, results: Mapping[str, Results]) -> None:
    """Send the scores of a checkpoint and the figures of its report to trackers.

    Scores of single draws and of single corruptions at single severities stay in `metrics.json`. Results with a limit
    have names of their own, as they have a folder of their own.

    Args:
      trackers: their names.
      folder: of the checkpoint's results, with the report.
      results: by storage name of the suite.
    """
    workdir = workdir_of_results(folder.parent)
    facts = next(result.facts for of in results.values() for result in of.values())
    step, limit = facts["step"], facts.get("options", {}).get("limit")
    root = f"eval-limit{limit}" if limit else "eval"
    every = [(f"{root}/{name}/{num}", result) for name, of in results.items() for num, result in of.items()]
    sent = {
        f"{prefix}/{flat_name(score)}": score.value
        for prefix, result in every
        for score in result.scores
        if score.draw is None and (score.corruption is None or score.severity is None)
    }
    num_left = sum(len(result.scores) for _, result in every) - len(sent)
    is_own = (folder.parent / POINTER).exists()  # a folder outside of the run, in which nothing is written then
    place = workdir if not is_own and (is_remote(workdir) or os.access(workdir, os.W_OK)) else folder.parent
    opened = Trackers(trackers, run_record.load(workdir), place, folder.parent / "tensorboard", step)
    opened.scores(step, sent)
    for file in sorted((folder / "pictures").glob("*.png")):
        opened.picture(step, f"{root}/{file.stem}", file.read_bytes())
    opened.close("FINISHED")
    rest = f"; {num_left:,} of single draws and corruptions are in metrics.json" if num_left else ""
    print_lines(f"tracker: {len(sent):,} scores of step {step:,} for {', '.join(trackers)}{rest}")


def _png(plot: Plot) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        plots.save(plot, Path(folder) / "picture.png")
        return (Path(folder) / "picture.png").read_bytes()
