"""Serve an exported run over HTTP: python examples/serve.py c10.zip --port=8000.

    curl localhost:8000    # what is served
    curl localhost:8000/classify -H 'content-type: image/png' --data-binary @image.png
    curl localhost:8000/classify -H 'content-type: application/octet-stream' --data-binary @images.raw

Images are as they are stored, and of the size that the run was trained on; raw ones are the bytes of uint8
`[b, H, W, C]`. What concurrent requests bring within a few milliseconds is classified together, filled up to one of a
few batch sizes, each of which is compiled before the first request.
"""

import asyncio
import contextlib
import dataclasses
import io
import math
from collections.abc import Sequence

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

HOST = flags.DEFINE_string("host", "127.0.0.1", "Where to listen; 0.0.0.0: on every network.")
PORT = flags.DEFINE_integer("port", 8000, "Where to listen.", lower_bound=0, upper_bound=65535)

FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG"}
RAW = "application/octet-stream"
MODES = {1: "L", 3: "RGB"}  # Pillow's name of so many channels
BATCH_SIZES = (1, 8, 32)
MAX_WAITING = 8  # of the largest batches
HEADERS = 2**16  # bytes that an encoded image may have beside its pixels


class Batches:
    """Classifies the images of concurrent requests together."""

    def __init__(self, classifier: aj.ExportedClassifier, sizes: Sequence[int], wait_seconds: float):
        self.classifier, self.sizes, self.wait_seconds = classifier, sorted(sizes), wait_seconds
        self.waiting: asyncio.Queue[tuple[np.ndarray, asyncio.Future[dict]]] = asyncio.Queue()

    async def answers(self, images: np.ndarray) -> list[dict]:
        """One answer for each image, uint8 `[b, H, W, C]`; refused where too many are waiting already."""
        most = MAX_WAITING * self.sizes[-1]
        if self.waiting.qsize() + len(images) > most:
            raise HTTPException(429, f"{self.waiting.qsize()} images are waiting, {most} may; try again later")
        futures = [asyncio.get_running_loop().create_future() for _ in images]
        for waiting in zip(images, futures, strict=True):
            self.waiting.put_nowait(waiting)
        return await asyncio.gather(*futures)

    async def run(self) -> None:
        """Classify batch after batch; one that fails is told to its own requests alone."""
        while True:
            images, futures = zip(*await self._gathered(), strict=True)
            try:
                answers = await asyncio.to_thread(self._classified, np.stack(images))
            except Exception as error:
                answers = [error] * len(images)
            for future, answer in zip(futures, answers, strict=True):
                if future.cancelled():  # nobody waits for it any more
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    async def _gathered(self):
        """What has come within `wait_seconds` of the first image, at most what fills the largest batch."""
        gathered = [await self.waiting.get()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.wait_seconds):
                while len(gathered) < self.sizes[-1]:
                    gathered.append(await self.waiting.get())
        return gathered

    def _classified(self, images):
        """One answer for each image; the batch is filled up with black ones, which change no answer."""
        size = next(size for size in self.sizes if size >= len(images))
        batch = np.zeros((size, *self.classifier.image_shape), np.uint8)
        batch[: len(images)] = images
        answer = {name: array for name, array in self.classifier(batch)._asdict().items() if array is not None}
        labels = [self.classifier.label_names[best] for best in answer["probs"].argmax(axis=1)]
        return [
            {"label": labels[row]} | {name: array[row].tolist() for name, array in answer.items()}
            for row in range(len(images))
        ]

    def compile(self) -> None:
        """Compile the program for every batch size."""
        for size in self.sizes:
            self.classifier(np.zeros((size, *self.classifier.image_shape), np.uint8))


def application(
    classifier: aj.ExportedClassifier, sizes: Sequence[int] = BATCH_SIZES, wait_seconds: float = 0.003
) -> Starlette:
    """The ASGI application that serves a classifier.

    Args:
      classifier: of `aj.load_exported`.
      sizes: of the batches that are compiled; the largest is also the most images that one request may have.
      wait_seconds: for how long the first image of a batch waits for others.
    """
    batches = Batches(classifier, sizes, wait_seconds)

    @contextlib.asynccontextmanager
    async def lifespan(_):
        await asyncio.to_thread(batches.compile)
        running = asyncio.create_task(batches.run())
        yield
        running.cancel()

    async def describe(_):
        return JSONResponse(dataclasses.asdict(classifier.metadata))

    async def classify(request):
        images = await images_of(request, classifier.image_shape, max(sizes))
        return JSONResponse({"answers": await batches.answers(images)})

    routes = [Route("/", describe), Route("/classify", classify, methods=["POST"])]
    return Starlette(routes=routes, lifespan=lifespan)


async def images_of(request: Request, image_shape: tuple[int, ...], most: int) -> np.ndarray:
    """The images of a request, uint8 `[b, H, W, C]`; what is none is refused with a status and one line."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    allowed = (RAW, *FORMATS) if image_shape[-1] in MODES else (RAW,)
    if kind not in allowed:
        raise HTTPException(415, f"content-type must be {' or '.join(allowed)}; got {kind!r}")
    body = await body_of(request, most * math.prod(image_shape) + HEADERS)
    return raw(body, image_shape, most) if kind == RAW else decoded(body, image_shape, FORMATS[kind])[None]


async def body_of(request: Request, most: int) -> bytes:
    """The body of a request, of which no more is kept than is allowed."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise HTTPException(413, f"the body must have at most {most} bytes; got more")
    return bytes(body)


def raw(body: bytes, image_shape: tuple[int, ...], most: int) -> np.ndarray:
    """Images of which the body has the pixels, one image after the other."""
    num, rest = divmod(len(body), math.prod(image_shape))
    if rest or not num:
        raise HTTPException(422, f"the body must be pixels of images {list(image_shape)}; got {len(body)} bytes")
    if num > most:
        raise HTTPException(413, f"a request may have at most {most} images; got {num}")
    return np.frombuffer(body, np.uint8).reshape(num, *image_shape)


def decoded(body: bytes, image_shape: tuple[int, ...], kind: str) -> np.ndarray:
    """The image in the body; one of which the header tells another size is not decoded."""
    height, width, channels = image_shape
    expected = (height, width, MODES[channels])
    try:
        with Image.open(io.BytesIO(body), formats=[kind]) as image:
            got = (image.height, image.width, image.mode)
            pixels = np.asarray(image) if got == expected else None
    except Exception as error:  # Pillow raises many kinds on damaged bytes
        raise HTTPException(400, f"the body is no whole {kind} image ({type(error).__name__})") from error
    if pixels is None:
        raise HTTPException(422, "the image must be {}x{} {}; got {}x{} {}".format(*expected, *got))
    return pixels.reshape(image_shape)


def main(*arguments: str) -> None:
    """Flags to values, then one call."""
    classifier = aj.load_exported(app.only_path(arguments, "an exported run"))
    uvicorn.run(application(classifier), host=HOST.value, port=PORT.value)


if __name__ == "__main__":
    app.run(main, arguments=True)
