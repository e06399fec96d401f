"""Random draws of training: a function of seed and step alone, with independent keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_same_bits

from anchor_jax.training.draws import draw_step, epoch_order, seed_keys, step_keys


def draw(config, seed=0, batch_size=16, bank_size=5, step=0):
    return draw_step(step_keys(jax.random.key(seed)), step, batch_size, bank_size, config.anchoring)


def reference_rows(config, **sizes):
    return [draw(config, seed, **sizes).per_example.reference_rows for seed in range(8)]


def without_keys(draws):
    """The draws as plain numbers."""
    return jax.tree.map(lambda leaf: leaf if leaf.dtype in (bool, np.int32) else jax.random.key_data(leaf), draws)


# keys


def test_draws_depend_on_seed_and_step_alone(tiny):
    step_key = seed_keys(3).step
    draw_at = jax.jit(
        lambda step: draw_step(step_keys(jax.random.fold_in(step_key, step)), step, 16, 5, tiny.anchoring)
    )
    one, again, other = draw_at(4), draw_at(4), draw_at(5)
    assert_same_bits(without_keys(one), without_keys(again))
    assert (one.per_example.reference_rows != other.per_example.reference_rows).any()
    assert set(np.unique(one.per_example.reference_rows)) <= set(range(5))


def test_step_keys_are_used_only_once(tiny):
    keys = step_keys(jax.random.key(3))
    draws = draw_step(keys, 0, 16, 5, tiny.anchoring)
    used = [
        draws.per_example.augment_keys,
        draws.per_example.erase_keys,
        jax.random.split(keys.references, 16),
        jnp.stack([keys.mask, draws.mix_key]),
    ]
    assert len({tuple(data) for some in used for data in np.asarray(jax.random.key_data(some))}) == 3 * 16 + 2


def test_epoch_order_is_a_new_permutation_every_epoch():
    orders = [np.asarray(epoch_order(jax.random.key(0), epoch, 50)) for epoch in range(2)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert (orders[0] != orders[1]).any()


# masks


def test_batch_mask_is_one_draw_for_all_examples(tiny):
    draws = [draw(tiny, seed) for seed in range(16)]
    assert all((each.per_example.mask == each.batch_is_masked).all() for each in draws)
    assert {bool(each.batch_is_masked) for each in draws} == {False, True}
    assert draws[0].batch_is_masked.shape == ()
    assert draws[0].per_example.mask.shape == (16,)


@pytest.mark.parametrize(("prob", "masked"), [(0.25, [3, 7, 11]), (0.5, [1, 3, 5, 7, 9, 11]), (0.4, [2, 4, 7, 9])])
def test_periodic_masks_are_evenly_spaced(tiny, prob, masked):
    tiny.anchoring.mask_prob, tiny.anchoring.mask_draw = prob, "periodic"
    draws = [draw(tiny, step, step=step) for step in range(12)]
    assert [step for step, each in enumerate(draws) if each.batch_is_masked] == masked
    assert all((each.per_example.mask == each.batch_is_masked).all() for each in draws)


@pytest.mark.parametrize("prob", [0.1, 0.25, 1 / 3, 0.7])
def test_periodic_masks_are_as_many_as_their_fraction(tiny, prob):
    tiny.anchoring.mask_prob, tiny.anchoring.mask_draw = prob, "periodic"
    steps = np.arange(10_000, dtype=np.int32)
    is_masked = jax.vmap(lambda step: draw(tiny, step=step).batch_is_masked)(steps)
    assert abs(int(is_masked.sum()) - prob * 10_000) <= 1


def test_overlay_draws_masks_and_references_like_anchoring(tiny):
    anchored = draw(tiny, 3)
    tiny.anchoring.enabled, tiny.anchoring.overlay_weight = False, 0.5
    assert_same_bits(without_keys(draw(tiny, 3)), without_keys(anchored))


def test_example_masks_have_no_batch_mask(tiny):
    tiny.anchoring.mask_per = "example"
    draws = draw(tiny)
    assert draws.batch_is_masked is None
    assert 0 < draws.per_example.mask.sum() < 16


def test_group_masks_are_one_draw_for_each_group(tiny):
    anchoring = tiny.anchoring
    anchoring.references, anchoring.mask_per, anchoring.group_size = "batch", "group", 4
    draws = [draw(tiny, seed) for seed in range(8)]
    masks = np.array([each.per_example.mask for each in draws]).reshape(8, 4, 4)
    assert all(each.batch_is_masked is None for each in draws)
    assert (masks == masks[..., :1]).all()
    assert len({tuple(mask[:, 0]) for mask in masks}) > 4  # groups are independent of each other
    anchoring.mask_per, ungrouped = "example", draw(tiny, 3)
    assert_same_bits(draws[3].per_example.reference_rows, ungrouped.per_example.reference_rows)


@pytest.mark.parametrize("mask_per", ["batch", "group", "example"])
def test_no_mask_is_drawn_without_masking(tiny, mask_per):
    tiny.anchoring.mask_prob, tiny.anchoring.mask_per, tiny.anchoring.group_size = 0.0, mask_per, 4
    draws = draw(tiny)
    assert draws.batch_is_masked is None
    assert draws.per_example.mask is None
    assert draws.per_example.reference_rows is not None


def test_standard_training_draws_no_references_and_no_mask(tiny):
    tiny.anchoring.enabled = False
    draws = draw(tiny)
    assert (draws.batch_is_masked, draws.per_example.mask, draws.per_example.reference_rows) == (None, None, None)


# references


def test_references_from_the_batch_are_of_the_same_group(tiny):
    tiny.anchoring.references, tiny.anchoring.group_size = "batch", 4
    draws = reference_rows(tiny)
    assert all((rows // 4 == np.arange(16) // 4).all() for rows in draws)
    assert {int(row) for rows in draws for row in rows} == set(range(16))


def test_references_without_replacement_permute_each_group(tiny):
    tiny.anchoring.references, tiny.anchoring.group_size, tiny.anchoring.replace = "batch", 4, False
    draws = reference_rows(tiny)
    groups = np.array(draws).reshape(8, 4, 4)
    np.testing.assert_array_equal(np.sort(groups), np.broadcast_to(np.arange(16).reshape(4, 4), groups.shape))
    assert len({tuple(group - 4 * index) for rows in groups for index, group in enumerate(rows)}) > 10


def test_references_without_replacement_are_distinct_bank_rows(tiny):
    tiny.anchoring.replace = False
    draws = reference_rows(tiny, bank_size=20)
    assert {len(set(rows.tolist())) for rows in draws} == {16}
    assert {int(row) for rows in draws for row in rows} == set(range(20))
