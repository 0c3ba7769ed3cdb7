"""Ten thousand calls to a server that allows so many a second: some are refused, none is lost, none is made again.

    python examples/api_calls.py             # that server: port 8090, 500 calls a second
    runtara dev examples/api_calls.py
    runtara start api-calls --input '{"url": "http://127.0.0.1:8090"}' --wait

Kill the worker, or the whole `dev`, as often as you like: a call whose result is recorded is not made again. `runtara
show` has the progress, `runtara log` every try.
"""

import argparse
import asyncio
import contextlib
import itertools
import time
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from runtara.sdk import Context, Permanent, Retry, RetryAfter, step, workflow

PATIENCE = Retry(max_attempts=12, initial=timedelta(seconds=0.2), max_delay=timedelta(seconds=10), jitter=0.5)


class Unwell(Exception):
    """The server said 5xx: another try may do."""


@step(key="{item}", retry=PATIENCE)
async def fetch(item: int, url: str) -> int:
    """One call. A refusal that says how long to stay away is waited for as told, and costs none of the twelve tries."""
    answer = await get(f"{url}/items/{item}")
    if answer.status == 429:
        raise RetryAfter(answer.retry_after, f"429 for item {item}")
    if answer.status >= 500:
        raise Unwell(f"{answer.status} for item {item}")
    if answer.status != 200:
        raise Permanent(f"{answer.status} for item {item}")
    return int(answer.body)


@workflow(name="api-calls")
async def api_calls(ctx: Context, url: str, count: int = 10_000, at_once: int = 50) -> dict[str, int]:
    """All calls, `at_once` at a time. After a crash the recorded ones answer at once, in whatever order they came."""
    free = asyncio.Semaphore(at_once)
    done = itertools.count(1)

    async def call(item: int) -> int:
        async with free:
            price = await fetch(item, url)
        ctx.progress(next(done), count)
        return price

    prices = await asyncio.gather(*(call(item) for item in range(count)))
    return {"calls": len(prices), "total": sum(prices)}


# what httpx or aiohttp would do for you


@dataclass(frozen=True)
class Answer:
    status: int
    retry_after: float
    body: str


async def get(url: str) -> Answer:
    """GET, on a connection of its own; ten seconds at most."""
    parts = urlsplit(url)
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            writer.write(f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
            head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        finally:
            writer.close()
    first, *lines = head.split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return Answer(int(first.split()[1]), float(headers.get("Retry-After", 0)), body)


# the server


class Prices:
    """Answers `rate` calls in each second; the others get 429, and one of a hundred 503, as servers do."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._second = 0
        self._used = 0
        self._calls = itertools.count(1)

    async def serve(self, port: int) -> None:
        server = await asyncio.start_server(self._on_call, "127.0.0.1", port)
        address, port = server.sockets[0].getsockname()
        print(f"http://{address}:{port} answers {self._rate} calls a second", flush=True)
        async with server:
            await server.serve_forever()

    async def _on_call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), contextlib.closing(writer):
            request = await reader.readuntil(b"\r\n\r\n")
            item = int(request.split()[1].rpartition(b"/")[2])
            writer.write(self._answer(item).encode())
            await writer.drain()

    def _answer(self, item: int) -> str:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._used = second, 0
        self._used += 1
        if self._used > self._rate:
            return "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\n\r\n"
        if next(self._calls) % 100 == 0:
            return "HTTP/1.1 503 Service Unavailable\r\n\r\n"
        return f"HTTP/1.1 200 OK\r\n\r\n{item * 2}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A server that allows so many calls a second.")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--rate", type=int, default=500)
    options = parser.parse_args()
    asyncio.run(Prices(options.rate).serve(options.port))
