"""Plots: all kinds are drawn, of ordinary and of degenerate values."""

import matplotlib
import numpy as np
import pytest
from legends import checked_legends
from matplotlib.figure import Figure
from PIL import Image

from anchor_jax.evaluation.presentation import (
    Bars,
    Confusion,
    ContourPanel,
    Contours,
    DotPanel,
    DotPlots,
    Dots,
    HeatMap,
    HeatMaps,
    Histogram,
    HistogramPanel,
    Histograms,
    ImageGrid,
    ImageStrip,
    Line,
    LinePanel,
    LinePlots,
    ReliabilityDiagrams,
)
from anchor_jax.evaluation.results import Score, SuiteResult
from anchor_jax.evaluation.suites.clean import Clean
from anchor_jax.evaluation.suites.protocols import Protocols
from anchor_jax.metrics import reliability_bins, specs
from anchor_jax.reporting import plots, style

RNG = np.random.default_rng(0)
CONFIDENCE = RNG.uniform(0.2, 1, 200).astype(np.float32)
CORRECT = RNG.random(200) < CONFIDENCE
ENTROPY = (1 - CONFIDENCE) + 0.1 * ~CORRECT
BINS = reliability_bins(CONFIDENCE, CORRECT, 15)
IMAGES = RNG.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
GRID = np.linspace(-1, 1, 7, dtype=np.float32)
HILL = np.exp(-(GRID[:, None] ** 2) - GRID**2)
SHARP_LOSS = np.where(HILL < 0.2, np.inf, -np.log(HILL))
X = np.arange(1, 6)


def reliability(correct, num_bins=10, confidence=CONFIDENCE):
    return reliability_bins(confidence, correct, num_bins)


def lines(*styles, num=1, **options):
    panel = LinePanel("a", [Line(f"{kind} {i}", X, X / (i + 6), kind) for i, kind in enumerate(styles)], **options)
    return LinePlots([panel] * num, shared_legend=num == 1)


def histograms(*groups, num=1):
    return Histograms([HistogramPanel("a", "long " * 20, [Histogram(name, *group) for name, *group in groups])] * num)


def clean_figures(correct, confidence=CONFIDENCE, **columns):
    arrays = {"confidence": confidence, "correct": correct, **columns}
    result = SuiteResult("clean", 1, (Score("accuracy", 0.5),), arrays, {"num_bins": 15})
    return {figure.name: figure.plot for figure in Clean().figures({1: result}, {})}


def contours(accuracy, loss):
    panels = [ContourPanel("accuracy", accuracy, True, True), ContourPanel("loss", loss, False, False)]
    return Contours(GRID, GRID[: accuracy.shape[1]], panels)


def dots(rows, metric="accuracy", **options):
    spec = specs.get(metric)
    return DotPlots(list(rows), [DotPanel("a", rows, spec), DotPanel("b", rows, spec, signed=True)], **options)


ONE = np.float32([0.7])
PLOTS = {
    "reliability": ReliabilityDiagrams({"1 reference": BINS, "2 $ references": BINS}),
    "reliability of several rows": ReliabilityDiagrams(dict.fromkeys("abcd", BINS)),
    "reliability, all right": ReliabilityDiagrams({"a": reliability(np.ones(200, bool))}),
    "reliability, all wrong": ReliabilityDiagrams({"a": reliability(np.zeros(200, bool))}),
    "reliability, one bin": ReliabilityDiagrams({"a": reliability(CORRECT, 1)}),
    "reliability, one example": ReliabilityDiagrams({"a": reliability(np.array([True]), 15, ONE)}),
    "histograms": histograms(("right", ENTROPY, "right"), ("wrong", ENTROPY**2, "wrong"), num=2),
    "histograms of several sets": histograms(
        ("in", ENTROPY, "known"), *((name, ENTROPY) for name in "abcdefghi"), num=7
    ),
    "histograms, one group": histograms(("right", ENTROPY, "right")),
    "histograms, constant": histograms(("in", np.zeros(9), "known"), ("a", np.zeros(9))),
    "risk": clean_figures(CORRECT, entropy=ENTROPY, spread=ENTROPY**2)["risk-coverage"],
    "uncertainty": clean_figures(CORRECT, entropy=ENTROPY, spread=ENTROPY**2)["uncertainty"],
    "uncertainty, none wrong": clean_figures(np.ones(200, bool), entropy=ENTROPY)["uncertainty"],
    "uncertainty, none right": clean_figures(np.zeros(200, bool), entropy=ENTROPY)["uncertainty"],
    "risk, all right": clean_figures(np.ones(200, bool))["risk-coverage"],
    "risk, all wrong": clean_figures(np.zeros(200, bool))["risk-coverage"],
    "risk, one example": clean_figures(np.array([True]), ONE)["risk-coverage"],
    "lines": lines("ordered", "ordered", "faint", "guide", percent="y", xticks={1: "clean", 5: "5"}),
    "lines with a band": LinePlots([LinePanel("a", [Line("b", X, X, band=X / 9, markers=True)], log_x=True)]),
    "lines, one point": LinePlots([LinePanel("a", [Line("b", [3], [0.5], markers="only")])]),
    "lines in many categories": lines(*["category"] * 9, num=5, square=True, percent="xy", limits=((0, 6), (0, 1))),
    "heat maps": HeatMaps([HeatMap("up", HILL), HeatMap("down", 1 - HILL, False)], list("abcdefg"), list("1234567")),
    "heat map, one number": HeatMaps([HeatMap("a", np.ones((1, 1)))], ["a"], ["1"]),
    "heat map with a gap": HeatMaps([HeatMap("a", np.array([[0.5, np.nan]]))], ["x" * 80], ["1", "2"]),
    "images": ImageGrid(
        {"$x": ImageStrip(IMAGES, ["a", "b\nc", "d", "e" * 50], [True] * 4), "y": ImageStrip(IMAGES)}, 3
    ),
    "images, grey and oblong": ImageGrid({"x": ImageStrip(IMAGES[:1, :, :4, :1])}, 10),
    "images, many channels": ImageGrid({"x": ImageStrip(IMAGES[..., [0] * 13])}, 10),
    "confusion": Confusion(np.array([[5, 1, 0], [0, 0, 0], [2, 0, 9]]), ["a", "b" * 40, "$c"]),
    "confusion, many classes": Confusion(np.eye(100, dtype=int) + RNG.poisson(0.02, (100, 100)), ["name"] * 100),
    "confusion, one class": Confusion(np.array([[5]]), ["a"]),
    "dots": dots({"1 random": [Dots(0.5, [0.49, 0.51], text="0.5")], "BLT": [Dots(0.52)]}),
    "dots with intervals": dots(
        {"x" * 90: [Dots(0.1, interval=(0, 0.2)), Dots(-0.1)], "b": []}, "nll", legend=("c", "d"), color_rows=True
    ),
    "bars": Bars({"a": {"1": 0.5, "10": 0.6}, "b" * 90: {"10": 0.0}}, "accuracy"),
    "bars, one": Bars({"a": {"1": 1.0}}, "accuracy"),
    "contours": contours(HILL, -np.log(HILL)),
    "contours, infinite loss": contours(HILL, SHARP_LOSS),
    "contours, flat": contours(np.ones((7, 5)).T[:5].T, np.zeros((7, 5))),
    "contours, no finite loss": contours(HILL, np.full((7, 7), np.nan)),
}


@pytest.mark.parametrize("name", PLOTS)
def test_save_draws_a_plot(name, tmp_path):
    with checked_legends():
        plots.save(PLOTS[name], tmp_path / "folder/plot.png")
    with Image.open(tmp_path / "folder/plot.png") as image:
        assert image.format == "PNG"
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
        width, height = image.size
        assert 600 <= width <= 150 * style.FULL
        assert height >= 90
        pixels = np.asarray(image.convert("RGB"), np.float32) / 255
    assert (pixels < 0.5).any()
    assert pixels.std() > 0.03
    assert (pixels[[0, -1]] == 1).all(), "something is cut off at the upper or lower edge"


def test_save_draws_names_in_any_script_without_warning(tmp_path):
    names = ["猫", "$\\frac{a$", "<b>&amp;</b>", "mis\tmatched_^{"]
    plots.save(ImageGrid({name: ImageStrip(IMAGES, names) for name in names}, 4), tmp_path / "images.png")
    plots.save(ReliabilityDiagrams(dict.fromkeys(names, BINS)), tmp_path / "reliability.png")
    plots.save(Bars({name: {name: 0.5} for name in names}, "accuracy"), tmp_path / "bars.png")
    assert len(list(tmp_path.iterdir())) == 3


def test_legends_have_names_with_a_leading_underscore():
    """Matplotlib leaves such labels out, and datasets are named after folders."""
    groups, line = histograms(("_set", CONFIDENCE), ("test", CONFIDENCE)), Line("_set", X, X)
    for plot in (groups, LinePlots([LinePanel("a", [line])])):
        figure = Figure(layout="constrained")
        plots._DRAWINGS[type(plot)][1](figure, plot)
        [legend] = figure.legends
        assert legend.get_texts()[0].get_text().strip() == "_set"


def test_save_does_not_change_the_style_of_the_user(tmp_path):
    before = dict(matplotlib.rcParams)
    plots.save(PLOTS["bars"], tmp_path / "bars.png")
    assert dict(matplotlib.rcParams) == before


def test_save_keeps_the_earlier_file_if_drawing_fails(tmp_path):
    path = tmp_path / "plot.png"
    plots.save(PLOTS["bars"], path)
    before = path.read_bytes()
    with pytest.raises(TypeError, match="incompatible"):
        plots.save(Contours(GRID, GRID, [ContourPanel("accuracy", HILL[:3], True, True)]), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_images_keep_their_colors_and_order(tmp_path):
    colors = np.array([(200, 0, 0), (0, 160, 0), (0, 0, 240)], np.uint8)
    images = np.ones((3, 5, 5, 1), np.uint8) * colors[:, None, None]
    plots.save(ImageGrid({"x": ImageStrip(images)}, 3), tmp_path / "images.png")
    with Image.open(tmp_path / "images.png") as image:
        pixels = np.asarray(image.convert("RGB"), np.int32)
    columns = []
    for color in colors:
        found = np.abs(pixels - color).sum(-1) < 10
        assert found.mean() > 0.2
        columns.append(np.argwhere(found)[:, 1].mean())
    assert columns == sorted(columns)


def test_clean_figures_caption_the_most_and_least_certain():
    arrays = {
        **{"label": np.array([0, 2]), "predicted": np.array([0, 1]), "entropy": np.array([0.01, 2])},
        **{"most_certain_rows": np.arange(2), "most_certain_images": IMAGES[:2]},
        **{"least_certain_rows": np.arange(1), "least_certain_images": IMAGES[:1]},
    }
    result = SuiteResult("clean", 1, (), arrays, {"label_names": ["cat", "dog"]})
    (figure,) = [of for of in Clean().figures({1: result}, {}) if of.name == "certain"]
    assert isinstance(figure.plot, ImageGrid)
    strip = figure.plot.strips["most certain"]
    assert strip.captions == ["cat\n0.010", "dog\nnot 2\n2.000"]
    assert strip.correct == [True, False]


def test_protocols_figures_without_draws_or_times():
    result = SuiteResult("protocols", 0, (Score("accuracy", 0.5, protocol="standard"),))
    (figure,) = Protocols().figures({0: result}, {})
    assert isinstance(figure.plot, DotPlots)
    assert figure.plot.rows == ["no reference"]
    assert [panel.title for panel in figure.plot.panels] == ["accuracy"]
