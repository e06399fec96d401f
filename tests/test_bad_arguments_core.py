"""Invalid arguments of anchoring and losses: one line that names the argument, raised before anything is compiled."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, scalar_dtypes
from invalid_arguments import (
    BANK,
    CONFIDENCE,
    FIRST,
    KEY,
    KEYS,
    LABELS,
    LOGITS,
    MASK,
    NAN,
    PROBS,
    RAGGED,
    B,
    X,
    assert_raises_before_compilation,
    each_of,
    kind,
    network,
    value,
)
from jax.sharding import PartitionSpec

import anchor_jax as aj
from anchor_jax import models
from anchor_jax.core import uncertainty
from anchor_jax.runtime import mesh as mesh_lib

pytestmark = pytest.mark.invalid_arguments

cross_entropy = aj.anchored_cross_entropy
LAST = FIRST.transpose(0, 2, 3, 1)
MODEL, IMAGE_MODEL = (aj.Anchored(network, bank, mask_prob=0.25) for bank in (BANK, LAST[..., :1]))

ANCHORING = [
    kind(
        lambda: aj.anchor(X.astype(np.uint8), X),
        "x must have a floating dtype; got uint8; normalize images before anchoring",
    ),
    kind(
        lambda: aj.anchor(X, X.astype(np.uint8)), "references must have a floating dtype; got uint8; normalize images"
    ),
    kind(lambda: aj.anchor(X > 0, X), "x must have a floating dtype; got bool"),
    kind(lambda: aj.anchor(X + 1j, X), "x must have a floating dtype; got complex64"),
    kind(lambda: aj.anchor(X.astype(object), X), "x must have a floating dtype; got object"),
    kind(lambda: aj.anchor(X.astype(str), X), "x must have a floating dtype; got <U"),
    kind(lambda: aj.anchor(X, np.ma.array(X)), r"references must be a plain array; got MaskedArray; use filled\(\)"),
    kind(lambda: aj.anchor("x", X), r"x must be a JAX or NumPy array \[..., C\]; got 'x'"),
    kind(lambda: aj.anchor(X, None), r"references must be a JAX or NumPy array \[..., C\]; got None"),
    kind(lambda: aj.anchor(RAGGED, RAGGED), "x must be a JAX or NumPy array .*; got list"),
    value(lambda: aj.anchor(1.0, 1.0), r"x must have shape \[..., C\]; got \(\)"),
    value(lambda: aj.anchor(X[:0], X[:0]), r"x must not be empty; got shape \(0, 5\)"),
    value(
        lambda: aj.anchor(X, X[:, :4]), r"references must have the shape of x, \(4, 5\), one per input; got \(4, 4\)"
    ),
    # these two would broadcast
    value(lambda: aj.anchor(X, X[:1]), r"references must have the shape of x, .*; got \(1, 5\)"),
    value(lambda: aj.anchor(X, X[0]), r"references must have the shape of x, .*; got \(5,\)"),
    value(
        lambda: aj.anchor(FIRST, FIRST),
        r"x must have its channels last, \[B, H, W, C\]; got \[4, 3, 8, 9\]; if these are .*, pass x.transpose",
    ),
    value(lambda: aj.anchor(FIRST[:, :1, :, :8], X), r"x must have its channels last, .*; got \[4, 1, 8, 8\]"),
    value(lambda: aj.anchor(LAST, FIRST), "references must have its channels last"),
    value(
        lambda: aj.anchor(LAST[..., :1], FIRST[:, :1]),
        r"references must have the shape of x, .*; their channels are first: pass references.transpose\(0, 2, 3, 1\)",
    ),
    kind(
        lambda: aj.anchor(X, 3), r"references must be an array \[..., C\], not their number .* got 3; pass bank\[:3\]"
    ),
    kind(lambda: aj.anchor(X, np.int64(3)), r"references must be an array .* got 3; pass bank\[:3\]"),
    kind(lambda: aj.anchor(X, LABELS), r"references must be an array .* these are rows of a bank, pass bank\[refer"),
    kind(lambda: aj.anchor(X, X, LABELS), "mask must have a bool dtype; got int64"),
    kind(lambda: aj.anchor(X, X, X[:, 0]), "mask must have a bool dtype; got float32"),
    kind(lambda: aj.anchor(X, X, "mask"), "mask must be a JAX or NumPy array"),
    value(lambda: aj.anchor(X, X, MASK[:3]), r"mask must have shape \[B\] for x of shape \(4, 5\); got \(3,\)"),
    value(lambda: aj.anchor(X, X, MASK[:, None]), r"mask must have shape \[B\] for x .* got \(4, 1\)"),
    value(lambda: aj.anchor(X, X, X > 0), r"mask must have shape \[B\] for x .* got \(4, 5\)"),
    kind(lambda: aj.anchored("f"), "apply_fn must be a function; got 'f'"),
    kind(lambda: aj.anchored(None), "apply_fn must be a function; got None"),
    kind(lambda: aj.anchored(models.create("mlp", 2)), "apply_fn must be a function; got MLP; pass its apply method"),
    value(lambda: aj.anchored(network)(None, X, X[:2]), "references must have the shape of x"),
    kind(lambda: aj.anchored_kernel(LABELS[None]), "kernel must have a floating dtype; got int64"),
    value(lambda: aj.anchored_kernel(X[0]), r"kernel must have shape \[..., C, D\]; got \(5,\)"),
    value(lambda: aj.anchored_kernel(X, axis=2), "axis must be in -2..1; got 2"),
    kind(lambda: aj.anchored_kernel(X, axis="C"), "axis must be an integer, static under jit; got 'C'"),
    value(lambda: aj.anchored_kernel(X, channels=3), r"channels must divide axis 0 of the kernel \(4, 5\), .* got 3"),
    value(lambda: aj.anchored_kernel(X, channels=0), "channels must be at least 1; got 0"),
    kind(lambda: aj.sample_references(0, BANK, 2), r"key must be a PRNG key, such as jax.random.key\(0\); got 0"),
    kind(lambda: aj.sample_references(None, BANK, 2), "key must be a PRNG key, .*; got None"),
    kind(lambda: aj.sample_references(X, BANK, 2), r"key must be a PRNG key, .*; got float32 of shape \(4, 5\)"),
    kind(
        lambda: aj.sample_references(np.zeros(3, np.uint32), BANK, 2),
        r"key must be a PRNG key, .* uint32 of shape \(3,\)",
    ),
    value(
        lambda: aj.sample_references(KEYS, BANK, 2), r"key must be a single key; got keys of shape \(3,\); select one"
    ),
    kind(lambda: aj.sample_references(KEY, RAGGED, 2), r"bank must be a JAX or NumPy array \[M, ...\]; got list"),
    kind(lambda: aj.sample_references(KEY, BANK.astype(str), 2), "bank must have a real dtype; got <U"),
    value(lambda: aj.sample_references(KEY, BANK[:0], 2), r"bank must not be empty; got shape \(0, 5\)"),
    value(lambda: aj.sample_references(KEY, np.float32(1), 2), r"bank must have shape \[M, ...\]; got \(\)"),
    value(lambda: aj.sample_references(KEY, BANK, 0), "num must be at least 1; got 0"),
    value(lambda: aj.sample_references(KEY, BANK, -1), "num must be at least 1; got -1"),
    value(
        lambda: aj.sample_references(KEY, BANK, len(BANK) + 1, replace=False),
        "num must be at most .*, the size of the bank, without replacement; got ",
    ),
    kind(lambda: aj.sample_references(KEY, BANK, 2.0), "num must be an integer, static under jit; got 2.0"),
    kind(lambda: aj.sample_references(KEY, BANK, True), "num must be an integer, static under jit; got True"),
    kind(lambda: aj.sample_references(KEY, BANK, (2, 3)), "num must be an integer, static under jit; got tuple"),
    kind(lambda: aj.sample_mask(3, B, 0.5), "key must be a PRNG key, .*; got 3"),
    value(lambda: aj.sample_mask(KEYS, B, 0.5), "key must be a single key"),
    value(lambda: aj.sample_mask(KEY, 0, 0.5), "batch_size must be at least 1; got 0"),
    kind(lambda: aj.sample_mask(KEY, X, 0.5), "batch_size must be an integer, static under jit; got float32 of shape"),
    value(lambda: aj.sample_mask(KEY, B, -0.1), r"prob must be in \[0, 1\]; got -0.1"),
    value(lambda: aj.sample_mask(KEY, B, 1.1), r"prob must be in \[0, 1\]; got 1.1"),
    value(lambda: aj.sample_mask(KEY, B, np.float32(1.5)), r"prob must be in \[0, 1\]; got 1.5"),
    value(lambda: aj.sample_mask(KEY, B, NAN), r"prob must be in \[0, 1\]; got nan"),
    kind(lambda: aj.sample_mask(KEY, B, "0.5"), r"prob must be a number in \[0, 1\]; got '0.5'"),
    kind(lambda: aj.sample_mask(KEY, B, None), r"prob must be a number in \[0, 1\]; got None"),
    kind(lambda: aj.sample_mask(KEY, B, True), r"prob must be a number in \[0, 1\]; got True"),
    kind(lambda: aj.sample_mask(KEY, B, CONFIDENCE), r"prob must be a number .*; got float32 of shape \(4,\)"),
    value(lambda: aj.sample_mask(KEY, B, 0.5, "step"), "per must be 'batch' or 'group' or 'example'; got 'step'"),
    value(lambda: aj.sample_mask(KEY, B, 0.5, None), "per must be 'batch' or 'group' or 'example'; got None"),
    value(lambda: aj.sample_mask(KEY, B, 0.5, "group"), "per='group' needs group_size, a divisor of batch_size; got N"),
    value(lambda: aj.sample_mask(KEY, 4, 0.5, "group", group_size=3), "group_size must divide batch_size=4; got 3"),
    value(lambda: aj.sample_mask(KEY, 4, 0.5, "group", group_size=0), "group_size must be at least 1; got 0"),
    kind(lambda: aj.sample_mask(KEY, 4, 0.5, "group", group_size=2.0), "group_size must be an integer.*; got 2.0"),
    value(lambda: aj.sample_mask(KEY, B, 0.5, group_size=2), "group_size applies to per='group' only; got 2 with"),
]

LOSSES = [
    kind(lambda: cross_entropy(LABELS[:, None], LABELS), "logits must have a floating dtype; got int64"),
    kind(lambda: cross_entropy([[0.1, 0.9]], LABELS), r"logits must be a JAX or NumPy array .*; got list"),
    value(lambda: cross_entropy(LOGITS[0], LABELS), r"logits must have shape \[B, C\]; got \(3,\)"),
    value(lambda: cross_entropy(LOGITS[:0], LABELS[:0]), "logits must not be empty"),
    value(lambda: cross_entropy(LOGITS[:, :0], LABELS), "logits must not be empty"),
    kind(lambda: cross_entropy(LOGITS, None), "labels must be a JAX or NumPy array"),
    kind(lambda: cross_entropy(LOGITS, LABELS.astype(str)), "labels must have a real dtype; got <U"),
    kind(lambda: cross_entropy(LOGITS, LABELS * 1.0), r"labels must be integers \[B\] or floating \[B, C\]"),
    kind(lambda: cross_entropy(LOGITS, LOGITS > 0), r"labels must be .* got bool of shape \(4, 3\)"),
    kind(lambda: cross_entropy(LOGITS, LABELS[:, None]), r"labels must be .* got int64 of shape \(4, 1\)"),
    value(lambda: cross_entropy(LOGITS, LABELS[:3]), r"labels of shape \(3,\) do not match logits of"),
    value(lambda: cross_entropy(LOGITS, PROBS[0, :, :2]), r"labels of shape \(4, 2\) do not match logits"),
    value(lambda: cross_entropy(LOGITS, PROBS[0, :1]), r"labels of shape \(1, 3\) do not match logits"),
    value(lambda: cross_entropy(LOGITS, LABELS + 1), r"labels must be in \[0, 2\]; got values from 1 to 3"),
    value(lambda: cross_entropy(LOGITS, LABELS - 1), r"labels must be in \[0, 2\]; got values from -1 to 1"),
    value(lambda: cross_entropy(LOGITS, PROBS[0] * NAN), "labels must not contain NaN; got 12 NaN in 12"),
    value(lambda: cross_entropy(LOGITS, PROBS[0] - 1), r"labels must be in \[0, 1\]; got values from -0.6"),
    value(lambda: cross_entropy(LOGITS, LOGITS), r"sums of labels over classes must be in .* from 0 to 0"),
    kind(lambda: cross_entropy(LOGITS, LABELS, LABELS), "mask must have a bool dtype; got int64"),
    value(lambda: cross_entropy(LOGITS, LABELS, MASK[:1]), r"mask must have shape \(4,\); got \(1,\)"),
    value(
        lambda: cross_entropy(LOGITS, LABELS, masked_target="zero"),
        "masked_target must be 'label' or 'uniform'; got 'zero'",
    ),
    value(
        lambda: cross_entropy(LOGITS, LABELS, label_smoothing=1.5),
        r"label_smoothing must be in \[0, 1\]; got 1.5",
    ),
    value(lambda: cross_entropy(LOGITS, LABELS, label_smoothing=NAN), "label_smoothing must be in .* nan"),
    kind(
        lambda: cross_entropy(LOGITS, LABELS, label_smoothing="0.1"),
        r"label_smoothing must be a number in \[0, 1\]; got '0.1'",
    ),
]

ANCHORED = [
    kind(lambda: aj.Anchored(None, BANK, mask_prob=0.5), "apply_fn must be a function; got None"),
    kind(
        lambda: aj.Anchored(network, BANK.astype(int), mask_prob=0.5),
        "bank must have a floating dtype; got int64; norm",
    ),
    kind(
        lambda: aj.Anchored(network, 100, mask_prob=0.5),
        r"bank must be an array .*, the references themselves; got 100",
    ),
    value(lambda: aj.Anchored(network, BANK[:0], mask_prob=0.5), "bank must not be empty"),
    value(lambda: aj.Anchored(network, FIRST, mask_prob=0.5), "bank must have its channels last"),
    value(lambda: aj.Anchored(network, BANK, mask_prob=1.5), r"mask_prob must be in \[0, 1\]; got 1.5"),
    value(lambda: aj.Anchored(network, BANK, mask_prob=0.5, mask_per="epoch"), "mask_per must be 'batch' or 'group'"),
    value(lambda: aj.Anchored(network, BANK, mask_prob=0.5, mask_per="group"), "mask_per='group' needs group_size"),
    value(
        lambda: aj.Anchored(network, BANK, mask_prob=0.5, group_size=2), "group_size applies to mask_per='group' only"
    ),
    kind(lambda: aj.Anchored(network, BANK, mask_prob=0.5, loss_fn="nll"), "loss_fn must be a function; got 'nll'"),
    kind(lambda: MODEL.training_inputs(0, X), "key must be a PRNG key"),
    kind(lambda: MODEL.training_inputs(KEY, X.astype(int)), "x must have a floating dtype; got int64; normalize"),
    value(lambda: MODEL.training_inputs(KEY, X[:, :4]), r"x \(4, 4\) does not match bank \(6, 5\): all but the first"),
    value(
        lambda: IMAGE_MODEL.predict(None, FIRST[:, :1]),
        r"x \(4, 1, 8, 9\) does not match bank .*; their channels are first: pass x.transpose\(0, 2, 3, 1\)",
    ),
    value(lambda: MODEL.classify(None, X), r"num_references must be in 1..6; got 10"),
    kind(lambda: MODEL.predict(None, X, BANK), "num_references must be an integer, .* got float32 of shape"),
    kind(lambda: MODEL.encode(None), "apply_fn must have type SplitModel"),
    value(lambda: MODEL.loss(LOGITS, LABELS[:2]), "labels of shape"),
    value(
        lambda: aj.Anchored(network, BANK, mask_prob=0.5, loss_fn=lambda *_: np.float32(1)).loss(LOGITS, LABELS),
        r"output of loss_fn must have shape \[B\]; got \(\)",
    ),
    kind(lambda: aj.keep_statistics(X, X, LABELS), "mask must have a bool dtype"),
    value(
        lambda: aj.keep_statistics({"mean": X}, {"mean": X, "kernel": X}, MASK),
        r"old and new statistics must have the same structure; got \['mean'\] and \['kernel'\], \['mean'\]; pass",
    ),
    value(
        lambda: aj.keep_statistics(X, X[:, :1], MASK),
        "old and new statistics must agree in shapes and dtypes; got float32",
    ),
    kind(lambda: aj.inference.anomaly_scores(LOGITS), "answer must be the result of anchor_jax.classify; got float32"),
]

squared_error, gaussian_nll = aj.anchored_squared_error, aj.anchored_gaussian_nll
REGRESSION_LOSSES = [
    kind(lambda: squared_error(LABELS, X[:, 0]), "outputs must have a floating dtype; got int64"),
    kind(lambda: squared_error(X, X.astype(str)), "targets must have a real dtype; got <U"),
    value(lambda: squared_error(X, X[:, :1]), r"targets must have the shape of outputs, \(4, 5\); got \(4, 1\)"),
    value(lambda: squared_error(X, X[0]), r"targets must have the shape of outputs, \(4, 5\); got \(5,\)"),
    value(lambda: squared_error(X[:0], X[:0]), "outputs must not be empty"),
    value(lambda: squared_error(X, X * NAN), "targets must not contain NaN; got 20 NaN in 20 values"),
    kind(lambda: squared_error(X, X, LABELS), "mask must have a bool dtype; got int64"),
    value(lambda: squared_error(X, X, MASK[:3]), r"mask must have shape \(4,\); got \(3,\)"),
    value(lambda: squared_error(X, X, MASK, masked_target="uniform"), "masked_target must be 'marginal' or 'label'"),
    kind(lambda: squared_error(X, X, MASK, target_mean="0"), r"target_mean must be a number in \[-inf, inf\]; got '0'"),
    value(
        lambda: squared_error(X, X, target_mean=X[0, :3]),
        r"target_mean must be a number or have the shape of one target, \(5,\); got \(3,",
    ),
    kind(lambda: gaussian_nll(X, X > 0, X), "variances must have a floating dtype; got bool"),
    value(lambda: gaussian_nll(X, X[:, :1], X), r"variances must have the shape of means, \(4, 5\); got \(4, 1\)"),
    value(lambda: gaussian_nll(X, X, X[:3]), r"targets must have the shape of means, \(4, 5\); got \(3, 5\)"),
]


@each_of([*ANCHORING, *LOSSES, *ANCHORED, *REGRESSION_LOSSES])
def test_anchoring_and_losses_raise_before_compilation(invalid, caplog):
    assert_raises_before_compilation(invalid, caplog)


# under transformations of JAX, where only shapes and dtypes are known


def sharded(function):
    spec = PartitionSpec(mesh_lib.AXIS)
    return jax.jit(jax.shard_map(function, mesh=mesh_lib.mesh(2), in_specs=spec, out_specs=spec))


# each transformation, and how it changes the arguments
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
        (aj.anchor, (X, X.astype(np.uint8)), "references must have a floating dtype; got uint8"),
        (aj.anchor, (X, X[:, :4]), r"references must have the shape of x, \(4, 5\), .* got \(4, 4\)"),
        (aj.anchor, (X, X, LABELS), "mask must have a bool dtype; got int"),
        (cross_entropy, (LOGITS, LABELS * 1.0), r"labels must be integers \[B\] or floating \[B, C\]; got float"),
        (cross_entropy, (LOGITS, LABELS, MASK[:2]), r"mask must have shape \(4,\); got \(2,\)"),
        (partial(aj.predict, network, None), (X, BANK[:, :4]), r"references \(6, 4\) do not match inputs \(4, 5\)"),
        (partial(aj.classify, network, None), (X, BANK > 0), "references must have a floating dtype; got bool"),
        (aj.transductive_references, (X, BANK, BANK[:, :4]), r"x, bank and residuals must agree .* \(6, 4\)"),
        (
            uncertainty.information_gain,
            (CONFIDENCE, CONFIDENCE[:1]),
            "predictive and expected must have the same shape",
        ),
    ],
)
def test_invalid_shape_or_dtype_raises_under_transformations(transform, function, arrays, message):
    transformation, adapt = TRANSFORMS[transform]
    with pytest.raises(aj.UserError, match=rf"\A{message}"):
        transformation(function)(*map(adapt, arrays))


# any arguments


def result_or_none(messages, call, *args):
    """Return the result of a call, or None if it raises an error that starts with one of the messages."""
    try:
        return call(*args)
    except aj.UserError as error:
        message = str(error)
    assert message.startswith(messages)
    return None


shapes = array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=2)


@settings(deadline=None, max_examples=200)
@given(shapes, shapes, st.none() | shapes)
def test_anchor_of_any_shapes_returns_or_names_an_argument(x, references, mask):
    def shaped(shape, dtype):
        return None if shape is None else jax.ShapeDtypeStruct(shape, dtype)

    arrays = shaped(x, jnp.float32), shaped(references, jnp.float32), shaped(mask, jnp.bool_)
    result = result_or_none(("x", "references", "mask"), jax.eval_shape, aj.anchor, *arrays)
    fits = x == references and len(x) > 0 and 0 not in x and mask in (None, (), x[:1][: len(x) - 1])
    assert (result.shape if result else None) == ((*x[:-1], 2 * x[-1]) if fits else None)


@settings(deadline=None, max_examples=100)
@given(scalar_dtypes())
def test_anchor_of_any_dtype_accepts_only_floats(dtype):
    messages = ("x must have a floating dtype", "x must be in the byte order")
    result = result_or_none(messages, aj.anchor, *[np.zeros((1, 1), dtype)] * 2)
    assert (result is not None) == (np.issubdtype(dtype, np.floating) and dtype.isnative)


@settings(deadline=None, max_examples=50)
@given(shapes, shapes, st.none() | st.integers(-1, 3))
def test_predict_of_any_shapes_returns_or_names_an_argument(x, references, chunk_size):
    def outputs(params, inputs):
        return inputs.sum(axis=tuple(range(1, inputs.ndim)))

    def predict(*arrays):
        return aj.predict(outputs, None, *arrays, chunk_size=chunk_size)

    arrays = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (x, references))
    result = result_or_none(("x", "references", "chunk_size"), jax.eval_shape, predict, *arrays)
    fits = len(x) > 1 and x[1:] == references[1:] and 0 not in x + references and (chunk_size is None or chunk_size > 0)
    assert (result is not None) == (fits and len(references) > 1)
    assert result is None or result.mean.shape == x[:1]


@settings(deadline=None, max_examples=100)
@given(st.floats() | st.integers(-1, 2) | st.none() | st.booleans() | st.text() | st.complex_numbers())
def test_sample_mask_accepts_only_probabilities(prob):
    mask = result_or_none("prob must", aj.sample_mask, KEY, 2, prob)
    is_number = isinstance(prob, int | float) and not isinstance(prob, bool)
    assert (mask is not None) == (is_number and 0 <= prob <= 1)
