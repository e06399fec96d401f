"""Eight devices on the CPU, so that what is divided over devices can be seen to be the same on one."""

import json
import os
from pathlib import Path
from typing import NamedTuple

from commands import Done, quick_command, xla_flags

os.environ["XLA_FLAGS"] = xla_flags(8)

import imagenet_like as likeness
import jax
import numpy as np
import pytest
import with_torchvision  # noqa: F401
from digits import context_of, digits_config
from ml_collections import ConfigDict

from anchor_jax import config as configuration
from anchor_jax.evaluation import legacy, storage
from anchor_jax.evaluation.results import SuiteResult
from anchor_jax.runs import checkpoint
from anchor_jax.runs import record as run_record
from anchor_jax.runtime.compilation_cache import MIN_JAX_VERSION
from anchor_jax.training.loop import prepare, train


def tiny_config(folder) -> ConfigDict:
    """A run of 12 steps in two epochs, of an MLP on 96 images, in an .npz file of this folder."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, num in (("train", 96), ("test", 40)):
        labels = np.arange(num) % 3
        images = rng.integers(0, 80, (num, 6, 6, 1)) + 80 * labels[:, None, None, None]
        arrays |= {f"x_{split}": images.astype(np.uint8), f"y_{split}": labels}
    np.savez(folder / "tiny.npz", **arrays)
    config = configuration.base()
    config.data.source = "npz"
    config.data.path = str(folder / "tiny.npz")
    config.augmentation.crop_padding = 1
    config.augmentation.flip = True
    config.model.name = "mlp"
    config.model.options = ConfigDict({"hidden": (16,)})
    config.anchoring.mask_prob = 0.5
    config.optimizer.learning_rate = 0.05
    config.training.batch_size = 16
    config.training.total_epochs = 2.0
    config.evaluation.every_epochs = 1.0
    config.evaluation.batch_size = 16
    config.evaluation.num_references = 4
    config.evaluation.saved_references = 12
    config.checkpoint.every_epochs = 0.5
    config.logging.every_steps = 2
    return config


def config_file(folder, config=None):
    """A config as a file; that of the fixture `tiny` by default."""
    file = folder / "config.py"
    values = (config or tiny_config(folder)).to_dict()
    file.write_text(
        "from anchor_jax.config import base\n\n\ndef get_config():\n    config = base()\n"
        f"    config.update({values!r})\n    return config\n"
    )
    return file


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keeps the tests, and the commands that they run, out of the user's own cache; what one compiles others load."""
    if jax.__version_info__ >= MIN_JAX_VERSION:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANCHOR_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def tiny(tmp_path) -> ConfigDict:
    return tiny_config(tmp_path)


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory) -> Path:
    """The workdir of an MLP that is trained on digits."""
    workdir = tmp_path_factory.mktemp("digits") / "run"
    train(digits_config(tiny_config(workdir.parent)), workdir)
    return workdir


@pytest.fixture(scope="session")
def digits_context(digits_run):
    return context_of(digits_run)


class Exported(NamedTuple):
    """A run of a tiny MLP, and the command that exported it to a file, with 10 references."""

    workdir: Path
    ended: Done
    file: Path


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Exported:
    folder = tmp_path_factory.mktemp("export")
    config = tiny_config(folder)
    config.training.total_epochs = 0.5
    workdir, file = folder / "run", folder / "run.zip"
    train(config, workdir)
    ended = quick_command("-m", "anchor_jax.export", f"--workdir={workdir}", "--num_references=10", file)
    return Exported(workdir, ended, file)


@pytest.fixture(scope="session")
def imagenet_like(tmp_path_factory) -> likeness.ImagenetLike:
    return likeness.write(tmp_path_factory.mktemp("imagenet_like"))


def write_results(folder, suite, facts, found):
    """Store results as a suite does; `found` is number of references -> (flat name -> value, name -> array)."""
    for num, (metrics, arrays) in found.items():
        scores = legacy.import_scores(suite, metrics)
        storage.ResultStore(folder).add(SuiteResult(suite, num, scores, arrays, facts))


def begun(config, workdir):
    """A run of which the record is written, and no step is done."""
    training = prepare(config, workdir)
    with run_record.lock_workdir(training.run):
        return training


def optimised(function, **options):
    """`jax.jit` of what runs for long, or is itself looked at: the program that XLA makes outside of the tests."""
    usual = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
    return jax.jit(function, compiler_options=usual | {"xla_cpu_use_fusion_emitters": True}, **options)


def assert_same_bits(one, other):
    """Two trees of arrays are the same, bit for bit."""
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), one, other)


class StopAfterSave(BaseException):
    pass


def stop_after_saves(monkeypatch, count):
    """Let a run die right after it has asked for its checkpoint number `count`."""
    saved = []
    save = checkpoint.save

    def save_and_die(*args):
        save(*args)
        saved.append(1)
        if len(saved) == count:
            raise StopAfterSave

    monkeypatch.setattr(checkpoint, "save", save_and_die)


def records(workdir):
    """The lines of metrics.jsonl without what no two runs share."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "per_second" not in key} for line in lines]
