"""Connections: named secrets of each tenant, sealed in the database, handed out to the code that may use them.

A workflow's registration names the connections that its code may open. An instance may open those that it was started
with, those that its workflow is registered with now (code of a pool is replaced while instances go on), and those of
the version of its definition. The answer to a question is not in its reply: it goes to the inbox of the worker that
holds the instance's claim, to which only that worker's credential may subscribe. So whoever can merely ask learns
nothing.

Invariants: secrets are opened here and nowhere else, and are in no log, no event, no error; what was sealed for one
tenant, name and type opens as nothing else; nothing is sealed with a key that those who sealed the others do not have.
"""

import asyncio
import time
from typing import Final

import asyncpg
import msgspec
from msgspec import Raw

from runtara.infra.bus import Bus
from runtara.infra.postgres import PgConnection
from runtara.infra.sealing import SealingKey, SealingKeys
from runtara.projections.instances import InstanceRow
from runtara.protocol.api import Registration
from runtara.protocol.configuration import ConnectionView, OpenConnection, SetConnection
from runtara.protocol.connections import check_connection
from runtara.protocol.errors import (
    ConnectionNotAllowed,
    ConnectionNotFound,
    Refused,
    SealingKeyMissing,
)
from runtara.protocol.ids import check_id
from runtara.protocol.limits import MAX_CONNECTIONS
from runtara.protocol.messages import OpenedConnection
from runtara.protocol.records import Options
from runtara.protocol.subjects import inbox_prefix, may_answer

from . import log as event_log
from . import queries, sql

_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || '/connections', 0))"
_KEY_IDS: Final = "SELECT DISTINCT key_id FROM connections"
_COUNT: Final = "SELECT count(*) FROM connections WHERE tenant = $1 AND name <> $2"
_SET: Final = """
INSERT INTO connections (tenant, name, type, sealed, key_id, set_at, set_by) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (tenant, name) DO UPDATE SET type = excluded.type, sealed = excluded.sealed, key_id = excluded.key_id,
    set_at = excluded.set_at, set_by = excluded.set_by
"""
_VIEWS: Final = "SELECT name, type, set_at, set_by FROM connections WHERE tenant = $1 ORDER BY name"
_USERS: Final = """
SELECT id, options->'connections' AS names FROM workflows
WHERE partition = 0 AND tenant = $1 AND options->'connections' IS NOT NULL ORDER BY id
"""
_DELETE: Final = "DELETE FROM connections WHERE tenant = $1 AND name = $2 RETURNING name"
_ONE: Final = "SELECT type, sealed, key_id FROM connections WHERE tenant = $1 AND name = $2"
_ALL: Final = "SELECT tenant, name, type, sealed, key_id FROM connections WHERE key_id <> $1 ORDER BY tenant, name"
_RESEAL: Final = "UPDATE connections SET sealed = $3, key_id = $4 WHERE tenant = $1 AND name = $2"
_REGISTERED: Final = "SELECT options FROM workflows WHERE partition = 0 AND tenant = $1 AND id = $2"
_DEFINED: Final = "SELECT registration FROM definitions WHERE tenant = $1 AND workflow = $2 AND version = $3"


class Connections:
    """`voice` sends what is opened."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", voice: Bus, keys: SealingKeys) -> None:
        self._pool = pool
        self._voice = voice
        self._keys = keys

    async def set(self, tenant: str, request: SetConnection) -> ConnectionView:
        """Raises `InvalidId`, `InvalidConnection`, `Refused`, `SealingKeyMissing`, `InvalidSetting`."""
        name, type, now = request.name, request.type, time.time_ns() // 1_000
        check_connection(name, type, request.fields)
        if request.actor is not None:
            check_id(request.actor, "actor")
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(_LOCK)
            if await connection.fetchval(_COUNT, tenant, name) >= MAX_CONNECTIONS:
                raise Refused(reason=f"tenant {tenant} has {MAX_CONNECTIONS:,} connections already; delete some")
            key = await _sealing_key(connection, self._keys)
            sealed = key.seal(bytes(request.fields), (tenant, name, type))
            await connection.execute(_SET, tenant, name, type, sealed, key.id, now, request.actor)
            return await _view(connection, tenant, name)

    async def views(self, tenant: str) -> list[ConnectionView]:
        """By name; what they hold is shown to nobody."""
        async with self._pool.acquire() as connection:
            return await _views(connection, tenant)

    async def forget(self, tenant: str, name: str) -> None:
        """Raises `ConnectionNotFound`. Whoever has opened it lately may have it for a minute more."""
        check_id(name, "connection")
        if not await self._pool.fetchval(_DELETE, tenant, name):
            raise ConnectionNotFound(connection=name, tenant=tenant)

    async def open(self, tenant: str, instance: str, request: OpenConnection) -> None:
        """Send it to whoever holds the instance, if that may have it.

        Raises `InstanceNotFound`, `ConnectionNotAllowed`, `ConnectionNotFound`, `SealingKeyMissing`.
        """
        name = check_id(request.name, "connection")
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(sql.LOAD_INSTANCES, [tenant], [instance])
            if not rows:
                raise await queries.not_found(connection, tenant, instance)
            row = event_log.row_of(rows[0])
            refusal = _stranger(row, request.reply) or await _unnamed(connection, row, name)
            if refusal is not None:
                raise ConnectionNotAllowed(instance=instance, connection=name, reason=refusal)
            found = await connection.fetchrow(_ONE, tenant, name)
        if found is None:
            raise ConnectionNotFound(connection=name, tenant=tenant)
        fields = Raw(_opened(self._keys.read(), tenant, name, found))
        opened = OpenedConnection(name=name, type=found["type"], fields=fields)
        await self._voice.publish(request.reply, msgspec.json.encode(opened))


async def seal_again(pool: "asyncpg.Pool[asyncpg.Record]", keys: SealingKeys) -> tuple[str, int]:
    """Seal everything with the first key: its id, and how many connections it was. All of it, or nothing.

    Raises `SealingKeyMissing`.
    """
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(_LOCK)
        first = await _sealing_key(connection, keys)
        known = keys.read()
        rows = await connection.fetch(_ALL, first.id)
        for row in rows:
            tenant, name, type = row["tenant"], row["name"], row["type"]
            sealed = first.seal(_opened(known, tenant, name, row), (tenant, name, type))
            await connection.execute(_RESEAL, tenant, name, sealed, first.id)
    return first.id, len(rows)


async def _sealing_key(connection: PgConnection, keys: SealingKeys) -> SealingKey:
    """The first key. It is drawn only where nothing is sealed yet: then no engine can have another."""
    known = keys.read()
    used = {row["key_id"] for row in await connection.fetch(_KEY_IDS)}
    if used and not used & {key.id for key in known}:
        have = f"the keys here are {', '.join(key.id for key in known)}" if known else "there is no key here"
        raise SealingKeyMissing(reason=f"connections are sealed with the key {', '.join(sorted(used))}, and {have}")
    return known[0] if known else await asyncio.to_thread(keys.draw)


def _opened(keys: list[SealingKey], tenant: str, name: str, row: asyncpg.Record) -> bytes:
    """The fields, as JSON."""
    by_id = {key.id: key for key in keys}
    key = by_id.get(row["key_id"])
    if key is None:
        reason = f"connection {name} is sealed with the key {row['key_id']}, which the engine does not have"
        raise SealingKeyMissing(reason=reason)
    content = key.open(row["sealed"], (tenant, name, row["type"]))
    if content is None:
        raise SealingKeyMissing(
            reason=f"connection {name} was changed in the database, or is another one's: set it again"
        )
    return content


def _stranger(row: InstanceRow, reply: str) -> str | None:
    """Why whoever listens at `reply` is not who runs the instance's code; None if it is.

    A claim that its process made by itself, with a credential for this one instance, proves only that somebody of the
    tenant wanted it: code that is trusted with connections was launched by a runner, or is a registered worker.
    """
    claim = row.state.claim
    if claim is None or claim.reserved:
        return f"nobody runs it now (it is {row.state.status.value})"
    if row.state.external or (claim.source.startswith("i.") and claim.launch is None):
        return "it is spoken for by a script, which no registration stands for"
    if not may_answer(row.tenant, reply) or not reply.startswith(f"{inbox_prefix(row.tenant, claim.worker)}."):
        return "another worker runs it than the one that asks"
    return None


async def _unnamed(connection: PgConnection, row: InstanceRow, name: str) -> str | None:
    """Why its workflow may not use it; None if it may."""
    if name in row.state.options.connections:
        return None
    options = await connection.fetchval(_REGISTERED, row.tenant, row.state.workflow)
    if options is not None and name in msgspec.json.decode(options, type=Options).connections:
        return None
    version = row.state.options.definition
    if version is not None and name in await _of_version(connection, row.tenant, row.state.workflow, version):
        return None
    return f"its workflow {row.state.workflow} is not registered for it"


async def _of_version(connection: PgConnection, tenant: str, workflow: str, version: int) -> tuple[str, ...]:
    """What the version of its definition names, whatever the last one does."""
    found = await connection.fetchval(_DEFINED, tenant, workflow, version)
    return msgspec.json.decode(found, type=Registration).options.connections if found is not None else ()


async def _views(connection: PgConnection, tenant: str) -> list[ConnectionView]:
    users: dict[str, list[str]] = {}
    for row in await connection.fetch(_USERS, tenant):
        for name in msgspec.json.decode(row["names"], type=list[str]):
            users.setdefault(name, []).append(row["id"])
    return [
        ConnectionView(
            name=row["name"], type=row["type"], used_by=users.get(row["name"], []), set_at=row["set_at"],
            set_by=row["set_by"],
        )
        for row in await connection.fetch(_VIEWS, tenant)
    ]  # fmt: skip


async def _view(connection: PgConnection, tenant: str, name: str) -> ConnectionView:
    return next(view for view in await _views(connection, tenant) if view.name == name)
