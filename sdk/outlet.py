"""Where one execution's records go: the process's journal writer, and the engine's word on what it committed.

Invariants: records of one instance are stored in the order of the calls; `send_committed` resolves only on
evidence that this very record was accepted (the commit answer for its frame, or the API's `position`), never on
a hint; a record that was rejected ends the execution, and its future fails.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec
from nats.aio.msg import Msg

from runtara.infra.logs import logger
from runtara.infra.writer import JournalWriter
from runtara.protocol.api import PositionReply, PositionRequest
from runtara.protocol.errors import Refused, RuntaraError
from runtara.protocol.frames import encode_record
from runtara.protocol.messages import CommitAnswer
from runtara.protocol.records import Record, Report

from .connection import Connection

log = logger("outlet")

ASK_AFTER_SECONDS: Final = 1.0  # without a commit answer, which travels at most once
POSITION_TIMEOUT_SECONDS: Final = 2.0
EARLY_ANSWERS: Final = 1_024  # answers that overtook their acknowledgement, kept until it arrives
_decoder = msgspec.json.Decoder(list[CommitAnswer])

OnRejected = Callable[[str], None]


class _Waiter:
    """A report whose commit someone waits for."""

    __slots__ = ("accepted", "ask_at", "attempt", "frame", "instance", "nonce", "on_rejected", "partition", "seq")

    def __init__(self, partition: int, report: Report, accepted: asyncio.Future[None], on_rejected: OnRejected) -> None:
        self.partition = partition
        self.instance = report.instance
        self.attempt = report.attempt
        self.nonce = report.nonce
        self.seq = report.seq
        self.accepted = accepted
        self.on_rejected = on_rejected
        self.frame = 0
        self.ask_at = 0.0


class Commits:
    """The commit answers of one process: one inbox, and one sweep for those that did not come."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[tuple[int, int], list[_Waiter]] = {}
        self._early: dict[tuple[int, int], CommitAnswer] = {}
        self._asking: set[asyncio.Task[None]] = set()
        self.subject = f"{connection.inbox}.commits"
        self.unreadable = 0

    async def open(self) -> None:
        await self._connection.bus.subscribe(self.subject, self._on_answer)

    async def close(self) -> None:
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    def wait(
        self, partition: int, report: Report, stored: asyncio.Future[int], on_rejected: OnRejected
    ) -> asyncio.Future[None]:
        """Resolves once the engine has accepted `report`, whose place in the journal is `stored`'s outcome."""
        accepted: asyncio.Future[None] = self._loop.create_future()
        waiter = _Waiter(partition, report, accepted, on_rejected)
        stored.add_done_callback(partial(self._on_stored, waiter))
        return accepted

    def sweep(self) -> None:
        """Ask for what was not answered in time. Called a few times a second."""
        now = self._loop.time()
        for waiters in self._waiting.values():
            for waiter in waiters:
                if waiter.ask_at <= now:
                    waiter.ask_at = now + ASK_AFTER_SECONDS + POSITION_TIMEOUT_SECONDS
                    task = self._loop.create_task(self._ask(waiter), name=f"position {waiter.instance}")
                    self._asking.add(task)
                    task.add_done_callback(self._asking.discard)

    def _on_stored(self, waiter: _Waiter, stored: asyncio.Future[int]) -> None:
        if stored.cancelled() or stored.exception() is not None:
            return  # the writer is gone, and with it the process's claims
        frame = (waiter.partition, stored.result())
        early = self._early.get(frame)
        if early is not None:
            _settle(waiter, early)
            return
        waiter.frame = frame[1]
        waiter.ask_at = self._loop.time() + ASK_AFTER_SECONDS
        self._waiting.setdefault(frame, []).append(waiter)

    def _on_answer(self, msg: Msg) -> None:
        try:
            answers = _decoder.decode(msg.data)
        except msgspec.MsgspecError:
            self.unreadable += 1
            return
        for answer in answers:
            self._answered(answer)

    def _answered(self, answer: CommitAnswer) -> None:
        frame = (answer.partition, answer.sequence)
        waiters = self._waiting.pop(frame, None)
        if waiters is None:
            self._remember(frame, answer)
            return
        for waiter in waiters:
            _settle(waiter, answer)

    def _remember(self, frame: tuple[int, int], answer: CommitAnswer) -> None:
        self._early[frame] = answer
        if len(self._early) > EARLY_ANSWERS:
            del self._early[next(iter(self._early))]

    async def _ask(self, waiter: _Waiter) -> None:
        question = PositionRequest(attempt=waiter.attempt, nonce=waiter.nonce, seq=waiter.seq)
        try:
            reply = await self._connection.call(
                "position", question, PositionReply, instance=waiter.instance, timeout=POSITION_TIMEOUT_SECONDS
            )
        except RuntaraError as exc:
            log.debug("position_unknown", instance=waiter.instance, reason=str(exc))
            return
        if reply.outcome == "pending":
            return
        self._forget(waiter)
        _accept(waiter) if reply.outcome == "accepted" else _reject(waiter, reply.reason)

    def _forget(self, waiter: _Waiter) -> None:
        frame = (waiter.partition, waiter.frame)
        left = [other for other in self._waiting.get(frame, ()) if other is not waiter]
        if left:
            self._waiting[frame] = left
        else:
            self._waiting.pop(frame, None)


def _settle(waiter: _Waiter, answer: CommitAnswer) -> None:
    for instance, attempt, seq, reason in answer.rejected:
        if (instance, attempt, seq) == (waiter.instance, waiter.attempt, waiter.seq):
            _reject(waiter, reason)
            return
    _accept(waiter)


def _accept(waiter: _Waiter) -> None:
    if not waiter.accepted.done():
        waiter.accepted.set_result(None)


def _reject(waiter: _Waiter, reason: str) -> None:
    waiter.on_rejected(reason)
    if not waiter.accepted.done():
        waiter.accepted.set_exception(Refused(reason=f"the engine did not accept report {waiter.seq}: {reason}"))
        waiter.accepted.exception()  # whoever awaits it still sees it; nobody awaiting it is no warning


class JournalOutlet:
    """The `Outlet` of one execution."""

    __slots__ = ("_commits", "_connection", "_on_rejected", "_partition", "_writer")

    def __init__(
        self, connection: Connection, writer: JournalWriter, commits: Commits, partition: int, on_rejected: OnRejected
    ) -> None:
        self._connection = connection
        self._writer = writer
        self._commits = commits
        self._partition = partition
        self._on_rejected = on_rejected

    def send(self, record: Record) -> asyncio.Future[int]:
        return self._writer.send(self._partition, encode_record(record))

    def send_committed(self, record: Record) -> asyncio.Future[None]:
        if not isinstance(record, Report):
            raise TypeError(f"only reports have a place to wait for, not {type(record).__name__}")
        named = msgspec.structs.replace(record, reply=self._commits.subject)
        stored = self._writer.send(self._partition, encode_record(named))
        return self._commits.wait(self._partition, record, stored, self._on_rejected)

    def send_best_effort(self, record: Record) -> None:
        """Dropped while the journal cannot be reached, so that it never piles up."""
        if self._connection.bus.is_connected:
            self._writer.send(self._partition, encode_record(record))
