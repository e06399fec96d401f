"""Clean: the test set as it is."""

import numpy as np

from anchor_jax.evaluation.context import EvalContext, Finding
from anchor_jax.evaluation.predictions import all_scores, columns

_SHOWN = 12  # images of the most and of the least certain


def measure(subject: EvalContext, num_references: int) -> Finding:
    """Accuracy, likelihood, calibration and selective prediction on the test set."""
    temperature = subject.temperature(num_references)
    examples = subject.predict(subject.test, num_references, temperature=temperature)
    found = all_scores(examples, subject.num_bins) | ({} if temperature is None else {"temperature": temperature})
    by_certainty = np.argsort(np.asarray(examples.entropy), kind="stable")
    most, least = by_certainty[:_SHOWN], by_certainty[::-1][:_SHOWN]
    images, _ = subject.test.take(np.concatenate([most, least]))
    shown = {
        "most_certain_rows": most,
        "most_certain_images": images[: len(most)],
        "least_certain_rows": least,
        "least_certain_images": images[len(most) :],
    }
    return Finding(found, columns(examples) | shown, {"num_examples": len(examples.label)})
