"""Initial weights of a run that are not random: those of a PyTorch network, and a first layer that whitens."""

from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from anchor_jax.config import Config
from anchor_jax.core.errors import UserError
from anchor_jax.data import normalize
from anchor_jax.models.fastnet import STEM_SIZE, FastNet
from anchor_jax.models.pretrained import AdaptedWeights, adapt_weights, trained_side
from anchor_jax.models.pytorch.beside import describe
from anchor_jax.models.pytorch.conversion import Converted, convert
from anchor_jax.models.pytorch.entries import TOP_LEVEL, StateDict, listed
from anchor_jax.models.pytorch.files import read_checkpoint, source_and_file
from anchor_jax.models.pytorch.fitting import HEAD_WIDTH, as_flag, stated_options, wrong_stated
from anchor_jax.models.pytorch.module import image_size_in_module
from anchor_jax.models.registry import MODELS, create
from anchor_jax.models.swin_v2 import SwinV2
from anchor_jax.models.vit import ViT
from anchor_jax.models.whitening import whitening_kernel
from anchor_jax.runs.load import run_normalization
from anchor_jax.runs.record import Run
from anchor_jax.training.source import TrainSource

_NUM_WHITENED = 5_000  # images whose patches are enough for their covariance
_FLAG = "--config.model.options."
_SHRINKING = ("timm", "huggingface")  # sources whose SwinV2 shrinks windows to small feature maps


class ReadWeights(NamedTuple):
    """The weights that a new run starts from, before they are adapted to its images.

    Attributes:
      source: origin of the network, see `from_torch`.
      file: that they were read from.
      variables: as `apply` of their network takes them.
      notes: what was taken, chosen and left out, for the user.
      trained_on: height and width of the images of the network, if a file beside the weights tells them.
    """

    source: str
    file: Path
    variables: dict[str, Any]
    notes: tuple[str, ...]
    trained_on: tuple[int, int] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Options of the model that follow from the weights where the config has none."""
        kernel = self.variables["params"].get("stem_conv", {}).get("kernel")
        is_resnet = kernel is not None and "stage1_block1" in self.variables["params"] and len(kernel) == 7
        return {"stem": "imagenet"} if is_resnet else {}

    def image_size(self) -> int:
        """Return the side of the images that the network was trained on; 0 if the weights do not tell."""
        params = self.variables["params"]
        if "position_embedding" not in params:
            return 0
        return trained_side(params["position_embedding"]) * len(params["patch_embedding"]["kernel"])


def read_weights(config: Config) -> ReadWeights:
    """Read the weights that a new run starts from.

    Args:
      config: of the run.

    Raises:
      UserError: the file cannot be read, or its tensors do not fit the model.
    """
    name, options = config.model.name, dict(config.model.options)
    source, file, entry = source_and_file(config.model.weights)
    found = read_checkpoint(file, entry)
    model = create(name, 2, **options)
    description = describe(file, source, MODELS[name].family)
    stated = stated_options(description, MODELS[name].family)
    try:
        converted = convert(name, found.tensors, None, source, options, stated=stated, flag=_FLAG)
    except UserError as error:
        raise UserError(f"{error} ({_place(file, found)})") from error
    if wrong := wrong_stated(model, stated):
        raise UserError(_not_as_stated(wrong, f"'{description.file}'"))
    notes = (*_taken(found, converted), *_untold(model, stated, source))
    return ReadWeights(source, file, converted.variables, notes, description.image_size or image_size_in_module(file))


def adapted_weights(run: Run, model: nn.Module, shapes: Any, weights: ReadWeights) -> AdaptedWeights:
    """Adapt weights to the model and the images of a run.

    Args:
      run: the run.
      model: its model.
      shapes: shapes of the model's variables, see `jax.eval_shape`.
      weights: of `read_weights`.

    Raises:
      UserError: they do not fit the run.
    """
    config = run.config
    patch_size = getattr(model, "patch_size", 1)

    def grid_of(height: int, width: int) -> tuple[int, int]:
        return height // patch_size, width // patch_size

    _check_windows(run, model, weights.source)
    trained_grid = grid_of(*weights.trained_on) if weights.trained_on else None
    adapted = adapt_weights(weights.variables, shapes, grid_of(*run.image_shape[:2]), trained_grid)
    if not adapted.has_head and not config.training.total_epochs:
        bias = weights.variables["params"].get("head", {}).get("bias", ())
        has = f"has {len(bias)} classes" if len(bias) else "has no head"
        raise UserError(
            f"config.training.total_epochs=0 needs weights for the {len(run.label_names)} classes of the data, but "
            f"'{weights.file}' {has}; train the head for some epochs, or use the data of its classes; for data of only "
            "some of them, name all in a file, one per line: --config.data.classes=FILE"
        )
    return adapted._replace(changes=(*weights.notes, *adapted.changes))


def whitened_stem(run: Run, model: FastNet, source: TrainSource) -> AdaptedWeights:
    """Return a kernel of the first layer that whitens patches of the training images, see `whitening_kernel`.

    Args:
      run: the run.
      model: its model.
      source: its training set.

    Raises:
      UserError: the number of features does not fit the patches.
    """
    num_images = min(_NUM_WHITENED, source.num_examples)
    rows = np.linspace(0, source.num_examples - 1, num_images).astype(np.int32)
    images = np.asarray(normalize(jnp.asarray(source.take(rows)), run_normalization(run)))
    kernel = whitening_kernel(images, STEM_SIZE, model.stem_width, anchored=run.config.anchoring.enabled)
    size = f"{STEM_SIZE}×{STEM_SIZE}"
    return AdaptedWeights(
        {("params", "stem_conv", "kernel"): jnp.asarray(kernel)},
        (f"the first layer whitens {size} patches, measured on {num_images:,} training images",),
    )


def _not_as_stated(wrong: dict[str, Any], file: str) -> str:
    """Return the error message for options that differ from those in a file beside the weights."""
    if isinstance(wrong.get("pretrained_window"), tuple):
        return f"{file} says that each stage has a pretrained window of its own, which is not supported"
    facts = ", ".join(f"{option}={value}" for option, value in wrong.items())
    flags = " ".join(as_flag(option, value, _FLAG) for option, value in wrong.items())
    return f"the network of the weights has {facts}, as {file} says: {flags}"


def _untold(model: nn.Module, stated: dict[str, Any], source: str) -> list[str]:
    """Describe the options that are used as given, because neither the tensors nor a file beside them tell."""
    if isinstance(model, ViT) and "num_heads" not in stated and model.width // model.num_heads != HEAD_WIDTH:
        return [f"num_heads={model.num_heads} is as configured, the weights do not tell it"]
    if isinstance(model, SwinV2) and "window" not in stated and source in _SHRINKING:
        return [f"window={model.window} is as configured, the weights do not tell it"]
    return []


def _check_windows(run: Run, model: nn.Module, source: str) -> None:
    """Raise if the network of the source shrinks windows that the model does not."""
    if not isinstance(model, SwinV2) or source not in _SHRINKING or "window_shrinks" in run.config.model.options:
        return
    side = -(-(min(run.image_shape[:2]) // model.patch_size) // 2 ** (len(model.stage_sizes) - 1))
    if side < model.window:
        raise UserError(
            f"a stage of the SwinV2 is smaller, {side}, than its window, {model.window}, which {source} shrinks to it: "
            f"{as_flag('window_shrinks', True, _FLAG)}; False pads the stage"
        )


def _taken(found: StateDict, converted: Converted) -> list[str]:
    """Describe which weights of a file were taken, and what was left out."""
    descriptions = [f"{converted.num_tensors:,} tensors {_where(found)}", *converted.notes]
    if found.others:
        descriptions.append(f"not from {listed(found.others)}, which FILE#ENTRY would choose")
    if found.left_out:
        descriptions.append(f"beside the weights: {listed(found.left_out)}")
    return descriptions


def _place(file: Path, found: StateDict) -> str:
    """Say where tensors were read, and where else there are some."""
    others = f"; other entries: {listed(found.others)}; choose one with FILE#ENTRY" if found.others else ""
    return f"read {_where(found)} of '{file}'{others}"


def _where(found: StateDict) -> str:
    return "at the top level" if found.entry == TOP_LEVEL else f"in '{found.entry}'"
