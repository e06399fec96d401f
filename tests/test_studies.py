"""Studies: their definitions, resuming from folders, the reported numbers, and ensembles."""

import collections
import json
import re
import shutil

import jax
import numpy as np
import pytest
from commands import ROOT, assert_told, quick_command

from anchor_jax import UserError, config, load_predictor
from anchor_jax.data import augment, load_test
from anchor_jax.evaluation import SUITES, ensembles
from anchor_jax.evaluation.results import Score, SuiteResult
from anchor_jax.evaluation.suites.ood import HEADLINE
from anchor_jax.metrics import specs
from anchor_jax.reporting.comparison.statistics import Difference, Summary
from anchor_jax.runs import record as run_record
from anchor_jax.runs.load import load_checkpoint
from anchor_jax.training import optimizer
from benchmarks.campaign.study import SIZE as TINY
from studies import records, report, results
from studies.definitions import ALL_STATISTICS, ANCHORED, MASKED, SIZES, STANDARD, STUDIES, UNIFORM
from studies.fast import ARMS
from studies.runs import StudyRun, create_jobs, create_runs, has_options, save_record
from studies.study import Column, Ensemble, Evaluation, FigureSpec, Row, Study

RESULTS = sorted((ROOT / "docs/results/studies").glob("*.json"))
STUDY = Study(
    rows=[
        Row("standard", "digits", STANDARD, "1.0", "standard", reduced_seeds=2, is_baseline=True),
        Row("masked", "digits", MASKED, "2.0 ± 0.1", "masked", reduced_seeds=2),
        Row("masked, K = 4", "digits", MASKED, "", "masked", num_references=4),
        Row("ensemble", "digits", STANDARD, "", "ensemble", ensemble=Ensemble("ensemble", 2)),
        Row(
            "dropout",
            "digits",
            STANDARD | {"model.options.dropout_rate": 0.5},
            "",
            "dropout",
            ensemble=Ensemble("dropout", 3),
        ),
    ],
    evaluations=[Evaluation(("clean",), (1, 4))],
    columns=(Column("clean", "clean", 1, "accuracy"), Column("NLL", "clean", 1, "nll", unit="nats")),
    figure=FigureSpec("test set", ("clean",)),
)


# definitions


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_studies_have_valid_configs_and_columns(study, size, tmp_path):
    size = study.size or size
    epochs = {"full": 200, "reduced": 8, "fast": 12}[size.name]
    runs = create_runs(study, size, tmp_path)
    for network in (network for run in runs for network in run.networks):
        config.validate(network.config)
        assert network.config.training.total_epochs == epochs * network.row.epochs
        assert network.config.seed == network.seed
        assert network.config.anchoring.enabled or all(each.protocol != "blt" for each in study.evaluations)
    evaluated = {(name, num) for each in study.evaluations for name in each.names for num in each.num_references}
    assert {(column.result_name, column.num_references) for column in study.columns} <= evaluated
    assert {suite for evaluation in study.evaluations for suite in evaluation.suites} <= SUITES.keys()
    for column in study.columns:
        Score(column.metric, 0.0, **column.fields)
        specs.get(column.metric)
    assert {column.fields["score"] for column in study.columns if column.suite == "ood"} <= {HEADLINE}
    titles = [column.title for column in study.columns]
    assert len(set(titles)) == len(titles)
    assert set(study.figure.columns) <= set(titles)
    assert len({row.name for row in study.rows}) == len(study.rows)
    has_standard = any(row.changes.items() >= STANDARD.items() for row in study.rows)
    assert has_standard == (results.find_baselines(study.rows)[study.rows[0].name] == study.rows[0].name)
    seeds = collections.Counter(run.row.name for run in runs)
    assert all(seeds[row.name] == (row.reduced_seeds if size.name == "reduced" else row.seeds) for row in study.rows)


def test_run_names_are_unique_across_studies(tmp_path):
    for size in SIZES.values():
        configs = {}
        runs = [run for study in STUDIES.values() for run in create_runs(study, study.size or size, tmp_path)]
        for network in (network for run in runs for network in run.networks):
            flat = config.flatten(network.config)
            assert configs.setdefault(network.name, flat) == flat
        assert len({tuple(sorted(map(str, flat.items()))) for flat in configs.values()}) == len(configs)


def test_methods_match_the_paper(tmp_path):
    for changes, enabled, prob in ((STANDARD, False, None), (ANCHORED, True, 0.0), (MASKED | UNIFORM, True, 0.25)):
        anchoring = StudyRun(Row("", "cifar10", changes), 0, SIZES["full"], tmp_path).config.anchoring
        assert anchoring.enabled == enabled
        assert not enabled or (anchoring.mask_prob, anchoring.mask_per) == (prob, "batch")
        assert not prob or anchoring.masked_target == "uniform"


def test_fast_arms_differ_in_what_masked_batches_show(tmp_path):
    configs = {
        arm: StudyRun(Row("", "cifar10_fast", changes), 0, STUDIES["fast"].size, tmp_path).config.anchoring
        for arm, changes in ARMS.items()
    }
    what = {arm: (c.enabled, c.mask_prob, c.masked_target, c.overlay_weight) for arm, c in configs.items()}
    assert what == {
        "standard": (False, 0.25, "label", 0.0),
        "anchored": (True, 0.0, "label", 0.0),
        "uniform": (True, 0.25, "uniform", 0.0),
        "label": (True, 0.25, "label", 0.0),
        "control": (False, 0.25, "label", -1.0),
        "overlay": (False, 0.25, "label", 0.5),
    }
    assert all(config.mask_draw == "periodic" for config in configs.values())


@pytest.mark.parametrize("epochs", [0.5, 4 / 3])
def test_row_epochs_stretch_the_whole_schedule(tmp_path, epochs):
    plain, stretched = (
        StudyRun(Row("", "cifar10_fast", STANDARD, epochs=times), 0, STUDIES["fast"].size, tmp_path)
        for times in (1.0, epochs)
    )
    rates = [
        optimizer.create_schedule(run.config.optimizer, 120, round(120 * run.config.training.total_epochs))
        for run in (plain, stretched)
    ]
    assert [float(rates[1](epochs * step)) for step in (0, 120, 300, 900)] == pytest.approx(
        [float(rates[0](step)) for step in (0, 120, 300, 900)], abs=1e-4
    )


def test_ood_datasets_are_the_other_cifar_and_photographs(tmp_path):
    def ood_datasets(data, size):
        return StudyRun(Row("", data, STANDARD), 0, SIZES[size], tmp_path).ood_datasets

    assert ood_datasets("cifar10", "full") == ("near=tfds:cifar100", "far=photographs")
    assert ood_datasets("cifar100", "reduced") == ("near=tfds:cifar10@test[:2000]", "far=photographs")


def test_study_of_protocols_takes_50_candidates(tmp_path):
    study = STUDIES["protocols"]
    run = StudyRun(study.rows[0], 0, SIZES["full"], tmp_path)
    _, of_blt, of_protocols = (run.eval_command(each) for each in study.evaluations)
    assert "--blt_references=50" in of_blt
    assert "--blt_references=50" in of_protocols
    for suite, protocol in (("protocols", "random"), ("corruptions", "blt")):
        facts = [{"options": {"blt_references": num}} for num in (50, 1_000)]
        found = [SuiteResult(suite, 1, (), {}, each, protocol) for each in facts]
        assert [has_options(each, {"blt_references": 50}) for each in found] == [True, False]


def test_workdir_with_former_key_names_is_used(tmp_path):
    run = StudyRun(Row("", "cifar10", MASKED | ALL_STATISTICS), 0, SIZES["full"], tmp_path)
    current = tmp_path / "cifar10-mask_prob=0.25-update_bn_when_masked=True-seed0"
    former = tmp_path / "cifar10-mask_prob=0.25-masked_statistics=True-seed0"
    assert run.workdir == current
    former.mkdir()
    assert run.workdir == former
    assert f"--workdir={former}" in run.train_command
    current.mkdir()
    assert run.workdir == current


# a complete study


def is_complete(runs):
    return not any(command for run in runs for command in run.missing_commands(STUDY.evaluations))


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """Run a study; return its runs and their folder."""
    folder = tmp_path_factory.mktemp("studies")
    for job in (job for jobs in create_jobs({"tiny": STUDY}, TINY, folder) for job in jobs):
        for _, *arguments in job.commands:
            done = quick_command(*arguments)
            assert done.returncode == 0, done.stderr
    return create_runs(STUDY, TINY, folder), folder


def test_missing_commands_follow_from_the_folders(studied, tmp_path):
    runs, folder = studied
    assert is_complete(runs)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    single = next(run for run in create_runs(STUDY, TINY, copy) if run.row.name == "masked")
    shutil.rmtree(single.workdir / "eval")
    assert [command[1] for command in single.missing_commands(STUDY.evaluations)] == ["eval.py"]
    shutil.rmtree(single.workdir / "checkpoints")
    assert [command[1] for command in single.missing_commands(STUDY.evaluations)] == ["train.py", "eval.py"]
    evaluations = [*STUDY.evaluations, Evaluation(("clean",), (2,))]
    command = next(create_runs(STUDY, TINY, folder)[1].missing_commands(evaluations))
    assert "--num_references=2" in command
    longer = TINY._replace(changes=TINY.changes | {"training.total_epochs": 0.75})
    with pytest.raises(UserError, match=r"contains another run: config.training.total_epochs is 0.5, but 0.75"):
        list(create_runs(STUDY, longer, folder)[1].missing_commands(STUDY.evaluations))


def test_collected_numbers_match_the_runs(studied):
    runs, _ = studied
    collected = results.collect_results(STUDY, runs)
    accuracies = {}
    for run in runs[:2] + runs[5:]:
        metrics = json.loads((run.workdir / "eval/metrics.json").read_text())
        num = str(run.stored_num_references(1))
        accuracies.setdefault(run.row.name, {})[run.seed] = metrics["clean"][num]["accuracy"]
    for row, by_seed in accuracies.items():
        assert collected.entries[row]["clean"].summary.values == by_seed
    masked, standard = (list(accuracies[row].values()) for row in ("masked", "standard"))
    entry = collected.entries["masked"]["clean"]
    assert entry.summary.mean == pytest.approx(np.mean(masked))
    assert entry.summary.std == pytest.approx(np.std(masked, ddof=1))
    assert entry.difference is not None
    assert entry.difference.mean == pytest.approx(np.mean(np.subtract(masked, standard)))
    assert collected.entries["standard"]["clean"].difference is None
    nll_of_four = json.loads((runs[1].workdir / "eval/metrics.json").read_text())["clean"]["4"]["nll"]
    assert collected.entries["masked, K = 4"]["NLL"].summary.values == {0: nll_of_four}
    assert collected.training_seconds > 0
    assert collected.evaluation_seconds > 0
    assert [facts["versions"]["jax"] for facts in collected.environments] == [jax.__version__]


def test_study_goes_on_from_records_without_folders(studied, tmp_path):
    runs, folder = studied
    size = TINY._replace(records=str(tmp_path / "records"))
    for run in create_runs(STUDY, size, folder):
        save_record(run)
    elsewhere = create_runs(STUDY, size, tmp_path / "elsewhere")
    assert not any(command for run in elsewhere for command in run.missing_commands(STUDY.evaluations))
    from_folders, from_records = (results.collect_results(STUDY, each) for each in (runs, elsewhere))
    assert report.markdown(STUDY, from_records) == report.markdown(STUDY, from_folders)
    of_singles = sum(run.training_seconds for run in runs if run.row.name in ("standard", "masked"))
    assert from_records.training_seconds == pytest.approx(of_singles, abs=2)
    names = sorted(file.stem for file in (tmp_path / "records").iterdir())
    assert names == ["dropout-0", "ensemble-0", "masked-0", "masked-1", "standard-0", "standard-1"]
    assert str(folder) not in (tmp_path / "records/masked-0.json").read_text()

    (tmp_path / "records/masked-1.json").unlink()
    missing = [run.name for run in elsewhere if any(run.missing_commands(STUDY.evaluations))]
    assert missing == [run.name for run in elsewhere if run.row.name == "masked" and run.seed == 1]
    file = tmp_path / "records/masked-0.json"
    file.write_text(file.read_text().replace('"training.total_epochs": 0.5', '"training.total_epochs": 0.75'))
    with pytest.raises(UserError, match=r"masked-0.json' is the record of another run: config.training.total_epo"):
        results.collect_results(STUDY, elsewhere)
    file.write_text("{}")
    with pytest.raises(UserError, match=r"masked-0.json' is not the record of a run"):
        results.collect_results(STUDY, elsewhere)


def test_records_grow_and_other_numbers_are_kept(tmp_path, capsys):
    def record(accuracy, num_references=1):
        scores = Score("accuracy", accuracy), Score("ece", 0.1, corruption="fog", severity=3)
        result = SuiteResult("clean", num_references, scores, {}, {"seconds": 1.0})
        return records.Record({"seed": 0}, 10.0, {"clean": {num_references: result}})

    file, first, second = tmp_path / "label-0.json", record(0.5), record(0.6, num_references=10)
    records.save(file, first)
    assert records.load(file) == first
    both = first._replace(results=records.merge(first.results, second.results))
    records.save(file, both)
    assert records.load(file) == both
    assert [path.name for path in tmp_path.iterdir()] == ["label-0.json"]
    records.save(file, record(0.7))
    assert records.load(tmp_path / "earlier/1/label-0.json") == both
    assert "were moved to" in capsys.readouterr().out


def test_report_has_table_json_and_figure(studied):
    runs, folder = studied
    files = report.write("tiny", STUDY, TINY, results.collect_results(STUDY, runs), folder)
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


def test_report_marks_missing_numbers(tmp_path):
    collected = results.collect_results(STUDY, create_runs(STUDY, TINY, tmp_path))
    assert report.markdown(STUDY, collected).count("not measured") == 2 * len(STUDY.rows)
    assert len(report.write("none", STUDY, TINY, collected, tmp_path)) == 2


def test_report_draws_only_what_is_measured(tmp_path):
    study = STUDIES["main"]._replace(rows=STUDIES["main"].rows[:2])
    auroc, clean = (results.Entry(Summary({0: 0.5}, 0.5, None), None) for _ in range(2))
    for of_standard, num_files in (({}, 2), ({"clean": clean}, 3)):
        entries = {study.rows[0].name: of_standard, study.rows[1].name: {study.columns[-1].title: auroc}}
        collected = results.StudyResults(entries, [], 0.0, 0.0)
        assert len(report.write(f"main{num_files}", study, SIZES["full"], collected, tmp_path)) == num_files


def test_command_reports_existing_results(tmp_path):
    done = quick_command("-m", "studies", "main", "--reduced", "--only_report", f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "not measured" in (tmp_path / "reduced/main.md").read_text()
    wrong = quick_command("-m", "studies", "mian", f"--out={tmp_path}")
    assert_told(wrong, 1, "unknown study 'mian'; allowed: alternatives, ")


def results_of(content):
    """Return the results in the content of a result file."""

    def entry(numbers):
        values = {int(seed): value for seed, value in numbers["values"].items()}
        difference = numbers.get("over_standard")
        return results.Entry(Summary(values, numbers["mean"], numbers["std"]), difference and Difference(**difference))

    rows = {row["name"]: row["numbers"] for row in content["rows"]}
    entries = {name: {title: entry(each) for title, each in numbers.items()} for name, numbers in rows.items()}
    return results.StudyResults(entries, [], 0.0, 0.0)


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
def test_tables_of_the_page_match_the_result_files(file):
    content = json.loads(file.read_text())
    for part in (content, *content["rows"]):
        part["changes"] = {config.RENAMED_KEYS.get(key, key): value for key, value in part["changes"].items()}
    study = STUDIES[content["study"]]
    columns = {column.title: column for column in study.columns}
    titles = max((row["numbers"] for row in content["rows"]), key=len)  # the file may be older than the definition
    study = study._replace(columns=[columns.get(title) or Column(title, "", 0, "") for title in titles])
    page = (ROOT / "docs/small_network.md").read_text()
    assert report.markdown(study, results_of(content)) in page
    for numbers in (numbers for row in content["rows"] for numbers in row["numbers"].values()):
        assert numbers["mean"] == pytest.approx(np.mean(list(numbers["values"].values())))
    assert content["changes"] == json.loads(json.dumps(SIZES[content["size"]].changes))
    assert {row["name"]: row["changes"] for row in content["rows"]} == {row.name: row.changes for row in study.rows}


@pytest.mark.parametrize("name", ["fast", "fast_families", "fast_references", "fast_stem"])
def test_tables_of_the_page_match_the_records(name, tmp_path):
    study = STUDIES[name]
    collected = results.collect_results(study, create_runs(study, study.size, tmp_path))
    assert report.markdown(study, collected) in (ROOT / "docs/results.md").read_text()


# ensembles


def test_ensemble_is_the_mean_of_its_members(studied):
    runs, _ = studied
    ensemble = next(run for run in runs if run.row.name == "ensemble")
    predictors = [load_predictor(network.workdir) for network in ensemble.networks]
    first = ensemble.networks[0]
    test = load_test(run_record.load(first.workdir).config.data, predictors[0].label_names, predictors[0].image_shape)
    probs = np.mean([predictor(test.images).probs for predictor in predictors], axis=0)
    result = ensemble.results["clean"][2]
    np.testing.assert_array_equal(result.arrays["label"], test.labels)
    np.testing.assert_array_equal(result.arrays["predicted"], probs.argmax(axis=1))
    label_probs = probs[np.arange(len(probs)), test.labels]
    np.testing.assert_allclose(result.arrays["nll"], -np.log(label_probs), rtol=1e-4, atol=1e-6)
    assert (result.arrays["mutual_information"] > 0).mean() > 0.9


def predict_with_members(study_run, kind, num_members):
    """Return the test set, and the mean and standard deviation of its probabilities over the members."""
    run = run_record.load(study_run.workdir)
    _, predictor = load_checkpoint(run, "latest")
    predictor = ensembles.ensemble_predictor(kind, [run], [predictor], num_members, seed=0)
    test = load_test(run.config.data, predictor.label_names, predictor.image_shape)
    prediction = predictor(test.images)
    return test, prediction.probs, prediction.probs_std


def test_augmentation_members_crop_as_in_training(studied):
    run = studied[0][0]
    test, probs, std = predict_with_members(run, "augmentation", 3)
    predictor, settings = load_predictor(run.workdir), run_record.load(run.workdir).config.augmentation
    augmented = [
        np.asarray(augment(jax.numpy.broadcast_to(key, len(test.images)), test.images, settings))
        for key in jax.random.split(jax.random.key(0), 3)
    ]
    expected = [predictor(images).probs for images in augmented]
    np.testing.assert_allclose(probs, np.mean(expected, axis=0), atol=1e-5)
    np.testing.assert_allclose(std, np.std(expected, axis=0, ddof=1), atol=1e-5)


def test_dropout_members_have_different_masks(studied):
    run = next(run for run in studied[0] if run.row.name == "dropout")
    test, probs, std = predict_with_members(run.networks[0], "dropout", 3)
    deterministic = load_predictor(run.networks[0].workdir)(test.images).probs
    assert (std > 0).mean() > 0.9
    assert np.abs(probs - deterministic).max() > 0.01
    assert (run.results["clean"][3].arrays["mutual_information"] > 0).mean() > 0.9


def test_invalid_ensembles_are_rejected(studied, tmp_path):
    standard, masked, *_ = studied[0]
    for arguments, message in (
        (["--kind=ensemble"], "needs at least one run; give the folders of the runs after the flags"),
        (["--kind=augmentation", standard.workdir, standard.workdir], "takes one run; got 2"),
        (["--kind=ensemble", masked.workdir], "is an anchored run; kind 'ensemble' takes standard networks"),
        (["--kind=dropout", standard.workdir], "has no dropout; train a run with --config.model.options.dropout_rate"),
        (["--kind=ensemble", "--suites=cleen", standard.workdir], "unknown suite 'cleen'"),
    ):
        assert_told(quick_command("-m", "studies.pool", f"--out={tmp_path / 'out'}", *arguments), 1, message)
    assert not (tmp_path / "out").exists()
