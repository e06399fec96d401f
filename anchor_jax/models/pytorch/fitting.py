"""Which model and options fit the tensors of a network, and what the files beside them say."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from anchor_jax.core.errors import UserError
from anchor_jax.models.layers import Classifier
from anchor_jax.models.pytorch.beside import Description
from anchor_jax.models.pytorch.names import NAME_TABLES, NameTable, QKVSlice
from anchor_jax.models.pytorch.networks import count_landmarks, find_network
from anchor_jax.models.registry import MODELS, create
from anchor_jax.models.regnet import RegNetY
from anchor_jax.models.resnet import ResNet
from anchor_jax.models.swin_v2 import SwinV2
from anchor_jax.models.vit import ViT
from anchor_jax.models.wide_resnet import WideResNet

Shape = tuple[int, ...]
Options = dict[str, Any]

HEAD_WIDTH = 64  # features per head of nearly all published ViTs, whose tensors do not tell the number of heads
_TIMM_HEADS = {"tiny": 3, "small": 6, "base": 12, "large": 16}
_MLP_RATIO = 4


class Fit(NamedTuple):
    """A model of this package for the tensors of a network.

    Attributes:
      family: of the model.
      options: those of `create` that the tensors tell.
      num_classes: of the head, 0 if there is none.
      obstacles: why no options fit, for the user.
    """

    family: type[Classifier]
    options: Options
    num_classes: int = 0
    obstacles: tuple[str, ...] = ()


class _Shapes:
    """The shapes of the tensors of a network, by the variables of a model; kernels are (outputs, inputs, ...)."""

    def __init__(self, tensors: Mapping[str, Any], table: NameTable):
        self._tensors, self._table = tensors, table

    def __call__(self, *path: str) -> Shape:
        """Return the shape of the tensor of a variable, the first of several; () if there is none."""
        names = self._table.tensor_names(path)
        name = names.tensor if isinstance(names, QKVSlice) else (names or ("",))[0]
        return tuple(self._tensors[name].shape) if name in self._tensors else ()

    def beside(self, buffer: str, *path: str) -> Shape:
        """Return the shape of a buffer in the module of a variable; () if there is none."""
        names = self._table.tensor_names(path)
        name = f"{names[0].rpartition('.')[0]}.{buffer}" if names else ""
        return tuple(self._tensors[name].shape) if name in self._tensors else ()

    def size(self, *path: str, axis: int = 0) -> int:
        """Return the size of a tensor along an axis, 0 if there is none."""
        shape = self(*path)
        return shape[axis] if len(shape) > axis else 0

    def num_blocks(self, prefix: str, *path: str) -> int:
        """Return how many blocks "prefix1", "prefix2", ... have a variable."""
        number = 0
        while self(f"{prefix}{number + 1}", *path):
            number += 1
        return number

    def stage_sizes(self, *path: str) -> Shape:
        """Return the number of blocks of each stage."""
        sizes: list[int] = []
        while number := self.num_blocks(f"stage{len(sizes) + 1}_block", *path):
            sizes.append(number)
        return tuple(sizes)


def fit(state_dict: Mapping[str, Any], source: str, name: str) -> Fit | None:
    """Return the model that fits the tensors of a network best; None if nothing of it is recognized.

    Args:
      state_dict: tensors or arrays by name.
      source: origin of the network, see `from_torch`.
      name: the model to prefer.
    """
    first = MODELS[name].family
    families = sorted((family for family, by in NAME_TABLES.items() if source in by), key=lambda each: each != first)
    best, most = None, 0.5  # the least part of the names that tell a network from others
    for family in families:
        tables = NAME_TABLES[family][source]
        network = find_network(state_dict, tables).tensors
        for table in tables:
            fraction = count_landmarks(network, table)
            if fraction > most:
                shapes = _Shapes(network, table)
                options, obstacles = _INFER[family](shapes)
                options = {option: value for option, value in options.items() if value}
                best, most = Fit(family, options, shapes.size("head", "bias"), tuple(obstacles)), fraction
    return best


def _infer_resnet(shapes: _Shapes) -> tuple[Options, list[str]]:
    first, obstacles = "stage1_block1", []
    block = "bottleneck" if shapes(first, "conv3", "kernel") else "basic"
    width, inner = shapes.size("stem_conv", "kernel"), shapes.size(first, "conv1", "kernel")
    if inner and width and (inner, shapes.size(first, "conv2", "kernel", axis=1)) != (width, inner):
        obstacles.append(f"its blocks have {inner} channels in groups or next to a stem of {width}, as ResNeXt has")
    options = {
        "stage_sizes": shapes.stage_sizes("conv1", "kernel"),
        "block": block,
        "width": width,
        "stem": {7: "imagenet", 3: "cifar"}.get(shapes.size("stem_conv", "kernel", axis=2)),
    }
    return options, obstacles


def _infer_wide_resnet(shapes: _Shapes) -> tuple[Options, list[str]]:
    sizes = shapes.stage_sizes("conv1", "kernel")
    depth = 6 * sizes[0] + 4 if len(set(sizes)) == 1 else 0
    return {"depth": depth, "widen": shapes.size("stage1_block1", "conv1", "kernel") // 16}, []


def _infer_regnet(shapes: _Shapes) -> tuple[Options, list[str]]:
    sizes = shapes.stage_sizes("conv1", "kernel")
    obstacles = [] if shapes("stage1_block1", "squeeze", "kernel") else ["it has no squeeze-and-excitation"]
    options = {
        "stage_sizes": sizes,
        "widths": tuple(shapes.size(f"stage{stage + 1}_block1", "conv1", "kernel") for stage in range(len(sizes))),
        "group_width": shapes.size("stage1_block1", "conv2", "kernel", axis=1),
        "stem_width": shapes.size("stem_conv", "kernel"),
    }
    return options, obstacles


def _infer_vit(shapes: _Shapes) -> tuple[Options, list[str]]:
    width = shapes.size("patch_embedding", "kernel")
    options = {
        "patch_size": shapes.size("patch_embedding", "kernel", axis=2),
        "width": width,
        "depth": shapes.num_blocks("block", "norm1", "scale"),
        "distillation_token": bool(shapes("distillation_token")),
    }
    return options, _feed_forward_obstacles(shapes, "block1", width)


def _infer_swin(shapes: _Shapes) -> tuple[Options, list[str]]:
    width, sizes = shapes.size("patch_embedding", "kernel"), shapes.stage_sizes("norm1", "scale")
    options = {
        "patch_size": shapes.size("patch_embedding", "kernel", axis=2),
        "width": width,
        "stage_sizes": sizes,
        "num_heads": tuple(
            shapes.size(f"stage{stage + 1}_block1", "attention", "logit_scale") for stage in range(len(sizes))
        ),
    }
    offsets = shapes.beside("relative_coords_table", "stage1_block1", "attention", "logit_scale")
    if len(offsets) == 4:
        options["window"] = (offsets[1] + 1) // 2
    return options, _feed_forward_obstacles(shapes, "stage1_block1", width)


def _feed_forward_obstacles(shapes: _Shapes, block: str, width: int) -> list[str]:
    hidden = shapes.size(block, "mlp", "fc1", "kernel")
    if hidden in (0, _MLP_RATIO * width):
        return []
    return [f"its feed-forward layers have {hidden} features, and only {_MLP_RATIO} times the width is supported"]


_INFER: dict[type[Classifier], Callable[[_Shapes], tuple[Options, list[str]]]] = {
    ResNet: _infer_resnet,
    WideResNet: _infer_wide_resnet,
    RegNetY: _infer_regnet,
    ViT: _infer_vit,
    SwinV2: _infer_swin,
}


def stated_options(description: Description, family: type[Classifier]) -> Options:
    """Return options that tensors do not tell, but a configuration of timm or transformers beside the weights does.

    A number that differs between the stages is a tuple.
    """
    content, architecture = description.network, description.architecture
    arguments = content.get("model_args") or {}
    stated: Options = {}
    if family is ViT:
        size = re.match(r"(?:vit|deit3?)_(tiny|small|base|large)_(?:distilled_)?patch", architecture)
        by_name = _TIMM_HEADS[size[1]] if size else None
        stated["num_heads"] = arguments.get("num_heads") or content.get("num_attention_heads") or by_name
    if family is SwinV2:
        by_name = re.search(r"window(\d+)(?:to(\d+))?", architecture)
        named = int(by_name[2] or by_name[1]) if by_name else None
        stated["window"] = arguments.get("window_size") or content.get("window_size") or named
        first = int(by_name[1]) if by_name and by_name[2] else 0
        default = (first, first, first, first // 2) if first else 0
        pretrained = arguments.get("pretrained_window_sizes") or content.get("pretrained_window_sizes") or default
        stated["pretrained_window"] = _same(pretrained)
    return {option: value for option, value in stated.items() if value}


def _same(values: Any) -> Any:
    """Return the number that all stages have in common, or the numbers as a tuple."""
    return values if isinstance(values, int) else values[0] if len(set(values)) == 1 else tuple(values)


def hint(
    name: str,
    given: Options,
    state_dict: Mapping[str, Any],
    source: str,
    *,
    num_classes: int | None = None,
    stated: Options | None = None,
    flag: str = "",
) -> str:
    """Return which model and options fit the tensors, as the end of an error message; "" if no others do.

    Args:
      name: of the model.
      given: its options.
      state_dict: tensors or arrays by name.
      source: origin of the network.
      num_classes: number of classes that the tensors should have; None if any.
      stated: see `stated_options`.
      flag: what precedes an option, such as "--config.model.options.".
    """
    found = fit(state_dict, source, name) if name in MODELS else None
    if not found:
        return ""
    if found.obstacles:
        return f"the file's network is not supported: {'; '.join(found.obstacles)}"
    if found.family is not MODELS[name].family:
        other = flag.removesuffix("options.") + f"name={_nearest(found)}" if flag else f"the model '{_nearest(found)}'"
        return f"the file holds a {found.family.__name__}: {other}"
    if isinstance((stated or {}).get("pretrained_window"), tuple):
        return "the file's network is not supported: each stage has a pretrained window of its own"
    try:
        model = create(name, 2, **given)
    except UserError:
        return ""
    fitting = {option: value for option, value in found.options.items() if option != "stem" or option in given}
    wrong = {option: value for option, value in fitting.items() if getattr(model, option) != value}
    guesses = _guessed_heads(model, given, wrong)
    wrong |= guesses | wrong_stated(model, stated or {})
    texts = [_fact(option, value, is_guess=option in guesses and not stated) for option, value in wrong.items()]
    if num_classes and found.num_classes not in (0, num_classes):
        texts.append(_fact("num_classes", found.num_classes))
        flags = [*_as_flags(wrong, flag), f"num_classes={found.num_classes}"]
    else:
        flags = [*_as_flags(wrong, flag)]
    return f"the file's {', '.join(texts)}: {' '.join(flags)}" if texts else ""


def as_flag(option: str, value: Any, flag: str) -> str:
    """Return an option as it is given on the command line, or in Python if `flag` is ""."""
    text = f"{flag}{option}={_written(value)}"
    return f"'{text}'" if flag and isinstance(value, tuple) else text


def _fact(option: str, value: Any, *, is_guess: bool = False) -> str:
    return f"{option} is {'probably ' if is_guess else ''}{_written(value)}"


def _nearest(found: Fit) -> str:
    """Return the model of a family that has the most of the options in its defaults."""

    def rank(name: str) -> tuple[int, bool]:
        model = create(name, 2)
        num_equal = sum(getattr(model, option) == value for option, value in found.options.items())
        return num_equal, not MODELS[name].options  # of several, the one with the defaults of the family

    return max((name for name, architecture in MODELS.items() if architecture.family is found.family), key=rank)


def _guessed_heads(model: Any, given: Options, wrong: Options) -> Options:
    """Return the number of heads of a ViT of another width, which its tensors do not tell."""
    heads = wrong.get("width", 0) // HEAD_WIDTH if isinstance(model, ViT) and "num_heads" not in given else 0
    return {"num_heads": heads} if heads and heads != model.num_heads else {}


def wrong_stated(model: Any, stated: Options) -> Options:
    """Return the stated options, see `stated_options`, that a model does not have.

    A SwinV2 may have another window than its weights if it scales positions by theirs, its `pretrained_window`.
    """
    wrong = {option: value for option, value in stated.items() if getattr(model, option) != value}
    if "pretrained_window" not in stated and "window" in wrong and model.pretrained_window == stated["window"]:
        del wrong["window"]
    return wrong


def _as_flags(options: Options, flag: str) -> list[str]:
    return [as_flag(option, value, flag) for option, value in options.items()]


def _written(value: Any) -> str:
    return str(value).replace(" ", "")
