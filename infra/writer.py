"""The journal writer: everything a process has to tell, in order, as few and as large frames as the disk allows.

One publish is in flight per partition; what queues up meanwhile goes as one frame, so one fsync pays for
hundreds of records. A frame is sent again, unchanged, until the journal has it: the caller sees only time
passing while a server restarts, a leader changes or the journal is full.

Invariants: records of one partition are stored in the order of `send`; a future resolves only after the
journal's fsync; sequence numbers only grow, or the journal lost data and `on_fatal` says so. Waiting has no
end except for what waiting cannot mend, which `on_fatal` gets: a missing right, a login that is refused (its
credential expired), a stream that stays missing, a frame that no later try can store (`refusals`).
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final

from runtara.protocol.errors import JournalLost, RuntaraError, StreamMissing
from runtara.protocol.frames import join_frame, split_frames

from .bus import Bus, NotAcknowledged, PublishRefused
from .logs import logger
from .refusals import check_passes

log = logger("writer")

ACK_TIMEOUT_SECONDS: Final = 5.0
FIRST_DELAY_SECONDS: Final = 0.05
MAX_DELAY_SECONDS: Final = 2.0
MISSING_STREAM_SECONDS: Final = 60.0
GATHER_TURNS: Final = 2  # of the event loop, before a frame is cut: what is about to be said joins it, nobody waits


class JournalWriter:
    """`subject_of(partition)` names where this process may publish; `on_fatal` gets what ends it."""

    def __init__(
        self, bus: Bus, subject_of: Callable[[int], str], *, on_fatal: Callable[[RuntaraError], None] | None = None
    ) -> None:
        self._bus = bus
        self._subject_of = subject_of
        self._on_fatal = on_fatal
        self._lanes: dict[int, _Lane] = {}
        self._error: RuntaraError | None = None
        bus.on_refused.append(self._fail)  # an idle process has to end as well

    def send(self, partition: int, record: bytes) -> asyncio.Future[int]:
        """Queue an encoded record; the future is the journal sequence of its frame once that is stored."""
        lane = self._lanes.get(partition)
        if lane is None:
            lane = self._lanes[partition] = _Lane(self._bus, partition, self._subject_of(partition), self._fail)
        return lane.send(record)

    async def flush(self) -> None:
        """Wait until everything sent so far is stored."""
        await asyncio.gather(*(lane.flush() for lane in self._lanes.values()), return_exceptions=True)

    async def close(self) -> None:
        """Stop at once; what is not stored yet is not stored by us (its futures are cancelled)."""
        if self._fail in self._bus.on_refused:
            self._bus.on_refused.remove(self._fail)
        await asyncio.gather(*(lane.close() for lane in self._lanes.values()))

    def _fail(self, error: RuntaraError) -> None:
        if self._error is None:
            self._error = error
            log.critical("journal_writer_failed", reason=str(error))
            if self._on_fatal is not None:
                self._on_fatal(error)


class _Lane:
    """The queue of one partition and the task that empties it."""

    def __init__(self, bus: Bus, partition: int, subject: str, on_fatal: Callable[[RuntaraError], None]) -> None:
        self._bus = bus
        self._subject = subject
        self._on_fatal = on_fatal
        self._records: list[bytes] = []
        self._futures: list[asyncio.Future[int]] = []
        self._last_sequence = 0
        self._error: RuntaraError | None = None
        self._loop = asyncio.get_running_loop()
        self._filled = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._task = asyncio.create_task(self._run(), name=f"journal writer {partition}")

    def send(self, record: bytes) -> asyncio.Future[int]:
        future: asyncio.Future[int] = self._loop.create_future()
        if self._error is not None:
            future.set_exception(self._error)
            future.exception()  # as in `_fail`
            return future
        self._records.append(record)
        self._futures.append(future)
        self._filled.set()
        self._empty.clear()
        return future

    async def flush(self) -> None:
        await self._empty.wait()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for future in self._futures:
            future.cancel()

    async def _run(self) -> None:
        while True:
            await self._filled.wait()
            while self._records:
                for _ in range(GATHER_TURNS):
                    await asyncio.sleep(0)
                await self._send_frame()
            self._filled.clear()
            self._empty.set()

    async def _send_frame(self) -> None:
        count = split_frames(self._records)
        records, futures = self._records[:count], self._futures[:count]
        del self._records[:count]
        del self._futures[:count]
        try:
            sequence = await self._store(join_frame(records))
        except RuntaraError as exc:
            self._fail(exc, futures)
        except asyncio.CancelledError:
            for future in futures:
                future.cancel()
            raise
        else:
            for future in futures:
                if not future.done():
                    future.set_result(sequence)

    async def _store(self, frame: bytes) -> int:
        """Send until stored. Raises only what waiting cannot mend."""
        patience = _Patience(self._subject)
        while True:
            await self._bus.wait_connected()
            try:
                ack = await self._bus.publish_acked(self._subject, frame, timeout=ACK_TIMEOUT_SECONDS)
            except NotAcknowledged as exc:
                await patience.wait(exc, missing="no responders" in exc.reason)
            except PublishRefused as exc:
                check_passes(exc)
                await patience.wait(exc, missing=False)
            else:
                return self._checked(ack.stream, ack.seq)

    def _checked(self, stream: str, sequence: int) -> int:
        if sequence <= self._last_sequence:
            raise JournalLost(stream=stream, reason=f"it acknowledged {sequence} after {self._last_sequence}")
        self._last_sequence = sequence
        return sequence

    def _fail(self, error: RuntaraError, futures: list[asyncio.Future[int]]) -> None:
        self._error = error
        for future in [*futures, *self._futures]:
            if not future.done():
                future.set_exception(error)
                future.exception()  # whoever awaits it still sees it; nobody awaiting it is no warning
        self._records.clear()
        self._futures.clear()
        self._on_fatal(error)


class _Patience:
    """How long to wait before the same frame is sent again, and when a missing stream is no longer a restart."""

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._delay = FIRST_DELAY_SECONDS
        self._missing_since: float | None = None

    async def wait(self, error: RuntaraError, *, missing: bool) -> None:
        now = asyncio.get_running_loop().time()
        if not missing:
            self._missing_since = None
        elif self._missing_since is None:
            self._missing_since = now
        elif now - self._missing_since > MISSING_STREAM_SECONDS:
            raise StreamMissing(stream=self._subject) from error
        log.warning("journal_write_delayed", reason=str(error))
        await asyncio.sleep(self._delay * random.uniform(0.5, 1.0))
        self._delay = min(self._delay * 2, MAX_DELAY_SECONDS)
