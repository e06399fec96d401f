"""The report of an evaluation: page, figures, JSON."""

import base64
import io
import json
import os
from html.parser import HTMLParser

import numpy as np
import pytest
from conftest import write_results
from legends import checked_legends
from PIL import Image

from anchor_jax import UserError
from anchor_jax.evaluation import evaluate, storage
from anchor_jax.evaluation.presentation import format_num_references
from anchor_jax.evaluation.results import Score, SuiteResult, column_name
from anchor_jax.evaluation.same_data import clean_results_for
from anchor_jax.evaluation.suites.ood import stored_scores
from anchor_jax.reporting import write_report
from anchor_jax.reporting.report import write_page

NAMES = ["cat", "<script>alert(1)</script>", "a & b", "$\\frac"]
MEMBERS = ["fog", "gaussian_noise"]
METRICS = ("accuracy", "nll", "brier", "ece", "rms_ece", "smooth_ece")
SCORES = ("max_softmax", "entropy", "spread")
FACTS = {"step": 12, "num_bins": 15, "devices": ["cpu"], "versions": {"jax": "0.1"}, "seconds": 1.5, "anchored": True}
FACTS |= {"label_names": NAMES}
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
    return (numbers(rng) | {"entropy": 0.25} | of_logits | scaled, columns(rng) | rows | shown), {"num_examples": 40}


def corruptions(rng):
    each = {f"{member}/{severity}": numbers(rng) for member in MEMBERS for severity in range(1, 6)}
    metrics = {f"{of}/{name}": value for of, values in each.items() for name, value in values.items()}
    for severity in range(1, 6):
        metrics |= numbers(rng, f"severity{severity}/")
    arrays = {name: rng.random((2, 5, 30)).astype(np.float32) for name in ("confidence", "entropy")}
    arrays |= {"correct": rng.random((2, 5, 30)) < 0.5, "sample_images": images(rng, 2)}
    facts = {"source": ["generated"], "members": MEMBERS, "averages": {"mean15": ["fog"]}, "num_examples": 30}
    return (metrics | numbers(rng) | numbers(rng, "mean15/"), arrays), facts


def shift(rng):
    arrays = {f"{of}/{name}": column for of in ("r", "sketch") for name, column in columns(rng).items()}
    metrics = numbers(rng) | numbers(rng, "r/") | numbers(rng, "sketch/") | {"r/num_examples": 40.0}
    return (metrics, arrays), {"members": ["r", "sketch"]}


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
    return (metrics, arrays), {"members": ["svhn", "dtd/<b>"], "groups": groups, "scores": {"entropy": "in nats"}}


def protocols(rng):
    metrics = {f"draws/{draw}/{num}/accuracy": float(rng.random()) for draw in range(3) for num in (1, 5, 10)}
    for protocol in ("random1", "randomK", "blt"):
        metrics |= numbers(rng, f"{protocol}/") | {f"{protocol}/seconds_per_1000": float(rng.random())}
    return (metrics, {}), {"draws": {"1": 3}}


def probe(rng):
    facts = {"in_distribution": "c100", "members": ["c100", "other"]}
    return (numbers(rng, "c100/") | numbers(rng, "other/") | {"accuracy": 0.5}, {}), facts


def landscape(rng):
    steps = np.linspace(-1, 1, 5, dtype=np.float32)
    arrays = {"accuracy": rng.random((5, 5)).astype(np.float32), "loss": rng.random((5, 5)).astype(np.float32)}
    return ({"accuracy": 0.5}, {"alphas": steps, "betas": steps, **arrays}), {"num_examples": 40}


def of_transduction(suite, scores):
    return SuiteResult(suite, 1, tuple(scores), {}, FACTS | {"members": MEMBERS, "num_examples": 40}, "blt")


SUITES = {suite.__name__: suite for suite in (landscape, probe, protocols, ood, shift, corruptions, clean)}


def write_all(folder, nums, suites=tuple(SUITES)):
    for suite in suites:
        for num in nums:
            finding, facts = SUITES[suite](np.random.default_rng(num))
            write_results(folder, suite, FACTS | facts, {num: finding})


def report(folder, run_facts=RUN):
    return write_page(folder, storage.read(folder), run_facts)


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A folder with findings of every suite for 1 and 10 references, and the report of them."""
    folder = tmp_path_factory.mktemp("run") / "eval/step12-bins15"
    write_all(folder, (1, 10))
    with checked_legends():
        return report(folder).parent


class Page(HTMLParser):
    """What tests check of a page: elements with their attributes, text, and rows of tables by section."""

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


def test_page_is_self_contained(reported):
    page, text = page_of(reported), (reported / "report.html").read_text(encoding="utf-8")
    tags = {tag for tag, _ in page.elements}
    assert tags.isdisjoint({"script", "link", "iframe", "object", "base", "form"})
    assert "img" in tags
    assert all(source.startswith("data:image/png;base64,") for source in page.attributes("src"))
    assert all(link.startswith("#") for link in page.attributes("href"))
    assert all(address not in text for address in ("http:", "https:", "url(", "@import"))
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert {link[1:] for link in page.attributes("href")} == set(page.attributes("id")) == {*SUITES, "the-run"}


def test_page_embeds_the_figures_of_the_folder(reported):
    files = {file.read_bytes(): file.name for file in (reported / "pictures").iterdir()}
    shown = [attrs for tag, attrs in page_of(reported).elements if tag == "img"]
    names = [files[base64.b64decode(attrs["src"].partition(",")[2])] for attrs in shown]
    assert names == [
        *(f"clean-{name}.png" for name in ("reliability", "risk-coverage", "uncertainty", "confusion", "certain")),
        *(f"corruptions-{name}.png" for name in ("severity", "heat-map", "reliability", "samples")),
        *(f"shift-{name}.png" for name in ("accuracy", "reliability")),
        *(f"ood-{name}.png" for name in ("roc", "auroc", "scores", "samples")),
        *("protocols-accuracy.png", "protocols-references.png", "probe-accuracy.png", "landscape-contours.png"),
    ]
    assert sorted(names) == sorted(files.values())
    for attrs in shown:
        with Image.open(io.BytesIO(base64.b64decode(attrs["src"].partition(",")[2]))) as image:
            assert int(attrs["width"]) == pytest.approx(image.width * 96 / 150, abs=1)
            assert int(attrs["height"]) == pytest.approx(image.height * 96 / 150, abs=1)
        assert len(attrs["alt"]) > 10


def test_page_and_json_have_the_same_scores(reported):
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
        for name, value in finding[0].items()
    }
    for suite, content in written["suites"].items():
        assert content["facts"] == FACTS | findings[suite, 10][1]
    shown = {(suite, cells[0]): cells[1:] for suite, cells in page_of(reported).rows}
    for (suite, num, name), value in in_json.items():
        assert shown[suite, name][{"1": 0, "10": 1}[num]] == f"{value:.6g}"


def test_page_escapes_text_of_the_user(tmp_path):
    folder = tmp_path / "eval/step1-bins15"
    write_all(folder, (10,), ("clean", "ood"))
    report(folder, RUN | {"title": "<i>x</i>", "note": '"><script>', "config": {"<b>k": "<b>v"}})
    page, text = page_of(folder), (folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert not {"i", "script"} & {tag for tag, _ in page.elements}
    for words in (*NAMES, "<i>x</i>", '"><script>', "<b>k", "<b>v", "dtd/<b>"):
        assert words in page.text


def test_tables_mark_the_best_value_of_each_column(reported):
    page = page_of(reported)
    bold = [(row, number) for section, row, number in page.bold if section == "clean" and row]
    findings = {num: clean(np.random.default_rng(num))[0][0] for num in (1, 10)}
    lower, higher = sorted((1, 10), key=lambda num: findings[num]["accuracy"])
    assert (format_num_references(higher), f"{100 * findings[higher]['accuracy']:.2f}") in bold
    assert (format_num_references(lower), f"{100 * findings[lower]['accuracy']:.2f}") not in bold
    best = min((1, 10), key=lambda num: findings[num]["nll"])
    assert (format_num_references(best), f"{findings[best]['nll']:.4f}") in bold
    headings = next(cells for section, cells in page.rows if section == "clean")
    assert headings[1:4] == ["accuracy %\xa0↑", "NLL ↓", "Brier ↓"]
    assert all(number != "0.2500" for _, number in bold), "the same for all, and neither way is better"


def test_tables_name_the_members_of_means(reported):
    text = page_of(reported).text
    for words in (
        "Mean over all (2): fog, gaussian_noise.",
        "Mean over 15 corruptions: fog.",
        "Mean over all (2): r, sketch.",
        "Mean over near sets (1): svhn.",
        "Mean over far sets (1): dtd/<b>.",
    ):
        assert words in text


def test_page_shows_the_facts(reported):
    rows = page_of(reported).rows
    assert ("the-run", ["command", "eval.py --workdir runs/x"]) in rows
    assert ("the-run", ["model.name", "mlp"]) in rows
    assert ("the-run", ["ok", "yes"]) in rows
    assert ("ood", ["versions", "jax 0.1"]) in rows
    assert ("clean", ["seconds", "1.5"]) in rows


def test_page_warns_of_rows_that_are_not_comparable(reported, tmp_path):
    assert "The rows were not measured in the same way" not in page_of(reported).text
    finding, facts = shift(np.random.default_rng(0))
    write_results(tmp_path, "shift", FACTS | facts, {1: finding})
    write_results(tmp_path, "shift", FACTS | facts | {"members": ["r"], "seconds": 9.0}, {10: finding})
    page = page_of(report(tmp_path).parent)
    assert "The rows were not measured in the same way: members differ" in page.text
    assert ("shift", ["members, 1 reference", "r, sketch"]) in page.rows
    assert ("shift", ["members, 10 references", "r"]) in page.rows


def test_report_is_reproducible(reported):
    before = {file: file.read_bytes() for file in reported.rglob("*") if file.is_file()}
    report(reported)
    assert {file: file.read_bytes() for file in reported.rglob("*") if file.is_file()} == before


def test_report_without_arrays_has_fewer_figures(tmp_path):
    rng = np.random.default_rng(0)
    for suite in SUITES:
        finding, facts = SUITES[suite](rng)
        metrics = numbers(rng, "standard/") if suite == "protocols" else finding[0]
        write_results(tmp_path, suite, FACTS | facts, {0: (metrics, {})})
    page = page_of(report(tmp_path, {}).parent)
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


def test_stored_scores_omit_constant_scores(tmp_path):
    finding, facts = ood(np.random.default_rng(0))
    arrays = {name: np.zeros_like(values) if name.endswith("spread") else values for name, values in finding[1].items()}
    write_results(tmp_path, "ood", FACTS | facts, {1: (finding[0], arrays)})
    inside, outside = stored_scores(storage.read(tmp_path)["ood"][1])
    assert list(inside) == ["max_softmax", "entropy"]
    assert list(outside) == ["svhn", "dtd/<b>"]
    assert {tuple(scores) for scores in outside.values()} == {("max_softmax", "entropy")}


def test_page_shows_the_scores_of_unknown_suites(tmp_path):
    write_results(tmp_path, "weather", FACTS, {3: ({"rain": 0.25}, {"v": np.ones(1)})})
    page = page_of(report(tmp_path, {}).parent)
    assert ("weather", ["rain", "0.25"]) in page.rows


def test_write_report_rejects_runs_without_evaluation(digits_run, tmp_path):
    with pytest.raises(UserError, match=r"no run in '.*nothing'"):
        write_report(tmp_path / "nothing")
    for arguments in ((5,), (None, 3)):
        with pytest.raises(UserError, match=r"has no such evaluation; run eval\.py first"):
            write_report(digits_run, *arguments)
    with pytest.raises(TypeError, match="workdir must be a path"):
        write_report(None)


def test_write_report_reads_an_earlier_evaluation(digits_run):
    evaluate(digits_run, ("clean",), (2,), num_bins=17)
    page = write_report(digits_run, num_bins=17)
    assert page.parent.name.endswith("-bins17")
    assert "Clean test set" in page.read_text()


def test_write_page_rejects_a_folder_that_is_not_writable(tmp_path):
    write_all(tmp_path, (1,), ("probe",))
    (tmp_path / "pictures").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write to '.*' \((File exists|Not a directory)\)"):
        report(tmp_path)


def test_results_of_transduction_are_not_mixed_with_others(tmp_path):
    """The page has the same number of references twice: drawn at random, and chosen for each image."""
    folder = tmp_path / "eval/step12-bins15"
    write_all(folder, (1,), ("clean", "corruptions"))
    severities = [Score("accuracy", 0.1 * severity, severity=severity) for severity in range(1, 6)]
    for suite, scores in (("clean", [Score("accuracy", 0.875)]), ("corruptions", severities)):
        storage.ResultStore(folder).add(of_transduction(suite, scores))
    results = storage.read(folder)
    of_clean = [clean_results_for(results[name], results)[1] for name in ("corruptions", "corruptions-blt")]
    assert of_clean == [results["clean"][1], results["clean-blt"][1]]
    page = page_of(report(folder).parent)
    assert page.text.count("1 reference, transduction (BLT)") == 1
    assert page.text.index("87.50") < page.text.index("1 reference, transduction (BLT)")


def test_names_that_are_no_text_are_escaped(tmp_path):
    """Of a folder of anomalies and of a class; the scores are constant, as those of a dead network."""
    folder, odd = tmp_path / "eval/step12-bins15", os.fsdecode(b"caf\xe9")
    arrays = {column_name("energy", name): np.zeros(3, np.float32) for name in ("in", odd)}
    auroc = Score("auroc", 0.5, dataset=odd, score="energy"), Score("auroc", 0.5, score="energy")
    facts = FACTS | {"members": [odd], "label_names": [odd, "tea"]}
    rows = {"label": np.zeros(3, np.int32), "predicted": np.zeros(3, np.int32), "confidence": np.ones(3, np.float32)}
    for suite, scores, columns in (("ood", auroc, arrays), ("clean", (Score("accuracy", 1.0),), rows)):
        storage.ResultStore(folder).add(SuiteResult(suite, 1, scores, columns, facts))
    storage.ResultStore(folder).write_summaries()
    assert storage.read(folder)["ood"][1].column("energy", odd) is not None
    page, name = page_of(report(folder).parent), r"caf\udce9"
    assert name in page.text
    assert "AUROC" in page.text
    for file in ("results.csv", "tables/clean-classes.csv"):
        assert name in (folder / file).read_text(encoding="utf-8")
