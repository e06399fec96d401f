"""Bilinear transduction of a run: for each image the reference whose residual was most nearly seen in training."""

import dataclasses
from collections.abc import Callable, Generator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.core.inference import transductive_rows
from anchor_jax.data import Stream, normalize
from anchor_jax.runs.load import normalization_of
from anchor_jax.runs.predictor import filled
from anchor_jax.runs.record import Run
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.training.source import Supply, bank_of

RESIDUALS = 1_000


@dataclasses.dataclass(frozen=True)
class Transduction:
    """What is looked among, and how.

    Attributes:
      references: uint8 `[M, H, W, C]`, rows of the run's bank.
      residuals: float32 `[D, H, W, C]`, between normalised pairs as training saw them, but un-augmented.
      nearest: compiled; uint8 `[B, H, W, C]` -> int32 `[B]`, rows of `references`; B divisible by the devices.
    """

    references: np.ndarray
    residuals: jax.Array
    nearest: Callable[[Any], jax.Array]

    def paired(self, stream: Stream) -> Stream:
        """The stream with a reference for each image: batches of `(images, references, labels)`."""

        def batches(size: int) -> Generator[Any, None, None]:
            for images, labels in stream.batches(size):
                rows = mesh_lib.fetched(self.nearest(filled(images, size)))[: len(images)]
                yield images, self.references[rows], labels

        return dataclasses.replace(stream, batches=batches)


def transduction_of(run: Run, train: Supply, num_references: int, seed: int) -> Transduction:
    """Among references and residuals that the seed draws from the training set; 0 takes the whole bank."""
    normalization = normalization_of(run)
    rng = np.random.default_rng(seed)
    bank = bank_of(train, run.config)
    num = min(num_references or len(bank), len(bank))
    references = train.picked(np.sort(rng.choice(bank, num, replace=False)))
    pairs = rng.integers(train.num_examples, size=RESIDUALS), rng.choice(bank, RESIDUALS)
    x, r = (normalize(jnp.asarray(train.picked(rows)), normalization) for rows in pairs)

    def nearest(images, references, residuals):
        return transductive_rows(normalize(images, normalization), normalize(references, normalization), residuals)

    mesh = mesh_lib.mesh()
    specs = mesh_lib.SPLIT, mesh_lib.SAME, mesh_lib.SAME
    compiled = mesh_lib.pmapped(nearest, mesh, in_specs=specs, out_specs=mesh_lib.SPLIT)
    among = mesh_lib.replicated((references, x - r), mesh)
    return Transduction(references, x - r, lambda images: compiled(mesh_lib.divided(images, mesh), *among))
