"""Claims: taking queued attempts, with a fresh nonce each, until the engine has answered.

A claim is a `started` record in the journal; its answer comes to one inbox of the process. The run request is
acknowledged only once the record is stored, and kept alive until then; the claim is sent again every second
(same nonce, same content) until it is answered.

Invariants: one nonce is drawn per claim and never leaves this process but in its records; an answer that names
another attempt or nonce, or does not parse, is ignored and counted; nothing here waits per claim: one sweep
serves them all.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final, Literal

import msgspec
from nats.aio.msg import Msg

from runtara.infra.logs import logger
from runtara.infra.pull import PulledMsg
from runtara.infra.writer import JournalWriter
from runtara.protocol.api import MemosReply, MemosRequest
from runtara.protocol.frames import encode_record
from runtara.protocol.ids import new_nonce
from runtara.protocol.messages import ClaimAnswer, Claimed, Memo
from runtara.protocol.records import Started

from .connection import Connection

log = logger("claims")

RESEND_SECONDS: Final = 1.0
IN_PROGRESS_SECONDS: Final = 0.75  # the run queue's ack_wait is 2 s
_decoder = msgspec.json.Decoder(list[ClaimAnswer])

OnAnswer = Callable[[ClaimAnswer], None]


class Claim:
    """One attempt that this process wants, or has."""

    __slots__ = ("attempt", "instance", "nonce", "on_answer", "partition", "record", "request", "sent_at", "stored")

    def __init__(
        self, instance: str, attempt: int, partition: int, record: bytes, nonce: str, on_answer: OnAnswer
    ) -> None:
        self.instance = instance
        self.attempt = attempt
        self.partition = partition
        self.record = record
        self.nonce = nonce
        self.on_answer = on_answer
        self.request: PulledMsg | None = None
        self.sent_at = 0.0
        self.stored: asyncio.Future[int] | None = None

    @property
    def is_stored(self) -> bool:
        stored = self.stored
        return stored is not None and stored.done() and not stored.cancelled() and stored.exception() is None


class Claims:
    """The claims of one worker, or runner, that wait for their answers."""

    def __init__(
        self, connection: Connection, writer: JournalWriter, worker: str, *, by: Literal["worker", "runner"] = "worker"
    ) -> None:
        self._connection = connection
        self._writer = writer
        self._worker = worker
        self._by = by
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[tuple[str, int], Claim] = {}
        self._unacknowledged: dict[str, Claim] = {}
        self._acks: list[PulledMsg] = []
        self._acks_wanted = asyncio.Event()
        self._kept_alive = 0.0
        self.subject = f"{connection.inbox}.claims"
        self.ignored = 0

    async def open(self) -> None:
        await self._connection.bus.subscribe(self.subject, self._on_message)

    def take(
        self, instance: str, attempt: int, request: PulledMsg | None, on_answer: OnAnswer, *, token: str | None = None
    ) -> Claim:
        """Claim `attempt`; `on_answer` is called once, with the engine's answer.

        `request`: what is acknowledged once the claim is stored. `token`: of a runner, what it lets its container take
        the claim over with; of that container, what it was given.
        """
        nonce = new_nonce()
        started = Started(
            instance=instance, attempt=attempt, nonce=nonce, worker=self._worker, reply=self.subject, by=self._by,
            token=token,
        )  # fmt: skip
        claim = Claim(instance, attempt, self._connection.partition(instance), encode_record(started), nonce, on_answer)
        self._waiting[(instance, attempt)] = claim
        if request is not None:
            claim.request = request
            self._unacknowledged[request.reply] = claim
        self._send(claim)
        return claim

    def take_again(self, instance: str, attempt: int, request: PulledMsg) -> bool:
        """A request for what is claimed here already was delivered again; False if it is not."""
        claim = self._waiting.get((instance, attempt))
        if claim is None:
            return False
        if claim.is_stored:
            self._acknowledge(request)
        else:
            if claim.request is not None:
                self._unacknowledged.pop(claim.request.reply, None)
            claim.request = request
            self._unacknowledged[request.reply] = claim
        return True

    def give_up(self, instance: str, attempt: int, nonce: str) -> None:
        """No answer is wanted any more."""
        claim = self._waiting.get((instance, attempt))
        if claim is not None and claim.nonce == nonce:
            del self._waiting[(instance, attempt)]

    async def sweep(self) -> None:
        """Send again what was not answered, and keep alive the requests whose claims are not stored yet."""
        now = self._loop.time()
        for claim in self._waiting.values():
            if claim.is_stored and now - claim.sent_at >= RESEND_SECONDS:
                self._send(claim)
        if now - self._kept_alive < IN_PROGRESS_SECONDS:
            return
        self._kept_alive = now
        for claim in list(self._unacknowledged.values()):
            if claim.request is not None:
                await claim.request.in_progress()

    async def acknowledge(self) -> None:
        """The loop that acknowledges run requests whose claims are stored: one task for all of them."""
        while True:
            await self._acks_wanted.wait()
            self._acks_wanted.clear()
            requests, self._acks = self._acks, []
            for request in requests:
                await request.ack()

    async def release(self) -> None:
        """Give back the requests whose claims never reached the journal."""
        for claim in list(self._unacknowledged.values()):
            if claim.request is not None:
                await claim.request.nak()
        self._unacknowledged.clear()

    def _send(self, claim: Claim) -> None:
        claim.sent_at = self._loop.time()
        claim.stored = self._writer.send(claim.partition, claim.record)
        if claim.request is not None:
            claim.stored.add_done_callback(lambda stored: self._on_stored(claim, stored))

    def _on_stored(self, claim: Claim, stored: asyncio.Future[int]) -> None:
        request = claim.request
        if request is None or stored.cancelled() or stored.exception() is not None:
            return
        claim.request = None
        claim.sent_at = self._loop.time()
        self._unacknowledged.pop(request.reply, None)
        self._acknowledge(request)

    def _acknowledge(self, request: PulledMsg) -> None:
        self._acks.append(request)
        self._acks_wanted.set()

    def _on_message(self, msg: Msg) -> None:
        try:
            answers = _decoder.decode(msg.data)
        except msgspec.MsgspecError:
            self.ignored += 1
            return
        for answer in answers:
            self._on_answer(answer)

    def _on_answer(self, answer: ClaimAnswer) -> None:
        claim = self._waiting.get((answer.instance, answer.attempt))
        if claim is None or claim.nonce != answer.nonce:
            self.ignored += 1
            return
        del self._waiting[(answer.instance, answer.attempt)]
        claim.on_answer(answer)


async def with_all_memos(connection: Connection, claim: Claimed) -> Claimed:
    """The claim with the pages of its history that did not fit into the answer, and the time that this took."""
    began = time.monotonic_ns()
    memos: list[Memo] = list(claim.memos)
    more = claim.more
    while more:
        after = memos[-1].version if memos else 0
        page = await connection.call("memos", MemosRequest(after=after), MemosReply, instance=claim.instance)
        memos += [memo for memo in page.memos if memo.version <= claim.version]
        more = page.more and bool(page.memos)
    now_us = claim.now_us + (time.monotonic_ns() - began) // 1_000
    return msgspec.structs.replace(claim, memos=memos, more=False, now_us=now_us)
