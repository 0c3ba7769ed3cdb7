"""The registry of definitions: JSON workflows in versions, and which of them a start takes.

Registering writes a version and tells every partition that the workflow is run by it, by the same records that tell of
workers' workflows. A start then takes the number of the version into the log: the last one, or one that is asked for.
A worker that hosts definitions asks for the document of the version that an instance has.

Invariants: a version never changes and its number is never used again; the same as the last one once more is that
version, and tells the journals again. Deleting a version is refused while a workflow is started with it, or an instance
that has not ended was.
"""

import time
from typing import Final

import asyncpg
import msgspec
from msgspec import Raw

from runtara.infra.postgres import PgConnection
from runtara.protocol.api import Registration
from runtara.protocol.configuration import DefinitionReply, DefinitionView, RegisterDefinition, RegisteredDefinition
from runtara.protocol.connections import check_names
from runtara.protocol.definitions import KIND, check_definition
from runtara.protocol.errors import DefinitionInUse, DefinitionNotFound
from runtara.protocol.ids import check_id

from .registry import Registry, frames_of

MAX_VIEWS: Final = 1_000
NAMED_USERS: Final = 5  # in a refusal

_LOCK: Final = (
    "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || '/definition/' || $1 || '/' || $2, 0))"
)
_VIEW: Final = "SELECT workflow, version, hash, registration, registered_at, registered_by FROM definitions"
_OF_TENANT: Final = f"""
{_VIEW} WHERE tenant = $1 AND ($2::text IS NULL OR workflow = $2) AND deleted_at IS NULL
ORDER BY workflow, version DESC LIMIT $3
"""
_LATEST: Final = f"{_VIEW} WHERE tenant = $1 AND workflow = $2 AND deleted_at IS NULL ORDER BY version DESC LIMIT 1"
_NEXT: Final = "SELECT COALESCE(max(version), 0) + 1 FROM definitions WHERE tenant = $1 AND workflow = $2"
_ADD: Final = """
INSERT INTO definitions (tenant, workflow, version, document, hash, registration, registered_at, registered_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""
_ONE: Final = """
SELECT version, hash, document FROM definitions
WHERE tenant = $1 AND workflow = $2 AND ($3::int IS NULL OR version = $3) AND deleted_at IS NULL
ORDER BY version DESC LIMIT 1
"""
_VERSIONS: Final = """
SELECT version FROM definitions WHERE tenant = $1 AND workflow = $2 AND deleted_at IS NULL
ORDER BY version DESC LIMIT 10
"""
_DELETE: Final = """
UPDATE definitions SET deleted_at = $4
WHERE tenant = $1 AND workflow = $2 AND ($3::int IS NULL OR version = $3) AND deleted_at IS NULL RETURNING version
"""
_STARTED_WITH: Final = """
SELECT id, (options->>'definition')::int AS version FROM workflows
WHERE partition = 0 AND tenant = $1 AND options->'definition' IS NOT NULL
"""
_WORKFLOW_WITH: Final = """
SELECT DISTINCT id FROM workflows WHERE tenant = $1 AND id = $2 AND options->'definition' IS NOT NULL
    AND ($3::int IS NULL OR (options->>'definition')::int = $3) LIMIT $4
"""
_INSTANCES_WITH: Final = """
SELECT instance FROM instances WHERE tenant = $1 AND workflow = $2
    AND status <> ALL ('{completed,failed,cancelled}') AND state->'options'->'definition' IS NOT NULL
    AND ($3::int IS NULL OR (state->'options'->>'definition')::int = $3)
ORDER BY instance LIMIT $4
"""


class Definitions:
    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", registry: Registry) -> None:
        self._pool = pool
        self._registry = registry

    async def register(self, tenant: str, request: RegisterDefinition) -> RegisteredDefinition:
        """Raises `InvalidDefinition`, `InvalidId`, `Malformed`, and as `Registry.register` does: then ask again."""
        workflow = check_id(request.registration.workflow, "workflow")
        check_names(request.registration.options.connections)
        if request.actor is not None:
            check_id(request.actor, "actor")
        hash = check_definition(workflow, request.document)
        now = time.time_ns() // 1_000
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(_LOCK, tenant, workflow)
            row = await _stored(connection, tenant, request, hash, now=now)
            frames = frames_of(tenant, [_run_by(row, request.registration)], at=now)
        await self._registry.tell_all(frames)
        return RegisteredDefinition(view=_view(row, row["version"]), created=row["registered_at"] == now)

    async def views(self, tenant: str, workflow: str | None) -> list[DefinitionView]:
        """All versions that are not deleted, or those of one workflow; the newest version of each first."""
        started = {row["id"]: row["version"] for row in await self._pool.fetch(_STARTED_WITH, tenant)}
        rows = await self._pool.fetch(_OF_TENANT, tenant, workflow, MAX_VIEWS)
        return [_view(row, started.get(row["workflow"])) for row in rows]

    async def get(self, tenant: str, workflow: str, version: int | None) -> DefinitionReply:
        """A version with its document, or the newest. Raises `DefinitionNotFound`."""
        row = await self._pool.fetchrow(_ONE, tenant, check_id(workflow, "workflow"), version)
        if row is None:
            raise await self._not_found(tenant, workflow, version)
        return DefinitionReply(
            workflow=workflow, version=row["version"], hash=row["hash"], document=Raw(row["document"])
        )

    async def forget(self, tenant: str, workflow: str, version: int | None) -> list[int]:
        """Delete a version, or all: which ones. Raises `DefinitionNotFound`, `DefinitionInUse`."""
        check_id(workflow, "workflow")
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(_LOCK, tenant, workflow)
            users = await _users(connection, tenant, workflow, version)
            now = time.time_ns() // 1_000
            gone = [row["version"] for row in await connection.fetch(_DELETE, tenant, workflow, version, now)]
            if gone and users:  # nothing is deleted: the transaction ends with it
                raise DefinitionInUse(definition=_called(workflow, version), users=users)
        if not gone:
            raise await self._not_found(tenant, workflow, version)
        return sorted(gone)

    async def _not_found(self, tenant: str, workflow: str, version: int | None) -> DefinitionNotFound:
        versions = [str(row["version"]) for row in await self._pool.fetch(_VERSIONS, tenant, workflow)]
        hint = f"the last versions are {', '.join(versions)}" if versions else "`runtara dsl register FILE` makes one"
        return DefinitionNotFound(definition=_called(workflow, version), hint=hint)


def _called(workflow: str, version: int | None) -> str:
    return workflow if version is None else f"{workflow}@{version}"


def _run_by(row: asyncpg.Record, workflow: Registration) -> Registration:
    options = msgspec.structs.replace(workflow.options, runner=KIND, image=None, definition=row["version"])
    return msgspec.structs.replace(workflow, kind=KIND, code_version=row["hash"], options=options)


def _registration(row: asyncpg.Record) -> Registration:
    return msgspec.json.decode(row["registration"], type=Registration)


def _view(row: asyncpg.Record, started: int | None) -> DefinitionView:
    return DefinitionView(
        workflow=row["workflow"], version=row["version"], hash=row["hash"], is_current=row["version"] == started,
        registered_at=row["registered_at"], registered_by=row["registered_by"],
    )  # fmt: skip


async def _stored(
    connection: PgConnection, tenant: str, request: RegisterDefinition, hash: str, *, now: int
) -> asyncpg.Record:
    """The version that is exactly this, which is the last one or else a new one."""
    workflow, registration = request.registration.workflow, request.registration
    latest = await connection.fetchrow(_LATEST, tenant, workflow)
    if latest is not None and latest["hash"] == hash and _registration(latest) == registration:
        return latest
    version = await connection.fetchval(_NEXT, tenant, workflow)
    encoded = bytes(request.document), hash, msgspec.json.encode(registration)
    await connection.execute(_ADD, tenant, workflow, version, *encoded, now, request.actor)
    row = await connection.fetchrow(_LATEST, tenant, workflow)
    assert row is not None
    return row


async def _users(connection: PgConnection, tenant: str, workflow: str, version: int | None) -> str:
    """Those who use it, for people; empty if nobody does."""
    named = []
    for noun, query in (("workflow", _WORKFLOW_WITH), ("instance", _INSTANCES_WITH)):
        ids = [row[0] for row in await connection.fetch(query, tenant, workflow, version, NAMED_USERS + 1)]
        named += [f"{noun} {id}" for id in ids[:NAMED_USERS]]
        named += ["and more"] if len(ids) > NAMED_USERS else []
    return ", ".join(named)
