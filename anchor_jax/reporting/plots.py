"""Pictures of an evaluation, as PNG: functions from arrays and numbers to one file each.

One style for all: blue is right, known or good, vermilion is wrong, and the order of lines is in their
lightness too, so that nothing hangs on hue alone (colours of Okabe and Ito, 2008). Names of classes and sets are
text of the user and are drawn as they are. Widths are for a page: `FULL` or about half of it, in inches.
"""

import contextlib
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, ScalarFormatter
from PIL import Image

from anchor_jax import metrics
from anchor_jax.runtime.atomic_files import atomic_write

DPI = 150
FULL, HALF = 9.6, 4.7
INK, GREY, PALE = "#22262b", "#868c94", "#e3e6ea"
RIGHT, WRONG = "#0072b2", "#d55e00"
CATEGORIES = (RIGHT, WRONG, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK)
DASHES = ("-", "--", ":")
_SHARES = (0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1)  # ticks of histograms
_HEADING, _LINE = 0.34, 0.14  # inches, of a heading and of a line of a caption
HIGHER_IS_BETTER, LOWER_IS_BETTER = "Blues", "Oranges"  # colour maps, from pale to strong
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.facecolor": "white",
    "font.size": 9.5,
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "hatch.linewidth": 0.8,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "text.color": INK,
    "text.parse_math": False,  # a "$" in the name of a class is a "$"
    "xtick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.color": GREY,
    "ytick.labelcolor": INK,
}


class Judged(NamedTuple):
    """Predictions and whether they were right."""

    confidence: np.ndarray  # float [N], in [0, 1]
    correct: np.ndarray  # bool [N]


class Sheet(NamedTuple):
    """One panel of a heat map."""

    title: str
    values: np.ndarray  # float [rows, columns], fractions; NaN where there is none
    colours: str  # `HIGHER_IS_BETTER` or `LOWER_IS_BETTER`


class Strip(NamedTuple):
    """Images in a row, each with a caption beneath it."""

    images: np.ndarray  # uint8 [n, H, W, 1 or 3]
    captions: Sequence[str]  # n, of up to three lines; or none at all
    colours: Sequence[str] = ()  # n, of the captions; or none at all


class Protocol(NamedTuple):
    """A way to choose references."""

    accuracy: float  # the mean of the draws, where there are any
    draws: np.ndarray  # float [n], accuracies, n >= 0
    seconds: float | None  # for 1,000 examples


def reliability_diagrams(panels: Mapping[str, Judged], num_bins: int, path: Path) -> None:
    """How often predictions of a confidence are right; on the diagonal they keep what they promise.

    Args:
      panels: title -> predictions, at least one of them in each.
      num_bins: of equal width, as those of `metrics.calibration_error`.
      path: the PNG.
    """
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    with picture(path, max(HALF, 3.2 * columns), 0.3 + 3.9 * rows) as figure:
        grid = figure.subplots(2 * rows, columns, height_ratios=(4, 1) * rows, squeeze=False)
        grid = grid.reshape(rows, 2, columns).swapaxes(1, 2).reshape(-1, 2)
        for (title, judged), (above, below) in zip(panels.items(), grid, strict=False):
            _reliability(above, below, judged, num_bins, title)
        for above, below in grid[::columns]:
            above.set(ylabel="accuracy")
            below.set(ylabel="examples")
        for axes in grid[len(panels) :].flat:
            axes.set_axis_off()
        figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)


def uncertainty_histograms(scores: Mapping[str, np.ndarray], correct: np.ndarray, path: Path) -> None:
    """Uncertainty of right and of wrong predictions; that of wrong ones should lie further right.

    Args:
      scores: name of an uncertainty -> float `[N]`, higher is less certain.
      correct: bool `[N]`.
      path: the PNG.
    """
    groups = {"right": (correct, RIGHT, 0.35), "wrong": (~correct, WRONG, 0)}
    with picture(path, max(HALF, 3.2 * len(scores)), 3.1) as figure:
        panels = figure.subplots(1, len(scores), squeeze=False)[0]
        for axes, (name, score) in zip(panels, scores.items(), strict=True):
            edges = _edges([score[chosen] for chosen, _, _ in groups.values() if chosen.any()])
            for label, (chosen, colour, fill) in groups.items():
                if chosen.any():
                    _histogram(axes, score[chosen], edges, f"{label} ({chosen.sum():,})", colour, fill)
            axes.set(xlabel=name)
            _scale_shares(axes)
        panels[0].set(ylabel="share (square-root scale)")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)


def risk_coverage_curves(panels: Mapping[str, Mapping[str, Judged]], path: Path) -> None:
    """Error rate among the most confident predictions, and the least that any order of the last could have.

    Args:
      panels: title -> label -> predictions, at least one of them in each. Of the confidence the order alone counts:
        it may be a negated uncertainty. The labels of the first panel have an order, and get darker.
      path: the PNG.
    """
    with picture(path, HALF * len(panels), 3.6) as figure:
        row, highest = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0], 0.01
        for axes, (title, curves) in zip(row, panels.items(), strict=True):
            colours = _shades(len(curves)) if axes is row[0] else CATEGORIES[1:]
            for (label, judged), colour in zip(curves.items(), colours, strict=False):
                coverage, risk = map(np.asarray, metrics.risk_coverage(*judged))
                axes.plot(coverage, risk, color=colour, label=label)
                highest = max(highest, float(risk[len(risk) // 20 :].max()))  # the first few are noise
            correct = list(curves.values())[-1].correct
            least = metrics.risk_coverage(correct.astype(np.float32), correct)
            axes.plot(*least, color=GREY, linewidth=1, linestyle=":", label="mistakes declined first")
            axes.set(title=title, xlabel="coverage: share of predictions accepted")
            axes.legend(loc="upper left")
            percent(axes.xaxis, axes.yaxis)
        row[0].set(ylabel="risk: errors among them", xlim=(0, 1), ylim=(0, 1.05 * highest))


def severity_curves(
    means: Mapping[str, Mapping[str, Mapping[int, float]]],
    members: Mapping[str, Mapping[str, Mapping[int, float]]],
    path: Path,
) -> None:
    """How quantities change with the severity of the corruptions.

    Args:
      means: quantity -> label -> severity -> mean over the members; severity 0 is the clean test set.
      members: quantity -> corruption -> severity -> value, drawn thin; may lack a quantity.
      path: the PNG.
    """
    with picture(path, max(HALF, 3.2 * len(means)), 3.6) as figure:
        panels = figure.subplots(1, len(means), squeeze=False)[0]
        for axes, (quantity, curves) in zip(panels, means.items(), strict=True):
            for curve in members.get(quantity, {}).values():
                axes.plot(list(curve), list(curve.values()), color=GREY, linewidth=0.7, alpha=0.55)
            for (label, curve), colour in zip(curves.items(), _shades(len(curves)), strict=True):
                axes.plot(list(curve), list(curve.values()), "o-", markersize=4.5, color=colour, label=label)
            severities = sorted({severity for curve in curves.values() for severity in curve})
            axes.set_xticks(severities, [str(severity) if severity else "clean" for severity in severities])
            axes.set(xlabel="severity", title=quantity)
            if not quantity.endswith("(nats)"):
                percent(axes.yaxis)
        handles, labels = panels[0].get_legend_handles_labels()
        if members:
            handles += panels[0].lines[:1]
            labels += ["one corruption each"]
        figure.legend(handles, labels, loc="outside lower center", ncols=5)


def heat_maps(sheets: Sequence[Sheet], rows: Sequence[str], columns: Sequence[str], path: Path) -> None:
    """Tables of percentages beside one another, coloured by value.

    Args:
      sheets: the panels.
      rows: names, of all panels.
      columns: names, of all panels.
      path: the PNG.
    """
    name_width = 0.4 + 0.075 * max(len(shortened(row, 32)) for row in rows)
    width = min(FULL, name_width + len(sheets) * max(0.62 * len(columns), 1.6))
    with picture(path, max(width, HALF), 0.9 + 0.235 * len(rows)) as figure:
        panels = figure.subplots(1, len(sheets), squeeze=False, sharey=True)[0]
        for axes, sheet in zip(panels, sheets, strict=True):
            _heat_map(axes, sheet)
            axes.set_xticks(range(len(columns)), columns)
            axes.set_yticks(range(len(rows)), [shortened(row, 32) for row in rows])


def roc_curves(
    inside: Mapping[str, np.ndarray], outside: Mapping[str, Mapping[str, np.ndarray]], path: Path
) -> dict[str, dict[str, float]]:
    """For each set of anomalies, what share of it a score finds at each share of false alarms.

    Args:
      inside: score -> float `[N]` of the test set, higher is more anomalous.
      outside: set of anomalies -> score -> float `[M]`; scores that `inside` does not have are left out.
      path: the PNG.

    Returns:
      Set -> score -> area under the curve, by scikit-learn, as written in the legends.
    """
    from sklearn.metrics import auc, roc_curve  # takes a second to import

    areas = {name: {} for name in outside}
    columns, rows = grid_shape(len(outside))
    with picture(path, max(HALF, 3.2 * columns), 3.3 * rows) as figure:
        panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat
        for axes in panels[len(outside) - columns :]:
            axes.tick_params(labelbottom=True)
        for axes, (name, scores) in zip(panels, outside.items(), strict=False):
            shared = [score for score in inside if score in scores]
            for score, (colour, dash) in zip(shared, _lines(len(shared)), strict=True):
                truth = np.repeat((0, 1), (len(inside[score]), len(scores[score])))
                alarms, hits, _ = roc_curve(truth, np.concatenate([inside[score], scores[score]]))
                areas[name][score] = float(auc(alarms, hits))
                label = f"{areas[name][score]:.1%}  {_spoken(score)}"
                axes.plot(alarms, hits, color=colour, linestyle=dash, linewidth=1.5, label=label)
            axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
            axes.set(title=shortened(name, 34), xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
            percent(axes.xaxis, axes.yaxis)
            axes.legend(loc="lower right", fontsize=7.5, handlelength=1.6, labelspacing=0.25, borderaxespad=0.2)
        trim(figure, len(outside))
        figure.supxlabel("false alarms: share of the test set", fontsize=9.5)
        figure.supylabel("found: share of the anomalies", fontsize=9.5)
    return areas


def score_histograms(
    inside: Mapping[str, np.ndarray],
    outside: Mapping[str, Mapping[str, np.ndarray]],
    formulas: Mapping[str, str],
    path: Path,
) -> None:
    """The scores of the test set and of each set of anomalies; the less they overlap, the better.

    Args:
      inside: score -> float `[N]` of the test set, higher is more anomalous.
      outside: set of anomalies -> score -> float `[M]`.
      formulas: score -> what it is, beneath its panel; may lack some.
      path: the PNG.
    """
    columns, rows = grid_shape(len(inside))
    with picture(path, max(HALF, 3.2 * columns), 0.4 + 2.5 * rows) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).flat
        for axes, (score, known) in zip(panels, inside.items(), strict=False):
            unknown = {name: scores[score] for name, scores in outside.items() if score in scores}
            edges = _edges([known, *unknown.values()])
            _histogram(axes, known, edges, "test set", GREY, 0.3)
            for (name, values), (colour, dash) in zip(unknown.items(), _lines(len(unknown), skip=1), strict=True):
                _histogram(axes, values, edges, shortened(name, 26), colour, 0, dash)
            _scale_shares(axes)
            axes.set(title=_spoken(score))
            axes.set_xlabel(textwrap.fill(formulas.get(score, ""), 40), fontsize=8)
        handles = figure.axes[0].get_legend_handles_labels()
        trim(figure, len(inside))
        figure.legend(*handles, loc="outside lower center", ncols=4)
        figure.supylabel("share of each set (square-root scale)", fontsize=9.5)


def image_strips(strips: Mapping[str, Strip], per_line: int, path: Path) -> None:
    """Images in rows under a heading each.

    Args:
      strips: heading -> images; at least one image in all.
      per_line: images side by side, before a strip goes on in the next line.
      path: the PNG.
    """
    cell = FULL / per_line
    line_heights = [cell + _LINE * _lines_of_text(strip) for strip in strips.values()]
    heights = [
        _HEADING + line_height * -(-len(strip.images) // per_line)
        for strip, line_height in zip(strips.values(), line_heights, strict=True)
    ]
    with picture(path, FULL, sum(heights), layout=None) as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, FULL), ylim=(sum(heights), 0))
        axes.set_axis_off()
        tops = np.cumsum([0, *heights[:-1]])
        for (heading, strip), line_height, top in zip(strips.items(), line_heights, tops, strict=True):
            axes.text(0.03 * cell, top + _HEADING / 2, heading, weight="bold", fontsize=10, va="center")
            for index in range(len(strip.images)):
                line, column = divmod(index, per_line)
                _tile(axes, strip, index, column * cell, top + _HEADING + line * line_height, cell)


def certain_strip(
    images: np.ndarray, label: Sequence[str], predicted: Sequence[str], uncertainty: np.ndarray, correct: np.ndarray
) -> Strip:
    """Images with what was predicted, what it should have been where that was wrong, and the uncertainty.

    Args:
      images: uint8 `[n, H, W, C]`.
      label: n names of classes.
      predicted: n names of classes.
      uncertainty: float `[n]`.
      correct: bool `[n]`.
    """
    captions = [
        f"{guess}\n{amount:.3f}" if right else f"{guess}\nnot {truth}\n{amount:.3f}"
        for truth, guess, amount, right in zip(label, predicted, uncertainty, correct, strict=True)
    ]
    return Strip(images, captions, [RIGHT if right else WRONG for right in correct])


def protocols(rows: Mapping[str, Protocol], by_references: Mapping[int, np.ndarray], path: Path) -> None:
    """Accuracy of ways to choose references, what they cost, and accuracy against the number of references.

    Args:
      rows: name -> what it gives.
      by_references: K -> float `[n]`, the accuracies of n draws of K references; may be empty.
      path: the PNG.
    """
    timed = any(row.seconds is not None for row in rows.values())
    ratios = [3, *[2] * timed, *[3] * bool(by_references)]
    with picture(path, max(HALF, 1.2 * sum(ratios)), max(2.6, 1.1 + 0.42 * len(rows))) as figure:
        panels = iter(figure.subplots(1, len(ratios), squeeze=False, width_ratios=ratios)[0])
        _protocol_dots(next(panels), rows)
        if timed:
            _protocol_seconds(next(panels), rows)
        if by_references:
            _against_references(next(panels), by_references)
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=2)


def landscape(alphas: np.ndarray, betas: np.ndarray, accuracy: np.ndarray, loss: np.ndarray, path: Path) -> None:
    """Accuracy and loss around the trained parameters, on a plane of two random directions.

    Args:
      alphas: float `[A]`, ascending, steps along the first direction.
      betas: float `[B]`, ascending, along the second.
      accuracy: float `[A, B]`, in [0, 1].
      loss: float `[A, B]`, nats; infinite or NaN where it is beyond counting.
      path: the PNG.
    """
    with picture(path, FULL, 4.2) as figure:
        left, right = figure.subplots(1, 2)
        _contours(left, alphas, betas, accuracy, HIGHER_IS_BETTER, "accuracy", lambda value, _: f"{value:.0%}")
        _contours(
            right,
            alphas,
            betas,
            _log(loss),
            LOWER_IS_BETTER,
            "loss (nats)",
            lambda value, _: f"{float(f'{10**value:.2g}'):,g}",
        )


def bars(groups: Mapping[str, Mapping[str, float]], path: Path, *, quantity: str) -> None:
    """A fraction for each of several sets, beside one another for each label.

    Args:
      groups: set -> label -> value in [0, 1].
      path: the PNG.
      quantity: what it is.
    """
    labels = list(dict.fromkeys(label for values in groups.values() for label in values))
    thickness = 0.8 / len(labels)
    with picture(path, 0.75 * FULL, 1.1 + (0.2 + 0.2 * len(labels)) * len(groups)) as figure:
        axes = figure.subplots()
        for index, (label, colour) in enumerate(zip(labels, _shades(len(labels)), strict=True)):
            rows = [row for row, values in enumerate(groups.values()) if label in values]
            values = [values[label] for values in groups.values() if label in values]
            places = np.array(rows) + (index - (len(labels) - 1) / 2) * thickness
            drawn = axes.barh(places, values, thickness * 0.9, color=colour, label=label)
            axes.bar_label(drawn, [f"{value:.1%}" for value in values], padding=3, fontsize=8.5)
        axes.set_yticks(range(len(groups)), [shortened(name, 44) for name in groups])
        axes.grid(axis="y", visible=False)
        axes.set(xlim=(0, 1), ylim=(len(groups) - 0.5, -0.5), xlabel=quantity)
        percent(axes.xaxis)
        figure.legend(loc="outside lower center", ncols=4)


@contextlib.contextmanager
def picture(
    path: Path, width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> Iterator[Figure]:
    """A figure in the house style, saved when the block ends; in 256 colours, a third of the size."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)  # names in any script
        figure = Figure(figsize=(width, height), dpi=DPI, layout=layout)
        yield figure
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    with atomic_write(path) as file:
        image.quantize(256, Image.Quantize.MEDIANCUT).save(file, dpi=(DPI, DPI))


def _reliability(above: Axes, below: Axes, judged: Judged, num_bins: int, title: str) -> None:
    bins = metrics.reliability_bins(*judged, num_bins)
    error = float(metrics.calibration_error(bins))
    count, accuracy, confidence = (np.asarray(values) for values in bins)
    centres, width, full = (np.arange(num_bins) + 0.5) / num_bins, 1 / num_bins, count > 0
    above.bar(centres[full], accuracy[full], width, color=RIGHT, alpha=0.55, edgecolor="white", label="accuracy")
    gap = (confidence - accuracy)[full]
    style = {"facecolor": "none", "edgecolor": WRONG, "hatch": "/////", "linewidth": 0.8}
    above.bar(centres[full], gap, width, bottom=accuracy[full], label="gap to the confidence", **style)
    above.plot([0, 1], [0, 1], "--", color=INK, linewidth=1, label="calibrated")
    above.set(xlim=(0, 1), ylim=(0, 1), title=f"{wrapped(title, 30)}\nECE {error:.2%}")
    above.tick_params(labelbottom=False)
    below.bar(centres, count / count.sum(), width, color=GREY, edgecolor="white")
    below.set(xlabel="confidence", xlim=(0, 1))
    below.yaxis.set_major_locator(MaxNLocator(2))
    percent(above.yaxis, below.xaxis, below.yaxis)


def _edges(groups: Sequence[np.ndarray]) -> np.ndarray:
    """Of bins over all but the last 0.2 % on each side, which go to the outermost; wider for small groups."""
    low, high = np.quantile(np.concatenate(groups), (0.002, 0.998)).astype(np.float64)
    num_bins = int(np.clip(2 * np.sqrt(min(map(len, groups))), 12, 40))
    return np.linspace(low, max(high, low + 1e-6 * max(1, abs(low))), num_bins + 1)


def _histogram(axes: Axes, values: np.ndarray, edges: np.ndarray, label: str, colour: str, fill: float, dash="-"):
    count, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    share = count / len(values)
    if fill:
        axes.stairs(share, edges, fill=True, color=colour, alpha=fill, linewidth=0)
    axes.stairs(share, edges, color=colour, linestyle=dash, linewidth=1.6, label=label)


def _scale_shares(axes: Axes) -> None:
    """For histograms, once they are drawn: what piles up in one bin must not flatten all others."""
    axes.set_yscale("function", functions=(_root, np.square))
    axes.set_ylim(0, None)
    axes.yaxis.set_major_locator(FixedLocator(_SHARES))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    percent(axes.yaxis)


def _root(share: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(share, 0))


def _heat_map(axes: Axes, sheet: Sheet) -> None:
    values = np.ma.masked_invalid(sheet.values)
    low, high = float(values.min()), float(values.max())
    span = max(high - low, 0.01)
    image = axes.imshow(values, _tones(sheet.colours), vmin=low, vmax=low + span, aspect="auto")
    for (row, column), value in np.ndenumerate(sheet.values):
        if np.isfinite(value):
            red, green, blue, _ = image.cmap(image.norm(value))
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.55
            ink = "white" if dark else INK
            number = axes.text(column, row, f"{100 * value:.1f}", ha="center", va="center", fontsize=8.5, color=ink)
            number.set_in_layout(False)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.xaxis.tick_top()
    axes.set_title(f"{sheet.title} (%)", pad=8)


def _tile(axes: Axes, strip: Strip, index: int, left: float, top: float, cell: float) -> None:
    image = strip.images[index]
    image = image.repeat(3, axis=-1) if image.shape[-1] == 1 else image
    width, height = 0.94 * cell * np.array(image.shape[1::-1]) / max(image.shape[:2])
    middle, bottom = left + cell / 2, top + 0.94 * cell
    axes.imshow(image, extent=(middle - width / 2, middle + width / 2, bottom, bottom - height), aspect="auto")
    if strip.captions:
        colour = strip.colours[index] if strip.colours else INK
        fits = int(cell / 0.064)  # letters beneath an image
        caption = "\n".join(shortened(line, fits) for line in strip.captions[index].split("\n"))
        axes.text(middle, bottom + 0.03, caption, ha="center", va="top", fontsize=7.5, color=colour, linespacing=1.15)


def _lines_of_text(strip: Strip) -> int:
    return max((caption.count("\n") + 1 for caption in strip.captions), default=0)


def _protocol_dots(axes: Axes, rows: Mapping[str, Protocol]) -> None:
    for place, protocol in enumerate(rows.values()):
        label = "one draw" if place == 0 and len(protocol.draws) else None
        axes.plot(protocol.draws, np.full(len(protocol.draws), place), "|", color=GREY, markersize=11, label=label)
        axes.plot(protocol.accuracy, place, "o", color=RIGHT, markersize=7, label=None if place else "mean")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set(ylim=(len(rows) - 0.5, -0.5), title="accuracy")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="y", visible=False)
    percent(axes.xaxis)


def _protocol_seconds(axes: Axes, rows: Mapping[str, Protocol]) -> None:
    seconds = [np.nan if row.seconds is None else row.seconds for row in rows.values()]
    drawn = axes.barh(range(len(rows)), seconds, 0.55, color=GREY)
    axes.bar_label(drawn, ["" if np.isnan(value) else f"{value:.3g}" for value in seconds], padding=3, fontsize=8.5)
    axes.set_yticks(range(len(rows)), [])
    axes.set(ylim=(len(rows) - 0.5, -0.5), title="seconds per 1,000")
    axes.margins(x=0.25)
    axes.grid(axis="y", visible=False)


def _against_references(axes: Axes, by_references: Mapping[int, np.ndarray]) -> None:
    numbers = sorted(by_references)
    for num in numbers:
        axes.plot(np.full(len(by_references[num]), num), by_references[num], ".", color=GREY, alpha=0.6)
    axes.plot(numbers, [by_references[num].mean() for num in numbers], "o-", color=RIGHT, markersize=4.5, label="mean")
    axes.set(xscale="log", xlabel="references", title="accuracy against references")
    shown = [num for place, num in enumerate(numbers) if place == 0 or num / numbers[place - 1] > 1.35]
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    percent(axes.yaxis)


def _contours(axes: Axes, alphas, betas, values: np.ndarray, colours: str, title: str, form) -> None:
    values = np.ma.masked_invalid(values).T  # rows of an image go up along the second direction
    flat = values.count() == 0 or float(np.ptp(values.compressed())) < 1e-6
    shown = axes.pcolormesh(alphas, betas, values, cmap=_tones(colours), shading="nearest" if flat else "gouraud")
    if not flat:
        lines = axes.contour(alphas, betas, values, 7, colors=INK, linewidths=0.6, linestyles="solid")
        axes.clabel(lines, fmt=lambda value: form(value, None), fontsize=8)
    axes.plot(0, 0, "+", color=INK, markersize=11, markeredgewidth=2)
    axes.set(title=title, xlabel="first direction", ylabel="second direction", aspect="equal")
    axes.grid(visible=False)
    axes.figure.colorbar(shown, ax=axes, format=form, shrink=0.85).outline.set_visible(False)


def _tones(colours: str) -> ListedColormap:
    """The part of a colour map on which dark or white letters can be read."""
    return ListedColormap(matplotlib.colormaps[colours](np.linspace(0.05, 0.85, 256)))


def _log(loss: np.ndarray) -> np.ndarray:
    return np.log10(np.maximum(loss, 1e-6))


def grid_shape(num: int) -> tuple[int, int]:
    """Columns, at most three, and rows of so many panels."""
    columns = min(num, 3)
    return columns, -(-num // columns)


def trim(figure: Figure, used: int) -> None:
    """Removes the panels behind those that are used."""
    for axes in figure.axes[used:]:
        axes.remove()


def _shades(num: int) -> list:
    """From pale to dark; the last is the darkest."""
    return [matplotlib.colormaps["YlGnBu"](place) for place in np.linspace(0.9 - 0.5 * (num > 1), 0.9, num)]


def _lines(num: int, skip: int = 0) -> list[tuple[str, str]]:
    """Colour and dash of unordered lines."""
    palette = CATEGORIES[skip:]
    return [(palette[index % len(palette)], DASHES[index // len(palette) % len(DASHES)]) for index in range(num)]


def percent(*axis: Axis) -> None:
    """Writes fractions in per cent."""
    for one in axis:
        one.set_major_formatter(FuncFormatter(lambda value, _: f"{round(100 * value, 6):g}%"))


def _spoken(score: str) -> str:
    return score.replace("_", " ")


def wrapped(text: str, letters: int) -> str:
    """The text in up to three lines of so many letters."""
    return textwrap.fill(text, letters, max_lines=3, placeholder="…")


def shortened(text: str, letters: int) -> str:
    """The text, cut off after so many letters."""
    return text if len(text) <= letters else text[: letters - 1] + "…"
