"""Which workflows exist, and who hosts them: told by workers, passed on to every partition's journal.

Invariants: a registration is never lost by its worker leaving; it is answered only when every journal has it, so that
a start that is sent after the answer comes behind it; the answer names the consumers of the run queue, which the
engine makes, so that a worker needs no right but to pull. What is decided by registrations is in `workflows`; here is
what people are shown, as partition 0 has it.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import asyncpg
import msgspec
from msgspec import Raw

from runtara.infra.bus import Bus, NotAcknowledged, PublishRefused
from runtara.infra.logs import logger
from runtara.protocol.api import Registration, WorkflowView
from runtara.protocol.definitions import EVERY, KIND
from runtara.protocol.errors import Malformed, PlatformUnreachable, UnknownWorkflow
from runtara.protocol.frames import decode_frame, encode_record, join_frame, split_frames
from runtara.protocol.records import Image, Options, WorkflowForgotten, WorkflowRegistered
from runtara.protocol.subjects import Subjects

from .accounts import Accounts
from .workflows import WorkflowId, nearest

log = logger("registry")

ACK_WAIT_SECONDS: Final = 2
PUBLISH_SECONDS: Final = 3.0  # whoever asks waits for five, and shall hear the reason
FOLD_SECONDS: Final = 1.0  # within which what every journal has is in the table, too
FOLD_PAUSE_SECONDS: Final = 0.05
CONSUMER_KNOWN_SECONDS: Final = 30.0  # until it is made again, in case the run queue was
HOSTED_SECONDS: Final = 15  # a worker that was heard within this time hosts its workflows

_UPSERT_WORKER: Final = """
INSERT INTO workers (tenant, worker, kind, workflows, heard_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant, worker) DO UPDATE
SET kind = excluded.kind, workflows = excluded.workflows, heard_at = excluded.heard_at
"""
_HEARD: Final = """
UPDATE workers w SET heard_at = $3 FROM unnest($1::text[], $2::text[]) AS heard (tenant, worker)
WHERE w.tenant = heard.tenant AND w.worker = heard.worker
"""
_OF_KIND: Final = "SELECT id, options FROM workflows WHERE partition = 0 AND tenant = $1 AND kind = $2 ORDER BY id"
_FORGET: Final = "DELETE FROM workers WHERE heard_at < $1"
_OF_TENANT: Final = "SELECT * FROM workflows WHERE partition = 0 AND tenant = $1 ORDER BY id"
_WORKERS: Final = "SELECT worker, workflows, heard_at FROM workers WHERE tenant = $1"
_NAMES: Final = "SELECT id FROM workflows WHERE partition = 0 AND tenant = $1"
_IS_KNOWN: Final = "SELECT EXISTS (SELECT FROM workflows WHERE tenant = $1 AND id = $2)"
WORKERS_KEPT_SECONDS: Final = 7 * 24 * 3600


class Registry:
    """`accounts` are told what each tenant may pull from; None where the server has no account for each tenant."""

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        bus: Bus,
        subjects: Subjects,
        partitions: int,
        accounts: Accounts | None = None,
    ) -> None:
        self._pool = pool
        self._accounts = accounts
        self._bus = bus
        self._subjects = subjects
        self._partitions = partitions
        self._heard: set[WorkflowId] = set()
        self._made: dict[str, float] = {}  # consumers, and when: by the monotonic clock

    async def register(self, tenant: str, worker: str, workflows: list[Registration]) -> dict[str, str]:
        """Tell every partition; the consumer to pull from for each workflow.

        Raises `PlatformUnreachable` while Postgres or a journal takes nothing: ask again, it does no harm. Postgres is
        asked first, so that what is asked again and again while it is away does not fill the journals.
        """
        now = time.time_ns() // 1_000
        frames = frames_of(tenant, workflows, at=now)
        names = msgspec.json.encode([registration.workflow for registration in workflows])
        kind = workflows[0].kind if workflows else ""
        await self._pool.execute(_UPSERT_WORKER, tenant, worker, kind, names, now)
        consumers = {r.workflow: await self._consumer(r.kind, tenant, r.workflow) for r in workflows}
        if self._accounts is not None:
            await self._accounts.ensure(tenant, consumers.values())
        await self.tell_all(frames)
        return consumers

    async def consumers(self, tenant: str, runner: str, kind: str) -> tuple[dict[str, str], dict[str, Image]]:
        """For a runner, again and again: each workflow of its kind, whoever registered it; its consumer and image."""
        rows = await self._pool.fetch(_OF_KIND, tenant, kind)
        names = [row["id"] for row in rows]
        now = time.time_ns() // 1_000
        await self._pool.execute(_UPSERT_WORKER, tenant, runner, kind, msgspec.json.encode(names), now)
        consumers = {name: await self._known_consumer(kind, tenant, name) for name in names}
        if self._accounts is not None:
            await self._accounts.ensure(tenant, consumers.values())
        options = {row["id"]: msgspec.json.decode(row["options"], type=Options) for row in rows}
        return consumers, {name: one.image for name, one in options.items() if one.image is not None}

    async def host_definitions(self, tenant: str, worker: str, workflows: Sequence[str]) -> str:
        """The consumer of all run requests of registered definitions. `workflows` are what the worker hosts besides."""
        names = msgspec.json.encode([*workflows, EVERY])
        await self._pool.execute(_UPSERT_WORKER, tenant, worker, KIND, names, time.time_ns() // 1_000)
        consumer = await self._consumer(KIND, tenant, None)
        if self._accounts is not None:
            await self._accounts.ensure(tenant, [consumer])
        return consumer

    async def _known_consumer(self, kind: str, tenant: str, workflow: str) -> str:
        name = self._subjects.run_consumer(self._subjects.run_filter(kind, tenant, workflow))
        if time.monotonic() - self._made.get(name, float("-inf")) > CONSUMER_KNOWN_SECONDS:
            await self._consumer(kind, tenant, workflow)
            self._made[name] = time.monotonic()
        return name

    async def _consumer(self, kind: str, tenant: str, workflow: str | None) -> str:
        """The durable consumer of a workflow's run requests, or of all of a kind; made again unchanged, it is the one
        that is there."""
        run_filter = self._subjects.run_filter(kind, tenant, workflow)
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

    async def tell_all(self, frames: Sequence[bytes]) -> None:
        """Returns when every journal has all of it; else raises, and some may have it."""
        told = [self._tell(partition, frames) for partition in range(self._partitions)]
        for outcome in await asyncio.gather(*told, return_exceptions=True):
            if outcome is not None:
                raise outcome

    async def _tell(self, partition: int, frames: Sequence[bytes]) -> None:
        try:
            for frame in frames:
                await self._bus.publish_acked(self._subjects.engine(partition), frame, timeout=PUBLISH_SECONDS)
        except (NotAcknowledged, PublishRefused) as exc:
            log.warning("registration_delayed", partition=partition, reason=str(exc))
            reason = f"the journal of partition {partition} takes no registration now ({exc.reason})"
            raise PlatformUnreachable(reason=reason) from exc

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
            hosts = workers.get(EVERY if row["kind"] == KIND else row["id"], [])
            views.append(
                WorkflowView(
                    id=row["id"],
                    kind=row["kind"],
                    code_version=row["code_version"],
                    description=row["description"],
                    parameters=Raw(row["parameters"]),
                    options=msgspec.json.decode(row["options"], type=Options),
                    registered_at=row["registered_at"],
                    workers=sorted(worker for worker, heard in hosts if heard >= fresh),
                    hosted_until=max((heard for _, heard in hosts), default=None),
                )
            )
        return views

    async def check_known(self, tenant: str, workflow: str) -> None:
        """Raises `UnknownWorkflow`, with the nearest names. One that was registered a moment ago is waited for."""
        deadline = time.monotonic() + FOLD_SECONDS
        while not await self._pool.fetchval(_IS_KNOWN, tenant, workflow):
            if time.monotonic() > deadline:
                known = [row["id"] for row in await self._pool.fetch(_NAMES, tenant)]
                raise UnknownWorkflow(workflow=workflow, hint=nearest(workflow, known))
            await asyncio.sleep(FOLD_PAUSE_SECONDS)

    async def forget(self, tenant: str, workflow: str) -> bool:
        """Tell every partition; False if none knows it. Raises as `register` does."""
        if not await self._pool.fetchval(_IS_KNOWN, tenant, workflow):
            return False
        await self.tell_all(_frames([WorkflowForgotten(instance="", tenant=tenant, workflow=workflow)]))
        return True


def frames_of(tenant: str, workflows: Sequence[Registration], *, at: int) -> list[bytes]:
    """What `tell_all` is to say of these workflows. Raises `Malformed`."""
    return _frames(
        [
            WorkflowRegistered(instance="", at=at, tenant=tenant, **msgspec.structs.asdict(registration))
            for registration in workflows
        ]
    )


def _frames(records: Sequence[WorkflowRegistered | WorkflowForgotten]) -> list[bytes]:
    """Raises `Malformed` for what an engine would not read: here somebody waits for the answer, there nobody does."""
    encoded = [encode_record(record) for record in records]
    frames = []
    while encoded:
        count = split_frames(encoded)
        frame, encoded = join_frame(encoded[:count]), encoded[count:]
        _, rejections = decode_frame(frame)
        if rejections:
            raise Malformed(reason=rejections[0].reason)
        frames.append(frame)
    return frames
