"""Heartbeats from a thread of their own, with a connection of their own.

A long computation in the main loop must not make a living worker look dead, so nothing here waits for that
loop: it leaves a snapshot behind (`Pulse.beat`), and the thread sends it with its age.

Invariants: the first heartbeat and every fifth list what the main loop hosted, as it was when it last said so;
a heartbeat that cannot be sent is dropped, never queued: an old one would prove a life that may be over.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol

import msgspec
from nats.aio.msg import Msg

from runtara.infra.bus import Bus
from runtara.infra.logs import logger
from runtara.protocol.errors import Unavailable
from runtara.protocol.limits import HEARTBEAT_SECONDS, HOSTED_LIST_EVERY
from runtara.protocol.messages import Heartbeat, Hosted

log = logger("heartbeat")

BEAT_SECONDS: Final = 0.25  # how often the main loop leaves a snapshot; its lag is what exceeds this
RETRY_SECONDS: Final = 0.5
JOIN_SECONDS: Final = 3.0
Residence = tuple[str, int, str]  # instance, attempt, nonce
_encoder = msgspec.json.Encoder()


class Pulse:
    """What the main loop says of itself, for the heartbeats' thread: replaced as a whole, never changed in place."""

    def __init__(self) -> None:
        self._snapshot: tuple[float, tuple[Residence, ...]] = (time.monotonic(), ())
        self._lists_wanted = 0

    def beat(self, hosted: Iterable[Residence]) -> None:
        self._snapshot = (time.monotonic(), tuple(hosted))

    def want_lists(self, count: int) -> None:
        """List what is hosted in the next `count` heartbeats too: the platform should notice what was given up."""
        self._lists_wanted = count

    def take_list_wanted(self) -> bool:
        wanted = self._lists_wanted > 0
        self._lists_wanted -= wanted
        return wanted

    def read(self) -> tuple[float, tuple[Residence, ...]]:
        """Seconds since the last snapshot, and what it hosted."""
        at, hosted = self._snapshot
        return time.monotonic() - at, hosted


class Ear(Protocol):
    """What listens in the thread, because the main loop may not. See `watchdog`."""

    subject: str

    def hear(self, msg: Msg) -> None: ...
    def look(self) -> None: ...


class Heartbeats:
    """The thread. `connect` opens its connection and is tried until it succeeds; `heartbeat` is the unchanging part;
    `on_failure` is called in the thread if it dies."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Bus]],
        subject: str,
        pulse: Pulse,
        heartbeat: Heartbeat,
        *,
        on_failure: Callable[[Exception], object],
        ear: Ear | None = None,
    ) -> None:
        self._connect = connect
        self._subject = subject
        self._pulse = pulse
        self._heartbeat = heartbeat
        self._on_failure = on_failure
        self._ear = ear
        self._sent = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=f"heartbeats {heartbeat.worker}", daemon=True)

    async def __aenter__(self) -> "Heartbeats":
        self._thread.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._stopping.set()
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # its loop has ended by itself
                self._loop.call_soon_threadsafe(self._stopping.set)
        await asyncio.to_thread(self._thread.join, JOIN_SECONDS)

    def next_payload(self) -> bytes:
        """The heartbeat to send now."""
        age, hosted = self._pulse.read()
        with_list = self._pulse.take_list_wanted() or self._sent % HOSTED_LIST_EVERY == 0
        self._sent += 1
        heartbeat = msgspec.structs.replace(
            self._heartbeat,
            running=len(hosted),
            loop_lag_ms=max(0, int((age - BEAT_SECONDS) * 1_000)),
            hosted=Hosted(instances=list(hosted), age_ms=int(age * 1_000)) if with_list else None,
        )
        return _encoder.encode(heartbeat)

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception as exc:
            log.exception("heartbeats_failed")
            with contextlib.suppress(RuntimeError):  # the main loop has ended first
                self._on_failure(exc)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        bus = await self._connected()
        if bus is None:
            return
        try:
            if self._ear is not None:
                await bus.subscribe(self._ear.subject, self._ear.hear)
            while not self._stopping.is_set():
                if self._ear is not None:
                    self._ear.look()
                if bus.is_connected:
                    await bus.publish(self._subject, self.next_payload())
                await self._pause(HEARTBEAT_SECONDS)
        finally:
            await bus.close()

    async def _connected(self) -> Bus | None:
        while not self._stopping.is_set():
            try:
                return await self._connect()
            except Unavailable as exc:
                log.warning("heartbeats_wait", reason=str(exc))
                await self._pause(RETRY_SECONDS)
        return None

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
