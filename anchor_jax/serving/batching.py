"""Classify the images of concurrent requests in batches."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from anchor_jax.core.inference import Classification
from anchor_jax.export.format import ExportedClassifier

MAX_WAITING_BATCHES = 8  # of the largest size


class QueueFullError(Exception):
    """Too many images are waiting."""


class _Waiting(NamedTuple):
    """The images of one request, and where their classification goes."""

    images: np.ndarray
    result: asyncio.Future[Classification]


class Batcher:
    """Classifies the images of concurrent requests in batches, which are padded to a few sizes.

    Args:
      classifier: a classifier, as returned by `aj.load_exported`.
      sizes: allowed batch sizes; the largest is also the maximum number of images of a request.
      wait_seconds: how long the first request of a batch waits for others.
      on_batch: called with the number of images of each batch, without the padding.
    """

    def __init__(
        self,
        classifier: ExportedClassifier,
        sizes: Sequence[int],
        wait_seconds: float,
        on_batch: Callable[[int], object] = lambda _: None,
    ):
        self.classifier, self.sizes, self.wait_seconds = classifier, sorted({*sizes}), wait_seconds
        self.on_batch = on_batch
        self.num_waiting = 0  # images
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._next: _Waiting | None = None  # did not fit into the last batch

    @property
    def max_waiting(self) -> int:
        """How many images may wait."""
        return MAX_WAITING_BATCHES * self.sizes[-1]

    async def classify(self, images: np.ndarray) -> Classification:
        """Classify images, uint8 `[b, H, W, C]`, together with those of other requests.

        Raises:
          QueueFullError: more images than `max_waiting` would wait.
        """
        if self.num_waiting + len(images) > self.max_waiting:
            raise QueueFullError(f"{self.num_waiting} of at most {self.max_waiting} images are waiting; retry later")
        result: asyncio.Future[Classification] = asyncio.get_running_loop().create_future()
        self.num_waiting += len(images)
        self._queue.put_nowait(_Waiting(images, result))
        return await result

    async def run(self) -> None:
        """Classify batches forever; an exception fails only the requests of its own batch."""
        while True:
            batch = await self._next_batch()
            images = np.concatenate([request.images for request in batch])
            self.num_waiting -= len(images)
            self.on_batch(len(images))
            try:
                rows = await asyncio.to_thread(self._classify_padded, images)
            except Exception as error:
                for request in batch:
                    if not request.result.cancelled():  # the client has disconnected
                        request.result.set_exception(error)
                continue
            start = 0
            for request in batch:
                end = start + len(request.images)
                if not request.result.cancelled():
                    request.result.set_result(_rows(rows, start, end))
                start = end

    def compile(self) -> None:
        """Compile the program for every batch size."""
        for size in self.sizes:
            self.classifier(np.zeros((size, *self.classifier.image_shape), np.uint8))

    async def _next_batch(self) -> list[_Waiting]:
        """Return the requests that arrive within `wait_seconds` of the first and fit into the largest batch."""
        first = self._next or await self._queue.get()
        batch, num_images, self._next = [first], len(first.images), None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.wait_seconds):
                while num_images < self.sizes[-1]:
                    request = await self._queue.get()
                    if num_images + len(request.images) > self.sizes[-1]:
                        self._next = request
                        break
                    batch.append(request)
                    num_images += len(request.images)
        return batch

    def _classify_padded(self, images: np.ndarray) -> Classification:
        """Classify images padded with zeros to the next allowed size, which does not affect the others."""
        size = next(size for size in self.sizes if size >= len(images))
        padded = np.zeros((size, *self.classifier.image_shape), np.uint8)
        padded[: len(images)] = images
        return self.classifier(padded)


def _rows(classification: Classification, start: int, end: int) -> Classification:
    arrays: Any = [array if array is None else array[start:end] for array in classification]
    return Classification(*arrays)
