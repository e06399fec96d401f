"""The HTTP example: answers equal to those of the exported run, batching, and errors for invalid requests."""

import contextlib
import dataclasses
import io
import re
import socket
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from commands import assert_told, quick_command, running
from PIL import Image
from starlette.testclient import TestClient

import anchor_jax as aj
from examples import serve

RAW = "application/octet-stream"
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 1), np.uint8)


@pytest.fixture(scope="module")
def classifier(exported):
    return aj.load_exported(exported.file)


@pytest.fixture
def batch_sizes():
    """Sizes of the batches that the classifier has processed since the server started."""
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
    application = serve.application(failing, sizes, wait_seconds)
    with TestClient(application, raise_server_exceptions=False) as client:
        assert batch_sizes == list(sizes)  # compiled before the first request
        batch_sizes.clear()
        yield client


def post(client, content, kind=RAW):
    return client.post("/classify", content=content, headers={"content-type": kind})


def encode(image, format):
    file = io.BytesIO()
    Image.fromarray(image).save(file, format)
    return file.getvalue()


def assert_answers(response, expected):
    """Assert that a response has the outputs of the classifier."""
    assert response.status_code == 200, response.text
    answers = response.json()["answers"]
    assert len(answers) == len(expected.probs)
    assert answers[0].keys() == {"label", *expected._fields}
    for name, array in expected._asdict().items():
        np.testing.assert_allclose([answer[name] for answer in answers], array, rtol=1e-5, atol=1e-6, err_msg=name)
    assert [answer["label"] for answer in answers] == [str(best) for best in expected.probs.argmax(axis=1)]


# answers


def test_get_returns_the_metadata(classifier, batch_sizes):
    with serving(classifier, batch_sizes) as client:
        metadata = client.get("/").json()
    assert metadata["image_shape"] == [6, 6, 1]
    assert metadata["label_names"] == ["0", "1", "2"]
    assert metadata["num_references"] == 10


def test_classify_equals_the_exported_classifier(classifier, batch_sizes):
    with serving(classifier, batch_sizes) as client:
        assert_answers(post(client, IMAGES[:3].tobytes()), classifier(IMAGES[:3]))
        assert_answers(post(client, encode(IMAGES[0, ..., 0], "PNG"), "image/png"), classifier(IMAGES[:1]))
        jpeg = encode(IMAGES[0, ..., 0], "JPEG")
        decoded = np.asarray(Image.open(io.BytesIO(jpeg)))[None, ..., None]
        assert_answers(post(client, jpeg, "Image/JPEG; charset=binary"), classifier(decoded))


def test_concurrent_requests_share_a_batch(classifier, batch_sizes):
    # a full batch does not wait
    with serving(classifier, batch_sizes, wait_seconds=60) as client, ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda image: post(client, image.tobytes()), IMAGES))
    assert batch_sizes == [8]
    for image, response in zip(IMAGES, responses, strict=True):
        assert_answers(response, classifier(image[None]))


def test_batches_are_padded_to_the_compiled_sizes(classifier, batch_sizes):
    with serving(classifier, batch_sizes, wait_seconds=0.05, sizes=(1, 2, 8)) as client:
        for num in range(1, 8):
            assert_answers(post(client, IMAGES[:num].tobytes()), classifier(IMAGES[:num]))
    assert set(batch_sizes) <= {1, 2, 8}
    assert 8 in batch_sizes


# errors


INVALID = {
    "no content type": ("", IMAGES[0].tobytes(), 415, f"content-type must be {RAW} or image/jpeg or image/png; got ''"),
    "another content type": ("image/gif", IMAGES[0].tobytes(), 415, "got 'image/gif'"),
    "empty": (RAW, b"", 422, "the body must be the pixels of images [6, 6, 1]; got 0 bytes"),
    "half an image": (RAW, IMAGES[0].tobytes()[:18], 422, "got 18 bytes"),
    "too many images": (RAW, bytes(9 * 36), 413, "a request may have at most 8 images; got 9"),
    "too many bytes": (RAW, bytes(8 * 36 + 2**16 + 1), 413, "the body must have at most 65824 bytes; got more"),
    "not an image": ("image/png", b"rubbish", 400, "the body must be a PNG image (UnidentifiedImageError)"),
    "another format": ("image/png", encode(IMAGES[0, ..., 0], "JPEG"), 400, "the body must be a PNG image"),
    "truncated": ("image/png", encode(IMAGES[0, ..., 0], "PNG")[:60], 400, "the body must be a PNG image"),
    "another size": ("image/png", encode(IMAGES[0, 1:, :, 0], "PNG"), 422, "the image must be 6x6 L; got 5x6 L"),
    "RGB": ("image/png", encode(np.tile(IMAGES[0], 3), "PNG"), 422, "the image must be 6x6 L; got 6x6 RGB"),
}


def test_invalid_requests_do_not_affect_others(classifier, batch_sizes):
    with serving(classifier, batch_sizes, wait_seconds=60) as client, ThreadPoolExecutor(8) as pool:
        good = [pool.submit(post, client, image.tobytes()) for image in IMAGES[:7]]
        for kind, content, status, message in INVALID.values():
            response = post(client, content, kind)
            assert response.status_code == status, response.text
            assert message in response.text
            assert "\n" not in response.text
        good.append(pool.submit(post, client, IMAGES[7].tobytes()))  # completes the batch of 8
        for image, response in zip(IMAGES, good, strict=True):
            assert_answers(response.result(), classifier(image[None]))
    assert batch_sizes == [8]


def test_failing_batch_does_not_affect_others(classifier, batch_sizes):
    with serving(classifier, batch_sizes) as client:
        response = post(client, b"\xff" * 3 * 36)
        assert (response.status_code, response.text) == (500, "Internal Server Error")
        assert_answers(post(client, IMAGES[:3].tobytes()), classifier(IMAGES[:3]))


def test_requests_are_refused_when_the_queue_is_full(classifier, batch_sizes, monkeypatch):
    monkeypatch.setattr(serve, "MAX_WAITING_BATCHES", 0)
    with serving(classifier, batch_sizes) as client:
        response = post(client, IMAGES[:3].tobytes())
        assert (response.status_code, response.text) == (429, "0 of at most 0 images are waiting; retry later")
        monkeypatch.undo()
        assert_answers(post(client, IMAGES[:2].tobytes()), classifier(IMAGES[:2]))


# the command


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_command_serves(exported, classifier):
    port = free_port()
    with running("examples/serve.py", exported.file, f"--port={port}") as process:
        deadline = time.monotonic() + 60
        while "Uvicorn running on" not in process.err.read_text():
            assert time.monotonic() < deadline, process.err.read_text()
            time.sleep(0.05)
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/classify", IMAGES[:2].tobytes(), {"content-type": RAW}
        )
        with urllib.request.urlopen(request) as response:
            assert re.search(rb'"label":"[012]"', response.read())


def test_command_rejects_missing_files():
    assert_told(quick_command("examples/serve.py", "nothing.zip"), 1, "no file 'nothing.zip'")
