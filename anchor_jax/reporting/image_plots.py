"""Drawing of plots that consist of images: heat maps, confusion matrices, contours and strips of examples."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, PowerNorm
from matplotlib.figure import Figure

from anchor_jax.evaluation import presentation
from anchor_jax.reporting import style

_HEADING, _LINE = 0.34, 0.14  # inches, of a heading and of a line of a caption below an image
_COLOR_MAPS = {True: "Blues", False: "Oranges"}  # whether higher is better
_NUMBERED = 20  # classes of a confusion matrix with numbers


def heat_map_size(plot: presentation.HeatMaps) -> tuple[float, float]:
    """Return the size of a figure in inches."""
    name_width = 0.4 + 0.075 * max(len(style.shortened(row, 32)) for row in plot.rows)
    width = min(style.FULL, name_width + len(plot.panels) * max(0.62 * len(plot.columns), 1.6))
    return max(width, style.HALF), 0.9 + 0.235 * len(plot.rows)


def draw_heat_maps(figure: Figure, plot: presentation.HeatMaps) -> None:
    """Draw heat maps next to each other."""
    panels = figure.subplots(1, len(plot.panels), squeeze=False, sharey=True)[0]
    for axes, panel in zip(panels, plot.panels, strict=True):
        _draw_heat_map(axes, panel)
        axes.set_xticks(range(len(plot.columns)), plot.columns)
        axes.set_yticks(range(len(plot.rows)), [style.shortened(row, 32) for row in plot.rows])


def _draw_heat_map(axes: Axes, panel: presentation.HeatMap) -> None:
    values = np.ma.masked_invalid(panel.values)
    low, high = float(values.min()), float(values.max())
    span = max(high - low, 0.01)
    image = axes.imshow(values, _color_map(panel.higher_is_better), vmin=low, vmax=low + span, aspect="auto")
    for (row, column), value in np.ndenumerate(panel.values):
        if np.isfinite(value):
            color = _legible(np.array(image.cmap(image.norm(value))))
            number = axes.text(column, row, f"{100 * value:.1f}", ha="center", va="center", fontsize=8.5, color=color)
            number.set_in_layout(False)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.xaxis.tick_top()
    axes.set_title(f"{panel.title} (%)", pad=8)


def confusion_size(plot: presentation.Confusion) -> tuple[float, float]:
    """Return the size of a figure in inches."""
    names = 0.3 + 0.075 * max(len(style.shortened(name, 16)) for name in plot.names)
    side = min(style.FULL, max(style.HALF, names + 0.45 * len(plot.names)))
    return side, side - 0.9 * (len(plot.names) > _NUMBERED)  # beside a color bar


def draw_confusion(figure: Figure, plot: presentation.Confusion) -> None:
    """Draw a confusion matrix: what is right in blue, what is wrong in orange on a square-root scale."""
    axes, num = figure.subplots(), len(plot.names)
    share = plot.counts / np.maximum(plot.counts.sum(1, keepdims=True), 1)
    is_right = np.eye(num, dtype=bool)
    norm = PowerNorm(0.5, 0, max(0.2, share[~is_right].max(initial=0)))
    colors = np.where(is_right[..., None], _color_map(True)(share), _color_map(False)(norm(share)))
    colors[plot.counts == 0] = 1
    axes.imshow(colors)
    points = min(9, 0.75 * 72 * (confusion_size(plot)[0] - 1.2) / num)
    names = [style.shortened(name, 16) for name in plot.names]
    rotation = 90 if max(map(len, names)) > 2 or num > _NUMBERED else 0
    axes.set_xticks(range(num), names, rotation=rotation, fontsize=points)
    axes.set_yticks(range(num), names, fontsize=points)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.tick_params(length=0)
    axes.grid(visible=False)
    if num > _NUMBERED:
        shown = ScalarMappable(norm, _color_map(False))
        bar = figure.colorbar(shown, ax=axes, format=lambda value, _: f"{100 * value:g}%", shrink=0.4, aspect=30)
        bar.set_label("wrong predictions")
        return
    for (row, column), value in np.ndenumerate(share):
        if value:
            text = f"{100 * value:.0f}" if value >= 0.0995 else f"{100 * value:.1f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=_legible(colors[row, column]))


def _legible(color: np.ndarray) -> str:
    """Return the color of a number on a ground, float `[4]`."""
    return "white" if color[:3] @ (0.3, 0.59, 0.11) < 0.55 else style.INK


def _color_map(higher_is_better: bool) -> ListedColormap:
    """Return the part of a color map on which dark or white letters are legible."""
    return ListedColormap(matplotlib.colormaps[_COLOR_MAPS[higher_is_better]](np.linspace(0.05, 0.85, 256)))


def _strip_heights(plot: presentation.ImageGrid) -> list[tuple[float, float]]:
    """Return height of a line and of all lines of each strip, with its heading."""
    heights = []
    for strip in plot.strips.values():
        text = max((caption.count("\n") + 1 for caption in strip.captions), default=0)
        line = style.FULL / plot.per_line + _LINE * text
        heights.append((line, _HEADING + line * -(-len(strip.images) // plot.per_line)))
    return heights


def image_size(plot: presentation.ImageGrid) -> tuple[float, float]:
    """Return the size of a figure in inches."""
    return style.FULL, sum(total for _, total in _strip_heights(plot))


def draw_images(figure: Figure, plot: presentation.ImageGrid) -> None:
    """Draw strips of images below each other."""
    axes, cell, top = figure.add_axes((0, 0, 1, 1)), style.FULL / plot.per_line, 0.0
    width, height = image_size(plot)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    for (heading, strip), (line, total) in zip(plot.strips.items(), _strip_heights(plot), strict=True):
        num_channels = strip.images[0].shape[-1]
        heading += "" if num_channels in (1, 3) else f" (mean of {num_channels} channels)"
        axes.text(0.03 * cell, top + _HEADING / 2, heading, weight="bold", fontsize=10, va="center")
        for index in range(len(strip.images)):
            row, column = divmod(index, plot.per_line)
            _draw_image(axes, strip, index, column * cell, top + _HEADING + row * line, cell)
        top += total


def _draw_image(axes: Axes, strip: presentation.ImageStrip, index: int, left: float, top: float, cell: float) -> None:
    image = strip.images[index]
    if image.shape[-1] != 3:
        image = image.mean(axis=-1, keepdims=True).astype(image.dtype).repeat(3, axis=-1)
    width, height = 0.94 * cell * np.array(image.shape[1::-1]) / max(image.shape[:2])
    middle, bottom = left + cell / 2, top + 0.94 * cell
    axes.imshow(image, extent=(middle - width / 2, middle + width / 2, bottom, bottom - height), aspect="auto")
    if strip.captions:
        color = (style.RIGHT if strip.correct[index] else style.WRONG) if strip.correct else style.INK
        letters = int(cell / 0.064)
        caption = "\n".join(style.shortened(line, letters) for line in strip.captions[index].split("\n"))
        axes.text(middle, bottom + 0.03, caption, ha="center", va="top", fontsize=7.5, color=color, linespacing=1.15)


def draw_contours(figure: Figure, plot: presentation.Contours) -> None:
    """Draw contour plots next to each other."""
    for axes, panel in zip(figure.subplots(1, len(plot.panels), squeeze=False)[0], plot.panels, strict=True):
        _draw_contour_panel(axes, plot, panel)


def _draw_contour_panel(axes: Axes, plot: presentation.Contours, panel: presentation.ContourPanel) -> None:
    values = panel.values if panel.is_fraction else np.log10(np.maximum(panel.values, 1e-6))
    values = np.ma.masked_invalid(values).T  # rows of an image go up along the second direction
    is_flat = values.count() == 0 or float(np.ptp(values.compressed())) < 1e-6

    def text(value: float, _: Any = None) -> str:
        return f"{value:.0%}" if panel.is_fraction else f"{float(f'{10**value:.2g}'):,g}"

    colors = _color_map(panel.higher_is_better)
    shading = "nearest" if is_flat else "gouraud"
    shown = axes.pcolormesh(plot.alphas, plot.betas, values, cmap=colors, shading=shading)
    if not is_flat:
        lines = axes.contour(plot.alphas, plot.betas, values, 7, colors=style.INK, linewidths=0.6, linestyles="solid")
        axes.clabel(lines, fmt=text, fontsize=8)
    axes.plot(0, 0, "+", color=style.INK, markersize=11, markeredgewidth=2)
    axes.set(title=panel.title, xlabel="first direction", ylabel="second direction", aspect="equal")
    axes.grid(visible=False)
    axes.figure.colorbar(shown, ax=axes, format=text, shrink=0.85).outline.set_visible(False)
