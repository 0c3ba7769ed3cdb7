"""Credentials for what a runner launches, each good for that alone."""

import asyncio

from runtara.infra.logs import logger
from runtara.protocol.credentials import Kind
from runtara.protocol.errors import CredentialRefused, PlatformUnreachable, RuntaraError
from runtara.sdk.connection import Connection, retried

from .launches import LaunchFailed, Order

log = logger("runner")


async def for_one(connection: Connection, order: Order, *, within: float) -> str | None:
    """A container's, that speaks for one instance. None where the platform issues none. Raises `LaunchFailed`."""
    return await _issued(connection, Kind.CONTAINER, order.worker, within=within, instance=order.instance)


async def for_pooled(connection: Connection, kind: str, workflow: str, worker: str, *, within: float) -> str | None:
    """A worker's, that takes the requests of one workflow of `kind`, and registers nothing."""
    names = connection.subjects
    consumer = names.run_consumer(names.run_filter(kind, connection.tenant, workflow))
    return await _issued(connection, Kind.WORKER, worker, within=within, consumers=[consumer])


async def give_back(connection: Connection, worker: str) -> None:
    """What was issued to `worker` is of no use to anybody any more. Asked once: where nobody answers it expires."""
    try:
        await connection.revoke(worker)
    except RuntaraError as exc:
        log.warning("credential_not_given_back", worker=worker, reason=str(exc))


async def _issued(
    connection: Connection, kind: Kind, user: str, *, within: float, instance: str | None = None,
    consumers: list[str] | None = None,
) -> str | None:  # fmt: skip
    deadline = asyncio.get_running_loop().time() + within
    try:
        issued = await retried(
            deadline, lambda: connection.issue(kind=kind, user=user, instance=instance, consumers=consumers)
        )
    except (CredentialRefused, PlatformUnreachable) as exc:
        raise LaunchFailed(reason=f"it gets no credential: {exc}") from exc
    return issued.text if issued is not None else None
