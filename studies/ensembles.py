"""What a user would pick instead of references: several predictions of an image, pooled as those of references are.

ensemble       each network is a member (Lakshminarayanan et al. 2017, arXiv 1612.01474)
dropout        one network, thinned anew for each member (Gal & Ghahramani 2016, arXiv 1506.02142)
augmentation   one network, whose images are cropped and mirrored anew for each member, as in training
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.core.inference import VotedClassification, classify_ensemble
from anchor_jax.data import Normalization, augment, normalize
from anchor_jax.evaluation import Options, runner, storage
from anchor_jax.evaluation.context import EvalContext, EvalSettings
from anchor_jax.models.layers import Classifier
from anchor_jax.runs import record as run_record
from anchor_jax.runs.load import create_model, load_checkpoint, run_normalization
from anchor_jax.runs.predictor import CompiledNetwork, Predictor
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
    config = runs[0].config.evaluation
    settings = EvalSettings(config.num_bins, config.chunk_size)
    context = EvalContext(runs[0], steps[0], predictor, options, settings)
    prepared = runner.prepare(context, suites)
    store = storage.ResultStore(out)
    for suite in suites:
        store.add(runner.measure(context, suite, prepared[suite], len(runs) if kind == "ensemble" else num_members))


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
    return pooled(predictors[0], logits_of, variables, members, mesh_lib.mesh())


def pooled(of_one: Predictor, logits_of: Callable, variables: Any, members: jax.Array, mesh: Any) -> Predictor:
    """The predictor whose answer is that of all members.

    Args:
      of_one: a predictor of one of the networks.
      logits_of: (variables, member, images uint8 `[B, H, W, C]`) -> logits `[B, classes]`.
      variables: of all networks.
      members: `[K]`, indices or keys.
      mesh: over which images are divided.
    """

    def poll(classes, temper, variables, members, images) -> VotedClassification:
        def logits(member):
            of_all = logits_of(variables, member, images)
            return of_all if classes is None else of_all[:, list(classes)]

        return classify_ensemble(logits, members, chunk_size=1, temper=temper)

    def compiled(classes, temper):
        specs = (mesh_lib.REPLICATED, mesh_lib.REPLICATED, mesh_lib.SHARDED)
        return mesh_lib.pmapped(partial(poll, classes, temper), mesh, in_specs=specs, out_specs=mesh_lib.SHARDED)

    network = CompiledNetwork(
        encode=lambda variables, references: members,
        poll=cache(compiled),
        poll_pairs=of_one.network.poll_pairs,
        features=of_one.network.features,
        divided=of_one.network.divided,
    )
    return dataclasses.replace(of_one, variables=variables, network=network)


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
