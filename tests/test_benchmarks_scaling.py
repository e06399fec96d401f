"""The arithmetic of the scaling table: known values, and the table in docs/scaling.md."""

from pathlib import Path

import pytest

from benchmarks.speed import scaling

H100, V5P = scaling.ACCELERATORS
VIT = scaling.NETWORKS[1]


def test_row_matches_the_ring_formulas():
    compute, replicated, fsdp, batch = scaling.row(VIT, V5P, 64)
    assert replicated == pytest.approx(2 * 63 / 64 * 4 * VIT.parameters / 200e9)
    assert fsdp == pytest.approx(1.5 * replicated)
    assert batch == pytest.approx(63 * 128 * 150_528 * 4 / 200e9)
    assert compute == pytest.approx(6 * 17.564e9 * 128 / (0.4 * 459e12))


def test_pass_seconds_within_a_host_uses_nvlink_only():
    assert scaling.pass_seconds(8e9, 8, H100) == pytest.approx(7e9 / 450e9)
    assert scaling.pass_seconds(8e9, 16, H100) == pytest.approx(7e9 / 450e9 + 0.5e9 / 50e9)


def test_table_is_in_the_docs():
    text = (Path(__file__).parents[1] / "docs/scaling.md").read_text()
    assert scaling.table() in text
