"""Corrupted sets that are the clean set under another name."""

import hashlib

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.data.eval_dataset import EvalDataset

_NUM_COMPARED = 32  # images per corrupted set that are compared with the clean set


def check_differs(clean: EvalDataset, *corrupted: EvalDataset) -> None:
    """Check that corrupted sets are not the clean set under another name, in the same or another order.

    An example is `cifar10_corrupted` taken from TFDS without the name of a corruption (hendrycks/robustness#29).

    Args:
      clean: the test set, which is read completely.
      corrupted: datasets; at least one of the first 32 images of each must not occur in the clean set.

    Raises:
      UserError: the first images of a dataset all occur in the clean set.

    Example:
      >>> import anchor_jax as aj
      >>> images, labels, names = aj.data.load("digits", "test")
      >>> clean = aj.data.eval_dataset(aj.data.Dataset(images[:8], labels[:8], names), "digits")
      >>> inverted = aj.data.eval_dataset(aj.data.Dataset(255 - images[:8], labels[:8], names), "inverted")
      >>> aj.data.check_differs(clean, inverted)
      >>> aj.data.check_differs(clean, clean)  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      anchor_jax.core.errors.UserError: the first images of 'digits' are all in the clean set 'digits': ...
    """
    known = {_digest(image) for images, _ in clean.batches(256) for image in images}
    for dataset in corrupted:
        if all(_digest(image) in known for image in dataset.first(_NUM_COMPARED)[0]):
            raise UserError(
                f"the first images of '{dataset.name}' are all in the clean set '{clean.name}': they are not "
                "corrupted; give the set as published"
            )


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()
