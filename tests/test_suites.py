"""What each suite measures, against scikit-learn, torchmetrics and the method written out by hand."""

import dataclasses
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from conftest import tiny_config
from ml_collections import ConfigDict
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.preprocessing import StandardScaler

import anchor_jax as aj
from anchor_jax import UserError, data, evaluation, metrics, models
from anchor_jax.data import corruptions
from anchor_jax.evaluation import results as on_disk
from anchor_jax.evaluation.context import EvalContext, Options
from anchor_jax.evaluation.predictions import predict_dataset, rows
from anchor_jax.evaluation.suites.corruptions import ALEXNET_ERRORS, generated, mean_corruption_error, means
from anchor_jax.evaluation.suites.landscape import filter_normalised_direction
from anchor_jax.evaluation.suites.ood import SCORES, anomaly_scores, detection
from anchor_jax.evaluation.temperature import best_temperature
from anchor_jax.runs import record as run_record
from anchor_jax.runs.load import create_model, load_checkpoint, run_normalization
from anchor_jax.runs.network import CompiledNetwork
from anchor_jax.runs.predictor import Predictor
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.training.loop import train


def digits_config(folder) -> ConfigDict:
    """An MLP that sees the digits a few times."""
    config = tiny_config(folder)
    config.data.source = "digits"
    config.data.path = ""
    config.data.validation_fraction = 0.2
    config.anchoring.mask_prob = 0.2
    config.training.batch_size = 32
    config.training.total_epochs = 6.0
    config.evaluation.batch_size = 256
    config.checkpoint.every_epochs = 6.0
    config.evaluation.every_epochs = 6.0
    return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    train(digits_config(folder), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def subject(workdir):
    return subject_of(workdir)


def subject_of(workdir, **options) -> EvalContext:
    this_run = run_record.load(workdir)
    step, predictor = load_checkpoint(this_run, "latest")
    return EvalContext(this_run, step, predictor, Options(**options), num_bins=15)


def by_hand(subject, images, references):
    """Logits float64 [K, B, C] of the anchored network, one reference after the other."""
    norm = run_normalization(subject.run)
    model = create_model(subject.run)

    def normalized(pixels):
        return (pixels.astype(np.float32) / 255 - np.float32(norm.mean)) / np.float32(norm.std)

    x, outputs = normalized(images), []
    for r in normalized(references):
        inputs = np.concatenate([np.broadcast_to(r, x.shape), x - r], axis=-1)
        outputs.append(np.asarray(model.apply(subject.predictor.variables, inputs), np.float64))
    return np.stack(outputs)


# the table


@pytest.mark.parametrize("batch_size", [64, 104, 512])
def test_table_of_a_stream_is_that_of_all_images_at_once(subject, batch_size):
    test = data.load("digits", "test")
    predictor = dataclasses.replace(subject.predictor, batch_size=batch_size)
    table = dataclasses.replace(subject, predictor=predictor).predict(subject.test, 3)
    logits = by_hand(subject, test.images, subject.run.references[:3])
    probs = scipy.special.softmax(logits, axis=-1)
    mean = probs.mean(axis=0)
    np.testing.assert_array_equal(table.label, test.labels)
    np.testing.assert_array_equal(table.predicted, mean.argmax(-1))
    np.testing.assert_allclose(table.outcomes.confidence, mean.max(-1), rtol=1e-4)
    np.testing.assert_allclose(table.outcomes.nll, -np.log(mean[np.arange(360), test.labels]), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(table.spread, probs.std(axis=0, ddof=1).mean(-1), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(table.max_logit, logits.mean(axis=0).max(-1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        table.energy, -scipy.special.logsumexp(logits.mean(axis=0), axis=-1), rtol=1e-4, atol=1e-4
    )
    votes = np.stack([(logits.argmax(-1) == c).mean(axis=0) for c in range(10)])
    np.testing.assert_allclose(table.agreement, votes.max(axis=0), rtol=1e-6)


def test_clean_keeps_what_pictures_and_comparisons_need(workdir, subject):
    evaluation.evaluate(workdir, ("clean",), (2,))
    kept = on_disk.read(workdir / "eval" / f"step{subject.step}-bins15")["clean"].results[2]
    test = data.load("digits", "test")
    answer = subject.predictor(test.images, 2)
    np.testing.assert_array_equal(kept.arrays["predicted"], answer.probs.argmax(-1))
    np.testing.assert_allclose(kept.arrays["entropy"], answer.entropy, rtol=1e-4, atol=1e-6)
    assert kept.metrics["accuracy"] == pytest.approx(accuracy_score(test.labels, answer.probs.argmax(-1)))
    least = kept.arrays["least_certain_rows"]
    np.testing.assert_allclose(kept.arrays["entropy"][least], np.sort(answer.entropy)[::-1][: len(least)], rtol=1e-4)
    np.testing.assert_array_equal(kept.arrays["least_certain_images"], test.images[least])
    np.testing.assert_array_equal(kept.arrays["most_certain_images"], test.images[kept.arrays["most_certain_rows"]])


# temperature scaling


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_of_overconfident_logits_is_found(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40_000, 4)) * 2
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(-1)  # drawn from softmax(logits)
    assert best_temperature(np.float32(logits * temperature), labels) == pytest.approx(temperature, rel=0.03)


def test_temperature_is_the_minimum_that_torch_finds():
    torch = pytest.importorskip("torch")

    rng = np.random.default_rng(1)
    logits = rng.normal(size=(300, 5)).astype(np.float32) * 3
    labels = (logits + 2 * rng.gumbel(size=logits.shape)).argmax(-1)
    log_temperature = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(torch.tensor(logits) / log_temperature.exp(), torch.tensor(labels))
        loss.backward()
        return loss

    optimizer.step(closure)
    assert best_temperature(logits, labels) == pytest.approx(float(log_temperature.detach().exp()), rel=1e-3)


def test_temperature_scaling_is_fitted_on_what_was_held_out(workdir, tmp_path):
    subject = subject_of(workdir, temperature_scaling=True)
    found = evaluation.SUITES["clean"].measure(subject, 2).metrics
    _, held_out = data.load_train(subject.run.config.data, subject.run.config.seed)
    logits = by_hand(subject, held_out.images, subject.run.references[:2]).mean(axis=0)
    assert found["temperature"] == pytest.approx(best_temperature(np.float32(logits), held_out.labels), rel=1e-2)
    test = data.load("digits", "test")
    scaled = by_hand(subject, test.images, subject.run.references[:2]).mean(axis=0) / found["temperature"]
    assert found["scaled_nll"] == pytest.approx(log_loss(test.labels, scipy.special.softmax(scaled, -1)), rel=1e-3)
    assert found["scaled_accuracy"] == found["mean_logits_accuracy"]
    spec = write_npz(tmp_path / "same.npz", test.images, test.labels, list("0123456789"))
    shifted = evaluation.SUITES["shift"].measure(subject_of(workdir, shift=(spec,), temperature_scaling=True), 2)
    assert shifted.metrics["same/scaled_ece"] == pytest.approx(found["scaled_ece"], rel=1e-5)
    with pytest.raises(UserError, match=r"temperature scaling serves the suites clean, corruptions, shift; ask one"):
        evaluation.evaluate(workdir, ("ood",), options=Options(temperature_scaling=True))


def test_what_the_run_cannot_do_is_refused_before_anything_is_measured(tiny, tmp_path):
    train(tiny, tmp_path / "run")
    with pytest.raises(UserError, match=r"images must have at least 8 x 8 pixels; got \[6, 6\]"):
        evaluation.evaluate(tmp_path / "run", ("clean", "corruptions"))
    assert not (tmp_path / "run/eval").exists()
    with pytest.raises(UserError, match=r"held out none; train with --config\.data\.validation_fraction=0\.1"):
        evaluation.evaluate(tmp_path / "run", options=Options(temperature_scaling=True))


# shift


def write_npz(path, images, labels, label_names, split="test"):
    np.savez(path, **{f"x_{split}": images, f"y_{split}": labels, "label_names": np.array(label_names)})
    return f"npz:{path}"


def test_logits_are_restricted_to_the_classes_of_a_set_before_anything_else(workdir, tmp_path):
    test = data.load("digits", "test")
    some = np.isin(test.labels, (7, 2, 5))
    images, labels = test.images[some], np.select([test.labels[some] == c for c in (7, 2, 5)], (0, 1, 2))
    spec = write_npz(tmp_path / "some.npz", images, labels, ["7", "2", "5"])
    subject = subject_of(workdir, shift=(spec,))
    finding = evaluation.SUITES["shift"].measure(subject, 3)
    logits = by_hand(subject, images, subject.run.references[:3])[..., [7, 2, 5]]
    probs = scipy.special.softmax(logits, axis=-1).mean(axis=0)
    expected = metrics.summary(np.float32(probs), labels)
    for name in ("accuracy", "nll", "brier", "ece", "smooth_ece"):
        assert finding.metrics[f"some/{name}"] == pytest.approx(float(expected[name]), rel=1e-3, abs=1e-5)
        assert finding.metrics[name] == finding.metrics[f"some/{name}"]
    np.testing.assert_array_equal(finding.arrays["some/label"], labels)
    assert finding.facts["members"] == ["some"]


@pytest.mark.parametrize(
    ("suite", "options", "message"),
    [
        ("shift", {}, r"suite 'shift' needs sets of the run's classes; give them as --shift"),
        ("probe", {}, r"suite 'probe' needs a set to be fitted to; give it as --probe"),
        ("ood", {"ood": ("photographs", "photographs")}, r"'photographs' is given twice"),
        (
            "probe",
            {"probe": ("digits@train",)},
            r"on the same images of 'digits@train'; give a set that has the splits",
        ),
        ("probe", {"probe": ("photographs",)}, r"on the same images of 'photographs'"),
        ("ood", {"ood": ("nowhere",)}, r"unknown dataset 'nowhere'; allowed: tfds:NAME"),
        ("shift", {"shift": ("digits@valid",)}, r"unknown split of digits 'valid'"),
        ("corruptions", {"corruptions": ()}, r"suite 'corruptions' needs a set"),
        ("corruptions", {"corruptions": ("generated", "generated")}, r"given twice: brightness, contrast"),
        ("corruptions", {"corruptions": ("digits",)}, r"unknown corrupted set 'digits'; allowed: tfds:NAME"),
    ],
)
def test_what_a_suite_needs_is_told(workdir, suite, options, message):
    with pytest.raises(UserError, match=message):
        evaluation.evaluate(workdir, (suite,), (2,), options=Options(**options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"draws": 0}, "draws must be at least 1, got 0"),
        ({"blt_references": -1}, "blt_references must be at least 0, got -1"),
        ({"protocol": "bls"}, r"unknown protocol 'bls'; allowed: blt, random. Did you mean 'blt'"),
    ],
)
def test_options_out_of_range_are_told(options, message):
    with pytest.raises(UserError, match=message):
        Options(**options)


def test_a_set_must_not_be_called_as_a_group_is(workdir, tmp_path):
    spec = write_npz(tmp_path / "near.npz", np.zeros((4, 8, 8, 1), np.uint8), [0, 1, 0, 1], ["a", "b"])
    with pytest.raises(UserError, match=r"must not be called far, in, near; rename or link 'near'"):
        evaluation.evaluate(workdir, ("ood",), (2,), options=Options(ood=(spec,)))


def test_what_was_found_with_other_options_is_kept(workdir, tmp_path, capsys):
    test = data.load("digits", "test")
    flipped = write_npz(tmp_path / "flipped.npz", test.images[:50, ::-1], test.labels[:50], list("0123456789"))
    folder = workdir / "eval" / f"step{load_checkpoint(run_record.load(workdir), 'latest')[0]}-bins15"
    first = evaluation.evaluate(workdir, ("ood",), (2, 3))
    evaluation.evaluate(workdir, ("ood",), (2,), options=Options(ood=("photographs",)))
    before = (folder / "ood.json").read_bytes()
    capsys.readouterr()
    evaluation.evaluate(workdir, ("ood",), (2,), options=Options(ood=(flipped,)))
    earlier = sorted((folder / "earlier").iterdir(), key=lambda place: int(place.name))
    told = capsys.readouterr().out.replace("\n", "")
    assert f"ood: what was found with other options was moved to {earlier[-1]}" in told
    assert (earlier[-1] / "ood.json").read_bytes() == before
    kept = on_disk.read(earlier[-2])["ood"]
    assert {str(num): of.metrics for num, of in kept.results.items()} == first["ood"]
    assert kept.results[3].arrays["in/entropy"].shape == (360,)
    assert on_disk.read(folder)["ood"].results.keys() == {2}


@pytest.mark.parametrize("suite", ["clean", "corruptions", "ood", "protocols", "probe", "landscape"])
def test_a_diverged_checkpoint_is_told(workdir, suite):
    subject = subject_of(workdir, probe=("digits",))
    nothing = jax.tree.map(lambda leaf: leaf * np.nan, subject.predictor.variables)
    subject = dataclasses.replace(subject, predictor=dataclasses.replace(subject.predictor, variables=nothing))
    with pytest.raises(UserError, match=r"no finite numbers: the checkpoint has diverged"):
        evaluation.SUITES[suite].measure(subject, 2)


def test_what_was_found_before_an_interruption_is_reported(workdir, monkeypatch):
    def interrupted(subject, num_references):
        raise KeyboardInterrupt

    suites = evaluation.SUITES | {"protocols": evaluation.SUITES["protocols"]._replace(measure=interrupted)}
    monkeypatch.setattr("anchor_jax.evaluation.runner.SUITES", suites)
    with pytest.raises(KeyboardInterrupt):
        evaluation.evaluate(workdir, ("clean", "protocols"), (2,), num_bins=9)
    report = next((workdir / "eval").glob("step*-bins9")) / "report.html"
    assert "Clean test set" in report.read_text()


def test_sets_of_other_classes_are_refused(workdir, tmp_path):
    spec = write_npz(tmp_path / "pets.npz", np.zeros((2, 8, 8, 1), np.uint8), [0, 1], ["cat", "dog"])
    with pytest.raises(UserError, match=r"2 of the 2 classes .* are not among the run's 10: cat, dog"):
        evaluation.evaluate(workdir, ("shift",), (2,), options=Options(shift=(spec,)))


# anomalies


@pytest.mark.parametrize("ties", [False, True])
def test_detection_is_that_of_torchmetrics(ties):
    torch = pytest.importorskip("torch")
    torchmetrics = pytest.importorskip("torchmetrics.functional.classification")

    rng = np.random.default_rng(0)
    inside, outside = rng.normal(size=300), rng.normal(size=200) + 1
    if ties:
        inside, outside = inside.round(), outside.round()
    found = detection(inside, outside)
    scores, target = torch.tensor(np.concatenate([inside, outside])), torch.tensor([0] * 300 + [1] * 200)
    shifted = (scores - scores.min()) / (scores.max() - scores.min())  # torchmetrics takes others for logits
    assert found["auroc"] == pytest.approx(float(torchmetrics.binary_auroc(shifted, target)), abs=1e-6)
    assert found["aupr_out"] == pytest.approx(float(torchmetrics.binary_average_precision(shifted, target)), abs=1e-6)
    assert found["aupr_in"] == pytest.approx(
        float(torchmetrics.binary_average_precision(1 - shifted, 1 - target)), abs=1e-6
    )
    threshold = max(t for t in outside if (outside >= t).mean() >= 0.95)
    assert found["fpr95"] == pytest.approx((inside >= threshold).mean())


def test_detection_at_its_ends():
    apart = detection(np.zeros(10), np.ones(10))
    assert apart == {"auroc": 1, "aupr_in": 1, "aupr_out": 1, "fpr95": 0}
    assert detection(np.ones(10), np.ones(30)) == {"auroc": 0.5, "aupr_in": 0.25, "aupr_out": 0.75, "fpr95": 1}


def test_every_score_is_higher_for_what_is_stranger():
    """A sure and unanimous example against an unsure and divided one."""

    def scores_of(logits):
        """Of one input whose logits are its references `[K, C]` themselves."""

        def reference_itself(_, inputs):
            return jnp.split(inputs, 2, axis=-1)[0]

        poll = aj.inference.classify_with_votes(
            reference_itself, None, np.zeros((1, 3), np.float32), np.float32(logits)
        )
        return anomaly_scores(rows(None, poll, np.zeros(1, np.int32)))

    sure = scores_of([[9, 0, 0], [8, 0, 0], [9, 1, 0]])
    unsure = scores_of([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert sure.keys() == unsure.keys() == SCORES.keys()
    for name in SCORES:
        assert sure[name] < unsure[name], name


def test_anomalies_are_told_group_by_group(workdir, tmp_path):
    test = data.load("digits", "test")
    flipped = write_npz(tmp_path / "flipped.npz", test.images[:100, ::-1], test.labels[:100], list("0123456789"))
    subject = subject_of(workdir, ood=(f"near={flipped}", "far=photographs"))
    finding = evaluation.SUITES["ood"].measure(subject, 3)
    assert finding.facts["members"] == ["flipped", "photographs"]
    assert finding.facts["groups"] == {"near": ["flipped"], "far": ["photographs"]}
    for name in SCORES:
        both = [finding.metrics[f"{member}/{name}/auroc"] for member in ("flipped", "photographs")]
        assert [finding.metrics[f"near/{name}/auroc"], finding.metrics[f"far/{name}/auroc"]] == both
        assert finding.metrics[f"{name}/auroc"] == pytest.approx(np.mean(both))
    entropy = subject.predictor(test.images, 3).entropy, subject.predictor(test.images[:100, ::-1], 3).entropy
    assert finding.metrics["flipped/entropy/auroc"] == pytest.approx(detection(*entropy)["auroc"], abs=1e-4)
    assert not {"spread", "agreement"} & {n.split("/")[0] for n in evaluation.SUITES["ood"].measure(subject, 1).metrics}


# protocols


def test_protocols_are_the_draws_they_name(workdir):
    subject = subject_of(workdir, draws=3)
    found = evaluation.SUITES["protocols"].measure(subject, 4).metrics
    test = data.load("digits", "test")
    references = subject.run.references
    for draw in range(3):
        for num in (1, 2, 4):
            of_draw = references[draw * num : (draw + 1) * num]
            probs = scipy.special.softmax(by_hand(subject, test.images, of_draw), -1).mean(0)
            assert found[f"draws/{draw}/{num}/accuracy"] == pytest.approx((probs.argmax(-1) == test.labels).mean())
            assert found[f"draws/{draw}/{num}/nll"] == pytest.approx(log_loss(test.labels, probs), rel=1e-3)
    for protocol, num in (("random1", 1), ("randomK", 4)):
        mean = np.mean([found[f"draws/{draw}/{num}/accuracy"] for draw in range(3)])
        assert found[f"{protocol}/accuracy"] == pytest.approx(mean)
        assert found[f"{protocol}/seconds_per_1000"] > 0
    assert "draws/3/1/accuracy" not in found


def test_transduction_gives_each_image_its_nearest_reference(workdir):
    subject = subject_of(workdir, blt_references=40)
    transduction = subject.transduction
    assert len(transduction.references) == 40
    test = data.load("digits", "test")
    table = subject.predict_transduced(subject.test)
    norm = run_normalization(subject.run)
    x, r = (np.asarray(data.normalize(images, norm)) for images in (test.images, transduction.references))
    d = np.asarray(transduction.residuals)
    expected = []
    for image in x:
        gaps = ((image - r)[:, None] - d[None]).reshape(len(r), len(d), -1)
        expected.append((gaps**2).sum(-1).min(1).argmin())
    rows = np.array(expected)
    logits = np.stack(
        [by_hand(subject, test.images[[i]], transduction.references[[row]])[0, 0] for i, row in enumerate(rows)]
    )
    np.testing.assert_array_equal(table.predicted, logits.argmax(-1))
    np.testing.assert_allclose(table.outcomes.confidence, scipy.special.softmax(logits, -1).max(-1), rtol=1e-3)


def test_suites_are_asked_by_transduction_too(workdir):
    some = Options(protocol="blt", blt_references=40)
    found = evaluation.evaluate(workdir, ("clean", "ood"), (1, 5), options=some)
    assert {suite: set(of) for suite, of in found.items()} == {"clean-blt": {"1"}, "ood-blt": {"1"}}
    subject = subject_of(workdir, blt_references=40)
    right = subject.predict_transduced(subject.test).outcomes.correct
    assert found["clean-blt"]["1"]["accuracy"] == pytest.approx(right.mean())
    report = (workdir / "eval" / f"step{subject.step}-bins15/report.html").read_text()
    assert "Clean test set, by transduction (BLT)" in report
    with pytest.raises(UserError, match=r"suite 'probe' has no protocol 'blt'; those that have it: clean, corrup"):
        evaluation.evaluate(workdir, ("probe",), options=some)
    with pytest.raises(UserError, match=r"goes with random references"):
        evaluation.evaluate(workdir, options=Options(protocol="blt", temperature_scaling=True))


def test_transduction_restricts_classes_as_random_references_do(workdir, tmp_path):
    test = data.load("digits", "test")
    some = np.isin(test.labels, (7, 2))
    labels = (test.labels[some] == 2).astype(int)
    spec = write_npz(tmp_path / "some.npz", test.images[some], labels, ["7", "2"])
    subject = subject_of(workdir, shift=(spec,), protocol="blt", blt_references=30)
    finding = evaluation.SUITES["shift"].measure(subject, 1)
    references = next(subject.transduction.paired(data.eval_dataset(test, "test")).batches(360))[1][some]
    pairs = zip(test.images[some], references, strict=True)
    logits = np.stack([by_hand(subject, image[None], reference[None])[0, 0, [7, 2]] for image, reference in pairs])
    np.testing.assert_array_equal(finding.arrays["some/predicted"], logits.argmax(-1))


def test_protocols_of_a_standard_network_are_one(tmp_path):
    config = digits_config(tmp_path)
    config.anchoring.enabled = False
    train(config, tmp_path / "run")
    found = evaluation.evaluate(tmp_path / "run", ("protocols", "landscape"), (1, 10))
    assert {name.split("/")[0] for name in found["protocols"]["0"]} == {"standard"}
    assert found["landscape"]["0"].keys() == {"accuracy"}
    with pytest.raises(UserError, match=r"protocol 'blt' picks references, and a standard network has none"):
        evaluation.evaluate(tmp_path / "run", options=Options(protocol="blt"))


# probe


def test_probe_is_logistic_regression_on_mean_features(workdir, tmp_path):
    test = data.load("digits", "test")
    flipped = write_npz(tmp_path / "flipped.npz", test.images[:, ::-1], test.labels, list("0123456789"))
    subject = subject_of(workdir, probe=("digits", flipped))
    finding = evaluation.SUITES["probe"].measure(subject, 3)
    norm, model = run_normalization(subject.run), create_model(subject.run)

    def features(images):
        x, outputs = data.normalize(images, norm), []
        for r in data.normalize(subject.run.references[:3], norm):
            first = model.apply(
                subject.predictor.variables, np.concatenate([x * 0 + r, x - r], -1), method="first_layer"
            )
            outputs.append(model.apply(subject.predictor.variables, first, method="features"))
        return np.mean(outputs, axis=0)

    fitted = data.load("digits", "train")
    scaler = StandardScaler().fit(features(fitted.images))
    linear = LogisticRegression(max_iter=1_000).fit(scaler.transform(features(fitted.images)), fitted.labels)
    for name, images in (("digits", test.images), ("flipped", test.images[:, ::-1])):
        probs = linear.predict_proba(scaler.transform(features(images)))
        assert finding.metrics[f"{name}/accuracy"] == pytest.approx(
            accuracy_score(test.labels, probs.argmax(-1)), abs=0.006
        )
        assert finding.metrics[f"{name}/nll"] == pytest.approx(log_loss(test.labels, probs), rel=0.02)
    assert finding.metrics["accuracy"] == finding.metrics["digits/accuracy"] > 0.6
    assert finding.facts["converged"]
    assert finding.facts["in_distribution"] == "digits"


# landscape


def test_directions_are_as_long_as_the_network_filter_by_filter():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 5)).astype(np.float32)
    params = {"conv": kernel, "bias": np.ones(5, np.float32)}
    direction = filter_normalised_direction(jax.random.key(0), params)
    norms = [np.sqrt((np.asarray(tree["conv"]) ** 2).sum((0, 1, 2))) for tree in (params, direction)]
    np.testing.assert_allclose(*norms, rtol=1e-5)
    assert not np.asarray(direction["bias"]).any()
    assert np.abs(np.asarray(direction["conv"]) - params["conv"]).max() > 0.1


def test_landscape_has_the_network_in_its_middle(workdir, subject):
    finding = evaluation.SUITES["landscape"].measure(subject, 2)
    test = data.load("digits", "test")
    clean = metrics.summary(subject.predictor(test.images, 2).probs, test.labels)
    centre = len(finding.arrays["alphas"]) // 2
    assert finding.arrays["alphas"][centre] == finding.arrays["betas"][centre] == 0
    assert finding.metrics["accuracy"] == pytest.approx(float(clean["accuracy"]))
    assert finding.arrays["loss"][centre, centre] == pytest.approx(float(clean["nll"]), rel=1e-3)
    assert finding.arrays["loss"][0, 0] > finding.arrays["loss"][centre, centre]


# corruptions


def test_corruptions_are_those_of_the_generator_whatever_the_batches(workdir, subject):
    finding = evaluation.SUITES["corruptions"].measure(subject_of(workdir, seed=3), 2)
    test = data.load("digits", "test")
    key = jax.random.key(3)
    for row, member in enumerate(corruptions.CORRUPTIONS_19):
        if member not in ("gaussian_noise", "fog", "contrast"):
            continue
        images = np.asarray(corruptions.corrupt(key, test.images, member, 4))
        answer = subject.predictor(images, 2)
        right = answer.probs.argmax(-1) == test.labels
        assert (finding.arrays["correct"][row, 3] == right).mean() > 0.99
        assert finding.metrics[f"{member}/4/accuracy"] == pytest.approx(right.mean(), abs=0.01)
    assert finding.arrays["correct"].shape == (19, 5, 360)
    assert finding.facts["members"] == list(corruptions.CORRUPTIONS_19)
    assert finding.metrics["accuracy"] == pytest.approx(finding.arrays["correct"].mean(), abs=1e-6)
    assert finding.metrics["mean15/accuracy"] == pytest.approx(finding.arrays["correct"][:15].mean(), abs=1e-6)
    assert finding.metrics["severity5/accuracy"] == pytest.approx(finding.arrays["correct"][:, 4].mean(), abs=1e-6)


def test_generated_set_does_not_depend_on_batches(subject):
    made = generated("made", ("gaussian_noise",), subject.test, seed=0).stream("gaussian_noise", 2)

    def all_of(size):
        parts = list(made.batches(size))
        return np.concatenate([np.asarray(p[0]) for p in parts]), np.concatenate([p[1] for p in parts])

    images, labels = all_of(64)
    others = all_of(256)
    np.testing.assert_array_equal(images, others[0])
    np.testing.assert_array_equal(labels, others[1])
    np.testing.assert_array_equal(labels, data.load("digits", "test").labels)


def test_published_files_are_evaluated_as_they_are(workdir, tmp_path):
    test = data.load("digits", "test")
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(5, *test.images.shape)) * 20 * np.arange(1, 6).reshape(5, 1, 1, 1, 1)
    worse = np.clip(test.images + noise, 0, 255).astype(np.uint8)
    np.save(tmp_path / "grain.npy", np.concatenate(worse))
    np.save(tmp_path / "labels.npy", np.tile(test.labels, 5))
    subject = subject_of(workdir, corruptions=(f"npy:{tmp_path}",))
    finding = evaluation.SUITES["corruptions"].measure(subject, 2)
    for severity in range(1, 6):
        probs = subject.predictor(worse[severity - 1], 2).probs
        expected = accuracy_score(test.labels, probs.argmax(-1))
        assert finding.metrics[f"grain/{severity}/accuracy"] == pytest.approx(expected)
        assert finding.metrics[f"severity{severity}/accuracy"] == pytest.approx(expected)
    assert finding.metrics["grain/accuracy"] == finding.metrics["accuracy"]
    assert not {"mean19/accuracy", "cbar/accuracy"} & finding.metrics.keys()


def test_a_corrupted_set_that_is_the_clean_one_is_refused(workdir, tmp_path):
    test = data.load("digits", "test")
    np.save(tmp_path / "fog.npy", np.tile(test.images, (5, 1, 1, 1)))
    np.save(tmp_path / "labels.npy", np.tile(test.labels, 5))
    with pytest.raises(UserError, match=r"all in the clean set 'test': they are not corrupted"):
        evaluation.evaluate(workdir, ("corruptions",), (2,), options=Options(corruptions=(f"npy:{tmp_path}",)))


def test_means_name_what_they_are_over():
    rng = np.random.default_rng(0)
    members = (*corruptions.CORRUPTIONS_19, *corruptions.C_BAR_CIFAR)
    values = rng.random((29, 5))
    names = ("accuracy", "nll", "brier", "ece", "rms_ece", "smooth_ece")
    each = {f"{m}/{s}/{n}": values[i, s - 1] for i, m in enumerate(members) for s in range(1, 6) for n in names}
    found = means(each, members)
    assert found["accuracy"] == pytest.approx(values.mean())
    assert found["mean15/ece"] == pytest.approx(values[:15].mean())
    assert found["mean19/nll"] == pytest.approx(values[:19].mean())
    assert found["cbar/accuracy"] == pytest.approx(values[19:].mean())
    assert found["severity2/brier"] == pytest.approx(values[:, 1].mean())
    assert found["fog/accuracy"] == pytest.approx(values[members.index("fog")].mean())


def test_alexnet_has_a_corruption_error_of_1():
    assert mean_corruption_error({f"{name}/accuracy": 1 - error for name, error in ALEXNET_ERRORS.items()}) == 1
    assert ALEXNET_ERRORS.keys() == set(corruptions.CORRUPTIONS_15)
    assert mean_corruption_error({f"{name}/accuracy": 1.0 for name in ALEXNET_ERRORS}) == 0


def test_a_suite_does_not_compile_for_every_set(subject):
    """The second corruption set of a size and what follows use the programs of the first."""
    made = generated("made", ("contrast", "brightness"), subject.test, seed=0)
    subject.predict(made.stream("contrast", 1), 2)
    before = subject.predictor.network.classify_program(None, None)._cache_size()
    subject.predict(made.stream("brightness", 1), 2)
    assert subject.predictor.network.classify_program(None, None)._cache_size() == before


def test_predictor_is_the_same_on_one_device_and_eight(workdir, subject):
    images = data.load("digits", "test").images
    from anchor_jax.runs.load import create_predictor

    one = create_predictor(subject.run, jax.device_get(subject.predictor.variables), mesh_lib.mesh(1))
    for a, b in zip(one(images, 3), aj.load_predictor(workdir)(images, 3), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


# memory


def test_memory_does_not_grow_with_the_images():
    """48 MB of images pass through; what is kept is a row of numbers for each."""
    num, shape = 4_096, (64, 64, 3)
    made = []

    def batches(size):
        for start in range(0, num, size):
            made.append(start)
            yield np.full((size, *shape), start % 256, np.uint8), np.zeros(size, np.int32)

    stream = data.EvalDataset("made", ("a", "b", "c"), shape, num, lambda: np.zeros(num, np.int32), batches)
    model = models.create("mlp", 3, hidden=(2,))
    variables = model.init(jax.random.key(0), np.zeros((1, *shape), np.float32))
    normalization, mesh = data.Normalization((0.5,) * 3, (0.5,) * 3), mesh_lib.mesh()
    network = CompiledNetwork(model, normalization, mesh, anchored=False, inputs_at_once=128)
    predictor = Predictor(variables, None, stream.label_names, shape, network, mesh.size, batch_size=128)
    tracemalloc.start()
    table = predict_dataset(predictor, stream, 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(table.label) == num
    assert len(made) == num // 128
    assert peak < num * np.prod(shape) / 5
