"""Evaluated runs with known numbers, for the tests of comparisons."""

import json
import zlib

import numpy as np
from conftest import write_results

from anchor_jax import config as configuration
from anchor_jax.evaluation.storage import folder_name
from anchor_jax.reporting.comparison.comparison import compare_methods
from anchor_jax.reporting.comparison.methods import group_by_method, load
from anchor_jax.runs.record import Run, lock_workdir
from configs import cifar10

CORRUPTIONS = [f"corruption_{letter}" for letter in "abcdefghijklmnopqrs"]  # 19, as in the paper
C_BAR = [f"bar_{letter}" for letter in "abcdefghij"]
C_AND_C_BAR = [*CORRUPTIONS, *C_BAR]
MASKED = "anchored + masking (0.25)"
QUALITY = {"standard": 0.7, "anchored": 0.75, "masked": 0.8}
NUM_EXAMPLES = 60
LABELS = np.random.default_rng(0).integers(0, 10, NUM_EXAMPLES).astype(np.int32)


def config_of(kind, seed=0, **changes):
    """Return a config; `changes` are flat keys with "__" for the dot."""
    config = configuration.base()
    config.seed = seed
    config.anchoring.enabled = kind != "standard"
    config.anchoring.mask_prob = 0.25 if kind == "masked" else 0.0
    config.data.mean, config.data.std = (0.5,), (0.25,)
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config


def begun(folder, config, label_names=tuple("0123456789")):
    """Write the folder of a run, as training does, and return it."""
    anchored = config.anchoring.enabled
    references = np.zeros((3, 2, 2, 1), np.uint8) if anchored else None
    rows = np.arange(3) if anchored else None
    with lock_workdir(Run(folder, config, tuple(label_names), (2, 2, 1), "60 examples", rows, references)):
        pass
    return folder


def clean_of(rng, quality):
    correct = rng.random(NUM_EXAMPLES) < quality
    confidence = rng.uniform(0.1, 1, NUM_EXAMPLES).astype(np.float32)
    arrays = {
        "label": LABELS,
        "correct": correct,
        "confidence": confidence,
        "nll": rng.exponential(1 - quality, NUM_EXAMPLES).astype(np.float32),
        "brier": rng.uniform(0, 1 - quality, NUM_EXAMPLES).astype(np.float32),
    }
    metrics = {"accuracy": correct.mean(), "nll": arrays["nll"].mean(), "brier": arrays["brier"].mean()}
    return metrics | {"ece": rng.uniform(0, 1 - quality), "entropy": 0.5}, arrays


def corrupted_of(rng, quality, members):
    harder = quality - 0.1 * np.arange(5)[None, :, None]
    correct = rng.random((len(members), 5, NUM_EXAMPLES)) < harder
    metrics = {"accuracy": correct.mean(), "ece": rng.uniform(0, 0.2)}
    metrics |= {f"severity{s + 1}/accuracy": correct[:, s].mean() for s in range(5)}
    metrics |= {f"severity{s + 1}/ece": 0.02 * s for s in range(5)}
    if len(members) == 19:
        metrics["mean19/accuracy"] = metrics["accuracy"]
    return metrics, {"correct": correct}


def anomalies_of(rng, quality, anchored):
    scores = ("max_softmax", "energy", *["mutual_information"] * anchored)
    auroc = {f"{score}/auroc": quality + rng.uniform(0, 0.1) for score in scores}
    of_set = {f"svhn/{name}": value for name, value in auroc.items()}
    near = {f"near/{name}": value - 0.1 for name, value in auroc.items()}
    return auroc | of_set | near, {}


FACTS = {"num_bins": 15, "num_examples": NUM_EXAMPLES}
CORRUPTION_FACTS = FACTS | {"source": ["cifar10_corrupted"], "members": CORRUPTIONS, "severities": [1, 2, 3, 4, 5]}


def evaluated(
    folder, kind, seed=0, *, step=12, references=(1, 10), suites=("clean",), facts=None, bins=15, limit=0, **changes
):
    """Write a run with results at one checkpoint, and return its folder; the numbers follow from kind, seed and K."""
    if not (folder / "run.json").exists():
        begun(folder, config_of(kind, seed, **changes))
    at, quality = folder / "eval" / folder_name(step, bins, limit), QUALITY[kind]
    options = {"options": {"limit": limit, "seed": 0}} if limit else {}
    for num in references if kind != "standard" else (0,):
        rng = np.random.default_rng([zlib.crc32(kind.encode()), seed, num])
        corrupted_facts = CORRUPTION_FACTS | (facts or {})
        made = {
            "clean": (FACTS, clean_of(rng, quality)),
            "corruptions": (corrupted_facts, corrupted_of(rng, quality, corrupted_facts["members"])),
            "ood": ({"members": ["svhn"]}, anomalies_of(rng, quality, kind != "standard")),
        }
        for suite in suites:
            suite_facts, content = made[suite]
            write_results(at, suite, suite_facts | {"step": step} | options, {num: content})
    return folder


def compared(runs, *arguments):
    return compare_methods(group_by_method(load(runs)), *arguments)


def table_of(comparison, suite):
    return next(table for table in comparison.suites if table.suite == suite)


def value_of(folder, suite, num, metric):
    record = json.loads(next(folder.glob(f"eval/*/{suite}.json")).read_text())
    return record["results"][str(num)][metric]


def begin_paper_run(folder, kind, seed=0, *, experiment=cifar10, changes=(), **options):
    """Write a run with the config of the paper's protocol."""
    config = experiment.get_config()
    config.seed = seed
    config.anchoring.enabled = kind != "standard"
    if kind != "masked":
        config.anchoring.mask_prob = 0.0
    config.update_from_flattened_dict(dict(changes))
    return begun(folder, config, **options)


def write_paper_run(folder, kind, seed=0, *, experiment=cifar10, step=78_000, changes=(), **options):
    """Write an evaluated run with the config of the paper's protocol."""
    begin_paper_run(folder, kind, seed, experiment=experiment, changes=changes)
    return evaluated(folder, kind, seed, step=step, suites=("clean", "corruptions"), bins=20, **options)


def write_imagenet_run(folder, kind, experiment, suites=("clean", "corruptions", "shift", "ood"), **options):
    """Write an ImageNet run with the published recipe, and its results; return its folder."""
    begin_paper_run(folder, kind, experiment=experiment, **options)
    config = experiment.get_config().training
    step = round(config.total_epochs * (1_281_167 // config.batch_size))
    rng = np.random.default_rng(zlib.crc32(kind.encode()))
    found = {
        "clean": ({"accuracy": 0.8, "smooth_ece": rng.random()}, FACTS),
        "corruptions": (
            {f"{name}/{severity}/accuracy": rng.random() for name in C_AND_C_BAR for severity in range(1, 6)}
            | {name: rng.random() for name in ("accuracy", "mean19/accuracy", "cbar/accuracy", "severity5/accuracy")},
            CORRUPTION_FACTS | {"members": C_AND_C_BAR, "averages": {"mean19": CORRUPTIONS, "cbar": C_BAR}},
        ),
        "shift": (
            {f"{name}/accuracy": rng.random() for name in ("imagenet_real", "ImageNet-R", "sketch-test")},
            {"members": ["imagenet_real", "ImageNet-R", "sketch-test"]},
        ),
        "ood": (
            {f"{name}/auroc": rng.random() for name in ("energy", "dtd/energy", "NINCO/energy", "NINCO/entropy")},
            {"members": ["dtd", "NINCO"]},
        ),
    }
    for suite in suites:
        metrics, facts = found[suite]
        num = int(kind != "standard")
        write_results(folder / f"eval/step{step}-bins20", suite, facts | {"step": step}, {num: (metrics, {})})
    return folder


def write_three_methods(folder):
    """Write three methods with three seeds each, on three suites."""
    suites = ("clean", "corruptions", "ood")
    return [
        evaluated(folder / f"{kind}{seed}", kind, seed, suites=suites)
        for kind in ("anchored", "masked", "standard")
        for seed in (0, 1, 2)
    ]


def write_pair(folder):
    """Write a standard and an anchored run, on two suites."""
    return [evaluated(folder / kind, kind, suites=("clean", "corruptions")) for kind in ("standard", "anchored")]
