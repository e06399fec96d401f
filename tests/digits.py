"""A trained run on scikit-learn's digits, its suites, and its network written out by hand."""

import numpy as np
from ml_collections import ConfigDict

from anchor_jax.evaluation import SUITES, Options, SuiteResult
from anchor_jax.evaluation.context import EvalContext, EvalSettings
from anchor_jax.runs import record as run_record
from anchor_jax.runs.load import create_model, load_checkpoint, run_normalization


def digits_config(config: ConfigDict) -> ConfigDict:
    """Change a tiny config to that of an MLP that sees the digits a few times."""
    config.data.source = "digits"
    config.data.path = ""
    config.data.validation_fraction = 0.2
    config.anchoring.mask_prob = 0.2
    config.training.batch_size = 32
    config.training.total_epochs = 6.0
    config.evaluation.batch_size = 256
    config.checkpoint.every_epochs = 6.0
    config.evaluation.every_epochs = 6.0
    return config


def context_of(workdir, **options) -> EvalContext:
    """Return the context of an evaluation of the latest checkpoint."""
    run = run_record.load(workdir)
    step, predictor = load_checkpoint(run, "latest")
    return EvalContext(run, step, predictor, Options(**options), EvalSettings(num_bins=15, chunk_size=0))


def measured(context: EvalContext, suite: str, num_references: int) -> SuiteResult:
    """Return what a suite measures."""
    return SUITES[suite].measure(SUITES[suite].prepare(context), num_references)


def logits_by_hand(context: EvalContext, images, references):
    """Return logits float64 [K, B, C] of the anchored network, one reference after the other."""
    norm = run_normalization(context.run)
    model = create_model(context.run)

    def normalized(pixels):
        return (pixels.astype(np.float32) / 255 - np.float32(norm.mean)) / np.float32(norm.std)

    x, outputs = normalized(images), []
    for r in normalized(references):
        inputs = np.concatenate([np.broadcast_to(r, x.shape), x - r], axis=-1)
        outputs.append(np.asarray(model.apply(context.predictor.variables, inputs), np.float64))
    return np.stack(outputs)


def write_npz(path, images, labels, label_names, split="test"):
    """Write a dataset and return its name for the options of a suite."""
    np.savez(path, **{f"x_{split}": images, f"y_{split}": labels, "label_names": np.array(label_names)})
    return f"npz:{path}"
