"""Initial weights of a run that are not random: those of a PyTorch network, and a first layer that whitens."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from anchor_jax.core.errors import UserError
from anchor_jax.data import normalize
from anchor_jax.models.fastnet import STEM_SIZE, FastNet
from anchor_jax.models.pretrained import AdaptedWeights, adapt_weights
from anchor_jax.models.pytorch.conversion import Converted, convert
from anchor_jax.models.pytorch.entries import TOP_LEVEL, StateDict, listed
from anchor_jax.models.pytorch.files import read_checkpoint, source_and_file
from anchor_jax.models.whitening import whitening_kernel
from anchor_jax.runs.load import run_normalization
from anchor_jax.runs.record import Run
from anchor_jax.training.source import TrainSource

_NUM_WHITENED = 5_000  # images whose patches are enough for their covariance


def read_weights(run: Run, model: nn.Module, shapes: Any) -> AdaptedWeights:
    """Read the weights that a run starts from, and adapt them to its model.

    Args:
      run: the run.
      model: its model.
      shapes: shapes of the model's variables, see `jax.eval_shape`.

    Raises:
      UserError: the file cannot be read, or its tensors do not fit the model or the run.
    """
    config = run.config
    source, file, entry = source_and_file(config.model.weights)
    found = read_checkpoint(file, entry)
    try:
        converted = convert(config.model.name, found.tensors, None, source, **config.model.options)
    except UserError as error:
        raise UserError(f"{error} ({_place(file, found)})") from error
    patch_size = getattr(model, "patch_size", 1)
    height, width, _ = run.image_shape
    adapted = adapt_weights(converted.variables, shapes, (height // patch_size, width // patch_size))
    if not adapted.has_head and not config.training.total_epochs:
        has = "has other classes" if "head" in converted.variables["params"] else "has no head"
        raise UserError(
            f"config.training.total_epochs=0 needs weights for the {len(run.label_names)} classes of the data, but "
            f"'{file}' {has}; train the head for some epochs, or use the data of its classes"
        )
    return adapted._replace(changes=(*_taken(found, converted), *adapted.changes))


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
