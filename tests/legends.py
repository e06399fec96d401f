"""Check of every figure that is drawn: no legend lies on a panel, on its labels, or on another legend."""

import contextlib
import itertools

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from anchor_jax.reporting import style


class _CheckedCanvas(FigureCanvasAgg):
    def draw(self):
        super().draw()
        renderer = self.get_renderer()
        every = [axes for axes in self.figure.axes if axes.axison]
        boxes = [axes.get_window_extent(renderer) for axes in every]  # with all lines and bars
        boxes += [axes.title.get_window_extent(renderer) for axes in every if axes.get_title()]
        boxes += filter(None, (axis.get_tightbbox(renderer) for axes in every for axis in (axes.xaxis, axes.yaxis)))
        legends = [*self.figure.legends, *(axes.get_legend() for axes in every if axes.get_legend())]
        legends = [legend.get_window_extent(renderer) for legend in legends]
        for legend in legends:
            assert not [box for box in boxes if legend.overlaps(box)], "a legend covers something"
            assert self.figure.bbox.padded(1).contains(legend.x0, legend.y0), "a legend is cut off"
            assert self.figure.bbox.padded(1).contains(legend.x1, legend.y1), "a legend is cut off"
        assert not any(one.overlaps(other) for one, other in itertools.combinations(legends, 2))


@contextlib.contextmanager
def checked_legends():
    """Check the legends of all figures that are drawn in this block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "FigureCanvasAgg", _CheckedCanvas)
        yield
