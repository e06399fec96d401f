"""Scores of how anomalous, or uncertain, an example is."""

from collections.abc import Iterable

import numpy as np

from anchor_jax.evaluation.predictions import PredictionTable

HEADLINE = "energy"  # the score of the paper, shown first and where a single one is shown
# score -> its formula; each is higher for more anomalous examples
SCORES = {
    HEADLINE: "-logsumexp of the mean logits",
    "max_softmax": "1 - max probability",
    "max_logit": "-max of the mean logits",
    "entropy": "entropy of the mean probabilities, nats",
    "mutual_information": "mutual information between prediction and reference, nats",
    "spread": "standard deviation over references of the probabilities, mean over classes",
    "agreement": "1 - largest fraction of references that predict the same class",
}
SINGLE_PASS = (HEADLINE, "max_softmax", "max_logit", "entropy")  # the others need at least two references


def anomaly_scores(table: PredictionTable, names: Iterable[str] = tuple(SCORES)) -> dict[str, np.ndarray]:
    """Return anomaly scores of a dataset, float32 `[N]` each; higher is more anomalous."""
    scores = {
        "max_softmax": 1 - table.mean_probs.confidence,
        "max_logit": -table.max_logit,
        "energy": table.energy,
        "entropy": table.entropy,
        "mutual_information": table.mutual_information,
        "spread": table.spread,
        "agreement": 1 - table.agreement,
    }
    return {name: np.asarray(scores[name], np.float32) for name in names}
