"""A small model of every family, and its outputs in evaluation and in training."""

import functools
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax import models

NUM_CLASSES = 7
BATCH = 4

TINY_RESNET = {"width": 4, "stage_sizes": (1, 1)}
TINY_VIT = {"patch_size": 4, "width": 16, "depth": 2, "num_heads": 2}
TINY_SWIN = {"patch_size": 2, "width": 8, "stage_sizes": (2, 1), "num_heads": (1, 2), "window": 4}

# name, options and side of the images: every family, with all its kinds of blocks, stems and tokens
TINY = {
    "mlp": ("mlp", {"hidden": (8, 8)}, 8),
    "fastnet": ("fastnet", {"width": 2, "stem_width": 6}, 10),
    "resnet, basic, CIFAR": ("resnet18", TINY_RESNET, 8),
    "resnet, bottleneck, ImageNet": ("resnet50", TINY_RESNET | {"stem": "imagenet", "stage_sizes": (1,)}, 16),
    "wide resnet": ("wrn40_2", {"depth": 10, "widen": 1}, 8),
    "regnet": (
        "regnet_y_800mf",
        {"stage_sizes": (1, 1), "widths": (8, 16), "group_width": 4, "stem_width": 8},
        16,
    ),
    "deit, distilled": ("deit_s16", TINY_VIT | {"depth": 1, "distillation_token": True, "stochastic_depth": 0.0}, 8),
    "vit, stochastic depth": ("vit_b16", TINY_VIT | {"stochastic_depth": 0.5}, 8),
    "swin, stochastic depth": ("swin_v2_t", TINY_SWIN | {"stochastic_depth": 0.5}, 16),
}
ONE_PER_FAMILY = {models.MODELS[name].family: case for case, (name, *_) in TINY.items()}


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_close(actual, expected, rtol=1e-4, atol=1e-5):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def on_host(function):
    """Return the results as NumPy arrays: JAX operations outside of `jit` are compiled for every shape."""
    return lambda *args: jax.device_get(function(*args))


class Evaluated(NamedTuple):
    """Outputs in evaluation."""

    first_layer: jax.Array
    features: jax.Array
    rest: jax.Array
    logits: jax.Array
    statistics: Any


class Trained(NamedTuple):
    """Outputs in training."""

    loss: jax.Array
    logits: jax.Array
    statistics: Any
    gradients: Any


class TinyModel:
    """A small model, its inputs, and variables that all differ from their initial values."""

    def __init__(self, name, options, side):
        self.name, self.options, self.side = name, options, side
        self.model = models.create(name, NUM_CLASSES, **options)
        self.inputs = normal(0, BATCH, side, side, 6)
        self.init = on_host(jax.jit(self.model.init))
        self.initial_variables = self.init(jax.random.key(0), self.inputs)
        rng = np.random.default_rng(1)
        self.variables = jax.tree.map(
            lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32), self.initial_variables
        )
        self.has_batch_norm = name.startswith(("resnet", "wrn", "regnet", "fastnet"))
        self.drop_rate = options.get("stochastic_depth", 0)

    @functools.cached_property
    def evaluate(self):
        """Inputs -> `Evaluated`, compiled."""

        def evaluate(inputs):
            first = self.model.apply(self.variables, inputs, method="first_layer")
            features, rest = (self.model.apply(self.variables, first, method=method) for method in ("features", "rest"))
            logits, updates = self.model.apply(self.variables, inputs, mutable=["batch_stats"])
            return Evaluated(first, features, rest, logits, updates.get("batch_stats"))

        return on_host(jax.jit(evaluate))

    @functools.cached_property
    def evaluated(self):
        return self.evaluate(self.inputs)

    @property
    def remat_model(self):
        """The same model with rematerialization."""
        return models.create(self.name, NUM_CLASSES, remat=True, **self.options)

    def loss(self, model, params, seed):
        """Return a training loss, and the logits and new statistics."""
        variables, rngs = {**self.variables, "params": params}, {"stochastic_depth": jax.random.key(seed)}
        logits, updates = model.apply(variables, self.inputs, train=True, mutable=["batch_stats"], rngs=rngs)
        return jnp.sum(jnp.square(logits)), (logits, updates.get("batch_stats"))

    @functools.cached_property
    def train(self):
        """Seed -> `Trained` without and with rematerialization, compiled."""

        def train(model, seed):
            loss = jax.value_and_grad(partial(self.loss, model), has_aux=True)
            (value, (logits, statistics)), gradients = loss(self.variables["params"], seed)
            return Trained(value, logits, statistics, gradients)

        return on_host(jax.jit(lambda seed: (train(self.model, seed), train(self.remat_model, seed))))

    @functools.cached_property
    def trained(self):
        return self.train(0)[0]


@functools.cache
def tiny_model(case):
    return TinyModel(*TINY[case])
