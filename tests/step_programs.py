"""Small training steps of every family, and what their compiled programs must not have."""

from typing import Any

import jax
from ml_collections import ConfigDict
from tiny_models import ONE_PER_FAMILY, TINY

from anchor_jax.config import Config, base
from anchor_jax.planning.facts import DataFacts
from anchor_jax.planning.step import PlannedStep

BATCH_PER_DEVICE = 37  # a prime number, so that no other loop has a multiple of it as its length
# a network of every family, of few blocks; `cifar10_fast`, which is not in the paper, has the layers of the ResNets
RESNET = "resnet, basic, CIFAR"
CASES = [RESNET if "resnet, " in case else case for case in ONE_PER_FAMILY.values() if case != "fastnet"]
_FEWER_BLOCKS = {"vit_b16": {"depth": 1}, "swin_v2_t": {"stage_sizes": (2,), "num_heads": (2,)}}


def small_step(case: str, num_devices: int) -> tuple[Config, DataFacts]:
    """Return the config of a network of `TINY` on masked images, and the size of its data."""
    name, options, side = TINY[case]
    config: Any = base()
    config.data.source = "digits"  # never opened
    config.data.mode = "RGB"
    if case == RESNET:  # one is enough; test_selection.py tests all augmentation
        config.augmentation.crop_padding = 1
        config.augmentation.flip = True
    config.anchoring.mask_prob = 0.25
    config.model.name = name
    config.model.options = ConfigDict(options | _FEWER_BLOCKS.get(name, {}))
    config.training.batch_size = BATCH_PER_DEVICE * num_devices
    return config, DataFacts(num_examples=512, num_classes=7, image_shape=(side, side, 3))


def max_all_reduces(step: PlannedStep) -> int:
    """Return one for all gradients, and one forward and one backward for the statistics of each BatchNorm."""
    num_norms = len(jax.tree.leaves(step.carry[0].batch_stats)) // 2
    return 1 + 2 * num_norms


def is_over_batch(trips: int | None) -> bool:
    """Return whether a loop of this length may run over the examples of a device, or over parts of them."""
    return trips is not None and trips % BATCH_PER_DEVICE == 0
