"""Configurations: every experiment is one, and what is wrong in one is told."""

import importlib
import json
from functools import partial
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from test_benchmarks_speed import benchmark, numbers_of
from torchvision.models import ViT_B_16_Weights

from anchor_jax import UserError, config, models
from anchor_jax.runs import state
from anchor_jax.training import optimizer
from anchor_jax.training.loop import prepare

ROOT = Path(__file__).parents[1]
EXPERIMENTS = sorted(file.stem for file in (ROOT / "configs").glob("[a-z]*.py"))  # what begins with "_" is shared
STREAMING = [name for name in EXPERIMENTS if name.startswith(("imagenet_", "finetune"))]
POLICIES = [name for name in EXPERIMENTS if name.startswith("cifar100_")]


def config_of(experiment):
    return importlib.import_module(f"configs.{experiment}").get_config()


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_is_valid_and_tells_its_command(experiment):
    module = importlib.import_module(f"configs.{experiment}")
    config.validate(module.get_config())
    assert module.get_config().data.streaming == (experiment in STREAMING)
    assert f"python train.py --config configs/{experiment}.py --workdir runs/{experiment}" in module.__doc__


def flat_differences(one, other):
    """Keys in which two experiments differ."""
    one, other = (config.flatten(config_of(experiment)) for experiment in (one, other))
    return {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_makes_its_model_optimizer_and_schedule(experiment):
    """Without computing anything, at full size."""
    given, steps_per_epoch = config_of(experiment), 10
    size = given.data.image_size or 32
    total = round(given.training.total_epochs * steps_per_epoch)
    model = models.create(given.model.name, 1000, dtype=given.model.dtype, **dict(given.model.options))
    schedule = optimizer.create_schedule(given.optimizer, steps_per_epoch, total)
    transformation = optimizer.create(given.optimizer, schedule)
    create = partial(state.create_state, model, transformation)
    first = jax.eval_shape(lambda: create(jax.random.key(0), (1, size, size, 6)))
    updates, _ = jax.eval_shape(transformation.update, first.params, first.opt_state, first.params)
    after = jax.eval_shape(optax.apply_updates, first.params, updates)
    assert jax.tree.map(lambda leaf: leaf.shape, after) == jax.tree.map(lambda leaf: leaf.shape, first.params)
    rates = [float(schedule(step)) for step in (0, total // 2, total)]
    assert np.isfinite(rates).all()
    assert max(rates) <= given.optimizer.learning_rate * (1 + 1e-6)


@pytest.mark.parametrize("experiment", sorted(set(EXPERIMENTS) - set(STREAMING) - set(POLICIES)))
def test_every_experiment_takes_a_step(experiment, tiny, tmp_path):
    given = config_of(experiment)
    given.data = tiny.data
    given.data.path = str(tmp_path / "tiny.npz")
    given.model.options.width, given.model.options.stage_sizes = 4, (1, 1)
    given.training.batch_size = 16
    given.evaluation.num_references, given.evaluation.saved_references = 2, 4
    training = prepare(given, tmp_path / experiment)
    (current, _), numbers = training.advance(training.first_carry(), 1)
    assert int(current.step) == 1
    assert numbers["loss"] > 0


@pytest.mark.parametrize("experiment", POLICIES)
def test_experiments_on_cifar100_are_those_on_cifar10_on_other_data(experiment):
    assert flat_differences(experiment, experiment.replace("100", "10")) == {"data.name"}
    assert flat_differences(experiment, "cifar100") == {"augmentation.policy"}


def test_swin_experiments_are_the_recipe_of_the_released_code():
    """LLNL/anchoring, ImageNet/run_train.sh."""
    given = config.flatten(config_of("imagenet_swin_v2_b"))
    assert given["training.total_epochs"] == 400
    assert given["training.batch_size"] == 16 * 32
    assert given["optimizer.learning_rate"] == 1e-4
    assert given["optimizer.final_learning_rate"] == 1e-6
    assert given["optimizer.clip_norm"] == 5
    assert given["data.repeats"] == 4
    assert 1 - given["training.ema_decay"] == pytest.approx((1 - 0.99998) * 512 * 32 / 400)
    for name in ("imagenet_swin_v2_t", "imagenet_swin_v2_s"):
        assert flat_differences(name, "imagenet_swin_v2_b") == {"model.name"}


def numbers_by_metric(results):
    return {result["metric"]: result["median"] for result in results}


def committed_estimates():
    return json.loads((ROOT / "docs/results/estimates.json").read_text())


@pytest.mark.parametrize("experiment", STREAMING)
def test_estimates_stand_in_the_experiments(experiment):
    numbers = numbers_by_metric(r for r in committed_estimates()["results"] if r["case"] == experiment)
    told = " ".join(importlib.import_module(f"configs.{experiment}").__doc__.split())
    least = "at least " if numbers["chip_hours_moving"] > numbers["chip_hours_computing"] else ""
    assert "An estimate, not measured" in told
    assert f": {least}{numbers['chip_hours']:.2g} chip-hours" in told
    assert f"{numbers['memory']:.2g} GB on each of eight" in told


def test_estimates_are_what_the_command_gives(tmp_path):
    file, committed = tmp_path / "estimates.json", committed_estimates()
    content = numbers_of(benchmark("speed.estimate", "--configs=imagenet_vit_b16", "--json", file), file)
    assert content["environment"]["stated"] == committed["environment"]["stated"]
    numbers, expected = (
        numbers_by_metric(r for r in of["results"] if r["case"] == "imagenet_vit_b16") for of in (content, committed)
    )
    assert numbers == pytest.approx(expected, rel=0.05)  # other versions of JAX count a little differently
    # torchvision counts a product and a sum as one, and sees three channels
    assert numbers["forward_flop"] == pytest.approx(2 * ViT_B_16_Weights.IMAGENET1K_V1.meta["_ops"], rel=0.05)
    # parameters, gradients, two moments and the average
    assert numbers["parameters_and_optimizer"] == pytest.approx(5 * 4 * 86_567_656e-9, rel=0.01)


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
        ("evaluation.num_bins", 0, r"num_bins must be in \[1, 10000\]; got 0"),
        ("checkpoint.keep", 0, r"keep must be at least 1; got 0"),
        ("data.std", (0.5, 0.0, 0.5), r"data.std must be above 0"),
        ("training.total_epochs", float("inf"), r"config.training.total_epochs must be in \[0, 1000000\]; got inf"),
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
