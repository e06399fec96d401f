"""The first variables of a run from the weights of a PyTorch network: `config.model.weights`."""

from typing import Any

from flax import linen as nn

from anchor_jax.core.errors import UserError
from anchor_jax.models import from_torch
from anchor_jax.models.pretrained import AdaptedWeights, adapt_weights
from anchor_jax.models.pytorch.files import read_state_dict, source_and_file
from anchor_jax.runs.record import Run


def read(this_run: Run, model: nn.Module, shapes: Any) -> AdaptedWeights:
    """The weights that the run is to begin from, fitted to its model, of whose variables the shapes are given.

    Raises:
      UserError: the file cannot be read, or its tensors fit neither the model's family nor the run.
    """
    config = this_run.config
    source, file = source_and_file(config.model.weights)
    variables = from_torch(config.model.name, read_state_dict(file), None, source, **config.model.options)
    patch_size = getattr(model, "patch_size", 1)
    height, width, _ = this_run.image_shape
    adapted = adapt_weights(variables, shapes, (height // patch_size, width // patch_size))
    if not adapted.has_head and not config.training.total_epochs:
        raise UserError(
            f"config.training.total_epochs=0 needs weights for the {len(this_run.label_names)} classes of the data, "
            f"and '{file}' has others; train the head for some epochs, or give the data of its classes"
        )
    return adapted
