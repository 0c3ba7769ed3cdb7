"""Reading a partition's journal, in order and without gaps.

Invariants: every delivered sequence is the previous one + 1; nothing behind a gap is ever handed out. A reader
lives as long as its subscription: a reconnect, a lost consumer or a gap ends it with `ReadAgain`, and its owner
makes a new one from the committed cursor, after the journal's identity was checked again.
"""

import asyncio
from collections import deque
from typing import Final

import msgspec

from runtara.infra.bus import Bus
from runtara.infra.logs import logger
from runtara.infra.pull import ConsumerLost, PulledMsg, PullLoop
from runtara.protocol.errors import Unavailable
from runtara.protocol.frames import Rejection, decode_frame
from runtara.protocol.limits import MAX_BATCH_BYTES, MAX_BATCH_RECORDS, MAX_OUTSTANDING_BYTES
from runtara.protocol.records import Unreadable, WireRecord

from .patience import patience

log = logger("reader")

PULL_MESSAGES: Final = 512
PULL_BYTES: Final = MAX_OUTSTANDING_BYTES // 3  # taken and being folded, buffered, and asked for; above one payload
PULL_EXPIRES_SECONDS: Final = 5.0
CONSUMER_INACTIVE_SECONDS: Final = 30


class ReadAgain(Unavailable):
    template = "the subscription to {stream} ended: {reason}"
    stream: str
    reason: str


class Frame(msgspec.Struct, frozen=True):
    """A message of the journal, decoded. `time_us` is its store time."""

    subject: str
    sequence: int
    time_us: int
    data: bytes
    records: list[WireRecord | Unreadable]
    rejections: list[Rejection]


class _Consumer(msgspec.Struct, frozen=True):
    name: str


class _Batch:
    """Frames in the making. `due`: when the first of those who wait for it has waited long enough (loop's time)."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._records = self._bytes = 0
        self.frames: list[Frame] = []
        self.due = float("inf")

    def take(self, messages: deque[PulledMsg]) -> bool:
        """Take what there is room for; whether there is room for more."""
        while messages and self._records < MAX_BATCH_RECORDS:
            self._bytes += len(messages[0].data)
            if self.frames and self._bytes > MAX_BATCH_BYTES:
                return False
            frame = _decoded(messages.popleft())
            self.frames.append(frame)
            self._records += len(frame.records)
            wait = patience(frame.records) if frame.records else 0.0
            self.due = min(self.due, self._loop.time() + wait)
        return self._records < MAX_BATCH_RECORDS


class JournalReader:
    """Reads `stream` behind the sequence `after`; `sequence` is the last one taken. An async context manager."""

    def __init__(self, bus: Bus, stream: str, *, after: int) -> None:
        self._bus = bus
        self._stream = stream
        self._pull: PullLoop | None = None
        self._ended: ReadAgain | None = None
        self._waiting: deque[PulledMsg] = deque()
        self._is_gathering = False
        self._loop = asyncio.get_running_loop()
        self.sequence = after

    async def __aenter__(self) -> "JournalReader":
        self._bus.on_reconnect.append(self._on_reconnect)
        self._pull = await self._subscribe()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._bus.on_reconnect.remove(self._on_reconnect)
        if self._pull is not None:
            await self._pull.close()

    @property
    def is_drained(self) -> bool:
        """All that has arrived was taken, or is being gathered for the next batch."""
        return self._is_gathering or (not self._waiting and (self._pull is None or self._pull.is_idle))

    @property
    def held_bytes(self) -> int:
        """What was read ahead of the fold."""
        return sum(len(message.data) for message in self._waiting) + (self._pull.held_bytes if self._pull else 0)

    async def next_batch(self) -> list[Frame]:
        """What has arrived, whole frames, up to the batch's limits; at least one. Raises `ReadAgain`.

        As long as nobody waits for the commit of what it holds (`patience`), the batch waits for more.
        """
        if not self._waiting:
            await self._fill()
        batch = _Batch()
        while batch.take(self._waiting):
            left = batch.due - self._loop.time()
            if left <= 0 or not await self._fill_within(left):
                break
        return batch.frames

    async def _fill_within(self, seconds: float) -> bool:
        """Whether anything arrived in time. What ends this reader is raised at the next batch, behind this one."""
        self._is_gathering = True
        try:
            async with asyncio.timeout(seconds):
                await self._fill()
        except (TimeoutError, ReadAgain):
            return False
        finally:
            self._is_gathering = False
        return True

    async def _fill(self) -> None:
        assert self._pull is not None
        if self._ended is not None:
            raise self._ended
        try:
            messages = await self._pull.take(PULL_MESSAGES, PULL_BYTES)
        except ConsumerLost as exc:
            raise ReadAgain(stream=self._stream, reason=exc.reason) from exc
        for message in messages:
            if message.sequence != self.sequence + 1:
                reason = f"message {message.sequence} came after {self.sequence}"
                self._ended = ReadAgain(stream=self._stream, reason=reason)
                break
            self.sequence = message.sequence
            self._waiting.append(message)
        if not self._waiting and self._ended is not None:
            raise self._ended

    async def _subscribe(self) -> PullLoop:
        config = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self.sequence + 1,
            "ack_policy": "none",
            "replay_policy": "instant",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": CONSUMER_INACTIVE_SECONDS * 1_000_000_000,
        }
        question = {"stream_name": self._stream, "config": config}
        answer = await self._bus.jetstream(f"CONSUMER.CREATE.{self._stream}", question)
        pull = PullLoop(
            self._bus,
            stream=self._stream,
            consumer=msgspec.json.decode(answer, type=_Consumer).name,
            credit=lambda: PULL_MESSAGES,
            expires=PULL_EXPIRES_SECONDS,
            max_bytes=PULL_BYTES,
        )
        await pull.start()
        return pull

    def _on_reconnect(self) -> None:
        """The server may be another one, or have lost its disk: what it sends is taken only after a check."""
        if self._pull is not None:
            self._pull.abandon("the connection was renewed")


def _decoded(message: PulledMsg) -> Frame:
    records, rejections = decode_frame(message.data)
    return Frame(message.subject, message.sequence, message.store_time_us, message.data, records, rejections)
