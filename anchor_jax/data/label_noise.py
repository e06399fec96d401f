"""Symmetric label noise, as offsets that are added to labels."""

import numpy as np


def draw_label_offsets(num_labels: int, num_classes: int, noise: float, seed: int) -> np.ndarray:
    """Draw what symmetric label noise adds to each label, modulo the number of classes.

    Args:
      num_labels: N.
      num_classes: at least 2.
      noise: fraction of the labels to replace, each by another class drawn uniformly.
      seed: of the draw.

    Returns:
      int32 `[N]`: 0 for labels that are kept, otherwise in [1, `num_classes`).
    """
    rng = np.random.default_rng((seed, 1))  # independent of the draw of the reference bank
    offsets = np.zeros(num_labels, np.int32)
    replaced = rng.permutation(num_labels)[: round(noise * num_labels)]
    offsets[replaced] = rng.integers(1, num_classes, len(replaced))
    return offsets


def add_label_offsets(labels: np.ndarray, offsets: np.ndarray, num_classes: int) -> np.ndarray:
    """Return noisy labels int32 `[n]`: labels plus the offsets of `draw_label_offsets`."""
    return (labels + offsets) % num_classes
