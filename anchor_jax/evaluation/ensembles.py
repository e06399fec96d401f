"""Evaluate ensembles, MC dropout and test-time augmentation: several predictions per image, without references.

ensemble      each network is a member (Lakshminarayanan et al. 2017, arXiv 1612.01474)
dropout       one network with another dropout mask for each member (Gal & Ghahramani 2016, arXiv 1506.02142)
augmentation  one network; the images are cropped and flipped differently for each member, as in training
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.core.inference import VotedClassification, classify_ensemble
from anchor_jax.data import Normalization, augment, normalize
from anchor_jax.data.labels import composed_name
from anchor_jax.evaluation import storage
from anchor_jax.evaluation.context import EvalContext, EvalSettings
from anchor_jax.evaluation.results import SuiteResult
from anchor_jax.evaluation.runner import measure, prepare
from anchor_jax.evaluation.suites import Options
from anchor_jax.models.layers import Classifier
from anchor_jax.runs import record as run_record
from anchor_jax.runs.data_location import locate
from anchor_jax.runs.load import create_model, load_checkpoint, run_normalization
from anchor_jax.runs.network import CompiledNetwork
from anchor_jax.runs.predictor import Predictor
from anchor_jax.runs.record import Run
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.runtime.paths import storage_path

KINDS = ("ensemble", "dropout", "augmentation")
# fields of a model that change nothing without a gradient
_NOT_OF_INFERENCE = ("parent", "name", "dtype", "axis_name", "remat", "bn_devices", "dropout_rate", "stochastic_depth")
_OF_SINGLE_IMAGES = ("crop_padding", "resized_crop", "flip", "policy")  # augmentations that members draw
ENSEMBLE_SUITES = ("clean", "corruptions", "shift", "ood", "conformal", "protocols")  # these use predictions only


def evaluate_ensemble(
    kind: str,
    workdirs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    suites: Sequence[str],
    *,
    num_members: int,
    options: Options,
) -> dict[str, SuiteResult]:
    """Evaluate several predictions per image by standard networks, and store the results.

    Args:
      kind: one of `KINDS`.
      workdirs: folders of the runs; several for the kind "ensemble", otherwise one.
      out: folder of the results; the number of members takes the place of the number of references.
      suites: names from `ENSEMBLE_SUITES`.
      num_members: for the kinds "dropout" and "augmentation".
      options: of the suites; their seed is also that of the members.

    Returns:
      The result of each suite.

    Raises:
      UserError: a run is missing or anchored, the runs differ in their model, classes or images, or the kind takes
        another number of runs.
    """
    out = storage_path("out", out)
    checks.known("kind", kind, KINDS)
    checks.count("num_members", num_members)
    for suite in suites:
        checks.known("suite", suite, ENSEMBLE_SUITES)
    runs = [locate(run_record.load(workdir)) for workdir in workdirs]
    _check(kind, runs)
    steps, predictors = zip(*(load_checkpoint(run, "latest") for run in runs), strict=True)
    predictor = ensemble_predictor(kind, runs, predictors, num_members, options.seed)
    settings = EvalSettings(runs[0].config.evaluation.num_bins, runs[0].config.evaluation.chunk_size)
    members = {"kind": kind, "steps": list(steps)} | ({} if kind == "ensemble" else {"seed": options.seed})
    context = EvalContext(runs[0], steps[0], predictor, options, settings, members)
    prepared = prepare(context, suites)
    context.warn_of_other_data()
    num = len(runs) if kind == "ensemble" else num_members
    store, results = storage.ResultStore(out), {}
    for suite in prepared:
        results[suite] = measure(context, suite, prepared[suite], num)
        storage.add_and_tell(store, results[suite])
    return results


def ensemble_predictor(
    kind: str, runs: Sequence[Run], predictors: Sequence[Predictor], num_members: int, seed: int
) -> Predictor:
    """Return a predictor that averages over members instead of references; for the arguments see `evaluate_ensemble`.

    Args:
      kind: one of `KINDS`.
      runs: records of the runs.
      predictors: of the runs, in the same order.
      num_members: for the kinds "dropout" and "augmentation".
      seed: of the members.
    """
    if kind == "ensemble":
        variables = jax.tree.map(lambda *arrays: jnp.stack(arrays), *(each.variables for each in predictors))
        members = jnp.arange(len(runs))
    else:
        variables, members = predictors[0].variables, jax.random.split(jax.random.key(seed), num_members)
    model = create_model(runs[0], axis_name=mesh_lib.AXIS)  # dropout draws one mask for the batch of all devices
    normalizations = tuple(map(run_normalization, runs))
    logits_fn = partial(_LOGITS[kind], model, normalizations, runs[0].config)
    network = EnsembleNetwork(predictors[0].network, logits_fn, members)
    return dataclasses.replace(predictors[0], variables=variables, network=network)


class EnsembleNetwork(CompiledNetwork):
    """A network that averages over members instead of references.

    Args:
      network: one of the networks.
      logits_fn: (variables, member, images uint8 `[B, H, W, C]`) -> logits `[B, classes]`.
      members: indices or keys, `[K]`.
    """

    def __init__(self, network: CompiledNetwork, logits_fn: Callable[..., jax.Array], members: jax.Array):
        super().__init__(
            network.model,
            network.normalization,
            network.mesh,
            anchored=network.anchored,
            inputs_at_once=network.inputs_at_once,
            chunk_size=network.chunk_size,
        )
        self._logits_fn, self._members = logits_fn, members

    def encode(self, variables: Any, references: Any) -> jax.Array:
        """Return the members, which are evaluated in place of references."""
        return self._members

    def _classify_shard(self, classes, temper, variables, references, images) -> VotedClassification:
        def member_logits(member):
            logits = self._logits_fn(variables, member, images)
            return logits if classes is None else logits[:, list(classes)]

        return classify_ensemble(member_logits, cast(jax.Array, references), chunk_size=1, temper=temper)


Normalizations = tuple[Normalization, ...]  # of each run


def _network_logits(model: Classifier, normalizations: Normalizations, _, variables, member, images):
    """Return the logits of one network, on images normalized as for its training."""
    different = list(dict.fromkeys(normalizations))  # each run has measured its own, if it held out other examples
    which = jnp.array([different.index(each) for each in normalizations])[member]
    x = jax.lax.switch(which, [partial(normalize, normalization=each) for each in different], images)
    return model.apply(jax.tree.map(lambda array: array[member], variables), x)


def _dropout_logits(model: Classifier, normalizations: Normalizations, _, variables, member, images):
    return model.apply(variables, normalize(images, *normalizations), rngs={"dropout": member})


def _augmentation_logits(model: Classifier, normalizations: Normalizations, config, variables, member, images):
    keys = jnp.broadcast_to(member, len(images))  # the same crop for all images, independent of the batch
    options = {"interpolation": config.data.interpolation, "channels": images.shape[-1]}
    augmented = augment(keys, images, config.augmentation, **options)
    return model.apply(variables, normalize(augmented, *normalizations))


_LOGITS = {"ensemble": _network_logits, "dropout": _dropout_logits, "augmentation": _augmentation_logits}


def _check(kind: str, runs: Sequence[Run]) -> None:
    if not runs:
        raise UserError(f"kind '{kind}' needs at least one run; give the folders of the runs after the flags")
    if kind != "ensemble" and len(runs) > 1:
        raise UserError(f"kind '{kind}' takes one run; got {len(runs)}")
    first = runs[0]
    for run in runs:
        if run.config.anchoring.enabled:
            raise UserError(f"'{run.workdir}' is an anchored run; kind '{kind}' takes standard networks")
        has_same_classes = list(map(composed_name, run.label_names)) == list(map(composed_name, first.label_names))
        if not has_same_classes or run.image_shape != first.image_shape:
            raise UserError(f"'{run.workdir}' has other classes or another image shape than '{first.workdir}'")
        for key, value in _shared(run).items():
            if value != (expected := _shared(first).get(key)):
                raise UserError(
                    f"'{run.workdir}' and '{first.workdir}' cannot be an ensemble: config.{key} is {value!r} and "
                    f"{expected!r}; give runs that are equal in it"
                )
    augmentation = first.config.augmentation
    if kind == "dropout" and not first.config.model.options.get("dropout_rate"):
        raise UserError(f"'{first.workdir}' has no dropout; train a run with --config.model.options.dropout_rate=0.1")
    if kind == "augmentation" and augmentation.policy == "pixmix":
        raise UserError(
            f"'{first.workdir}' mixes other images in (pixmix); give a run with another augmentation.policy"
        )
    if kind == "augmentation" and not any(augmentation[key] for key in _OF_SINGLE_IMAGES):
        raise UserError(
            f"'{first.workdir}' has no augmentation of single images, so that all members are alike; train a run with "
            "--config.augmentation.flip=True"
        )


def _shared(run: Run) -> dict[str, Any]:
    """Return what the runs of an ensemble must share: they have one model, and read the images in one way."""
    model, data = create_model(run), run.config.data
    facts = {"model.name": run.config.model.name, "model.dtype": run.config.model.dtype}
    options = (field.name for field in dataclasses.fields(model) if field.name not in _NOT_OF_INFERENCE)
    facts |= {f"model.options.{name}": getattr(model, name) for name in options}
    return facts | {f"data.{key}": data[key] for key in ("crop_fraction", "interpolation", "resizing", "orientation")}
