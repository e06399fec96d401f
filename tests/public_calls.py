"""One small call of every public function of arrays, and how its arguments may be sharded."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from small_network import mlp

import anchor_jax as aj
from anchor_jax.config import base
from anchor_jax.core import uncertainty
from anchor_jax.data import corruptions

B, K, M, H, C = 8, 4, 8, 6, 3  # inputs, references, bank, features of an input, classes


class Rows(NamedTuple):
    """An array whose first axis is that of the batch."""

    value: Any


class Bank(NamedTuple):
    """An array whose first axis is that of references, members or training examples."""

    value: Any


class Call(NamedTuple):
    """A function of arrays and its arguments; those that are neither `Rows` nor `Bank` are not sharded."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def key(seed=0):
    return jax.random.key(seed)


X, PAIRED, REFERENCES, BANK = normal(0, B, H), normal(1, B, H), normal(2, K, H), normal(3, M, H)
PARAMS = {"in": normal(4, 2 * H, 8), "out": normal(5, 8, C)}
MASK = np.arange(B) % 3 == 0
LABELS = (np.arange(B) % C).astype(np.int32)
LOGITS = normal(6, B, C)
PROBS = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
MEMBER_PROBS = np.stack([PROBS, PROBS[::-1], np.eye(C, dtype=np.float32)[LABELS]])
CONFIDENCE, CORRECT = PROBS.max(1), PROBS.argmax(1) == LABELS
SETS = PROBS > 0.3
STDS = np.abs(normal(7, B)) + 0.1
IMAGES = np.random.default_rng(8).integers(0, 256, (B, 8, 8, 3)).astype(np.uint8)
MIXING = np.random.default_rng(9).integers(0, 256, (2, 9, 9, 3)).astype(np.uint8)
NORMALIZATION = aj.data.Normalization((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
SPLIT = aj.SplitModel(lambda p, z: z @ p["in"], lambda p, h: jax.numpy.tanh(h) @ p["out"])
SETTINGS = aj.regression.Settings(hidden=(4,), steps=2, batch_size=4, mask_prob=0.5, mask_per="example", dropout=0.1)


def image_keys():
    return jax.random.split(key(), B)


def sums(params, inputs):
    return (inputs @ params["in"]).sum(1)


def reconstructed(params, inputs):
    return jax.numpy.tanh(inputs @ params["in"])[:, :H]


def augmented(options, keys, images, mixing):
    config = base().augmentation
    config.update(options)
    return aj.data.augment(keys, images, config, mixing)


def in_32_bits(record):
    """Return the values of a `Scale` or a `Regression`, whose leaves depend on what is traced."""
    return [jax.numpy.asarray(value, "float32") for value in record if value is not None]


def fitted(x, y):
    return aj.regression.fit(key(), x, y, SETTINGS)


def arrays_of_fit(x, y):
    network = fitted(x, y)
    return network.params, network.bank, network.labels, in_32_bits(network.inputs), in_32_bits(network.targets)


def predicted(x, y, inputs):
    return in_32_bits(aj.regression.predict(key(1), fitted(x, y), inputs, 3))


def anchored_step(params, statistics, x, labels, bank, key):
    """Return the gradient of a training step with `aj.Anchored`, and the statistics after it."""
    model = aj.Anchored(mlp, bank, mask_prob=0.5, mask_per="example")
    inputs, mask = model.training_inputs(key, x)
    gradient = jax.grad(lambda params: model.loss(mlp(params, inputs), labels, mask))(params)
    return gradient, model.keep_statistics(statistics, {"mean": inputs.mean(0)}, mask)


def gradient_of_step(params, x, labels, bank, key):
    """Return the gradient of a training step with drawn references and masks."""
    reference_key, mask_key = jax.random.split(key)
    references = aj.sample_references(reference_key, bank, len(x))
    mask = aj.sample_mask(mask_key, len(x), 0.5, per="example")

    def loss(params):
        return aj.anchored_cross_entropy(aj.anchored(mlp)(params, x, references, mask=mask), labels, mask).mean()

    return jax.grad(loss)(params)


CORE = {
    "anchor": Call(aj.anchor, (Rows(X), Rows(PAIRED), Rows(MASK))),
    "anchored": Call(lambda x, r, m, p: aj.anchored(mlp)(p, x, r, mask=m), (Rows(X), Rows(PAIRED), Rows(MASK), PARAMS)),
    "anchored, gradient": Call(gradient_of_step, (PARAMS, Rows(X), Rows(LABELS), Bank(BANK), key)),
    "Anchored, gradient": Call(
        anchored_step, (PARAMS, {"mean": normal(0, 2 * H)}, Rows(X), Rows(LABELS), Bank(BANK), key)
    ),
    "Anchored, classify": Call(
        lambda p, x, bank: aj.Anchored(mlp, bank, mask_prob=0.5).classify(p, x, K), (PARAMS, Rows(X), Bank(BANK))
    ),
    "Anchored, scores": Call(
        lambda p, x, bank: aj.Anchored(SPLIT, bank, mask_prob=0.5).scores(p, x, K), (PARAMS, Rows(X), Bank(BANK))
    ),
    "keep_statistics": Call(aj.keep_statistics, (BANK, normal(9, M, H), Rows(MASK))),
    "anchored_kernel": Call(partial(aj.anchored_kernel, channels=3), (normal(0, H, 4),)),
    "sample_references": Call(lambda k, bank: aj.sample_references(k, bank, B), (key, Bank(BANK))),
    "sample_references, permuted": Call(
        lambda k, bank: aj.sample_references(k, bank, K, replace=False), (key, Bank(BANK))
    ),
    "anchoring.sample_rows": Call(lambda k: aj.anchoring.sample_rows(k, len(BANK), B), (key,)),
    "sample_mask": Call(lambda k: aj.sample_mask(k, B, 0.5, per="example"), (key,)),
    "sample_mask, group": Call(lambda k: aj.sample_mask(k, B, 0.5, per="group", group_size=B), (key,)),
    "sample_mask, batch": Call(lambda k: aj.sample_mask(k, B, 0.5), (key,)),
    "anchored_cross_entropy": Call(
        partial(aj.anchored_cross_entropy, label_smoothing=0.1), (Rows(LOGITS), Rows(LABELS), Rows(MASK))
    ),
    "anchored_cross_entropy, soft": Call(aj.anchored_cross_entropy, (Rows(LOGITS), Rows(PROBS))),
    "anchored_squared_error": Call(aj.anchored_squared_error, (Rows(X), Rows(PAIRED), Rows(MASK))),
    "anchored_gaussian_nll": Call(aj.anchored_gaussian_nll, (Rows(X), Rows(X**2 + 1), Rows(PAIRED), Rows(MASK))),
    "predict": Call(lambda p, x, r: aj.predict(mlp, p, x, r), (PARAMS, Rows(X), Bank(REFERENCES))),
    "predict, split": Call(
        lambda p, x, r: aj.predict(SPLIT, p, x, r, chunk_size=3), (PARAMS, Rows(X), Bank(REFERENCES))
    ),
    "classify": Call(lambda p, x, r: aj.classify(mlp, p, x, r), (PARAMS, Rows(X), Bank(REFERENCES))),
    "inference.classify_with_votes": Call(
        lambda p, x, r: aj.inference.classify_with_votes(mlp, p, x, r, chunk_size=3, temper="duq"),
        (PARAMS, Rows(X), Bank(REFERENCES)),
    ),
    "encode_references": Call(lambda p, r: aj.encode_references(SPLIT, p, r, shown=-r), (PARAMS, Bank(REFERENCES))),
    "EncodedReferences": Call(
        lambda p, x, r: aj.classify(SPLIT, p, x, aj.encode_references(SPLIT, p, r)),
        (PARAMS, Rows(X), Bank(REFERENCES)),
    ),
    "inference.anomaly_scores": Call(
        lambda logits: aj.inference.anomaly_scores(aj.inference.single_vote(logits)), (Rows(LOGITS),)
    ),
    "inference.single_vote": Call(aj.inference.single_vote, (Rows(LOGITS),)),
    "inference.predict_ensemble": Call(
        lambda x, members: aj.inference.predict_ensemble(lambda m: x * m[None], members), (Rows(X), Bank(REFERENCES))
    ),
    "inference.classify_ensemble": Call(
        lambda x, members: aj.inference.classify_ensemble(lambda m: x * m[None], members, chunk_size=3),
        (Rows(X), Bank(REFERENCES)),
    ),
    "transductive_references": Call(aj.transductive_references, (Rows(X), Bank(BANK), Bank(REFERENCES))),
    "inference.transductive_rows": Call(aj.inference.transductive_rows, (Rows(X), Bank(BANK), Bank(REFERENCES))),
    "SplitModel": Call(lambda p, z: SPLIT(p, z), (PARAMS, Rows(normal(0, B, 2 * H)))),
    "uncertainty.predictive_entropy": Call(uncertainty.predictive_entropy, (Rows(PROBS),)),
    "uncertainty.expected_entropy": Call(uncertainty.expected_entropy, (MEMBER_PROBS,)),
    "uncertainty.mutual_information": Call(uncertainty.mutual_information, (MEMBER_PROBS,)),
    "uncertainty.information_gain": Call(uncertainty.information_gain, (Rows(CONFIDENCE), Rows(STDS))),
    "uncertainty.probability_spread": Call(uncertainty.probability_spread, (MEMBER_PROBS,)),
    "uncertainty.deviation": Call(uncertainty.deviation, (Rows(STDS),)),
    "uncertainty.energy": Call(uncertainty.energy, (Rows(LOGITS),)),
}

CONTRIB = {
    "expected_improvement": Call(partial(aj.expected_improvement, best=0.5), (Rows(CONFIDENCE), Rows(STDS))),
    "conformal.class_scores": Call(
        lambda p, d: aj.conformal.class_scores(p, method="raps", difficulty=d), (Rows(PROBS), Rows(STDS))
    ),
    "conformal.fit_sets": Call(
        lambda p, y, d, k: aj.conformal.fit_sets(p, y, 0.8, method="aps", difficulty=d, key=k)(p, d, key=k),
        (Rows(PROBS), Rows(LABELS), Rows(STDS), key),
    ),
    "conformal.fit_intervals": Call(
        lambda m, y, d: aj.conformal.fit_intervals(m, y, d, coverage=0.8)(m, d), (Rows(X), Rows(PAIRED), Rows(X**2 + 1))
    ),
    "conformal.fit_sets, applied": Call(aj.conformal.ConformalSets(np.float32(0.6), "aps"), (Rows(PROBS),)),
    "conformal.fit_intervals, applied": Call(aj.conformal.ConformalIntervals(np.float32(0.6)), (Rows(X),)),
    "conformal.quantile": Call(lambda s: aj.conformal.quantile(s, (0.5, 0.8)), (Rows(X),)),
    "scaling.log_probs": Call(aj.scaling.log_probs, (Rows(PROBS),)),
    "scaling.fit_temperature, applied": Call(aj.scaling.TemperatureScaling(np.float32(2.0)), (Rows(LOGITS),)),
    "scaling.fit_vector, applied": Call(
        lambda z, w, b: aj.scaling.VectorScaling(w, b)(z), (Rows(LOGITS), normal(8, C), normal(9, C))
    ),
    "scaling.fit_dirichlet, applied": Call(
        lambda z, w, b: aj.scaling.DirichletScaling(w, b)(z), (Rows(LOGITS), normal(8, C, C), normal(9, C))
    ),
    "pager.nonconformity": Call(
        lambda p, x, r, y: aj.pager.nonconformity(sums, p, x, r, y, chunk_size=3),
        (PARAMS, Rows(X), Bank(REFERENCES), Bank(REFERENCES[:, 0])),
    ),
    "pager.refined_nonconformity": Call(
        lambda p, x, r, y: aj.pager.refined_nonconformity(sums, p, x, r, y, steps=2),
        (PARAMS, Rows(X), Bank(REFERENCES), Bank(REFERENCES[:, 0])),
    ),
    "pager.refined_nonconformity, regularized": Call(
        lambda p, x, r, y: aj.pager.refined_nonconformity(
            sums, p, x, r, y, regularizer=partial(aj.pager.cyclic_reconstruction, reconstructed, p), steps=2
        ),
        (PARAMS, Rows(X), Bank(REFERENCES), Bank(REFERENCES[:, 0])),
    ),
    "pager.cyclic_reconstruction": Call(
        lambda p, moved, x: aj.pager.cyclic_reconstruction(reconstructed, p, moved, x), (PARAMS, Rows(PAIRED), Rows(X))
    ),
    "pager.score_limits": Call(aj.pager.score_limits, (Rows(STDS),)),
    "pager.risk_regimes": Call(aj.pager.risk_regimes, (Rows(CONFIDENCE), Rows(STDS))),
    "pager.risk_regimes, limits": Call(
        partial(aj.pager.risk_regimes, nonconformity_limits=(0.3, 0.9)),
        (Rows(CONFIDENCE), Rows(STDS), np.float32([0.4, 0.6])),
    ),
    "pager.regime_errors": Call(aj.pager.regime_errors, (Rows(np.arange(B, dtype=np.int32) % 4), Rows(STDS))),
    "regression.fit": Call(arrays_of_fit, (Rows(X), Rows(STDS))),
    "regression.predict": Call(predicted, (Bank(X), Bank(PAIRED[:, :2]), Rows(X))),
    "regression.nonconformity": Call(
        lambda x, y, inputs: aj.regression.nonconformity(
            fitted(x, y), inputs, refined=True, autoencoder=fitted(x, x), key=key(1), num=3
        ),
        (Bank(X), Bank(STDS), Rows(X)),
    ),
    "regression.combine_members": Call(
        lambda means: in_32_bits(aj.regression.combine_members(aj.regression.Regression(means, None, abs(means)))),
        (MEMBER_PROBS,),
    ),
    "regression.fourier_features": Call(aj.regression.fourier_features, (normal(0, 5, H), Rows(X))),
}

METRICS = {
    f"metrics.{name}": Call(function, tuple(map(Rows, arguments)))
    for name, function, *arguments in (
        ("accuracy", aj.metrics.accuracy, PROBS, LABELS),
        ("top_k_accuracy", partial(aj.metrics.top_k_accuracy, k=2), PROBS, LABELS),
        ("nll", aj.metrics.nll, PROBS, LABELS),
        ("brier", aj.metrics.brier, PROBS, LABELS),
        ("reliability", aj.metrics.reliability, PROBS, LABELS),
        ("reliability_bins", aj.metrics.reliability_bins, CONFIDENCE, CORRECT),
        ("calibration_error", lambda *a: aj.metrics.calibration_error(aj.metrics.reliability(*a)), PROBS, LABELS),
        ("adaptive_calibration_error", aj.metrics.adaptive_calibration_error, CONFIDENCE, CORRECT),
        ("smooth_ece", aj.metrics.smooth_ece, CONFIDENCE, CORRECT),
        ("auroc", aj.metrics.auroc, CONFIDENCE, MASK),
        ("aupr", aj.metrics.aupr, CONFIDENCE, MASK),
        ("fpr_at_tpr", aj.metrics.fpr_at_tpr, CONFIDENCE, MASK),
        ("set_coverage", aj.metrics.set_coverage, SETS, LABELS),
        ("set_size", aj.metrics.set_size, SETS),
        ("risk_coverage", aj.metrics.risk_coverage, CONFIDENCE, CORRECT),
        ("aurc", aj.metrics.aurc, CONFIDENCE, CORRECT),
        ("excess_aurc", aj.metrics.excess_aurc, CONFIDENCE, CORRECT),
        ("per_example_scores", aj.metrics.per_example_scores, PROBS, LABELS),
        ("summarize", lambda *a: aj.metrics.summarize(aj.metrics.per_example_scores(*a)), PROBS, LABELS),
        ("summary", aj.metrics.summary, PROBS, LABELS),
        ("rmse", aj.metrics.rmse, X, PAIRED),
        ("gaussian_nll", aj.metrics.gaussian_nll, X, X**2 + 1, PAIRED),
        ("coverage_error", aj.metrics.coverage_error, X, X**2 + 1, PAIRED),
        (
            "interval_coverage",
            lambda *a: aj.metrics.interval_coverage(*a, np.float32([0.5, 0.9])),
            X,
            X**2 + 1,
            PAIRED,
        ),
    )
}

AUGMENTATION = {
    "data.normalize": Call(lambda images: aj.data.normalize(images, NORMALIZATION), (Rows(IMAGES),)),
    "data.random_erasing": Call(
        lambda keys, x: aj.data.random_erasing(keys, x, 0.5), (image_keys, Rows(normal(0, B, 8, 8, 3)))
    ),
    "data.mixup_or_cutmix": Call(
        lambda k, x, t: aj.data.mixup_or_cutmix(k, x, t, mixup_alpha=0.5, cutmix_alpha=0.5),
        (key, Rows(normal(0, B, 8, 8, 3)), Rows(PROBS)),
    ),
    **{
        f"data.augment, {name}": Call(
            partial(augmented, options),
            (image_keys, Rows(IMAGES), MIXING),
        )
        for name, options in {
            "crop": {"crop_padding": 2, "flip": True},
            "resize": {"resized_crop": (0.3, 1.0)},
            "trivial_augment": {"policy": "trivial_augment"},
            "rand_augment": {"policy": "rand_augment"},
            "pixmix": {"policy": "pixmix"},
        }.items()
    },
}

CORRUPTIONS = {
    f"data.corrupt, {name}": Call(lambda k, i, name=name: aj.data.corrupt(k, i, name, 3), (key, Rows(IMAGES)))
    for name in corruptions.CORRUPTIONS
} | {
    "data.corruptions.corrupt_each": Call(
        lambda keys, images: corruptions.corrupt_each(keys, images, "contrast", 3), (image_keys, Rows(IMAGES))
    )
}

CALLS = CORE | CONTRIB | METRICS | AUGMENTATION | CORRUPTIONS

# functions of paths, names, configs or arrays on the host, and those that place arrays on devices themselves
WITHOUT_ARRAYS = {
    f"{module}.{name}".removeprefix(".")
    for module, names in {
        "data.augmentation": "fractals",
        "data": "check_differs class_rows eval_dataset load load_mixing_images load_test load_train "
        "measure_normalization open_corrupted open_dataset open_stream open_test open_train_stream "
        "photographs select_rows",
        "conformal": "rank",
        "data.corruptions": "is_small",
        "evaluation": "evaluate load_results",
        "": "load_exported load_predictor",
        "models": "create from_torch to_torch",
        "parallel": "device_get_global local_shard make_global_batch mesh one_at_a_time "
        "place_state platform_of pmapped replicate replicated_shapes replicated_sharding run_n_steps "
        "shard_batch state_shapes",
        "training": "prepare train",
    }.items()
    for name in names.split()
}
