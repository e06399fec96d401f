"""Corruptions: accuracy and calibration as images get worse, corruption by corruption and severity by severity."""

import dataclasses
import math
import re
from collections.abc import Generator
from functools import partial
from typing import Any

import jax
import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.data import CorruptedSet, EvalDataset, check_differs, corruptions, open_corrupted
from anchor_jax.data.corruptions import SEVERITIES
from anchor_jax.evaluation.context import EvalContext, Finding
from anchor_jax.evaluation.predictions import main_scores
from anchor_jax.runs.predictor import pad_rows
from anchor_jax.runtime import mesh as mesh_lib

GENERATED, GENERATED_C_BAR = "generated", "generated-c-bar"
_SHOWN_SEVERITY = 3
_RESERVED = r"severity\d|mean15|mean19|cbar"

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


def check(subject: EvalContext) -> None:
    """Refuse sets that are not published as they should be, that share a member, or that are the clean set."""
    if not subject.options.corruptions:
        raise UserError(f"suite 'corruptions' needs a set; give one as --corruptions, such as {GENERATED}")
    sets = dict(zip(subject.options.corruptions, _sets(subject), strict=True))
    for spec, of in sets.items():
        if spec in (GENERATED, GENERATED_C_BAR):
            images = jax.ShapeDtypeStruct((1, *subject.run.image_shape), np.uint8)
            jax.eval_shape(lambda images: corruptions.corrupt(jax.random.key(0), images, "contrast", 1), images)
        else:
            check_differs(subject.test, *(of.stream(member, SEVERITIES[-1]) for member in of.members))


def measure(subject: EvalContext, num_references: int) -> Finding:
    """The metrics of every corruption and severity, and their means."""
    sets = _sets(subject)
    members = {member: of for of in sets for member in of.members}
    found: dict[str, float] = {}
    columns = {"correct": [], "confidence": [], "entropy": []}
    for member, of in members.items():
        for severity in SEVERITIES:
            examples = subject.predict(
                of.stream(member, severity), num_references, temperature=subject.temperature(num_references)
            )
            of_set = main_scores(examples, subject.num_bins)
            found |= {f"{member}/{severity}/{metric}": value for metric, value in of_set.items()}
            columns["correct"].append(examples.outcomes.correct)
            columns["confidence"].append(examples.outcomes.confidence)
            columns["entropy"].append(examples.entropy)
    found |= means(found, tuple(members))
    is_imagenet = len(subject.run.label_names) == _IMAGENET_CLASSES
    if is_imagenet and not corruptions.is_small(subject.run.image_shape) and members.keys() >= ALEXNET_ERRORS.keys():
        found["mce"] = mean_corruption_error(found)
    shape = (len(members), len(SEVERITIES), -1)
    arrays = {name: np.reshape(parts, shape) for name, parts in columns.items()}
    size = subject.predictor.size_for(subject.test.num_examples)
    arrays["sample_images"] = np.stack(
        [
            mesh_lib.device_get_global(of.stream(member, _SHOWN_SEVERITY).first(size)[0])[0]
            for member, of in members.items()
        ]
    )
    facts = {
        "source": [of.name for of in sets],
        "members": list(members),
        "severities": list(SEVERITIES),
        "averages": named_averages(tuple(members)),
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

    result = {}
    metrics = {name.rpartition("/")[2]: None for name in found}  # in their order
    for metric in metrics:
        result[metric] = mean(metric)
        result |= {f"{m}/{metric}": mean(metric, members=(m,)) for m in members}
        result |= {f"severity{s}/{metric}": mean(metric, severities=(s,)) for s in SEVERITIES}
        result |= {f"{name}/{metric}": mean(metric, members=of) for name, of in named_averages(members).items()}
    return result


def named_averages(members: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The averages that papers report, and their members, of those whose members are all there."""
    averages = (
        ("mean15", corruptions.CORRUPTIONS_15),
        ("mean19", corruptions.CORRUPTIONS_19),
        ("cbar", corruptions.C_BAR_CIFAR),
        ("cbar", corruptions.C_BAR_IMAGENET),
    )
    return {name: of for name, of in averages if set(of) <= set(members)}


def mean_corruption_error(found: dict[str, float]) -> float:
    """mCE: the error relative to AlexNet's, mean over the 15 corruptions (Hendrycks & Dietterich 2019, section 4.1)."""
    relative = [(1 - found[f"{name}/accuracy"]) / error for name, error in ALEXNET_ERRORS.items()]
    return float(np.mean(relative))


def generated(name: str, members: tuple[str, ...], clean: EvalDataset, seed: int) -> CorruptedSet:
    """A clean set under corruptions, which are made on the device while it is read.

    Example i always has the same noise, whatever the batches and devices.
    """
    mesh = mesh_lib.mesh()

    def stream(member: str, severity: int) -> EvalDataset:
        def batches(size: int) -> Generator[Any, None, None]:
            even = math.ceil(size / mesh.size) * mesh.size
            for index, (images, labels) in enumerate(clean.batches(size)):
                rows = mesh_lib.shard_batch(index * size + np.arange(even), mesh)
                on_devices = mesh_lib.shard_batch(pad_rows(images, even), mesh)
                yield corruptions.corrupt_each(_keys(seed, rows), on_devices, member, severity)[: len(images)], labels

        return dataclasses.replace(clean, name=f"{member} {severity}", batches=batches)

    return CorruptedSet(name, members, clean.num_examples, stream)


@jax.jit
def _keys(seed, rows):
    return jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))(rows)


def _sets(subject: EvalContext) -> list[CorruptedSet]:
    """The sets that the caller chose, no member in two of them."""
    sets = [_open(subject, spec) for spec in subject.options.corruptions]
    members = [member for of in sets for member in of.members]
    if len({of.num_examples for of in sets}) > 1:
        numbers = ", ".join(f"'{of.name}' has {of.num_examples:,}" for of in sets)
        raise UserError(f"corrupted sets must have as many images as one another; {numbers}; evaluate them one by one")
    if reserved := [member for member in members if re.fullmatch(_RESERVED, member)]:
        raise UserError(f"a corruption must not be called '{reserved[0]}', as an average is; rename its file or folder")
    if twice := sorted({member for member in members if members.count(member) > 1}):
        raise UserError(f"corrupted sets must differ in their members; given twice: {', '.join(twice)}")
    return sets


def _open(subject: EvalContext, spec: str) -> CorruptedSet:
    shape, seed = subject.run.image_shape, subject.options.seed
    if spec == GENERATED:
        return generated("generated on the device", corruptions.CORRUPTIONS_19, subject.test, seed)
    if spec == GENERATED_C_BAR:
        members = (
            corruptions.C_BAR_CIFAR if corruptions.is_small(subject.run.image_shape) else corruptions.C_BAR_IMAGENET
        )
        return generated("C-bar, generated on the device", members, subject.test, seed)
    return open_corrupted(spec, image_shape=shape, label_names=subject.run.label_names, tfds_dir=subject.tfds_dir)
