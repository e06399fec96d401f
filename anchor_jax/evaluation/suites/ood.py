"""OOD: whether uncertainty tells images of other things from those of the test set."""

from collections.abc import Iterable

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from anchor_jax.core.errors import UserError
from anchor_jax.data import EvalDataset
from anchor_jax.evaluation.context import EvalContext, Finding
from anchor_jax.evaluation.predictions import PredictionTable

# score -> the formula that is reported with it; each is higher for what is more likely an anomaly
SCORES = {
    "max_softmax": "1 - max probability",
    "max_logit": "-max of the mean logits",
    "energy": "-logsumexp of the mean logits",
    "entropy": "entropy of the mean probabilities, nats",
    "mutual_information": "mutual information between prediction and reference, nats",
    "spread": "standard deviation over references of the probabilities, mean over classes",
    "agreement": "1 - largest share of references that say one class",
}
_OF_ONE_PASS = ("max_softmax", "max_logit", "energy", "entropy")  # the others need references that can disagree
_GROUPS = ("near", "far")
_SHOWN = 12

METRICS = ("auroc", "aupr_in", "aupr_out", "fpr95")


def check(subject: EvalContext) -> None:
    """Refuse sets that are missing or cannot be read."""
    if not _specs(subject):
        raise UserError(
            "suite 'ood' needs sets of anomalies; give them as --ood, such as "
            "--ood=near=tfds:cifar100,far=images:FOLDER"
        )
    _sets(subject)


def measure(subject: EvalContext, num_references: int) -> Finding:
    """How well each score tells every anomaly set from the test set; means over the groups and over all."""
    names = SCORES if num_references > 1 else _OF_ONE_PASS
    inside = anomaly_scores(subject.predict(subject.test, num_references), names)
    found, arrays = {}, {f"in/{name}": values for name, values in inside.items()}
    members = {"": [], "near": [], "far": []}
    for group, stream in _sets(subject):
        outside = anomaly_scores(subject.predict(_unlabelled(stream), num_references), names)
        arrays |= {f"{stream.name}/{name}": values for name, values in outside.items()}
        arrays[f"{stream.name}/sample_images"] = stream.first(_SHOWN)[0]
        for name in names:
            for metric, value in detection(inside[name], outside[name]).items():
                found[f"{stream.name}/{name}/{metric}"] = value
        for one_of in {group, ""}:
            members[one_of].append(stream.name)
    members = {group: of_group for group, of_group in members.items() if of_group}
    for group, of_group in members.items():
        for name in names:
            for metric in METRICS:
                mean = np.mean([found[f"{member}/{name}/{metric}"] for member in of_group])
                found[f"{group}/{name}/{metric}".removeprefix("/")] = float(mean)
    facts = {
        "num_examples": len(inside["entropy"]),
        "members": members.pop(""),
        "groups": members,
        "scores": {name: SCORES[name] for name in names},
        "direction": "higher is more anomalous; anomalies are the positive class of auroc, aupr_out and fpr95",
    }
    return Finding(found, arrays, facts)


def anomaly_scores(examples: PredictionTable, names: Iterable[str] = tuple(SCORES)) -> dict[str, np.ndarray]:
    """The scores of a table, float32 `[N]` each; higher is more anomalous."""
    scores = {
        "max_softmax": 1 - examples.outcomes.confidence,
        "max_logit": -examples.max_logit,
        "energy": examples.energy,
        "entropy": examples.entropy,
        "mutual_information": examples.mutual_information,
        "spread": examples.spread,
        "agreement": 1 - examples.agreement,
    }
    return {name: np.asarray(scores[name], np.float32) for name in names}


def detection(inside: np.ndarray, outside: np.ndarray) -> dict[str, float]:
    """How well a score tells anomalies from what a network knows.

    Args:
      inside: floating `[N]`, score of the examples that are no anomalies.
      outside: floating `[M]`, of the anomalies; should be higher.

    Returns:
      `auroc`; `aupr_out` with anomalies as the positive class, `aupr_in` with the others and the score turned
      round; `fpr95`, the share of the others that is taken for anomalies at the threshold that finds at least 95 %
      of the anomalies (the least such share). All in [0, 1]; lower is better for `fpr95` alone.
    """
    is_anomaly = np.concatenate([np.zeros(len(inside)), np.ones(len(outside))])
    score = np.concatenate([inside, outside]).astype(np.float64)
    false_positives, true_positives, _ = roc_curve(is_anomaly, score, drop_intermediate=False)
    return {
        "auroc": float(roc_auc_score(is_anomaly, score)),
        "aupr_in": float(average_precision_score(1 - is_anomaly, -score)),
        "aupr_out": float(average_precision_score(is_anomaly, score)),
        "fpr95": float(false_positives[true_positives >= 0.95].min()),
    }


def _specs(subject: EvalContext) -> tuple[str, ...]:
    return subject.options.ood or (("photographs",) if subject.run.config.data.source == "digits" else ())


def _sets(subject: EvalContext) -> list[tuple[str, EvalDataset]]:
    """Group and images of every anomaly set."""
    groups, specs = zip(*map(_grouped, _specs(subject)), strict=True)
    return list(zip(groups, subject.open_all(specs), strict=True))


def _grouped(spec: str) -> tuple[str, str]:
    """Group and set of "near=tfds:cifar100"; no group is ""."""
    group, equals, rest = spec.partition("=")
    return (group, rest) if equals and group in _GROUPS else ("", spec)


def _unlabelled(stream: EvalDataset) -> EvalDataset:
    """The stream with the label 0 throughout: the classes of anomalies are none of the network's."""
    return stream.relabelled(("anomaly",), np.zeros(len(stream.label_names), np.int32))
