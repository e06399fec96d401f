"""Datasets with the classes of a run, or some of them."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

from anchor_jax.core.errors import UserError
from anchor_jax.data import EvalDataset, class_rows
from anchor_jax.evaluation.context import EvalContext


class KnownSet(NamedTuple):
    """A dataset, and the rows of the logits that its labels refer to; None for all."""

    stream: EvalDataset
    classes: tuple[int, ...] | None


def open_known_sets(context: EvalContext, specs: Sequence[str]) -> list[KnownSet]:
    """Open datasets, whose classes are matched to those of the run by their names; warn if only some of them are there.

    Args:
      context: what is evaluated.
      specs: see `data.open_dataset`.

    Raises:
      UserError: two have the same name, or one has no labels, or classes that the run does not have.
    """
    if unlabeled := [spec for spec in specs if spec.startswith("images:")]:
        raise UserError(
            f"'{unlabeled[0]}' has no labels; give a labeled dataset, such as folder:PATH for PATH/<class>/*.png"
        )
    opened = []
    for stream in context.open_all(tuple(specs)):
        rows = class_rows(stream.label_names, context.run.label_names, origin=f"'{stream.name}'")
        if rows is not None and len(rows) < len(context.run.label_names):
            warnings.warn(
                f"'{stream.name}' has {len(rows)} of the run's {len(context.run.label_names)} classes; the logits are "
                "restricted to them",
                stacklevel=2,
            )
        opened.append(KnownSet(stream, None if rows is None else tuple(rows.tolist())))
    return opened
