"""The pool: worker processes for some targets, kept running, their ends told to the platform.

This only wires: `Supervisor` keeps the processes, `Exits` speaks for them, `watch` says when sources changed.
"""

import dataclasses
from collections.abc import Sequence

from runtara.infra.lifetime import Service
from runtara.infra.login import CredentialLogin
from runtara.infra.settings import Settings
from runtara.protocol.credentials import Kind
from runtara.protocol.ids import new_token
from runtara.sdk.connection import retried
from runtara.sdk.credentials import Need, login_for
from runtara.sdk.discovery import watched_folders

from .child import Child, worker_command, worker_environ
from .exits import Exits
from .supervisor import Supervisor
from .watch import changes


class Pool(Service):
    """`processes` workers for `targets`, and with `registered` for all registered definitions. Open when all of them
    are ready; `workers` names them."""

    def __init__(
        self, settings: Settings, targets: Sequence[str], *, processes: int = 1, reload: bool = False,
        registered: bool = False,
    ) -> None:  # fmt: skip
        super().__init__("pool")
        self._settings = settings
        self._targets = list(targets)
        self._processes = processes
        self._reload = reload
        self._registered = registered
        self._supervisor: Supervisor | None = None

    @property
    def children(self) -> list[Child]:
        """The processes in service."""
        return self._supervisor.children if self._supervisor else []

    @property
    def workers(self) -> dict[str, tuple[str, ...]]:
        """The workers in service and the workflows each of them hosts."""
        return {child.worker: child.workflows for child in self.children if child.worker is not None}

    async def open(self) -> None:
        folders = watched_folders(self._targets)
        exits = await self.enter(Exits(self._settings))
        self._supervisor = Supervisor(
            worker_command(self._targets, registered=self._registered),
            self._environ,
            processes=self._processes,
            grace=self._settings.drain_seconds,
            on_ended=exits.tell,
            reloads=changes(folders) if self._reload else None,
        )
        await self.enter(self._supervisor)

    async def _environ(self) -> dict[str, str]:
        """Of the next worker process: with a credential of its own, and nothing of ours that could get it another."""
        settings = self._settings
        need = Need(kind=Kind.WORKER, user=f"w-{new_token()}")
        login, _ = await retried(None, lambda: login_for(settings, need))
        if isinstance(login, CredentialLogin) and login.credential.holder is not None:
            settings = dataclasses.replace(settings, nats_credentials=login.credential.text, nats_keys=None)
        return worker_environ(settings)
