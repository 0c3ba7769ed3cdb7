"""A peer that speaks the wire by hand: raw frames as client, worker, runner or engine, and what comes back.

Nothing here uses the SDK: the tests of the engine say what travels, and read what the engine wrote from Postgres.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import asyncpg
import msgspec
from msgspec import Raw
from nats.aio.msg import Msg

from runtara.infra.bus import Bus
from runtara.infra.postgres import open_pool
from runtara.infra.settings import Settings
from runtara.projections import audit, refold
from runtara.projections.verdict import Heads, Verdict
from runtara.protocol.api import ForkRequest, InstanceView, RegisterReply, RegisterRequest, Registration, WorkflowView
from runtara.protocol.frames import encode_frame
from runtara.protocol.ids import new_nonce, partition_of
from runtara.protocol.messages import ClaimAnswer, Claimed, CommandAnswer, CommitAnswer
from runtara.protocol.records import (
    Checkpointed,
    Command,
    Completed,
    Record,
    Report,
    Start,
    Started,
    WorkflowForgotten,
    WorkflowRegistered,
)
from runtara.protocol.subjects import Subjects

from .platform import connect
from .polling import eventually

T = TypeVar("T")
R = TypeVar("R", bound=Report)
ANSWER_SECONDS: Final = 10.0


class Inbox:
    """Where answers to one question come; `next(type)` decodes them in the order in which they came."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.messages: asyncio.Queue[bytes] = asyncio.Queue()

    async def next(self, type: type[T], *, within: float = ANSWER_SECONDS) -> T:
        async with asyncio.timeout(within):
            return msgspec.json.decode(await self.messages.get(), type=type)


class Held:
    """A claim that was won, and the reports under it, numbered as they must be."""

    def __init__(self, peer: "Peer", answer: Claimed, worker: str) -> None:
        self.peer = peer
        self.answer = answer
        self.instance = answer.instance
        self.attempt = answer.attempt
        self.nonce = answer.nonce
        self.worker = worker
        self.seq = 0

    def record(self, kind: type[R], /, *, seq: int | None = None, **fields: Any) -> R:
        """A report under this claim; with the next number unless `seq` is given."""
        if seq is None:
            self.seq += 1
            seq = self.seq
        return kind(instance=self.instance, attempt=self.attempt, nonce=self.nonce, seq=seq, **fields)

    def step(self, key: str, value: bytes = b"1", **fields: Any) -> Checkpointed:
        return self.record(Checkpointed, key=key, data=Raw(b'{"kind":"step","value":%s}' % value), **fields)

    async def publish(self, *records: Record) -> int:
        """One frame; the sequence that the journal gave it."""
        return await self.peer.report(self.worker, *records)

    async def commit(self, *records: Record) -> CommitAnswer:
        """One frame, and the engine's answer to it after its commit."""
        return await self.peer.commit(self.worker, *records)

    async def complete(self, result: bytes = b"null") -> None:
        answer = await self.commit(self.record(Completed, result=Raw(result)))
        assert answer.rejected == []


class Peer:
    """`partitions` as the deployment has them; `tenant` is the one it belongs to."""

    def __init__(self, settings: Settings, bus: Bus, pool: "asyncpg.Pool[asyncpg.Record]", tenant: str) -> None:
        self.settings = settings
        self.subjects = Subjects(settings.deployment)
        self.bus = bus
        self.pool = pool
        self.tenant = tenant
        self._prefix = f"{bus.inbox}.peer"
        self._inboxes: dict[str, Inbox] = {}

    # publishing

    def partition(self, instance: str, tenant: str | None = None) -> int:
        return partition_of(tenant or self.tenant, instance, self.settings.partitions)

    async def raw(self, subject: str, payload: bytes) -> int:
        """Any bytes on any subject of the journal."""
        return (await self.bus.publish_acked(subject, payload)).seq

    async def say(self, *records: Record, client: str = "c1") -> int:
        """A frame of commands, as a client."""
        subject = self.subjects.commands(self.partition(records[0].instance), self.tenant, client)
        return await self.raw(subject, encode_frame(records))

    async def report(self, worker: str, *records: Record) -> int:
        """A frame of reports, as a worker."""
        subject = self.subjects.worker_reports(self.partition(records[0].instance), self.tenant, worker)
        return await self.raw(subject, encode_frame(records))

    async def report_as_runner(self, *records: Record) -> None:
        """A frame of a runner's, and until it is folded."""
        partition = self.partition(records[0].instance)
        sequence = await self.raw(self.subjects.runner(partition, self.tenant, "r1"), encode_frame(records))
        await self.folded(sequence, partition)

    async def engine_says(self, partition: int, *records: Record) -> int:
        return await self.raw(self.subjects.engine(partition), encode_frame(records))

    def registered(self, workflow: str, **fields: Any) -> WorkflowRegistered:
        """What an engine tells a partition of a workflow."""
        return WorkflowRegistered(instance="", tenant=self.tenant, workflow=workflow, **fields)

    def forgotten(self, workflow: str) -> WorkflowForgotten:
        return WorkflowForgotten(instance="", tenant=self.tenant, workflow=workflow)

    # asking

    async def open(self) -> None:
        await self.bus.subscribe(f"{self._prefix}.*", self._on_answer)

    def inbox(self) -> Inbox:
        inbox = Inbox(f"{self._prefix}.{secrets.token_hex(6)}")
        self._inboxes[inbox.subject] = inbox
        return inbox

    def _on_answer(self, msg: Msg) -> None:
        if msg.subject in self._inboxes:
            for answer in msgspec.json.decode(msg.data, type=list[Raw]):
                self._inboxes[msg.subject].messages.put_nowait(bytes(answer))

    async def ask(self, command: Command) -> CommandAnswer:
        """A command, and its answer after the commit."""
        inbox = self.inbox()
        await self.say(msgspec.structs.replace(command, reply=inbox.subject))
        return await inbox.next(CommandAnswer)

    async def commit(self, worker: str, *records: Record) -> CommitAnswer:
        inbox = self.inbox()
        await self.report(worker, *(msgspec.structs.replace(record, reply=inbox.subject) for record in records))
        return await inbox.next(CommitAnswer)

    async def api(self, verb: str, question: object, answer: type[T], instance: str | None = None) -> T:
        return await self.bus.call(self.subjects.api(self.tenant, verb, instance), question, answer)

    async def get(self, instance: str) -> InstanceView:
        return await self.api("get", {}, InstanceView, instance)

    async def register(self, *workflows: str, worker: str = "w1", kind: str = "pool") -> RegisterReply:
        request = RegisterRequest(
            worker=worker, workflows=[Registration(workflow=name, kind=kind) for name in workflows]
        )
        return await self.api("register", request, RegisterReply)

    async def start(self, instance: str, workflow: str = "wf", *, input: bytes = b"{}", id: str = "") -> CommandAnswer:
        """Start an instance of a workflow that is registered."""
        return await self.ask(
            Start(instance=instance, id=id or f"start-{instance}", workflow=workflow, input=Raw(input))
        )

    async def fork(self, source: str, instance: str, *, id: str = "", **fields: Any) -> CommandAnswer:
        """Ask for a fork, and wait for the answer to the command."""
        inbox = self.inbox()
        request = ForkRequest(id=id or f"fork-{instance}", instance=instance, reply=inbox.subject, **fields)
        await self.api("fork", request, bool, source)
        return await inbox.next(CommandAnswer)

    async def claim(self, instance: str, *, attempt: int = 1, worker: str = "w1", nonce: str | None = None) -> Held:
        """A claim that must be won."""
        answer = await self.try_claim(instance, attempt=attempt, worker=worker, nonce=nonce)
        assert isinstance(answer, Claimed), answer
        return Held(self, answer, worker)

    async def try_claim(
        self, instance: str, *, attempt: int = 1, worker: str = "w1", nonce: str | None = None
    ) -> ClaimAnswer:
        inbox = self.inbox()
        record = Started(
            instance=instance, attempt=attempt, worker=worker, nonce=nonce or new_nonce(), reply=inbox.subject
        )
        await self.report(worker, record)
        return await inbox.next(ClaimAnswer)  # type: ignore[arg-type]  # a union

    async def started(self, instance: str, *, worker: str = "w1") -> Held:
        """An instance that runs at `worker`, in its first attempt."""
        answer = await self.start(instance)
        assert answer.error is None, answer
        return await self.claim(instance, worker=worker)

    # what the engine wrote

    async def folded(self, sequence: int, partition: int = 0) -> None:
        """Until the engine has committed the journal up to `sequence`."""

        async def is_folded() -> bool:
            return bool(await self.cursor(partition) >= sequence)

        await eventually(is_folded, within=20, what=f"cursor of partition {partition} at {sequence}")

    async def cursor(self, partition: int = 0) -> int:
        return int(await self.pool.fetchval("SELECT cursor FROM partitions WHERE id = $1", partition))

    async def owner(self) -> str | None:
        """The token of the last `owner` record that was folded in partition 0."""
        token: str | None = await self.pool.fetchval("SELECT journal_owner FROM partitions WHERE id = 0")
        return token

    async def until_owner_is_not(self, token: str | None) -> None:
        """Until another engine, or another tenure, has taken over and said so."""

        async def changed() -> bool:
            return await self.owner() != token

        await eventually(changed, within=15)

    async def events(self, instance: str, tenant: str | None = None) -> list[asyncpg.Record]:
        return await self.pool.fetch(
            "SELECT * FROM events WHERE tenant = $1 AND instance = $2 ORDER BY version", tenant or self.tenant, instance
        )

    async def workflows(self) -> list[WorkflowView]:
        """What people are shown."""
        return await self.api("workflows", {}, list[WorkflowView])

    async def until_shown(self, *workflows: str) -> list[WorkflowView]:
        """Until people are shown these workflows and no others: a moment after they were registered or forgotten."""

        async def are_shown() -> bool:
            return [view.id for view in await self.workflows()] == sorted(workflows)

        await eventually(are_shown)
        return await self.workflows()

    async def types(self, instance: str, tenant: str | None = None) -> list[str]:
        return [row["type"] for row in await self.events(instance, tenant)]

    async def until_type(self, instance: str, type: str, *, times: int = 1, within: float = 10.0) -> list[str]:
        """Until the instance has so many events of that type; all its types then."""

        async def there() -> list[str]:
            types = await self.types(instance)
            return types if types.count(type) >= times else []

        return await eventually(there, within=within, what=f"{times} {type} of {instance}")

    async def row(self, instance: str, tenant: str | None = None) -> asyncpg.Record | None:
        return await self.pool.fetchrow(
            "SELECT * FROM instances WHERE tenant = $1 AND instance = $2", tenant or self.tenant, instance
        )

    async def status(self, instance: str) -> str | None:
        row = await self.row(instance)
        return row["status"] if row is not None else None

    async def until_status(self, instance: str, status: str, *, within: float = 10.0) -> None:
        async def reached() -> None:
            assert await self.status(instance) == status

        async def is_reached() -> bool:
            await reached()
            return True

        await eventually(is_reached, within=within)

    async def until_sent(self) -> None:
        """Until nothing waits to be told to other instances: a row goes when its target's journal has it."""

        async def is_sent() -> bool:
            return bool(await self.pool.fetchval("SELECT count(*) FROM outbox") == 0)

        await eventually(is_sent)

    async def rejected(self) -> list[asyncpg.Record]:
        return await self.pool.fetch("SELECT * FROM rejected ORDER BY id")

    async def verify(self, against: Heads | None = None) -> Verdict:
        async with self.pool.acquire() as connection:
            return await audit.verify(connection, against=against)

    async def replay(self) -> Verdict:
        async with self.pool.acquire() as connection:
            return await refold.replay(connection)

    async def is_sound(self) -> None:
        """The chains are whole, and the projections say what the log says."""
        assert (await self.verify()).findings == []
        findings = (await self.replay()).findings
        assert findings == [], findings

    # NATS

    async def waiting_runs(self) -> list[str]:
        """The subjects that wait in the run queue (or are in flight)."""
        question = {"subjects_filter": ">"}
        data = await self.bus.jetstream(f"STREAM.INFO.{self.subjects.run_stream}", question)
        state = msgspec.json.decode(data)["state"]
        return sorted(state.get("subjects") or {})


@asynccontextmanager
async def connect_peer(settings: Settings, *, tenant: str = "default") -> AsyncIterator[Peer]:
    """A peer with connections of its own; as many as asked for."""
    bus = await connect(settings, tenant=tenant, user=f"peer-{secrets.token_hex(4)}")
    async with bus, await open_pool(settings.require_database_url(), settings.deployment, size=3) as pool:
        peer = Peer(settings, bus, pool, tenant)
        await peer.open()
        yield peer
