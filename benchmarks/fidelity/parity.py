"""Compare the logits of every model at full size with those of the PyTorch network that has the same weights.

    python -m benchmarks.fidelity.parity --models vit_b16,swin_v2_t --json parity.json

The networks are those of torchvision, timm and transformers, and the released code's ResNet for CIFAR, with random
weights and BatchNorm statistics. Both sides compute in float32 on the CPU. "largest_difference" is the largest absolute
difference of logits, divided by the largest absolute logit.
"""

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from anchor_jax import models
from anchor_jax.cli import app
from anchor_jax.core.errors import UserError
from anchor_jax.runtime import backends
from benchmarks import pytorch
from benchmarks.report import Result, report

JSON = app.define_path("json", None, "Result file.", what="a new file")
MODELS = flags.DEFINE_list("models", None, "Comma-separated names; all by default.")
IMAGES = flags.DEFINE_integer("images", 2, "Number of random images.", lower_bound=1)


def torchvision(name: str) -> Any:
    """Create a network of torchvision."""
    return importlib.import_module("torchvision").models.get_model(name)


def timm(name: str) -> Any:
    """Create a network of timm."""
    return importlib.import_module("timm").create_model(name)


def huggingface(kind: str, **settings: Any) -> Any:
    """Create a network of transformers, with 1,000 classes."""
    transformers = importlib.import_module("transformers")
    return getattr(transformers, f"{kind}ForImageClassification")(
        getattr(transformers, f"{kind}Config")(num_labels=1000, **settings)
    )


def released() -> Any:
    """Create the released code's anchored ResNet-18 for CIFAR, which is torchvision's with a different stem."""
    nn = importlib.import_module("torch").nn
    network = torchvision("resnet18")
    network.conv1, network.maxpool = nn.Conv2d(6, 64, 3, 1, 1, bias=False), nn.Identity()
    return network


class Pair(NamedTuple):
    """A model and its PyTorch counterpart."""

    name: str
    source: str
    build: Callable[[], Any]
    side: int = 224
    options: Mapping[str, Any] = {}


STEM = {"stem": "imagenet"}
TIMM_WIDTHS = {"widths": (64, 128, 320, 768)}
SWIN_B = {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32]}

PAIRS = (
    Pair("resnet18", "anchoring", released, side=32),
    Pair("resnet34", "torchvision", partial(torchvision, "resnet34"), options=STEM),
    Pair("resnet50", "torchvision", partial(torchvision, "resnet50"), options=STEM),
    Pair("resnet50", "huggingface", partial(huggingface, "ResNet"), options=STEM),
    Pair("regnet_y_800mf", "torchvision", partial(torchvision, "regnet_y_800mf")),
    Pair("regnet_y_800mf", "timm", partial(timm, "regnety_008"), options=TIMM_WIDTHS),
    Pair("regnet_y_1_6gf", "torchvision", partial(torchvision, "regnet_y_1_6gf")),
    Pair("deit_s16", "timm", partial(timm, "deit_small_patch16_224")),
    Pair("vit_b16", "torchvision", partial(torchvision, "vit_b_16")),
    Pair("vit_b16", "timm", partial(timm, "vit_base_patch16_224")),
    Pair("vit_b16", "huggingface", partial(huggingface, "ViT", layer_norm_eps=1e-6)),
    Pair("swin_v2_t", "torchvision", partial(torchvision, "swin_v2_t"), side=256),
    Pair("swin_v2_s", "torchvision", partial(torchvision, "swin_v2_s"), side=256),
    Pair("swin_v2_b", "torchvision", partial(torchvision, "swin_v2_b"), side=256),
    Pair("swin_v2_b", "timm", partial(timm, "swinv2_base_window8_256"), side=256),
    Pair("swin_v2_b", "huggingface", partial(huggingface, "Swinv2", image_size=256, window_size=8, **SWIN_B), side=256),
)


def main() -> None:
    """Compare every pair."""
    if not pytorch.is_installed():
        raise UserError("this benchmark needs PyTorch: pip install -e '.[bench]'")
    results = []
    for pair in PAIRS:
        if MODELS.value and pair.name not in MODELS.value:
            continue
        difference = largest_difference(pair)
        results.append(
            Result(f"{pair.name} {pair.side}, {pair.source}", "anchor_jax", "largest_difference", "1", [difference])
        )
    report("Logits compared with PyTorch", {"images": IMAGES.value}, results, JSON.value)


def largest_difference(pair: Pair) -> float:
    """Return the largest absolute difference of logits, divided by the largest absolute logit."""
    from benchmarks.pytorch.random_weights import logits_of, randomize_weights

    network = randomize_weights(pair.build())
    tensors = network.state_dict()
    if pair.source == "anchoring":
        tensors = {
            name.replace("downsample", "shortcut").replace("fc.", "linear."): tensor for name, tensor in tensors.items()
        }
    channels = 6 if pair.source == "anchoring" else 3
    images = np.random.default_rng(0).normal(size=(IMAGES.value, pair.side, pair.side, channels)).astype(np.float32)
    read_options = {name: option for name, option in pair.options.items() if name != "stem"}
    variables = models.from_torch(pair.name, tensors, 1000, pair.source, **read_options)
    options = backends.compiler_options("cpu", runs_once=True)
    logits = jax.jit(models.create(pair.name, 1000, **pair.options).apply, compiler_options=options)(variables, images)
    expected = logits_of(network, images)
    return float(np.abs(np.asarray(logits) - expected).max() / np.abs(expected).max())


if __name__ == "__main__":
    app.run(main)
