"""The arithmetic of scaling: known answers, and the table that the documentation shows."""

from pathlib import Path

import pytest
import scaling

H100, V5P = scaling.ACCELERATORS
VIT = scaling.NETWORKS[1]


def test_all_reduce_of_a_ring_is_that_of_the_textbook():
    compute, replicated, fsdp, batch = scaling.row(VIT, V5P, 64)
    assert replicated == pytest.approx(2 * 63 / 64 * 4 * VIT.parameters / 200e9)
    assert fsdp == pytest.approx(1.5 * replicated)
    assert batch == pytest.approx(63 * 128 * 150_528 * 4 / 200e9)
    assert compute == pytest.approx(6 * 17.564e9 * 128 / (0.4 * 459e12))


def test_one_host_uses_no_network_between_hosts():
    assert scaling.pass_seconds(8e9, 8, H100) == pytest.approx(7e9 / 450e9)
    assert scaling.pass_seconds(8e9, 16, H100) == pytest.approx(7e9 / 450e9 + 0.5e9 / 50e9)


def test_the_table_is_that_of_the_documentation():
    text = (Path(__file__).parents[1] / "docs/scaling.md").read_text()
    assert scaling.table() in text
