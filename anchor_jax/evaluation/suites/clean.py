"""Clean: the test set as it is."""

import numpy as np

from anchor_jax.data import Stream
from anchor_jax.evaluation.examples import all_scores, columns
from anchor_jax.evaluation.subject import Finding, Subject
from anchor_jax.evaluation.temperature import fit_temperature, held_out_of

_SHOWN = 12  # images of the most and of the least certain


def check(subject: Subject) -> None:
    """Refuse temperature scaling of a run that has nothing to fit it on."""
    if subject.options.temperature_scaling:
        held_out_of(subject)


def measure(subject: Subject, num_references: int) -> Finding:
    """Accuracy, likelihood, calibration and selective prediction on the test set."""
    temperature = fit_temperature(subject, num_references) if subject.options.temperature_scaling else None
    examples = subject.examine(subject.test, num_references, temperature=temperature)
    found = all_scores(examples, subject.num_bins) | ({} if temperature is None else {"temperature": temperature})
    by_certainty = np.argsort(np.asarray(examples.entropy), kind="stable")
    arrays = columns(examples)
    for name, rows in (("most", by_certainty[:_SHOWN]), ("least", by_certainty[::-1][:_SHOWN])):
        arrays |= {f"{name}_certain_rows": rows, f"{name}_certain_images": rows_of(subject.test, rows)}
    return Finding(found, arrays, {"num_examples": len(examples.label)})


def rows_of(stream: Stream, rows: np.ndarray) -> np.ndarray:
    """Some images of a stream, in the order of `rows`, looked for batch by batch."""
    found, start = {}, 0
    for images, _ in stream.batches(512):
        for row in rows[(rows >= start) & (rows < start + len(images))]:
            found[row] = np.array(images[row - start])
        start += len(images)
    return np.stack([found[row] for row in rows])
