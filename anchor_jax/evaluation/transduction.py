"""Bilinear transduction (BLT): for each image, the reference whose residual is nearest to those seen in training."""

import dataclasses
from collections.abc import Callable, Generator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.core.inference import transductive_rows
from anchor_jax.data import EvalDataset, normalize
from anchor_jax.runs.load import run_normalization
from anchor_jax.runs.predictor import pad_rows
from anchor_jax.runs.record import Run
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.training.source import TrainSource, bank_rows

NUM_RESIDUALS = 1_000


@dataclasses.dataclass(frozen=True)
class Transduction:
    """The candidates of bilinear transduction.

    Attributes:
      references: uint8 `[M, H, W, C]`, rows of the run's bank.
      residuals: float32 `[D, H, W, C]`, between normalized pairs as in training, but un-augmented.
      bank_size: number of references that the candidates were drawn from.
      nearest: compiled; uint8 `[B, H, W, C]` -> int32 `[B]`, rows of `references`; B divisible by the devices.
    """

    references: np.ndarray
    residuals: jax.Array
    bank_size: int
    nearest: Callable[[Any], jax.Array]

    def facts(self) -> dict[str, int]:
        """Return JSON values that say how many candidates there were; see `presentation.describe_transduction`."""
        return {
            "blt_references": len(self.references),
            "blt_bank": self.bank_size,
            "blt_residuals": len(self.residuals),
        }

    def paired(self, stream: EvalDataset) -> EvalDataset:
        """Return the dataset with a reference for each image: batches of `(images, references, labels)`."""

        def batches(size: int) -> Generator[Any, None, None]:
            for images, labels in stream.batches(size):
                rows = mesh_lib.device_get_global(self.nearest(pad_rows(images, size)))[: len(images)]
                yield images, self.references[rows], labels

        return dataclasses.replace(stream, batches=batches, select=None)


def create_transduction(run: Run, train: TrainSource, num_references: int, seed: int) -> Transduction:
    """Draw candidate references and residuals from the training set.

    Args:
      run: whose references are chosen.
      train: its training set.
      num_references: M, drawn at random from the bank; 0 takes the whole bank.
      seed: of the draws.
    """
    normalization = run_normalization(run)
    rng = np.random.default_rng(seed)
    bank = bank_rows(train, run.config)
    num = min(num_references or len(bank), len(bank))
    references = train.take(np.sort(rng.choice(bank, num, replace=False)))
    pairs = rng.integers(train.num_examples, size=NUM_RESIDUALS), rng.choice(bank, NUM_RESIDUALS)
    x, r = (normalize(jnp.asarray(train.take(rows)), normalization) for rows in pairs)

    def nearest(images, references, residuals):
        return transductive_rows(normalize(images, normalization), normalize(references, normalization), residuals)

    mesh = mesh_lib.mesh()
    specs = mesh_lib.SHARDED, mesh_lib.REPLICATED, mesh_lib.REPLICATED
    compiled = mesh_lib.pmapped(nearest, mesh, in_specs=specs, out_specs=mesh_lib.SHARDED)
    candidates = mesh_lib.replicate((references, x - r), mesh)
    return Transduction(
        references, x - r, len(bank), lambda images: compiled(mesh_lib.shard_batch(images, mesh), *candidates)
    )
