"""In-memory twins of what a client stands on: its commands, its questions, and how it learns of ends.

Invariants: what they raise is what the real ones raise; nothing here waits by a clock.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, TypeVar

import msgspec

from runtara.engine.lifecycle import fork_frame, fork_record, position
from runtara.engine.memory import MemoryBus, Row, done_of, memos, view
from runtara.protocol.api import (
    EventsReply,
    EventsRequest,
    ForkRequest,
    Info,
    ListReply,
    ListRequest,
    MemosReply,
    MemosRequest,
    PositionReply,
    PositionRequest,
    TailReply,
    TailRequest,
    WorkflowView,
)
from runtara.protocol.blobs import Carried
from runtara.protocol.errors import InstanceNotFound, Malformed, Refused, UnknownWorkflow, from_wire
from runtara.protocol.messages import CommandAnswer, Done
from runtara.protocol.records import AnyCommand, Fork, WorkflowForgotten
from runtara.protocol.subjects import Channel, Source

from ..results import Watch
from .connections import MemoryConnections

T = TypeVar("T")
CLIENT: Final = "c-memory"
ENGINE: Final = Source(Channel.ENGINE, 0)


class MemoryCommands:
    """The twin of `Commands`."""

    def __init__(self, bus: MemoryBus, tenant: str) -> None:
        self._bus = bus
        self._source = Source(Channel.COMMANDS, 0, tenant, client=CLIENT)

    async def send(self, command: AnyCommand, *, timeout: float = 0.0) -> CommandAnswer:
        return await self._answer(self._source, command)

    async def fork(self, source: str, request: ForkRequest, *, timeout: float = 0.0) -> CommandAnswer:
        row = self._bus.engine.rows.get((self._source.tenant, source))
        if row is None:
            raise InstanceNotFound(instance=source, tenant=self._source.tenant)
        record = fork_record(
            row.tenant, source, state=row.state, log=row.log, input=Carried(row.input, row.input_blob),
            labels=row.labels, hash=b"", request=request,
        )  # fmt: skip
        fork_frame(record)
        return await self._answer(ENGINE, record)

    async def _answer(self, source: Source, command: AnyCommand | Fork) -> CommandAnswer:
        answered: asyncio.Future[CommandAnswer] = asyncio.get_running_loop().create_future()

        def on_answer(answer: object) -> None:
            if isinstance(answer, CommandAnswer) and not answered.done():
                answered.set_result(answer)

        reply = self._bus.expect(on_answer)
        try:
            self._bus.store(source, msgspec.structs.replace(command, reply=reply))
            answer = await answered
        finally:
            self._bus.forget(reply)
        if answer.error is not None:
            raise from_wire(answer.error)
        return answer


class MemoryEnds:
    """The twin of `Results`."""

    def __init__(self, bus: MemoryBus, tenant: str) -> None:
        self._engine = bus.engine
        self._tenant = tenant
        self._watches: dict[str, Watch] = {}
        bus.on_ended = self._on_ended

    @property
    def inbox(self) -> None:
        """The engine is here."""

    def watch(self, instance: str, *, starting: bool = False) -> Watch:
        watch = self._watches.get(instance)
        if watch is None:
            ended: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
            watch = self._watches[instance] = Watch(instance, ended, will_be_told=starting)
        return watch

    async def wait(self, watch: Watch) -> Done:
        row = self._engine.rows.get((self._tenant, watch.instance))
        if row is None:
            raise InstanceNotFound(instance=watch.instance, tenant=self._tenant)
        if row.state.status.is_terminal and not watch.ended.done():
            watch.ended.set_result(done_of(row))
        return await asyncio.shield(watch.ended)

    def forget(self, instance: str) -> None:
        self._watches.pop(instance, None)

    def _on_ended(self, tenant: str, instance: str, done: Done) -> None:
        watch = self._watches.get(instance)
        if watch is not None and tenant == self._tenant and not watch.ended.done():
            watch.ended.set_result(done)


class MemoryHints:
    """The twin of the client's hints: woken by the next fold, while `waiting` lets time pass; once the instance it is
    about has ended there is nothing to wait for."""

    def __init__(
        self, bus: MemoryBus, waiting: Callable[["asyncio.Future[None]"], Any], row: Callable[[], Row | None]
    ) -> None:
        self._bus = bus
        self._waiting = waiting
        self._row = row
        self._seen = bus.folds

    async def __aenter__(self) -> "MemoryHints":
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing to give back."""

    async def wait(self) -> None:
        row = self._row()
        is_over = row is not None and row.state.status.is_terminal
        if self._seen == self._bus.folds and not is_over:
            await self._waiting(self._bus.next_fold())
        self._seen = self._bus.folds


class MemoryApi:
    """The twin of the engine's API, for one tenant. Questions and answers go through JSON, as on the wire."""

    def __init__(self, bus: MemoryBus, tenant: str, connections: MemoryConnections) -> None:
        self._bus = bus
        self._engine = bus.engine
        self._tenant = tenant
        self._verbs: dict[str, Callable[[bytes], object]] = {
            "info": self._info, "list": self._list, "tail": self._tail, "workflows": self._workflows,
            "forget": self._forget, **connections.verbs,
        }  # fmt: skip
        self._instance_verbs: dict[str, Callable[[Row, bytes], object]] = {
            "get": lambda row, question: view(row), "events": _events, "memos": _memos, "position": _position,
        }  # fmt: skip

    async def call(
        self, verb: str, question: object, answer: type[T], *, instance: str | None = None, timeout: float = 0.0
    ) -> T:
        await asyncio.sleep(0)
        asked = msgspec.json.encode(question)
        if verb.startswith("schedule_"):
            raise Refused(reason="the platform in memory has no schedules; start by hand what they would start")
        if verb.endswith(("definition", "definitions")):
            raise Refused(reason="the platform in memory keeps no definitions; host what `load_workflow` makes of them")
        try:
            found = (
                self._verbs[verb](asked) if instance is None else self._instance_verbs[verb](self._row(instance), asked)
            )
        except KeyError as exc:
            raise Malformed(reason=f"there is no verb {verb!r}") from exc
        return msgspec.json.decode(msgspec.json.encode(found), type=answer)

    def _row(self, instance: str) -> Row:
        row = self._engine.rows.get((self._tenant, instance))
        if row is None:
            raise InstanceNotFound(instance=instance, tenant=self._tenant)
        return row

    def _rows(self) -> list[Row]:
        return [row for row in self._engine.rows.values() if row.tenant == self._tenant]

    def _info(self, question: bytes) -> Info:
        return Info(deployment="memory", partitions=1, version="memory", now_us=self._bus.clock.now_us())

    def _list(self, question: bytes) -> ListReply:
        request = msgspec.json.decode(question, type=ListRequest)
        rows = [row for row in reversed(self._rows()) if _fits(row, request)]
        begin = int(request.cursor) if request.cursor else 0
        end = begin + max(1, request.limit)
        page = [view(row, whole=False) for row in rows[begin:end]]
        return ListReply(instances=page, next=str(end) if end < len(rows) else None)

    def _tail(self, question: bytes) -> TailReply:
        request = msgspec.json.decode(question, type=TailRequest)
        events = sorted((event for row in self._rows() for event in row.events), key=lambda event: event.offset)
        last = events[-1].offset if events else -1
        if request.after is None:
            return TailReply(events=[], after={"0": last})
        fresh = [event for event in events if event.offset > request.after.get("0", last)][: max(1, request.limit)]
        return TailReply(events=fresh, after={"0": fresh[-1].offset if fresh else last})

    def _workflows(self, question: bytes) -> list[WorkflowView]:
        return [
            WorkflowView(
                id=name, kind=known.kind, code_version=known.code_version, description=known.description,
                parameters=known.parameters, options=known.options, registered_at=known.at, workers=[],
            )
            for (tenant, name), known in sorted(self._engine.workflows.items())
            if tenant == self._tenant
        ]  # fmt: skip

    def _forget(self, question: bytes) -> bool:
        name = msgspec.json.decode(question, type=str)
        if (self._tenant, name) not in self._engine.workflows:
            raise UnknownWorkflow(workflow=name, hint="")
        self._engine.append(ENGINE, WorkflowForgotten(instance="", tenant=self._tenant, workflow=name))
        self._bus.fold_soon()
        return True


def _fits(row: Row, request: ListRequest) -> bool:
    state = row.state
    return (
        request.status in (None, state.status)
        and request.workflow in (None, state.workflow)
        and request.labels.items() <= row.labels.items()
    )


def _events(row: Row, question: bytes) -> EventsReply:
    request = msgspec.json.decode(question, type=EventsRequest)
    behind = row.events[request.after :]
    page = behind[: max(1, request.limit)]
    return EventsReply(events=page, more=len(page) < len(behind))


def _memos(row: Row, question: bytes) -> MemosReply:
    request = msgspec.json.decode(question, type=MemosRequest)
    claim = row.state.claim
    return MemosReply(memos=memos(row, after=request.after, up_to=claim.version if claim is not None else None))


def _position(row: Row, question: bytes) -> PositionReply:
    request = msgspec.json.decode(question, type=PositionRequest)
    return PositionReply(outcome=position(row.state, request.attempt, request.nonce, request.seq))
