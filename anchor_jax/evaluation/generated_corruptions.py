"""Corruptions that are applied on the devices while a dataset is read."""

import dataclasses
import math
from collections.abc import Generator
from functools import partial
from typing import Any

import jax
import numpy as np

from anchor_jax.data import CorruptedSet, EvalDataset, corruptions
from anchor_jax.runs.predictor import pad_rows
from anchor_jax.runtime import mesh as mesh_lib


def generated(name: str, members: tuple[str, ...], clean: EvalDataset, seed: int) -> CorruptedSet:
    """Return a clean dataset under corruptions, which are applied on the device while it is read.

    Example i of the complete dataset always gets the same noise, whatever the batches, the devices and the limit.
    """
    mesh = mesh_lib.mesh()
    all_rows = np.arange(clean.num_examples) if clean.rows is None else clean.rows
    corrupt_each = mesh_lib.one_at_a_time(corruptions.corrupt_each, mesh)

    def stream(member: str, severity: int) -> EvalDataset:
        def batches(size: int) -> Generator[Any, None, None]:
            even = math.ceil(size / mesh.size) * mesh.size
            for index, (images, labels) in enumerate(clean.batches(size)):
                part = all_rows[index * size : index * size + len(images)]
                rows = mesh_lib.shard_batch(np.resize(part, even), mesh)
                on_devices = mesh_lib.shard_batch(pad_rows(images, even), mesh)
                corrupted = corrupt_each(_keys(seed, rows), on_devices, member, severity)
                yield corrupted if len(images) == even else mesh_lib.device_get_global(corrupted)[: len(images)], labels

        return dataclasses.replace(clean, name=f"{member} {severity}", batches=batches, select=None)

    return CorruptedSet(name, members, clean.num_examples, stream)


@jax.jit
def _keys(seed, rows):
    return jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))(rows)
