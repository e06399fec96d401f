"""Files and command line of a comparison."""

import csv
import json
import os
import re
from html.parser import HTMLParser

import pytest
from commands import quick_command
from comparable_runs import (
    FACTS,
    MASKED,
    compared,
    evaluated,
    table_of,
    value_of,
    write_imagenet_run,
    write_pair,
    write_paper_run,
    write_three_methods,
)
from conftest import write_results
from legends import checked_legends

from anchor_jax.core.errors import UserError
from anchor_jax.evaluation import storage
from anchor_jax.evaluation.results import Score, SuiteResult
from anchor_jax.reporting.comparison import compare
from anchor_jax.reporting.comparison.figures import suite_figures
from anchor_jax.reporting.comparison.report import print_tables
from anchor_jax.runtime.paths import printable
from configs import imagenet_regnet_y_800mf


@pytest.fixture(scope="module")
def three_methods(tmp_path_factory):
    return write_three_methods(tmp_path_factory.mktemp("three"))


@pytest.fixture
def pair(tmp_path):
    return write_pair(tmp_path)


class Page(HTMLParser):
    """Checks that tags close in the order in which they open, and keeps the text and the links of the page."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.ids, self.links, self.sources = [], [], set(), set(), []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        assert attrs.get("id") not in self.ids
        self.ids |= {attrs["id"]} if "id" in attrs else set()
        self.links |= {attrs["href"]} if "href" in attrs else set()
        self.sources += [attrs["src"]] if "src" in attrs else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def page_of(folder):
    page = Page((folder / "compare.html").read_text(encoding="utf-8"))
    return page, " ".join(" ".join(page.text).split())


def test_page_is_well_formed_and_self_contained(three_methods, tmp_path, capsys):
    with checked_legends():
        comparison = compare(three_methods, tmp_path / "out")
    assert max(len(repr(each)) for each in (comparison, *comparison.methods, *comparison.suites)) < 500
    page, text = page_of(tmp_path / "out")
    assert {link.removeprefix("#") for link in page.links} <= page.ids
    assert len(page.sources) == 3 + 3 + 4  # dots and differences of each, reliability, severity, two groups of AUROC
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "Comparison of 9 runs" in text
    assert "config.data.source is 'digits', in the paper 'tfds'" in text
    assert text.index("Anomalies: AUROC, energy") < text.index("AUROC, max softmax")
    printed = capsys.readouterr().out
    assert "Corruptions, 10 references" in printed
    assert f"report: {tmp_path / 'out/compare.html'}" in printed


@pytest.mark.parametrize("fields", [{}, {"dataset": "c100"}])
def test_suite_without_accuracy_is_compared(tmp_path, capsys, fields):
    runs = [evaluated(tmp_path / kind, kind) for kind in ("standard", "anchored")]
    for run, num in zip(runs, (0, 10), strict=True):
        result = SuiteResult("certainty", num, (Score("entropy", 0.25 + num, **fields),), {}, FACTS | {"step": 12})
        storage.ResultStore(run / "eval/step12-bins15").add(result)
    compare(runs, tmp_path / "out", ("certainty",))
    assert "10.2500" in capsys.readouterr().out
    assert "10.2500" in page_of(tmp_path / "out")[1]


def test_severity_curves_begin_with_as_many_references(tmp_path):
    """The clean set is compared with 10 references, corruptions with the only number that was measured."""
    runs = [evaluated(tmp_path / kind, kind) for kind in ("standard", "anchored")]
    runs = [evaluated(run, run.name, references=(1,), suites=("corruptions",)) for run in runs]
    comparison = compared(runs)
    assert [table.num_references for table in comparison.suites] == [10, 1]
    [figure, *_] = suite_figures(comparison, table_of(comparison, "corruptions"))
    for panel, metric in zip(figure.plot.panels, ("accuracy", "ece"), strict=True):
        firsts = [value_of(runs[0], "clean", 0, metric), value_of(runs[1], "clean", 1, metric)]
        assert [(line.x[0], line.y[0]) for line in panel.lines] == [(0, first) for first in firsts]


def test_page_escapes_names(tmp_path):
    name = "<b>&amp;\"'[red]" + os.fsdecode(b"\xe9")
    runs = [evaluated(tmp_path / f"{kind}<i>&amp;", kind) for kind in ("standard", "anchored")]
    for run, num in zip(runs, (0, 1), strict=True):
        metrics = {"accuracy": 0.5 + 0.1 * num, f"{name}/accuracy": 0.5}
        write_results(run / "eval/step12-bins15", "shift", FACTS | {"members": [name]}, {num: (metrics, {})})
    compare(runs, tmp_path / "out")
    _, text = page_of(tmp_path / "out")
    assert f"accuracy, {printable(name)}" in text
    assert str(runs[0]) in text


def test_page_states_that_corruptions_were_generated(tmp_path):
    for source, generated in (("cifar10_corrupted", False), ("generated on the device", True)):
        folder = tmp_path / source
        runs = [write_paper_run(folder / kind, kind, facts={"source": [source]}) for kind in ("standard", "masked")]
        compare(runs, folder / "out", ("corruptions",))
        _, text = page_of(folder / "out")
        assert ("Our corruptions were generated from the test set" in text) == generated
        assert source in text


def test_page_shows_published_results_next_to_ours(tmp_path):
    runs = [write_imagenet_run(tmp_path / kind, kind, imagenet_regnet_y_800mf) for kind in ("standard", "masked")]
    compare(runs, tmp_path / "out")
    _, text = page_of(tmp_path / "out")
    ours = 100 * value_of(runs[1], "clean", 1, "smooth_ece")
    assert f"smoothed ECE, 1 reference 14.4 project page {ours:.2f} 1 imagenet2012" in text
    assert text.count("published without their severity") == 1
    remark = "the target of masked examples is the label, as in the released code"
    assert f"anchored + masking (0.2): {remark}" in text
    record = json.loads((tmp_path / "out/compare.json").read_text())["paper"]
    assert record["remarks"].keys() == {"anchored + masking (0.2)"}
    assert [row["metric"] for row in record["figures"]] == 2 * [*["accuracy"] * 4, "smooth_ece", "auroc"]


def test_json_and_csv_contain_every_number(three_methods, tmp_path):
    comparison = compare(three_methods, tmp_path / "out")
    record = json.loads((tmp_path / "out/compare.json").read_text())
    entry = table_of(comparison, "clean").entries["nll"][MASKED]
    written = record["suites"]["clean"]["metrics"]["nll"][MASKED]
    assert (written["mean"], written["std"]) == (entry.summary.mean, entry.summary.std)
    assert written["seeds"] == {str(seed): value for seed, value in entry.summary.values.items()}
    assert written["difference_over_seeds"] == entry.over_seeds._asdict()
    assert record["methods"][MASKED]["runs"][1] == {
        "workdir": str(three_methods[4]), "seed": 1, "step": 12, "num_bins": 15,
    }  # fmt: skip
    with (tmp_path / "out/compare.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    [line] = [
        line
        for line in lines
        if (line["suite"], line["metric"], line["method"], line["statistic"])
        == ("clean", "nll", MASKED, "difference_over_examples")
    ]
    assert tuple(float(line[part]) for part in ("value", "low", "high", "num")) == entry.over_examples
    assert line["num_references"] == "10"
    values = [line for line in lines if line["statistic"] == "value" and line["metric"] == "svhn/energy/auroc"]
    assert [(line["method"], line["seed"], line["num_references"]) for line in values[:3]] == [
        ("standard", str(seed), "0") for seed in (0, 1, 2)
    ]


def test_write_keeps_another_comparison_and_other_files(pair, tmp_path, capsys):
    out, names = tmp_path / "out", ["compare.csv", "compare.html", "compare.json"]
    for _ in range(2):  # the same comparison takes its own place
        compare(pair, out, ("corruptions",))
    (out / "notes.txt").write_text("mine")
    assert "moved" not in capsys.readouterr().out
    compare(pair, out, ("clean",))
    assert f"moved to '{out / 'earlier/1'}'" in capsys.readouterr().out
    for folder, others, suite in ((out, ["earlier", "notes.txt"], "clean"), (out / "earlier/1", [], "corruptions")):
        assert sorted(file.name for file in folder.iterdir()) == [*names, *others]
        assert json.loads((folder / "compare.json").read_text())["suites"].keys() == {suite}


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_print_tables_has_one_line_a_row_in_80_columns(three_methods, capsys, monkeypatch, num_seeds):
    monkeypatch.setenv("COLUMNS", "80")
    runs = [run for place, run in enumerate(three_methods) if place % 3 < num_seeds]
    comparison = compared(runs)
    print_tables(comparison)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > 80] == []
    titles = [table.title for table in comparison.suites]
    assert [line.strip() for line in lines if line.strip() in titles] == titles
    rows = [line for line in lines if re.search(r"[↑↓] +[ABC] +[\d.]+", line)]
    assert len(rows) == sum(line.startswith(" ") and bool(re.search(r" [ABC] ", line)) for line in lines[9:])
    bare = [row for row in rows if re.search(r"[+−][\d.]+ *$", row)]
    assert sum(line.startswith("Without an interval: one shared seed") for line in lines) == (num_seeds == 1)
    assert bool(bare) == (num_seeds == 1)
    assert ("Δ seeds" in "".join(lines)) == (num_seeds > 1)


def test_comparison_shows_the_differing_config_keys(tmp_path, capsys):
    runs = [evaluated(tmp_path / "a", "standard", training__batch_size=32, evaluation__every_epochs=2.0)]
    runs += [evaluated(tmp_path / f"b{seed}", "masked", seed, optimizer__learning_rate=0.5) for seed in (1, 2)]
    compare(runs, tmp_path / "out")
    record = json.loads((tmp_path / "out/compare.json").read_text())["differing_config"]
    expected = {
        "anchoring.enabled": ("False", "True"),
        "anchoring.mask_prob": ("–", "0.25"),
        "evaluation.every_epochs": ("2.0", "10.0"),
        "optimizer.learning_rate": ("0.1", "0.5"),
        "training.batch_size": ("32", "128"),
    }
    assert {key: tuple(of.values()) for key, of in record.items()} == expected
    printed, (_, text) = capsys.readouterr().out, page_of(tmp_path / "out")
    for key, values in expected.items():
        assert " ".join((key, *values)) in " ".join(text.split())
        assert re.search(rf"{key} +{values[0]} +{values[1]}", printed)


@pytest.mark.parametrize("content", ["", "{}", '{"kind": "something else"}', "[1]"])
def test_write_leaves_other_folders_alone(pair, tmp_path, content):
    out = tmp_path / "out"
    out.mkdir()
    (out / "compare.json").write_text(content)
    with pytest.raises(UserError, match="holds something other than a comparison"):
        compare(pair, out)
    assert [(file.name, file.read_text()) for file in out.iterdir()] == [("compare.json", content)]


def test_write_rejects_runs_and_files(pair, tmp_path):
    with pytest.raises(UserError, match="holds something other than a comparison"):
        compare(pair, pair[0])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file; give a folder"):
        compare(pair, tmp_path / "file")
    with pytest.raises(UserError, match="cannot write to"):
        compare(pair, tmp_path / "file/out")


def test_one_method_is_shown_without_differences(tmp_path):
    runs = [evaluated(tmp_path / f"a{seed}", "anchored", seed) for seed in (0, 1)]
    comparison = compare(runs, tmp_path / "out")
    _, text = page_of(tmp_path / "out")
    assert "nothing to compare it with" in comparison.notes[0]
    assert comparison.notes[0] in text


def test_comparison_of_a_part_of_the_images_says_so(tmp_path, capsys):
    for limit in (0, 50):  # results on all images are not read
        runs = [evaluated(tmp_path / kind, kind, int(not limit), limit=limit) for kind in ("standard", "anchored")]
    compare(runs, tmp_path / "out", limit=50)
    note = "At most 50 images of each dataset were evaluated (--limit), the same for all runs."
    _, text = page_of(tmp_path / "out")
    record = json.loads((tmp_path / "out/compare.json").read_text())
    assert note in capsys.readouterr().out
    assert note in text
    assert "at most 50 images of each dataset" in text
    assert (record["limit"], record["notes"]) == (50, [note])
    with (tmp_path / "out/compare.csv").open(newline="", encoding="utf-8") as file:
        assert {line["limit"] for line in csv.DictReader(file)} == {"50"}
    entry = record["suites"]["clean"]["metrics"]["accuracy"]["anchored"]
    limited = json.loads((runs[1] / "eval/step12-bins15-limit50/clean.json").read_text())["results"]["10"]
    assert entry["mean"] == limited["accuracy"]


COMPARE = ("-m", "anchor_jax.compare")


def test_command_takes_runs_next_to_flags(pair, tmp_path):
    done = quick_command(
        *COMPARE, pair[0], "--out", tmp_path / "out", pair[1], "--suites=clean", "--num_references=1", "--limit=0"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "Clean test set, 1 reference" in done.stdout
    assert (tmp_path / "out/compare.html").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--out=x", "nowhere", "elsewhere"), 1, "no run in 'nowhere'"),
        (("--out=x", "nowhere", "elsewhere", "--limit=-1"), 2, "flag --limit=-1"),
        (("nowhere", "elsewhere"), 2, "--out must have a value"),
    ],
)
def test_command_reports_errors_in_one_line(arguments, status, message):
    done = quick_command(*COMPARE, *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (status, 1)
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
