"""Corruptions: accuracy and calibration as images get worse, corruption by corruption and severity by severity."""

import dataclasses
from collections.abc import Generator
from functools import partial
from typing import Any

import jax
import numpy as np

from anchor_jax import parallel
from anchor_jax.data import CorruptedSet, Stream, check_differs, corruptions, open_corrupted
from anchor_jax.evaluation.examples import METRICS, scores
from anchor_jax.evaluation.subject import Finding, Subject
from anchor_jax.predictor import filled

SEVERITIES = (1, 2, 3, 4, 5)
GENERATED, GENERATED_C_BAR = "generated", "generated-c-bar"
_SHOWN_SEVERITY = 3

# top-1 errors of AlexNet, mean over severities, by which mCE divides (hendrycks/robustness)
ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
_IMAGENET_CLASSES = 1_000


def measure(subject: Subject, num_references: int) -> Finding:
    """The metrics of every corruption and severity, and their means."""
    sets = [_open(spec, subject) for spec in subject.options.corruptions]
    members = {member: corrupted for corrupted in sets for member in corrupted.members}
    found: dict[str, float] = {}
    columns = {"correct": [], "confidence": [], "entropy": []}
    for member, corrupted in members.items():
        for severity in SEVERITIES:
            examples = subject.examine(corrupted.stream(member, severity), num_references)
            of_set = scores(examples, subject.num_bins)
            found |= {f"{member}/{severity}/{metric}": of_set[metric] for metric in METRICS}
            columns["correct"].append(examples.outcomes.correct)
            columns["confidence"].append(examples.outcomes.confidence)
            columns["entropy"].append(examples.entropy)
    found |= means(found, tuple(members))
    if len(subject.run.label_names) == _IMAGENET_CLASSES and members.keys() >= ALEXNET_ERRORS.keys():
        found["mce"] = mean_corruption_error(found)
    shape = (len(members), len(SEVERITIES), -1)
    arrays = {name: np.reshape(parts, shape) for name, parts in columns.items()}
    arrays["sample_images"] = np.stack(
        [np.asarray(of.stream(member, _SHOWN_SEVERITY).first(1)[0][0]) for member, of in members.items()]
    )
    facts = {
        "source": [corrupted.name for corrupted in sets],
        "members": list(members),
        "severities": list(SEVERITIES),
        "num_examples": arrays["correct"].shape[-1],
    }
    if {GENERATED, GENERATED_C_BAR} & set(subject.options.corruptions):
        approximations = {name: how for name, how in corruptions.APPROXIMATIONS.items() if name in members}
        facts |= {"seed": subject.options.seed, "approximations": approximations}
    return Finding(found, arrays, facts)


def means(found: dict[str, float], members: tuple[str, ...]) -> dict[str, float]:
    """Means of `member/severity/metric`: over severities, over members, over both, over the sets that papers name."""

    def mean(metric, members=members, severities=SEVERITIES):
        return float(np.mean([found[f"{m}/{s}/{metric}"] for m in members for s in severities]))

    named_sets = {
        "mean15": corruptions.CORRUPTIONS_15,
        "mean19": corruptions.CORRUPTIONS_19,
        "cbar": tuple(m for m in members if m not in corruptions.CORRUPTIONS_19),
    }
    result = {}
    for metric in METRICS:
        result[metric] = mean(metric)
        result |= {f"{m}/{metric}": mean(metric, members=(m,)) for m in members}
        result |= {f"severity{s}/{metric}": mean(metric, severities=(s,)) for s in SEVERITIES}
        for name, its_members in named_sets.items():
            if its_members and set(its_members) <= set(members):
                result[f"{name}/{metric}"] = mean(metric, members=its_members)
    return result


def mean_corruption_error(found: dict[str, float]) -> float:
    """mCE: the error relative to AlexNet's, mean over the 15 corruptions (Hendrycks & Dietterich 2019, section 4.1)."""
    relative = [(1 - found[f"{name}/accuracy"]) / error for name, error in ALEXNET_ERRORS.items()]
    return float(np.mean(relative))


def generated(name: str, members: tuple[str, ...], clean: Stream, seed: int) -> CorruptedSet:
    """A clean set under corruptions, which are made on the device while it is read.

    Example i always has the same noise, whatever the batches and devices.
    """

    def stream(member: str, severity: int) -> Stream:
        def corrupt(key, rows, images):
            keys = jax.vmap(partial(jax.random.fold_in, key))(rows)
            return corruptions.corrupt_each(keys, images, member, severity)

        specs = (parallel.SAME, parallel.SPLIT, parallel.SPLIT)
        mapped = parallel.pmapped(corrupt, parallel.mesh(), in_specs=specs, out_specs=parallel.SPLIT)

        def batches(size: int) -> Generator[Any, None, None]:
            key = jax.random.key(seed)
            for index, (images, labels) in enumerate(clean.batches(size)):
                rows = np.arange(index * size, (index + 1) * size, dtype=np.uint32)
                yield mapped(key, rows, filled(images, size))[: len(images)], labels

        return dataclasses.replace(clean, name=f"{member} {severity}", batches=batches)

    return CorruptedSet(name, members, clean.num_examples, stream)


def _open(spec: str, subject: Subject) -> CorruptedSet:
    shape = subject.run.image_shape
    if spec == GENERATED:
        return generated("generated on the device", corruptions.CORRUPTIONS_19, subject.test, subject.options.seed)
    if spec == GENERATED_C_BAR:
        small = min(shape[:2]) <= corruptions.LARGEST_SMALL
        members = corruptions.C_BAR_CIFAR if small else corruptions.C_BAR_IMAGENET
        return generated("C-bar, generated on the device", members, subject.test, subject.options.seed)
    published = open_corrupted(spec, image_shape=shape, label_names=subject.run.label_names, tfds_dir=subject.tfds_dir)
    check_differs(subject.test, *(published.stream(member, SEVERITIES[-1]) for member in published.members))
    return published
