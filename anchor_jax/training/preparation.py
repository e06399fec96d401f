"""Preparation of a run: check the config, open the data, create or resume the run, compile."""

import contextlib
import dataclasses
import os
import warnings
from pathlib import Path

from anchor_jax import config as config_lib
from anchor_jax.config import AnchoringConfig, Config
from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.data import Dataset, Normalization
from anchor_jax.data.augmentation import check_policy
from anchor_jax.data.class_mapping import UnknownClassesError
from anchor_jax.data.labels import read_class_names
from anchor_jax.data.modes import MODES
from anchor_jax.models.fastnet import FastNet
from anchor_jax.models.pretrained import AdaptedWeights
from anchor_jax.runs import checkpoint, published
from anchor_jax.runs import record as run_record
from anchor_jax.runs.data_location import explain_moved_data
from anchor_jax.runs.state import variables
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.runtime import multihost
from anchor_jax.runtime.paths import storage_path
from anchor_jax.runtime.settings import with_own_settings
from anchor_jax.training import warm_start
from anchor_jax.training.choices import Choices, choose
from anchor_jax.training.draws import uses_references
from anchor_jax.training.evaluator import create_evaluator
from anchor_jax.training.program import TrainProgram, build_program
from anchor_jax.training.schedule import make_schedule
from anchor_jax.training.source import TrainSource, bank_rows, open_source, uses_bank
from anchor_jax.training.trainer import Trainer
from anchor_jax.training.warm_start import ReadWeights


@with_own_settings
def prepare(config: Config, workdir: str | os.PathLike[str], accept_changes: tuple[str, ...] = ()) -> Trainer:
    """Prepare everything a run needs before its first step. Nothing is written to disk yet.

    Args:
      config: of the run.
      workdir: its folder, which may hold it already.
      accept_changes: as for `train`.

    Raises:
      UserTypeError: `workdir` is not a path, or `accept_changes` is not a tuple.
      UserError: the config is invalid, or does not fit the data, the devices or the run in `workdir`.
    """
    workdir, accept_changes = storage_path("workdir", workdir), checks.several("accept_changes", accept_changes)
    published.check_can_train(workdir)
    config_lib.validate(config)
    config = config_lib.with_plain_values(config)
    if not (workdir / run_record.RECORD).exists():
        _check_overlay(config.anchoring)
    mesh = mesh_lib.mesh()
    chosen, weights = _chosen(config, workdir)
    config = _as_before(chosen.config, workdir, accept_changes)
    with _explain_moved_data(config, workdir):
        source, held_out = _open_source(config, workdir)
    check_policy(config.augmentation.policy, source.image_shape[-1])
    schedule = make_schedule(config, source.num_examples, mesh.size)
    config = _with_normalization(run_record.with_reading(config, source.image_shape), source)
    bank = bank_rows(source, config) if uses_references(config.anchoring) else None
    predicts_with = bank if config.anchoring.enabled else None
    run = run_record.open_or_create(workdir, config, source, predicts_with, accept_changes)
    evaluator = create_evaluator(run, held_out, mesh)
    if held_out is None and multihost.is_primary():  # only that process writes the record
        run = run_record.with_test_data(run, evaluator.dataset.content())

    program = build_program(run, schedule, mesh)
    return Trainer(
        run=run,
        schedule=schedule,
        mesh=mesh,
        model=program.model,
        optimizer=program.optimizer,
        learning_rate=program.learning_rate,
        specs=program.specs,
        source=source,
        data=source.train_data(bank if uses_bank(config) else None, config, mesh),
        run_steps=source.compile_steps(program.train_step, config, mesh, program.carry_specs),
        evaluator=evaluator,
        weights=None if checkpoint.has_checkpoints(workdir) else _initial_weights(run, program, source, weights),
        preprocessing=chosen.preprocessing,
    )


def _check_overlay(anchoring: AnchoringConfig) -> None:
    """Refuse an overlay that would have no effect, in a new run only: the records of earlier ones may have one."""
    if anchoring.overlay_weight and (anchoring.enabled or not anchoring.mask_prob):
        raise UserError(
            "config.anchoring.overlay_weight needs anchoring.enabled=False and an anchoring.mask_prob above 0; got "
            f"enabled={anchoring.enabled} and mask_prob={anchoring.mask_prob}"
        )


def _as_before(config: Config, workdir: Path, accept_changes: tuple[str, ...]) -> Config:
    """Return a config that is completed by the run in a folder, if there is one.

    Its images are read as before where the config leaves that open, and its saved references stay. If the run is of
    version 0.1, masked examples keep the target that was the default then.
    """
    if not (workdir / run_record.RECORD).exists():
        return config
    run = run_record.load(workdir)
    config = run_record.with_reading(config, run.image_shape, run.config.data.orientation)
    is_default = config.anchoring.masked_target == config_lib.base().anchoring.masked_target
    if is_default and run_record.is_of_version_0_1(run) and "anchoring.masked_target" not in accept_changes:
        config.anchoring.masked_target = run.config.anchoring.masked_target
    saved, given = run.config.evaluation.saved_references, config.evaluation.saved_references
    if run.references is not None and given != saved:
        warnings.warn(
            f"'{workdir}' keeps the {len(run.references)} references saved with it; "
            f"config.evaluation.saved_references={given} has no effect",
            stacklevel=2,
        )
        config.evaluation.saved_references = saved
    return config


def _chosen(config: Config, workdir: Path) -> tuple[Choices, ReadWeights | None]:
    """Return the config with what it leaves open, and the weights that the run starts from, None if it resumes."""
    has_record = (workdir / run_record.RECORD).exists()
    recorded = run_record.load(workdir).config if has_record else None
    starts = config.model.weights and not checkpoint.has_checkpoints(workdir)
    weights = warm_start.read_weights(config) if starts else None
    return choose(config, recorded, weights), weights


def _initial_weights(
    run: run_record.Run, program: TrainProgram, source: TrainSource, weights: ReadWeights | None
) -> AdaptedWeights | None:
    """Return the weights that replace random ones, None if there are none."""
    if weights:
        return warm_start.adapted_weights(run, program.model, variables(program.shapes), weights)
    if run.config.model.whiten_stem:
        assert isinstance(program.model, FastNet)  # as the config is valid
        return warm_start.whitened_stem(run, program.model, source)
    return None


def _open_source(config: Config, workdir: Path) -> tuple[TrainSource, Dataset | None]:
    """Open the training set, with the classes of the run in `workdir` if there is one, or those of `data.classes`."""
    recorded, classes = run_record.recorded_label_names(workdir), config.data.classes
    names = recorded or (read_class_names(classes) if classes else ())
    try:
        return open_source(config, names)
    except UnknownClassesError as error:
        if recorded:
            raise UserError(f"'{workdir}' holds another run: {error}; choose another --workdir") from error
        raise UserError(f"config.data.classes='{classes}' does not name all classes of the data: {error}") from error


def _explain_moved_data(config: Config, workdir: Path) -> contextlib.AbstractContextManager[None]:
    """Name the place of the data at the start of the run, if they are missing when it resumes."""
    if not (workdir / run_record.RECORD).exists():
        return contextlib.nullcontext()
    return explain_moved_data(dataclasses.replace(run_record.load(workdir), config=config), "--config.data.path")


def _with_normalization(config: Config, source: TrainSource) -> Config:
    """Return the config with mean and standard deviation measured on the training set where it has none."""
    config, num_channels = config.copy_and_resolve_references(), source.image_shape[-1]
    for name in Normalization._fields:
        values = config.data[name]
        if values and len(values) != num_channels:
            other = MODES.get(len(values)) if num_channels in MODES else None
            raise UserError(
                f"config.data.{name} must have one number for each of the {num_channels} channels, or be () to be "
                f"measured; got {values}"
                + (f"; to read all images in {len(values)} channels, set --config.data.mode={other}" if other else "")
            )
    if not (config.data.mean and config.data.std):
        measured = source.normalization()
        config.data.mean, config.data.std = config.data.mean or measured.mean, config.data.std or measured.std
    return config
