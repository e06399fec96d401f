"""The HTTP example: it answers as the exported run does, gathers concurrent requests, and refuses what is no image."""

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
def asked():
    """The sizes of all batches that the classifier has seen since the server is ready."""
    return []


@contextlib.contextmanager
def serving(classifier, asked, wait_seconds=0.0, sizes=(1, 8)) -> Iterator[TestClient]:
    """A client of a server; both end with the block. The program fails on images that are all white."""

    def program(images):
        asked.append(len(images))
        if images[0].min() == 255:
            raise RuntimeError("out of memory")
        return classifier.program(images)

    watched = dataclasses.replace(classifier, program=program)
    application = serve.application(watched, sizes, wait_seconds)
    with TestClient(application, raise_server_exceptions=False) as client:
        assert asked == list(sizes)  # compiled before the first request
        asked.clear()
        yield client


def post(client, content, kind=RAW):
    return client.post("/classify", content=content, headers={"content-type": kind})


def encoded(image, format):
    file = io.BytesIO()
    Image.fromarray(image).save(file, format)
    return file.getvalue()


def assert_answers(response, expected):
    """The answer to a request is this one of a classifier."""
    assert response.status_code == 200, response.text
    answers = response.json()["answers"]
    assert len(answers) == len(expected.probs)
    assert answers[0].keys() == {"label", *expected._fields}
    for name, array in expected._asdict().items():
        np.testing.assert_allclose([answer[name] for answer in answers], array, rtol=1e-5, atol=1e-6, err_msg=name)
    assert [answer["label"] for answer in answers] == [str(best) for best in expected.probs.argmax(axis=1)]


# answers


def test_it_tells_what_it_serves(classifier, asked):
    with serving(classifier, asked) as client:
        told = client.get("/").json()
    assert told["image_shape"] == [6, 6, 1]
    assert told["label_names"] == ["0", "1", "2"]
    assert told["num_references"] == 10


def test_answers_are_those_of_the_exported_run(classifier, asked):
    with serving(classifier, asked) as client:
        assert_answers(post(client, IMAGES[:3].tobytes()), classifier(IMAGES[:3]))
        assert_answers(post(client, encoded(IMAGES[0, ..., 0], "PNG"), "image/png"), classifier(IMAGES[:1]))
        jpeg = encoded(IMAGES[0, ..., 0], "JPEG")
        seen = np.asarray(Image.open(io.BytesIO(jpeg)))[None, ..., None]
        assert_answers(post(client, jpeg, "Image/JPEG; charset=binary"), classifier(seen))


def test_concurrent_requests_are_one_batch(classifier, asked):
    with serving(classifier, asked, wait_seconds=60) as client, ThreadPoolExecutor(8) as pool:  # 8 images do not wait
        responses = list(pool.map(lambda image: post(client, image.tobytes()), IMAGES))
    assert asked == [8]
    for image, response in zip(IMAGES, responses, strict=True):
        assert_answers(response, classifier(image[None]))


def test_batches_have_few_sizes(classifier, asked):
    with serving(classifier, asked, wait_seconds=0.05, sizes=(1, 2, 8)) as client:
        for num in range(1, 8):
            assert_answers(post(client, IMAGES[:num].tobytes()), classifier(IMAGES[:num]))
    assert set(asked) <= {1, 2, 8}
    assert 8 in asked


# mistakes


WRONG = {
    "no content type": ("", IMAGES[0].tobytes(), 415, f"content-type must be {RAW} or image/jpeg or image/png; got ''"),
    "another content type": ("image/gif", IMAGES[0].tobytes(), 415, "got 'image/gif'"),
    "nothing": (RAW, b"", 422, "the body must be pixels of images [6, 6, 1]; got 0 bytes"),
    "half an image": (RAW, IMAGES[0].tobytes()[:18], 422, "got 18 bytes"),
    "too many images": (RAW, bytes(9 * 36), 413, "a request may have at most 8 images; got 9"),
    "too many bytes": (RAW, bytes(8 * 36 + 2**16 + 1), 413, "the body must have at most 65824 bytes; got more"),
    "no image": ("image/png", b"rubbish", 400, "the body is no whole PNG image (UnidentifiedImageError)"),
    "another format": ("image/png", encoded(IMAGES[0, ..., 0], "JPEG"), 400, "the body is no whole PNG image"),
    "truncated": ("image/png", encoded(IMAGES[0, ..., 0], "PNG")[:60], 400, "the body is no whole PNG image"),
    "another size": ("image/png", encoded(IMAGES[0, 1:, :, 0], "PNG"), 422, "the image must be 6x6 L; got 5x6 L"),
    "colours": ("image/png", encoded(np.tile(IMAGES[0], 3), "PNG"), 422, "the image must be 6x6 L; got 6x6 RGB"),
}


def test_bad_input_is_refused_in_one_line_and_hurts_nobody(classifier, asked):
    with serving(classifier, asked, wait_seconds=60) as client, ThreadPoolExecutor(8) as pool:
        good = [pool.submit(post, client, image.tobytes()) for image in IMAGES[:7]]
        for kind, content, status, message in WRONG.values():
            response = post(client, content, kind)
            assert response.status_code == status, response.text
            assert message in response.text
            assert "\n" not in response.text
        good.append(pool.submit(post, client, IMAGES[7].tobytes()))  # now there are 8, in one batch
        for image, response in zip(IMAGES, good, strict=True):
            assert_answers(response.result(), classifier(image[None]))
    assert asked == [8]


def test_a_batch_that_fails_hurts_no_other(classifier, asked):
    with serving(classifier, asked) as client:
        response = post(client, b"\xff" * 3 * 36)
        assert (response.status_code, response.text) == (500, "Internal Server Error")
        assert_answers(post(client, IMAGES[:3].tobytes()), classifier(IMAGES[:3]))


def test_too_many_that_wait_are_refused(classifier, asked, monkeypatch):
    monkeypatch.setattr(serve, "MAX_WAITING", 0)
    with serving(classifier, asked) as client:
        response = post(client, IMAGES[:3].tobytes())
        assert (response.status_code, response.text) == (429, "0 images are waiting, 0 may; try again later")
        monkeypatch.undo()
        assert_answers(post(client, IMAGES[:2].tobytes()), classifier(IMAGES[:2]))


# the command


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def test_the_command_serves(exported, classifier):
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


def test_a_file_that_is_not_there_is_told():
    assert_told(quick_command("examples/serve.py", "nothing.zip"), 1, "no file 'nothing.zip'")
