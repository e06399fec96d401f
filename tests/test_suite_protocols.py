"""The suites protocols, reference_use, probe and landscape, against the method written out by hand."""

import jax
import numpy as np
import pytest
import scipy.special
from conftest import tiny_config
from digits import context_of, digits_config, logits_by_hand, measured, write_npz
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.preprocessing import StandardScaler

from anchor_jax import UserError, data, evaluation, metrics
from anchor_jax.evaluation import SUITES, Options
from anchor_jax.evaluation.suites.landscape import filter_normalized_direction
from anchor_jax.evaluation.suites.probe import ProbeOptions
from anchor_jax.reporting import Reporter
from anchor_jax.runs.load import create_model, run_normalization
from anchor_jax.training.loop import train


def test_protocols_average_over_their_draws(digits_run):
    context = context_of(digits_run, draws=3)
    found = measured(context, "protocols", 4).metrics
    test = data.load("digits", "test")
    references = context.run.references
    for draw in range(3):
        for num in (1, 2, 4):
            of_draw = references[draw * num : (draw + 1) * num]
            probs = scipy.special.softmax(logits_by_hand(context, test.images, of_draw), -1).mean(0)
            assert found[f"draws/{draw}/{num}/accuracy"] == pytest.approx((probs.argmax(-1) == test.labels).mean())
            assert found[f"draws/{draw}/{num}/nll"] == pytest.approx(log_loss(test.labels, probs), rel=1e-3)
    for protocol, num in (("random1", 1), ("randomK", 4)):
        mean = np.mean([found[f"draws/{draw}/{num}/accuracy"] for draw in range(3)])
        assert found[f"{protocol}/accuracy"] == pytest.approx(mean)
        assert found[f"{protocol}/seconds_per_1000"] > 0
    assert "draws/3/1/accuracy" not in found


def test_reference_use_shows_other_references(digits_run):
    context = context_of(digits_run)
    found = measured(context, "reference_use", 2).metrics
    test, norm, model = data.load("digits", "test"), run_normalization(context.run), create_model(context.run)
    x, all_references = (np.asarray(data.normalize(images, norm)) for images in (test.images, context.run.references))
    own, zero, mean = all_references[:2], np.zeros_like(all_references[:1]), all_references.mean(0, keepdims=True)
    pairs = {"own": (own, own), "another": (all_references[2:4], own), "masked": (0 * own, own)}
    pairs |= {"zero": (zero, zero), "mean": (mean, mean)}
    for name, (shown, subtracted) in pairs.items():
        logits = [
            model.apply(context.predictor.variables, np.concatenate([x * 0 + s, x - r], -1))
            for s, r in zip(shown, subtracted, strict=True)
        ]
        probs = np.mean(scipy.special.softmax(logits, axis=-1), axis=0)
        assert found[f"{name}/accuracy"] == pytest.approx((probs.argmax(-1) == test.labels).mean(), abs=0.003)
        assert found[f"{name}/nll"] == pytest.approx(log_loss(test.labels, probs), rel=1e-3)
    assert found["own/nll"] != pytest.approx(found["another/nll"], rel=1e-3)


def test_transduction_chooses_the_nearest_reference(digits_run):
    context = context_of(digits_run, blt_references=40)
    transduction = context.transduction
    assert len(transduction.references) == 40
    test = data.load("digits", "test")
    table = context.predict_transduced(context.test)
    norm = run_normalization(context.run)
    x, r = (np.asarray(data.normalize(images, norm)) for images in (test.images, transduction.references))
    d = np.asarray(transduction.residuals)
    expected = []
    for image in x:
        gaps = ((image - r)[:, None] - d[None]).reshape(len(r), len(d), -1)
        expected.append((gaps**2).sum(-1).min(1).argmin())
    rows = np.array(expected)
    logits = np.stack(
        [logits_by_hand(context, test.images[[i]], transduction.references[[row]])[0, 0] for i, row in enumerate(rows)]
    )
    np.testing.assert_array_equal(table.predicted, logits.argmax(-1))
    np.testing.assert_allclose(table.mean_probs.confidence, scipy.special.softmax(logits, -1).max(-1), rtol=1e-3)


def test_blt_chooses_among_50_random_references(digits_run):
    bank = data.load("digits", "train").images
    found = {seed: context_of(digits_run, seed=seed).transduction for seed in (0, 1)}
    for transduction in found.values():
        assert len(transduction.references) == 50
        assert {image.tobytes() for image in transduction.references} <= {image.tobytes() for image in bank}
    assert (found[0].references != found[1].references).any()
    everything = context_of(digits_run, blt_references=0).transduction
    assert len(everything.references) == everything.bank_size == found[0].bank_size > 1_000


def test_numbers_of_blt_candidates_are_told_not_mixed(digits_run, tmp_path, capsys):
    bank = f"{context_of(digits_run).transduction.bank_size:,}"
    for num, told in ((50, f"50 of the {bank} references"), (0, f"all {bank} references")):
        some = Options(blt_references=num, protocol="blt")
        evaluation.evaluate(digits_run, ("clean",), options=some, out=tmp_path, report=Reporter())
        sentence, printed = f"BLT chooses among {told} of the bank", capsys.readouterr().out
        assert sentence in printed
        assert ("measured with other options, were moved" in printed) == (num == 0)
        assert sentence in next(tmp_path.glob("step*/report.html")).read_text()
    assert (
        sentence
        in SUITES["protocols"]
        .tables({2: measured(context_of(digits_run, blt_references=0), "protocols", 2)})[0]
        .notes[1]
    )


def test_evaluate_with_transduction_renames_the_suites(digits_run):
    some = Options(protocol="blt", blt_references=40)
    found = evaluation.evaluate(digits_run, ("clean", "ood"), (1, 5), options=some, report=Reporter())
    assert {suite: set(of) for suite, of in found.items()} == {"clean-blt": {"1"}, "ood-blt": {"1"}}
    context = context_of(digits_run, blt_references=40)
    right = context.predict_transduced(context.test).mean_probs.correct
    assert found["clean-blt"]["1"]["accuracy"] == pytest.approx(right.mean())
    report = (digits_run / "eval" / f"step{context.step}-bins15/report.html").read_text()
    assert "Clean test set, with transduction (BLT)" in report
    with pytest.raises(UserError, match=r"suite 'probe' does not support protocol 'blt'; supported: clean, corrup"):
        evaluation.evaluate(digits_run, ("probe",), options=some)
    with pytest.raises(UserError, match=r"temperature scaling needs random references"):
        evaluation.evaluate(digits_run, options=Options(protocol="blt", temperature_scaling=True))


@pytest.mark.filterwarnings("ignore:'some' has 2 of the run's 10 classes")
def test_transduction_restricts_logits_to_classes(digits_run, tmp_path):
    test = data.load("digits", "test")
    some = np.isin(test.labels, (7, 2))
    labels = (test.labels[some] == 2).astype(int)
    spec = write_npz(tmp_path / "some.npz", test.images[some], labels, ["7", "2"])
    context = context_of(digits_run, shift=(spec,), protocol="blt", blt_references=30)
    result = measured(context, "shift", 1)
    references = next(context.transduction.paired(data.eval_dataset(test, "test")).batches(360))[1][some]
    pairs = zip(test.images[some], references, strict=True)
    logits = np.stack(
        [logits_by_hand(context, image[None], reference[None])[0, 0, [7, 2]] for image, reference in pairs]
    )
    np.testing.assert_array_equal(result.arrays["some/predicted"], logits.argmax(-1))


def test_protocols_of_a_standard_network_are_one(tmp_path):
    config = digits_config(tiny_config(tmp_path))
    config.anchoring.enabled, options = False, Options(probe=("digits",))
    train(config, tmp_path / "run")
    suites = ("protocols", "reference_use", "landscape", "probe")
    found = evaluation.evaluate(tmp_path / "run", suites, (1, 10), options=options)
    assert found["probe"]["0"]["accuracy"] > 0.6
    for suite in ("protocols", "reference_use"):
        assert {name.split("/")[0] for name in found[suite]["0"]} == {"standard"}
    assert found["landscape"]["0"].keys() == {"accuracy"}
    with pytest.raises(UserError, match=r"protocol 'blt' chooses references, and a standard network has none"):
        evaluation.evaluate(tmp_path / "run", options=Options(protocol="blt"))


@pytest.mark.parametrize("mask_prob", [0.4, 0.0])
def test_probe_is_fitted_anchored_and_tested_on_means(digits_run, tmp_path, mask_prob):
    test = data.load("digits", "test")
    flipped = write_npz(tmp_path / "flipped.npz", test.images[:, ::-1], test.labels, list("0123456789"))
    default = {} if mask_prob == 0.4 else {"probe_mask_prob": mask_prob}
    context = context_of(digits_run, probe=("digits", flipped), **default)
    result = measured(context, "probe", 3)
    norm, model = run_normalization(context.run), create_model(context.run)

    def features(images, rows, visible=1):
        x, r = data.normalize(images, norm), data.normalize(context.run.references[rows], norm)
        inputs = np.concatenate([np.broadcast_to(r * visible, x.shape), x - r], -1)
        first = model.apply(context.predictor.variables, inputs, method="first_layer")
        return model.apply(context.predictor.variables, first, method="features")

    fitted = data.load("digits", "train")
    num, rng = len(fitted.images), np.random.default_rng(0)
    rows, visible = rng.integers(len(context.run.references), size=num), rng.random(num) >= mask_prob
    trained = features(fitted.images, rows, visible[:, None, None, None])
    scaler = StandardScaler().fit(trained)
    linear = LogisticRegression(max_iter=1_000).fit(scaler.transform(trained), fitted.labels)
    for name, images in (("digits", test.images), ("flipped", test.images[:, ::-1])):
        means = np.mean([features(images, [row]) for row in range(3)], axis=0)
        probs = linear.predict_proba(scaler.transform(means))
        assert result.metrics[f"{name}/accuracy"] == pytest.approx(
            accuracy_score(test.labels, probs.argmax(-1)), abs=0.006
        )
        assert result.metrics[f"{name}/nll"] == pytest.approx(log_loss(test.labels, probs), rel=0.02)
    assert result.metrics["accuracy"] == result.metrics["digits/accuracy"] > 0.6
    assert result.facts["converged"]
    assert result.facts["in_distribution"] == "digits"
    assert f"masked with probability {mask_prob:g}" in SUITES["probe"].tables({3: result})[0].notes[0]
    assert context.options_of(ProbeOptions).facts()["probe_mask_prob"] == mask_prob


def test_landscape_directions_have_the_norm_of_each_filter():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 5)).astype(np.float32)
    params = {"conv": kernel, "bias": np.ones(5, np.float32)}
    direction = filter_normalized_direction(jax.random.key(0), params)
    norms = [np.sqrt((np.asarray(tree["conv"]) ** 2).sum((0, 1, 2))) for tree in (params, direction)]
    np.testing.assert_allclose(*norms, rtol=1e-5)
    assert not np.asarray(direction["bias"]).any()
    assert np.abs(np.asarray(direction["conv"]) - params["conv"]).max() > 0.1


def test_landscape_has_the_trained_network_in_the_center(digits_run, digits_context):
    result = measured(digits_context, "landscape", 2)
    test = data.load("digits", "test")
    clean = metrics.summary(digits_context.predictor(test.images, 2).probs, test.labels)
    centre = len(result.arrays["alphas"]) // 2
    assert result.arrays["alphas"][centre] == result.arrays["betas"][centre] == 0
    assert result.metrics["accuracy"] == pytest.approx(float(clean["accuracy"]))
    assert result.arrays["loss"][centre, centre] == pytest.approx(float(clean["nll"]), rel=1e-3)
    assert result.arrays["loss"][0, 0] > result.arrays["loss"][centre, centre]
