"""Draw the rows of a reference bank."""

import numpy as np

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError


def select_rows(labels: np.ndarray, size: int, *, per_class: bool = False, seed: int) -> np.ndarray:
    """Draw the rows of a reference bank, without replacement.

    Args:
      labels: integer labels `[N]` of the dataset that the bank is drawn from.
      size: number of rows M; 0 selects all.
      per_class: draw as equal numbers from all classes as the data allows, instead of uniformly.
      seed: of the draw; the same seed returns the same rows.

    Returns:
      int32 `[M]` (or `[N]`): distinct rows in ascending order.

    Raises:
      UserTypeError: `labels` is not an array, or `size` or `seed` not an integer.
      UserError: `size` is negative or above N, or below the number of classes if `per_class` is set.

    Example:
      >>> import anchor_jax as aj
      >>> import numpy as np
      >>> labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
      >>> rows = aj.data.select_rows(labels, 3, per_class=True, seed=0)
      >>> labels[rows].tolist()
      [0, 1, 2]
    """
    checks.array("labels", labels, "real", "[N]")
    size, seed = checks.integer("size", size), checks.count("seed", seed, least=0)
    num_rows = len(labels)
    check_size(size, num_rows)
    if size == 0:
        return np.arange(num_rows, dtype=np.int32)
    num_classes = len(np.unique(labels))
    if per_class and size < num_classes:
        raise UserError(
            f"anchoring.bank_size={size} with anchoring.bank_per_class; allowed: 0 (all) or {num_classes} (the number "
            f"of classes) to {num_rows}"
        )
    shuffled = np.random.default_rng(seed).permutation(num_rows)
    if per_class:
        shuffled = _interleave_classes(shuffled, labels)
    return np.sort(shuffled[:size]).astype(np.int32)


def _interleave_classes(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Reorder rows: the first of every class, then the second of every class, and so on."""
    by_class = np.argsort(labels[rows], kind="stable")
    counts = np.unique(labels, return_counts=True)[1]
    rank = np.empty_like(rows)
    rank[by_class] = np.concatenate([np.arange(count) for count in counts])
    return rows[np.argsort(rank, kind="stable")]


def check_size(size: int, num_examples: int) -> None:
    """Check that a bank is not larger than the training set.

    Raises:
      UserError: it is larger, or its size is negative.
    """
    if not 0 <= size <= num_examples:
        raise UserError(f"anchoring.bank_size={size}; allowed: 0 (all) to {num_examples}, the number of examples")
