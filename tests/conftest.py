"""Shared fixtures, and eight CPU devices, so that sharding is tested on any machine."""

import contextlib
import json
import os
import tarfile
from pathlib import Path
from typing import NamedTuple

from commands import HAS_FUSION_EMITTERS_FLAG, Done, quick_command, xla_flags

os.environ["XLA_FLAGS"] = xla_flags(8)

import imagenet_like as likeness
import jax
import numpy as np
import pytest
from digits import context_of, digits_config
from ml_collections import ConfigDict

from anchor_jax import config as configuration
from anchor_jax.evaluation import legacy, storage
from anchor_jax.evaluation.results import SuiteResult
from anchor_jax.runs import checkpoint
from anchor_jax.runs import record as run_record
from anchor_jax.runtime.compilation_cache import MIN_JAX_VERSION
from anchor_jax.training.loop import prepare, train
from benchmarks.pytorch.torchvision_import import import_torchvision

with contextlib.suppress(ImportError):
    import_torchvision()  # so that tests can import it next to any build of PyTorch


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m min_versions`, import only files with such tests; others need libraries that `make test-min` lacks."""
    if config.option.markexpr == "min_versions" and collection_path.suffix == ".py":
        return "mark.min_versions" not in collection_path.read_text() or None
    return None


def tiny_config(folder) -> ConfigDict:
    """Return the config of a run of 12 steps in two epochs: an MLP on 96 images, written to an .npz in this folder."""
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
    config.anchoring.masked_target = "uniform"  # so that the loss depends on the mask
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
    """Write a config to a file; by default, that of the fixture `tiny`."""
    file = folder / "config.py"
    values = (config or tiny_config(folder)).to_dict()
    file.write_text(
        "from anchor_jax.config import base\n\n\ndef get_config():\n    config = base()\n"
        f"    config.update({values!r})\n    return config\n"
    )
    return file


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Give the tests and their commands caches of their own, shared by all workers, instead of the user's cache."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    if jax.__version_info__ >= MIN_JAX_VERSION:
        jax.config.update("jax_compilation_cache_dir", str(root / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANCHOR_JAX_CACHE", str(root / "cache"))
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
    """A run of a tiny MLP that was exported to a file, with 10 references."""

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


@pytest.fixture
def old_run(tmp_path) -> Path:
    """A folder with a run made by version 0.1.0 (`run/`), its config, export and predictions; see test_old_runs.py."""
    folder = tmp_path / "run_0_1_0"
    with tarfile.open(Path(__file__).parent / "fixtures/run_0_1_0.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="session")
def imagenet_like(tmp_path_factory) -> likeness.ImagenetLike:
    return likeness.write(tmp_path_factory.mktemp("imagenet_like"))


def write_results(folder, suite, facts, found):
    """Store results as a suite does; `found` is number of references -> (flat name -> value, name -> array)."""
    for num, (metrics, arrays) in found.items():
        scores = legacy.import_scores(suite, metrics)
        storage.ResultStore(folder).add(SuiteResult(suite, num, scores, arrays, facts))


def begun(config, workdir):
    """Create a run without any steps; only its record is written."""
    training = prepare(config, workdir)
    with run_record.lock_workdir(training.run):
        return training


def optimised(function, **options):
    """Apply `jax.jit` with full optimization, for long computations or tests of the compiled program itself."""
    usual = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
    if HAS_FUSION_EMITTERS_FLAG:
        usual["xla_cpu_use_fusion_emitters"] = True
    return jax.jit(function, compiler_options=usual, **options)


def assert_same_bits(one, other):
    """Assert that two trees of arrays are equal, bit for bit."""
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), one, other)


class StopAfterSave(BaseException):
    pass


def stop_after_saves(monkeypatch, count):
    """Make a run die right after it has requested its checkpoint number `count`."""
    saved = []
    save = checkpoint.save

    def save_and_die(*args):
        save(*args)
        saved.append(1)
        if len(saved) == count:
            raise StopAfterSave

    monkeypatch.setattr(checkpoint, "save", save_and_die)


def records(workdir):
    """Return the lines of metrics.jsonl without throughputs, which differ between runs."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "per_second" not in key} for line in lines]
