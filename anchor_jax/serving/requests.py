"""Read the pictures of a request: an image file, several files of a form, base64 in JSON, or raw pixels."""

import base64
import binascii
import json
import math
from typing import Any

import numpy as np
from fastapi import HTTPException
from starlette.requests import Request
from starlette.types import Message

JSON, FORM, RAW = "application/json", "multipart/form-data", "application/octet-stream"
ALLOWED = f"image/*, {FORM}, {JSON} or {RAW}"

# for OpenAPI, which does not see what `pictures_of` reads
REQUEST_BODY = {
    "required": True,
    "content": {
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        FORM: {
            "schema": {
                "type": "object",
                "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
            }
        },
        JSON: {
            "schema": {
                "type": "object",
                "required": ["pictures"],
                "properties": {
                    "pictures": {
                        "type": "array",
                        "items": {"type": "string", "format": "byte"},
                        "description": "Image files in base64, or data URLs.",
                    }
                },
            }
        },
        RAW: {
            "schema": {
                "type": "string",
                "format": "binary",
                "description": "Pixels of images that are resized and cropped already: uint8 [b, H, W, C].",
            }
        },
    },
}


async def pictures_of(
    request: Request, image_shape: tuple[int, ...], max_pictures: int, max_bytes: int
) -> np.ndarray | list[bytes]:
    """Return the pictures of a request, encoded, or uint8 `[b, H, W, C]` if they are sent as raw pixels.

    Args:
      request: the request; its body is read here.
      image_shape: H, W and C of the classifier.
      max_pictures: maximum number of pictures.
      max_bytes: maximum size of the body.

    Raises:
      HTTPException: the body is too large (413), of another type (415), or does not contain pictures (422).
    """
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if content_type not in (JSON, FORM, RAW) and not content_type.startswith("image/"):
        raise HTTPException(415, f"content-type must be {ALLOWED}; got '{content_type}'")
    body = await _read_body(request, max_bytes)
    if content_type == RAW:
        pictures = _parse_raw(body, image_shape)
    elif content_type == JSON:
        pictures = _parse_json(body)
    else:
        pictures = await _parse_form(request, body) if content_type == FORM else [body]
    if len(pictures) > max_pictures:
        raise HTTPException(413, f"a request may have at most {max_pictures} pictures; got {len(pictures)}")
    return pictures


async def _read_body(request: Request, max_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise HTTPException(413, f"the body must have at most {max_bytes} bytes; got more")
    return bytes(body)


def _parse_raw(body: bytes, image_shape: tuple[int, ...]) -> np.ndarray:
    num_images, remainder = divmod(len(body), math.prod(image_shape))
    if remainder or not num_images:
        raise HTTPException(
            422, f"the body must be the pixels of uint8 images {list(image_shape)}; got {len(body)} bytes"
        )
    return np.frombuffer(body, np.uint8).reshape(num_images, *image_shape)


def _parse_json(body: bytes) -> list[bytes]:
    try:
        content: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(422, f"the body must be JSON ({error})") from error
    pictures = content.get("pictures") if isinstance(content, dict) else None
    if not isinstance(pictures, list) or not pictures:
        raise HTTPException(422, 'the body must be {"pictures": [...]}, with image files in base64')
    return [_parse_base64(f"pictures[{row}]", picture) for row, picture in enumerate(pictures)]


def _parse_base64(name: str, text: Any) -> bytes:
    message = f"{name} must be an image file in base64, or a data URL that contains it"
    if not isinstance(text, str):
        raise HTTPException(422, message)
    encoded = text.partition(";base64,")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise HTTPException(422, f"{message} ({error})") from error


async def _parse_form(request: Request, body: bytes) -> list[bytes]:
    """Return the files of a form, whatever the names of their fields, in the order of the body."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async with Request(request.scope, receive).form() as form:
        fields = [(name, value) for name, value in form.multi_items()]
        if text := next((name for name, value in fields if isinstance(value, str)), None):
            raise HTTPException(422, f"field '{text}' must be a file: of a form, send files alone")
        if not fields:
            raise HTTPException(422, "the form must contain at least one file")
        return [await value.read() for _, value in fields if not isinstance(value, str)]
