"""Waiting for the ends of instances, one at a time or thousands.

The engine says twice that an instance has ended: in its next message to whoever started it, if that was a moment ago,
and on the instance's own subject to whoever listens. Both are only hints, so whoever waits also asks, again and again.

Invariants: a wait begins to listen before it asks, asks again every few seconds and after each reconnect, and so ends
if its instance has ended, whatever was lost. What this client has just started is not asked for at first, nor listened
to: most instances end before that would pay.
"""

import asyncio
import math
import weakref
from typing import Final, Protocol

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from runtara.infra.logs import logger
from runtara.protocol.api import InstanceView
from runtara.protocol.errors import InstanceNotFound, RuntaraError
from runtara.protocol.messages import Done, Ended

from .connection import Connection

log = logger("results")

SWEEP_SECONDS: Final = 0.5
FIRST_ASK_SECONDS: Final = 2.0  # less than the engine remembers who started what
MAX_ASK_SECONDS: Final = 10.0
MAX_ASKING: Final = 16  # questions under way at once
_done_decoder = msgspec.json.Decoder(Done)
_ended_decoder = msgspec.json.Decoder(list[Ended])


class Watch:
    """Interest in the end of one instance; `ended` is its outcome. Shared by all handles of the instance."""

    __slots__ = (
        "__weakref__", "ask_at", "delay", "ended", "ended_at", "instance", "subscription", "users", "will_be_told",
    )  # fmt: skip

    def __init__(self, instance: str, ended: asyncio.Future[Done], *, will_be_told: bool) -> None:
        self.instance = instance
        self.ended = ended
        self.will_be_told = will_be_told
        self.ended_at = -math.inf  # when that was heard; what was heard long ago, a retry may have overtaken
        self.users = 0
        self.ask_at = 0.0
        self.delay = FIRST_ASK_SECONDS
        self.subscription: Subscription | None = None


class Ends(Protocol):
    """How a client learns of the ends of instances."""

    @property
    def inbox(self) -> str | None:
        """Where the engine can tell of an end, if it needs to be told where."""
        ...

    def watch(self, instance: str, *, starting: bool = False) -> Watch:
        """The watch of an instance; `starting` if a start that names our inbox is about to be sent for it."""
        ...

    async def wait(self, watch: Watch) -> Done:
        """Until the instance has ended. Raises `InstanceNotFound` if there is none."""
        ...

    def forget(self, instance: str) -> None:
        """What is known of the end of `instance` no longer holds: it was retried."""
        ...


class Results:
    """The waits of one client. Use as an async context manager."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._prefix = connection.subjects.done(connection.tenant, "")
        self._watches: weakref.WeakValueDictionary[str, Watch] = weakref.WeakValueDictionary()
        self._waiting: dict[str, Watch] = {}
        self._wanted = asyncio.Event()
        self._sweeper: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Task[None]] = set()
        self._inbox = f"{connection.inbox}.ended"

    async def __aenter__(self) -> "Results":
        await self._connection.subscribe(self._inbox, self._on_ended)
        self._connection.bus.on_reconnect.append(self._on_reconnect)
        self._sweeper = asyncio.create_task(self._sweep(), name="results")
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._connection.bus.on_reconnect.remove(self._on_reconnect)
        tasks = [*self._asking, *([self._sweeper] if self._sweeper else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def inbox(self) -> str:
        return self._inbox

    def watch(self, instance: str, *, starting: bool = False) -> Watch:
        watch = self._watches.get(instance)
        if watch is None:
            watch = Watch(instance, self._loop.create_future(), will_be_told=starting)
            self._watches[instance] = watch
        return watch

    async def wait(self, watch: Watch) -> Done:
        """Until the instance has ended. Raises `InstanceNotFound` if there is none."""
        if watch.ended.done():
            if self._loop.time() - watch.ended_at < FIRST_ASK_SECONDS:
                return watch.ended.result()
            watch.ended, watch.will_be_told = self._loop.create_future(), False
        watch.users += 1
        try:
            if watch.users == 1:
                await self._begin(watch)
            return await asyncio.shield(watch.ended)
        finally:
            watch.users -= 1
            if watch.users == 0:
                await self._end(watch)

    def forget(self, instance: str) -> None:
        """What is known of the end of `instance` no longer holds: it was retried."""
        watch = self._watches.get(instance)
        if watch is not None:
            watch.ended_at = -math.inf

    async def _begin(self, watch: Watch) -> None:
        self._waiting[watch.instance] = watch
        watch.ask_at = self._loop.time() + (FIRST_ASK_SECONDS if watch.will_be_told else 0.0)
        self._wanted.set()
        if not watch.will_be_told:
            await self._listen_and_ask(watch)

    async def _end(self, watch: Watch) -> None:
        self._waiting.pop(watch.instance, None)
        subscription, watch.subscription = watch.subscription, None
        if subscription is not None and not self._connection.bus.nats.is_closed:
            await subscription.unsubscribe()

    def _on_reconnect(self) -> None:
        for watch in self._waiting.values():
            watch.ask_at = 0.0

    def _on_ended(self, msg: Msg) -> None:
        try:
            told = _ended_decoder.decode(msg.data)
        except msgspec.MsgspecError as exc:
            log.warning("ends_unreadable", reason=str(exc))
            return
        for ended in told:
            watch = self._watches.get(ended.instance)
            if watch is not None:
                self._settle(watch, ended.done)

    def _on_done(self, msg: Msg) -> None:
        watch = self._watches.get(msg.subject[len(self._prefix) :])
        if watch is None:
            return
        try:
            self._settle(watch, _done_decoder.decode(msg.data))
        except msgspec.MsgspecError as exc:
            log.warning("done_unreadable", subject=msg.subject, reason=str(exc))

    def _settle(self, watch: Watch, done: Done) -> None:
        if not watch.ended.done():
            watch.ended.set_result(done)
            watch.ended_at = self._loop.time()

    async def _sweep(self) -> None:
        while True:
            await self._wanted.wait()
            await asyncio.sleep(SWEEP_SECONDS)
            now = self._loop.time()
            for watch in list(self._waiting.values()):
                if watch.ask_at <= now and len(self._asking) < MAX_ASKING:
                    self._ask_soon(watch)
            if not self._waiting:
                self._wanted.clear()

    def _ask_soon(self, watch: Watch) -> None:
        watch.ask_at = self._loop.time() + watch.delay
        watch.delay = min(watch.delay * 1.5, MAX_ASK_SECONDS)
        task = self._loop.create_task(self._listen_and_ask(watch), name=f"get {watch.instance}")
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _listen_and_ask(self, watch: Watch) -> None:
        if watch.subscription is None:
            subscription = await self._connection.subscribe(self._prefix + watch.instance, self._on_done)
            if watch.users == 0:  # nobody waits any more
                await subscription.unsubscribe()
                return
            watch.subscription = subscription
        await self._ask(watch)

    async def _ask(self, watch: Watch) -> None:
        try:
            view = await self._connection.call("get", {}, InstanceView, instance=watch.instance)
        except InstanceNotFound as exc:
            if not watch.ended.done():
                watch.ended.set_exception(exc)
                watch.ended.exception()  # seen by whoever waits; nobody waiting is no warning
                self.forget(watch.instance)
            return
        except RuntaraError as exc:
            log.debug("result_unknown", instance=watch.instance, reason=str(exc))
            watch.ask_at = self._loop.time() + SWEEP_SECONDS
            return
        if view.status.is_terminal:
            self._settle(watch, _done(view))


def _done(view: InstanceView) -> Done:
    return Done(
        status=view.status, version=view.version, result=view.result, blob=view.result_blob, error=view.error
    )  # fmt: skip
