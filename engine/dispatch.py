"""Letting effects out after a commit: run requests, control, answers and hints.

Invariants: the loop never awaits a publish; queues are bounded, and what does not fit is dropped, since every effect
is a function of state and is repeated from it (run requests by the sweeper, control on heartbeats, answers because
whoever asked asks again). Run requests that the queue has are evidence, handed back to the loop.
"""

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from nats.aio.msg import Msg

from runtara.infra.bus import STREAM_FULL, Bus, JetStreamError, ack_decoder
from runtara.infra.logs import logger
from runtara.protocol.errors import RuntaraError
from runtara.protocol.frames import join_frame, split_frames
from runtara.protocol.subjects import Subjects

from .cache import Id

log = logger("dispatch")

MAX_QUEUED: Final = 50_000
MAX_IN_FLIGHT: Final = 1_024  # publishes whose acknowledgement is under way
PUBLISH_TIMEOUT_SECONDS: Final = 5.0
STARTERS_KEPT_SECONDS: Final = 5.0
_encode: Final = msgspec.json.Encoder().encode


class RunDue(msgspec.Struct, frozen=True):
    """A run request to publish. Only the first publication ever says `first`."""

    tenant: str
    instance: str
    attempt: int
    subject: str
    payload: bytes


class RunQueue:
    """Publishes run requests; `on_queued` gets those that the queue certainly has.

    Not through `publish_acked`: a task and a timer for each of thousands a second cost more than the publish. What is
    not acknowledged in time is forgotten here, and repeated by the sweeper. An async context manager.
    """

    def __init__(self, bus: Bus, on_queued: Callable[[RunDue], None]) -> None:
        self._bus = bus
        self._on_queued = on_queued
        self._waiting: deque[RunDue] = deque()
        self._in_flight: dict[str, tuple[RunDue, float]] = {}
        self._ids = itertools.count()
        self._inbox = bus.new_inbox()
        self._arrived = asyncio.Event()
        self._awaited: dict[str, asyncio.Future[None]] = {}

    @property
    def is_busy(self) -> bool:
        """Something is not published yet, or not acknowledged."""
        return bool(self._waiting or self._in_flight)

    def put(self, due: RunDue) -> None:
        if len(self._waiting) < MAX_QUEUED:
            self._waiting.append(due)
            self._arrived.set()

    async def run(self) -> None:
        subscription = await self._bus.subscribe(f"{self._inbox}.*", self._on_acknowledged)
        try:
            while True:
                await self._wait()
                while self._waiting and len(self._in_flight) < MAX_IN_FLIGHT:
                    await self._publish(self._waiting.popleft())
        finally:
            if not self._bus.nats.is_closed:
                await subscription.unsubscribe()

    async def forget(self, subjects: set[str]) -> None:
        """Publish none of these any more; returns when the queue has stored, or lost, those that are under way."""
        self._waiting = deque(due for due in self._waiting if due.subject not in subjects)
        stored = []
        for due, _ in self._in_flight.values():
            if due.subject in subjects:
                loop = asyncio.get_running_loop()
                stored.append(self._awaited.setdefault(due.subject, loop.create_future()))
        if stored:
            await asyncio.wait(stored, timeout=PUBLISH_TIMEOUT_SECONDS)
            for subject in subjects:
                self._awaited.pop(subject, None)

    async def _wait(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PUBLISH_TIMEOUT_SECONDS):
                await self._arrived.wait()
        self._arrived.clear()
        limit = time.monotonic() - PUBLISH_TIMEOUT_SECONDS
        for token in [token for token, (_, sent) in self._in_flight.items() if sent < limit]:
            del self._in_flight[token]

    async def _publish(self, due: RunDue) -> None:
        token = str(next(self._ids))
        self._in_flight[token] = (due, time.monotonic())
        await self._bus.publish(due.subject, due.payload, reply=f"{self._inbox}.{token}")

    def _on_acknowledged(self, msg: Msg) -> None:
        found = self._in_flight.pop(msg.subject[len(self._inbox) + 1 :], None)
        if found is None:
            return
        awaited = self._awaited.pop(found[0].subject, None)
        if awaited is not None:
            awaited.set_result(None)
        if self._waiting:
            self._arrived.set()
        if not msg.data:  # no responders: the stream is not there
            return
        error = ack_decoder.decode(msg.data).error
        if error is None or error.err_code == STREAM_FULL:  # "full" for one subject: it is there already
            self._on_queued(found[0])
        else:
            log.warning("run_request_refused", reason=error.description)


class Mouth:
    """Core publishes, in order, by one task: answers, control, hints. Its credential may publish nothing else."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._waiting: deque[tuple[str, bytes]] = deque(maxlen=MAX_QUEUED)
        self._arrived = asyncio.Event()

    @property
    def is_busy(self) -> bool:
        return bool(self._waiting)

    def say(self, subject: str, message: bytes) -> None:
        self._waiting.append((subject, message))
        self._arrived.set()

    async def run(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                await self._bus.publish(*self._waiting.popleft())


class Answers:
    """What one commit answers, gathered by inbox: each gets one message, a JSON array, however much it asked."""

    def __init__(self) -> None:
        self._by_inbox: dict[str, list[bytes]] = {}

    def add(self, reply: str, message: msgspec.Struct) -> None:
        self._by_inbox.setdefault(reply, []).append(_encode(message))

    def say(self, mouth: Mouth) -> None:
        for reply, encoded in self._by_inbox.items():
            while encoded:
                count = split_frames(encoded)
                mouth.say(reply, join_frame(encoded[:count]))
                encoded = encoded[count:]


class Starters:
    """Who started an instance a moment ago, and where they want to hear of its end. A hint: who waits longer asks."""

    def __init__(self) -> None:
        self._inboxes: dict[Id, tuple[str, float]] = {}

    def started(self, inboxes: Mapping[Id, str]) -> None:
        now = time.monotonic()
        while self._inboxes and next(iter(self._inboxes.values()))[1] < now - STARTERS_KEPT_SECONDS:
            del self._inboxes[next(iter(self._inboxes))]
        for id, inbox in inboxes.items():
            self._inboxes.pop(id, None)
            self._inboxes[id] = (inbox, now)

    def ended(self, id: Id) -> str | None:
        found = self._inboxes.pop(id, None)
        return found[0] if found is not None else None


async def withdraw(bus: Bus, subjects: Subjects, subject: str) -> None:
    """Take a run request back, so that nobody starts what was paused or cancelled while it was queued."""
    try:
        await bus.jetstream(f"STREAM.PURGE.{subjects.run_stream}", {"filter": subject})
    except (JetStreamError, RuntaraError) as exc:
        log.warning("run_request_not_withdrawn", subject=subject, reason=str(exc))
