"""The network in a state dict: prefixes of wrappers, other modules, averages and heads."""

import functools
import logging
import re

import jax
import numpy as np
import pytest
from conftest import assert_same_bits

from anchor_jax import UserError, models
from anchor_jax.models.pytorch import to_arrays
from anchor_jax.models.pytorch.conversion import convert
from anchor_jax.models.pytorch.names import NAME_TABLES
from anchor_jax.models.pytorch.networks import find_network
from anchor_jax.models.resnet import ResNet

TINY = {"stage_sizes": (1,), "width": 4}
TABLES = NAME_TABLES[ResNet]["torchvision"]
HEAD = ("fc.weight", "fc.bias")


@functools.cache
def _tensors():
    shapes = jax.eval_shape(models.create("resnet18", 3, **TINY).init, jax.random.key(0), np.zeros((1, 8, 8, 3)))
    random = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32), shapes)
    return to_arrays("resnet18", variables, "torchvision", **TINY)


def tensors(prefix="", change=0):
    """Return the state dict of a tiny ResNet of torchvision, with a prefix and changed values."""
    return {prefix + name: tensor + change for name, tensor in _tensors().items()}


def headless(prefix=""):
    return {name: tensor for name, tensor in tensors(prefix).items() if not name.endswith(HEAD)}


def inside(part):
    """Return the state dict with one more module within its first stage."""
    return {name.replace("layer1.", f"layer1.{part}."): tensor for name, tensor in tensors().items()}


LOSS = {"loss.weight": np.ones(5), "val_acc.seen": np.ones((0,))}


@pytest.mark.parametrize(
    ("state_dict", "notes"),
    [
        (tensors("model."), ("taken from 'model'",)),
        (tensors("model._orig_mod.") | LOSS, ("taken from 'model'", "left out: loss.weight, val_acc.seen")),
        (tensors("_orig_mod.module."), ()),
        (tensors("module._orig_mod.net.") | {"n_averaged": np.array(3)}, ("taken from 'net'",)),
        (tensors("lit.net._fsdp_wrapped_module.backbone."), ("taken from 'lit.net.backbone'",)),
        (inside("_orig_mod"), ()),
        (inside("_checkpoint_wrapped_module"), ()),
        (
            {**tensors("model.", change=1), **tensors("ema.module.")},
            ("taken from 'ema'", "not from model, which"),
        ),
        (
            {**tensors("encoder_q."), **tensors("encoder_k.", change=1)},
            ("taken from 'encoder_q'", "not from encoder_k, which FILE#ENTRY would choose"),
        ),
        (
            {**tensors(change=1), **tensors("model_ema.")},
            ("taken from 'model_ema'", r"left out: layer1 \(12 tensors\), bn1 \(5 tensors\)"),
        ),
        (headless() | {f"fc.1.{part}": tensors()[f"fc.{part}"] for part in ("weight", "bias")}, ("read from 'fc.1'",)),
    ],
)
def test_find_network_finds_the_tensors_and_tells(state_dict, notes):
    network = find_network(state_dict, TABLES)
    found = {name: tensor for name, tensor in network.tensors.items() if name != "n_averaged"}
    assert found.keys() == _tensors().keys()
    assert all(np.array_equal(found[name], tensor) for name, tensor in _tensors().items())
    assert network.has_head
    for note, expected in zip(network.notes, notes, strict=True):
        assert re.search(expected, note), note


@pytest.mark.parametrize(
    ("head", "note"),
    [
        ({}, None),
        (
            {"fc.0.weight": np.ones((4, 8)), "fc.0.bias": np.ones(4), "fc.2.weight": np.ones((3, 4))},
            "left out: fc (3 tensors)",
        ),
        ({"fc.weight": np.ones((1, 4)), "fc.bias": np.ones(1)}, "left out: fc (2 tensors)"),
    ],
    ids=["none", "several layers", "one logit"],
)
def test_convert_leaves_out_heads_that_do_not_fit(head, note):
    converted = convert("resnet18", headless() | head, None, "torchvision", TINY)
    assert "head" not in converted.variables["params"]
    assert [text.startswith(note) for text in converted.notes] == ([True] if note else [])
    whole = convert("resnet18", tensors(), None, "torchvision", TINY)
    assert whole.num_tensors == converted.num_tensors + 2
    del whole.variables["params"]["head"]
    assert_same_bits(converted.variables, whole.variables)


def test_from_torch_logs_what_is_left_out(caplog):
    with caplog.at_level(logging.WARNING):
        models.from_torch("resnet18", tensors("model.") | LOSS, 3, "torchvision", **TINY)
    assert "weights of 'resnet18': taken from 'model'; left out: loss.weight, val_acc.seen" in caplog.text


@pytest.mark.parametrize(
    ("state_dict", "message"),
    [
        (headless(), r"missing: fc.bias, fc.weight; .*, or pass num_classes=None to read the features only$"),
        (tensors() | {"conv1.weight": np.ones((4, 3, 3, 3), np.int8)}, "integers: conv1.weight; check"),
        (tensors("model.") | {"model.extra.weight": np.ones(2)}, "unexpected: extra.weight; check"),
    ],
)
def test_from_torch_rejects_tensors_of_the_network(state_dict, message):
    with pytest.raises(UserError, match=message):
        models.from_torch("resnet18", state_dict, 3, "torchvision", **TINY)
