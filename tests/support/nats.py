"""A NATS server of a test's own, with a configuration that the test writes."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from runtara.compose import binaries
from runtara.compose.identity import OURSELVES
from runtara.compose.installation import LOOPBACK, _free_port
from runtara.compose.supervisor import Server, ServerSpec


class OwnNats:
    """`stop`, `start` and `kill` are the server's; `configure` writes what it reads at its next start or reload."""

    def __init__(self, folder: Path) -> None:
        self._port = _free_port()
        self._folder = folder / "nats"
        self._folder.mkdir(parents=True)
        self._configuration = self._folder / "nats.conf"
        self.server = Server(
            ServerSpec(
                name="NATS",
                command=[binaries.nats_server(), "--config", self._configuration],
                folder=self._folder,
                identity=OURSELVES,
                stop_signal=signal.SIGTERM,
                is_ready=self._greets,
            )
        )

    @property
    def url(self) -> str:
        return f"nats://{LOOPBACK}:{self._port}"

    def configure(self, text: str, *, jetstream: str = "") -> None:
        """`text`: users and limits; `jetstream`: what its block holds beside the folder."""
        store = json.dumps(str(self._folder / "store"))
        self._configuration.write_text(
            f"listen: '{LOOPBACK}:{self._port}'\n"
            f"jetstream {{ store_dir: {store}, sync_interval: always, {jetstream} }}\n{text}\n"
        )

    def reload(self) -> None:
        self.server.kill(signal.SIGHUP)

    async def _greets(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection(LOOPBACK, self._port)
        except OSError:
            return False
        try:
            return (await reader.readline()).startswith(b"INFO ")
        finally:
            writer.transport.abort()


@asynccontextmanager
async def own_nats(folder: Path, text: str, *, jetstream: str = "") -> AsyncIterator[OwnNats]:
    nats = OwnNats(folder)
    nats.configure(text, jetstream=jetstream)
    async with nats.server:
        await nats.server.wait_up()
        yield nats
