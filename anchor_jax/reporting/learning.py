"""Learning curves of a run, from the metrics that training logged."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anchor_jax.evaluation.presentation import Figure, Line, LinePanel, LinePlots
from anchor_jax.runs.training_log import read_metrics

# panel -> which metrics it shows: name after the slash -> what follows the name of the set; axes in percent
_PANELS: dict[str, tuple[dict[str, str], str]] = {
    "loss": ({"loss": "", "nll": ", NLL"}, ""),
    "accuracy": ({"accuracy": ""}, "y"),
    "entropy of masked inputs (nats)": ({"masked_entropy": ""}, ""),
    "learning rate": ({"learning_rate": ""}, ""),
}
_SETS = {"train": "training batches", "validation": "validation set", "test": "test set"}
_DOTS = 15  # points of a line up to which each is marked


def learning_curves(workdir: Path, run_facts: Mapping[str, Any]) -> list[Figure]:
    """Return the learning curves of the run in a folder; none if it has no log.

    Args:
      workdir: of the run.
      run_facts: of the report, with "label_names".
    """
    logged = read_metrics(workdir)
    panels = []
    for title, (names, percent) in _PANELS.items():
        lines = [
            Line(f"{_SETS.get(of, of)}{suffix}", *curve, markers=len(curve[0]) <= _DOTS)
            for name, suffix in names.items()
            for of in _SETS
            if (curve := logged.get(f"{of}/{name}"))
        ]
        num_classes = len(run_facts.get("label_names", ()))
        if lines and title.startswith("entropy") and num_classes:
            ends = [min(lines[0].x), max(lines[0].x)]
            lines.append(Line("entropy of a uniform prediction", ends, [math.log(num_classes)] * 2, "guide"))
        if len(lines) == 1:
            lines = [dataclasses.replace(lines[0], label="")]  # the title says it
        if lines:
            panels.append(LinePanel(title, lines, xlabel="step", percent=percent))
    caption = (
        "As logged during training. Those of training batches are means since the line before, with augmentation and, "
        "of an anchored network, masks; with config.anchoring.masked_target=uniform, the entropy of masked inputs "
        "approaches the dotted line."
    )
    return [Figure("learning", "Learning curves", caption, LinePlots(panels, shared_legend=False))] if panels else []
