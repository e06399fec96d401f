"""Initial weights of a run from a PyTorch network, `config.model.weights`."""

from typing import Any

from flax import linen as nn

from anchor_jax.core.errors import UserError
from anchor_jax.models import from_torch
from anchor_jax.models.pretrained import AdaptedWeights, adapt_weights
from anchor_jax.models.pytorch.files import read_state_dict, source_and_file
from anchor_jax.runs.record import Run


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
    source, file = source_and_file(config.model.weights)
    variables = from_torch(config.model.name, read_state_dict(file), None, source, **config.model.options)
    patch_size = getattr(model, "patch_size", 1)
    height, width, _ = run.image_shape
    adapted = adapt_weights(variables, shapes, (height // patch_size, width // patch_size))
    if not adapted.has_head and not config.training.total_epochs:
        raise UserError(
            f"config.training.total_epochs=0 needs weights for the {len(run.label_names)} classes of the data, but "
            f"'{file}' has other classes; train the head for some epochs, or use the data of its classes"
        )
    return adapted
