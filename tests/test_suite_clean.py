"""The suites clean and shift, and the predictions of all suites, against scikit-learn and the method by hand."""

import dataclasses
import tracemalloc

import jax
import numpy as np
import pytest
import scipy.special
from digits import context_of, logits_by_hand, measured, write_npz
from sklearn.metrics import accuracy_score, log_loss

import anchor_jax as aj
from anchor_jax import UserError, data, evaluation, metrics, models, scaling
from anchor_jax.evaluation import Options, storage
from anchor_jax.evaluation.predictions import predict_dataset
from anchor_jax.runs.network import CompiledNetwork
from anchor_jax.runs.predictor import Predictor
from anchor_jax.runtime import mesh as mesh_lib


@pytest.mark.parametrize("batch_size", [64, 104, 512])
def test_prediction_table_does_not_depend_on_batches(digits_context, batch_size):
    test = data.load("digits", "test")
    predictor = dataclasses.replace(digits_context.predictor, batch_size=batch_size)
    table = dataclasses.replace(digits_context, predictor=predictor).predict(digits_context.test, 3)
    logits = logits_by_hand(digits_context, test.images, digits_context.run.references[:3])
    probs = scipy.special.softmax(logits, axis=-1)
    mean = probs.mean(axis=0)
    np.testing.assert_array_equal(table.label, test.labels)
    np.testing.assert_array_equal(table.predicted, mean.argmax(-1))
    np.testing.assert_allclose(table.mean_probs.confidence, mean.max(-1), rtol=1e-4)
    np.testing.assert_allclose(table.mean_probs.nll, -np.log(mean[np.arange(360), test.labels]), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(table.spread, probs.std(axis=0, ddof=1).mean(-1), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(table.max_logit, logits.mean(axis=0).max(-1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        table.energy, -scipy.special.logsumexp(logits.mean(axis=0), axis=-1), rtol=1e-4, atol=1e-4
    )
    votes = np.stack([(logits.argmax(-1) == c).mean(axis=0) for c in range(10)])
    np.testing.assert_allclose(table.agreement, votes.max(axis=0), rtol=1e-6)


def test_clean_stores_predictions_and_certain_images(digits_run, digits_context):
    evaluation.evaluate(digits_run, ("clean",), (2,))
    kept = storage.read(digits_run / "eval" / f"step{digits_context.step}-bins15")["clean"][2]
    test = data.load("digits", "test")
    answer = digits_context.predictor(test.images, 2)
    np.testing.assert_array_equal(kept.arrays["predicted"], answer.probs.argmax(-1))
    np.testing.assert_allclose(kept.arrays["entropy"], answer.entropy, rtol=1e-4, atol=1e-6)
    assert kept.metrics["accuracy"] == pytest.approx(accuracy_score(test.labels, answer.probs.argmax(-1)))
    least = kept.arrays["least_certain_rows"]
    np.testing.assert_allclose(kept.arrays["entropy"][least], np.sort(answer.entropy)[::-1][: len(least)], rtol=1e-4)
    np.testing.assert_array_equal(kept.arrays["least_certain_images"], test.images[least])
    np.testing.assert_array_equal(kept.arrays["most_certain_images"], test.images[kept.arrays["most_certain_rows"]])
    [diagrams] = [each for each in evaluation.SUITES["clean"].figures({2: kept}, {}) if each.name == "reliability"]
    [bins] = diagrams.plot.panels.values()
    assert metrics.calibration_error(bins).item() == pytest.approx(kept.metrics["ece"])


def test_temperature_scaling_is_fitted_on_held_out_data(digits_run, tmp_path):
    context = context_of(digits_run, temperature_scaling=True)
    found = measured(context, "clean", 2).metrics
    _, held_out = data.load_train(context.run.config.data, context.run.config.seed)
    logits = logits_by_hand(context, held_out.images, context.run.references[:2]).mean(axis=0)
    expected = scaling.fit_temperature(logits, held_out.labels).temperature
    assert found["temperature"] == pytest.approx(expected, rel=1e-2)
    test = data.load("digits", "test")
    scaled = logits_by_hand(context, test.images, context.run.references[:2]).mean(axis=0) / found["temperature"]
    assert found["scaled_nll"] == pytest.approx(log_loss(test.labels, scipy.special.softmax(scaled, -1)), rel=1e-3)
    assert found["scaled_accuracy"] == found["mean_logits_accuracy"]
    spec = write_npz(tmp_path / "same.npz", test.images, test.labels, list("0123456789"))
    shifted = measured(context_of(digits_run, shift=(spec,), temperature_scaling=True), "shift", 2)
    assert shifted.metrics["same/scaled_ece"] == pytest.approx(found["scaled_ece"], rel=1e-5)
    with pytest.raises(UserError, match=r"temperature scaling applies to the suites clean, corruptions, shift; add"):
        evaluation.evaluate(digits_run, ("ood",), options=Options(temperature_scaling=True))


def test_shift_restricts_logits_to_the_classes_of_a_set(digits_run, tmp_path):
    test = data.load("digits", "test")
    some = np.isin(test.labels, (7, 2, 5))
    images, labels = test.images[some], np.select([test.labels[some] == c for c in (7, 2, 5)], (0, 1, 2))
    spec = write_npz(tmp_path / "some.npz", images, labels, ["7", "2", "5"])
    context = context_of(digits_run, shift=(spec,))
    with pytest.warns(UserWarning, match="^'some' has 3 of the run's 10 classes; the logits are restricted to them$"):
        result = measured(context, "shift", 3)
    logits = logits_by_hand(context, images, context.run.references[:3])[..., [7, 2, 5]]
    probs = scipy.special.softmax(logits, axis=-1).mean(axis=0)
    expected = metrics.summary(np.float32(probs), labels)
    for name in ("accuracy", "nll", "brier", "ece", "smooth_ece"):
        assert result.metrics[f"some/{name}"] == pytest.approx(float(expected[name]), rel=1e-3, abs=1e-5)
        assert result.metrics[name] == result.metrics[f"some/{name}"]
    np.testing.assert_array_equal(result.arrays["some/label"], labels)
    assert result.facts["members"] == ["some"]


def test_shift_rejects_sets_of_other_classes(digits_run, tmp_path):
    spec = write_npz(tmp_path / "pets.npz", np.zeros((2, 8, 8, 1), np.uint8), [0, 1], ["cat", "dog"])
    with pytest.raises(UserError, match=r"2 of the 2 classes .* are not among the run's 10: cat, dog"):
        evaluation.evaluate(digits_run, ("shift",), (2,), options=Options(shift=(spec,)))


def test_predictor_is_the_same_on_one_device_and_eight(digits_run, digits_context):
    images = data.load("digits", "test").images
    from anchor_jax.runs.load import create_predictor

    one = create_predictor(digits_context.run, jax.device_get(digits_context.predictor.variables), mesh_lib.mesh(1))
    for a, b in zip(one(images, 3), aj.load_predictor(digits_run)(images, 3), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_predict_dataset_memory_does_not_grow_with_images():
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
