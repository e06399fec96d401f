"""Speed benchmarks: they run, write valid result files, and time the same work in JAX and PyTorch."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from commands import assert_told, quick_command
from flax import traverse_util
from torch.utils.flop_counter import FlopCounterMode

import anchor_jax as aj
from anchor_jax import config as configuration
from anchor_jax import models
from anchor_jax.core.losses import anchored_cross_entropy
from anchor_jax.data import Normalization, normalize
from benchmarks.pytorch.networks import ResNet18
from benchmarks.pytorch.prediction import Prediction
from benchmarks.pytorch.training import Training

OFFICIAL = os.environ.get("ANCHORING_OFFICIAL")  # a clone of LLNL/anchoring
TINY = ("--width=4", "--batch_size=8", "--samples=2")
BATCH, WIDTH, CLASSES = 8, 4, 10


def benchmark(name, *arguments):
    """Run a benchmark in a new process, on one device."""
    # threads that wait for each other are slow while other tests run
    return quick_command("-m", f"benchmarks.{name}", *arguments, OMP_NUM_THREADS="1")


def numbers_of(done, file):
    """Return the content of a benchmark's result file, after checking its format."""
    assert done.returncode == 0, done.stderr
    content = json.loads(file.read_text())
    assert content.keys() == {"environment", "results"}
    for result in content["results"]:
        assert result.keys() == {"case", "implementation", "metric", "unit", "median", "samples"}
        assert np.median(result["samples"]) == result["median"] >= 0
    return content


def metrics_of(content):
    return {(result["implementation"], result["metric"]) for result in content["results"]}


def test_train_times_both_implementations(tmp_path):
    file = tmp_path / "train.json"
    implementations = "--implementations=anchor_jax,pytorch-eager"
    done = benchmark("speed.train", *TINY, "--steps=1", "--cases=standard,masked", implementations, "--json", file)
    content = numbers_of(done, file)
    timed = {"images_per_second", "fraction_of_peak", "compile_time"}
    assert metrics_of(content) == {("jax", "flop_rate"), ("anchor_jax", "time_ratio")} | {
        (implementation, metric) for implementation in ("anchor_jax", "pytorch-eager") for metric in timed
    }
    # PyTorch counts products with padding, and counts products only
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        ResNet18(6, CLASSES, WIDTH)(torch.zeros(BATCH, 6, 32, 32))
    assert content["environment"]["flop_per_step"]["masked"] == pytest.approx(3 * counter.get_total_flops(), rel=0.2)


def test_inference_times_predictions_and_blt(tmp_path):
    file = tmp_path / "inference.json"
    sizes = ("--num_references=2", "--inputs=4", "--bank=6", "--residuals=5", "--implementations=anchor_jax,pytorch-e")
    done = benchmark("speed.inference", *TINY, *sizes, "--json", file)
    metrics = {"inputs_per_second", "peak_memory", "seconds", "ratio_to_random"}
    assert metrics_of(numbers_of(done, file)) == {("anchor_jax", metric) for metric in metrics}
    assert "no implementation 'pytorch-e'; available: anchor_jax, pytorch-eager, pytorch-compiled\n" in done.stdout


def test_inference_measures_what_it_knows():
    done = benchmark("speed.inference", "--measure=speed,memmory")
    assert_told(done, 1, "unknown measurement 'memmory'; allowed: memory, speed, transduction. Did you mean 'memory'?")


@pytest.mark.parametrize("name", ["speed.train", "speed.inference"])
def test_official_must_be_a_clone(name, tmp_path):
    done = benchmark(name, "--official", tmp_path)
    assert_told(done, 1, f"--official={tmp_path} has no CIFAR/wrapper.py")


@pytest.mark.skipif(not OFFICIAL, reason="set ANCHORING_OFFICIAL to a clone of LLNL/anchoring")
def test_released_code_is_timed(tmp_path):
    file = tmp_path / "train.json"
    released = ["released-loader", "released-nchw", "released-channels-last"]
    arguments = ("--batch_size=4", "--samples=1", "--steps=1", "--cases=masked", f"--official={OFFICIAL}")
    done = benchmark("speed.train", *arguments, f"--implementations={','.join(released)}", "--json", file)
    assert {(name, "images_per_second") for name in released} <= metrics_of(numbers_of(done, file))
    arguments = ("--batch_size=2", "--samples=1", "--inputs=2", "--bank=2", "--residuals=2", f"--official={OFFICIAL}")
    done = benchmark("speed.inference", *arguments, "--num_references=2", "--json", file)
    assert {(name, "peak_memory") for name in released[1:]} <= metrics_of(numbers_of(done, file))


def test_pytorch_baseline_matches_our_logits_and_loss():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(BATCH, 32, 32, 6)).astype(np.float32)
    images = rng.integers(0, 256, (BATCH, 32, 32, 3), np.uint8)
    labels = rng.integers(0, CLASSES, BATCH, np.int32)
    model = models.create("resnet18", CLASSES, width=WIDTH)
    variables = jax.jit(model.init)(jax.random.key(0, impl="rbg"), inputs)
    forward = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"])[0])
    logits = forward(variables, inputs)

    network = ResNet18(6, CLASSES, WIDTH)
    network.load_state_dict(torch_state(variables))
    config = configuration.base()
    config.data.mean, config.data.std = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)
    training = Training(network, config, images, labels)
    np.testing.assert_allclose(
        network(torch.from_numpy(inputs).permute(0, 3, 1, 2)).detach(), logits, rtol=1e-3, atol=1e-4
    )
    for masked in (False, True):
        loss = training.loss(torch.from_numpy(inputs), torch.from_numpy(labels).long(), torch.tensor(masked))
        mask = jnp.full(BATCH, masked)
        ours = anchored_cross_entropy(logits, jnp.asarray(labels), mask, masked_target="uniform").mean()
        assert loss.item() == pytest.approx(float(ours), rel=1e-4)


def test_pytorch_predicts_the_mean_over_references():
    rng = np.random.default_rng(0)
    images, references = (rng.integers(0, 256, (num, 8, 8, 3), np.uint8) for num in (BATCH, 3))
    model = models.create("resnet18", CLASSES, width=WIDTH)
    variables = jax.jit(model.init)(jax.random.key(0, impl="rbg"), np.zeros((1, 8, 8, 6), np.float32))
    config = configuration.base()
    config.data.mean, config.data.std = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)
    x, bank = (normalize(jnp.asarray(each), Normalization((0.5,) * 3, (0.2,) * 3)) for each in (images, references))
    ours = jax.jit(lambda v, x, r: aj.classify(model.apply, v, x, r).probs)(variables, x, bank)
    network = ResNet18(6, CLASSES, WIDTH)
    network.load_state_dict(torch_state(variables))
    with torch.inference_mode():
        mean, variance = Prediction(network.eval(), config, references, mode=None)(torch.from_numpy(images))
    np.testing.assert_allclose(mean, ours, atol=1e-5)
    assert variance.min() > -1e-6
    assert variance.max() > 1e-6


def torch_state(variables):
    """Convert variables of our ResNet-18 to a state dict of the baseline, whose layers have the same names."""
    names = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    state = {}
    for collection in variables.values():
        for path, value in traverse_util.flatten_dict(collection).items():
            *layers, leaf = path
            name = ".".join([*layers, names[leaf]]).replace("shortcut_", "shortcut.")
            name = f"blocks.{name}" if layers[0].startswith("stage") else name
            axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[value.ndim]
            state[name] = torch.from_numpy(np.array(value).transpose(axes))
    batch_norms = [name.removesuffix("running_mean") for name in state if name.endswith("running_mean")]
    return state | {f"{name}num_batches_tracked": torch.tensor(0) for name in batch_norms}


def test_pytorch_baseline_draws_all_crops_and_flips():
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 6, 3), np.uint8)
    config = configuration.base()
    config.augmentation.crop_padding = 2
    training = Training(torch.nn.Identity(), config, images, np.arange(3))
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    allowed = {
        crop[:, ::way].tobytes()
        for crop in (padded[1, top : top + 6, left : left + 6] for top in range(5) for left in range(5))
        for way in (1, -1)
    }
    torch.manual_seed(0)
    drawn = {image.tobytes() for image in training._augment(torch.ones(400, dtype=torch.long)).numpy()}
    assert len(allowed) == 50
    assert drawn == allowed
    np.testing.assert_array_equal(training._crop_center(torch.tensor([2, 0])), images[[2, 0]])
