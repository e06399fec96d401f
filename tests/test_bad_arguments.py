"""Wrong calls of what users import: each is told in one line that names the argument, before anything is compiled."""

import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, scalar_dtypes
from jax.sharding import PartitionSpec

import anchor_jax as aj
from anchor_jax import config as configuration
from anchor_jax import data, evaluation, metrics, models
from anchor_jax.contrib import pager, regression
from anchor_jax.core import uncertainty
from anchor_jax.core.errors import UserTypeError
from anchor_jax.runs import record as run_record
from anchor_jax.runs.predictor import Predictor
from anchor_jax.runtime import mesh as mesh_lib

cross_entropy = aj.anchored_cross_entropy
KEY = jax.random.key(0)
KEYS, TWO_KEYS = jax.random.split(KEY, 3), jax.random.split(KEY)
NAN = float("nan")
B, H, C = 4, 5, 3
X = np.ones((B, H), np.float32)
BANK = np.ones((6, H), np.float32)
IMAGES = np.zeros((3, 8, 8, 3), np.uint8)
LOGITS = np.zeros((B, C), np.float32)
LABELS = np.array([0, 1, 2, 0])
MASK = np.zeros(B, bool)
PROBS = np.full((2, B, C), 1 / C, np.float32)
CONFIDENCE, CORRECT = np.full(B, 0.5, np.float32), np.ones(B, bool)
RAGGED = [[0.1, 0.9], [1.0]]
GREY = data.Normalization((0.5,), (0.2,))
SPEC = {"image_shape": (8, 8, 1), "label_names": ("a", "b")}


def network(params, inputs):
    return inputs[:, :C]


SPLIT = aj.SplitModel(lambda params, inputs: inputs[:, :H], lambda params, features: features[:, :C])
PREDICTOR = Predictor(
    variables=None,
    references=np.zeros((12, 6, 6, 1), np.uint8),
    label_names=("a", "b"),
    image_shape=(6, 6, 1),
    network=None,  # no wrong call reaches it
    num_devices=1,
    batch_size=4,
)
SIX = np.zeros((2, 6, 6, 1), np.uint8)


class Mistake(NamedTuple):
    call: Callable[[], object]
    message: str  # pattern of how it begins
    of_type: bool = False  # whether a type or dtype is wrong


def value(call, message):
    return Mistake(call, message)


def kind(call, message):
    return Mistake(call, message, of_type=True)


ANCHORING = [
    kind(lambda: aj.anchor(X.astype(np.uint8), X), "x must be floating, got uint8: normalise images before anchoring"),
    kind(lambda: aj.anchor(X, X.astype(np.uint8)), "references must be floating, got uint8: normalise images"),
    kind(lambda: aj.anchor(X > 0, X), "x must be floating, got bool"),
    kind(lambda: aj.anchor(X + 1j, X), "x must be floating, got complex64"),
    kind(lambda: aj.anchor(X.astype(object), X), "x must be floating, got object"),
    kind(lambda: aj.anchor(X.astype(str), X), "x must be floating, got <U"),
    kind(lambda: aj.anchor(X, np.ma.array(X)), r"references must be an array without a mask of its own, .* filled\(\)"),
    kind(lambda: aj.anchor("x", X), r"x must be an array of JAX or NumPy, \[..., C\]; got 'x'"),
    kind(lambda: aj.anchor(X, None), r"references must be an array of JAX or NumPy, \[..., C\]; got None"),
    kind(lambda: aj.anchor(RAGGED, RAGGED), "x must be an array of JAX or NumPy, .* got list"),
    value(lambda: aj.anchor(1.0, 1.0), r"x must be \[..., C\], got shape \(\)"),
    value(lambda: aj.anchor(X[:0], X[:0]), r"x must not be empty, \[..., C\]; got shape \(0, 5\)"),
    value(lambda: aj.anchor(X, X[:, :4]), r"references must have the shape of x, \(4, 5\), one for .*; got \(4, 4\)"),
    # these two would broadcast
    value(lambda: aj.anchor(X, X[:1]), r"references must have the shape of x, .*; got \(1, 5\)"),
    value(lambda: aj.anchor(X, X[0]), r"references must have the shape of x, .*; got \(5,\)"),
    kind(lambda: aj.anchor(X, X, LABELS), "mask must be bool, got int64"),
    kind(lambda: aj.anchor(X, X, X[:, 0]), "mask must be bool, got float32"),
    kind(lambda: aj.anchor(X, X, "mask"), "mask must be an array of JAX or NumPy"),
    value(lambda: aj.anchor(X, X, MASK[:3]), r"mask must be \[B\] for x of shape \(4, 5\), got shape \(3,\)"),
    value(lambda: aj.anchor(X, X, MASK[:, None]), r"mask must be \[B\] for x .* got shape \(4, 1\)"),
    value(lambda: aj.anchor(X, X, X > 0), r"mask must be \[B\] for x .* got shape \(4, 5\)"),
    kind(lambda: aj.anchored("f"), "apply_fn must be a function, got 'f'"),
    kind(lambda: aj.anchored(None), "apply_fn must be a function, got None"),
    kind(lambda: aj.anchored(models.create("mlp", 2)), "apply_fn must be a function, got a MLP: give its method apply"),
    value(lambda: aj.anchored(network)(None, X, X[:2]), "references must have the shape of x"),
    kind(lambda: aj.anchored_kernel(LABELS[None]), "kernel must be floating, got int64"),
    value(lambda: aj.anchored_kernel(X[0]), r"kernel must be \[..., C, D\], got shape \(5,\)"),
    value(lambda: aj.anchored_kernel(X, axis=2), "axis must lie in -2..1, got 2"),
    kind(lambda: aj.anchored_kernel(X, axis="C"), "axis must be an integer, static under jit; got 'C'"),
    value(lambda: aj.anchored_kernel(X, channels=3), r"channels must divide axis 0 of the kernel \(4, 5\), .* got 3"),
    value(lambda: aj.anchored_kernel(X, channels=0), "channels must be at least 1, got 0"),
    kind(lambda: aj.sample_references(0, BANK, 2), r"key must be a key, such as jax.random.key\(0\); got 0"),
    kind(lambda: aj.sample_references(None, BANK, 2), "key must be a key, .* got None"),
    kind(lambda: aj.sample_references(X, BANK, 2), r"key must be a key, .* got float32 of shape \(4, 5\)"),
    kind(
        lambda: aj.sample_references(np.zeros(3, np.uint32), BANK, 2), r"key must be a key, .* uint32 of shape \(3,\)"
    ),
    value(lambda: aj.sample_references(KEYS, BANK, 2), r"key must be one key, got keys of shape \(3,\): take one"),
    kind(lambda: aj.sample_references(KEY, RAGGED, 2), r"bank must be an array of JAX or NumPy, \[M, ...\]; got list"),
    kind(lambda: aj.sample_references(KEY, BANK.astype(str), 2), "bank must be real, got <U"),
    value(lambda: aj.sample_references(KEY, BANK[:0], 2), r"bank must not be empty, \[M, ...\]; got shape \(0, 5\)"),
    value(lambda: aj.sample_references(KEY, np.float32(1), 2), r"bank must be \[M, ...\], got shape \(\)"),
    value(lambda: aj.sample_references(KEY, BANK, 0), "num must be at least 1, got 0"),
    value(lambda: aj.sample_references(KEY, BANK, -1), "num must be at least 1, got -1"),
    value(
        lambda: aj.sample_references(KEY, BANK, len(BANK) + 1, replace=False),
        "num must be at most .*, the size of the bank, without replacement; got ",
    ),
    kind(lambda: aj.sample_references(KEY, BANK, 2.0), "num must be an integer, static under jit; got 2.0"),
    kind(lambda: aj.sample_references(KEY, BANK, True), "num must be an integer, static under jit; got True"),
    kind(lambda: aj.sample_references(KEY, BANK, (2, 3)), "num must be an integer, static under jit; got tuple"),
    kind(lambda: aj.sample_mask(3, B, 0.5), "key must be a key, .* got 3"),
    value(lambda: aj.sample_mask(KEYS, B, 0.5), "key must be one key"),
    value(lambda: aj.sample_mask(KEY, 0, 0.5), "batch_size must be at least 1, got 0"),
    kind(lambda: aj.sample_mask(KEY, X, 0.5), "batch_size must be an integer, static under jit; got float32 of shape"),
    value(lambda: aj.sample_mask(KEY, B, -0.1), r"prob must lie in \[0, 1\], got -0.1"),
    value(lambda: aj.sample_mask(KEY, B, 1.1), r"prob must lie in \[0, 1\], got 1.1"),
    value(lambda: aj.sample_mask(KEY, B, np.float32(1.5)), r"prob must lie in \[0, 1\], got 1.5"),
    value(lambda: aj.sample_mask(KEY, B, NAN), r"prob must lie in \[0, 1\], got nan"),
    kind(lambda: aj.sample_mask(KEY, B, "0.5"), r"prob must be a number in \[0, 1\], got '0.5'"),
    kind(lambda: aj.sample_mask(KEY, B, None), r"prob must be a number in \[0, 1\], got None"),
    kind(lambda: aj.sample_mask(KEY, B, True), r"prob must be a number in \[0, 1\], got True"),
    kind(lambda: aj.sample_mask(KEY, B, CONFIDENCE), r"prob must be a number .* got float32 of shape \(4,\)"),
    value(lambda: aj.sample_mask(KEY, B, 0.5, "step"), "per must be 'batch' or 'example', got 'step'"),
    value(lambda: aj.sample_mask(KEY, B, 0.5, None), "per must be 'batch' or 'example', got None"),
]

OBJECTIVE = [
    kind(lambda: cross_entropy(LABELS[:, None], LABELS), "logits must be floating, got int64"),
    kind(lambda: cross_entropy([[0.1, 0.9]], LABELS), r"logits must be an array .*\[B, C\]; got list"),
    value(lambda: cross_entropy(LOGITS[0], LABELS), r"logits must be \[B, C\], got shape \(3,\)"),
    value(lambda: cross_entropy(LOGITS[:0], LABELS[:0]), "logits must not be empty"),
    value(lambda: cross_entropy(LOGITS[:, :0], LABELS), "logits must not be empty"),
    kind(lambda: cross_entropy(LOGITS, None), "labels must be an array of JAX or NumPy"),
    kind(lambda: cross_entropy(LOGITS, LABELS.astype(str)), "labels must be real, got <U"),
    kind(lambda: cross_entropy(LOGITS, LABELS * 1.0), r"labels must be integers \[B\] or floating \[B, C\]"),
    kind(lambda: cross_entropy(LOGITS, LOGITS > 0), r"labels must be .* got bool of shape \(4, 3\)"),
    kind(lambda: cross_entropy(LOGITS, LABELS[:, None]), r"labels must be .* got int64 of shape \(4, 1\)"),
    value(lambda: cross_entropy(LOGITS, LABELS[:3]), r"labels of shape \(3,\) do not fit logits of"),
    value(lambda: cross_entropy(LOGITS, PROBS[0, :, :2]), r"labels of shape \(4, 2\) do not fit logits"),
    value(lambda: cross_entropy(LOGITS, PROBS[0, :1]), r"labels of shape \(1, 3\) do not fit logits"),
    value(lambda: cross_entropy(LOGITS, LABELS + 1), r"labels must lie in \[0, 2\], got values from 1 to 3"),
    value(lambda: cross_entropy(LOGITS, LABELS - 1), r"labels must lie in \[0, 2\], got values from -1 to 1"),
    value(lambda: cross_entropy(LOGITS, PROBS[0] * NAN), "labels must not hold NaN, got 12 of it in 12"),
    value(lambda: cross_entropy(LOGITS, PROBS[0] - 1), r"labels must lie in \[0, 1\], got values from -0.6"),
    value(lambda: cross_entropy(LOGITS, LOGITS), r"sums of labels over classes must lie in .* from 0 to 0"),
    kind(lambda: cross_entropy(LOGITS, LABELS, LABELS), "mask must be bool, got int64"),
    value(lambda: cross_entropy(LOGITS, LABELS, MASK[:1]), r"mask must be \(4,\), got shape \(1,\)"),
    value(
        lambda: cross_entropy(LOGITS, LABELS, masked_target="zero"),
        "masked_target must be 'uniform' or 'label', got 'zero'",
    ),
    value(
        lambda: cross_entropy(LOGITS, LABELS, label_smoothing=1.5),
        r"label_smoothing must lie in \[0, 1\], got 1.5",
    ),
    value(lambda: cross_entropy(LOGITS, LABELS, label_smoothing=NAN), "label_smoothing must lie in .* nan"),
    kind(
        lambda: cross_entropy(LOGITS, LABELS, label_smoothing="0.1"),
        r"label_smoothing must be a number in \[0, 1\], got '0.1'",
    ),
]


def of_inference(function):
    """What `predict` and `classify` refuse both."""
    return [
        kind(lambda: function(None, None, X, BANK), "apply_fn must be a function, got None"),
        kind(lambda: function(network, None, X.astype(np.uint8), BANK), "x must be floating, got uint8: normalise"),
        kind(
            lambda: function(network, None, [X], BANK), r"x must be an array of JAX or NumPy, \[B, ..., C\]; got list"
        ),
        value(lambda: function(network, None, X[0], BANK), r"x must be \[B, ..., C\], got shape \(5,\)"),
        value(lambda: function(network, None, X[:0], BANK), "x must not be empty"),
        kind(lambda: function(network, None, X, BANK.astype(np.uint8)), "references must be floating, got uint8: norm"),
        kind(lambda: function(network, None, X, None), "references must be an array of JAX or NumPy"),
        value(
            lambda: function(network, None, X, BANK[:0]), r"references must not be empty, \[K, ...\]; got .*\(0, 5\)"
        ),
        value(lambda: function(network, None, X, BANK[:, :4]), r"references \(6, 4\) do not fit inputs \(4, 5\): all"),
        value(lambda: function(network, None, X, BANK[:, :1]), r"references \(6, 1\) do not fit inputs"),
        value(lambda: function(network, None, X, BANK[0]), r"references \(5,\) do not fit inputs \(4, 5\)"),
        value(lambda: function(network, None, X, BANK, chunk_size=0), "chunk_size must be at least 1, got 0"),
        value(lambda: function(SPLIT, None, X, BANK, chunk_size=-3), "chunk_size must be at least 1, got -3"),
        kind(lambda: function(network, None, X, BANK, chunk_size=2.5), "chunk_size must be an integer, .* got 2.5"),
        kind(lambda: function(network, None, X, BANK, chunk_size="2"), "chunk_size must be an integer, .* got '2'"),
        kind(
            lambda: function(network, None, X, aj.EncodedReferences(BANK)),
            "encoded references serve the SplitModel .* as apply_fn",
        ),
        value(
            lambda: function(SPLIT, None, X, aj.EncodedReferences(BANK[:0])), "references.features must not be empty"
        ),
    ]


INFERENCE = [
    *of_inference(aj.predict),
    *of_inference(aj.classify),
    value(lambda: aj.classify(network, None, X, BANK, temper="platt"), "temper must be None or 'duq', got 'platt'"),
    value(lambda: aj.classify(network, None, X, BANK, temper=X), "temper must be None or 'duq', got float32 of shape"),
    kind(lambda: aj.SplitModel(None, network), "first_layer must be a function, got None"),
    kind(lambda: aj.SplitModel(network, "rest"), "rest must be a function, got 'rest'"),
    kind(lambda: aj.encode_references(network, None, BANK), "model must be SplitModel, .* got function"),
    kind(lambda: aj.encode_references(SPLIT, None, BANK.astype(int)), "references must be floating, got int64: normal"),
    value(lambda: aj.encode_references(SPLIT, None, BANK[:0]), "references must not be empty"),
    kind(lambda: aj.transductive_references(IMAGES, BANK, BANK), "x must be floating, got uint8: normalise"),
    kind(lambda: aj.transductive_references(X, list(BANK), BANK), "bank must be an array of JAX or NumPy"),
    kind(lambda: aj.transductive_references(X, BANK, None), "residuals must be an array of JAX or NumPy"),
    value(
        lambda: aj.transductive_references(X[:0], BANK, BANK), r"x must not be empty, \[B, ...\]; got shape \(0, 5\)"
    ),
    value(lambda: aj.transductive_references(X, BANK[:0], BANK), r"bank must not be empty, \[M, ...\]"),
    value(lambda: aj.transductive_references(X, BANK, BANK[:0]), r"residuals must not be empty, \[D, ...\]"),
    value(
        lambda: aj.transductive_references(X, BANK[:, :4], BANK),
        r"x, bank and residuals must agree in all but the first axis, got shapes \(4, 5\), \(6, 4\) and \(6, 5\)",
    ),
    value(lambda: aj.transductive_references(X, BANK, BANK[:, :1]), r"x, bank and residuals must agree .* \(6, 1\)"),
    value(lambda: aj.transductive_references(X, BANK[0], BANK), r"x, bank and residuals must agree .* \(5,\)"),
    kind(lambda: uncertainty.predictive_entropy(RAGGED), "probs must be an array of JAX or NumPy"),
    kind(lambda: uncertainty.predictive_entropy(LABELS), "probs must be floating, got int64"),
    value(lambda: uncertainty.predictive_entropy(np.float32(1)), r"probs must be \[..., C\], got shape \(\)"),
    value(lambda: uncertainty.predictive_entropy(PROBS * 5), r"probs must lie in \[0, 1\], got values from 1.6"),
    value(lambda: uncertainty.predictive_entropy(PROBS * NAN), "probs must not hold NaN, got 24 of it in 24 values"),
    value(lambda: uncertainty.expected_entropy(PROBS[0, 0]), r"probs must be \[K, ..., C\], got shape \(3,\)"),
    value(lambda: uncertainty.mutual_information(PROBS[0, 0]), r"probs must be \[K, ..., C\], got shape \(3,\)"),
    value(lambda: uncertainty.mutual_information(PROBS[:0]), r"probs must not be empty, .* got shape \(0, 4, 3\)"),
    value(lambda: uncertainty.probability_spread(PROBS[:1]), r"probs must hold at least 2 references, .*\(1, 4, 3\)"),
    value(lambda: uncertainty.probability_spread(PROBS[:0]), "probs must not be empty"),
    kind(lambda: uncertainty.energy("logits"), "logits must be an array of JAX or NumPy"),
    value(lambda: uncertainty.energy(np.float32(1)), r"logits must be \[..., C\], got shape \(\)"),
    value(
        lambda: uncertainty.information_gain(CONFIDENCE, CONFIDENCE[:1]),
        r"predictive and expected must have one shape, got \(4,\) and \(1,\)",
    ),
]

# what a function gives is known when it is asked
OUTPUTS = [
    kind(
        lambda: aj.predict(lambda params, inputs: (inputs, {}), None, X, BANK),
        r"what apply_fn gives must be an array of JAX or NumPy, \[B, ...\]; got tuple",
    ),
    value(
        lambda: aj.predict(lambda params, inputs: inputs.sum(), None, X, BANK),
        r"what apply_fn gives must be \[B, ...\], got shape \(\)",
    ),
    value(
        lambda: aj.classify(lambda params, inputs: inputs[:2], None, X, BANK),
        r"what apply_fn gives must have a row for each of 4 inputs, got shape \(2, 10\)",
    ),
    value(
        lambda: aj.classify(lambda params, inputs: inputs[:, 0], None, X, BANK),
        r"what apply_fn gives must be logits \[B, C\], got shape \(4,\)",
    ),
    kind(
        lambda: aj.encode_references(aj.SplitModel(lambda params, inputs: [inputs], network), None, BANK),
        r"what first_layer gives must be an array of JAX or NumPy, \[B, ...\]; got list",
    ),
    value(
        lambda: pager.nonconformity(network, None, X, X, X[:, 0]),
        r"what apply_fn gives must be \(4,\), as targets are; got \(4, 3\)",
    ),
    value(
        lambda: aj.predict(SPLIT, None, X, aj.EncodedReferences(BANK[:, :4])),
        r"encoded references \(6, 4\) do not fit the inputs' features \(4, 5\)",
    ),
]

METRICS = [
    kind(lambda: metrics.accuracy("probs", LABELS), "probs_or_logits must be an array of real numbers, got <U5"),
    kind(lambda: metrics.accuracy(None, LABELS), "probs_or_logits must be an array of real numbers, got object"),
    kind(lambda: metrics.nll(RAGGED, [0, 1]), "probs must be an array of numbers, got list"),
    kind(lambda: metrics.nll(PROBS[0] + 0j, LABELS), "probs must be an array of real numbers, got complex64"),
    kind(lambda: metrics.brier(PROBS[0], None), "labels must be an array of real numbers, got object"),
    kind(lambda: metrics.brier(PROBS[0], LABELS.astype(object)), "labels must be an array of real numbers, got object"),
    kind(lambda: metrics.summary(PROBS[0], ["a", "b"]), "labels must be an array of real numbers, got <U1"),
    kind(lambda: metrics.nll(np.ma.array(PROBS[0]), LABELS), "probs must be an array without a mask of its own"),
    kind(
        lambda: metrics.nll(PROBS[0].astype(">f4"), LABELS),
        r"probs must be in the byte order of this machine, got >f4: use astype\(float32\)",
    ),
    kind(lambda: metrics.top_k_accuracy(PROBS[0], LABELS, True), "k must be an integer, static under jit; got True"),
    kind(lambda: metrics.reliability(PROBS[0], LABELS, "15"), "num_bins must be an integer, .* got '15'"),
    kind(lambda: metrics.smooth_ece(None, CORRECT), "confidence must be an array of real numbers, got object"),
    kind(lambda: metrics.aurc(CONFIDENCE, "right"), "correct must be an array of real numbers, got <U5"),
    kind(lambda: metrics.risk_coverage(RAGGED, CORRECT), "confidence must be an array of numbers, got list"),
    kind(
        lambda: metrics.calibration_error((1, 2, 3)),
        "bins must be ReliabilityBins, as reliability_bins gives it; got tuple",
    ),
    kind(
        lambda: metrics.summarize(PROBS[0]), "outcomes must be Outcomes, as metrics.outcomes gives it; got float32 of"
    ),
]

MODELS = [
    kind(lambda: models.create(None, 10), "model must be a name, one of deit_s16, .* got None"),
    kind(lambda: models.create(["mlp"], 10), "model must be a name, one of .* got list"),
    kind(lambda: models.create("mlp", "10"), "num_classes must be an integer, .* got '10'"),
    kind(lambda: models.create("mlp", 10.0), "num_classes must be an integer, .* got 10.0"),
    kind(lambda: models.create("mlp", True), "num_classes must be an integer, .* got True"),
    kind(lambda: models.create("mlp", 10, dtype=jnp.float32), "dtype must be a name, one of bfloat16, float32; got"),
    kind(lambda: models.create("mlp", 10, remat="yes"), "remat must be True or False; got 'yes'"),
    value(
        lambda: models.create("mlp", 10, hidden=np.array([3, 4])),
        "option 'hidden' of model 'mlp' must be a sequence",
    ),
    value(lambda: models.create("resnet18", 10, stem=X), "option 'stem' of model 'resnet18' must be one of cifar, im"),
    kind(lambda: models.from_torch(3, {}, 10, "timm"), "model must be a name, one of .* got 3"),
    kind(lambda: models.from_torch("resnet18", {}, 10, None), "source must be a name, one of anchoring, .* got None"),
    kind(lambda: models.from_torch("resnet18", None, 10, "timm"), "state_dict must be Mapping, .* got None"),
    kind(
        lambda: models.from_torch("resnet18", [("fc.bias", X)], 10, "timm"), "state_dict must be Mapping, .* got list"
    ),
    kind(lambda: models.from_torch("resnet18", {3: X}, 10, "timm"), "weights must be tensors .*; got ndarray as 3"),
    kind(
        lambda: models.from_torch("resnet18", {"state_dict": {"fc.bias": X}}, 10, "timm"),
        "weights must be tensors or arrays by name; got dict as 'state_dict'; if this is a checkpoint, pass only",
    ),
    kind(
        lambda: models.from_torch("resnet18", {"fc.bias": X.astype(str)}, 10, "timm"),
        "tensor 'fc.bias' must be real, got <U",
    ),
    kind(
        lambda: models.from_torch("resnet18", {"fc.bias": X + 1j}, 10, "timm"), "tensor 'fc.bias' must be real, got co"
    ),
    kind(lambda: models.from_torch("resnet18", {}, "10", "timm"), "num_classes must be an integer, .* got '10'"),
    value(lambda: models.from_torch("resnet18", {}, 10, "timm"), "the tensors do not match timm's .*; missing: bn1"),
    kind(
        lambda: models.to_torch("resnet18", None, "timm"), "variables must be Mapping, as model.init gives it; got None"
    ),
    kind(lambda: models.to_torch("resnet18", {"params": "x"}, "timm"), "weights must be .* got str as 'params'"),
    kind(lambda: models.to_torch("resnet18", {}, 3), "source must be a name, .* got 3"),
]

DATA = [
    kind(lambda: data.corrupt(0, IMAGES, "fog", 1), "key must be a key, .* got 0"),
    value(lambda: data.corrupt(KEYS, IMAGES, "fog", 1), "key must be one key"),
    kind(lambda: data.corrupt(KEY, None, "fog", 1), "images must be an array of JAX or NumPy"),
    kind(lambda: data.corrupt(KEY, IMAGES / 255, "fog", 1), "images must be uint8, got float64"),
    value(lambda: data.corrupt(KEY, IMAGES[0], "fog", 1), r"images must be \[B, H, W, C\], got shape \(8, 8, 3\)"),
    value(lambda: data.corrupt(KEY, IMAGES[:0], "fog", 1), "images must not be empty"),
    value(lambda: data.corrupt(KEY, IMAGES[..., :2], "fog", 1), r"images must have 1 or 3 channels.*\(3, 8, 8, 2\)"),
    value(lambda: data.corrupt(KEY, IMAGES[:, 1:], "fog", 1), r"images must have at least 8 x 8 pixels; got \[7, 8\]"),
    value(lambda: data.corrupt(KEY, IMAGES, "fogg", 1), r"unknown corruption 'fogg'; allowed: .* Did you mean 'fog'\?"),
    kind(lambda: data.corrupt(KEY, IMAGES, 3, 1), "corruption must be a name, one of .* got 3"),
    value(lambda: data.corrupt(KEY, IMAGES, "fog", 0), r"severity must lie in 1\.\.5, got 0"),
    value(lambda: data.corrupt(KEY, IMAGES, "fog", 6), r"severity must lie in 1\.\.5, got 6"),
    kind(lambda: data.corrupt(KEY, IMAGES, "fog", 2.5), "severity must be an integer, .* got 2.5"),
    kind(lambda: data.corrupt(KEY, IMAGES, "fog", "3"), "severity must be an integer, .* got '3'"),
    kind(lambda: data.corrupt(KEY, IMAGES, "fog", True), "severity must be an integer, .* got True"),
    kind(lambda: data.normalize(X, GREY), "images must be uint8, got float32"),
    kind(lambda: data.normalize(IMAGES, (0.5, 0.2)), "normalization must be Normalization, .* got tuple"),
    value(
        lambda: data.normalize(IMAGES, GREY), "normalization must have a mean and a std for each of 3 channels, got 1"
    ),
    value(
        lambda: data.normalize(IMAGES[..., :1], GREY._replace(std=(0.0,))), "normalization must have every std above"
    ),
    kind(lambda: data.measure_normalization(IMAGES / 255), "images must be uint8, got float64"),
    value(lambda: data.measure_normalization(IMAGES[:0]), "images must not be empty"),
    kind(lambda: data.random_erasing(KEYS, IMAGES, 0.5), "x must be floating, got uint8"),
    value(
        lambda: data.random_erasing(TWO_KEYS, IMAGES / 255, 0.5),
        r"keys must be 3 keys, one for each image; got shape \(2,\)",
    ),
    kind(
        lambda: data.random_erasing(0, IMAGES / 255, 0.5),
        r"keys must be keys, such as jax.random.split\(key, 3\); got 0",
    ),
    value(lambda: data.random_erasing(KEYS, IMAGES / 255, 2), r"prob must lie in \[0, 1\], got 2"),
    value(
        lambda: data.mixup_or_cutmix(KEY, IMAGES[:2] / 255, PROBS[0], mixup_alpha=1.0, cutmix_alpha=0.0),
        r"targets must have a row for each of 2 examples, got shape \(4, 3\)",
    ),
    value(
        lambda: data.mixup_or_cutmix(KEY, IMAGES / 255, PROBS[0, :3], mixup_alpha=-1.0, cutmix_alpha=0.0),
        r"mixup_alpha must lie in \[0, inf\], got -1.0",
    ),
    kind(lambda: data.augment(KEYS, IMAGES / 255, configuration.base().augmentation), "images must be uint8, got fl"),
    value(lambda: data.augment(TWO_KEYS, IMAGES, configuration.base().augmentation), "keys must be 3 keys"),
    kind(lambda: data.load(["digits"], "train"), "data source must be a name, one of digits, .* got list"),
    kind(lambda: data.load("digits", None), "split must be a string, got None"),
    kind(lambda: data.load("npz", "train", path=3), "path must be a path, got 3"),
    kind(
        lambda: data.open_stream("folder", "train", path=".", image_size="3"), "image_size must be an integer, .* '3'"
    ),
    kind(lambda: data.open_stream("folder", "train", crop_fraction=None), "crop_fraction must be a number .* None"),
    kind(lambda: data.open_dataset(None, image_shape=(8, 8, 1)), "spec must be a string, got None"),
    value(lambda: data.open_dataset("digits", image_shape=(8, 8)), r"image_shape must be H, W and C, .* got \(8, 8\)"),
    kind(lambda: data.open_dataset("digits", image_shape=8), "image_shape must be a tuple, got 8"),
    kind(
        lambda: data.open_dataset("digits", image_shape=(8, 8, 1), label_names="01"),
        "label_names must be a tuple, got '01'",
    ),
    kind(lambda: data.open_corrupted(3, **SPEC), "spec must be a string, got 3"),
    value(lambda: data.photographs((8, 8, 3), 0), "num must be at least 2, got 0"),
    value(
        lambda: data.photographs((0, 8, 3)), r"image_shape must be H, W and C, whole numbers above 0; got \(0, 8, 3\)"
    ),
    value(lambda: data.load_mixing_images("", 0, 3), "size must be at least 1, got 0"),
    kind(lambda: data.select_rows(None, 2, seed=0), "labels must be an array of JAX or NumPy"),
    kind(lambda: data.select_rows(LABELS, True, seed=0), "size must be an integer, .* got True"),
    value(lambda: data.select_rows(LABELS, 2, seed=-1), "seed must be at least 0, got -1"),
    kind(lambda: data.class_rows("ab", ("a", "b")), r"label_names must be a tuple, got 'ab': give \('ab',\)"),
    kind(lambda: data.eval_dataset(IMAGES, "x"), "dataset must be Dataset, as data.load gives it; got uint8 of"),
]

squared_error, gaussian_nll = aj.anchored_squared_error, aj.anchored_gaussian_nll
PLAIN = regression.Settings(references=False, hidden=(2,), steps=1)
SCALES = regression.Scale(X[0], X[0]), regression.Scale(X[0, :1], X[0, :1])
NETWORK = regression.RegressionNetwork(None, *SCALES, BANK, BANK[:, :1], PLAIN, ())
PREDICTIONS = regression.Regression(X[:1], None, None)

REGRESSION = [
    kind(lambda: squared_error(LABELS, X[:, 0]), "outputs must be floating, got int64"),
    kind(lambda: squared_error(X, X.astype(str)), "targets must be real, got <U"),
    value(lambda: squared_error(X, X[:, :1]), r"targets must have the shape of outputs, \(4, 5\); got \(4, 1\)"),
    value(lambda: squared_error(X, X[0]), r"targets must have the shape of outputs, \(4, 5\); got \(5,\)"),
    value(lambda: squared_error(X[:0], X[:0]), "outputs must not be empty"),
    value(lambda: squared_error(X, X * NAN), "targets must not hold NaN, got 20 of it in 20 values"),
    kind(lambda: squared_error(X, X, LABELS), "mask must be bool, got int64"),
    value(lambda: squared_error(X, X, MASK[:3]), r"mask must be \(4,\), got shape \(3,\)"),
    value(lambda: squared_error(X, X, MASK, masked_target="uniform"), "masked_target must be 'marginal' or 'label'"),
    kind(lambda: squared_error(X, X, MASK, target_mean="0"), r"target_mean must be a number in \[-inf, inf\], got '0'"),
    value(
        lambda: squared_error(X, X, target_mean=X[0, :3]), r"target_mean must be a number or of shape \(5,\), .*\(3,"
    ),
    kind(lambda: gaussian_nll(X, X > 0, X), "variances must be floating, got bool"),
    value(lambda: gaussian_nll(X, X[:, :1], X), r"variances must have the shape of means, \(4, 5\); got \(4, 1\)"),
    value(lambda: gaussian_nll(X, X, X[:3]), r"targets must have the shape of means, \(4, 5\); got \(3, 5\)"),
    kind(lambda: metrics.rmse(LABELS, LABELS), "means must be floating, got int64"),
    value(lambda: metrics.rmse(X, X[0]), r"targets must have the shape of means, \(4, 5\); got \(5,\)"),
    value(lambda: metrics.rmse(X[:0], X[:0]), r"means must be \[B, ...\], B at least 1; got shape \(0, 5\)"),
    value(lambda: metrics.rmse(X * NAN, X), "means must not hold NaN"),
    value(lambda: metrics.gaussian_nll(X, 0 * X, X), "stds must be above 0, got 0"),
    value(lambda: metrics.gaussian_nll(X, -X, X), r"stds must lie in \[0, inf\], got values from -1"),
    value(lambda: metrics.gaussian_nll(X, X[:, :1], X), r"stds must have the shape of means, \(4, 5\); got \(4, 1\)"),
    value(lambda: metrics.interval_coverage(X, X, X, X[0] + 1), r"levels must lie in \[0, 1\], got values from 2"),
    value(
        lambda: metrics.interval_coverage(X, X, X, np.float32(0.5)), r"levels must be \[L\], L at least 1; got shape"
    ),
    value(lambda: metrics.coverage_error(X, X, X, 0), "num_levels must be at least 1, got 0"),
    kind(lambda: pager.nonconformity(None, None, X, X, X[:, 0]), "apply_fn must be a function, got None"),
    kind(lambda: pager.nonconformity(network, None, LABELS[:, None], X, X), "x must be floating, got int64"),
    value(
        lambda: pager.nonconformity(network, None, X, X[:, :3], X), r"references \(4, 3\) do not fit inputs \(4, 5\)"
    ),
    value(
        lambda: pager.nonconformity(network, None, X, X, X[:3]), r"targets must be one for each of 4 references, got"
    ),
    value(lambda: pager.nonconformity(network, None, X, X, X, chunk_size=0), "chunk_size must be at least 1, got 0"),
    value(lambda: pager.refined_nonconformity(network, None, X, X, X, steps=0), "steps must be at least 1, got 0"),
    kind(lambda: pager.refined_nonconformity(network, None, X, X, X, regularizer=1), "regularizer must be a function"),
    value(
        lambda: pager.risk_regimes(X[0], X[:, 0], 1, 1), r"uncertainty and nonconformity must have one shape, .*\(5,\)"
    ),
    value(lambda: pager.risk_regimes(X[0], X[0], -1, 1), r"uncertainty_limit must lie in \[0, inf\], got -1"),
    value(lambda: pager.regime_errors(LABELS, X[0]), r"regimes and errors must have one shape, got \(4,\) and \(5,\)"),
    value(lambda: pager.regime_errors(LABELS, X[:, 0], 0.6), r"share must lie in \[0, 0.5\], got 0.6"),
    value(lambda: aj.expected_improvement(X, X[0], 1.0), r"mean and std must have one shape, got \(4, 5\) and \(5,\)"),
    kind(lambda: aj.expected_improvement(X, X, "1"), r"best must be a number in \[-inf, inf\], got '1'"),
    kind(lambda: regression.Settings(hidden=64), r"hidden must be a tuple, got 64: give \(64,\)"),
    value(lambda: regression.Settings(steps=0), "steps must be at least 1, got 0"),
    value(lambda: regression.Settings(dropout=1), "dropout must be below 1, which leaves nothing; got 1"),
    value(lambda: regression.Settings(mask_prob=1.5), r"mask_prob must lie in \[0, 1\], got 1.5"),
    value(
        lambda: regression.Settings(references=False, mask_prob=0.2), "mask_prob must be 0 without references; got 0.2"
    ),
    value(lambda: regression.Settings(learning_rate=-1.0), r"learning_rate must lie in \[0, inf\], got -1.0"),
    value(lambda: regression.Settings(masked_target="mean"), "masked_target must be 'marginal' or 'label', got 'mean'"),
    kind(lambda: regression.fit(0, X, X[:, 0], PLAIN), "key must be a key, .* got 0"),
    kind(lambda: regression.fit(KEY, X, X[:, 0], {}), "settings must be Settings, .* got dict"),
    kind(
        lambda: regression.fit(KEY, X.tolist(), X[:, 0], PLAIN),
        r"x must be an array of JAX or NumPy, \[N, C\]; got list",
    ),
    value(lambda: regression.fit(KEY, X[:, 0], X[:, 0], PLAIN), r"x must be \[N, C\], got shape \(4,\)"),
    value(lambda: regression.fit(KEY, X, X[:3, 0], PLAIN), r"y must be \[N\] or \[N, D\] for x .*\(3,\) and \(4, 5\)"),
    value(lambda: regression.fit(KEY, X[:1], X[:1, 0], PLAIN), r"y must be .* N at least 2; got shapes \(1,\) and"),
    value(lambda: regression.fit(KEY, X * NAN, X[:, 0], PLAIN), "x must not hold NaN, got 20 of it"),
    value(lambda: regression.fit(KEY, X, X[:, 0] * np.float32(np.inf), PLAIN), "y must lie in .* from inf to inf"),
    kind(
        lambda: regression.predict(KEY, PLAIN, X),
        "network must be Network, as anchor_jax.contrib.regression.fit gives it; got",
    ),
    value(
        lambda: regression.predict(KEY, NETWORK, X[:, :3]), r"x must be \[B, 5\], as the network was trained on; got"
    ),
    value(lambda: regression.predict(KEY, NETWORK, X, 0), "num must be at least 1, got 0"),
    value(lambda: regression.nonconformity(NETWORK, X), r"network must be anchored, Settings\(references=True\)"),
    value(
        lambda: regression.nonconformity(NETWORK, X[:, :3]), r"x must be \[B, 5\], as the network was trained on; got"
    ),
    kind(lambda: regression.combine_members([PREDICTIONS]), "members must be Regression, .* got list"),
    value(
        lambda: regression.combine_members(PREDICTIONS),
        r"members must be at least 2, \[M, B, ...\]; got shape \(1, 5\)",
    ),
    value(
        lambda: regression.fourier_features(X, X[:, :2]),
        r"x must be \[B, 5\] for these frequencies; got shape \(4, 2\)",
    ),
]

RUNS = [
    kind(lambda: aj.load_predictor(None), "workdir must be a path, got None"),
    kind(lambda: aj.load_predictor(3), "workdir must be a path, got 3"),
    value(lambda: aj.load_predictor(__file__), "no run in '.*test_bad_arguments.py': it has no run.json"),
    value(lambda: aj.load_predictor("nowhere"), "no run in 'nowhere': it has no run.json; give the --workdir"),
    kind(lambda: PREDICTOR(SIX.tolist()), "images must be an array of JAX or NumPy"),
    kind(lambda: PREDICTOR(SIX / 255), "images must be uint8, got float64: give them as they are stored"),
    value(lambda: PREDICTOR(SIX[0]), r"images must be \[B, H, W, C\], got shape \(6, 6, 1\)"),
    value(lambda: PREDICTOR(SIX[:0]), "images must not be empty"),
    value(
        lambda: PREDICTOR(SIX[:, 1:]), r"images must be \[B, 6, 6, 1\], as the run was trained on; got \[2, 5, 6, 1\]"
    ),
    value(lambda: PREDICTOR(SIX, 0), r"num_references must lie in 1\.\.12, .* got 0"),
    value(
        lambda: PREDICTOR(SIX, 13), r"num_references must lie in 1\.\.12, the references saved with the run.* got 13"
    ),
    kind(lambda: PREDICTOR(SIX, 2.0), "num_references must be an integer, .* got 2.0"),
    kind(lambda: PREDICTOR(SIX, True), "num_references must be an integer, .* got True"),
    value(lambda: PREDICTOR(SIX, temper="platt"), "temper must be None or 'duq', got 'platt'"),
    kind(lambda: evaluation.evaluate(None), "workdir must be a path, got None"),
    kind(lambda: evaluation.evaluate("nowhere", "clean"), r"suites must be a tuple, got 'clean': give \('clean',\)"),
    kind(lambda: evaluation.evaluate("nowhere", ("clean",), 10), r"num_references must be a tuple, .*: give \(10,\)"),
    kind(lambda: evaluation.evaluate("nowhere", options={"draws": 3}), "options must be Options, .* got dict"),
    kind(lambda: evaluation.Options(ood="photographs"), "ood must be a tuple, got 'photographs'"),
    kind(lambda: evaluation.Options(draws="3"), "draws must be an integer, .* got '3'"),
    kind(lambda: mesh_lib.mesh("2"), "num_devices must be an integer, .* got '2'"),
]


def check(mistake):
    with pytest.raises(aj.UserError, match=rf"\A{mistake.message}") as told:
        mistake.call()
    assert isinstance(told.value, UserTypeError) == mistake.of_type
    assert "\n" not in str(told.value)


def each_of(mistakes):
    names = [re.sub(r"\\", "", mistake.message)[:60] for mistake in mistakes]
    return pytest.mark.parametrize("mistake", mistakes, ids=names)


@each_of([*ANCHORING, *OBJECTIVE, *INFERENCE, *METRICS, *MODELS, *DATA, *REGRESSION, *RUNS])
def test_a_wrong_argument_is_told_before_anything_is_compiled(mistake, caplog):
    with jax.log_compiles():
        check(mistake)
    assert "Compiling" not in caplog.text


@each_of(OUTPUTS)
def test_wrong_outputs_of_a_function_are_told(mistake):
    check(mistake)


# under transformations of JAX, where there are shapes and dtypes alone


def sharded(function):
    spec = PartitionSpec(mesh_lib.AXIS)
    return jax.jit(jax.shard_map(function, mesh=mesh_lib.mesh(2), in_specs=spec, out_specs=spec))


# how a function is transformed, and what its arguments become: such as two in the place of one
TRANSFORMS = {
    "jit": (jax.jit, lambda array: array),
    "grad": (lambda function: jax.grad(lambda *arrays: jnp.sum(function(*arrays))), lambda array: array),
    "vmap": (jax.vmap, lambda array: np.stack([array] * 2)),
    "shard_map": (sharded, lambda array: np.concatenate([array] * 2)),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(
    ("function", "arrays", "message"),
    [
        (aj.anchor, (X, X.astype(np.uint8)), "references must be floating, got uint8"),
        (aj.anchor, (X, X[:, :4]), r"references must have the shape of x, \(4, 5\), .* got \(4, 4\)"),
        (aj.anchor, (X, X, LABELS), "mask must be bool, got int"),
        (cross_entropy, (LOGITS, LABELS * 1.0), r"labels must be integers \[B\] or floating \[B, C\], got float"),
        (cross_entropy, (LOGITS, LABELS, MASK[:2]), r"mask must be \(4,\), got shape \(2,\)"),
        (partial(aj.predict, network, None), (X, BANK[:, :4]), r"references \(6, 4\) do not fit inputs \(4, 5\)"),
        (partial(aj.classify, network, None), (X, BANK > 0), "references must be floating, got bool"),
        (aj.transductive_references, (X, BANK, BANK[:, :4]), r"x, bank and residuals must agree .* \(6, 4\)"),
        (uncertainty.information_gain, (CONFIDENCE, CONFIDENCE[:1]), "predictive and expected must have one shape"),
    ],
)
def test_shapes_and_dtypes_are_told_under_transformations(transform, function, arrays, message):
    transformed, repeated = TRANSFORMS[transform]
    with pytest.raises(aj.UserError, match=rf"\A{message}"):
        transformed(function)(*map(repeated, arrays))


# whatever is given


def answer_or_name(names, call, *args):
    """The answer, or None where the call is refused with the name of one of its arguments."""
    try:
        return call(*args)
    except aj.UserError as error:
        told = str(error)
    assert told.startswith(names)
    return None


shapes = array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=2)


@settings(deadline=None, max_examples=200)
@given(shapes, shapes, st.none() | shapes)
def test_of_any_shapes_anchor_makes_an_anchored_input_or_names_an_argument(x, references, mask):
    def shaped(shape, dtype):
        return None if shape is None else jax.ShapeDtypeStruct(shape, dtype)

    arrays = shaped(x, jnp.float32), shaped(references, jnp.float32), shaped(mask, jnp.bool_)
    made = answer_or_name(("x", "references", "mask"), jax.eval_shape, aj.anchor, *arrays)
    fits = x == references and len(x) > 0 and 0 not in x and mask in (None, (), x[:1][: len(x) - 1])
    assert (made.shape if made else None) == ((*x[:-1], 2 * x[-1]) if fits else None)


@settings(deadline=None, max_examples=100)
@given(scalar_dtypes())
def test_of_any_dtype_anchor_takes_floats_alone(dtype):
    made = answer_or_name(
        ("x must be floating", "x must be in the byte order"), aj.anchor, *[np.zeros((1, 1), dtype)] * 2
    )
    assert (made is not None) == (np.issubdtype(dtype, np.floating) and dtype.isnative)


@settings(deadline=None, max_examples=50)
@given(shapes, shapes, st.none() | st.integers(-1, 3))
def test_of_any_shapes_predict_gives_an_output_for_each_input_or_names_an_argument(x, references, chunk_size):
    def outputs(params, inputs):
        return inputs.sum(axis=tuple(range(1, inputs.ndim)))

    def predicted(*arrays):
        return aj.predict(outputs, None, *arrays, chunk_size=chunk_size)

    arrays = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (x, references))
    made = answer_or_name(("x", "references", "chunk_size"), jax.eval_shape, predicted, *arrays)
    fits = len(x) > 1 and x[1:] == references[1:] and 0 not in x + references and (chunk_size is None or chunk_size > 0)
    assert (made is not None) == (fits and len(references) > 1)
    assert made is None or made.mean.shape == x[:1]


@settings(deadline=None, max_examples=100)
@given(st.floats() | st.integers(-1, 2) | st.none() | st.booleans() | st.text() | st.complex_numbers())
def test_of_anything_only_a_number_in_0_to_1_is_a_probability(prob):
    drawn = answer_or_name("prob must", aj.sample_mask, KEY, 2, prob)
    is_number = isinstance(prob, int | float) and not isinstance(prob, bool)
    assert (drawn is not None) == (is_number and 0 <= prob <= 1)


def test_a_step_that_is_none_is_told(tmp_path):
    config = configuration.base()
    config.model.name, config.anchoring.enabled = "mlp", False
    config.data.mean, config.data.std = (0.5,), (0.2,)
    with run_record.lock_workdir(run_record.Run(tmp_path, config, ("a", "b"), (6, 6, 1), "2 examples", None, None)):
        pass
    for step in (3.0, True, [3]):
        with pytest.raises(UserTypeError, match=r"\Astep must be an integer, static under jit; got"):
            aj.load_predictor(tmp_path, step)
