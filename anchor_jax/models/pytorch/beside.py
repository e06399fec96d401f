"""The JSON files that timm and transformers write beside weights."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from anchor_jax.core.errors import UserError
from anchor_jax.models.layers import Classifier
from anchor_jax.models.regnet import RegNetY
from anchor_jax.models.resnet import ResNet
from anchor_jax.models.swin_v2 import SwinV2
from anchor_jax.models.vit import ViT

# what the names of architectures begin with, in timm ("architecture") and in transformers ("model_type")
_ARCHITECTURES = {ResNet: r"(tv_)?resnet", RegNetY: r"regnet", ViT: r"vit|deit", SwinV2: r"swinv2"}


class Description(NamedTuple):
    """What the files beside weights say of their network.

    Attributes:
      file: the file with `network`; None if there is none.
      network: content of config.json: of timm with the entries of its "pretrained_cfg", or of transformers.
      images: content of preprocessor_config.json, of transformers.
      notes: what was not used, for the user.
    """

    file: Path | None = None
    network: Mapping[str, Any] = MappingProxyType({})
    images: Mapping[str, Any] = MappingProxyType({})
    notes: tuple[str, ...] = ()

    @property
    def architecture(self) -> str:
        """The name of timm's architecture, such as "vit_base_patch16_224"; "" if unknown."""
        return str(self.network.get("architecture", ""))

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width of the images that the network was trained on; None if unknown."""
        size = self.network.get("image_size") or self.network.get("input_size")
        sides = [size] * 2 if isinstance(size, int) else size[-2:] if isinstance(size, list) else ()
        return (sides[0], sides[1]) if len(sides) == 2 and all(isinstance(side, int) for side in sides) else None


def describe(weights: Path, source: str, family: type[Classifier]) -> Description:
    """Return what the files beside weights, or in their folder, say of a network of a family.

    A file that describes another network is not used, which a note tells.

    Raises:
      UserError: a file cannot be read.
    """
    folder = weights if weights.is_dir() else weights.parent
    file = folder / "config.json"
    content = _read(file)
    if source == "timm":
        name = content.get("architecture")
        content = {**content, **_mapping(content.get("pretrained_cfg"))}
    else:
        name = content.get("model_type")
    if source not in ("timm", "huggingface") or not isinstance(name, str):
        return Description()
    if not re.match(_ARCHITECTURES.get(family, r"\Z"), name):
        return Description(notes=(f"'{file}' is not used, because it is of '{name}'",))
    images = _read(folder / "preprocessor_config.json") if source == "huggingface" else {}
    return Description(file, content, images)


def _read(file: Path) -> dict[str, Any]:
    """Return the content of a JSON file, {} if there is none."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read '{file}' beside the weights ({error}); repair or remove it") from error
    return _mapping(content)


def _mapping(content: Any) -> dict[str, Any]:
    return content if isinstance(content, dict) else {}
