"""A TCP proxy in front of a server: the network that a test can cut, hold and mend."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


class Proxy:
    """Forwards bytes while the network is whole. `cut` breaks all connections and refuses new ones until `mend`;
    `hold` keeps them open and lets nothing through. `alter` changes what the server says on its way."""

    def __init__(self, host: str, port: int, at: str, at_port: int) -> None:
        self._target = (host, port)
        self._at = at
        self._whole = asyncio.Event()
        self._whole.set()
        self._server: asyncio.Server | None = None
        self.alter: Callable[[bytes], bytes] = lambda data: data
        self._writers: set[asyncio.StreamWriter] = set()
        self.clients: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._port = at_port
        self._left: int | None = None  # bytes of clients that still get through

    @property
    def url(self) -> str:
        return f"nats://{self._at}:{self._port}"

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()  # one may be held
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def hold(self) -> None:
        self._whole.clear()

    @property
    def holds(self) -> bool:
        return not self._whole.is_set()

    def hold_after(self, count: int) -> None:
        """`hold`, once so many more bytes have come from clients."""
        self._left = count

    def say(self, words: bytes) -> None:
        """Tell the clients something as if the server had; nothing else may be under way."""
        for writer in self.clients:
            writer.write(words)

    async def mend(self) -> None:
        self._whole.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, self._at, self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._target)
        self._writers |= {writer, back}
        self.clients.add(writer)
        for source, target in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._forward(source, target, counted=source is reader))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, counted: bool) -> None:
        try:
            while data := await source.read(65_536):
                if counted and self._left is not None:
                    self._left -= len(data)
                    if self._left < 0:
                        self._left = None
                        self.hold()
                await self._whole.wait()
                target.write(self.alter(data) if target in self.clients else data)
                await target.drain()
        except OSError:
            pass
        finally:
            target.transport.abort()
            self._writers.discard(target)
            self.clients.discard(target)


@asynccontextmanager
async def proxy_of(url: str, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Proxy]:
    """A proxy at `host` and `port` (any that is free unless given) in front of the NATS server at `url`."""
    parts = urlsplit(url)
    proxy = Proxy(parts.hostname or "127.0.0.1", parts.port or 4222, host, port)
    await proxy.mend()
    try:
        yield proxy
    finally:
        proxy._whole.set()
        await proxy.cut()
