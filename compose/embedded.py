"""NATS and Postgres as children of this process, under one data folder: `dev`, `demo`, `run` and the tests use it.

Both keep real fsync, generated keys and passwords, and ports that were chosen free once. Invariant: whoever is inside
`async with EmbeddedServers(data)` is the only process that is.
"""

import asyncio
import errno
from pathlib import Path

from runtara.infra.credentials.keyring import FILE
from runtara.infra.lifetime import Service
from runtara.protocol.errors import ServerFailed

from . import installation, nats_server, postgres_server
from .installation import Installation
from .nats_log import Violations
from .supervisor import Server, end_leftover, note_of


class EmbeddedServers(Service):
    """The servers in `data` (made if need be). `supervise=False` leaves one that dies dead, until its `start()`.

    Raises `DataInUse` if another live process uses the folder, `ServerFailed` if a server does not start,
    `ExtraMissing` if the extra `embedded` is not installed.
    """

    nats: Server
    postgres: Server
    violations: Violations
    _installation: Installation

    def __init__(self, data: Path, *, supervise: bool = True) -> None:
        super().__init__("embedded-servers")
        self._data = data.absolute()
        self._supervise = supervise

    async def open(self) -> None:
        try:
            await self._open()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            reason = f"the disk of {self._data} is full; make room and start again"
            raise ServerFailed(server="servers", reason=reason) from error

    async def _open(self) -> None:
        self._stack.enter_context(installation.locked(self._data))
        for server in (nats_server, postgres_server):  # before the ports are looked at: they may hold them
            await end_leftover(note_of(self._data / server.FOLDER), server.STOP_SIGNAL)
        self._installation = installation.load(self._data)
        self.nats = Server(nats_server.prepare(self._data, self._installation), supervise=self._supervise)
        self.violations = Violations(self.nats.spec.log)
        await self.enter(self.nats)
        self.spawn(self.violations.run(), "violations")
        spec = await postgres_server.prepare(self._data, self._installation)
        self.postgres = await self.enter(Server(spec, supervise=self._supervise))
        await asyncio.gather(self.nats.wait_up(), self.postgres.wait_up())

    @property
    def nats_url(self) -> str:
        return self._installation.nats_url

    @property
    def nats_keys(self) -> Path:
        """The keys with which an engine keeps the server's accounts."""
        return nats_server.keys_folder(self._data) / FILE

    @property
    def database_url(self) -> str:
        """`postgresql://user:password@127.0.0.1:port/postgres`; the user may create schemas and databases."""
        return self._installation.database_url
