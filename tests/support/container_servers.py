"""NATS and Postgres in containers, for a test session that asks for them: `RUNTARA_TEST_SERVERS=containers`.

The images are those of the compose file: the official ones, or stand-ins made here where nothing can be pulled. They
sync like the embedded servers do; only what tests do to server processes themselves has no counterpart here.
"""

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any, Final

from runtara.infra.credentials.keyring import KeyRing
from runtara.protocol.ids import new_token
from runtara.protocol.limits import MAX_PAYLOAD_BYTES
from runtara.runner.images.docker_engine import DockerEngine

from . import server_images

NATS_PORT: Final = 4222
POSTGRES_PORT: Final = 5432
START_SECONDS: Final = 60
_CONFIGURATION: Final = "/etc/nats/nats.conf"


class ContainerServers:
    """Enter it as a context manager; `folder` gets the keys and the server's configuration."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._password = f"p{new_token()}"
        self._stack = contextlib.ExitStack()
        self.nats_url = self.database_url = ""

    @property
    def nats_keys(self) -> Path:
        return self._folder / "keys"

    async def __aenter__(self) -> "ContainerServers":
        try:
            await asyncio.to_thread(self._start)
        except BaseException:
            await asyncio.to_thread(self._stack.close)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._stack.close)

    def _start(self) -> None:
        os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")  # its image is one more that must be had
        from testcontainers.core.container import DockerContainer
        from testcontainers.core.wait_strategies import LogMessageWaitStrategy

        with DockerEngine.connect() as engine:
            server_images.ensure_nats(engine)
            server_images.ensure_postgres(engine)
        postgres = (
            DockerContainer(server_images.POSTGRES)
            .with_env("POSTGRES_USER", "runtara")
            .with_env("POSTGRES_DB", "runtara")
            .with_env("POSTGRES_PASSWORD", self._password)
            .with_kwargs(shm_size="256m")
            .waiting_for(_ready(LogMessageWaitStrategy, "database system is ready to accept connections"))
        )
        nats = (
            DockerContainer(server_images.NATS)
            .with_command(["-c", _CONFIGURATION])
            .with_volume_mapping(str(self._configuration()), _CONFIGURATION, "ro")
            .waiting_for(_ready(LogMessageWaitStrategy, "Server is ready"))
        )
        for container, port in ((postgres, POSTGRES_PORT), (nats, NATS_PORT)):
            _on_loopback(container, port)
        self._stack.enter_context(postgres)
        self._stack.enter_context(nats)
        self.nats_url = f"nats://127.0.0.1:{nats.get_exposed_port(NATS_PORT)}"
        place = f"127.0.0.1:{postgres.get_exposed_port(POSTGRES_PORT)}"
        self.database_url = f"postgresql://runtara:{self._password}@{place}/runtara"

    def _configuration(self) -> Path:
        self.nats_keys.mkdir(mode=0o700, parents=True)
        ring = KeyRing.load_or_create(self.nats_keys)
        path = self._folder / "nats.conf"
        path.write_text(
            f"listen: 0.0.0.0:{NATS_PORT}\n"
            f"max_payload: {MAX_PAYLOAD_BYTES}\n"
            f"{ring.configuration(Path('/data/accounts'))}"
            "jetstream { store_dir: /data/store, sync_interval: always, max_file_store: 1PB }\n"
        )
        return path


def _on_loopback(container: Any, port: int) -> None:
    """At any port there, as the embedded servers: tests want the same one at other addresses for themselves."""
    container.ports[str(port)] = ("127.0.0.1", None)  # `with_bind_ports` takes no address


def _ready(strategy: Any, message: str) -> Any:
    return strategy(message).with_startup_timeout(START_SECONDS)


def wanted() -> bool:
    return os.environ.get("RUNTARA_TEST_SERVERS", "embedded") == "containers"
