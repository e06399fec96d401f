"""Pictures of a comparison, in the style of those of a report: a colour for each method, grey for the baseline."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from anchor_jax.reporting.comparison.statistics import Difference, Summary
from anchor_jax.reporting.style import (
    CATEGORIES,
    DASHES,
    FULL,
    GREY,
    INK,
    grid_shape,
    new_figure,
    percent,
    shortened,
    trim,
    wrapped,
)

_LETTERS, _LEGEND = 30, 90  # of a name in a line beside its row, and in a legend
_LETTER, _LINE = 0.075, 0.16  # inches


class Panel(NamedTuple):
    """One metric."""

    title: str
    is_fraction: bool  # shown in per cent


def values(panels: Mapping[Panel, Mapping[str, Summary]], methods: Sequence[str], path: Path) -> None:
    """Dots: every seed, their mean, and one standard deviation to both sides.

    Args:
      panels: metric -> method -> values; a method may be missing.
      methods: names, from the top.
      path: the PNG.
    """
    columns, rows = grid_shape(len(panels))
    height = 0.5 + rows * (0.85 + _row_height(methods) * len(methods))
    with new_figure(path, _width(methods, columns), height) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axes, (panel, found) in zip(grid.flat, panels.items(), strict=False):
            for place, method in enumerate(methods):
                if method in found:
                    _dots(axes, place, found[method], _style(place)[0])
            _metric_axis(axes, panel.is_fraction)
            axes.set_title(panel.title)
        _arrange(figure, grid, methods)
        trim(figure, len(panels))


def differences(
    panels: Mapping[Panel, Mapping[str, tuple[Difference | None, Difference | None]]],
    methods: Sequence[str],
    path: Path,
) -> None:
    """Differences to the baseline with their 95 % intervals, over seeds and over test examples.

    Args:
      panels: metric -> method -> (over seeds, over examples), either may be missing.
      methods: names, from the top, without the baseline.
      path: the PNG.
    """
    columns, rows = grid_shape(len(panels))
    height = 0.9 + rows * (0.85 + (_row_height(methods) + 0.1) * len(methods))
    with new_figure(path, _width(methods, columns), height) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axes, (panel, found) in zip(grid.flat, panels.items(), strict=False):
            axes.axvline(0, color=INK, linewidth=1)
            for place, method in enumerate(methods):
                colour = _style(place + 1)[0]
                for offset, marker, difference in zip((-0.16, 0.16), "oD", found.get(method, ()), strict=False):
                    _interval(axes, place + offset, difference, marker, colour)
            _metric_axis(axes, panel.is_fraction, signed=True)
            axes.set_title(panel.title)
        _arrange(figure, grid, methods)
        trim(figure, len(panels))
        marks = {"over seeds": "o", "over test examples": "D"}
        handles = [figure.axes[0].plot([], [], mark, color=INK, label=label)[0] for label, mark in marks.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)


def severity(curves: Mapping[str, Mapping[str, Mapping[int, Summary]]], methods: Sequence[str], path: Path) -> None:
    """How quantities change with the severity of the corruptions; bands are one standard deviation over seeds.

    Args:
      curves: quantity -> method -> severity -> values; severity 0 is the clean test set. A method may be missing.
      methods: names.
      path: the PNG.
    """
    with new_figure(path, max(0.6 * FULL, 0.5 * FULL * len(curves)), 3.9) as figure:
        panels = figure.subplots(1, len(curves), squeeze=False)[0]
        for axes, (quantity, by_method) in zip(panels, curves.items(), strict=True):
            for place, method in enumerate(methods):
                if method in by_method:
                    _curve(axes, by_method[method], method, *_style(place))
            severities = sorted({severity for curve in by_method.values() for severity in curve})
            axes.set_xticks(severities, [str(severity) if severity else "clean" for severity in severities])
            axes.set(xlabel="severity", title=quantity)
            percent(axes.yaxis)
        figure.legend(
            *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=_legend_columns(methods)
        )


def areas(groups: Mapping[str, Mapping[str, Mapping[str, Summary]]], methods: Sequence[str], path: Path) -> None:
    """Bars: the area under the ROC curve of each score and method; whiskers are one standard deviation over seeds.

    Args:
      groups: group of anomaly sets -> score -> method -> values; a method may lack a score.
      methods: names.
      path: the PNG.
    """
    with new_figure(path, FULL, 0.7 + 2.5 * len(groups)) as figure:
        panels = figure.subplots(len(groups), 1, squeeze=False, sharey=True)[:, 0]
        thickness = 0.84 / len(methods)
        for axes, (group, scores) in zip(panels, groups.items(), strict=True):
            for place, method in enumerate(methods):
                found = {index: of[method] for index, of in enumerate(scores.values()) if method in of}
                across = np.array(list(found)) + (place - (len(methods) - 1) / 2) * thickness
                mean, std = (np.array([getattr(of, part) or 0 for of in found.values()]) for part in ("mean", "std"))
                whiskers = {"yerr": std, "error_kw": {"ecolor": INK, "elinewidth": 1}} if std.any() else {}
                name, colour = shortened(method, _LEGEND), _style(place)[0]
                axes.bar(across, mean, 0.9 * thickness, color=colour, label=name, **whiskers)
                for x, top, value in zip(across, mean + std, mean, strict=True):
                    axes.text(x, top + 0.02, f"{100 * value:.1f}", ha="center", va="bottom", fontsize=7.5, rotation=90)
            axes.axhline(0.5, color=GREY, linewidth=0.8, linestyle=":")
            axes.set_xticks(range(len(scores)), [score.replace("_", " ") for score in scores])
            axes.grid(axis="x", visible=False)
            axes.set(title=group, ylim=(0, 1.19), yticks=(0, 0.25, 0.5, 0.75, 1))
            percent(axes.yaxis)
        figure.legend(
            *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=_legend_columns(methods)
        )


def _style(place: int) -> tuple[str, str]:
    """Colour and dash of a method; the baseline has the first place."""
    palette = (GREY, *CATEGORIES)
    return palette[place % len(palette)], DASHES[place // len(palette) % len(DASHES)]


def _dots(axes: Axes, place: int, found: Summary, colour: str) -> None:
    seeds = list(found.values.values())
    if found.std is not None:
        axes.plot(
            [found.mean - found.std, found.mean + found.std], [place] * 2, color=colour, linewidth=2.2, alpha=0.55
        )
        axes.plot(seeds, [place] * len(seeds), "|", color=colour, markersize=9)
    axes.plot(found.mean, place, "o", color=colour, markersize=7)


def _curve(axes: Axes, curve: Mapping[int, Summary], method: str, colour: str, dash: str) -> None:
    severities, mean = list(curve), np.array([of.mean for of in curve.values()])
    std = np.array([of.std or 0 for of in curve.values()])
    axes.plot(severities, mean, "o", linestyle=dash, color=colour, markersize=4.5, label=shortened(method, _LEGEND))
    axes.fill_between(severities, mean - std, mean + std, color=colour, alpha=0.18, linewidth=0)


def _interval(axes: Axes, place: float, difference: Difference | None, marker: str, colour: str) -> None:
    if difference is None:
        return
    if difference.low is not None and difference.high is not None:
        axes.plot([difference.low, difference.high], [place] * 2, color=colour, linewidth=2)
    axes.plot(difference.mean, place, marker, color=colour, markersize=5.5)


def _metric_axis(axes: Axes, is_fraction: bool, *, signed: bool = False) -> None:
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    if signed:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _signed(100 * value if is_fraction else value)))
    elif is_fraction:
        percent(axes.xaxis)
    axes.grid(axis="y", visible=False)


def _signed(value: float) -> str:
    return f"{value:+.4g}".replace("-", "\N{MINUS SIGN}") if value else "0"


def _arrange(figure: Figure, grid: np.ndarray, methods: Sequence[str]) -> None:
    """Names to the rows, and room between the panels."""
    figure.set_layout_engine("constrained", h_pad=0.1)
    grid[0, 0].set_yticks(range(len(methods)), [wrapped(method, _LETTERS) for method in methods])
    grid[0, 0].set_ylim(len(methods) - 0.5, -0.5)


def _width(methods: Sequence[str], columns: int) -> float:
    names = _LETTER * min(max(map(len, methods)), _LETTERS)
    return min(FULL, names + 2.6 * columns)


def _row_height(methods: Sequence[str]) -> float:
    return max(0.3, _LINE * max(wrapped(method, _LETTERS).count("\n") + 1 for method in methods))


def _legend_columns(methods: Sequence[str]) -> int:
    return max(1, min(len(methods), int(100 / max(len(shortened(method, _LEGEND)) + 8 for method in methods))))
