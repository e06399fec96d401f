"""Shift: the run's classes, or some of them, from another distribution."""

import numpy as np

from anchor_jax.data import class_rows
from anchor_jax.errors import UserError
from anchor_jax.evaluation.examples import METRICS, columns, scores
from anchor_jax.evaluation.subject import Finding, Subject


def measure(subject: Subject, num_references: int) -> Finding:
    """The metrics of the clean suite on every shifted set, and the mean accuracy over them.

    Where a set has only some of the run's classes, the logits are restricted to them before anything else.
    """
    if not subject.options.shift:
        raise UserError(
            "suite 'shift' needs sets of the run's classes; give them as --shift, such as --shift=tfds:imagenet_r"
        )
    found, arrays = {}, {}
    for spec in subject.options.shift:
        stream = subject.open(spec)
        classes = class_rows(stream.label_names, subject.run.label_names, where=stream.name)
        examples = subject.examine(stream, num_references, classes=None if classes is None else tuple(classes.tolist()))
        found |= {f"{stream.name}/{name}": value for name, value in scores(examples, subject.num_bins).items()}
        arrays |= {f"{stream.name}/{name}": column for name, column in columns(examples).items()}
        found[f"{stream.name}/num_examples"] = float(len(examples.label))
    names = sorted({name.rpartition("/")[0] for name in found})
    for metric in METRICS:
        found[metric] = float(np.mean([found[f"{name}/{metric}"] for name in names]))
    return Finding(found, arrays, {"members": names})
