"""The server: answers equal to those of the exported run, batching, probes, metrics, errors for invalid requests."""

import asyncio
import base64
import contextlib
import dataclasses
import io
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

import anchor_jax as aj
from anchor_jax.serving import batching
from anchor_jax.serving.application import application
from anchor_jax.serving.decoding import Decoder

RAW = "application/octet-stream"
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 1), np.uint8)
MAX_BYTES, MAX_PIXELS = 2**16, 10_000


def encode(pixels, format, mode=None):
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, format)
    return file.getvalue()


COLORS = np.random.default_rng(1).integers(0, 256, (30, 50, 4), np.uint8)
PICTURES = {
    "image/jpeg": encode(COLORS[..., :3], "jpeg"),
    "image/png": encode(COLORS, "png"),
    "image/tiff": encode(COLORS[..., 0], "tiff"),
    "image/gif": encode(COLORS[..., :3], "gif", "P"),
}


@pytest.fixture(scope="module")
def classifier(exported):
    return aj.load_exported(exported.file)


@pytest.fixture
def batch_sizes():
    """Sizes of the batches that the classifier has processed since the server was ready."""
    return []


@contextlib.contextmanager
def serving(classifier, batch_sizes, wait_seconds=0.0, sizes=(1, 8)) -> Iterator[TestClient]:
    """Start a server and yield a client of it. The program fails for images that are entirely white."""

    def program(images):
        batch_sizes.append(len(images))
        if images[0].min() == 255:
            raise RuntimeError("out of memory")
        return classifier.program(images)

    failing = dataclasses.replace(classifier, program=program)
    app = application(failing, sizes, wait_seconds, MAX_BYTES, MAX_PIXELS)
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        assert batch_sizes == list(sizes)  # compiled before the first prediction
        batch_sizes.clear()
        yield client


def wait_until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def post(client, content, kind=RAW, query="?outputs=probs&outputs=probs_std&outputs=logits"):
    return client.post(f"/predict{query}", content=content, headers={"content-type": kind})


def assert_answers(response, expected):
    """Assert that a response has the predictions of the classifier."""
    assert response.status_code == 200, response.text
    answers = response.json()["predictions"]
    assert len(answers) == len(expected.probs)
    scores = expected._asdict() | {
        "confidence": expected.probs.max(axis=1),
        "energy": aj.uncertainty.energy(expected.logits),
    }
    for kind, names in {
        "outputs": ("probs", "probs_std", "logits"),
        "scores": ("entropy", "mutual_information", "confidence", "energy"),
    }.items():
        assert answers[0][kind].keys() == set(names)
        for name in names:
            found = [answer[kind][name] for answer in answers]
            np.testing.assert_allclose(found, scores[name], rtol=1e-5, atol=1e-6, err_msg=name)
    for answer, probs in zip(answers, expected.probs, strict=True):
        order = np.argsort(-probs)
        assert [each["label"] for each in answer["top"]] == [str(each) for each in order]
        assert answer["label"] == str(order[0])
        np.testing.assert_allclose(answer["probability"], probs.max(), rtol=1e-5)


# answers


def test_get_returns_the_metadata(classifier, batch_sizes):
    with serving(classifier, batch_sizes) as client:
        metadata = client.get("/").json()
    assert metadata["image_shape"] == [6, 6, 1]
    assert metadata["label_names"] == ["0", "1", "2"]
    assert metadata["num_references"] == 10
    assert metadata["preprocessing"]["interpolation"] == classifier.preprocess.interpolation


def test_every_form_of_a_request_has_the_same_answer(classifier, batch_sizes):
    several = list(PICTURES.values())
    expected = classifier(several)
    texts = [base64.b64encode(picture).decode() for picture in several]
    texts[1] = f"data:image/png;base64,{texts[1]}"
    files = [(f"field{row}", ("name", picture)) for row, picture in enumerate(several)]
    with serving(classifier, batch_sizes) as client:
        for kind, picture in PICTURES.items():
            assert_answers(post(client, picture, kind), classifier(picture))
        assert_answers(post(client, json.dumps({"pictures": texts}), "application/json; charset=utf-8"), expected)
        form = client.post("/predict?outputs=probs&outputs=probs_std&outputs=logits", files=files)
        assert_answers(form, expected)
        assert_answers(post(client, classifier.preprocess(several).tobytes()), expected)


def test_server_predictor_and_export_agree(exported, classifier, batch_sizes):
    predictor = aj.load_predictor(exported.workdir)
    with serving(classifier, batch_sizes) as client:
        for kind, picture in PICTURES.items():
            assert_answers(post(client, picture, kind), predictor(picture, num_references=10))


def test_top_k_limits_the_classes_and_outputs_are_optional(classifier, batch_sizes):
    with serving(classifier, batch_sizes) as client:
        (answer,) = post(client, IMAGES[0].tobytes(), query="?top_k=2").json()["predictions"]
        assert len(answer["top"]) == 2
        assert answer["outputs"] == {}
        for query in ("?top_k=0", "?top_k=many", "?outputs=features"):
            assert post(client, IMAGES[0].tobytes(), query=query).status_code == 422


def test_single_reference_has_no_spread(classifier, batch_sizes):
    outputs = tuple(name for name in classifier.metadata.outputs if name != "probs_std")
    single = dataclasses.replace(classifier, metadata=dataclasses.replace(classifier.metadata, outputs=outputs))
    with serving(single, batch_sizes) as client:
        response = post(client, IMAGES[0].tobytes(), query="?outputs=probs_std")
    assert response.status_code == 422
    assert response.json()["detail"] == "the classifier has a single reference, hence no probs_std"


def test_concurrent_requests_share_a_batch(classifier, batch_sizes):
    # a full batch does not wait
    with serving(classifier, batch_sizes, wait_seconds=60) as client, ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda image: post(client, image.tobytes()), IMAGES))
        requests = client.get("/metrics").text
    assert batch_sizes == [8]
    for image, response in zip(IMAGES, responses, strict=True):
        assert_answers(response, classifier(image[None]))
    found = {
        (sample.name, sample.labels.get("status", sample.labels.get("le"))): sample.value
        for family in text_string_to_metric_families(requests)
        for sample in family.samples
    }
    assert found["anchor_jax_requests_total", "200"] == 8
    assert found["anchor_jax_request_seconds_count", None] == 8
    assert found["anchor_jax_batch_images_sum", None] == 8
    assert found["anchor_jax_waiting_images", None] == 0


def test_batches_are_padded_to_the_compiled_sizes(classifier, batch_sizes):
    with serving(classifier, batch_sizes, wait_seconds=0.05, sizes=(1, 2, 8)) as client:
        for num in range(1, 8):
            assert_answers(post(client, IMAGES[:num].tobytes()), classifier(IMAGES[:num]))
    assert set(batch_sizes) <= {1, 2, 8}
    assert 8 in batch_sizes


def test_request_that_does_not_fit_starts_the_next_batch(classifier, batch_sizes):
    with serving(classifier, batch_sizes, wait_seconds=0.5) as client, ThreadPoolExecutor(2) as pool:
        responses = list(pool.map(lambda images: post(client, images.tobytes()), (IMAGES[:5], IMAGES[:6])))
    assert batch_sizes == [8, 8]
    assert_answers(responses[0], classifier(IMAGES[:5]))
    assert_answers(responses[1], classifier(IMAGES[:6]))


# probes


def test_process_is_healthy_while_it_compiles(classifier):
    compiled = threading.Event()

    def program(images):
        compiled.wait()
        return classifier.program(images)

    slow = dataclasses.replace(classifier, program=program)
    with TestClient(application(slow, (1,))) as client:
        assert client.get("/healthz").status_code == 200
        assert (client.get("/readyz").status_code, client.get("/readyz").json()) == (503, {"status": "compiling"})
        refused = post(client, IMAGES[0].tobytes())
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        compiled.set()
        wait_until(lambda: client.get("/readyz").status_code == 200)
        assert post(client, IMAGES[0].tobytes()).status_code == 200


def test_process_that_cannot_compile_is_unhealthy(classifier):
    def program(images):
        raise RuntimeError("out of memory")

    with TestClient(application(dataclasses.replace(classifier, program=program), (1,))) as client:
        wait_until(lambda: client.get("/healthz").status_code == 500)
        assert (client.get("/readyz").status_code, client.get("/readyz").json()) == (503, {"status": "failed"})


def test_openapi_describes_every_form_of_a_request(classifier, batch_sizes):
    with serving(classifier, batch_sizes) as client:
        described = client.get("/openapi.json").json()
        assert client.get("/docs").status_code == 200
    assert set(described["paths"]) == {"/", "/healthz", "/readyz", "/metrics", "/predict"}
    body = described["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert set(body) == {"image/*", "multipart/form-data", "application/json", RAW}


# errors


def as_json(content):
    return "application/json", json.dumps(content).encode()


def as_form(*pictures):
    part = b'--x\r\ncontent-disposition: form-data; name="f"; filename="f"\r\n\r\n'
    return "multipart/form-data; boundary=x", b"".join(part + each + b"\r\n" for each in pictures) + b"--x--\r\n"


LARGE = encode(np.zeros((60, 100), np.uint8), "png")  # its pixels are few bytes
PIXELS = "the pictures of a request may have at most 10,000 pixels together; got 12,000"
TINY_PNG = base64.b64encode(PICTURES["image/png"][:60]).decode()
INVALID = {
    "no content type": ("", IMAGES[0].tobytes(), 415, "content-type must be image/*, multipart/form-data"),
    "another content type": ("text/html", IMAGES[0].tobytes(), 415, "got 'text/html'"),
    "empty": (RAW, b"", 422, "the body must be the pixels of uint8 images [6, 6, 1]; got 0 bytes"),
    "half an image": (RAW, IMAGES[0].tobytes()[:18], 422, "got 18 bytes"),
    "too many images": (RAW, bytes(9 * 36), 413, "a request may have at most 8 pictures; got 9"),
    "too many bytes": (RAW, bytes(MAX_BYTES + 1), 413, "the body must have at most 65536 bytes; got more"),
    "too many pixels": ("image/png", encode(np.zeros((120, 100), np.uint8), "png"), 413, PIXELS),
    "too many pixels in a form": (*as_form(LARGE, LARGE), 413, PIXELS),
    "too many pixels in JSON": (*as_json({"pictures": [base64.b64encode(LARGE).decode()] * 2}), 413, PIXELS),
    "not an image": ("image/png", b"rubbish", 422, "cannot read image picture (UnidentifiedImageError"),
    "truncated": ("image/png", PICTURES["image/png"][:60], 422, "cannot read image picture"),
    "not JSON": ("application/json", b"{", 422, "the body must be JSON"),
    "nested JSON": ("application/json", b"[" * 50_000, 422, "the body must be JSON"),
    "no list": (*as_json({"pictures": "abcd"}), 422, 'the body must be {"pictures": [...]}'),
    "no pictures": (*as_json({"pictures": []}), 422, 'the body must be {"pictures": [...]}'),
    "a path": (*as_json({"pictures": ["/etc/passwd.png"]}), 422, "pictures[0] must be an image file in base64"),
    "a number": (*as_json({"pictures": [TINY_PNG, 3]}), 422, "pictures[1] must be an image file in base64"),
    "truncated in JSON": (*as_json({"pictures": [TINY_PNG] * 2}), 422, "cannot read image pictures[0]"),
    "not a form": ("multipart/form-data; boundary=x", b"--y", 400, "invalid multipart data"),
    "an empty form": ("multipart/form-data; boundary=x", b"--x--\r\n", 422, "the form must contain at least one file"),
    "no boundary": ("multipart/form-data", b"--y", 400, "boundary"),
    "a text field": (
        "multipart/form-data; boundary=x",
        b'--x\r\ncontent-disposition: form-data; name="url"\r\n\r\nabc\r\n--x--\r\n',
        422,
        "field 'url' must be a file",
    ),
}


def test_invalid_requests_do_not_affect_others(classifier, batch_sizes):
    with serving(classifier, batch_sizes, wait_seconds=60) as client, ThreadPoolExecutor(8) as pool:
        good = [pool.submit(post, client, image.tobytes()) for image in IMAGES[:7]]
        for name, (kind, content, status, message) in INVALID.items():
            response = post(client, content, kind)
            assert (response.status_code, name) == (status, name), response.text
            assert message.lower() in response.json()["detail"].lower(), name
            assert "\n" not in response.json()["detail"]
        good.append(pool.submit(post, client, IMAGES[7].tobytes()))  # completes the batch of 8
        for image, response in zip(IMAGES, good, strict=True):
            assert_answers(response.result(), classifier(image[None]))
    assert batch_sizes == [8]


def test_decoder_bounds_the_pixels_of_all_requests():
    decoded, lock, at_once, most = 0, threading.Lock(), 0, 0

    class Counting:
        def batch(self, name, pictures):
            nonlocal decoded, at_once, most
            with lock:
                at_once += 1
                most = max(most, at_once)
            time.sleep(0.02)
            with lock:
                decoded, at_once = decoded + 1, at_once - 1
            if decoded == 3:
                raise aj.UserError("corrupt")

    async def decode_all():
        decoder = Decoder(Counting(), 2 * COLORS[..., 0].size)
        requests = (decoder.images_of([PICTURES["image/png"]]) for _ in range(7))
        return await asyncio.gather(*requests, return_exceptions=True)

    errors = [error for error in asyncio.run(decode_all()) if error]
    assert (decoded, most, [error.status_code for error in errors]) == (7, 2, [422])


def test_cancelled_request_counts_until_its_thread_ends():
    started, may_end = threading.Event(), threading.Event()

    class Slow:
        def batch(self, name, pictures):
            started.set()
            may_end.wait()

    async def cancel_one():
        decoder = Decoder(Slow(), COLORS[..., 0].size)
        cancelled = asyncio.create_task(decoder.images_of([PICTURES["image/png"]]))
        await asyncio.to_thread(started.wait)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        num_free = decoder._num_free
        may_end.set()
        await decoder.images_of([PICTURES["image/png"]])  # once the pixels are free
        return num_free

    assert asyncio.run(cancel_one()) == 0


def test_failing_batch_does_not_affect_others(classifier, batch_sizes):
    with serving(classifier, batch_sizes) as client:
        response = post(client, b"\xff" * 3 * 36)
        assert (response.status_code, response.text) == (500, "Internal Server Error")
        assert_answers(post(client, IMAGES[:3].tobytes()), classifier(IMAGES[:3]))
        assert 'anchor_jax_requests_total{status="500"} 1.0' in client.get("/metrics").text


def test_requests_are_refused_when_the_queue_is_full(classifier, batch_sizes, monkeypatch):
    with serving(classifier, batch_sizes) as client:
        monkeypatch.setattr(batching, "MAX_WAITING_BATCHES", 0)
        response = post(client, IMAGES[:3].tobytes())
        assert response.status_code == 429
        assert response.json()["detail"] == "0 of at most 0 images are waiting; retry later"
        assert (client.get("/readyz").status_code, client.get("/readyz").json()) == (503, {"status": "full"})
        monkeypatch.undo()
        assert_answers(post(client, IMAGES[:2].tobytes()), classifier(IMAGES[:2]))
