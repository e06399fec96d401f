"""Drawing of the plots that suites describe (`anchor_jax.evaluation.presentation`), as PNG files."""

import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from anchor_jax import metrics
from anchor_jax.evaluation import presentation
from anchor_jax.metrics import ReliabilityBins
from anchor_jax.reporting import image_plots, style

_FRACTIONS = (0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1)  # ticks of histograms
_ROW_NAME = 30  # letters of a row's name in a line


def save(plot: presentation.Plot, path: Path) -> None:
    """Draw a plot and save it as a PNG.

    Args:
      plot: at least one panel.
      path: of the file; an earlier one is replaced only if drawing succeeds.
    """
    size, draw = _DRAWINGS[type(plot)]
    layout = None if isinstance(plot, presentation.ImageGrid) else "constrained"
    with style.new_figure(path, *size(plot), layout=layout) as figure:
        draw(figure, plot)


# line plots


def _line_size(plot: presentation.LinePlots) -> tuple[float, float]:
    columns, rows = style.grid_shape(len(plot.panels))
    labels = max(sum(bool(line.label) for line in panel.lines) for panel in plot.panels)
    below = 0 if plot.shared_legend else 0.17 * -(-labels // 2)
    return max(style.HALF, min(style.FULL, style.HALF * columns)), rows * (3.4 + below)


def _draw_lines(figure: Figure, plot: presentation.LinePlots) -> None:
    for axes, panel in zip(style.panels(figure, len(plot.panels)), plot.panels, strict=True):
        _draw_panel(axes, panel)
        if not plot.shared_legend and axes.get_legend_handles_labels()[1]:
            # below the label of the axis, whose distance is in points whatever the size of the panel
            below = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "borderaxespad": 4.6}
            axes.legend(**below, ncols=2, fontsize=8, columnspacing=1.2)
    if plot.shared_legend:
        handles = {
            label: handle
            for axes in figure.axes
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        columns = max(1, min(5, int(110 / max(len(label) + 8 for label in handles))))
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=columns)


def _draw_panel(axes: Axes, panel: presentation.LinePanel) -> None:
    ordered = iter(style.shades(sum(line.style == "ordered" for line in panel.lines)))
    categories = iter(map(style.category, range(len(panel.lines))))
    for line in panel.lines:
        options: dict[str, Any] = {"label": style.legend_label(line.label, 90) if line.label else None}
        if line.style == "ordered":
            options["color"] = next(ordered)
        elif line.style == "category":
            options["color"], options["linestyle"] = next(categories)
        elif line.style == "baseline":
            options["color"] = style.GREY
        else:
            faint = {"color": style.GREY, "linewidth": 0.7, "alpha": 0.55, "zorder": 1}
            options |= faint if line.style == "faint" else {"color": style.GREY, "linewidth": 1, "linestyle": ":"}
        if line.markers:
            options |= {"marker": "o", "markersize": 4.5 if line.markers is True else 3}
            options |= {"linestyle": "none"} if line.markers == "only" else {}
        axes.plot(line.x, line.y, **options)
        if line.band is not None:
            low, high = np.asarray(line.y) - line.band, np.asarray(line.y) + line.band
            axes.fill_between(line.x, low, high, color=options["color"], alpha=0.18, linewidth=0)
    axes.set(title=style.wrapped(panel.title, 34), xlabel=panel.xlabel, ylabel=panel.ylabel)
    axes.set(xscale="log" if panel.log_x else "linear", xlim=panel.limits[0], ylim=panel.limits[1])
    if panel.square:
        axes.set_aspect("equal")
    if panel.xticks:
        axes.set_xticks(list(panel.xticks), list(panel.xticks.values()))
        axes.xaxis.set_minor_locator(NullLocator())
    style.percent(*(getattr(axes, f"{letter}axis") for letter in panel.percent))


# reliability diagrams


def _grid_size(
    plot: presentation.ReliabilityDiagrams | presentation.Histograms, *, height: float, margin: float
) -> tuple[float, float]:
    columns, rows = style.grid_shape(len(plot.panels))
    return max(style.HALF, 3.2 * columns), margin + height * rows


def _draw_reliability(figure: Figure, plot: presentation.ReliabilityDiagrams) -> None:
    columns, rows = style.grid_shape(len(plot.panels))
    grid = figure.subplots(2 * rows, columns, height_ratios=(4, 1) * rows, squeeze=False)
    grid = grid.reshape(rows, 2, columns).swapaxes(1, 2).reshape(-1, 2)
    for (title, bins), (above, below) in zip(plot.panels.items(), grid, strict=False):
        _draw_diagram(above, below, bins, title)
    for above, below in grid[::columns]:
        above.set(ylabel="accuracy")
        below.set(ylabel="examples")
    for axes in grid[len(plot.panels) :].flat:
        axes.set_axis_off()
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)


def _draw_diagram(above: Axes, below: Axes, bins: ReliabilityBins, title: str) -> None:
    error = float(metrics.calibration_error(bins))
    count, accuracy, confidence = (np.asarray(values) for values in bins)
    num, full = len(count), count > 0
    centers, width = (np.arange(num) + 0.5) / num, 1 / num
    above.bar(centers[full], accuracy[full], width, color=style.RIGHT, alpha=0.55, edgecolor="white", label="accuracy")
    gap = (confidence - accuracy)[full]
    hatched = {"facecolor": "none", "edgecolor": style.WRONG, "hatch": "/////", "linewidth": 0.8}
    above.bar(centers[full], gap, width, bottom=accuracy[full], label="gap to the confidence", **hatched)
    above.plot([0, 1], [0, 1], "--", color=style.INK, linewidth=1, label="calibrated")
    above.set(xlim=(0, 1), ylim=(0, 1), title=f"{style.wrapped(title, 30)}\nECE {error:.2%}")
    above.tick_params(labelbottom=False)
    below.bar(centers, count / count.sum(), width, color=style.GREY, edgecolor="white")
    below.set(xlabel="confidence", xlim=(0, 1))
    below.yaxis.set_major_locator(MaxNLocator(2))
    style.percent(above.yaxis, below.xaxis, below.yaxis)


# histograms


def _draw_histograms(figure: Figure, plot: presentation.Histograms) -> None:
    for axes, panel in zip(style.panels(figure, len(plot.panels)), plot.panels, strict=True):
        _draw_histogram_panel(axes, panel)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.supylabel("fraction (square-root scale)", fontsize=9.5)


def _draw_histogram_panel(axes: Axes, panel: presentation.HistogramPanel) -> None:
    edges = _edges([group.values for group in panel.groups])
    categories = iter(style.category(index, skip=1) for index in range(len(panel.groups)))
    for group in panel.groups:
        _draw_histogram(axes, group, edges, *(next(categories) if group.style == "category" else ("", "-")))
    # a square-root scale, so that a bin with most of the values does not flatten all others
    axes.set_yscale("function", functions=(lambda share: np.sqrt(np.maximum(share, 0)), np.square))
    axes.set_ylim(0, None)
    axes.yaxis.set_major_locator(FixedLocator(_FRACTIONS))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_title(panel.title)
    axes.set_xlabel(textwrap.fill(panel.xlabel, 40), fontsize=8.5)
    style.percent(axes.yaxis)


def _draw_histogram(axes: Axes, group: presentation.Histogram, edges: np.ndarray, color: str, dash: str) -> None:
    color, fill = {"known": (style.GREY, 0.3), "right": (style.RIGHT, 0.35), "wrong": (style.WRONG, 0)}.get(
        group.style, (color, 0)
    )
    count, _ = np.histogram(np.clip(group.values, edges[0], edges[-1]), edges)
    share = count / len(group.values)
    if fill:
        axes.stairs(share, edges, fill=True, color=color, alpha=fill, linewidth=0)
    axes.stairs(share, edges, color=color, linestyle=dash, linewidth=1.6, label=style.legend_label(group.label, 26))


def _edges(groups: Sequence[np.ndarray]) -> np.ndarray:
    """Return edges of bins, wider for small groups; the last 0.2% on each side go into the outermost bins."""
    low, high = np.quantile(np.concatenate(groups), (0.002, 0.998)).astype(np.float64)
    num_bins = int(np.clip(2 * np.sqrt(min(map(len, groups))), 12, 40))
    return np.linspace(low, max(high, low + 1e-6 * max(1, abs(low))), num_bins + 1)


# dots and bars


def _row_height(rows: Sequence[str]) -> float:
    return max(0.34, 0.16 * max(style.wrapped(row, _ROW_NAME).count("\n") + 1 for row in rows))


def _dot_size(plot: presentation.DotPlots) -> tuple[float, float]:
    columns, rows = style.grid_shape(len(plot.panels))
    names = 0.075 * min(max(map(len, plot.rows)), _ROW_NAME)
    height = 0.9 + rows * (0.85 + _row_height(plot.rows) * len(plot.rows))
    return min(style.FULL, max(style.HALF, names + 3 * columns)), height


def _draw_dots(figure: Figure, plot: presentation.DotPlots) -> None:
    grid = style.panels(figure, len(plot.panels), sharey=True)
    for axes, panel in zip(grid, plot.panels, strict=True):
        _draw_dot_panel(axes, panel, plot)
    grid[0].set_yticks(range(len(plot.rows)), [style.wrapped(row, _ROW_NAME) for row in plot.rows])
    grid[0].set_ylim(len(plot.rows) - 0.5, -0.5)
    if plot.legend:
        markers = zip("oD", plot.legend, strict=False)
        handles = [figure.axes[0].plot([], [], marker, color=style.INK, label=label)[0] for marker, label in markers]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def _draw_dot_panel(axes: Axes, panel: presentation.DotPanel, plot: presentation.DotPlots) -> None:
    if panel.signed:
        axes.axvline(0, color=style.INK, linewidth=1)
    for place, row in enumerate(plot.rows):
        color = _method_color(place + plot.skip_colors) if plot.color_rows else style.RIGHT
        several = panel.rows.get(row, ())
        offsets = np.linspace(-0.16, 0.16, len(several)) if len(several) > 1 else (0.0,)
        for offset, marker, dots in zip(offsets, "oD", several, strict=False):
            if dots is None:
                continue
            if dots.interval:
                axes.plot(dots.interval, [place + offset] * 2, color=color, linewidth=2.2, alpha=0.55)
            ticks = np.asarray(dots.ticks)
            tick_color = color if plot.color_rows else style.GREY
            axes.plot(ticks, np.full(len(ticks), place + offset), "|", color=tick_color, markersize=10)
            axes.plot(dots.value, place + offset, marker, color=color, markersize=6.5)
            if dots.text:
                options = {"xytext": (7, 0), "textcoords": "offset points", "va": "center", "fontsize": 8.5}
                axes.annotate(dots.text, (dots.value, place + offset), **options)
    axes.margins(x=0.25 if any(dots and dots.text for several in panel.rows.values() for dots in several) else 0.12)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    if panel.signed:
        scale = 100 if panel.spec.is_fraction else 1
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _signed(scale * value)))
    elif panel.spec.is_fraction:
        style.percent(axes.xaxis)
    axes.grid(axis="y", visible=False)
    axes.set_title(panel.title)


def _method_color(place: int) -> str:
    return (style.GREY, *style.CATEGORIES)[place % (len(style.CATEGORIES) + 1)]


def _signed(value: float) -> str:
    return f"{value:+.4g}".replace("-", "\N{MINUS SIGN}") if value else "0"


def _bar_size(plot: presentation.Bars) -> tuple[float, float]:
    return 0.75 * style.FULL, 1.1 + (0.2 + 0.2 * len(_bar_labels(plot))) * len(plot.groups)


def _bar_labels(plot: presentation.Bars) -> list[str]:
    return list(dict.fromkeys(label for values in plot.groups.values() for label in values))


def _draw_bars(figure: Figure, plot: presentation.Bars) -> None:
    axes, labels = figure.subplots(), _bar_labels(plot)
    thickness = 0.8 / len(labels)
    colors = style.shades(len(labels)) if plot.errors is None else list(map(_method_color, range(len(labels))))
    for index, (label, color) in enumerate(zip(labels, colors, strict=True)):
        values = {row: of[label] for row, of in enumerate(plot.groups.values()) if label in of}
        places = np.array(list(values)) + (index - (len(labels) - 1) / 2) * thickness
        errors = [of.get(label, 0) for of in (plot.errors or {}).values() if label in of]
        whiskers = {"xerr": errors, "error_kw": {"ecolor": style.INK, "elinewidth": 1}} if any(errors) else {}
        drawn = axes.barh(places, list(values.values()), thickness * 0.9, color=color, label=label, **whiskers)
        axes.bar_label(drawn, [f"{value:.1%}" for value in values.values()], padding=3, fontsize=8.5)
    axes.set_yticks(range(len(plot.groups)), [style.shortened(name, 44) for name in plot.groups])
    axes.grid(axis="y", visible=False)
    axes.set(xlim=(0, 1), ylim=(len(plot.groups) - 0.5, -0.5), xlabel=plot.xlabel)
    style.percent(axes.xaxis)
    figure.legend(loc="outside lower center", ncols=4)


_DRAWINGS: dict[type, tuple[Any, Any]] = {
    presentation.LinePlots: (_line_size, _draw_lines),
    presentation.ReliabilityDiagrams: (partial(_grid_size, height=3.9, margin=0.3), _draw_reliability),
    presentation.Histograms: (partial(_grid_size, height=2.5, margin=0.6), _draw_histograms),
    presentation.HeatMaps: (image_plots.heat_map_size, image_plots.draw_heat_maps),
    presentation.Confusion: (image_plots.confusion_size, image_plots.draw_confusion),
    presentation.DotPlots: (_dot_size, _draw_dots),
    presentation.Bars: (_bar_size, _draw_bars),
    presentation.ImageGrid: (image_plots.image_size, image_plots.draw_images),
    presentation.Contours: (lambda _: (style.FULL, 4.2), image_plots.draw_contours),
}
