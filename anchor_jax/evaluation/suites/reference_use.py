"""Reference use: what the network makes of its reference, tested by showing it another one, or none."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from anchor_jax.data import normalize
from anchor_jax.evaluation.context import EvalContext
from anchor_jax.evaluation.predictions import main_scores, predict_dataset
from anchor_jax.evaluation.presentation import Table
from anchor_jax.evaluation.results import Results, SuiteResult
from anchor_jax.evaluation.suite import Suite
from anchor_jax.evaluation.suites import common

# protocol of the scores -> inputs of the network, in words
INPUTS = {
    "own": "[r, x - r], as trained",
    "another": "[r', x - r], the reference of another image",
    "masked": "[0, x - r], the reference masked",
    "zero": "[0, x], zero as the reference",
    "mean": "[m, x - m], the mean image as the reference",
    "standard": "x, without a reference",
}


class ReferencePair(NamedTuple):
    """What is shown as the reference, and what is subtracted from the image; normalized, float32 `[K, H, W, C]`."""

    shown: np.ndarray
    subtracted: np.ndarray


class ReferenceUse(Suite[EvalContext]):
    """Evaluate the test set with references that are shown correctly, exchanged, masked, or replaced by constants."""

    name = "reference_use"
    title = "Reference use"
    question = "Does the network use its reference, or does it ignore it?"
    reading = (
        "If accuracy stays the same with the reference of another image, the network gains nothing from the reference "
        "it is shown. With uniform masking, a masked reference should give a uniform prediction: 1/classes accuracy "
        "and a high NLL."
    )

    def prepare(self, context: EvalContext) -> EvalContext:
        """Open the test set."""
        _ = context.test
        return context

    def num_predictions(self, prepared: EvalContext, num_references: int) -> int:
        """Return the number of test images, once per reference and kind of input; constants are one reference."""
        per_image = 3 * num_references + 2 if num_references else 1
        return per_image * prepared.test.num_examples

    def measure(self, prepared: EvalContext, num_references: int) -> SuiteResult:
        """Score the test set with each kind of input."""
        predictor, test = prepared.predictor, prepared.test
        facts = {"num_examples": test.num_examples}
        references = predictor.first_references(num_references)
        if references is None:
            table = prepared.predict(test, num_references)
            scores = main_scores(table, prepared.num_bins, protocol="standard")
            return SuiteResult(self.name, num_references, tuple(scores), {}, facts)
        scores = []
        for protocol, (shown, subtracted) in _pairs(prepared, references).items():
            encoded = predictor.network.encode_shown(predictor.variables, subtracted, shown)
            table = predict_dataset(predictor, test, len(shown), encoded=encoded)
            scores += main_scores(table, prepared.num_bins, protocol=protocol)
        return SuiteResult(self.name, num_references, tuple(scores), {}, facts)

    def tables(self, results: Results) -> list[Table]:
        """Return one row per kind of input."""
        result = common.newest(results)
        rows = {title: (result, {"protocol": protocol}) for protocol, title in INPUTS.items()}
        measured = {title: row for title, row in rows.items() if result.value("accuracy", **row[1]) is not None}
        note = "A constant is a single reference; the mean image is that of the references saved with the run."
        notes = [note] if len(measured) > 1 else []
        return common.score_table("", measured, common.quantities(), mark_best=False, notes=notes)


def _pairs(context: EvalContext, references: np.ndarray) -> Mapping[str, ReferencePair]:
    """Return protocol -> what is shown and subtracted."""
    own, saved = _normalized(context, references), _normalized(context, context.run.references)
    shift = len(own) if len(own) < len(saved) else 1  # so that no reference is its own replacement
    others = np.roll(saved, -shift, axis=0)[: len(own)]
    mean, zero = saved.mean(axis=0, keepdims=True), np.zeros_like(saved[:1])
    return {
        "own": ReferencePair(own, own),
        **({"another": ReferencePair(others, own)} if len(saved) > 1 else {}),
        "masked": ReferencePair(np.zeros_like(own), own),
        "zero": ReferencePair(zero, zero),
        "mean": ReferencePair(mean, mean),
    }


def _normalized(context: EvalContext, images: np.ndarray | None) -> np.ndarray:
    return np.asarray(normalize(jnp.asarray(images), context.predictor.network.normalization))
