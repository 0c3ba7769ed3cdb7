"""Real servers for a whole test session, in a thread of their own, so that they outlive each test's event loop."""

import asyncio
import contextlib
import shutil
import tempfile
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import msgspec
import pytest

from runtara.compose.embedded import EmbeddedServers
from runtara.compose.nats_log import Violations
from runtara.infra.settings import Settings

from .container_servers import ContainerServers, wanted
from .platform import connect

T = TypeVar("T")


@contextlib.contextmanager
def data_folder() -> Iterator[Path]:
    """A new folder that every user may pass through (pytest's own are closed to `nobody`)."""
    folder = Path(tempfile.mkdtemp(prefix="runtara-test-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class SessionServers:
    """Embedded servers, run by a loop in a background thread, and started again when a test kills them; or servers in
    containers, if `RUNTARA_TEST_SERVERS` says so."""

    def __init__(self, data: Path) -> None:
        self._servers = ContainerServers(data) if wanted() else EmbeddedServers(data)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="session-servers", daemon=True)

    def __enter__(self) -> "SessionServers":
        self._thread.start()
        self.run(self._servers.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._servers.__aexit__(None, None, None))
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the servers' loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=180)

    @property
    def nats_url(self) -> str:
        return self._servers.nats_url

    @property
    def nats_keys(self) -> str:
        return str(self._servers.nats_keys)

    @property
    def violations(self) -> Violations:
        """What the NATS server's log says of forbidden publishes and subscriptions."""
        if not isinstance(self._servers, EmbeddedServers):
            pytest.skip("only the embedded server's log is read")
        return self._servers.violations

    @property
    def database_url(self) -> str:
        return self._servers.database_url

    async def forget(self, deployment: str) -> None:
        """Delete a deployment's streams and its schema: hundreds of tests share these servers."""
        settings = Settings(deployment=deployment, nats_url=self.nats_url, nats_keys=self.nats_keys)
        async with await connect(settings) as bus:
            names = msgspec.json.decode(await bus.jetstream("STREAM.NAMES"))["streams"] or []
            for name in names:
                await bus.jetstream(f"STREAM.DELETE.{name}")
        database = await asyncpg.connect(self.database_url)
        await database.execute(f'DROP SCHEMA IF EXISTS "{deployment}" CASCADE')
        await database.close()
