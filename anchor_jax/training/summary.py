"""The summary that a run prints when it starts."""

import jax

from anchor_jax.config import AnchoringConfig, DataConfig
from anchor_jax.data.loading import name_of
from anchor_jax.data.orientation import STORED
from anchor_jax.data.resampling import is_box, resized_size
from anchor_jax.data.sources import SOURCES
from anchor_jax.runs.state import TrainState
from anchor_jax.training.draws import uses_references
from anchor_jax.training.trainer import Trainer


def run_summary(trainer: Trainer, state: TrainState) -> str:
    """Return a few lines on the devices, method, model, data and length of a run that starts from `state`."""
    lines = {
        "devices": _devices(trainer),
        "method": _method(trainer),
        "model": _model(trainer, state),
        "weights": _weights(trainer),
        "data": _data(trainer),
        "images": _images(trainer),
        "steps": _steps(trainer, int(state.step)),
        "workdir": str(trainer.run.workdir),
    }
    return "\n".join(f"{title:<10}{text}" for title, text in lines.items() if text)


def _devices(trainer: Trainer) -> str:
    devices = trainer.mesh.devices.ravel()
    return f"{len(devices)} x {devices[0].device_kind}, jax {jax.__version__}"


def _method(trainer: Trainer) -> str:
    anchoring = trainer.run.config.anchoring
    if not uses_references(anchoring):
        return "standard training"
    references = "references from the batch"
    if trainer.data.bank_images is not None:
        references = f"{trainer.data.bank_size:,} references in the bank"
    elif anchoring.group_size:
        references = f"references from the batch, among the same {anchoring.group_size:,} images"
    if not anchoring.enabled:
        overlay = f"overlay x + {anchoring.overlay_weight:g} r {_draws(anchoring)}"
        return f"standard training, {overlay}, {references}"
    masking = "no masking"
    if anchoring.mask_prob:
        masking = f"masked {_draws(anchoring)} (target: {anchoring.masked_target})"
    return f"anchored training, {references}, {masking}"


def _draws(anchoring: AnchoringConfig) -> str:
    """Return in words what is masked, and how often."""
    if anchoring.mask_per == "batch" and anchoring.mask_draw == "periodic":
        return f"in evenly spaced batches, a fraction of {anchoring.mask_prob}"
    per = {"batch": "", "group": f" per group of {anchoring.group_size:,}", "example": " per example"}
    return f"with probability {anchoring.mask_prob}{per[anchoring.mask_per]}"


def _model(trainer: Trainer, state: TrainState) -> str:
    model, num_parameters = trainer.run.config.model, sum(leaf.size for leaf in jax.tree.leaves(state.params))
    group_size = trainer.run.config.training.bn_group_size
    groups = f", BatchNorm over groups of {group_size:,} images" if group_size else ""
    return f"{model.name}, {num_parameters:,} parameters, computed in {model.dtype}{groups}"


def _weights(trainer: Trainer) -> str:
    if not trainer.weights:
        return trainer.run.config.model.weights
    kept = f"head kept, its {len(trainer.run.label_names)} outputs taken as the classes in order"
    changes = (*trainer.weights.changes, *([kept] if trainer.weights.has_head else []))
    return "; ".join(filter(None, (trainer.run.config.model.weights, *changes)))


def _data(trainer: Trainer) -> str:
    run, evaluated = trainer.run, trainer.evaluator.dataset
    data = run.config.data
    split = f" (split '{data.test_split}')" if evaluated.name == "test" and data.test_split != "test" else ""
    return (
        f"{_source(data)}: {trainer.source.num_examples:,} training images "
        f"{list(run.image_shape)}, {len(run.label_names)} classes; evaluated on {evaluated.num_examples:,} "
        f"{evaluated.name} images{split}"
    )


def _source(data: DataConfig) -> str:
    """Return the kind of data source and what locates it; keys that belong to other sources do not count."""
    name, place = name_of(data), data.path if SOURCES[data.source].located_by == "path" else ""
    of = data.source if name != data.source else ""
    in_words = f" ({' '.join(filter(None, (of, place)))})" if of else ""
    return f"{name}{in_words}"


def _images(trainer: Trainer) -> str:
    data, channels = trainer.run.config.data, trainer.run.image_shape[-1]
    read = {"L": "as grayscale", "RGB": "in color"}.get(data.mode, f"with {channels} channels, as stored")
    stored = data.orientation == STORED
    turned = f", and not turned upright (config.data.orientation={STORED})" if stored else ""
    parts = [f"all are read {read} (config.data.mode={data.mode}){turned}", _resizing(data), _normalization(data)]
    if trainer.preprocessing:
        parts.append(f"this is the preprocessing {trainer.preprocessing}")
    return "; ".join(filter(None, parts))


def _resizing(data: DataConfig) -> str:
    """Return in words how images become squares; "" if they stay as they are."""
    if not data.image_size:
        return ""
    size, by = data.image_size, "bilinear" if data.interpolation == "bilinear" else "bicubic"
    if is_box(data.resizing):
        part = "" if data.crop_fraction == 1 else f" of {data.crop_fraction:g} of the shorter side"
        return f"the central square{part} is resized to {size}x{size} ({by})"
    resized, _ = resized_size((size, size), (size, size), data.crop_fraction, data.resizing)
    sides = "both sides are" if data.resizing == "stretch" else "the shorter side is"
    return f"{sides} resized to {resized} pixels ({by}), then the center is cropped to {size}x{size}"


def _normalization(data: DataConfig) -> str:
    mean, std = (", ".join(f"{value:.3g}" for value in values) for values in (data.mean, data.std))
    return f"mean {mean}, std {std}"


def _steps(trainer: Trainer, step: int) -> str:
    schedule, batch_size = trainer.schedule, trainer.run.config.training.batch_size
    if not schedule.total_steps:
        return "none, the weights are evaluated and saved as they are"
    start = f"resumes from step {step:,}" if step else "starts at step 0"
    length = f"{schedule.total_steps:,} in total, {schedule.steps_per_epoch:,} per epoch"
    return f"{length}, {batch_size} images per step; {start}"
