"""Tables and figures as plain data, which `anchor_jax.reporting` renders as HTML, PNG and terminal text."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from anchor_jax.metrics import ReliabilityBins
from anchor_jax.metrics.specs import MetricSpec

GROUP_TITLES = {
    "mean15": "15 corruptions",
    "mean19": "19 corruptions",
    "cbar": "C̄",
    "near": "near sets",
    "far": "far sets",
    "corruptions": "corruptions",
    "shift": "shifted sets",
}


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table: one metric."""

    title: str
    spec: MetricSpec
    values: Sequence[float | None]  # one per row of the table; None prints a dash
    intervals: Callable[[], Sequence[tuple[float, float] | None]] | None = None  # one per row; computed for the page


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of numbers.

    Attributes:
      caption: may be empty.
      rows: titles of the rows.
      columns: one per metric.
      mark_best: whether the best value of each column is printed bold.
      notes: sentences below the table.
      file: stem of a CSV file with the table, or none.
      shown: rows on the page, if it does not show all; then there is a file.
    """

    caption: str
    rows: Sequence[str]
    columns: Sequence[Column]
    mark_best: bool = True
    notes: Sequence[str] = ()
    file: str = ""
    shown: Sequence[int] | None = None


@dataclasses.dataclass(frozen=True)
class Highlight:
    """A number at the top of the report."""

    title: str
    spec: MetricSpec
    value: float
    remark: str = ""


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a plot.

    Attributes:
      label: in the legend; an empty one is left out.
      x: numbers.
      y: as many.
      style: "ordered" lines darken from the first to the last, "category" lines differ in hue, "baseline" lines are
        grey, "faint" lines are thin and grey, "guide" lines are dotted.
      markers: whether each point has a dot; "only" draws no line between them.
      band: half the height of a band around the line, as many numbers.
    """

    label: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    style: Literal["ordered", "category", "baseline", "faint", "guide"] = "category"
    markers: bool | Literal["only"] = False
    band: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class LinePanel:
    """One panel of a line plot.

    Attributes:
      title: above it.
      lines: drawn in this order.
      xlabel: of the horizontal axis.
      ylabel: of the vertical axis.
      percent: the axes that show fractions in percent: "", "x", "y" or "xy".
      xticks: position -> label; by default chosen automatically.
      limits: of the horizontal and the vertical axis, each a pair or None.
      log_x: whether the horizontal axis is logarithmic.
      square: whether both axes have the same scale.
    """

    title: str
    lines: Sequence[Line]
    xlabel: str = ""
    ylabel: str = ""
    percent: str = ""
    xticks: Mapping[int, str] | None = None
    limits: tuple[tuple[float, float] | None, tuple[float, float] | None] = (None, None)
    log_x: bool = False
    square: bool = False


@dataclasses.dataclass(frozen=True)
class LinePlots:
    """Line plots, up to three next to each other, with one legend for all or one below each panel."""

    panels: Sequence[LinePanel]
    shared_legend: bool = True


@dataclasses.dataclass(frozen=True)
class Histogram:
    """Distribution of some values; "right" and "known" ones are filled."""

    label: str
    values: np.ndarray
    style: Literal["known", "right", "wrong", "category"] = "category"


@dataclasses.dataclass(frozen=True)
class HistogramPanel:
    """Distributions on one axis."""

    title: str
    xlabel: str
    groups: Sequence[Histogram]


@dataclasses.dataclass(frozen=True)
class Histograms:
    """Histograms, up to three next to each other."""

    panels: Sequence[HistogramPanel]


@dataclasses.dataclass(frozen=True)
class ReliabilityDiagrams:
    """Accuracy by confidence, one diagram per title."""

    panels: Mapping[str, ReliabilityBins]


@dataclasses.dataclass(frozen=True)
class HeatMap:
    """Fractions as colors; NaN is left blank."""

    title: str
    values: np.ndarray  # [rows, columns], in [0, 1]
    higher_is_better: bool = True


@dataclasses.dataclass(frozen=True)
class HeatMaps:
    """Heat maps next to each other, with the same rows and columns."""

    panels: Sequence[HeatMap]
    rows: Sequence[str]
    columns: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Confusion:
    """How often each class is taken for each other one."""

    counts: np.ndarray  # int [classes, classes]; rows are true classes, columns predicted ones
    names: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Dots:
    """A number with its single measurements and an interval."""

    value: float
    ticks: Sequence[float] | np.ndarray = ()
    interval: tuple[float, float] | None = None
    text: str = ""  # printed next to the dot


@dataclasses.dataclass(frozen=True)
class DotPanel:
    """One quantity: row -> its dots, drawn below each other with different markers."""

    title: str
    rows: Mapping[str, Sequence[Dots | None]]
    spec: MetricSpec
    signed: bool = False  # differences, with a line at zero


@dataclasses.dataclass(frozen=True)
class DotPlots:
    """Dot plots with the same rows; `legend` names the markers of a row.

    With `color_rows` each row has a color, the first one grey for the baseline; `skip_colors` are left out.
    """

    rows: Sequence[str]
    panels: Sequence[DotPanel]
    legend: Sequence[str] = ()
    color_rows: bool = False
    skip_colors: int = 0


@dataclasses.dataclass(frozen=True)
class Bars:
    """Fractions as bars: group -> label -> value in [0, 1].

    With `errors`, half the lengths of whiskers, the labels are methods, the first one the baseline.
    """

    groups: Mapping[str, Mapping[str, float]]
    xlabel: str
    errors: Mapping[str, Mapping[str, float]] | None = None


@dataclasses.dataclass(frozen=True)
class ImageStrip:
    """Images in a row.

    Attributes:
      images: uint8 `[n, H, W, C]`; if C is neither 1 nor 3, the mean of the channels is drawn.
      captions: one per image, of up to three lines, or none.
      correct: one per image, which colors its caption, or none.
    """

    images: np.ndarray
    captions: Sequence[str] = ()
    correct: Sequence[bool] = ()


@dataclasses.dataclass(frozen=True)
class ImageGrid:
    """Strips of images, each below its heading."""

    strips: Mapping[str, ImageStrip]
    per_line: int


@dataclasses.dataclass(frozen=True)
class ContourPanel:
    """A quantity on a plane; infinite or NaN is left blank."""

    title: str
    values: np.ndarray  # [A, B]
    higher_is_better: bool
    is_fraction: bool  # else a positive number on a logarithmic scale


@dataclasses.dataclass(frozen=True)
class Contours:
    """Contour plots on one plane."""

    alphas: np.ndarray  # [A], ascending
    betas: np.ndarray  # [B], ascending
    panels: Sequence[ContourPanel]


Plot = LinePlots | Histograms | ReliabilityDiagrams | HeatMaps | Confusion | DotPlots | Bars | ImageGrid | Contours


@dataclasses.dataclass(frozen=True)
class Figure:
    """A plot with its title and caption; `name` is the stem of its file."""

    name: str
    title: str
    caption: str
    plot: Plot


def format_num_references(num_references: int) -> str:
    """Return a number of references in words.

    >>> format_num_references(0), format_num_references(1), format_num_references(1000)
    ('standard network', '1 reference', '1,000 references')
    """
    return {0: "standard network", 1: "1 reference"}.get(num_references, f"{num_references:,} references")


def describe_transduction(facts: Mapping[str, Any]) -> list[str]:
    """Return a sentence on the candidates of bilinear transduction; none if the facts of a result name none.

    >>> describe_transduction({"blt_references": 50, "blt_bank": 50_000, "blt_residuals": 1_000})
    ['BLT chooses among 50 of the 50,000 references of the bank, drawn at random, with 1,000 residuals.']
    """
    num, bank = facts.get("blt_references"), facts.get("blt_bank")
    if num is None or "blt_residuals" not in facts:
        return []
    drawn = f"all {num:,} references of the bank"
    if num != bank:  # earlier results do not say how many there are
        drawn = f"{num:,} of the {f'{bank:,} ' if bank else ''}references of the bank, drawn at random"
    return [f"BLT chooses among {drawn}, with {facts['blt_residuals']:,} residuals."]
