"""How far the logits of every model at full size are from those of the PyTorch network whose weights it has.

    python benchmarks/parity.py --json parity.json

The networks are those of torchvision, timm and transformers, and the released code's ResNet for CIFAR, with random
weights and BatchNorm statistics that are not 0 and 1. Both sides compute in float32 on the CPU, on the same images.
"largest_difference" is that of any logit, as a fraction of the largest logit.
"""

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from timing import Result, installed_pytorch, report

from anchor_jax import models
from anchor_jax.cli import app
from anchor_jax.core.errors import UserError
from anchor_jax.runtime import backends

JSON = flags.DEFINE_string("json", None, "Where the numbers go.")
MODELS = flags.DEFINE_list("models", None, "Which of our models; all by default.")
IMAGES = flags.DEFINE_integer("images", 2, "How many both sides are shown.", lower_bound=1)


def torchvision(name: str) -> Any:
    """A network of torchvision."""
    return importlib.import_module("torchvision").models.get_model(name)


def timm(name: str) -> Any:
    """A network of timm."""
    return importlib.import_module("timm").create_model(name)


def huggingface(kind: str, **settings: Any) -> Any:
    """A network of transformers, of 1,000 classes."""
    transformers = importlib.import_module("transformers")
    return getattr(transformers, f"{kind}ForImageClassification")(
        getattr(transformers, f"{kind}Config")(num_labels=1000, **settings)
    )


def released() -> Any:
    """The released code's ResNet-18 for CIFAR, on anchored images: torchvision's, with another stem."""
    nn = importlib.import_module("torch").nn
    network = torchvision("resnet18")
    network.conv1, network.maxpool = nn.Conv2d(6, 64, 3, 1, 1, bias=False), nn.Identity()
    return network


class Pair(NamedTuple):
    """One of our models, and the network that it is."""

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
    """Every pair, one after the other."""
    pytorch = installed_pytorch("pytorch_random")
    if pytorch is None:
        raise UserError("PyTorch is needed: pip install -e '.[test]'")
    results = []
    for pair in PAIRS:
        if MODELS.value and pair.name not in MODELS.value:
            continue
        difference = largest_difference(pair, pytorch)
        results.append(
            Result(f"{pair.name} {pair.side}, {pair.source}", "anchor_jax", "largest_difference", "1", [difference])
        )
    report("Logits beside those of PyTorch", {"images": IMAGES.value}, results, JSON.value)


def largest_difference(pair: Pair, pytorch: Any) -> float:
    """Of the logits of a pair, as a fraction of the largest of them."""
    network = pytorch.randomised(pair.build())
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
    expected = pytorch.logits_of(network, images)
    return float(np.abs(np.asarray(logits) - expected).max() / np.abs(expected).max())


if __name__ == "__main__":
    app.run(main)
