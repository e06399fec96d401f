"""What suites leave on disk, and the report that is made of it."""

import base64
import csv
import io
import json
import math
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from anchor_jax import UserError
from anchor_jax.evaluation.results import Found
from anchor_jax.reporting import figures, write_report

NAMES = ["cat", "<script>alert(1)</script>", "a & b", "$\\frac"]
MEMBERS = ["fog", "gaussian_noise"]
METRICS = ("accuracy", "nll", "brier", "ece", "rms_ece", "smooth_ece")
SCORES = ("max_softmax", "entropy", "spread")
FACTS = {"step": 12, "num_bins": 15, "devices": ["cpu"], "versions": {"jax": "0.1"}, "seconds": 1.5, "anchored": True}
RUN = {
    "seed": 7,
    "command": "eval.py --workdir runs/x",
    "label_names": NAMES,
    "config": {"model.name": "mlp", "ok": True},
}


def numbers(rng, prefix=""):
    return {f"{prefix}{name}": float(rng.random()) for name in METRICS}


def columns(rng, num=40):
    label, predicted = rng.integers(0, 4, (2, num)).astype(np.int32)
    reals = {
        name: rng.random(num).astype(np.float32) for name in ("confidence", "entropy", "mutual_information", "spread")
    }
    return {"label": label, "predicted": predicted, "correct": label == predicted, **reals}


def images(rng, num):
    return rng.integers(0, 256, (num, 6, 6, 3), dtype=np.uint8)


def clean(rng):
    rows = {"most_certain_rows": np.arange(3), "least_certain_rows": np.arange(3, 6)}
    shown = {"most_certain_images": images(rng, 3), "least_certain_images": images(rng, 3)}
    scaled = {"temperature": 1.5, **numbers(rng, "scaled_")}
    of_logits = numbers(rng, "mean_logits_")
    return Found(numbers(rng) | {"entropy": 0.25} | of_logits | scaled, columns(rng) | rows | shown), {
        "num_examples": 40
    }


def corruptions(rng):
    each = {f"{member}/{severity}": numbers(rng) for member in MEMBERS for severity in range(1, 6)}
    metrics = {f"{of}/{name}": value for of, values in each.items() for name, value in values.items()}
    for severity in range(1, 6):
        metrics |= numbers(rng, f"severity{severity}/")
    arrays = {name: rng.random((2, 5, 30)).astype(np.float32) for name in ("confidence", "entropy")}
    arrays |= {"correct": rng.random((2, 5, 30)) < 0.5, "sample_images": images(rng, 2)}
    facts = {"source": ["generated"], "members": MEMBERS, "averages": {"mean15": ["fog"]}, "num_examples": 30}
    return Found(metrics | numbers(rng) | numbers(rng, "mean15/"), arrays), facts


def shift(rng):
    arrays = {f"{of}/{name}": column for of in ("r", "sketch") for name, column in columns(rng).items()}
    metrics = numbers(rng) | numbers(rng, "r/") | numbers(rng, "sketch/") | {"r/num_examples": 40.0}
    return Found(metrics, arrays), {"members": ["r", "sketch"]}


def ood(rng):
    parts = ("svhn/", "dtd/<b>/", "near/", "far/", "")
    metrics = {
        f"{of}{score}/{name}": float(rng.random()) for of in parts for score in SCORES for name in ("auroc", "fpr95")
    }
    arrays = {
        f"{of}/{score}": rng.random(25).astype(np.float32) for of in ("in", "svhn", "dtd/<b>") for score in SCORES
    }
    arrays |= {f"{of}/sample_images": images(rng, 12) for of in ("svhn", "dtd/<b>")}
    groups = {"near": ["svhn"], "far": ["dtd/<b>"]}
    return Found(metrics, arrays), {"members": ["svhn", "dtd/<b>"], "groups": groups, "scores": {"entropy": "in nats"}}


def protocols(rng):
    metrics = {f"draws/{draw}/{num}/accuracy": float(rng.random()) for draw in range(3) for num in (1, 5, 10)}
    for protocol in ("random1", "randomK", "blt"):
        metrics |= numbers(rng, f"{protocol}/") | {f"{protocol}/seconds_per_1000": float(rng.random())}
    return Found(metrics, {}), {"draws": {"1": 3}}


def probe(rng):
    facts = {"in_distribution": "c100", "members": ["c100", "other"]}
    return Found(numbers(rng, "c100/") | numbers(rng, "other/") | {"accuracy": 0.5}, {}), facts


def landscape(rng):
    steps = np.linspace(-1, 1, 5, dtype=np.float32)
    arrays = {"accuracy": rng.random((5, 5)).astype(np.float32), "loss": rng.random((5, 5)).astype(np.float32)}
    return Found({"accuracy": 0.5}, {"alphas": steps, "betas": steps, **arrays}), {"num_examples": 40}


SUITES = {suite.__name__: suite for suite in (landscape, probe, protocols, ood, shift, corruptions, clean)}


def write_all(folder, nums, suites=tuple(SUITES)):
    for suite in suites:
        for num in nums:
            finding, facts = SUITES[suite](np.random.default_rng(num))
            results_lib.write(folder, suite, FACTS | facts, {num: finding})


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A folder with findings of every suite for 1 and 10 references, and the report of them."""
    folder = tmp_path_factory.mktemp("run") / "eval/step12-bins15"
    write_all(folder, (1, 10))
    return write_report(folder, RUN).parent


class Page(HTMLParser):
    """What a test asks of a page: elements with their attributes, text, and rows of tables by section."""

    VOID = frozenset({"meta", "img"})

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self.rows, self.bold = [], [], [], []
        self.open, self.section = [], ""
        self.feed(text)
        self.close()
        assert not self.open, "elements are left open"
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.elements.append((tag, attrs))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = attrs["id"]
        if tag == "tr":
            self.rows.append((self.section, []))
        if tag in ("th", "td"):
            self.rows[-1][1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.words.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][1][-1] += data
        if "b" in self.open:
            self.bold.append((self.section, self.rows[-1][1][0] if "td" in self.open else "", data))

    def attributes(self, name):
        return [attrs[name] for _, attrs in self.elements if name in attrs]


def page_of(folder):
    return Page((folder / "report.html").read_text(encoding="utf-8"))


# what suites leave on disk


def test_findings_come_back(tmp_path):
    arrays = {"in/energy": np.float32([1, 2]), "images": np.zeros((1, 2, 2, 3), np.uint8), "correct": np.array([True])}
    findings = {10: Found({"a/b": 0.1, "n": np.float32(0.5)}, arrays), 0: Found({"a/b": 1 / 3}, {})}
    results_lib.write(tmp_path / "eval/step1-bins15", "ood", FACTS, findings)
    back = results_lib.read(tmp_path / "eval/step1-bins15")
    assert list(back) == ["ood"]
    assert back["ood"].suite == "ood"
    assert back["ood"].facts == FACTS
    assert back["ood"].facts_of == {0: FACTS, 10: FACTS}
    assert list(back["ood"].results) == [0, 10]
    assert back["ood"].results[10].metrics == {"a/b": 0.1, "n": 0.5}
    assert back["ood"].results[0] == Found({"a/b": 1 / 3}, {})
    assert back["ood"].results[10].arrays.keys() == arrays.keys()
    for name, values in arrays.items():
        np.testing.assert_array_equal(back["ood"].results[10].arrays[name], values, strict=True)
    with pytest.raises(KeyError, match="nothing"):
        back["ood"].results[10].arrays["nothing"]


finite = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.integers(0, 10_000), st.dictionaries(st.text(), finite), min_size=1, max_size=4))
def test_every_finite_number_comes_back_exactly(tmp_path_factory, numbers):
    folder = tmp_path_factory.mktemp("numbers")
    results_lib.write(folder, "clean", FACTS, {num: Found(metrics, {}) for num, metrics in numbers.items()})
    back = results_lib.read(folder)["clean"].results
    assert {num: finding.metrics for num, finding in back.items()} == numbers
    assert list(back) == sorted(numbers)


def test_nothing_found_yet_is_nothing(tmp_path):
    assert results_lib.read(tmp_path / "not there") == {}
    results_lib.write(tmp_path, "clean", FACTS, {1: Found({"a": 1.0}, {})})
    (tmp_path / "report.json").write_text("{")
    assert list(results_lib.read(tmp_path)) == ["clean"]


def test_findings_join_those_of_other_numbers_of_references(tmp_path):
    results_lib.write(
        tmp_path, "clean", {"members": ["a"]}, {1: Found({"x": 1.0}, {"v": np.ones(1)}), 2: Found({"x": 2.0}, {})}
    )
    results_lib.write(tmp_path, "clean", {"members": ["b"]}, {2: Found({"y": 3.0}, {"v": np.zeros(2)})})
    results_lib.write(tmp_path, "shift", FACTS, {3: Found({"z": 0.0}, {})})
    back = results_lib.read(tmp_path)
    assert {num: finding.metrics for num, finding in back["clean"].results.items()} == {1: {"x": 1.0}, 2: {"y": 3.0}}
    assert back["clean"].facts == {"members": ["b"]}
    assert back["clean"].facts_of == {1: {"members": ["a"]}, 2: {"members": ["b"]}}
    assert len(back["clean"].results[1].arrays["v"]) == 1
    assert len(back["clean"].results[2].arrays["v"]) == 2
    results_lib.write(tmp_path, "clean", FACTS, {1: Found({"x": 1.0}, {})})
    assert results_lib.read(tmp_path)["clean"].results[1].arrays == {}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_numbers_that_are_none_are_refused(tmp_path, value):
    with pytest.raises(
        ValueError, match=r"metrics must be finite; got fog/3/nll = -?(nan|inf) of clean with 10 references"
    ):
        results_lib.write(
            tmp_path, "clean", FACTS, {1: Found({"a": 1.0}, {"v": np.ones(1)}), 10: Found({"fog/3/nll": value}, {})}
        )
    assert list(tmp_path.iterdir()) == []


def test_failure_leaves_what_was_there(tmp_path, monkeypatch):
    results_lib.write(tmp_path, "clean", FACTS, {1: Found({"x": 1.0}, {"v": np.ones(1)})})
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(file, **arrays):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(UserError, match=r"cannot write to '.*' \(No space left on device\); make room"):
        results_lib.write(tmp_path, "clean", FACTS, {1: Found({"x": 2.0}, {"v": np.zeros(1)})})
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_facts_that_json_cannot_hold_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        results_lib.write(tmp_path, "clean", {"when": {1, 2}}, {1: Found({"x": 1.0}, {"v": np.ones(1)})})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name"),
        ("[]", "indices"),
        ('{"suite": "clean", "facts": {}}', "'results'"),
        ('{"suite": "clean", "facts": {}, "results": {}}', "holds no results of 'clean'"),
        ('{"suite": "shift", "facts": {}, "results": {"1": {"a": 1}}}', "holds no results of 'clean'"),
        ('{"suite": "clean", "facts": {}, "results": {"one": {"a": 1}}}', "invalid literal"),
        ('{"suite": "clean", "facts": {}, "results": {"1": {"a": "x"}}}', "could not convert"),
        ('{"suite": "clean", "facts": {}, "results": {"1": {"a": NaN}}}', "holds NaN"),
        ('{"suite": "clean", "facts": {}, "results": {"1": {"a": 1}}, "facts_of": {"2": {}}}', "holds no results"),
        ("\xff", "decode"),
    ],
)
def test_damaged_numbers_are_told_in_one_line_and_left_alone(tmp_path, text, reason):
    (tmp_path / "clean.json").write_text(text, encoding="latin-1")
    for act in (results_lib.read, lambda folder: write_report(folder, RUN)):
        with pytest.raises(UserError, match=r"clean\.json' is damaged \(.*\); move it away$") as told:
            act(tmp_path)
        assert reason in str(told.value)
        assert "\n" not in str(told.value)
    with pytest.raises(UserError, match="is damaged"):
        results_lib.write(tmp_path, "clean", FACTS, {5: Found({"a": 1.0}, {})})
    assert (tmp_path / "clean.json").read_text(encoding="latin-1") == text
    assert len(list(tmp_path.iterdir())) == 1


def test_damaged_arrays_are_told_in_one_line(tmp_path):
    results_lib.write(tmp_path, "clean", FACTS, {1: Found({"x": 1.0}, {"v": np.arange(500), "w": np.ones(3)})})
    file = tmp_path / "clean-references1.npz"
    whole = file.read_bytes()
    for damaged in (b"", b"nothing of the kind", whole[: len(whole) // 2]):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"clean-references1\.npz' is damaged \(.*\); move it away$"):
            results_lib.read(tmp_path)
    middle = whole.index(np.arange(500).tobytes()) + 80
    file.write_bytes(whole[:middle] + b"\xff\xff" + whole[middle + 2 :])
    arrays = results_lib.read(tmp_path)["clean"].results[1].arrays  # an array is read when it is asked for
    np.testing.assert_array_equal(arrays["w"], 1)
    with pytest.raises(UserError, match=r"clean-references1\.npz' is damaged \(Bad CRC.*\); move it away$"):
        arrays["v"]


# the report


def test_page_needs_nothing_beside_itself(reported):
    page, text = page_of(reported), (reported / "report.html").read_text(encoding="utf-8")
    tags = {tag for tag, _ in page.elements}
    assert tags.isdisjoint({"script", "link", "iframe", "object", "base", "form"})
    assert "img" in tags
    assert all(source.startswith("data:image/png;base64,") for source in page.attributes("src"))
    assert all(link.startswith("#") for link in page.attributes("href"))
    assert all(address not in text for address in ("http:", "https:", "url(", "@import"))
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert {link[1:] for link in page.attributes("href")} == set(page.attributes("id")) == {*SUITES, "the-run"}


def test_pictures_in_the_page_are_those_in_the_folder(reported):
    files = {file.read_bytes(): file.name for file in (reported / "pictures").iterdir()}
    shown = [attrs for tag, attrs in page_of(reported).elements if tag == "img"]
    names = [files[base64.b64decode(attrs["src"].partition(",")[2])] for attrs in shown]
    assert names == [
        *(f"clean-{name}.png" for name in ("reliability", "risk-coverage", "uncertainty", "certain")),
        *(f"corruptions-{name}.png" for name in ("severity", "heat-map", "reliability", "samples")),
        *(f"shift-{name}.png" for name in ("accuracy", "reliability")),
        *(f"ood-{name}.png" for name in ("roc", "auroc", "scores", "samples")),
        *("protocols-accuracy.png", "probe-accuracy.png", "landscape-contours.png"),
    ]
    assert sorted(names) == sorted(files.values())
    for attrs in shown:
        with Image.open(io.BytesIO(base64.b64decode(attrs["src"].partition(",")[2]))) as image:
            assert int(attrs["width"]) == pytest.approx(image.width * 96 / 150, abs=1)
            assert int(attrs["height"]) == pytest.approx(image.height * 96 / 150, abs=1)
        assert len(attrs["alt"]) > 10


def test_page_json_and_csv_have_the_same_numbers(reported):
    written = json.loads((reported / "report.json").read_text())
    assert written["run"] == RUN
    assert list(written["suites"]) == ["clean", "corruptions", "shift", "ood", "protocols", "probe", "landscape"]
    in_json = {
        (suite, num, name): value
        for suite, content in written["suites"].items()
        for num, metrics in content["results"].items()
        for name, value in metrics.items()
    }
    findings = {(suite, num): SUITES[suite](np.random.default_rng(num)) for suite in SUITES for num in (1, 10)}
    assert in_json == {
        (suite, str(num), name): value
        for (suite, num), (finding, _) in findings.items()
        for name, value in finding.metrics.items()
    }
    for suite, content in written["suites"].items():
        assert content["facts"] == FACTS | findings[suite, 10][1]
    with (reported / "report.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {(row["suite"], row["references"], row["name"]): float(row["value"]) for row in rows} == in_json
    assert len(rows) == len(in_json)
    shown = {(suite, cells[0]): cells[1:] for suite, cells in page_of(reported).rows}
    for (suite, num, name), value in in_json.items():
        assert shown[suite, name][{"1": 0, "10": 1}[num]] == f"{value:.6g}"


def test_text_of_the_user_is_escaped(tmp_path):
    folder = tmp_path / "eval/step1-bins15"
    write_all(folder, (10,), ("clean", "ood"))
    write_report(folder, RUN | {"title": "<i>x</i>", "note": '"><script>', "config": {"<b>k": "<b>v"}})
    page, text = page_of(folder), (folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert not {"i", "script"} & {tag for tag, _ in page.elements}
    for words in (*NAMES, "<i>x</i>", '"><script>', "<b>k", "<b>v", "dtd/<b>"):
        assert words in page.text


def test_best_of_a_column_is_bold_and_arrows_say_what_is_best(reported):
    page = page_of(reported)
    bold = [(row, number) for section, row, number in page.bold if section == "clean" and row]
    findings = {num: clean(np.random.default_rng(num))[0].metrics for num in (1, 10)}
    lower, higher = sorted((1, 10), key=lambda num: findings[num]["accuracy"])
    assert (figures.format_num_references(higher), f"{100 * findings[higher]['accuracy']:.2f}") in bold
    assert (figures.format_num_references(lower), f"{100 * findings[lower]['accuracy']:.2f}") not in bold
    best = min((1, 10), key=lambda num: findings[num]["nll"])
    assert (figures.format_num_references(best), f"{findings[best]['nll']:.4f}") in bold
    headings = next(cells for section, cells in page.rows if section == "clean")
    assert headings[1:4] == ["accuracy %\xa0↑", "NLL ↓", "Brier ↓"]
    assert all(number != "0.2500" for _, number in bold), "the same for all, and neither way is better"


def test_members_of_means_are_named(reported):
    text = page_of(reported).text
    for words in (
        "Mean over all (2): fog, gaussian_noise.",
        "Mean over 15 corruptions: fog.",
        "Mean over all (2): r, sketch.",
        "Mean over near sets (1): svhn.",
        "Mean over far sets (1): dtd/<b>.",
    ):
        assert words in text


def test_facts_stand_in_the_page(reported):
    rows = page_of(reported).rows
    assert ("the-run", ["command", "eval.py --workdir runs/x"]) in rows
    assert ("the-run", ["model.name", "mlp"]) in rows
    assert ("the-run", ["ok", "yes"]) in rows
    assert ("ood", ["versions", "jax 0.1"]) in rows
    assert ("clean", ["seconds", "1.5"]) in rows


def test_rows_measured_otherwise_are_told(reported, tmp_path):
    assert "Not all rows were measured alike" not in page_of(reported).text
    finding, facts = shift(np.random.default_rng(0))
    results_lib.write(tmp_path, "shift", FACTS | facts, {1: finding})
    results_lib.write(tmp_path, "shift", FACTS | facts | {"members": ["r"], "seconds": 9.0}, {10: finding})
    page = page_of(write_report(tmp_path, RUN).parent)
    assert "Not all rows were measured alike: members differ" in page.text
    assert ("shift", ["members, 1 reference", "r, sketch"]) in page.rows
    assert ("shift", ["members, 10 references", "r"]) in page.rows


def test_report_is_the_same_when_made_again(reported):
    before = {file: file.read_bytes() for file in reported.rglob("*") if file.is_file()}
    write_report(reported, RUN)
    assert {file: file.read_bytes() for file in reported.rglob("*") if file.is_file()} == before


def test_standard_network_without_arrays_has_tables_alone(tmp_path):
    rng = np.random.default_rng(0)
    for suite in SUITES:
        finding, facts = SUITES[suite](rng)
        metrics = numbers(rng, "standard/") if suite == "protocols" else finding.metrics
        results_lib.write(tmp_path, suite, FACTS | facts, {0: Found(metrics, {})})
    page = page_of(write_report(tmp_path, {}).parent)
    drawn = sorted(file.name for file in (tmp_path / "pictures").iterdir())
    assert drawn == [
        "corruptions-heat-map.png",
        "corruptions-severity.png",
        "probe-accuracy.png",
        "protocols-accuracy.png",
        "shift-accuracy.png",
    ]
    assert "standard network" in page.text
    assert ("protocols", ["no reference"]) in [(section, cells[:1]) for section, cells in page.rows]


def test_scores_that_are_the_same_everywhere_are_not_drawn(tmp_path):
    finding, facts = ood(np.random.default_rng(0))
    arrays = {
        name: np.zeros_like(values) if name.endswith("spread") else values for name, values in finding.arrays.items()
    }
    results_lib.write(tmp_path, "ood", FACTS | facts, {1: Found(finding.metrics, arrays)})
    page = figures._Page(results_lib.read(tmp_path)["ood"], NAMES, tmp_path, None)
    inside, outside = figures._scores(page)
    assert list(inside) == ["max_softmax", "entropy"]
    assert list(outside) == ["svhn", "dtd/<b>"]
    assert {tuple(scores) for scores in outside.values()} == {("max_softmax", "entropy")}


def test_suite_that_is_not_known_here_is_shown_by_its_numbers(tmp_path):
    results_lib.write(tmp_path, "weather", FACTS, {3: Found({"rain": 0.25}, {"v": np.ones(1)})})
    page = page_of(write_report(tmp_path, {}).parent)
    assert ("weather", ["rain", "0.25"]) in page.rows


def test_nothing_to_report_is_told(tmp_path):
    with pytest.raises(UserError, match=r"no results in '.*nothing'; run eval.py first"):
        write_report(tmp_path / "nothing", RUN)
    assert not (tmp_path / "nothing").exists()


def test_folder_that_cannot_be_written_to_is_told(tmp_path):
    write_all(tmp_path, (1,), ("probe",))
    (tmp_path / "pictures").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write to '.*' \((File exists|Not a directory)\)"):
        write_report(tmp_path, RUN)
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match="cannot write to"):
        results_lib.write(tmp_path / "taken", "clean", FACTS, {1: Found({"a": 1.0}, {"v": np.ones(1)})})


def test_flat_names_are_understood():
    metrics = {
        "a/b/3/ece": 0.1,
        "a/b/ece": 0.2,
        "severity3/ece": 0.3,
        "fog/5/ece": 0.4,
        "fog/5/smooth_ece": 0.5,
        "ece": 0.6,
    }
    assert figures.by_severity(metrics, "ece") == {"a/b": {3: 0.1}, "fog": {5: 0.4}}
    assert figures.by_set({"r/accuracy": 1, "x/y/accuracy": 2, "accuracy": 3, "r/top5_accuracy": 4}, "accuracy") == {
        "r": 1,
        "x/y": 2,
    }
    areas = {"near/entropy/auroc": 1, "x/y/entropy/auroc": 2, "entropy/auroc": 3, "entropy/fpr95": 4}
    assert figures.by_set_and_score(areas, "auroc") == {
        "near": {"entropy": 1},
        "x/y": {"entropy": 2},
        "": {"entropy": 3},
    }
    draws = figures.by_draw({"draws/0/10/ece": 1, "draws/1/10/ece": 2, "draws/0/2/ece": 3, "blt/ece": 4}, "ece")
    assert {num: values.tolist() for num, values in draws.items()} == {2: [3], 10: [1, 2]}
