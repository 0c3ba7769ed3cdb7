"""Reading a stream by pull with credit: the one loop that every consumer of ours uses.

`PullSubscription.fetch` of nats-py can stall for its whole time-out though messages wait, and its ordered
consumer skips messages silently; so this loop subscribes once to an inbox of its own, asks again when half of
what it asked for is used up, and takes a status, or silence beyond the heartbeat, as the end of a pull.

Invariants: never more than `credit()` messages are asked for and not yet taken; messages come in the order in
which the server sent them; a consumer that is gone raises `ConsumerLost` to whoever waits.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec
import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from runtara.protocol.errors import Unavailable

from .bus import Bus
from .logs import logger

log = logger("pull")

HEARTBEAT_SECONDS: Final = 0.5
MISSED_HEARTBEATS: Final = 3
DRAIN_SECONDS: Final = 1.0  # for messages under way when a loop stops asking
RETRY_SECONDS: Final = 0.2  # after a pull that the server refused


class ConsumerLost(Unavailable):
    template = "consumer {consumer} of {stream} is gone: {reason}"
    stream: str
    consumer: str
    reason: str


class PullRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    batch: int
    expires: int
    idle_heartbeat: int
    max_bytes: int = 0


class PulledMsg:
    """A message of a stream, with what its reply subject says: sequence, store time (µs), number of deliveries."""

    __slots__ = ("_bus", "data", "delivered", "reply", "sequence", "store_time_us", "subject")

    def __init__(self, bus: Bus, msg: Msg) -> None:
        # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time ns>.<pending>, or, in its
        # second form, with domain and account hash before the stream and a token behind: count from "ACK".
        tokens = msg.reply.split(".")
        first = 4 if len(tokens) == 9 else 6
        self._bus = bus
        self.subject = msg.subject
        self.data = msg.data
        self.reply = msg.reply
        self.delivered = int(tokens[first])
        self.sequence = int(tokens[first + 1])
        self.store_time_us = int(tokens[first + 3]) // 1_000

    async def ack(self) -> None:
        await self._bus.publish(self.reply, b"+ACK")

    async def nak(self, delay: float = 0.0) -> None:
        """It is delivered again, to whoever asks, after `delay` seconds."""
        words = b'-NAK {"delay": %d}' % round(delay * 1e9) if delay else b"-NAK"
        await self._bus.publish(self.reply, words)

    async def in_progress(self) -> None:
        await self._bus.publish(self.reply, b"+WPI")

    async def term(self) -> None:
        await self._bus.publish(self.reply, b"+TERM")


class PullLoop:
    """`credit()`: how many messages may be asked for or buffered right now; call `wake()` when it has grown.

    Use as an async context manager and iterate over `messages()`, or call `take()` for what has arrived.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        stream: str,
        consumer: str,
        credit: Callable[[], int],
        expires: float,
        max_bytes: int = 0,
        heartbeat: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._bus = bus
        self._stream = stream
        self._consumer = consumer
        self._credit = credit
        self._expires = expires
        self._max_bytes = max_bytes
        self._heartbeat = heartbeat
        self._buffer: deque[PulledMsg] = deque()
        self._buffered = 0  # bytes
        self._asked = 0
        self._pull_ids = 0
        self._live: dict[str, int] = {}
        self._arrived = asyncio.Event()
        self._wanted = asyncio.Event()
        self._heard = 0.0
        self._error: ConsumerLost | None = None
        self._inbox = bus.new_inbox()
        self._subscription: Subscription | None = None
        self._asker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "PullLoop":
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def start(self) -> None:
        self._heard = asyncio.get_running_loop().time()
        self._subscription = await self._bus.subscribe(f"{self._inbox}.*", self._on_message)
        self._bus.on_reconnect.append(self._forget_pulls)
        self._asker = asyncio.create_task(self._ask_for_more(), name=f"pull {self._consumer}")
        self.wake()

    async def close(self) -> None:
        if self._forget_pulls in self._bus.on_reconnect:
            self._bus.on_reconnect.remove(self._forget_pulls)
        if self._asker is not None:
            self._asker.cancel()
            await asyncio.gather(self._asker, return_exceptions=True)
        if self._subscription is not None and not self._bus.nats.is_closed:
            await self._subscription.unsubscribe()

    async def drain(self) -> list[PulledMsg]:
        """Ask for nothing more; what had arrived and was not taken is the caller's to give back."""
        subscription, self._subscription = self._subscription, None
        if self._asker is not None:
            self._asker.cancel()
        if subscription is not None and self._bus.is_connected:
            with contextlib.suppress(TimeoutError, nats.errors.Error):
                async with asyncio.timeout(DRAIN_SECONDS):
                    await subscription.drain()  # type: ignore[no-untyped-call]
        arrived = list(self._buffer)
        self._buffer.clear()
        self._buffered = 0
        return arrived

    def wake(self) -> None:
        self._wanted.set()

    @property
    def is_idle(self) -> bool:
        """Nothing is buffered: all that has arrived was taken."""
        return not self._buffer

    @property
    def held_bytes(self) -> int:
        """What has arrived and was not taken."""
        return self._buffered

    async def messages(self) -> AsyncIterator[PulledMsg]:
        while True:
            for msg in await self.take(1):
                yield msg

    async def take(self, limit: int, max_bytes: int = 0) -> list[PulledMsg]:
        """What has arrived, at least one message; never waits for more. Raises `ConsumerLost`."""
        while not self._buffer:
            if self._error is not None:
                raise self._error
            self._arrived.clear()
            await self._arrived.wait()
        taken: list[PulledMsg] = []
        size = 0
        while self._buffer and len(taken) < limit:
            size += len(self._buffer[0].data)
            if taken and max_bytes and size > max_bytes:
                break
            taken.append(self._buffer.popleft())
            self._buffered -= len(taken[-1].data)
        self.wake()
        return taken

    def _forget_pulls(self) -> None:
        self._asked = 0
        self._live.clear()
        self.wake()

    async def _ask_for_more(self) -> None:
        loop = asyncio.get_running_loop()
        while self._error is None:
            try:
                async with asyncio.timeout(self._heartbeat):
                    await self._wanted.wait()
            except TimeoutError:
                if self._live and loop.time() - self._heard > self._heartbeat * MISSED_HEARTBEATS:
                    log.debug("pull_lost", consumer=self._consumer)
                    self._forget_pulls()
            self._wanted.clear()
            await self._pull()

    async def _pull(self) -> None:
        credit = self._credit()
        missing = credit - self._asked - len(self._buffer)
        if missing < max(1, credit // 2) or not self._has_room() or not self._bus.is_connected:
            return
        self._pull_ids += 1
        reply = f"{self._inbox}.{self._pull_ids}"
        request = PullRequest(
            batch=missing,
            expires=int(self._expires * 1e9),
            idle_heartbeat=int(self._heartbeat * 1e9),
            max_bytes=self._max_bytes,
        )
        if not self._live:
            self._heard = asyncio.get_running_loop().time()
        self._asked += missing
        self._live[reply] = missing
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        await self._bus.publish(subject, msgspec.json.encode(request), reply=reply)

    def _has_room(self) -> bool:
        """Whether another pull of `max_bytes` keeps what is asked for and buffered within twice that."""
        return not self._max_bytes or self._buffered + self._max_bytes * len(self._live) <= self._max_bytes

    def _on_message(self, msg: Msg) -> None:
        self._heard = asyncio.get_running_loop().time()
        if msg.headers is None or "Status" not in msg.headers or msg.reply.startswith("$JS.ACK"):
            self._on_data(msg)
        else:
            self._on_status(msg.subject, msg.headers)

    def _on_data(self, msg: Msg) -> None:
        self._asked = max(0, self._asked - 1)
        for reply in self._live:  # pulls are served in order, so the oldest is the one that pays
            self._live[reply] -= 1
            if self._live[reply] <= 0:
                del self._live[reply]
            break
        self._buffer.append(PulledMsg(self._bus, msg))
        self._buffered += len(msg.data)
        self._arrived.set()
        if self._asked * 2 <= self._credit():
            self.wake()

    def _on_status(self, reply: str, headers: dict[str, str]) -> None:
        status, text = headers["Status"].split(" ")[0], headers.get("Description", "")
        if status == "100":
            return
        remaining = self._live.pop(reply, 0)
        self._asked = max(0, self._asked - remaining)
        if status == "503" or (status == "409" and "Consumer" in text and "Deleted" in text):
            self.abandon(text or "no responders")
            return
        if status == "400" or "MaxWaiting" in text:
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self.wake)
        else:
            self.wake()

    def abandon(self, reason: str) -> None:
        """Whoever waits, or takes next when nothing is left, gets `ConsumerLost`."""
        self._error = ConsumerLost(stream=self._stream, consumer=self._consumer, reason=reason)
        self._arrived.set()
