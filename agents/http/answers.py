"""From a response on the wire to the output: read with a limit, decompressed with the same limit, parsed as asked.

Invariants: never more than the limit is held, however well it was compressed; what was cut short is an error and never
half an answer.
"""

import base64
import zlib
from collections.abc import AsyncIterator
from email.message import Message
from typing import Final

import httpx
import orjson
from pydantic import JsonValue

from ..errors import AgentError
from .failures import INVALID_RESPONSE, NETWORK_ERROR, RESPONSE_TOO_LARGE, shown
from .models import ResponseType

MAX_RESPONSE_BYTES: Final = 32 * 1024 * 1024  # in base64 it still is below the 64 MiB that a step may give back
_DISCARDED_BYTES: Final = 65_536
_WINDOW: Final = 15  # zlib's largest
_EITHER: Final = 32 + _WINDOW  # with gzip's head, or with zlib's


async def read(url: httpx.URL, response: httpx.Response, limit: int = MAX_RESPONSE_BYTES) -> bytes:
    """The whole body. Raises `AgentError`, or `httpx.TransportError` if the connection broke; closes the response."""
    assert isinstance(response.stream, httpx.AsyncByteStream)
    try:
        length = response.headers.get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            raise _too_large(url, limit)
        content = bytearray()
        async for chunk in _plain(url, response.headers.get("content-encoding", ""), response.stream, limit):
            content += chunk
            if len(content) > limit:
                raise _too_large(url, limit)
        return bytes(content)
    finally:
        await response.stream.aclose()


async def discard(response: httpx.Response) -> None:
    """For redirects: a short body is read, so that the connection serves the next request too."""
    assert isinstance(response.stream, httpx.AsyncByteStream)
    try:
        size = 0
        async for chunk in response.stream:
            size += len(chunk)
            if size > _DISCARDED_BYTES:
                break
    finally:
        await response.stream.aclose()


def parse(url: httpx.URL, headers: httpx.Headers, content: bytes, kind: ResponseType) -> JsonValue:
    """The body as `kind` asks for it; None if there is none. Raises `AgentError` HTTP_INVALID_RESPONSE."""
    if kind == "binary":
        return base64.b64encode(content).decode()
    if kind == "text":
        return _text(url, headers, content)
    if not content.strip():
        return None
    try:
        value: JsonValue = orjson.loads(content)
    except orjson.JSONDecodeError as exc:
        message = f"{shown(url)} did not answer in JSON; ask for response_type text ({exc})"
        raise AgentError(INVALID_RESPONSE, message, attributes={"url": shown(url)}) from None
    return value


def as_text(content: bytes) -> str:
    """For errors, where some text is better than none."""
    return content.decode(errors="replace")


def headers_of(headers: httpx.Headers) -> dict[str, str]:
    return dict(headers.items())


def _text(url: httpx.URL, headers: httpx.Headers, content: bytes) -> str:
    head = Message()
    head["content-type"] = headers.get("content-type", "text/plain")
    charset = head.get_content_charset() or "utf-8"
    try:
        return content.decode(charset)
    except (LookupError, UnicodeError) as exc:
        message = f"the answer of {shown(url)} is no {charset} text; ask for response_type binary"
        raise AgentError(INVALID_RESPONSE, message, attributes={"url": shown(url)}) from exc


async def _plain(url: httpx.URL, encoding: str, stream: httpx.AsyncByteStream, limit: int) -> AsyncIterator[bytes]:
    match encoding.strip().lower():
        case "" | "identity":
            async for chunk in stream:
                yield chunk
        case "gzip" | "x-gzip" | "deflate":
            async for chunk in _inflated(url, stream, limit):
                yield chunk
        case other:
            message = f"{shown(url)} answered in the encoding {other[:40]!r}, which was not asked for"
            raise AgentError(INVALID_RESPONSE, message, attributes={"url": shown(url)})


async def _inflated(url: httpx.URL, stream: httpx.AsyncByteStream, limit: int) -> AsyncIterator[bytes]:
    """Decompressed in pieces of at most `limit` and a byte: a few kilobytes may stand for gigabytes."""
    inflater = None
    async for chunk in stream:
        if inflater is None:
            inflater = zlib.decompressobj(_EITHER if chunk[:1] in (b"\x1f", b"\x78", b"\x58") else -_WINDOW)
        try:
            yield inflater.decompress(chunk, limit + 1)
            while inflater.eof and inflater.unused_data:  # gzip may be several in a row
                rest, inflater = inflater.unused_data, zlib.decompressobj(_EITHER)
                yield inflater.decompress(rest, limit + 1)
        except zlib.error as exc:
            message = f"the answer of {shown(url)} is not compressed as it says"
            raise AgentError(INVALID_RESPONSE, message, attributes={"url": shown(url)}) from exc
        if inflater.unconsumed_tail:
            raise _too_large(url, limit)
    if inflater is not None and not inflater.eof:
        message = f"the answer of {shown(url)} was cut short"
        raise AgentError(NETWORK_ERROR, message, category="transient", attributes={"url": shown(url)})


def _too_large(url: httpx.URL, limit: int) -> AgentError:
    message = f"the answer of {shown(url)} has more than {limit:,} bytes; ask for less at a time"
    return AgentError(RESPONSE_TOO_LARGE, message, attributes={"url": shown(url), "limit": limit})
