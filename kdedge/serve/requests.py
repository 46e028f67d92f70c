"""Read and check the body of a request to /predict."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.requests import ClientDisconnect, Request

from kdedge.serve.batching import Row
from kdedge.serve.limits import Limits, RequestError

CLIENT_CLOSED = 499
"""The status that nginx uses: nobody receives it, but the metrics count it."""

EXAMPLE = '{"texts": ["a text", "another text"]}'
PAIR_EXAMPLE = '{"texts": ["a text"], "pairs": ["its second text"]}'


async def read_rows(request: Request, limits: Limits, *, pair: bool) -> list[Row]:
    """Return the texts of a request, with their second texts if the classifier reads pairs.

    Raises:
        RequestError: With status 400, 408, 413 or 499.
    """
    body = await _read_body(request, limits)
    example = PAIR_EXAMPLE if pair else EXAMPLE
    document = _parse(body, example)
    names = {"texts", "pairs"} if pair else {"texts"}
    unknown = sorted(document.keys() - names)
    if unknown:
        raise _malformed(f"the field {unknown[0][:60]!r} is unknown", example)
    texts = _strings(document, "texts", limits, example)
    if not pair:
        return [(text, None) for text in texts]
    pairs = _strings(document, "pairs", limits, example)
    if len(pairs) != len(texts):
        raise _malformed(f"{len(texts)} texts and {len(pairs)} pairs", example)
    return list(zip(texts, pairs, strict=True))


async def _read_body(request: Request, limits: Limits) -> bytes:
    too_large = RequestError(
        413, "the request is too large", f"at most {limits.body:,} bytes", "send fewer texts"
    )
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > limits.body:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.body:
                    raise too_large
    except TimeoutError as error:
        raise RequestError(408, "the request took too long to arrive") from error
    except ClientDisconnect as error:
        raise RequestError(CLIENT_CLOSED, "the client closed the connection") from error
    return bytes(body)


def _parse(body: bytes, example: str) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _malformed("the body is not JSON", example) from error
    if not isinstance(document, dict):
        raise _malformed(f"the body is a {type(document).__name__}, not an object", example)
    return document


def _strings(document: dict[str, Any], name: str, limits: Limits, example: str) -> list[str]:
    """Return the field `name` if it is a list of strings within the limits."""
    values = document.get(name)
    if not isinstance(values, list) or not values:
        raise _malformed(f"{name} is not a list of one or more strings", example)
    if len(values) > limits.texts:
        raise RequestError(
            413,
            "the request has too many texts",
            f"{len(values)} texts, at most {limits.texts} are allowed",
            "send several requests",
        )
    for i, value in enumerate(values):
        if not isinstance(value, str):
            raise _malformed(f"{name}[{i}] is a {type(value).__name__}, not a string", example)
        if not _is_encodable(value):
            raise _malformed(f"{name}[{i}] contains half a character (a surrogate)", example)
    return values


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _malformed(detail: str, example: str) -> RequestError:
    return RequestError(400, "the request is malformed", detail, f"send {example}")
