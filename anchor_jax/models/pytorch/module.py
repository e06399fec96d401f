"""A Python module that runs exported weights with their references in plain PyTorch."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from anchor_jax.models.layers import Classifier
from anchor_jax.models.resnet import BLOCKS, ResNet
from anchor_jax.models.swin_v2 import SwinV2
from anchor_jax.models.vit import ViT
from anchor_jax.runtime import templates


class ModuleFacts(NamedTuple):
    """What a module states about a run.

    Attributes:
      model: name of the model.
      step: of the checkpoint.
      label_names: one per class.
      image_shape: H, W and C.
      mean: of the normalization, one per channel.
      std: of the normalization, one per channel.
      is_anchored: whether the network takes references.
      source: library whose network takes the weights.
    """

    model: str
    step: int
    label_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    is_anchored: bool
    source: str


def module_file(weights: Path) -> Path:
    """Return where the module is written beside the file of the weights, under a name that Python can import.

    >>> module_file(Path("2nd-run.safetensors")).name
    '_2nd_run.py'
    """
    name = re.sub(r"\W", "_", weights.stem)
    return weights.with_name(f"{name if name.isidentifier() else f'_{name}'}.py")


def references_file(weights: Path) -> Path:
    """Return where the references are saved beside the file of the weights."""
    return weights.with_name(f"{weights.stem}-references{weights.suffix}")


def image_size_in_module(weights: Path) -> tuple[int, int] | None:
    """Return height and width of the images of weights that have a module beside them; None if they have none."""
    file = module_file(weights)
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    found = re.search(r"^IMAGE_SHAPE = \((\d+), (\d+), \d+\)", text, re.MULTILINE)
    return (int(found[1]), int(found[2])) if found else None


def module_text(weights: Path, model: Classifier, facts: ModuleFacts) -> str:
    """Return the code of a module that stands beside the file of the weights.

    Args:
      weights: file of the state dict.
      model: the model that they belong to.
      facts: about the run.
    """
    values: dict[str, Any] = facts._asdict() | {
        "module": module_file(weights).stem,
        "weights": weights.name,
        "suffix": weights.suffix.lower(),
        "references": references_file(weights).name,
        "label_names": json.dumps(facts.label_names, ensure_ascii=True),
        "network_lines": network_lines(model, facts),
    }
    return templates.render("models/pytorch", "module.py.j2", values).rstrip() + "\n"


def network_lines(model: Classifier, facts: ModuleFacts) -> list[str]:
    """Return the body of a function that builds the network in which torchvision loads the weights.

    For other libraries, and for networks that torchvision's classes do not have, it raises an error that says so.
    """
    channels = facts.image_shape[-1] * (2 if facts.is_anchored else 1)
    if facts.source == "torchvision":
        if isinstance(model, ResNet) and len(model.stage_sizes) <= 4:
            return _resnet(model, channels)
        if isinstance(model, ViT) and facts.image_shape[0] == facts.image_shape[1] and not model.distillation_token:
            return _vit(model, channels, facts.image_shape[0])
        if isinstance(model, SwinV2) and not model.pretrained_window and not model.window_shrinks:
            return _swin(model, channels)
    return [f"raise NotImplementedError({_needed(facts, channels)!r})"]


def needed_network(model: Classifier, facts: ModuleFacts) -> str:
    """Return in words which network to pass to a module; "" if it builds the network itself."""
    channels = facts.image_shape[-1] * (2 if facts.is_anchored else 1)
    return _needed(facts, channels) if network_lines(model, facts)[0].startswith("raise ") else ""


def _needed(facts: ModuleFacts, channels: int) -> str:
    return f"pass the network of {facts.source}, with {channels} input channels, as load(network)"


def _resnet(model: ResNet, channels: int) -> list[str]:
    block, width = BLOCKS[model.block].__name__, model.width
    lines = [
        "from torchvision.models import resnet",
        "",
        f"network = resnet.ResNet(resnet.{block}, {[*model.stage_sizes, 1, 1, 1][:4]}, num_classes=len(LABEL_NAMES))",
    ]
    if width != 64 or len(model.stage_sizes) < 4:
        lines += _other_stages(model)
    if model.stem == "cifar":
        convolution, pooling = (
            f"nn.Conv2d({channels}, {width}, 3, padding=1, bias=False)",
            ["network.maxpool = nn.Identity()"],
        )
    else:
        convolution, pooling = f"nn.Conv2d({channels}, {width}, 7, stride=2, padding=3, bias=False)", []
    return [*lines, f"network.conv1 = {convolution}", *pooling, "return network"]


def _other_stages(model: ResNet) -> list[str]:
    """Return lines that replace the stages: torchvision always builds four, of width 64."""
    block, width = f"resnet.{BLOCKS[model.block].__name__}", model.width
    return [
        f"network.inplanes, network.bn1 = {width}, nn.BatchNorm2d({width})",
        f"for stage, blocks in enumerate({[*model.stage_sizes]}):",
        f"    layer = network._make_layer({block}, {width} * 2**stage, blocks, stride=1 + (stage > 0))",
        '    setattr(network, f"layer{stage + 1}", layer)',
        *(f"network.layer{stage + 1} = nn.Identity()" for stage in range(len(model.stage_sizes), 4)),
        "network.fc = nn.Linear(network.inplanes, len(LABEL_NAMES))",
    ]


def _vit(model: ViT, channels: int, side: int) -> list[str]:
    return [
        "from torchvision.models import VisionTransformer",
        "",
        "network = VisionTransformer(",
        f"    image_size={side}, patch_size={model.patch_size}, num_layers={model.depth}, num_heads={model.num_heads},",
        f"    hidden_dim={model.width}, mlp_dim={4 * model.width}, num_classes=len(LABEL_NAMES),",
        ")",
        f"network.conv_proj = nn.Conv2d({channels}, {model.width}, {model.patch_size}, {model.patch_size})",
        "return network",
    ]


def _swin(model: SwinV2, channels: int) -> list[str]:
    patch, window = model.patch_size, model.window
    return [
        "from torchvision.models import swin_transformer as swin",
        "",
        "network = swin.SwinTransformer(",
        f"    patch_size=[{patch}, {patch}], embed_dim={model.width}, depths={[*model.stage_sizes]},",
        f"    num_heads={[*model.num_heads]}, window_size=[{window}, {window}], num_classes=len(LABEL_NAMES),",
        "    block=swin.SwinTransformerBlockV2, downsample_layer=swin.PatchMergingV2,",
        ")",
        f"network.features[0][0] = nn.Conv2d({channels}, {model.width}, {patch}, {patch})",
        "return network",
    ]
