"""Serve an exported run over HTTP: python examples/serve.py c10.zip --port=8000.

    curl localhost:8000    # metadata of the classifier
    curl localhost:8000/classify -H 'content-type: image/png' --data-binary @image.png
    curl localhost:8000/classify -H 'content-type: application/octet-stream' --data-binary @images.raw

Images must have the size that the run was trained on. Raw images are the bytes of uint8 `[b, H, W, C]`. Images that
arrive within a few milliseconds are classified together: the batch is padded to one of a few sizes, and the program is
compiled for each of these before the first request.
"""

import asyncio
import contextlib
import dataclasses
import io
import math
from collections.abc import AsyncIterator, Sequence

import numpy as np
import uvicorn
from absl import flags
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import anchor_jax as aj
from anchor_jax.cli import app

HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen on; 0.0.0.0 listens on all networks.")
PORT = flags.DEFINE_integer("port", 8000, "Port to listen on.", lower_bound=0, upper_bound=65535)

FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG"}
RAW = "application/octet-stream"
MODES = {1: "L", 3: "RGB"}  # number of channels -> Pillow mode
BATCH_SIZES = (1, 8, 32)
MAX_WAITING_BATCHES = 8  # of the largest size
MAX_HEADER_BYTES = 2**16  # bytes of an encoded image in addition to its pixels


class Batcher:
    """Classifies the images of concurrent requests in batches.

    Args:
      classifier: a classifier, as returned by `aj.load_exported`.
      sizes: allowed batch sizes.
      wait_seconds: how long the first image of a batch waits for others.
    """

    def __init__(self, classifier: aj.ExportedClassifier, sizes: Sequence[int], wait_seconds: float):
        self.classifier, self.sizes, self.wait_seconds = classifier, sorted(sizes), wait_seconds
        self.queue: asyncio.Queue[tuple[np.ndarray, asyncio.Future[dict]]] = asyncio.Queue()

    async def classify(self, images: np.ndarray) -> list[dict]:
        """Return one answer per image, uint8 `[b, H, W, C]`; refuse the images if the queue is full."""
        max_waiting = MAX_WAITING_BATCHES * self.sizes[-1]
        if self.queue.qsize() + len(images) > max_waiting:
            raise HTTPException(429, f"{self.queue.qsize()} of at most {max_waiting} images are waiting; retry later")
        futures = [asyncio.get_running_loop().create_future() for _ in images]
        for item in zip(images, futures, strict=True):
            self.queue.put_nowait(item)
        return await asyncio.gather(*futures)

    async def run(self) -> None:
        """Classify batches forever; an exception fails only the requests of its own batch."""
        while True:
            images, futures = zip(*await self._next_batch(), strict=True)
            try:
                answers = await asyncio.to_thread(self._classify_batch, np.stack(images))
            except Exception as error:
                answers = [error] * len(images)
            for future, answer in zip(futures, answers, strict=True):
                if future.cancelled():  # the client has disconnected
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    def compile(self) -> None:
        """Compile the program for every batch size."""
        for size in self.sizes:
            self.classifier(np.zeros((size, *self.classifier.image_shape), np.uint8))

    async def _next_batch(self) -> list[tuple[np.ndarray, asyncio.Future[dict]]]:
        """Return the images that arrive within `wait_seconds` of the first, at most the largest batch size."""
        batch = [await self.queue.get()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.wait_seconds):
                while len(batch) < self.sizes[-1]:
                    batch.append(await self.queue.get())
        return batch

    def _classify_batch(self, images: np.ndarray) -> list[dict]:
        """Return one answer per image; the batch is padded with zeros, which does not affect the answers."""
        size = next(size for size in self.sizes if size >= len(images))
        padded = np.zeros((size, *self.classifier.image_shape), np.uint8)
        padded[: len(images)] = images
        outputs = {name: array for name, array in self.classifier(padded)._asdict().items() if array is not None}
        labels = [self.classifier.label_names[label] for label in outputs["probs"].argmax(axis=1)]
        return [
            {"label": labels[row]} | {name: array[row].tolist() for name, array in outputs.items()}
            for row in range(len(images))
        ]


@dataclasses.dataclass(frozen=True)
class ImageReader:
    """Reads the images of requests; raises an `HTTPException` with a one-line message for anything else.

    Attributes:
      image_shape: H, W and C of the images.
      max_images: maximum number of images per request.
    """

    image_shape: tuple[int, ...]
    max_images: int

    async def read(self, request: Request) -> np.ndarray:
        """Return the images of a request, uint8 `[b, H, W, C]`."""
        content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
        allowed = (RAW, *FORMATS) if self.image_shape[-1] in MODES else (RAW,)
        if content_type not in allowed:
            raise HTTPException(415, f"content-type must be {' or '.join(allowed)}; got {content_type!r}")
        body = await self._read_body(request)
        return self._parse_raw(body) if content_type == RAW else self._decode(body, FORMATS[content_type])[None]

    async def _read_body(self, request: Request) -> bytes:
        max_bytes = self.max_images * math.prod(self.image_shape) + MAX_HEADER_BYTES
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                raise HTTPException(413, f"the body must have at most {max_bytes} bytes; got more")
        return bytes(body)

    def _parse_raw(self, body: bytes) -> np.ndarray:
        """Convert the bytes of one or more images to an array."""
        num_images, remainder = divmod(len(body), math.prod(self.image_shape))
        if remainder or not num_images:
            shape = list(self.image_shape)
            raise HTTPException(422, f"the body must be the pixels of images {shape}; got {len(body)} bytes")
        if num_images > self.max_images:
            raise HTTPException(413, f"a request may have at most {self.max_images} images; got {num_images}")
        return np.frombuffer(body, np.uint8).reshape(num_images, *self.image_shape)

    def _decode(self, body: bytes, image_format: str) -> np.ndarray:
        """Decode an image, unless its header has another size or mode."""
        height, width, channels = self.image_shape
        expected = (height, width, MODES[channels])
        try:
            with Image.open(io.BytesIO(body), formats=[image_format]) as image:
                got = (image.height, image.width, image.mode)
                pixels = np.asarray(image) if got == expected else None
        except Exception as error:  # Pillow raises many types for corrupt bytes
            raise HTTPException(400, f"the body must be a {image_format} image ({type(error).__name__})") from error
        if pixels is None:
            raise HTTPException(422, "the image must be {}x{} {}; got {}x{} {}".format(*expected, *got))
        return pixels.reshape(self.image_shape)


def application(
    classifier: aj.ExportedClassifier, sizes: Sequence[int] = BATCH_SIZES, wait_seconds: float = 0.003
) -> Starlette:
    """Return the ASGI application that serves a classifier.

    Args:
      classifier: a classifier, as returned by `aj.load_exported`.
      sizes: batch sizes to compile; the largest is also the maximum number of images per request.
      wait_seconds: how long the first image of a batch waits for others.
    """
    batcher, reader = Batcher(classifier, sizes, wait_seconds), ImageReader(classifier.image_shape, max(sizes))

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await asyncio.to_thread(batcher.compile)
        task = asyncio.create_task(batcher.run())
        yield
        task.cancel()

    async def describe(_: Request) -> JSONResponse:
        return JSONResponse(dataclasses.asdict(classifier.metadata))

    async def classify(request: Request) -> JSONResponse:
        return JSONResponse({"answers": await batcher.classify(await reader.read(request))})

    routes = [Route("/", describe), Route("/classify", classify, methods=["POST"])]
    return Starlette(routes=routes, lifespan=lifespan)


def main(*arguments: str) -> None:
    """Serve the file that is named on the command line."""
    classifier = aj.load_exported(app.only_path(arguments, "an exported run"))
    uvicorn.run(application(classifier), host=HOST.value, port=PORT.value)


if __name__ == "__main__":
    app.run(main, arguments=True)
