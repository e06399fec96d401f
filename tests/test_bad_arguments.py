"""Invalid arguments of models, data, runs and evaluation: one line that names the argument, before any compilation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from invalid_arguments import (
    IMAGES,
    KEY,
    KEYS,
    LABELS,
    PROBS,
    TWO_KEYS,
    X,
    assert_raises_before_compilation,
    each_of,
    kind,
    value,
)

import anchor_jax as aj
from anchor_jax import config as configuration
from anchor_jax import data, evaluation, models
from anchor_jax.core.errors import UserTypeError
from anchor_jax.runs import record as run_record
from anchor_jax.runs.predictor import Predictor
from anchor_jax.runtime import mesh as mesh_lib

pytestmark = pytest.mark.invalid_arguments

GREY = data.Normalization((0.5,), (0.2,))
SPEC = {"image_shape": (8, 8, 1), "label_names": ("a", "b")}
PREDICTOR = Predictor(
    variables=None,
    references=np.zeros((12, 6, 6, 1), np.uint8),
    label_names=("a", "b"),
    image_shape=(6, 6, 1),
    network=None,  # no invalid call reaches it
    num_devices=1,
    batch_size=4,
)
SIX = np.zeros((2, 6, 6, 1), np.uint8)

MODELS = [
    kind(lambda: models.create(None, 10), "model must be one of deit_s16, .* got None"),
    kind(lambda: models.create(["mlp"], 10), "model must be one of .* got list"),
    kind(lambda: models.create("mlp", "10"), "num_classes must be an integer, .* got '10'"),
    kind(lambda: models.create("mlp", 10.0), "num_classes must be an integer, .* got 10.0"),
    kind(lambda: models.create("mlp", True), "num_classes must be an integer, .* got True"),
    kind(lambda: models.create("mlp", 10, dtype=jnp.float32), "dtype must be one of bfloat16, float32; got"),
    kind(lambda: models.create("mlp", 10, remat="yes"), "remat must be True or False; got 'yes'"),
    value(
        lambda: models.create("mlp", 10, hidden=np.array([[3, 4]])),
        "option 'hidden' of model 'mlp' must be a sequence",
    ),
    value(lambda: models.create("resnet18", 10, stem=X), "option 'stem' of model 'resnet18' must be one of cifar, im"),
    kind(lambda: models.from_torch(3, {}, 10, "timm"), "model must be one of .* got 3"),
    kind(lambda: models.from_torch("resnet18", {}, 10, None), "source must be one of anchoring, .* got None"),
    kind(lambda: models.from_torch("resnet18", None, 10, "timm"), "state_dict must have type Mapping, .* got None"),
    kind(
        lambda: models.from_torch("resnet18", [("fc.bias", X)], 10, "timm"),
        "state_dict must have type Mapping, .* got list",
    ),
    kind(lambda: models.from_torch("resnet18", {3: X}, 10, "timm"), "weights must be tensors .*; got ndarray as 3"),
    kind(
        lambda: models.from_torch("resnet18", {"state_dict": {"fc.bias": X}}, 10, "timm"),
        "weights must be tensors or arrays by name; got dict as 'state_dict'; if this is a checkpoint, pass only",
    ),
    kind(
        lambda: models.from_torch("resnet18", {"fc.bias": X.astype(str)}, 10, "timm"),
        "tensor 'fc.bias' must have a real dtype; got <U",
    ),
    kind(
        lambda: models.from_torch("resnet18", {"fc.bias": X + 1j}, 10, "timm"),
        "tensor 'fc.bias' must have a real dtype; got co",
    ),
    kind(lambda: models.from_torch("resnet18", {}, "10", "timm"), "num_classes must be an integer, .* got '10'"),
    value(lambda: models.from_torch("resnet18", {}, 10, "timm"), "the tensors do not match timm's .*; missing: bn1"),
    kind(
        lambda: models.to_torch("resnet18", None, "timm"),
        "variables must have type Mapping, as returned by model.init; got None",
    ),
    kind(lambda: models.to_torch("resnet18", {"params": "x"}, "timm"), "weights must be .* got str as 'params'"),
    kind(lambda: models.to_torch("resnet18", {}, 3), "source must be one of .* got 3"),
]

DATA = [
    kind(lambda: data.corrupt(0, IMAGES, "fog", 1), "key must be a PRNG key, .*; got 0"),
    value(lambda: data.corrupt(KEYS, IMAGES, "fog", 1), "key must be a single key"),
    kind(lambda: data.corrupt(KEY, None, "fog", 1), "images must be a JAX or NumPy array"),
    kind(lambda: data.corrupt(KEY, IMAGES / 255, "fog", 1), "images must have a uint8 dtype; got float64"),
    value(lambda: data.corrupt(KEY, IMAGES[0], "fog", 1), r"images must have shape \[B, H, W, C\]; got \(8, 8, 3\)"),
    value(lambda: data.corrupt(KEY, IMAGES[:0], "fog", 1), "images must not be empty"),
    value(lambda: data.corrupt(KEY, IMAGES[..., :2], "fog", 1), r"images must have 1 or 3 channels.*\(3, 8, 8, 2\)"),
    value(lambda: data.corrupt(KEY, IMAGES[:, 1:], "fog", 1), r"images must have at least 8 x 8 pixels; got \[7, 8\]"),
    value(lambda: data.corrupt(KEY, IMAGES, "fogg", 1), r"unknown corruption 'fogg'; allowed: .* Did you mean 'fog'\?"),
    kind(lambda: data.corrupt(KEY, IMAGES, 3, 1), "corruption must be one of .* got 3"),
    value(lambda: data.corrupt(KEY, IMAGES, "fog", 0), r"severity must be in 1\.\.5; got 0"),
    value(lambda: data.corrupt(KEY, IMAGES, "fog", 6), r"severity must be in 1\.\.5; got 6"),
    kind(lambda: data.corrupt(KEY, IMAGES, "fog", 2.5), "severity must be an integer, .* got 2.5"),
    kind(lambda: data.corrupt(KEY, IMAGES, "fog", "3"), "severity must be an integer, .* got '3'"),
    kind(lambda: data.corrupt(KEY, IMAGES, "fog", True), "severity must be an integer, .* got True"),
    kind(lambda: data.normalize(X, GREY), "images must have a uint8 dtype; got float32"),
    kind(lambda: data.normalize(IMAGES, (0.5, 0.2)), "normalization must have type Normalization, .* got tuple"),
    value(
        lambda: data.normalize(IMAGES, GREY), "normalization must have a mean and a std for each of 3 channels, got 1"
    ),
    value(
        lambda: data.normalize(IMAGES[..., :1], GREY._replace(std=(0.0,))), "normalization must have every std above"
    ),
    kind(lambda: data.measure_normalization(IMAGES / 255), "images must have a uint8 dtype; got float64"),
    value(lambda: data.measure_normalization(IMAGES[:0]), "images must not be empty"),
    kind(lambda: data.random_erasing(KEYS, IMAGES, 0.5), "x must have a floating dtype; got uint8"),
    value(
        lambda: data.random_erasing(TWO_KEYS, IMAGES / 255, 0.5),
        r"keys must be 3 keys, one per image; got shape \(2,\)",
    ),
    kind(
        lambda: data.random_erasing(0, IMAGES / 255, 0.5),
        r"keys must be PRNG keys, such as jax.random.split\(key, 3\); got 0",
    ),
    value(lambda: data.random_erasing(KEYS, IMAGES / 255, 2), r"prob must be in \[0, 1\]; got 2"),
    value(
        lambda: data.mixup_or_cutmix(KEY, IMAGES[:2] / 255, PROBS[0], mixup_alpha=1.0, cutmix_alpha=0.0),
        r"targets must have a row for each of 2 examples, got shape \(4, 3\)",
    ),
    value(
        lambda: data.mixup_or_cutmix(KEY, IMAGES / 255, PROBS[0, :3], mixup_alpha=-1.0, cutmix_alpha=0.0),
        r"mixup_alpha must be in \[0, inf\]; got -1.0",
    ),
    kind(
        lambda: data.augment(KEYS, IMAGES / 255, configuration.base().augmentation),
        "images must have a uint8 dtype; got fl",
    ),
    value(lambda: data.augment(TWO_KEYS, IMAGES, configuration.base().augmentation), "keys must be 3 keys"),
    kind(lambda: data.load(["digits"], "train"), "data source must be one of digits, .* got list"),
    kind(lambda: data.load("digits", None), "split must be a string; got None"),
    kind(lambda: data.load("npz", "train", path=3), "path must be a path; got 3"),
    kind(
        lambda: data.open_stream("folder", "train", path=".", image_size="3"), "image_size must be an integer, .* '3'"
    ),
    kind(lambda: data.open_stream("folder", "train", crop_fraction=None), "crop_fraction must be a number .* None"),
    kind(lambda: data.open_dataset(None, image_shape=(8, 8, 1)), "spec must be a string; got None"),
    value(lambda: data.open_dataset("digits", image_shape=(8, 8)), r"image_shape must be \(H, W, C\), .* got \(8, 8\)"),
    kind(lambda: data.open_dataset("digits", image_shape=8), "image_shape must be a tuple; got 8"),
    kind(
        lambda: data.open_dataset("digits", image_shape=(8, 8, 1), label_names="01"),
        "label_names must be a tuple; got '01'",
    ),
    kind(lambda: data.open_corrupted(3, **SPEC), "spec must be a string; got 3"),
    value(lambda: data.photographs((8, 8, 3), 0), "num must be at least 2; got 0"),
    value(lambda: data.photographs((0, 8, 3)), r"image_shape must be \(H, W, C\), integers above 0; got \(0, 8, 3\)"),
    value(lambda: data.load_mixing_images("", 0, 3), "size must be at least 1; got 0"),
    kind(lambda: data.select_rows(None, 2, seed=0), "labels must be a JAX or NumPy array"),
    kind(lambda: data.select_rows(LABELS, True, seed=0), "size must be an integer, .* got True"),
    value(lambda: data.select_rows(LABELS, 2, seed=-1), "seed must be at least 0; got -1"),
    kind(lambda: data.class_rows("ab", ("a", "b")), r"label_names must be a tuple; got 'ab'; pass \('ab',\)"),
    kind(
        lambda: data.eval_dataset(IMAGES, "x"), "dataset must have type Dataset, as returned by data.load; got uint8 of"
    ),
]

FIRST = np.zeros((3, 3, 9, 9), np.uint8)  # [B, C, H, W]
_CHANNELS_LAST = (
    r"must be \[N, H, W, C\] with up to 4 channels; got \[3, 3, 9, 9\]; .* pass {}.transpose\(0, 2, 3, 1\); "
)
FIRST_ARRAY = rf"images {_CHANNELS_LAST.format('images')}"
FIRST_X = rf"x {_CHANNELS_LAST.format('x')}"
CHANNELS_FIRST = [
    value(lambda: data.augment(KEYS, FIRST, configuration.base().augmentation), FIRST_ARRAY),
    value(lambda: data.measure_normalization(FIRST), FIRST_ARRAY),
    value(lambda: data.random_erasing(KEYS, FIRST / 255, 0.5), FIRST_X),
    value(lambda: data.mixup_or_cutmix(KEY, FIRST / 255, PROBS[0, :3], mixup_alpha=1.0, cutmix_alpha=0.0), FIRST_X),
    value(lambda: data.eval_dataset(data.Dataset(FIRST, LABELS[:3], ("a", "b", "c")), "n"), f"dataset.{FIRST_ARRAY}"),
    value(
        lambda: data.corrupt(KEY, FIRST, "fog", 1), r"images must have 1 or 3 .* pass images.transpose\(0, 2, 3, 1\)"
    ),
    value(
        lambda: data.normalize(FIRST, data.Normalization((0.5,) * 3, (0.2,) * 3)),
        r"normalization must have .* each of 9 channels, got 3 and 3; .* pass images.transpose\(0, 2, 3, 1\)",
    ),
    value(
        lambda: PREDICTOR(SIX.transpose(0, 3, 1, 2)),
        r"images must have shape \[B, 6, 6, 1\], .* \[B, C, H, W\]: pass images.transpose\(0, 2, 3, 1\)",
    ),
    value(lambda: PREDICTOR(SIX[..., 0]), r"images must have shape .* got \(2, 6, 6\); pass images\[..., None\]"),
    value(
        lambda: data.augment(KEYS, FIRST[0], configuration.base().augmentation),
        r"images must have shape .* got \(3, 9, 9\); for one image \[C, H, W\] pass images.transpose\(1, 2, 0\)\[None",
    ),
    value(
        lambda: data.open_dataset("digits", image_shape=(3, 8, 8)),
        r"image_shape must be \(H, W, C\); got \(3, 8, 8\); .* pass \(8, 8, 3\); .* pass channels=8",
    ),
    value(
        lambda: data.open_corrupted("npy:x", **SPEC | {"image_shape": (1, 8, 8)}), r"image_shape .* pass \(8, 8, 1\)"
    ),
    value(lambda: data.photographs((3, 8, 8)), r"image_shape must be .* pass \(8, 8, 3\)"),
    kind(lambda: data.measure_normalization(FIRST, channels="9"), "channels must be an integer"),
]

RUNS = [
    kind(lambda: aj.load_predictor(None), "workdir must be a path; got None"),
    kind(lambda: aj.load_predictor(3), "workdir must be a path; got 3"),
    value(lambda: aj.load_predictor(__file__), "no run in '.*test_bad_arguments.py': it has no run.json"),
    value(lambda: aj.load_predictor("nowhere"), "no run in 'nowhere': it has no run.json; give the --workdir"),
    kind(lambda: PREDICTOR(SIX.tolist()), r"images\[0\] must be a path, the bytes of an image file, .*; got list"),
    kind(lambda: PREDICTOR(SIX / 255), "images must have a uint8 dtype; got float64; pass images as stored"),
    value(lambda: PREDICTOR(SIX[:0]), "images must not be empty"),
    value(lambda: PREDICTOR(SIX, 0), r"num_references must lie in 1\.\.12, .* got 0"),
    value(
        lambda: PREDICTOR(SIX, 13), r"num_references must lie in 1\.\.12, the references saved with the run.* got 13"
    ),
    kind(lambda: PREDICTOR(SIX, 2.0), "num_references must be an integer, .* got 2.0"),
    kind(lambda: PREDICTOR(SIX, True), "num_references must be an integer, .* got True"),
    value(lambda: PREDICTOR(SIX, temper="platt"), "temper must be None or 'duq'; got 'platt'"),
    kind(lambda: evaluation.evaluate(None), "workdir must be a path; got None"),
    kind(lambda: evaluation.evaluate("nowhere", "clean"), r"suites must be a tuple; got 'clean'; pass \('clean',\)"),
    kind(
        lambda: evaluation.evaluate("nowhere", ("clean",), 10), r"num_references must be a tuple; got 10; pass \(10,\)"
    ),
    kind(lambda: evaluation.evaluate("nowhere", options={"draws": 3}), "options must have type Options, .* got dict"),
    kind(lambda: evaluation.Options(ood="photographs"), "ood must be a tuple; got 'photographs'"),
    kind(lambda: evaluation.Options(draws="3"), "draws must be an integer, .* got '3'"),
    kind(lambda: mesh_lib.mesh("2"), "num_devices must be an integer, .* got '2'"),
]


@each_of([*MODELS, *DATA, *CHANNELS_FIRST, *RUNS])
def test_invalid_argument_raises_before_compilation(invalid, caplog):
    assert_raises_before_compilation(invalid, caplog)


def test_functions_of_images_take_many_channels_if_told():
    config = configuration.base().augmentation
    config.flip = True
    x = FIRST / np.float32(255)
    augmented = jax.eval_shape(lambda keys, images: data.augment(keys, images, config, channels=9), KEYS, FIRST)
    assert augmented.shape == FIRST.shape
    assert len(data.measure_normalization(FIRST, channels=9).mean) == 9
    assert jax.eval_shape(lambda keys, x: data.random_erasing(keys, x, 0.5, channels=9), KEYS, x).shape == x.shape
    mixup = partial(data.mixup_or_cutmix, mixup_alpha=1.0, cutmix_alpha=0.0, channels=9)
    mixed, _ = jax.eval_shape(mixup, KEY, x[:2], PROBS[0, :2])
    assert mixed.shape == (2, 3, 9, 9)
    examples = data.Dataset(FIRST, LABELS[:3], ("a", "b", "c"))
    assert data.eval_dataset(examples, "n", channels=9).image_shape == (3, 9, 9)


def test_load_predictor_rejects_invalid_step(tmp_path):
    config = configuration.base()
    config.model.name, config.anchoring.enabled = "mlp", False
    config.data.mean, config.data.std = (0.5,), (0.2,)
    with run_record.lock_workdir(run_record.Run(tmp_path, config, ("a", "b"), (6, 6, 1), "2 examples", None, None)):
        pass
    for step in (3.0, True, [3]):
        with pytest.raises(UserTypeError, match=r"\Astep must be an integer, static under jit; got"):
            aj.load_predictor(tmp_path, step)
