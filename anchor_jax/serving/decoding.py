"""Decode the pictures of requests, a limited number of pixels at once to bound the memory."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import HTTPException

from anchor_jax.core.errors import UserError
from anchor_jax.data.decoding import Example, num_pixels
from anchor_jax.data.preprocessing import Preprocessing, names_of


class Decoder:
    """Turns the pictures of requests into images, in threads.

    Args:
      preprocess: of the classifier.
      max_pixels: maximum number of pixels per request, and in all requests that are decoded at the same time.
    """

    def __init__(self, preprocess: Preprocessing, max_pixels: int):
        self.preprocess, self.max_pixels = preprocess, max_pixels
        self._num_free = max_pixels
        self._turn, self._freed = asyncio.Lock(), asyncio.Event()

    async def images_of(self, pictures: np.ndarray | Sequence[bytes]) -> Any:
        """Return images uint8 `[b, H, W, C]`.

        Args:
          pictures: encoded, or uint8 `[b, H, W, C]`.

        Raises:
          HTTPException: the pictures have too many pixels (413), or cannot be read (422).
        """
        name = "picture" if len(pictures) == 1 else "pictures"
        try:
            num = 0 if isinstance(pictures, np.ndarray) else await asyncio.to_thread(_num_pixels, name, pictures)
            if num > self.max_pixels:
                limit = f"the pictures of a request may have at most {self.max_pixels:,} pixels together"
                raise HTTPException(413, f"{limit}; got {num:,}")
            await self._take(num)
            decoding = asyncio.ensure_future(asyncio.to_thread(self.preprocess.batch, name, pictures))
            decoding.add_done_callback(lambda _: self._release(num))
            return await asyncio.shield(decoding)  # a thread cannot be stopped, and uses memory until it ends
        except UserError as error:
            raise HTTPException(422, str(error)) from error

    async def _take(self, num: int) -> None:
        """Take pixels, after waiting until as many are free."""
        async with self._turn:  # first come, first served
            while self._num_free < num:
                self._freed.clear()
                await self._freed.wait()
            self._num_free -= num

    def _release(self, num: int) -> None:
        self._num_free += num
        self._freed.set()


def _num_pixels(name: str, pictures: Sequence[bytes]) -> int:
    names = names_of(name, len(pictures))
    return sum(num_pixels(Example(picture, 0, each)) for each, picture in zip(names, pictures, strict=True))
