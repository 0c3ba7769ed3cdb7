"""Which workflows exist: registered by workers, asked by every start.

Invariants: a registration is never lost by its worker leaving; the answer to `register` names the consumers of the
run queue, which the engine makes, so that a worker needs no right but to pull.
"""

import time
from collections.abc import Iterable
from typing import Final

import asyncpg
import msgspec
from msgspec import Raw

from runtara.infra.bus import Bus
from runtara.protocol.messages import Registration, WorkflowView
from runtara.protocol.records import Options
from runtara.protocol.subjects import Subjects

WorkflowId = tuple[str, str]  # tenant, workflow
ACK_WAIT_SECONDS: Final = 2
MAX_CACHED: Final = 10_000
FRESH_SECONDS: Final = 2.0  # another engine may have been told since
HOSTED_SECONDS: Final = 15  # a worker that was heard within this time hosts its workflows

_UPSERT: Final = """
INSERT INTO workflows (tenant, id, kind, code_version, description, parameters, options, registered_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (tenant, id) DO UPDATE SET kind = excluded.kind, code_version = excluded.code_version,
    description = excluded.description, parameters = excluded.parameters, options = excluded.options,
    registered_at = excluded.registered_at
"""
_UPSERT_WORKER: Final = """
INSERT INTO workers (tenant, worker, kind, workflows, heard_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant, worker) DO UPDATE
SET kind = excluded.kind, workflows = excluded.workflows, heard_at = excluded.heard_at
"""
_HEARD: Final = """
UPDATE workers w SET heard_at = $3 FROM unnest($1::text[], $2::text[]) AS heard (tenant, worker)
WHERE w.tenant = heard.tenant AND w.worker = heard.worker
"""
_FORGET: Final = "DELETE FROM workers WHERE heard_at < $1"
_FIND: Final = "SELECT * FROM workflows w JOIN unnest($1::text[], $2::text[]) AS asked (tenant, id) USING (tenant, id)"
_OF_TENANT: Final = "SELECT * FROM workflows WHERE tenant = $1 ORDER BY id"
_WORKERS: Final = "SELECT worker, workflows, heard_at FROM workers WHERE tenant = $1"
_DELETE: Final = "DELETE FROM workflows WHERE tenant = $1 AND id = $2 RETURNING id"
WORKERS_KEPT_SECONDS: Final = 7 * 24 * 3600


class Registry:
    """Reads are cached for a moment: starts come by the thousand, and another engine may be told of changes."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", bus: Bus, subjects: Subjects) -> None:
        self._pool = pool
        self._bus = bus
        self._subjects = subjects
        self._known: dict[WorkflowId, tuple[Registration, float]] = {}
        self._heard: set[WorkflowId] = set()

    async def register(self, tenant: str, worker: str, workflows: list[Registration]) -> dict[str, str]:
        """Keep the registrations; the consumer to pull from for each workflow."""
        now = time.time_ns() // 1_000
        names = msgspec.json.encode([registration.workflow for registration in workflows])
        async with self._pool.acquire() as connection, connection.transaction():
            for r in sorted(workflows, key=lambda r: r.workflow):
                await connection.execute(
                    _UPSERT, tenant, r.workflow, r.kind, r.code_version, r.description, bytes(r.parameters),
                    msgspec.json.encode(r.options), now,
                )  # fmt: skip
            await connection.execute(_UPSERT_WORKER, tenant, worker, workflows[0].kind if workflows else "", names, now)
        for registration in workflows:
            self._known[tenant, registration.workflow] = (registration, time.monotonic())
        return {r.workflow: await self._consumer(tenant, r) for r in workflows}

    async def _consumer(self, tenant: str, registration: Registration) -> str:
        """The durable consumer of a workflow's run requests; made again unchanged, it is the one that is there."""
        run_filter = self._subjects.run_filter(registration.kind, tenant, registration.workflow)
        name = self._subjects.run_consumer(run_filter)
        config = {
            "durable_name": name,
            "filter_subject": run_filter,
            "ack_policy": "explicit",
            "ack_wait": ACK_WAIT_SECONDS * 1_000_000_000,
            "deliver_policy": "all",
            "replay_policy": "instant",
            "max_ack_pending": 10_000,
            "max_waiting": 2_048,
        }
        stream = self._subjects.run_stream
        await self._bus.jetstream(
            f"CONSUMER.CREATE.{stream}.{name}.{run_filter}", {"stream_name": stream, "config": config, "action": ""}
        )
        return name

    async def find(self, wanted: Iterable[WorkflowId]) -> dict[WorkflowId, Registration]:
        """The registrations of those that exist. If one does not, those of its tenant come too, for a good guess."""
        wanted = set(wanted)
        if len(self._known) > MAX_CACHED:
            self._known.clear()
        fresh = time.monotonic() - FRESH_SECONDS
        unknown = [id for id in wanted if id not in self._known or self._known[id][1] < fresh]
        if unknown:
            await self._read(unknown)
        if all(id in self._known for id in wanted):
            return {id: self._known[id][0] for id in wanted}
        tenants = {tenant for tenant, name in wanted if (tenant, name) not in self._known}
        return {id: known for id, (known, _) in self._known.items() if id in wanted or id[0] in tenants}

    async def _read(self, ids: list[WorkflowId]) -> None:
        for id in ids:
            self._known.pop(id, None)
        rows = await self._pool.fetch(_FIND, [t for t, _ in ids], [w for _, w in ids])
        if len(rows) < len(ids):
            missing = {t for t, _ in ids} - {row["tenant"] for row in rows}
            for tenant in missing:
                rows += await self._pool.fetch(_OF_TENANT, tenant)
        for row in rows:
            self._known[row["tenant"], row["id"]] = (_registration(row), time.monotonic())

    def heard(self, tenant: str, worker: str) -> None:
        self._heard.add((tenant, worker))

    async def write_heard(self) -> None:
        """Now and then: who was heard lately, so that `show` can say since when nobody hosts a workflow."""
        heard, self._heard = list(self._heard), set()
        if heard:
            now = time.time_ns() // 1_000
            await self._pool.execute(_HEARD, [t for t, _ in heard], [w for _, w in heard], now)
            await self._pool.execute(_FORGET, now - WORKERS_KEPT_SECONDS * 1_000_000)

    async def views(self, tenant: str) -> list[WorkflowView]:
        now = time.time_ns() // 1_000
        workers: dict[str, list[tuple[str, int]]] = {}
        for row in await self._pool.fetch(_WORKERS, tenant):
            for name in msgspec.json.decode(row["workflows"], type=list[str]):
                workers.setdefault(name, []).append((row["worker"], row["heard_at"]))
        fresh = now - HOSTED_SECONDS * 1_000_000
        views = []
        for row in await self._pool.fetch(_OF_TENANT, tenant):
            hosts = workers.get(row["id"], [])
            known = _registration(row)
            views.append(
                WorkflowView(
                    id=known.workflow,
                    kind=known.kind,
                    code_version=known.code_version,
                    description=known.description,
                    parameters=known.parameters,
                    options=known.options,
                    registered_at=row["registered_at"],
                    workers=sorted(worker for worker, heard in hosts if heard >= fresh),
                    hosted_until=max((heard for _, heard in hosts), default=None),
                )
            )
        return views

    async def delete(self, tenant: str, workflow: str) -> bool:
        self._known.pop((tenant, workflow), None)
        return await self._pool.fetchval(_DELETE, tenant, workflow) is not None


def _registration(row: asyncpg.Record) -> Registration:
    return Registration(
        workflow=row["id"],
        kind=row["kind"],
        code_version=row["code_version"],
        parameters=Raw(row["parameters"]),
        options=msgspec.json.decode(row["options"], type=Options),
        description=row["description"],
    )
