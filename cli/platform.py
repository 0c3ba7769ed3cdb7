"""A whole platform on this machine: embedded servers (or the ones that the settings name), an engine, workers.

Order of starting: servers, deployment, engine, workers; of leaving: the reverse, so that workers can still hand over
what they run and the engine can still commit it.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from runtara.infra.lifetime import Service
from runtara.infra.settings import Settings

from .children import Part


class LocalPlatform(Service):
    """`settings` are those that reach it, once it is open. `data` is made if need be."""

    def __init__(
        self, settings: Settings, data: Path, targets: Sequence[str], *, processes: int = 1, reload: bool = False,
        registered: bool = False,
    ) -> None:  # fmt: skip
        super().__init__("platform")
        self.settings = settings
        self._data = data
        self._targets = list(targets)
        self._processes = processes
        self._reload = reload
        self._registered = registered
        self._parts: list[Part] = []

    async def open(self) -> None:
        if self.settings.nats_url is None or self.settings.database_url is None:
            await self._embed()
        await self._create()
        self._parts.append(await self.enter(Part(self.settings, ["engine"])))
        if self._targets or self._registered:
            options = ["--processes", str(self._processes), *(["--reload"] if self._reload else [])]
            options += ["--registered"] if self._registered else []
            self._parts.append(await self.enter(Part(self.settings, ["worker", *self._targets, *options])))

    @property
    def pids(self) -> list[int]:
        """Of the engine and, if there is something to host, of the workers' supervisor, as far as they run."""
        return [part.pid for part in self._parts if part.pid is not None]

    async def _embed(self) -> None:
        from runtara.compose.embedded import EmbeddedServers

        servers = await self.enter(EmbeddedServers(self._data))
        self.settings = dataclasses.replace(
            self.settings,
            nats_url=servers.nats_url,
            nats_keys=str(servers.nats_keys),
            nats_user=None,  # what is given for other servers is not for these
            nats_password=None,
            nats_credentials=None,
            tls_ca=None,
            tls_certificate=None,
            tls_key=None,
            database_url=servers.database_url,
        )

    async def _create(self) -> None:
        from runtara.engine.accounts import connect_platform
        from runtara.engine.setup import create_deployment

        async with await connect_platform(self.settings, name="runtara dev") as bus:
            await create_deployment(self.settings, bus)
