"""Configurations: every experiment is one, and what is wrong in one is told."""

import importlib
from pathlib import Path

import pytest

from anchor_jax import UserError, config, models
from anchor_jax.training.loop import prepare

EXPERIMENTS = sorted(file.stem for file in (Path(__file__).parents[1] / "configs").glob("*.py"))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_is_valid_and_tells_its_command(experiment):
    module = importlib.import_module(f"configs.{experiment}")
    config.validate(module.get_config())
    assert f"python train.py --config configs/{experiment}.py --workdir runs/{experiment}" in module.__doc__


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_takes_a_step(experiment, tiny, tmp_path):
    given = importlib.import_module(f"configs.{experiment}").get_config()
    given.data = tiny.data
    given.data.path = str(tmp_path / "tiny.npz")
    given.model.options.width = 4
    given.training.batch_size = 16
    given.evaluation.num_references, given.evaluation.saved_references = 2, 4
    training = prepare(given, tmp_path / experiment)
    current, numbers = training.advance(training.first_state(), 1)
    assert int(current.step) == 1
    assert numbers["loss"] > 0


def test_cifar_experiments_are_the_protocol_of_the_paper():
    for name in ("cifar10", "cifar100"):
        given = config.flatten(importlib.import_module(f"configs.{name}").get_config())
        assert given["data.name"] == name
        assert given["optimizer.learning_rate"] == 0.1
        assert given["optimizer.momentum"] == 0.9
        assert given["optimizer.weight_decay"] == 5e-4
        assert given["optimizer.milestones_epochs"] == (60, 120, 160)
        assert given["optimizer.decay_factor"] == 0.2
        assert given["training.batch_size"] == 128
        assert given["training.total_epochs"] == 200
        assert given["anchoring.mask_prob"] == 0.25
        assert models.create(given["model.name"], 10) == models.create("resnet18", 10, width=64, stem="cifar")
        assert not [key for key in given if key.startswith("model.options.")]
        assert given["augmentation.crop_padding"] == 4


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("anchoring.mask_prob", 1.5, r"config.anchoring.mask_prob must be in \[0, 1\]; got 1.5"),
        ("anchoring.mask_prob", float("nan"), r"mask_prob must be in \[0, 1\]; got nan"),
        ("anchoring.mask_prob", -0.1, r"mask_prob must be in \[0, 1\]; got -0.1"),
        ("anchoring.bank_size", -1, r"bank_size must be at least 0; got -1"),
        ("anchoring.references", "banks", r"references must be one of bank, batch; got 'banks'"),
        ("anchoring.mask_per", "epoch", r"mask_per must be one of batch, example; got 'epoch'"),
        ("anchoring.masked_target", "none", r"masked_target must be one of uniform, label; got 'none'"),
        ("optimizer.name", "adam", r"optimizer.name must be one of sgd, adamw; got 'adam'"),
        ("optimizer.schedule", "linear", r"schedule must be one of step, cosine; got 'linear'"),
        ("optimizer.learning_rate", float("nan"), r"learning_rate must be at least 0; got nan"),
        ("training.batch_size", 0, r"batch_size must be at least 1; got 0"),
        ("training.total_epochs", 0.0, r"total_epochs must be above 0, or 0 with config.model.weights; got 0.0"),
        ("training.label_smoothing", 2.0, r"label_smoothing must be in \[0, 1\]; got 2.0"),
        ("evaluation.num_references", 0, r"num_references must be at least 1; got 0"),
        ("evaluation.num_bins", 0, r"num_bins must be at least 1; got 0"),
        ("checkpoint.keep", 0, r"keep must be at least 1; got 0"),
        ("data.std", (0.5, 0.0, 0.5), r"data.std must be above 0"),
        ("training.total_epochs", float("inf"), r"config.training.total_epochs must be finite; got inf"),
        ("data.validation_fraction", 1.0, r"validation_fraction must be in \[0, 0.9\]; got 1.0"),
    ],
)
def test_value_out_of_range_is_told(key, value, message):
    given = config.base()
    with given.unlocked():
        given.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message):
        config.validate(given)


def test_unknown_and_missing_keys_are_told():
    given = config.base()
    with given.unlocked():
        given.anchoring.mask_probability = 0.5
    with pytest.raises(
        UserError, match=r"unknown config key 'anchoring.mask_probability'; did you mean 'anchoring.mask_prob'"
    ):
        config.validate(given)
    with given.unlocked():
        del given.anchoring["mask_probability"], given.anchoring["mask_prob"]
    with pytest.raises(UserError, match=r"config.anchoring.mask_prob is missing"):
        config.validate(given)


def test_experiments_are_locked():
    with pytest.raises(AttributeError, match='Did you mean "mask_prob"'):
        config.base().anchoring.mask_pro = 0.1
