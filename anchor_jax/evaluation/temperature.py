"""Temperature scaling after training (Guo et al. 2017, arXiv 1706.04599)."""

from anchor_jax.contrib.scaling import fit_temperature as fit
from anchor_jax.core.errors import UserError
from anchor_jax.data import Dataset, EvalDataset, eval_dataset
from anchor_jax.evaluation.progress import with_progress
from anchor_jax.runs.predictor import Predictor, tree_concatenate
from anchor_jax.training.source import StreamSource, TrainSource


def require_held_out(
    train: tuple[TrainSource, Dataset | None],
    purpose: str = "temperature scaling",
    instead: str = "omit --temperature_scaling",
) -> EvalDataset:
    """Return the part of the training set that the run held out.

    Args:
      train: training set of the run, and the part held out.
      purpose: what needs it, for the error.
      instead: what else the user can do, for the error.

    Raises:
      UserError: the run held out nothing.
    """
    source, held_out = train
    if held_out is None:
        is_stream = isinstance(source, StreamSource)
        how = ", as a stream cannot; " if is_stream else "; train with --config.data.validation_fraction=0.1, or "
        raise UserError(
            f"{purpose} needs training data that the run held out, and this run held out none{how}{instead}"
        )
    return eval_dataset(held_out, "held-out training data", channels=held_out.images.shape[-1])


def fit_temperature(predictor: Predictor, held_out: EvalDataset, num_references: int) -> float:
    """Return the temperature T for which `softmax(mean logits / T)` fits the held-out data best."""
    batches = with_progress(held_out, predictor, held_out.name, num_references)

    def logits_and_labels(voted, labels):
        return voted.classification.logits, labels

    logits, labels = tree_concatenate(predictor.stream(batches, num_references, then=logits_and_labels))
    return float(fit(logits, labels).temperature)
