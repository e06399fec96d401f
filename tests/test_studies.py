"""Studies: their tables of runs, what of them is done, what runs them, and the numbers in the end."""

import collections
import json
import os
import re
import shutil
import signal
import sys
import threading
import time

import jax
import numpy as np
import pytest
from commands import ROOT, assert_told, quick_command

from anchor_jax import UserError, config, load_predictor
from anchor_jax.core.errors import Preempted
from anchor_jax.data import augment, load_test
from anchor_jax.evaluation import SUITES
from anchor_jax.reporting.comparison.statistics import Difference, Summary
from anchor_jax.runs import record as run_record
from anchor_jax.runs.load import load_checkpoint
from studies import ensembles, report, results, running
from studies.definitions import ANCHORED, MASKED, SIZES, STANDARD, STUDIES, Ask, Column, Figure, Pool, Row, Size, Study
from studies.runs import StudyRun, jobs_of, runs_of

TINY = Size(
    "tiny",
    {
        "model.options.width": 4,
        "model.options.stage_sizes": (1,),
        "training.total_epochs": 0.5,
        "evaluation.saved_references": 10,
    },
    "as small as can be",
)
RESULTS = sorted((ROOT / "docs/results/studies").glob("*.json"))
STUDY = Study(
    rows=[
        Row("standard", "digits", STANDARD, "1.0", reduced_seeds=2, is_baseline=True),
        Row("masked", "digits", MASKED, "2.0 ± 0.1", reduced_seeds=2),
        Row("masked, K = 4", "digits", MASKED, num_references=4),
        Row("ensemble", "digits", STANDARD, pool=Pool("ensemble", 2)),
        Row("dropout", "digits", STANDARD | {"model.options.dropout_rate": 0.5}, pool=Pool("dropout", 3)),
    ],
    asks=[Ask(("clean",), (1, 4))],
    columns=(Column("clean", "clean", 1, "accuracy"), Column("NLL", "clean", 1, "nll", "nats")),
    figure=Figure("test set", ("clean",)),
)


# the tables


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_every_run_has_a_config_and_every_number_is_asked_for(study, size, tmp_path):
    runs = runs_of(study, size, tmp_path)
    for one in (network for of_row in runs for network in of_row.trained):
        config.validate(one.config)
        assert one.config.training.total_epochs == (200 if size.name == "full" else 8) * one.row.epochs
        assert one.config.seed == one.seed
    asked = {
        (suite + ("-blt" if ask.protocol == "blt" else ""), num)
        for ask in study.asks
        for suite in ask.suites
        for num in ask.num_references
    }
    assert {(column.suite, column.num_references) for column in study.columns} <= asked
    assert {suite for ask in study.asks for suite in ask.suites} <= SUITES.keys()
    titles = [column.title for column in study.columns]
    assert len(set(titles)) == len(titles)
    assert set(study.figure.columns) <= set(titles)
    assert len({row.name for row in study.rows}) == len(study.rows)
    has_standard = any(row.changes == STANDARD for row in study.rows)
    assert has_standard == (results._baselines(study.rows)[study.rows[0].name] == study.rows[0].name)
    seeds = collections.Counter(one.row.name for one in runs)
    assert all(seeds[row.name] == (row.seeds if size.name == "full" else row.reduced_seeds) for row in study.rows)


def test_one_name_is_one_run(tmp_path):
    """Of all studies: what has a folder in common has the config in common."""
    for size in SIZES.values():
        configs = {}
        rows = [of_row for study in STUDIES.values() for of_row in runs_of(study, size, tmp_path)]
        for one in (network for of_row in rows for network in of_row.trained):
            flat = config.flatten(one.config)
            assert configs.setdefault(one.name, flat) == flat
        assert len({tuple(sorted(map(str, flat.items()))) for flat in configs.values()}) == len(configs)


def test_the_methods_differ_in_what_the_paper_says(tmp_path):
    for changes, enabled, prob in ((STANDARD, False, None), (ANCHORED, True, 0.0), (MASKED, True, 0.25)):
        anchoring = StudyRun(Row("", "cifar10", changes), 0, SIZES["full"], tmp_path).config.anchoring
        assert anchoring.enabled == enabled
        masking = anchoring.mask_prob, anchoring.mask_per, anchoring.masked_target
        assert not enabled or masking == (prob, "batch", "uniform")


def test_anomalies_are_the_other_cifar_and_photographs(tmp_path):
    def anomalies(data, size):
        return StudyRun(Row("", data, STANDARD), 0, SIZES[size], tmp_path).anomalies

    assert anomalies("cifar10", "full") == ("near=tfds:cifar100", "far=photographs")
    assert anomalies("cifar100", "reduced") == ("near=tfds:cifar10@test[:2000]", "far=photographs")


# from nothing to a table


def nothing_is_left(runs):
    return not any(command for one in runs for command in one.missing(STUDY.asks))


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """The runs of a study that was run, and their folder."""
    folder = tmp_path_factory.mktemp("studies")
    for jobs in jobs_of({"tiny": STUDY}, TINY, folder):
        running.run_all(jobs, 2, ROOT)
    return runs_of(STUDY, TINY, folder), folder


def test_what_is_done_is_known_from_the_folders(studied, tmp_path):
    runs, folder = studied
    assert nothing_is_left(runs)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    single = next(one for one in runs_of(STUDY, TINY, copy) if one.row.name == "masked")
    shutil.rmtree(single.workdir / "eval")
    assert [command[1] for command in single.missing(STUDY.asks)] == ["eval.py"]
    shutil.rmtree(single.workdir / "checkpoints")
    assert [command[1] for command in single.missing(STUDY.asks)] == ["train.py", "eval.py"]
    asked_more = [Ask(("clean",), (1, 4)), Ask(("clean",), (2,))]
    more = next(runs_of(STUDY, TINY, folder)[1].missing(asked_more))
    assert "--num_references=2" in more
    longer = TINY._replace(changes=TINY.changes | {"training.total_epochs": 0.75})
    with pytest.raises(UserError, match=r"holds another run: config.training.total_epochs is 0.5 there, and 0.75"):
        list(runs_of(STUDY, longer, folder)[1].missing(STUDY.asks))


def test_the_numbers_are_those_of_the_runs(studied):
    runs, _ = studied
    table = results.measured(STUDY, runs)
    accuracies = {}
    for one in runs[:2] + runs[5:]:
        metrics = json.loads((one.workdir / "eval/metrics.json").read_text())
        accuracies.setdefault(one.row.name, {})[one.seed] = metrics["clean"][str(one.key(1))]["accuracy"]
    for row, of_seeds in accuracies.items():
        assert table.entries[row]["clean"].summary.values == of_seeds
    masked, standard = (list(accuracies[row].values()) for row in ("masked", "standard"))
    entry = table.entries["masked"]["clean"]
    assert entry.summary.mean == pytest.approx(np.mean(masked))
    assert entry.summary.std == pytest.approx(np.std(masked, ddof=1))
    assert entry.difference is not None
    assert entry.difference.mean == pytest.approx(np.mean(np.subtract(masked, standard)))
    assert table.entries["standard"]["clean"].difference is None
    of_four = json.loads((runs[1].workdir / "eval/metrics.json").read_text())["clean"]["4"]["nll"]
    assert table.entries["masked, K = 4"]["NLL"].summary.values == {0: of_four}
    assert table.training_seconds > 0
    assert table.evaluation_seconds > 0
    assert [facts["versions"]["jax"] for facts in table.environments] == [jax.__version__]


def test_table_json_and_picture(studied):
    runs, folder = studied
    table = results.measured(STUDY, runs)
    files = report.write("tiny", STUDY, TINY, table, folder)
    text, content = files[0].read_text(), json.loads(files[1].read_text())
    assert [file.suffix for file in files] == [".md", ".json", ".png"]
    assert files[2].stat().st_size > 5_000
    lines = text.splitlines()
    assert len(lines) == 2 + len(STUDY.rows)
    assert lines[0] == "|  | seeds | paper | clean | over standard | NLL, nats |"
    row = content["rows"][1]
    mean, std = row["numbers"]["clean"]["mean"], row["numbers"]["clean"]["std"]
    assert lines[3].startswith(f"| masked | 2 | 2.0 ± 0.1 | {100 * mean:.2f} ± {100 * std:.2f} | ")
    assert re.search(r"\| [+-]\d+\.\d\d \[[+-]\d+\.\d\d, [+-]\d+\.\d\d\] \|", lines[3])
    assert content["environment"]["measured_on"][0]["devices"]
    assert str(folder) not in json.dumps(content | {"environment": None})


def test_what_is_not_measured_is_told(tmp_path):
    table = results.measured(STUDY, runs_of(STUDY, TINY, tmp_path))
    assert report.markdown(STUDY, table).count("not measured") == 2 * len(STUDY.rows)
    assert len(report.write("none", STUDY, TINY, table, tmp_path)) == 2


def test_the_command_reports_what_is_there(tmp_path):
    done = quick_command("-m", "studies", "main", "--reduced", "--only_report", f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "not measured" in (tmp_path / "reduced/main.md").read_text()
    wrong = quick_command("-m", "studies", "mian", f"--out={tmp_path}")
    assert_told(wrong, 1, "unknown study 'mian'; allowed: alternatives, ")


def table_of(content):
    """The table that a result file holds."""

    def entry(numbers):
        values = {int(seed): value for seed, value in numbers["values"].items()}
        difference = numbers.get("over_standard")
        return results.Entry(Summary(values, numbers["mean"], numbers["std"]), difference and Difference(**difference))

    rows = {row["name"]: row["numbers"] for row in content["rows"]}
    entries = {name: {title: entry(of) for title, of in numbers.items()} for name, numbers in rows.items()}
    return results.Table(entries, [], 0.0, 0.0)


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
def test_the_tables_of_the_page_are_those_of_the_result_files(file):
    content = json.loads(file.read_text())
    study = STUDIES[content["study"]]
    page = (ROOT / "docs/results.md").read_text()
    assert report.markdown(study, table_of(content)) in page
    for numbers in (numbers for row in content["rows"] for numbers in row["numbers"].values()):
        assert numbers["mean"] == pytest.approx(np.mean(list(numbers["values"].values())))
    assert content["changes"] == json.loads(json.dumps(SIZES[content["size"]].changes))
    assert {row["name"]: row["changes"] for row in content["rows"]} == {row.name: row.changes for row in study.rows}


# pools


def test_an_ensemble_is_the_mean_of_its_members(studied):
    runs, _ = studied
    pool = next(one for one in runs if one.row.name == "ensemble")
    predictors = [load_predictor(one.workdir) for one in pool.trained]
    first = pool.trained[0]
    test = load_test(run_record.load(first.workdir).config.data, predictors[0].label_names, predictors[0].image_shape)
    probs = np.mean([predictor(test.images).probs for predictor in predictors], axis=0)
    answers = pool.evaluated["clean"].results[2]
    np.testing.assert_array_equal(answers.arrays["label"], test.labels)
    np.testing.assert_array_equal(answers.arrays["predicted"], probs.argmax(axis=1))
    of_labels = probs[np.arange(len(probs)), test.labels]
    np.testing.assert_allclose(answers.arrays["nll"], -np.log(of_labels), rtol=1e-4, atol=1e-6)
    assert (answers.arrays["mutual_information"] > 0).mean() > 0.9


def pooled_probs(one, kind, num_members):
    """Of the test set, mean and spread over the members."""
    this_run = run_record.load(one.workdir)
    _, predictor = load_checkpoint(this_run, "latest")
    predictor = ensembles.predictor_of_pool(kind, [this_run], [predictor], num_members, seed=0)
    test = load_test(this_run.config.data, predictor.label_names, predictor.image_shape)
    answer = predictor(test.images)
    return test, answer.probs, answer.probs_std


def test_an_augmented_pool_sees_every_image_cropped_as_in_training(studied):
    one = studied[0][0]
    test, probs, std = pooled_probs(one, "augmentation", 3)
    predictor, settings = load_predictor(one.workdir), run_record.load(one.workdir).config.augmentation
    seen = [
        np.asarray(augment(jax.numpy.broadcast_to(key, len(test.images)), test.images, settings))
        for key in jax.random.split(jax.random.key(0), 3)
    ]
    expected = [predictor(images).probs for images in seen]
    np.testing.assert_allclose(probs, np.mean(expected, axis=0), atol=1e-5)
    np.testing.assert_allclose(std, np.std(expected, axis=0, ddof=1), atol=1e-5)


def test_dropout_thins_the_network_anew_for_each_member(studied):
    pool = next(one for one in studied[0] if one.row.name == "dropout")
    thinned = pool.evaluated["clean"].results[3]
    test, probs, std = pooled_probs(pool.trained[0], "dropout", 3)
    whole = load_predictor(pool.trained[0].workdir)(test.images).probs
    assert (std > 0).mean() > 0.9
    assert np.abs(probs - whole).max() > 0.01
    assert (thinned.arrays["mutual_information"] > 0).mean() > 0.9


def test_wrong_pools_are_refused(studied, tmp_path):
    standard, masked, *_ = studied[0]
    for arguments, message in (
        (["--kind=ensemble"], "takes runs; give their folders beside the flags"),
        (["--kind=augmentation", standard.workdir, standard.workdir], "takes one run; got 2"),
        (["--kind=ensemble", masked.workdir], "is an anchored run, and a pool takes standard ones"),
        (["--kind=dropout", standard.workdir], "has no dropout; train one with --config.model.options.dropout_rate"),
        (["--kind=ensemble", "--suites=cleen", standard.workdir], "unknown suite 'cleen'"),
    ):
        assert_told(quick_command("-m", "studies.pool", f"--out={tmp_path / 'out'}", *arguments), 1, message)
    assert not (tmp_path / "out").exists()


# running


def job(name, program, folder):
    return running.Job(name, [[sys.executable, "-c", program]], folder / f"{name}.txt")


def test_a_failure_is_told_and_the_others_are_done(tmp_path):
    jobs = [
        job("broken", "import sys; print('no such thing'); sys.exit(3)", tmp_path),
        job("whole", "print('done')", tmp_path),
    ]
    with pytest.raises(UserError, match=r"broken: -c ended with 3, see .*broken.txt \(no such thing\)"):
        running.run_all(jobs, 1, tmp_path)
    assert "\ndone\n" in (tmp_path / "whole.txt").read_text()


def test_commands_at_once_have_cores_of_their_own(tmp_path):
    program = "import os, time; print(sorted(os.sched_getaffinity(0))); time.sleep(1)"
    before = os.sched_getaffinity(0)
    running.run_all([job(f"job{number}", program, tmp_path) for number in range(2)], 2, tmp_path)
    seen = [json.loads((tmp_path / f"job{number}.txt").read_text().splitlines()[-1]) for number in range(2)]
    assert sorted(core for cores in seen for core in cores) == sorted(before) or len(before) == 1
    assert os.sched_getaffinity(0) == before


def test_asked_to_stop_what_runs_may_save_and_nothing_more_begins(tmp_path):
    program = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(143)))\n"
        "print('begun', flush=True)\n"
        "time.sleep(60)\n"
    )
    jobs = [job("first", program, tmp_path), job("second", program, tmp_path)]

    def stop():
        while "\nbegun\n" not in (tmp_path / "first.txt").read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    (tmp_path / "first.txt").touch()
    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(Preempted, match="SIGTERM: the same command goes on from here") as stopped:
        running.run_all(jobs, 1, tmp_path)
    assert stopped.value.status == 143
    assert (tmp_path / "first.txt").read_text().endswith("saved\n")
    assert not (tmp_path / "second.txt").exists()
