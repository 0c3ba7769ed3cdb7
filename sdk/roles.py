"""Where a worker's run requests wait: it registers what it hosts, or a runner has launched it for a workflow that is
registered with an image.

Invariant: what a runner launched never registers anything. That would take the workflow over from its image.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from runtara.infra.logs import logger
from runtara.protocol.api import RegisterReply, RegisterRequest
from runtara.protocol.configuration import HostDefinitions
from runtara.protocol.errors import InvalidTarget, Unavailable

from .connection import Connection
from .discovery import Code
from .library import check_language
from .resident import AnyWorkflow

log = logger("worker")

RETRY_SECONDS: Final = 0.5


class Role(Protocol):
    """What a worker is to the platform."""

    @property
    def kind(self) -> str: ...
    @property
    def hosts_definitions(self) -> bool: ...

    async def find_requests(self, connection: Connection, worker: str, code: Code) -> RegisterReply:
        """The consumers to pull from. Waits for the platform if it has to."""
        ...


class Registrar:
    """One of the pool's. `definitions`: it hosts every registered definition, too."""

    kind = "pool"

    def __init__(self, *, definitions: bool = False) -> None:
        self.hosts_definitions = definitions

    async def find_requests(self, connection: Connection, worker: str, code: Code) -> RegisterReply:
        while True:
            try:
                return await self._register(connection, worker, code)
            except Unavailable as exc:
                log.warning("registration_delayed", reason=str(exc))
                await asyncio.sleep(RETRY_SECONDS)

    async def _register(self, connection: Connection, worker: str, code: Code) -> RegisterReply:
        workflows = [one.registration(code_version=code.version, kind=self.kind) for one in code.workflows]
        request = RegisterRequest(worker=worker, workflows=workflows)
        reply = await connection.call("register", request, RegisterReply)
        if not self.hosts_definitions:
            return reply
        names = [workflow.workflow for workflow in workflows]
        also = await connection.call("host_definitions", HostDefinitions(worker=worker, workflows=names), RegisterReply)
        return RegisterReply(consumers={**reply.consumers, **also.consumers}, stream=reply.stream)


def registrar(*, definitions: bool = False) -> Registrar:
    """Raises `ExtraMissing` if definitions are to be hosted, and cannot be loaded here."""
    if definitions:
        check_language()
    return Registrar(definitions=definitions)


class Launched:
    """One that a runner of `kind` keeps. The consumers are there, by names that follow from what they are for."""

    hosts_definitions = False

    def __init__(self, kind: str) -> None:
        self.kind = kind

    async def find_requests(self, connection: Connection, worker: str, code: Code) -> RegisterReply:
        names, tenant = connection.subjects, connection.tenant
        filters = {one.name: names.run_filter(self.kind, tenant, one.name) for one in code.workflows}
        consumers = {workflow: names.run_consumer(filter) for workflow, filter in filters.items()}
        return RegisterReply(consumers=consumers, stream=names.run_stream)


def only(code: Code, workflow: str, targets: Sequence[str]) -> Code:
    """`code` with nothing to host but `workflow`. Raises `InvalidTarget` if that is not in it."""
    found: tuple[AnyWorkflow, ...] = tuple(one for one in code.workflows if one.name == workflow)
    if not found:
        raise InvalidTarget(target=" ".join(targets), reason=f"there is no workflow {workflow!r} in it")
    return msgspec.structs.replace(code, workflows=found)
