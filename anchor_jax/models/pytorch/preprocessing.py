"""How the sources of weights prepare images: as the files beside the weights say, or by a table."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from anchor_jax.core.errors import UserError
from anchor_jax.models.pytorch.beside import Description, describe
from anchor_jax.models.registry import MODELS


class SourcePreprocessing(NamedTuple):
    """How images are prepared for a network; the attributes are named as in `config.data`.

    Attributes:
      image_size: S, in pixels.
      crop_fraction: in (0, 1].
      interpolation: "bilinear" or "bicubic".
      resizing: "shorter_side" or "stretch".
      mean: of each channel, of pixels in [0, 1].
      std: of each channel.
      stated_by: what says so, for the user.
      notes: what cannot be followed, for the user.
    """

    image_size: int
    crop_fraction: float
    interpolation: str
    resizing: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    stated_by: str = ""
    notes: tuple[str, ...] = ()


_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def fraction_of(image_size: int, resized: int) -> float:
    """Return a crop fraction f with `floor(image_size / f) == resized`.

    >>> fraction_of(224, 256), fraction_of(224, 232)
    (0.875, 0.965517)
    """
    return math.floor(1e6 * image_size / resized) / 1e6


def _cropped(
    image_size: int, fraction: float, interpolation: str, normalization=_IMAGENET, resizing: str = "shorter_side"
) -> SourcePreprocessing:
    return SourcePreprocessing(image_size, fraction, interpolation, resizing, *normalization)


def _resized(image_size: int, resized: int, interpolation: str, *options: Any) -> SourcePreprocessing:
    return _cropped(image_size, fraction_of(image_size, resized), interpolation, *options)


_RESNETS = ("resnet18", "resnet34", "resnet50")
_REGNETS = ("regnet_y_800mf", "regnet_y_1_6gf")
_VITS = ("vit_b16", "deit_s16")
_SWINS = ("swin_v2_t", "swin_v2_s", "swin_v2_b")

_TORCHVISION = {
    **dict.fromkeys((*_RESNETS, *_REGNETS, *_VITS), _resized(224, 256, "bilinear")),
    **dict.fromkeys(("swin_v2_t", "swin_v2_s"), _resized(256, 260, "bicubic")),
    "swin_v2_b": _resized(256, 272, "bicubic"),
}
# torchvision's files of a network that differ from its first one
_TORCHVISION_FILES = {
    **dict.fromkeys(
        ("resnet50-11ad3fa6", "regnet_y_800mf-58fc7688", "regnet_y_1_6gf-0d7bc02a"), _resized(224, 232, "bilinear")
    ),
    "vit_b_16_swag-9ac1b537": _resized(384, 384, "bicubic"),
    "vit_b_16_lc_swag-4e70ced5": _resized(224, 224, "bicubic"),
}
# timm's first file of a network: the name of that, and what its configuration says
_TIMM = {
    **{name: (f"{name}.a1_in1k", _cropped(224, 0.95, "bicubic")) for name in _RESNETS},
    "regnet_y_800mf": ("regnety_008_tv.tv2_in1k", _cropped(224, 0.965, "bicubic")),
    "regnet_y_1_6gf": ("regnety_016.tv2_in1k", _cropped(224, 0.965, "bicubic")),
    "vit_b16": ("vit_base_patch16_224.augreg2_in21k_ft_in1k", _cropped(224, 0.9, "bicubic", _HALF)),
    "deit_s16": ("deit_small_patch16_224.fb_in1k", _cropped(224, 0.9, "bicubic")),
    **{
        name: (f"swinv2_{size}_window8_256.ms_in1k", _cropped(256, 0.9, "bicubic"))
        for name, size in zip(_SWINS, ("tiny", "small", "base"), strict=True)
    },
}
_TIMM_REGNETY_008 = "regnety_008.pycls_in1k", _cropped(224, 0.875, "bicubic")
_HUGGINGFACE = {
    **dict.fromkeys((*_RESNETS, *_REGNETS), ("ConvNextImageProcessor", _cropped(224, 0.875, "bicubic"))),
    "vit_b16": ("ViTImageProcessor", _cropped(224, 1.0, "bilinear", _HALF, "stretch")),
    "deit_s16": ("DeiTImageProcessor", _resized(224, 256, "bicubic", _IMAGENET, "stretch")),
    **dict.fromkeys(_SWINS, ("ViTImageProcessor of SwinV2", _cropped(256, 1.0, "bicubic", _IMAGENET, "stretch"))),
}
_CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
# the released code trains ViT as torchvision, and SwinV2 without a border, see configs/imagenet_*.py; its ResNets and
# Wide ResNets are for CIFAR
_ANCHORING = {
    **_TORCHVISION,
    **dict.fromkeys(_SWINS, _resized(256, 256, "bicubic")),
    **dict.fromkeys((*_RESNETS, "wrn40_2", "wrn28_10"), _resized(32, 32, "bicubic", _CIFAR10)),
}

_PIL_FILTERS = {2: "bilinear", 3: "bicubic"}  # numbers that transformers writes as "resample"
_SQUARE = 384  # from this size on, transformers' ConvNextImageProcessor does not crop


def preprocessing_of(weights: Path, source: str, name: str, options: Mapping[str, Any]) -> SourcePreprocessing | None:
    """Return how the source of weights prepares images; None if that is not known.

    Args:
      weights: the file of the weights, or their folder, which need not exist.
      source: origin of the network, see `from_torch`.
      name: name of the model, see `create`.
      options: of the model.

    Raises:
      UserError: a file beside the weights cannot be read, or does not say what it should.
    """
    description = describe(weights, source, MODELS[name].family)
    try:
        if description.images:
            return _of_processor(description)
        if source == "timm" and description.network:
            return _of_timm(description)
    except (TypeError, ValueError, KeyError, IndexError, ZeroDivisionError, AttributeError) as error:
        raise UserError(
            f"'{description.file}' or preprocessor_config.json beside the weights does not say how images are prepared "
            f"({type(error).__name__}: {error}); repair or remove it, or set config.data.like_weights=False"
        ) from error
    found = _from_table(weights, source, name, options)
    return found and found._replace(notes=(*found.notes, *description.notes))


def _from_table(weights: Path, source: str, name: str, options: Mapping[str, Any]) -> SourcePreprocessing | None:
    """Return what the tables say."""
    if source == "torchvision" and weights.stem in _TORCHVISION_FILES:
        return _TORCHVISION_FILES[weights.stem]._replace(stated_by=f"of torchvision's {weights.stem}")
    if source == "torchvision":
        found = _TORCHVISION.get(name, _TORCHVISION["resnet50"])
        return found._replace(stated_by=f"of torchvision's first weights of {name}, by the table")
    if source in ("timm", "huggingface"):
        entry = (_TIMM if source == "timm" else _HUGGINGFACE).get(name)
        if source == "timm" and name == "regnet_y_800mf" and tuple(options.get("widths", ()))[1:2] == (128,):
            entry = _TIMM_REGNETY_008
        beside = "config.json" if source == "timm" else "preprocessor_config.json"
        return entry and entry[1]._replace(
            stated_by=f"of {source}'s {entry[0]}, by the table, as no {beside} of it is beside the weights"
        )
    found = _ANCHORING.get(name)
    return found and found._replace(stated_by=f"of the released code for {name}, by the table")


def _of_timm(description: Description) -> SourcePreprocessing:
    """Return what timm's configuration says, with the defaults of `timm.data.resolve_data_config`."""
    stated, notes = description.network, []
    _, height, width = stated.get("input_size") or (3, 224, 224)
    if height != width:
        notes.append(f"images of {height}x{width} are not supported; {height}x{height} is taken")
    mode = stated.get("crop_mode") or "center"
    if mode not in ("center", "squash"):
        notes.append(f"crop_mode={mode} is not supported; the center is cropped")
    interpolation = _known_filter(stated.get("interpolation") or "bicubic", notes)
    return SourcePreprocessing(
        int(height),
        float(stated.get("crop_pct") or 0.875),
        interpolation,
        "stretch" if mode == "squash" else "shorter_side",
        _numbers(stated.get("mean") or _IMAGENET[0]),
        _numbers(stated.get("std") or _IMAGENET[1]),
        f"of '{description.file}'",
        tuple(notes),
    )


def _of_processor(description: Description) -> SourcePreprocessing:
    """Return what an image processor of transformers does."""
    stated, notes = description.images, []
    kind = str(stated.get("image_processor_type") or stated.get("feature_extractor_type") or "")
    size, crop = stated.get("size", 224), stated.get("crop_size")
    if isinstance(size, int):
        size = {"shortest_edge": size} if "ConvNext" in kind or crop else {"height": size, "width": size}
    if isinstance(crop, dict):
        crop = crop["height"]
    resized = int(size.get("shortest_edge") or size["height"])
    resizing = "shorter_side" if size.get("shortest_edge") else "stretch"
    image_size, fraction = resized, 1.0
    if "ConvNext" in kind:
        resizing = "stretch" if resized >= _SQUARE else "shorter_side"
        fraction = 1.0 if resized >= _SQUARE else float(stated.get("crop_pct") or 224 / 256)
    elif crop and stated.get("do_center_crop") is not False:
        image_size, fraction = int(crop), fraction_of(int(crop), resized)
    elif size.get("width", resized) != resized or resizing == "shorter_side":
        notes.append(f"size={size} is not supported; {resized}x{resized} is taken")
    resample = stated.get("resample", 2)
    interpolation = _known_filter(_PIL_FILTERS.get(resample, f"resample={resample}"), notes)
    is_normalized = stated.get("do_normalize") is not False
    mean = stated.get("image_mean") or _HALF[0] if is_normalized else (0.0,) * 3
    std = stated.get("image_std") or _HALF[1] if is_normalized else (1.0,) * 3
    file = description.file and description.file.with_name("preprocessor_config.json")
    return SourcePreprocessing(
        image_size, fraction, interpolation, resizing, _numbers(mean), _numbers(std), f"of '{file}'", tuple(notes)
    )


def _known_filter(name: str, notes: list[str]) -> str:
    if name in _PIL_FILTERS.values():
        return name
    notes.append(f"interpolation {name} is not supported; bicubic is taken")
    return "bicubic"


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
