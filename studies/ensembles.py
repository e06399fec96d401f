"""What a user would pick instead of references: several predictions of an image, pooled as those of references are.

ensemble       each network is a member (Lakshminarayanan et al. 2017, arXiv 1612.01474)
dropout        one network, thinned anew for each member (Gal & Ghahramani 2016, arXiv 1506.02142)
augmentation   one network, whose images are cropped and mirrored anew for each member, as in training
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.core.inference import VotedClassification, classify_ensemble
from anchor_jax.data import Normalization, augment, normalize
from anchor_jax.evaluation import SUITES, Options
from anchor_jax.evaluation.context import EvalContext
from anchor_jax.evaluation.runner import ask
from anchor_jax.models.layers import Classifier
from anchor_jax.runs import record as run_record
from anchor_jax.runs.load import create_model, load_checkpoint, run_normalization
from anchor_jax.runs.network import CompiledNetwork
from anchor_jax.runs.predictor import Predictor
from anchor_jax.runs.record import Run
from anchor_jax.runtime import mesh as mesh_lib

KINDS = ("ensemble", "dropout", "augmentation")
POOLED_SUITES = ("clean", "corruptions", "shift", "ood", "protocols")  # those that look at nothing but predictions


def evaluate_pool(
    kind: str, workdirs: Sequence[Path], out: Path, suites: Sequence[str], *, num_members: int, options: Options
) -> None:
    """Ask a pool of standard networks, and write what the suites find.

    Args:
      kind: of `KINDS`.
      workdirs: folders of the runs.
      out: the folder of the results.
      suites: of `POOLED_SUITES`.
      num_members: of "dropout" and "augmentation".
      options: of the suites; their seed is that of the members, too.

    Raises:
      UserError: a run is missing, anchored, or another one than the others; or there are not as many as the kind takes.
    """
    for suite in suites:
        checks.known("suite", suite, POOLED_SUITES)
    runs = [run_record.load(workdir) for workdir in workdirs]
    _check(kind, runs)
    steps, predictors = zip(*(load_checkpoint(each, "latest") for each in runs), strict=True)
    predictor = predictor_of_pool(kind, runs, predictors, num_members, options.seed)
    subject = EvalContext(runs[0], steps[0], predictor, options, runs[0].config.evaluation.num_bins)
    for suite in suites:
        SUITES[suite].check(subject)
    out.mkdir(parents=True, exist_ok=True)
    for suite in suites:
        ask(subject, suite, (len(runs) if kind == "ensemble" else num_members,), out, suite)


def predictor_of_pool(
    kind: str, runs: Sequence[Run], predictors: Sequence[Predictor], num_members: int, seed: int
) -> Predictor:
    """The predictor whose answer is that of all members; see `evaluate_pool`."""
    if kind == "ensemble":
        variables = jax.tree.map(lambda *arrays: jnp.stack(arrays), *(each.variables for each in predictors))
        members = jnp.arange(len(runs))
    else:
        variables, members = predictors[0].variables, jax.random.split(jax.random.key(seed), num_members)
    model = create_model(runs[0], axis_name=mesh_lib.AXIS)  # dropout draws for the whole batch, over all devices
    logits_of = partial(_LOGITS[kind], model, run_normalization(runs[0]), runs[0].config.augmentation)
    network = PooledNetwork(predictors[0].network, logits_of, members)
    return dataclasses.replace(predictors[0], variables=variables, network=network)


class PooledNetwork(CompiledNetwork):
    """A network whose answer is that of all members of a pool, in place of all references.

    Args:
      network: one of the networks.
      logits_of: (variables, member, images uint8 `[B, H, W, C]`) -> logits `[B, classes]`.
      members: `[K]`, indices or keys.
    """

    def __init__(self, network: CompiledNetwork, logits_of: Callable[..., jax.Array], members: jax.Array):
        super().__init__(
            network.model,
            network.normalization,
            network.mesh,
            anchored=network.anchored,
            inputs_at_once=network.inputs_at_once,
            chunk_size=network.chunk_size,
        )
        self._logits_of, self._members = logits_of, members

    def encode(self, variables: Any, references: Any) -> jax.Array:
        """Return the members, which are evaluated in place of references."""
        return self._members

    def _classify_shard(self, classes, temper, variables, references, images) -> VotedClassification:
        def logits(member):
            of_all = self._logits_of(variables, member, images)
            return of_all if classes is None else of_all[:, list(classes)]

        return classify_ensemble(logits, cast(jax.Array, references), chunk_size=1, temper=temper)


def _of_ensemble(model: Classifier, normalization: Normalization, _, variables, member, images):
    return model.apply(jax.tree.map(lambda array: array[member], variables), normalize(images, normalization))


def _of_dropout(model: Classifier, normalization: Normalization, _, variables, member, images):
    return model.apply(variables, normalize(images, normalization), rngs={"dropout": member})


def _of_augmentation(model: Classifier, normalization: Normalization, augmentation, variables, member, images):
    keys = jnp.broadcast_to(member, len(images))  # the same crop for all, so that none depends on its neighbours
    return model.apply(variables, normalize(augment(keys, images, augmentation), normalization))


_LOGITS = {"ensemble": _of_ensemble, "dropout": _of_dropout, "augmentation": _of_augmentation}


def _check(kind: str, runs: Sequence[Run]) -> None:
    if not runs:
        raise UserError(f"a pool of kind '{kind}' takes runs; give their folders beside the flags")
    if kind != "ensemble" and len(runs) > 1:
        raise UserError(f"a pool of kind '{kind}' takes one run; got {len(runs)}")
    for each in runs:
        if each.config.anchoring.enabled:
            raise UserError(f"'{each.workdir}' is an anchored run, and a pool takes standard ones")
        if (each.label_names, each.image_shape) != (runs[0].label_names, runs[0].image_shape):
            raise UserError(f"'{each.workdir}' has other classes or another shape than '{runs[0].workdir}'")
    if kind == "dropout" and not runs[0].config.model.options.get("dropout_rate"):
        raise UserError(f"'{runs[0].workdir}' has no dropout; train one with --config.model.options.dropout_rate=0.1")
