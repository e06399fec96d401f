"""The declared config keys, their checks, and every experiment in `configs/`."""

import importlib
import json
import pickle
from functools import partial
from pathlib import Path
from typing import get_args

import jax
import numpy as np
import optax
import pytest
from commands import assert_error, quick_command
from ml_collections import ConfigDict

from anchor_jax import UserError, config, models
from anchor_jax.config import reference
from anchor_jax.config.declaration import declared_keys
from anchor_jax.runs import state
from anchor_jax.training import optimizer
from anchor_jax.training.choices import choose
from anchor_jax.training.loop import prepare
from benchmarks.speed import plan_texts

ROOT = Path(__file__).parents[1]
EXPERIMENTS = sorted(file.stem for file in (ROOT / "configs").glob("[a-z]*.py"))  # files with "_" hold shared code
STREAMING = [name for name in EXPERIMENTS if name.startswith(("imagenet_", "finetune"))]
FAST = ["cifar100_fast", "cifar10_fast"]
WIDE_RESNET = "cifar100_wrn40_2"
POLICIES = [name for name in EXPERIMENTS if name.startswith("cifar100_") and name not in (*FAST, WIDE_RESNET)]


def config_of(experiment):
    return importlib.import_module(f"configs.{experiment}").get_config()


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiment_is_valid_and_documents_its_command(experiment):
    module = importlib.import_module(f"configs.{experiment}")
    config.validate(module.get_config())
    assert module.get_config().data.streaming == (experiment in STREAMING)
    assert f"python train.py --config configs/{experiment}.py --workdir runs/{experiment}" in module.__doc__


def flat_differences(one, other):
    """Return the keys in which two experiments differ."""
    one, other = (config.flatten(config_of(experiment)) for experiment in (one, other))
    return {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiment_builds_model_optimizer_and_schedule(experiment):
    """At full size, by shapes alone: nothing is computed."""
    given, steps_per_epoch = choose(config_of(experiment)).config, 10
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


@pytest.mark.parametrize("experiment", sorted({*EXPERIMENTS} - {*STREAMING, *POLICIES, *FAST, WIDE_RESNET}))
def test_experiment_takes_a_training_step(experiment, tiny, tmp_path):
    given = config_of(experiment)
    given.data = tiny.data
    given.data.path = str(tmp_path / "tiny.npz")
    given.model.options.width, given.model.options.stage_sizes = 4, (1, 1)
    given.training.batch_size = 16
    given.evaluation.num_references, given.evaluation.saved_references = 2, 4
    training = prepare(given, tmp_path / experiment)
    (current, _), numbers = training.train_steps(training.init_carry(), 1)
    assert int(current.step) == 1
    assert numbers["loss"] > 0


@pytest.mark.parametrize("experiment", POLICIES)
def test_cifar100_experiment_differs_from_cifar10_by_dataset(experiment):
    assert flat_differences(experiment, experiment.replace("100", "10")) == {"data.name"}
    assert flat_differences(experiment, "cifar100") == {"augmentation.policy"}


def test_wide_resnet_experiment_differs_in_model_and_dropout():
    differing = flat_differences(WIDE_RESNET, "cifar100")
    assert differing == {"model.name", "model.options.dropout_rate"}
    assert config_of(WIDE_RESNET).model.options.dropout_rate == 0.3


def test_fast_experiments_train_the_fast_network_alike():
    assert flat_differences(*FAST) == {"data.name"}
    given = config_of("cifar10_fast")
    assert (given.model.name, given.anchoring.mask_draw, given.training.label_smoothing) == ("fastnet", "periodic", 0.0)
    schedule = optimizer.create_schedule(given.optimizer, 97, round(97 * given.training.total_epochs))
    rates = [float(schedule(step)) for step in range(97 * 12 + 1)]
    assert rates[0] == rates[-1] == 0
    assert rates.index(max(rates)) == round(2.5 * 97)


def test_swin_experiments_follow_the_released_recipe():
    """The recipe is LLNL/anchoring, ImageNet/run_train.sh."""
    given = config.flatten(config_of("imagenet_swin_v2_b"))
    assert given["training.total_epochs"] == 400
    assert given["training.batch_size"] == 16 * 32
    assert given["optimizer.learning_rate"] == 1e-4
    assert given["optimizer.final_learning_rate"] == 1e-6
    assert given["optimizer.clip_norm"] == 5
    assert given["data.repeats"] == 4
    assert given["data.interpolation"] == "bicubic"
    assert (given["anchoring.mask_per"], given["anchoring.group_size"]) == ("group", 32)
    assert 1 - given["training.ema_decay"] == pytest.approx((1 - 0.99998) * 512 * 32 / 400)
    for name in ("imagenet_swin_v2_t", "imagenet_swin_v2_s"):
        assert flat_differences(name, "imagenet_swin_v2_b") == {"model.name"}


@pytest.mark.parametrize("experiment", STREAMING)
def test_experiment_docstring_has_the_committed_plans(experiment):
    docstring = " ".join(importlib.import_module(f"configs.{experiment}").__doc__.split())
    assert plan_texts.time_text(plan_texts.plans_of(experiment)) in docstring


def test_committed_plans_are_those_of_the_experiments():
    files = list(plan_texts.FOLDER.glob("*.json"))
    assert files
    for file in files:
        plan, given = json.loads(file.read_text()), choose(config_of(file.name.split(".")[0])).config
        stated = (given.model.name, given.model.dtype, given.training.batch_size, given.training.total_epochs)
        assert (plan["model"], plan["dtype"], plan["batch_size"], plan["total_epochs"]) == stated
        assert plan.get("anchored", True) == (".standard." not in file.name)


@pytest.mark.parametrize("name", ["imagenet", "performance"])
def test_tables_on_pages_are_those_of_the_committed_plans(name):
    page = plan_texts.ROOT / f"docs/{name}.md"
    assert f"<!-- plans -->\n{plan_texts.pages()[page]}\n<!-- end of plans -->" in page.read_text()


def test_cifar_experiments_follow_the_protocol_of_the_paper():
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
        ("anchoring.mask_per", "epoch", r"mask_per must be one of batch, group, example; got 'epoch'"),
        ("anchoring.masked_target", "none", r"masked_target must be one of label, uniform; got 'none'"),
        ("optimizer.name", "adam", r"optimizer.name must be one of sgd, adamw; got 'adam'"),
        ("optimizer.schedule", "exponential", r"schedule must be one of step, cosine, linear; got 'exponential'"),
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
def test_value_out_of_range_raises(key, value, message):
    given = config.base()
    with given.unlocked():
        given.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message):
        config.validate(given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group_size": 32}, r"needs .*references='batch' and .*; got references='bank' and group_size=32"),
        ({"references": "batch"}, r"group_size, such as 32; got references='batch' and group_size=0"),
        (
            {"references": "batch", "group_size": 32, "mask_draw": "periodic"},
            r"mask_draw='periodic' masks whole batches; with mask_per='group' set mask_draw='random'",
        ),
    ],
)
def test_masks_per_group_need_groups(changes, message):
    given = config.base()
    given.anchoring.update({"mask_per": "group", **changes})
    with pytest.raises(UserError, match=message):
        config.validate(given)
    given.anchoring.update({"references": "batch", "group_size": 32, "mask_draw": "random"})
    config.validate(given)


def test_unknown_and_missing_keys_raise():
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


def test_base_refuses_unknown_keys_except_model_options():
    given = config.base()
    with pytest.raises(AttributeError, match='Did you mean "mask_prob"'):
        given.anchoring.mask_pro = 0.1
    given.model.options.width = 64
    assert config.flatten(given)["model.options.width"] == 64


def test_base_is_a_plain_config_dict_with_independent_copies():
    given = config.base()
    assert type(given) is type(given.anchoring) is ConfigDict
    given.update({"anchoring": {"mask_prob": 0.5}, "seed": 3})
    given.optimizer.learning_rate = 1  # stored as the float that the key has
    assert given["anchoring"]["mask_prob"] == given["anchoring.mask_prob"] == 0.5
    assert type(given.optimizer.learning_rate) is float
    assert given.copy_and_resolve_references() == pickle.loads(pickle.dumps(given)) == given
    assert config.base().anchoring.mask_prob == 0.25
    read = config.base()
    read.update(given.to_dict())
    assert read == given


@pytest.mark.parametrize("name", sorted(declared_keys(config.Config)))
def test_declared_default_and_bounds_are_valid(name):
    key = declared_keys(config.Config)[name]
    assert key.meaning.endswith(".")
    given = config.base()
    given.model.weights = "timm:file.pth"  # so that total_epochs may have its minimum
    given.anchoring.references, given.anchoring.group_size = "batch", 1  # so that mask_per may be "group"
    for value in (key.default, key.at_least, key.at_most, *get_args(key.type)):
        if value is not None and isinstance(value, type(key.default)):
            given.update_from_flattened_dict({name: value})
            config.validate(given)


def test_reference_page_lists_the_declared_keys():
    """To update it: `python -m anchor_jax.config.reference > docs/config.md`."""
    assert (ROOT / "docs/config.md").read_text() == reference.markdown()


# --- renamed keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), config.RENAMED_KEYS.items())
def test_old_key_of_a_record_is_read_under_its_new_name(old, new):
    assert not config.is_known(old)
    (section, old_name), new_name = old.split("."), new.split(".")[1]
    recorded = {"seed": 3, section: {old_name: "value", "other": 1}}
    assert config.rename_old_keys(recorded) == {"seed": 3, section: {new_name: "value", "other": 1}}
    assert recorded[section] == {old_name: "value", "other": 1}
    assert config.rename_old_keys({section: {new_name: "value"}}) == {section: {new_name: "value"}}


@pytest.mark.parametrize(("old", "new"), config.RENAMED_KEYS.items())
def test_renamed_key_is_named_in_the_error(old, new):
    assert config.is_known(new)
    assert config.unknown_key(old) == f"config key '{old}' was renamed to '{new}'"


def test_renamed_key_in_a_config_file_raises(old_run, tmp_path):
    done = quick_command("train.py", "--config", old_run / "config.py", "--workdir", tmp_path / "run")
    message = "config key 'data.max_damaged' was renamed to 'data.max_corrupt_fraction'"
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot load the config file (")
    assert done.stderr.endswith(f"; {message}\n")


def test_renamed_key_on_the_command_line_raises(tmp_path):
    line = ("train.py", "--config", "configs/digits.py", "--workdir", tmp_path / "run")
    done = quick_command(*line, "--config.training.max_skipped=1")
    message = "config key 'training.max_skipped' was renamed to 'training.max_consecutive_nonfinite'"
    assert (done.returncode, done.stderr) == (2, f"error: {message}\n")


def test_flags_override_a_frozen_config(tmp_path):
    (tmp_path / "config.py").write_text(
        "from anchor_jax.config import base\nfrom ml_collections import FrozenConfigDict\n\n\n"
        "def get_config():\n    return FrozenConfigDict(base())\n"
    )
    line = ("train.py", "--config", tmp_path / "config.py", "--workdir", tmp_path / "run")
    assert_error(quick_command(*line, "--config.training.batch_size=2000"), 1, "at most 1437, the size of the training")


def test_values_of_keys_become_plain_tuples_and_numbers():
    content = config.base().to_dict()
    content["data"]["mean"], content["data"]["std"], content["seed"] = [0.5], np.array([0.25]), np.int64(3)
    given = ConfigDict(content)
    config.validate(given)
    plain = config.with_plain_values(given)
    assert (plain.data.mean, plain.data.std, plain.seed) == ((0.5,), (0.25,), 3)
    assert type(plain.seed) is int
    assert list(plain.data.keys()) == list(content["data"])
    assert given.data.mean == [0.5]


@pytest.mark.parametrize("hidden", [[16, 8], np.array([16, 8]), (np.int64(16), 8)], ids=["list", "array", "integers"])
def test_options_become_plain_tuples(hidden):
    given = config.base()
    given.model.options = ConfigDict({"hidden": hidden, "width": np.int64(3)})
    config.validate(given)
    assert config.with_plain_values(given).model.options.to_dict() == {"hidden": (16, 8), "width": 3}
    assert type(config.with_plain_values(given).model.options.width) is int
