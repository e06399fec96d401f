"""Tests of commands with bad flags and bad config values: the error is one line, and files stay as they were."""

import pytest
from bad_commands import training, unchanged
from commands import assert_error, quick_command

INVALID_COMMAND_LINES = {
    "a group of keys": (["--config.training=5"], "'training' is a group of keys; give one of them, such as 'training."),
    "no key": (["--config.=3"], "unknown config key ''; did you mean"),
    "a key inside an option": (
        ["--config.model.options.a.b=3"],
        "unknown config key 'model.options.a.b'; did you mean",
    ),
    "an empty part of a key": (["--config.data..name=x"], "unknown config key 'data..name'; did you mean 'data.name'"),
    "a number is empty": (["--config.seed="], "--config.seed=: invalid literal for int()"),
    "a number is a float": (["--config.seed=1.5"], "--config.seed=1.5: invalid literal for int()"),
    "a number is huge and a float": (["--config.seed=1e400"], "--config.seed=1e400: invalid literal for int()"),
    "a number is a bool": (["--config.training.batch_size=True"], "batch_size=True: invalid literal for int()"),
    "a number is a tuple": (["--config.anchoring.mask_prob=(0.1,)"], "could not convert string to float: '(0.1,)'"),
    "a number is left out": (["--config.anchoring.mask_prob"], "Missing value for flag --config.anchoring.mask_prob"),
    "a bool is a word": (["--config.anchoring.enabled=maybe"], "Non-boolean argument to boolean flag"),
    "a tuple is half": (["--config.data.std=(0.5,"], "Error while parsing string: (0.5, as tuple"),
    "the second of two is wrong": (["--config.seed=1", "--config.seed=two"], "--config.seed=two: invalid literal"),
    "a bool flag is a word": (["--profile=maybe"], "--profile=maybe: ('Non-boolean argument to boolean flag'"),
    "a flag file is missing": (["--flagfile=/nowhere"], "Unable to open flagfile: [Errno 2] No such file"),
    "a flag is empty": (["--workdir="], "--workdir must be the path of a folder; got ''"),
    "a flag of processes": (["--num_processes=0"], "--num_processes=0: 0 is not a positive integer"),
    "part of the processes": (
        ["--process_id=0"],
        "--coordinator, --num_processes and --process_id must be given together",
    ),
    "a process index too large": (
        ["--coordinator=a:1", "--num_processes=2", "--process_id=2"],
        "--process_id must lie in 0..1, below --num_processes; got 2",
    ),
}


@pytest.mark.parametrize("case", INVALID_COMMAND_LINES)
def test_train_rejects_invalid_flags(case, tmp_path):
    flags, message = INVALID_COMMAND_LINES[case]
    with unchanged(tmp_path):
        assert_error(training(tmp_path, *flags), 2, message)


INVALID_VALUES = {
    "--config.anchoring.mask_prob=nan": "anchoring.mask_prob must be in [0, 1]; got nan",
    "--config.anchoring.mask_prob=1e400": "anchoring.mask_prob must be in [0, 1]; got inf",
    "--config.optimizer.learning_rate=-0.1": "optimizer.learning_rate must be at least 0; got -0.1",
    "--config.optimizer.learning_rate=inf": "optimizer.learning_rate must be finite and within the range of float32",
    "--config.optimizer.weight_decay=1e300": "optimizer.weight_decay must be finite and within the range of float32",
    "--config.optimizer.norm_weight_decay=nan": "optimizer.norm_weight_decay must be finite",
    "--config.optimizer.warmup_epochs=1e300": "optimizer.warmup_epochs must be in [0, 1000000]; got 1e+300",
    "--config.optimizer.milestones_epochs=(-1,)": "optimizer.milestones_epochs must be in [0, 1000000]; got (-1,)",
    "--config.optimizer.milestones_epochs=('a',)": "milestones_epochs must be a tuple of numbers; got ('a',) (tuple)",
    "--config.optimizer.frozen=(1,)": "optimizer.frozen must be a tuple of strings; got (1,) (tuple)",
    "--config.seed=-1": "seed must be in [0, 4294967295]; got -1",
    "--config.training.batch_size=1000000000000000000000000000000": "batch_size must be no larger than 2147483647",
    "--config.training.total_epochs=1e30": "training.total_epochs must be in [0, 1000000]; got 1e+30",
    "--config.evaluation.num_bins=1000000000000": "evaluation.num_bins must be no larger than 2147483647",
    "--config.augmentation.num_operations=1000000": "augmentation.num_operations must be in [1, 100]; got 1000000",
    "--config.augmentation.resized_crop=('a','b')": "augmentation.resized_crop must be a tuple of numbers",
    "--config.data.workers=100000": "data.workers must be in [0, 1000]; got 100000",
    "--config.data.mean=(nan,)": "data.mean must be a tuple of numbers; got ('(nan,)',) (tuple)",
    "--config.data.mean=(1e400,)": "data.mean must be finite",
    "--config.data.mean=grey": "data.mean must be a tuple of numbers; got ('grey',) (tuple)",
    "--config.data.std=(0.1,0.2)": "data.std must have one number for each of the 1 channels",
    "--config.data.streaming=True": "data.image_size=0; a stream needs a number of pixels",
    "--config.data.test_split=../train": "unknown split of digits '../train'; allowed: test, train",
    "--config.model.options.width=0": "option 'width' of model 'resnet18' must be an integer >= 1; got 0",
    "--config.model.options.width=1000000000000": "model.options.width must be no larger than 2147483647",
    "--config.model.dtype=float8": "unknown dtype 'float8'; allowed: bfloat16, float32",
    "--config.model.weights=timm": "model.weights must be SOURCE:FILE, where SOURCE is one of torchvision, timm",
    "--config.model.weights=timm:": "model.weights must be SOURCE:FILE, where SOURCE is one of torchvision, timm",
    "--config.model.weights=timm:gs://b/w.pth": "a file on this machine; got 'timm:gs://b/w.pth'; download it",
    "--config=s3://bucket/c.py": "--config is 's3://bucket/c.py', an address; only folders of this machine",
    "--workdir=hdfs://name/run": "--workdir is 'hdfs://name/run', an address; only folders of this machine",
    "--config.model.weights=keras:x.h5": "model.weights must be SOURCE:FILE, where SOURCE is one of torchvision, timm",
}


@pytest.mark.parametrize("flag", INVALID_VALUES)
def test_train_rejects_invalid_config_values(flag, tmp_path):
    with unchanged(tmp_path):
        assert_error(training(tmp_path, flag), 1, INVALID_VALUES[flag])


@pytest.mark.parametrize("work", ["numpy.empty(1 << 50)", "jax.numpy.zeros(1 << 40).block_until_ready()"])
def test_run_reports_too_little_memory(work, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"import jax\nimport numpy\nfrom anchor_jax.cli import app\napp.run(lambda: {work})\n")
    assert_error(quick_command(script), 1, "use a smaller batch or model, a larger config.training.accumulation_steps")
