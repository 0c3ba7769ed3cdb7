"""Reading a partition's journal, in order and without gaps.

Invariants: every delivered sequence is the previous one + 1; nothing behind a gap is ever handed out. A reader
lives as long as its subscription: a reconnect, a lost consumer or a gap ends it with `ReadAgain`, and its owner
makes a new one from the committed cursor, after the journal's identity was checked again.
"""

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


class JournalReader:
    """Reads `stream` behind the sequence `after`; `sequence` is the last one taken. An async context manager."""

    def __init__(self, bus: Bus, stream: str, *, after: int) -> None:
        self._bus = bus
        self._stream = stream
        self._pull: PullLoop | None = None
        self._ended: ReadAgain | None = None
        self._waiting: deque[PulledMsg] = deque()
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
        """All that has arrived was taken."""
        return not self._waiting and (self._pull is None or self._pull.is_idle)

    @property
    def held_bytes(self) -> int:
        """What was read ahead of the fold."""
        return sum(len(message.data) for message in self._waiting) + (self._pull.held_bytes if self._pull else 0)

    async def next_batch(self) -> list[Frame]:
        """What has arrived, whole frames, up to the batch's limits; waits for at least one. Raises `ReadAgain`."""
        if not self._waiting:
            await self._fill()
        frames: list[Frame] = []
        records = size = 0
        while self._waiting and records < MAX_BATCH_RECORDS:
            size += len(self._waiting[0].data)
            if frames and size > MAX_BATCH_BYTES:
                break
            frames.append(_decoded(self._waiting.popleft()))
            records += len(frames[-1].records)
        return frames

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
