"""Training on a stream of encoded images: the ImageNet configs, resumed and sharded runs, and invalid configs."""

import importlib
import json

import jax
import numpy as np
import pytest
from conftest import StopAfterSave, assert_same_bits, begun, records, stop_after_saves
from test_config import STREAMING

from anchor_jax import UserError, load_predictor
from anchor_jax.core.errors import CorruptDataWarning
from anchor_jax.evaluation import Options, evaluate
from anchor_jax.training import source
from anchor_jax.training.loop import prepare, train

# options of each model that compile quickly
SMALL = {
    "regnet_y_800mf": {"stage_sizes": (1, 1), "widths": (8, 16), "group_width": 8, "stem_width": 8},
    "vit": {"patch_size": 8, "width": 16, "depth": 2, "num_heads": 2, "stochastic_depth": 0.1},
    "swin": {"width": 8, "stage_sizes": (1, 2), "num_heads": (1, 2), "window": 4, "stochastic_depth": 0.2},
}


@pytest.fixture
def streamed(tiny, imagenet_like):
    """A config of 12 steps on a stream, with a bank of 12 images."""
    tiny.data.source, tiny.data.path, tiny.data.test_split = "folder", str(imagenet_like.folder), "val"
    tiny.data.streaming, tiny.data.image_size = True, 16
    tiny.data.mean, tiny.data.std = (0.5,) * 3, (0.25,) * 3
    tiny.augmentation.crop_padding, tiny.augmentation.resized_crop = 0, (0.3, 1.0)
    tiny.anchoring.bank_size = 12
    tiny.training.batch_size, tiny.training.total_epochs = 40, 2.0
    return tiny


def small(experiment, imagenet_like):
    """Return an experiment's config with a small model and small images, otherwise unchanged."""
    given = importlib.import_module(f"configs.{experiment}").get_config()
    given.data.source, given.data.path, given.data.test_split = "folder", str(imagenet_like.folder), "val"
    given.data.image_size = 32
    family = next((family for family in SMALL if given.model.name.startswith(family)), "vit")
    given.model.options.update(SMALL[family])
    given.training.batch_size, given.evaluation.batch_size = 64, 64
    given.evaluation.num_references, given.evaluation.saved_references = 2, 4
    return given


@pytest.mark.parametrize("experiment", STREAMING)
def test_imagenet_config_makes_a_step(experiment, imagenet_like, tmp_path):
    given = small(experiment, imagenet_like)
    trainer = prepare(given, tmp_path / "run")
    carry = trainer.init_carry()
    before = jax.device_get(carry[0].params)
    (current, _), metrics = trainer.train_steps(carry, 1)
    trainer.source.close()
    assert int(current.step) == 1
    assert 0 < metrics["loss"] < 20
    assert 0 < metrics["gradient_norm"] < np.inf
    assert 0 <= metrics["input_wait"] <= 1
    moved = jax.tree.map(lambda old, new: (old != new).any(), before, current.params)
    assert any(jax.tree.leaves(moved)) == (metrics["learning_rate"] > 0)
    assert bool(current.average) == (given.training.ema_decay > 0)


def test_streaming_run_is_trained_evaluated_and_loaded(streamed, imagenet_like, tmp_path, capsys):
    streamed.training.total_epochs = 1.0
    train(streamed, tmp_path / "run")
    out = capsys.readouterr().out
    assert "240 training images [16, 16, 3], 4 classes; evaluated on 60 test images" in out
    assert "% waiting for input" in out
    assert all("train/input_wait" in line for line in records(tmp_path / "run") if "train/loss" in line)
    found = evaluate(tmp_path / "run", ("clean", "protocols"), (4,))
    assert found["clean"]["4"]["accuracy"] == pytest.approx(records(tmp_path / "run")[-1]["test/accuracy"])
    assert found["protocols"]["4"]["blt/accuracy"] > 0
    predictor = load_predictor(tmp_path / "run")
    assert predictor.references.shape == (12, 16, 16, 3)
    for name, value in (("temperature_scaling", True), ("conformal_calibration", "held_out")):
        suite = "clean" if value is True else "conformal"
        with pytest.raises(UserError, match=r"held out none, as a stream cannot; (omit|set) --"):
            evaluate(tmp_path / "run", (suite,), options=Options(**{name: value}, corruptions=()))


def test_corrupt_images_are_counted_and_too_many_end_the_run(streamed, tmp_path, capsys):
    streamed.data.train_split, streamed.data.max_corrupt_fraction = "corrupt", 0.1  # 4 of 40
    streamed.training.batch_size, streamed.training.total_epochs = 40, 3.0
    with pytest.warns(CorruptDataWarning, match="a corrupt image is replaced by another one: .*JPEG") as caught:
        train(streamed, tmp_path / "run")
    assert len({str(each.message) for each in caught if each.category is CorruptDataWarning}) == 4
    assert records(tmp_path / "run")[-2]["train/damaged_images"] == 4
    assert "4 corrupt images" in capsys.readouterr().out
    streamed.data.max_corrupt_fraction = 0.05
    with (
        pytest.warns(CorruptDataWarning),
        pytest.raises(UserError, match=r"of the 40 images of .* cannot be read: .*allows 2"),
    ):
        train(streamed, tmp_path / "other")


@pytest.mark.parametrize("references", ["bank", "batch"])
def test_resumed_streaming_run_is_the_same_bit_for_bit(streamed, tmp_path, monkeypatch, references):
    streamed.anchoring.references, streamed.data.repeats, streamed.data.label_noise = references, 2, 0.3
    uninterrupted = train(streamed, tmp_path / "uninterrupted")
    with monkeypatch.context() as patch:
        stop_after_saves(patch, 1)
        with pytest.raises(StopAfterSave):
            train(streamed, tmp_path / "run")
    assert records(tmp_path / "run")[-1]["step"] == 3
    assert_same_bits(train(streamed, tmp_path / "run"), uninterrupted)
    assert without_waits(tmp_path / "run") == without_waits(tmp_path / "uninterrupted")


def without_waits(workdir):
    return [{key: value for key, value in line.items() if "wait" not in key} for line in records(workdir)]


def test_sharded_state_trains_on_the_same_stream(streamed, tmp_path):
    streamed.model.options.hidden = (32, 32)
    replicated = train(streamed, tmp_path / "replicated")
    streamed.training.sharding = "fsdp"
    sharded = train(streamed, tmp_path / "sharded")
    assert sharded.params["Dense_0"]["kernel"].addressable_shards[0].data.size == 16 * 16 * 6 * 32 // 8
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5), *jax.device_get((sharded, replicated))
    )


def test_standard_network_trains_on_a_stream(streamed, tmp_path):
    streamed.anchoring.enabled, streamed.training.total_epochs = False, 0.5
    trained = train(streamed, tmp_path / "run")
    assert trained.params["Dense_0"]["kernel"].shape == (16 * 16 * 3, 16)


def test_bank_of_a_stream_has_central_crops(streamed, tmp_path):
    trainer = begun(streamed, tmp_path / "run")
    rows = source.bank_rows(trainer.source, streamed)
    assert len(rows) == trainer.data.bank_size == 12
    np.testing.assert_array_equal(trainer.data.bank_images, trainer.source.take(rows))
    assert trainer.data.images is None
    assert trainer.data.labels is None
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert set(record["references"]["rows"]) <= set(rows.tolist())


def test_label_noise_is_the_same_streamed_and_in_memory(streamed):
    streamed.data.label_noise = 0.25
    noisy, _ = source.open_source(streamed)
    streamed.data.streaming = False
    in_memory, _ = source.open_source(streamed)
    np.testing.assert_array_equal(noisy.labels(), in_memory.labels())
    streamed.data.label_noise = 0.0
    clean, _ = source.open_source(streamed)
    assert (noisy.labels() != clean.labels()).sum() == 60


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"anchoring.bank_size": 0}, r"bank_size=0 puts the complete training set on the devices.*; set a number"),
        ({"data.mean": ()}, r"data.mean and config.data.std are not measured on a stream; set both"),
        ({"data.image_size": 0}, r"image_size=0; a stream needs"),
        ({"augmentation.resized_crop": (0.5, 2.0)}, r"resized_crop must be \(\), or \(min, max\) area"),
        ({"optimizer.frozen": ("stem",)}, r"unknown parameters in config.optimizer.frozen 'stem'"),
    ],
)
def test_prepare_refuses_a_config_that_does_not_fit_a_stream(streamed, tmp_path, change, message):
    streamed.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=message):
        prepare(streamed, tmp_path / "run")
    assert not (tmp_path / "run/run.json").exists()
