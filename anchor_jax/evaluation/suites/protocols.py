"""Protocols: one random reference, K random ones, bilinear transduction; and how much the draw matters."""

import dataclasses
import time
from collections.abc import Callable, Generator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax import backends, parallel
from anchor_jax.data import Dataset, Stream, normalize, select_rows, stream_of
from anchor_jax.evaluation.examples import METRICS, Examples, examine, examine_pairs, main_scores
from anchor_jax.evaluation.subject import Finding, Subject
from anchor_jax.inference import transductive_rows
from anchor_jax.predictor import filled
from anchor_jax.training.prediction import normalization_of

_TIMED = 1_000  # examples
_RESIDUALS = 1_000
_CURVE = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)  # numbers of references

Ask = Callable[[Stream], Examples]


def measure(subject: Subject, num_references: int) -> Finding:
    """Accuracy, calibration and time of each protocol; accuracy of every draw and number of references."""
    facts = {"num_examples": subject.test.num_examples, "timed_examples": min(_TIMED, subject.test.num_examples)}
    references = subject.run.references
    if references is None:
        return Finding(_measured(subject, "standard", partial(subject.examine, num_references=0)), {}, facts)

    found, draws = {}, {}
    for num in sorted({num for num in _CURVE if num < num_references} | {1, num_references}):
        draws[num] = min(subject.options.draws, len(references) // num)
        for draw in range(draws[num]):
            of_draw = main_scores(_ask_drawn(subject, references, draw, num)(subject.test).outcomes, subject.num_bins)
            found |= {f"draws/{draw}/{num}/{name}": value for name, value in of_draw.items()}
    for protocol, num in (("random1", 1), ("randomK", num_references)):
        for name in METRICS:
            values = [found[f"draws/{draw}/{num}/{name}"] for draw in range(draws[num])]
            found[f"{protocol}/{name}"] = float(np.mean(values))
        found[f"{protocol}/seconds_per_1000"] = _seconds_per_1000(subject, _ask_drawn(subject, references, 0, num))
    transduction = transduction_of(subject)
    found |= _measured(subject, "blt", partial(ask_transduced, subject, transduction))
    facts |= {
        "draws": {str(num): count for num, count in draws.items()},
        "blt_references": len(transduction.references),
        "blt_residuals": len(transduction.residuals),
    }
    return Finding(found, {}, facts)


@dataclasses.dataclass(frozen=True)
class Transduction:
    """What bilinear transduction looks among.

    Attributes:
      references: uint8 `[M, H, W, C]`, rows of the run's bank.
      residuals: float32 `[D, H, W, C]`, between normalised pairs as training saw them, but un-augmented.
    """

    references: np.ndarray
    residuals: jax.Array


def transduction_of(subject: Subject) -> Transduction:
    """References and residuals, drawn from the training set by the seed."""
    train, config = subject.train[0], subject.run.config
    rng = np.random.default_rng(subject.options.seed)
    bank = select_rows(
        train.labels, config.anchoring.bank_size, per_class=config.anchoring.bank_per_class, seed=config.seed
    )
    num = min(subject.options.blt_references or len(bank), len(bank))
    references = train.images[np.sort(rng.choice(bank, num, replace=False))]
    rows = rng.integers(len(train.images), size=_RESIDUALS), rng.choice(bank, _RESIDUALS)
    x, r = (normalize(jnp.asarray(train.images[of_pairs]), normalization_of(subject.run)) for of_pairs in rows)
    return Transduction(references, x - r)


def ask_transduced(subject: Subject, transduction: Transduction, stream: Stream) -> Examples:
    """The table of a stream with the reference of bilinear transduction for each image."""
    normalization = normalization_of(subject.run)

    @partial(jax.jit, compiler_options=backends.compiler_options(parallel.platform_of(parallel.mesh())))
    def nearest(images, references, residuals):
        return transductive_rows(normalize(images, normalization), normalize(references, normalization), residuals)

    on_device = jax.device_put(transduction.references), transduction.residuals

    def with_references(size: int) -> Generator[tuple, None, None]:
        for images, labels in stream.batches(size):
            rows = np.asarray(nearest(filled(images, size), *on_device))[: len(images)]
            yield images, transduction.references[rows], labels

    return examine_pairs(subject.predictor, dataclasses.replace(stream, batches=with_references))


def _ask_drawn(subject: Subject, references: np.ndarray, draw: int, num_references: int) -> Ask:
    """The network with a part of its saved references that no other draw of so many has."""
    its_own_first = np.roll(references, -draw * num_references, axis=0)
    predictor = dataclasses.replace(subject.predictor, references=its_own_first)
    return partial(examine, predictor, num_references=num_references)


def _measured(subject: Subject, protocol: str, ask: Ask) -> dict[str, float]:
    found = main_scores(ask(subject.test).outcomes, subject.num_bins)
    found["seconds_per_1000"] = _seconds_per_1000(subject, ask)
    return {f"{protocol}/{name}": value for name, value in found.items()}


def _seconds_per_1000(subject: Subject, ask: Ask) -> float:
    """Time for 1,000 images from host memory to the table, once all is compiled."""
    images, labels = subject.test.first(_TIMED)
    few = stream_of(Dataset(np.asarray(images), labels, subject.run.label_names), "timed")
    ask(few)
    started = time.perf_counter()
    ask(few)
    return (time.perf_counter() - started) * 1_000 / len(labels)
