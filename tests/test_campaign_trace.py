"""The campaign's reading of traces: the time of operations, copies and idle time, and what of it is lost."""

from types import SimpleNamespace
from typing import NamedTuple

import pytest

from anchor_jax import UserError
from anchor_jax.planning.hlo import parse_module
from benchmarks.campaign import events

PROGRAM = """HloModule jit_step
%fused (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %neg = f32[8]{0} negate(%p), metadata={op_name="jit(step)/Net/neg"}
}
ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %fusion = f32[8]{0} fusion(%x), kind=kLoop, calls=%fused
  %copy.1 = f32[8]{0} copy(%fusion)
  ROOT %add.2 = f32[8]{0} add(%copy.1, %x), metadata={op_name="jit(step)/transpose(jvp(Net))/add"}
}
"""


class Traced(NamedTuple):
    """An event as `jax.profiler.ProfileData` has it."""

    name: str
    start_ns: float
    duration_ns: float
    stats: tuple = ()

    @property
    def end_ns(self):
        return self.start_ns + self.duration_ns


class Line(NamedTuple):
    name: str
    events: list


class Plane(NamedTuple):
    name: str
    lines: list


def traced(monkeypatch, tmp_path, planes):
    """Return the events of a trace that consists of these planes."""
    file = tmp_path / "plugins/profile/1/host.xplane.pb"
    file.parent.mkdir(parents=True)
    file.touch()
    data = SimpleNamespace(from_file=lambda name: SimpleNamespace(planes=planes))
    monkeypatch.setattr(events, "ProfileData", data)
    return events.read_events(tmp_path)


def op(name):
    return (("hlo_module", "jit_step"), ("hlo_op", name))


GPU = Plane(
    "/device:GPU:0",
    [
        Line(
            "Stream #1(Compute)",
            [
                Traced("loop_fusion", 0, 4e9, op("fusion")),
                Traced("loop_add", 5e9, 1e9, op("add.2")),
                Traced("loop_fusion", 8e9, 4e9, op("fusion")),
            ],
        ),
        Line("Stream #2(MemcpyD2D)", [Traced("MemcpyD2D", 5.5e9, 0.5e9), Traced("k", 6e9, 1e9, op("copy.1"))]),
        Line("Source", [Traced("ignored", 0, 100e9)]),
    ],
)
TPU = Plane(
    "/device:TPU:0",
    [
        Line("XLA Modules", [Traced("jit_step", 0, 12e9)]),
        Line(
            "XLA Ops",
            [
                Traced("%while.3 = (f32[8]) while(...)", 0, 12e9),
                Traced("%fusion = f32[8] fusion(...)", 0, 8e9),
                Traced("%add.2 = f32[8] add(...)", 9e9, 1e9),
            ],
        ),
    ],
)
CPU = Plane(
    "/host:CPU",
    [
        Line("python", [Traced("call", 0, 50e9)]),
        Line("tf_XLA/1", [Traced("fusion", 0, 2e9, op("fusion")), Traced("add.2", 1e9, 0.5e9, op("add.2"))]),
        Line("tf_XLA/2", [Traced("fusion", 1e9, 2e9, op("fusion"))]),
    ],
)


@pytest.mark.parametrize(
    ("plane", "seconds", "idle", "costs"),
    [
        (GPU, 6.0, 1.0, {"Net/neg": 4.0, "gradient of Net/add": 0.5, events.COPIES: 0.75}),
        (TPU, 5.0, 0.5, {"Net/neg": 4.0, "gradient of Net/add": 0.5}),
        (CPU, 1.5, 0.0, {"Net/neg": 1.75, "gradient of Net/add": 0.25}),
    ],
    ids=["gpu", "tpu", "cpu"],
)
def test_trace_is_taken_apart(plane, seconds, idle, costs, monkeypatch, tmp_path):
    host = Plane("/host:CPU", [Line("python", [Traced("x", 0, 1e12, op("fusion"))])])
    planes = [plane] if plane is CPU else [host, plane]
    found = events.analyse(traced(monkeypatch, tmp_path, planes), parse_module(PROGRAM), num_steps=2)
    assert (found.seconds, found.idle) == (seconds, idle)
    assert {cost.what: cost.seconds for cost in found.costs} == pytest.approx(costs | {events.IDLE: idle})
    assert [cost.lost for cost in found.costs] == [cost.seconds for cost in found.costs]


def test_losses_are_beyond_the_roofline(monkeypatch, tmp_path):
    read, module = traced(monkeypatch, tmp_path, [GPU]), parse_module(PROGRAM)
    assert [loss.what for loss in events.analyse(read, module, 1).losses] == ["Net/neg", events.IDLE]
    found = events.analyse(read, module, 1, {"fusion": 3.5, "add.2": 0.1, "copy.1": 1.0})
    assert [(loss.what, loss.lost) for loss in found.losses] == [(events.IDLE, 2.0), (events.COPIES, 1.5)]
    assert {cost.what: cost.lost for cost in found.costs}["Net/neg"] == pytest.approx(8.0 - 2 * 3.5)


def test_trace_without_a_device_is_an_error(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="wrote no trace"):
        events.read_events(tmp_path)
    with pytest.raises(UserError, match="no operations of a device"):
        traced(monkeypatch, tmp_path, [Plane("/host:CPU", [Line("python", [Traced("call", 0, 1)])])])
