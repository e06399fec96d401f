"""Ensembles of runs that differ in more than their seed."""

import dataclasses

import jax
import numpy as np
import pytest
from conftest import begun

from anchor_jax import UserError
from anchor_jax.evaluation import Options, ensembles, runner
from anchor_jax.runs import state
from anchor_jax.runs.load import create_model, create_predictor
from anchor_jax.runtime import mesh as mesh_lib


def begun_standard(config, workdir, **changes):
    """Return the record of a standard network that is not trained; `changes` are flat keys with "__" for the dot."""
    config = config.copy_and_resolve_references()
    config.anchoring.enabled = False
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return begun(config, workdir).run


def test_ensemble_normalizes_images_as_each_run(tiny, tmp_path):
    means, mesh = (0.2, 0.8, 0.2), mesh_lib.mesh()
    runs = [begun_standard(tiny, tmp_path / str(row), data__mean=(mean,)) for row, mean in enumerate(means)]
    predictors = []
    for seed, run in enumerate(runs):
        variables = state.init_variables(create_model(run), jax.random.key(seed), run.input_shape)
        predictors.append(create_predictor(run, mesh_lib.replicate(variables, mesh), mesh))
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 1), np.uint8)
    each = np.stack([predictor(images).probs for predictor in predictors])
    found = ensembles.ensemble_predictor("ensemble", runs, predictors, 0, seed=0)(images)
    np.testing.assert_allclose(found.probs, each.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.probs_std, each.std(0, ddof=1), atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__options__hidden": (8,)}, r"config.model.options.hidden is \(8,\) and \(16,\)"),
        ({"model__dtype": "bfloat16"}, "config.model.dtype is 'bfloat16' and 'float32'"),
        ({"data__crop_fraction": 0.5}, "config.data.crop_fraction is 0.5 and 1.0"),
    ],
)
def test_ensemble_of_different_networks_is_rejected(tiny, tmp_path, changes, message):
    run = begun_standard(tiny, tmp_path / "run")
    other = dataclasses.replace(run, config=run.config.copy_and_resolve_references())
    other.config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    with pytest.raises(UserError, match=message):
        ensembles._check("ensemble", [run, other])
    ensembles._check("ensemble", [run, run])


def test_augmentation_without_members_is_rejected(tiny, tmp_path):
    run = begun_standard(tiny, tmp_path / "run", augmentation__crop_padding=0, augmentation__flip=False)
    for policy, message in (("", "all members are alike"), ("pixmix", r"mixes other images in \(pixmix\)")):
        run.config.augmentation.policy = policy
        with pytest.raises(UserError, match=message):
            ensembles._check("augmentation", [run])
    run.config.augmentation.policy = "trivial_augment"
    ensembles._check("augmentation", [run])


def test_ensemble_with_transduction_is_rejected(digits_context):
    standard = dataclasses.replace(digits_context.predictor, references=None)
    context = dataclasses.replace(digits_context, predictor=standard, options=Options(protocol="blt"))
    with pytest.raises(UserError, match="a standard network has none"):
        runner.prepare(context, ("clean",))
