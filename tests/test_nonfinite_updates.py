"""Updates with a NaN or infinite loss or gradient: they are skipped and counted; too many in a row end the run."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import records

from anchor_jax import UserError
from anchor_jax.runs import checkpoint
from anchor_jax.runs.state import NonFiniteCounter
from anchor_jax.training import model_batch
from anchor_jax.training.evaluator import Evaluator
from anchor_jax.training.loop import prepare, train


@pytest.fixture
def poisoned(tiny, monkeypatch):
    """A dataset with one white image out of 96 that the network sees as NaN: once per epoch of six steps."""
    arrays = dict(np.load(tiny.data.path))
    arrays["x_train"][40] = 255
    np.savez(tiny.data.path, **arrays)
    tiny.anchoring.enabled, tiny.training.ema_decay = False, 0.5
    tiny.augmentation.crop_padding, tiny.logging.every_steps = 0, 1
    tiny.data.mean, tiny.data.std = (0.5,), (0.25,)
    normalize = model_batch.normalize

    def poison(images, normalization):
        is_white = jnp.all(images == 255, axis=(1, 2, 3), keepdims=True)
        return jnp.where(is_white, jnp.nan, normalize(images, normalization))

    monkeypatch.setattr(model_batch, "normalize", poison)
    return tiny


def test_nonfinite_update_changes_only_the_step(poisoned, tmp_path):
    trainer = prepare(poisoned, tmp_path / "run")
    carry, skipped_steps = trainer.init_carry(), []
    for number in range(1, 13):
        before = jax.device_get(carry)
        carry, metrics = trainer.train_steps((carry[0], trainer.zero_totals()), number)
        after = jax.device_get(carry)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
        same = jax.tree.map(np.array_equal, before[0]._replace(step=0, skipped=0), after[0]._replace(step=0, skipped=0))
        if all(jax.tree.leaves(same)):
            skipped_steps.append(number)
            assert metrics["loss"] is None
            assert after[0].skipped.until in (number, skipped_steps[0])
            assert after[0].skipped.consecutive == 1
        else:
            assert not any(jax.tree.leaves((same.params, same.average["params"])))
            assert after[0].skipped.consecutive == 0
    assert len(skipped_steps) == 2
    assert [number > 6 for number in skipped_steps] == [False, True]
    assert carry[0].skipped == (2, 0, 1, skipped_steps[0])


def test_run_finishes_and_logs_the_skipped_updates(poisoned, tmp_path, capsys):
    poisoned.training.max_consecutive_nonfinite = 1
    last = train(poisoned, tmp_path / "run")
    assert last.skipped.total == 2
    logged = [line["train/skipped_updates"] for line in records(tmp_path / "run") if "train/loss" in line]
    assert logged[0] in (None, 1)
    assert logged[-1] == 2
    assert "2 updates skipped" in capsys.readouterr().out
    poisoned.training.max_consecutive_nonfinite = 0  # skipped updates that were allowed remain allowed
    assert train(poisoned, tmp_path / "run").skipped == (2, 0, 0, 0)


def test_nonfinite_update_ends_the_run_by_default(poisoned, tmp_path):
    poisoned.logging.every_steps, poisoned.evaluation.every_epochs = 6, 1.0
    poisoned.checkpoint.every_epochs = 1.0
    message = r"the loss or its gradient is not finite at step \d+ of .*; no checkpoint was written"
    with pytest.raises(UserError, match=message) as ended:
        train(poisoned, tmp_path / "run")
    number = int(str(ended.value).split("at step ")[1].split()[0])
    trainer = prepare(poisoned, tmp_path / "again")
    (state, _), _ = trainer.train_steps(trainer.init_carry(), 6)
    assert state.skipped.until == number


@pytest.mark.parametrize(
    ("finite", "expected"),
    [
        ([1, 1, 1], (0, 0, 0, 0)),
        ([1, 0, 0, 1, 0], (3, 1, 2, 3)),
        ([0, 0, 0], (3, 3, 3, 3)),
        ([0, 0, 1, 1], (2, 0, 2, 2)),
    ],
)
def test_nonfinite_counter_finds_the_longest_streak(finite, expected):
    skipped = NonFiniteCounter.zero()
    for number, is_finite in enumerate(finite, start=1):
        skipped = skipped.update(jnp.bool_(not is_finite), jnp.int32(number))
    assert skipped == expected


@pytest.mark.parametrize("part", ["params", "opt_state", "average"])
def test_nonfinite_state_is_not_saved(tiny, tmp_path, part):
    tiny.training.ema_decay = 0.5
    trainer = prepare(tiny, tmp_path / "run")
    current, totals = trainer.init_carry()
    leaves, structure = jax.tree.flatten(getattr(current, part))
    broken = jax.tree.unflatten(structure, [leaf + np.inf for leaf in leaves])
    with checkpoint.open_manager(tmp_path / "run", tiny) as checkpoints:
        saved = checkpoint.Snapshot((current._replace(step=jnp.int32(3)), totals), 3)
        checkpoint.save(checkpoints, saved, {"accuracy": 0.5})
        broken_saved = checkpoint.Snapshot((current._replace(step=jnp.int32(4), **{part: broken}), totals), 4)
        with pytest.raises(UserError, match=r"not finite after step 4 of .*; the checkpoint of step 3 is good"):
            checkpoint.save(checkpoints, broken_saved, {"accuracy": 0.5})
    assert [folder.name for folder in (tmp_path / "run/checkpoints").glob("[0-9]*")] == ["3"]


def test_nonfinite_scores_are_not_saved(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(Evaluator, "run", lambda *_: {"accuracy": float("inf")})
    with pytest.raises(UserError, match=r"accuracy is inf at step 3"):
        train(tiny, tmp_path / "run")
    for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
