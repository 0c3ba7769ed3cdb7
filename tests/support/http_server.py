"""An HTTP server that misbehaves as told: it fails, throttles, hangs, cuts off, redirects; and a proxy before it.

Written on plain streams, since what is wanted here is what no proper server would send.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A request as it came in."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def path(self) -> str:
        return self.target.split("?", 1)[0]


Handler = Callable[[Seen, asyncio.StreamWriter], Awaitable[bytes | None]]
"""Gives the bytes to send; or sends them itself, gives None, and the connection is closed."""


def answer(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    """A whole answer. Names of headers with `_` for `-`."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def always(status: int = 200, body: bytes = b"", **headers: str) -> Handler:
    """A handler that gives the same answer each time."""
    return raw(answer(status, body, **headers))


def raw(data: bytes) -> Handler:
    async def handle(request: Seen, writer: asyncio.StreamWriter) -> bytes:
        return data

    return handle


@dataclass(slots=True)
class HttpServer:
    """What listens at `url`. `routes` are by path; what is not there is 404."""

    routes: dict[str, Handler] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    url: str = ""
    port: int = 0
    let_go: asyncio.Event = field(default_factory=asyncio.Event)

    async def hang(self, request: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        """Says nothing until the test is over."""
        await self.let_go.wait()
        return None

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        try:
            while request := await _read(reader, number):
                self.seen.append(request)
                given = await self.routes.get(request.path, always(404, b"nothing here"))(request, writer)
                if given is None:
                    break
                writer.write(given)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass  # the client has left
        finally:
            writer.close()


@asynccontextmanager
async def http_server(*, tls: ssl.SSLContext | None = None) -> AsyncIterator[HttpServer]:
    """A server at a port that is free."""
    made = HttpServer()
    async with _listening(made.accept, tls) as made.port:
        made.url = f"{'https' if tls else 'http'}://127.0.0.1:{made.port}"
        yield made
        made.let_go.set()


@asynccontextmanager
async def forward_proxy() -> AsyncIterator[HttpServer]:
    """A proxy for plain requests that answers them itself; `seen` holds what went through it."""
    made = HttpServer()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await _read(reader, 0):
                made.seen.append(request)
                writer.write(answer(200, b'"by the proxy"', Via="1.1 proxy"))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with _listening(accept, None) as made.port:
        made.url = f"http://127.0.0.1:{made.port}"
        yield made


@asynccontextmanager
async def _listening(accept: Accept, tls: ssl.SSLContext | None) -> AsyncIterator[int]:
    """Listens at a port of 127.0.0.1; ends every connection before it leaves."""
    open_now: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(accept(reader, writer))
        open_now.add(task)
        task.add_done_callback(open_now.discard)

    listening = await asyncio.start_server(begin, "127.0.0.1", 0, ssl=tls)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for task in open_now:
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)


async def _read(reader: asyncio.StreamReader, connection: int) -> Seen | None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Seen(method=method, target=target, headers=headers, body=body, connection=connection)
