"""Pictures of an evaluation: all are drawn, of ordinary findings and of degenerate ones."""

import matplotlib
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from anchor_jax.reporting import plots
from anchor_jax.reporting.plots import HIGHER_IS_BETTER, LOWER_IS_BETTER, Judged, Protocol, Sheet, Strip

RNG = np.random.default_rng(0)
CONFIDENCE = RNG.uniform(0.2, 1, 200).astype(np.float32)
CORRECT = RNG.random(200) < CONFIDENCE
JUDGED = Judged(CONFIDENCE, CORRECT)
ALL_RIGHT = Judged(CONFIDENCE, np.ones(200, bool))
ALL_WRONG = Judged(CONFIDENCE, np.zeros(200, bool))
SURE = Judged(np.ones(5, np.float32), np.array([True, True, False, True, True]))
ONE = Judged(np.float32([0.7]), np.array([True]))
ENTROPY = (1 - CONFIDENCE) + 0.1 * ~CORRECT
IN = {name: RNG.normal(size=90).astype(np.float32) for name in ("energy", "entropy", "max_logit")}
OUT = {name: RNG.normal(1, size=70).astype(np.float32) for name in IN}
CONSTANT = {"agreement": np.zeros(9, np.float32)}
IMAGES = RNG.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
CURVE = {0: 0.9, 1: 0.85, 3: 0.7, 5: 0.5}
GRID = np.linspace(-1, 1, 7, dtype=np.float32)
HILL = np.exp(-(GRID[:, None] ** 2) - GRID**2)
SHARP_LOSS = np.where(HILL < 0.2, np.inf, -np.log(HILL))

DRAWN = {
    "reliability": lambda path: plots.reliability_diagrams({"1 reference": JUDGED, "2 $ references": JUDGED}, 15, path),
    "reliability of many": lambda path: plots.reliability_diagrams(dict.fromkeys("abcd", JUDGED), 5, path),
    "reliability, all right": lambda path: plots.reliability_diagrams({"a": ALL_RIGHT}, 10, path),
    "reliability, all wrong": lambda path: plots.reliability_diagrams({"a": ALL_WRONG}, 10, path),
    "reliability, one bin": lambda path: plots.reliability_diagrams({"a": SURE}, 1, path),
    "reliability, one example": lambda path: plots.reliability_diagrams({"a": ONE}, 15, path),
    "uncertainty": lambda path: plots.uncertainty_histograms({"entropy": ENTROPY, "mutual": ENTROPY**2}, CORRECT, path),
    "uncertainty, none wrong": lambda path: plots.uncertainty_histograms({"a": ENTROPY}, ALL_RIGHT.correct, path),
    "uncertainty, none right": lambda path: plots.uncertainty_histograms({"a": ENTROPY}, ALL_WRONG.correct, path),
    "uncertainty, constant": lambda path: plots.uncertainty_histograms({"a": np.zeros(200)}, CORRECT, path),
    "risk": lambda path: plots.risk_coverage_curves({"K": {"1": JUDGED, "10": JUDGED}, "score": {"a": JUDGED}}, path),
    "risk, all right": lambda path: plots.risk_coverage_curves({"K": {"1": ALL_RIGHT}}, path),
    "risk, all wrong": lambda path: plots.risk_coverage_curves({"K": {"1": ALL_WRONG}}, path),
    "risk, one example": lambda path: plots.risk_coverage_curves({"K": {"1": ONE}}, path),
    "severity": lambda path: plots.severity_curves(
        {"accuracy": {"1": CURVE, "10": CURVE}, "entropy (nats)": {"1": CURVE}}, {"accuracy": {"fog": CURVE}}, path
    ),
    "severity, one": lambda path: plots.severity_curves({"accuracy": {"1": {3: 0.5}}}, {}, path),
    "heat maps": lambda path: plots.heat_maps(
        [Sheet("up", HILL, HIGHER_IS_BETTER), Sheet("down", 1 - HILL, LOWER_IS_BETTER)],
        list("abcdefg"),
        "1234567",
        path,
    ),
    "heat map, one number": lambda path: plots.heat_maps(
        [Sheet("a", np.ones((1, 1)), HIGHER_IS_BETTER)], "a", "1", path
    ),
    "heat map with a gap": lambda path: plots.heat_maps(
        [Sheet("a", np.array([[0.5, np.nan]]), HIGHER_IS_BETTER)], ["x" * 80], "12", path
    ),
    "ROC": lambda path: plots.roc_curves(IN, dict.fromkeys("abcde", OUT), path),
    "ROC, one set": lambda path: plots.roc_curves(IN, {"a": OUT}, path),
    "ROC, constant": lambda path: plots.roc_curves(CONSTANT, {"a": CONSTANT}, path),
    "scores": lambda path: plots.score_histograms(IN, dict.fromkeys("abcdefghi", OUT), {"energy": "long " * 20}, path),
    "scores, constant": lambda path: plots.score_histograms(CONSTANT, {"a": CONSTANT}, {}, path),
    "scores, missing in a set": lambda path: plots.score_histograms(IN, {"a": {"energy": OUT["energy"]}}, {}, path),
    "strips": lambda path: plots.image_strips(
        {"$x": Strip(IMAGES, ["a", "b\nc", "d", "e" * 50], ["red"] * 4), "y": Strip(IMAGES, ())}, 3, path
    ),
    "strip, grey and oblong": lambda path: plots.image_strips({"x": Strip(IMAGES[:1, :, :4, :1], ())}, 10, path),
    "protocols": lambda path: plots.protocols(
        {"1 random": Protocol(0.5, np.array([0.49, 0.51]), 2.2), "BLT": Protocol(0.52, np.empty(0), 24.0)},
        {1: np.array([0.49, 0.51]), 2: np.array([0.5]), 10: np.array([0.51])},
        path,
    ),
    "protocols, one": lambda path: plots.protocols({"no reference": Protocol(0.5, np.empty(0), None)}, {}, path),
    "protocols, some timed": lambda path: plots.protocols(
        {"a": Protocol(0.5, np.empty(0), None), "b": Protocol(0.5, np.empty(0), 1.0)}, {1: np.array([0.5])}, path
    ),
    "landscape": lambda path: plots.landscape(GRID, GRID, HILL, -np.log(HILL), path),
    "landscape, infinite loss": lambda path: plots.landscape(GRID, GRID, HILL, SHARP_LOSS, path),
    "landscape, flat": lambda path: plots.landscape(GRID, GRID[:5], np.ones((7, 5)), np.zeros((7, 5)), path),
    "landscape, no finite loss": lambda path: plots.landscape(GRID, GRID, HILL, np.full((7, 7), np.nan), path),
    "bars": lambda path: plots.bars({"a": {"1": 0.5, "10": 0.6}, "b" * 90: {"10": 0.0}}, path, quantity="accuracy"),
    "bars, one": lambda path: plots.bars({"a": {"1": 1.0}}, path, quantity="accuracy"),
}


@pytest.mark.parametrize("name", DRAWN)
def test_picture_is_drawn(name, tmp_path):
    DRAWN[name](tmp_path / "folder/picture.png")
    with Image.open(tmp_path / "folder/picture.png") as image:
        assert image.format == "PNG"
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
        width, height = image.size
        assert 600 <= width <= 150 * plots.FULL
        assert height >= 90
        pixels = np.asarray(image.convert("RGB"), np.float32) / 255
    assert (pixels < 0.5).any()
    assert pixels.std() > 0.03
    assert (pixels[[0, -1]] == 1).all(), "something is cut off at the upper or lower edge"


def test_names_in_any_script_are_drawn_without_a_warning(tmp_path):
    names = ["猫", "$\\frac{a$", "<b>&amp;</b>", "mis\tmatched_^{"]
    plots.image_strips({name: Strip(IMAGES, names) for name in names}, 4, tmp_path / "strips.png")
    plots.reliability_diagrams(dict.fromkeys(names, JUDGED), 5, tmp_path / "reliability.png")
    plots.bars({name: {name: 0.5} for name in names}, tmp_path / "bars.png", quantity="accuracy")
    assert len(list(tmp_path.iterdir())) == 3


def test_style_is_for_the_picture_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    plots.bars({"a": {"1": 0.5}}, tmp_path / "bars.png", quantity="accuracy")
    assert dict(matplotlib.rcParams) == before


def test_failure_leaves_the_earlier_picture(tmp_path):
    path = tmp_path / "picture.png"
    DRAWN["bars"](path)
    before = path.read_bytes()
    with pytest.raises(TypeError, match="incompatible"):
        plots.landscape(GRID, GRID, HILL[:3], HILL, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_areas_are_those_of_scikit_learn(tmp_path):
    ties = {"entropy": np.float32([0, 0, 1, 1, 1, 2])}, {"x": {"entropy": np.float32([0, 1, 2, 2])}}
    for inside, outside in ((IN, {"one": OUT, "other": IN}), ties, (CONSTANT, {"a": CONSTANT})):
        areas = plots.roc_curves(inside, outside, tmp_path / "roc.png")
        for name, scores in outside.items():
            for score, anomalous in scores.items():
                truth = np.repeat([0, 1], [len(inside[score]), len(anomalous)])
                expected = roc_auc_score(truth, np.concatenate([inside[score], anomalous]))
                assert areas[name][score] == pytest.approx(expected, abs=1e-6)
    assert areas == {"a": {"agreement": 0.5}}


def test_images_keep_their_colours_and_order(tmp_path):
    colours = np.array([(200, 0, 0), (0, 160, 0), (0, 0, 240)], np.uint8)
    images = np.ones((3, 5, 5, 1), np.uint8) * colours[:, None, None]
    plots.image_strips({"x": Strip(images, ())}, 3, tmp_path / "strip.png")
    with Image.open(tmp_path / "strip.png") as image:
        pixels = np.asarray(image.convert("RGB"), np.int32)
    columns = []
    for colour in colours:
        found = np.abs(pixels - colour).sum(-1) < 10
        assert found.mean() > 0.2
        columns.append(np.argwhere(found)[:, 1].mean())
    assert columns == sorted(columns)


def test_certain_strip_tells_prediction_truth_and_uncertainty():
    strip = plots.certain_strip(
        IMAGES[:2], ["cat", "dog"], ["cat", "frog"], np.array([0.01, 2]), np.array([True, False])
    )
    assert list(strip.captions) == ["cat\n0.010", "frog\nnot dog\n2.000"]
    assert list(strip.colours) == [plots.RIGHT, plots.WRONG]
