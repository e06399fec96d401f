"""Tests of the structure of training steps, for a small network of every family: loops, copies, communication.

Their programs are compiled for CPUs; those for TPUs and GPUs are in test_planning_compilers.py.
"""

import functools
from typing import NamedTuple

import pytest
from step_programs import CASES, is_over_batch, max_all_reduces, small_step

from anchor_jax.planning.estimate import Estimate, estimate
from anchor_jax.planning.hlo import parse_module
from anchor_jax.planning.step import plan_step
from anchor_jax.planning.targets import parse_target
from anchor_jax.runtime import mesh as mesh_lib

NUM_DEVICES = 2
MAX_GATHERS = 3  # rows of images, labels and references
MAX_COPIES = 0.25  # of the bytes of tiny networks; XLA on CPU transposes around convolutions


class Compiled(NamedTuple):
    """What XLA made of a step on CPU devices, and what the step is for a TPU before it is compiled."""

    estimate: Estimate
    max_all_reduces: int
    lowered_for_tpu: str


@functools.cache
def compiled(case):
    step = plan_step(*small_step(case, NUM_DEVICES), mesh_lib.mesh(NUM_DEVICES))
    traced = step.trace()
    module = parse_module(traced.lower().compile().as_text())
    estimated = estimate(module, parse_target(f"h200:{NUM_DEVICES}"), loops_over_steps=False)
    return Compiled(estimated, max_all_reduces(step), traced.lower(lowering_platforms=("tpu",)).as_text())


@pytest.mark.parametrize("case", CASES)
def test_step_has_no_loop_over_the_batch(case):
    loops = compiled(case).estimate.loops
    assert [loop for loop in loops if loop.trips is None or is_over_batch(loop.trips)] == []


@pytest.mark.parametrize("case", [case for case in CASES if "swin" not in case])
def test_step_selects_only_rows_by_index_on_tpu(case):
    """Indices that depend on data become loops; those of SwinV2's position bias are constant."""
    text = compiled(case).lowered_for_tpu
    assert '"stablehlo.scatter"' not in text
    assert "stablehlo.while" not in text
    assert text.count('"stablehlo.gather"') <= MAX_GATHERS


@pytest.mark.parametrize("case", CASES)
def test_step_copies_little(case):
    found = compiled(case).estimate
    assert found.copies <= MAX_COPIES * found.seconds


@pytest.mark.parametrize("case", CASES)
def test_step_reduces_gradients_at_once_and_norms_per_layer(case):
    found = compiled(case)
    ((kind, times, *_),) = found.estimate.collectives
    assert kind == "all-reduce"
    assert times <= found.max_all_reduces
