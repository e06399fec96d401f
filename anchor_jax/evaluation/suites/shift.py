"""Shift: the run's classes, or some of them, from another distribution."""

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.data import class_rows
from anchor_jax.evaluation.context import EvalContext, Finding
from anchor_jax.evaluation.predictions import METRICS, all_scores, columns


def check(subject: EvalContext) -> None:
    """Refuse sets that are missing, or of other classes than the run's."""
    if not subject.options.shift:
        raise UserError(
            "suite 'shift' needs sets of the run's classes; give them as --shift, such as --shift=tfds:imagenet_r"
        )
    for stream in subject.open_all(subject.options.shift):
        class_rows(stream.label_names, subject.run.label_names, where=stream.name)


def measure(subject: EvalContext, num_references: int) -> Finding:
    """The metrics of the clean suite on every shifted set, and the mean accuracy over them.

    Where a set has only some of the run's classes, the logits are restricted to them before anything else.
    """
    found, arrays = {}, {}
    streams = subject.open_all(subject.options.shift)
    for stream in streams:
        classes = class_rows(stream.label_names, subject.run.label_names, where=stream.name)
        restricted = None if classes is None else tuple(classes.tolist())
        temperature = subject.temperature(num_references)
        examples = subject.predict(stream, num_references, classes=restricted, temperature=temperature)
        found |= {f"{stream.name}/{name}": value for name, value in all_scores(examples, subject.num_bins).items()}
        arrays |= {f"{stream.name}/{name}": column for name, column in columns(examples).items()}
        found[f"{stream.name}/num_examples"] = float(len(examples.label))
    for metric in METRICS:
        found[metric] = float(np.mean([found[f"{stream.name}/{metric}"] for stream in streams]))
    return Finding(found, arrays, {"members": [stream.name for stream in streams]})
