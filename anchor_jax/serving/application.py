"""The ASGI application that serves an exported run."""

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from anchor_jax.core import uncertainty
from anchor_jax.core.inference import Classification
from anchor_jax.export.format import ExportedClassifier
from anchor_jax.serving.batching import Batcher, QueueFullError
from anchor_jax.serving.decoding import Decoder
from anchor_jax.serving.monitoring import CONTENT_TYPE, Metrics
from anchor_jax.serving.requests import REQUEST_BODY, pictures_of

BATCH_SIZES = (1, 8, 32)
MAX_BYTES = 32 * 2**20  # of a request
MAX_PIXELS = 100_000_000  # of the decoded pictures of a request
WAIT_SECONDS = 0.003
_LOGGER = logging.getLogger("anchor_jax")

Output = Literal["logits", "probs", "probs_std"]


class ClassProbability(BaseModel):
    """A class and its probability."""

    label: str
    probability: float


class Prediction(BaseModel):
    """The prediction for one picture."""

    label: str
    probability: float
    top: list[ClassProbability]
    scores: dict[str, float]
    outputs: dict[str, list[float]]


class Predictions(BaseModel):
    """The predictions for the pictures of a request, in their order."""

    predictions: list[Prediction]


def application(
    classifier: ExportedClassifier,
    sizes: Sequence[int] = BATCH_SIZES,
    wait_seconds: float = WAIT_SECONDS,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
) -> FastAPI:
    """Return the application that serves a classifier.

    Args:
      classifier: a classifier, as returned by `aj.load_exported`.
      sizes: batch sizes to compile; the largest is also the maximum number of pictures per request.
      wait_seconds: how long the first request of a batch waits for others.
      max_bytes: maximum size of a request's body.
      max_pixels: maximum number of pixels of a request's pictures, and of all pictures that are decoded at once.
    """
    batcher = Batcher(classifier, sizes, wait_seconds, on_batch=lambda num: server.metrics.add_batch(num))
    server = _Server(batcher, Decoder(classifier.preprocess, max_pixels), max_bytes)
    app = FastAPI(
        title="anchor_jax",
        description=f"Predictions of {classifier.metadata.model}, with the uncertainty over its references.",
        lifespan=server.lifespan,
    )
    app.middleware("http")(server.observe)
    app.get("/", summary="Describe the classifier")(server.describe)
    app.get("/healthz", summary="Tell whether the process works")(server.healthz)
    app.get("/readyz", summary="Tell whether requests are answered now")(server.readyz)
    app.get("/metrics", summary="Metrics for Prometheus", response_class=Response)(server.metrics_text)
    app.post("/predict", summary="Classify pictures", openapi_extra={"requestBody": REQUEST_BODY})(server.predict)
    return app


class _Server:
    """The endpoints, and what they share."""

    def __init__(self, batcher: Batcher, decoder: Decoder, max_bytes: int):
        self.classifier, self.batcher, self.decoder, self.max_bytes = batcher.classifier, batcher, decoder, max_bytes
        self.metrics = Metrics(lambda: self.batcher.num_waiting, tuple(self.batcher.sizes))
        self.state = "compiling"  # then "ready", or "failed"

    @contextlib.asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(self._compile_and_run())
        yield
        task.cancel()

    async def _compile_and_run(self) -> None:
        """Compile in the background, so that probes of the process are answered meanwhile."""
        try:
            await asyncio.to_thread(self.batcher.compile)
        except Exception as error:
            self.state = "failed"
            _LOGGER.error("the program cannot be compiled (%s: %s)", type(error).__name__, error)
            return
        self.state = "ready"
        await self.batcher.run()

    async def observe(self, request: Request, respond: Callable[[Request], Awaitable[Response]]) -> Response:
        """Count and time predictions."""
        if request.url.path != "/predict":
            return await respond(request)
        start, status = time.perf_counter(), 500
        try:
            response = await respond(request)
            status = response.status_code
        finally:
            self.metrics.add_request(status, time.perf_counter() - start)
        return response

    async def describe(self) -> dict[str, Any]:
        return dataclasses.asdict(self.classifier.metadata)

    async def healthz(self) -> JSONResponse:
        return JSONResponse({"status": self.state}, 500 if self.state == "failed" else 200)

    async def readyz(self) -> JSONResponse:
        is_full = self.batcher.num_waiting >= self.batcher.max_waiting
        status = "full" if self.state == "ready" and is_full else self.state
        return JSONResponse({"status": status}, 200 if status == "ready" else 503)

    async def metrics_text(self) -> Response:
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    async def predict(
        self,
        request: Request,
        top_k: Annotated[int, Query(ge=1, description="How many classes to list, the most probable first.")] = 5,
        outputs: Annotated[
            list[Output] | None, Query(description="Arrays over all classes to return as well; repeatable.")
        ] = None,
    ) -> Predictions:
        if self.state != "ready":
            raise HTTPException(503, f"the server is not ready: {self.state}", {"Retry-After": "1"})
        if missing := set(outputs or []) - set(self.classifier.metadata.outputs):
            raise HTTPException(422, f"the classifier has a single reference, hence no {', '.join(missing)}")
        pictures = await pictures_of(request, self.classifier.image_shape, self.batcher.sizes[-1], self.max_bytes)
        images = await self.decoder.images_of(pictures)
        try:
            classification = await self.batcher.classify(images)
        except QueueFullError as error:
            raise HTTPException(429, str(error), {"Retry-After": "1"}) from error
        names = self.classifier.label_names
        return Predictions(predictions=_predictions(classification, names, top_k, outputs or []))


def _predictions(
    classification: Classification, label_names: Sequence[str], top_k: int, outputs: Sequence[Output]
) -> list[Prediction]:
    """Return the prediction of each row."""
    probs = np.asarray(classification.probs)
    scores = {
        "confidence": probs.max(axis=1),
        "entropy": classification.entropy,
        "mutual_information": classification.mutual_information,
        "energy": uncertainty.energy(classification.logits),
    }
    scores = {name: np.asarray(values) for name, values in scores.items()}
    arrays = {name: getattr(classification, name) for name in outputs}
    order = np.argsort(-probs, axis=1, kind="stable")[:, :top_k]
    predictions = []
    for row, classes in enumerate(order):
        top = [ClassProbability(label=label_names[int(each)], probability=float(probs[row, each])) for each in classes]
        predictions.append(
            Prediction(
                label=top[0].label,
                probability=top[0].probability,
                top=top,
                scores={name: float(values[row]) for name, values in scores.items()},
                outputs={name: array[row].tolist() for name, array in arrays.items()},
            )
        )
    return predictions
