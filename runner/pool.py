"""The pool: worker processes for some targets, kept running, their ends told to the platform.

This only wires: `Supervisor` keeps the processes, `Exits` speaks for them, `watch` says when sources changed.
"""

from collections.abc import Sequence

from runtara.infra.lifetime import Service
from runtara.infra.settings import Settings
from runtara.sdk.discovery import watched_folders

from .child import Child, worker_command, worker_environ
from .exits import Exits
from .supervisor import Supervisor
from .watch import changes


class Pool(Service):
    """`processes` workers for `targets`. Open when all of them are ready; `workers` names them."""

    def __init__(self, settings: Settings, targets: Sequence[str], *, processes: int = 1, reload: bool = False) -> None:
        super().__init__("pool")
        self._settings = settings
        self._targets = list(targets)
        self._processes = processes
        self._reload = reload
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
            worker_command(self._targets),
            worker_environ(self._settings.to_environ()),
            processes=self._processes,
            grace=self._settings.drain_seconds,
            on_ended=exits.tell,
            reloads=changes(folders) if self._reload else None,
        )
        await self.enter(self._supervisor)
