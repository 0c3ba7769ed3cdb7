"""Letting effects out after a commit: run requests, control, answers and hints.

Invariants: the loop never awaits a publish; queues are bounded, and what does not fit is dropped, since every effect
is a function of state and is repeated from it (run requests by the sweeper, control on heartbeats, answers because
whoever asked asks again). Run requests that the queue has are evidence, handed back to the loop.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from runtara.infra.bus import Bus, JetStreamError, NotAcknowledged, PublishRefused
from runtara.protocol.errors import RuntaraError
from runtara.protocol.subjects import Subjects

log = logging.getLogger("runtara.dispatch")

MAX_QUEUED: Final = 50_000
MAX_IN_FLIGHT: Final = 64  # acknowledged publishes under way; the server stores them one after another anyway
PUBLISH_TIMEOUT_SECONDS: Final = 5.0


class RunDue(msgspec.Struct, frozen=True):
    """A run request to publish. Only the first publication ever says `first`."""

    tenant: str
    instance: str
    attempt: int
    subject: str
    payload: bytes


class RunQueue:
    """Publishes run requests; `on_queued` gets those that the queue certainly has."""

    def __init__(self, bus: Bus, on_queued: Callable[[RunDue], None]) -> None:
        self._bus = bus
        self._on_queued = on_queued
        self._waiting: deque[RunDue] = deque()
        self._arrived = asyncio.Event()
        self._free = asyncio.Semaphore(MAX_IN_FLIGHT)

    def put(self, due: RunDue) -> None:
        if len(self._waiting) < MAX_QUEUED:
            self._waiting.append(due)
            self._arrived.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._waiting:
                    await self._free.acquire()
                    group.create_task(self._publish(self._waiting.popleft()), name="run request")

    async def _publish(self, due: RunDue) -> None:
        try:
            await self._bus.publish_acked(due.subject, due.payload, timeout=PUBLISH_TIMEOUT_SECONDS)
        except PublishRefused as exc:
            if not exc.is_full:
                log.warning("run_request_refused", extra={"reason": str(exc)})
                return
        except NotAcknowledged as exc:
            log.debug("run_request_not_acknowledged", extra={"reason": str(exc)})
            return
        finally:
            self._free.release()
        self._on_queued(due)


class Mouth:
    """Core publishes, in order, by one task: answers, control, hints. Its credential may publish nothing else."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._waiting: deque[tuple[str, bytes]] = deque(maxlen=MAX_QUEUED)
        self._arrived = asyncio.Event()

    def say(self, subject: str, message: bytes) -> None:
        self._waiting.append((subject, message))
        self._arrived.set()

    async def run(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                await self._bus.publish(*self._waiting.popleft())


async def withdraw(bus: Bus, subjects: Subjects, subject: str) -> None:
    """Take a run request back, so that nobody starts what was paused or cancelled while it was queued."""
    try:
        await bus.jetstream(f"STREAM.PURGE.{subjects.run_stream}", {"filter": subject})
    except (JetStreamError, RuntaraError) as exc:
        log.warning("run_request_not_withdrawn", extra={"subject": subject, "reason": str(exc)})
