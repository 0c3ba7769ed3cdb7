"""Waiting for the ends of instances, one at a time or thousands.

The engine says `done` once, to whoever listens; that is only a hint, so whoever waits also asks, again and
again. Few waits listen to their instances' own subjects; many share one subscription to the whole tenant's.

Invariants: a wait begins to listen before it asks, asks again every few seconds and after each reconnect, and
so ends if its instance has ended, whatever was lost. An instance that was started while the shared
subscription stood need not be asked for at first: its end cannot have been missed.
"""

import asyncio
import weakref
from typing import Final, Protocol

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from runtara.infra.logs import logger
from runtara.protocol.errors import InstanceNotFound, RuntaraError
from runtara.protocol.messages import Done, InstanceView

from .connection import Connection

log = logger("results")

SHARE_FROM: Final = 16  # waits at once from which the tenant's whole stream of ends is cheaper than one subject each
SHARE_UNTIL: Final = 4
SWEEP_SECONDS: Final = 0.5
FIRST_ASK_SECONDS: Final = 2.0
MAX_ASK_SECONDS: Final = 10.0
MAX_ASKING: Final = 16  # questions under way at once
_decoder = msgspec.json.Decoder(Done)


class Watch:
    """Interest in the end of one instance; `ended` is its outcome. Shared by all handles of the instance."""

    __slots__ = ("__weakref__", "ask_at", "covered", "delay", "ended", "instance", "subscription", "users")

    def __init__(self, instance: str, ended: asyncio.Future[Done], covered: int) -> None:
        self.instance = instance
        self.ended = ended
        self.covered = covered  # the epoch of the shared subscription since which no end can be missed; 0: none
        self.users = 0
        self.ask_at = 0.0
        self.delay = FIRST_ASK_SECONDS
        self.subscription: Subscription | None = None


class Ends(Protocol):
    """How a client learns of the ends of instances."""

    async def starting(self, instance: str) -> Watch:
        """The watch of an instance that is about to be started; call `started` when that is decided."""
        ...

    def started(self) -> None: ...

    def watch(self, instance: str) -> Watch: ...

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
        self._starting = 0
        self._shared: Subscription | None = None
        self._is_sharing = False
        self._epoch = 1
        self._wanted = asyncio.Event()
        self._sweeper: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Results":
        self._connection.bus.on_reconnect.append(self._on_reconnect)
        self._sweeper = asyncio.create_task(self._sweep(), name="results")
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._connection.bus.on_reconnect.remove(self._on_reconnect)
        tasks = [*self._asking, *([self._sweeper] if self._sweeper else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def starting(self, instance: str) -> Watch:
        """The watch of an instance that is about to be started; call `started` when that is decided."""
        self._starting += 1
        await self._share_if_busy()
        return self.watch(instance, new=True)

    def started(self) -> None:
        self._starting -= 1

    def watch(self, instance: str, *, new: bool = False) -> Watch:
        """The watch of an instance; `new` if nothing can have ended it yet."""
        watch = self._watches.get(instance)
        if watch is None:
            covered = self._epoch if new and self._shared is not None else 0
            watch = self._watches[instance] = Watch(instance, self._loop.create_future(), covered)
        return watch

    async def wait(self, watch: Watch) -> Done:
        """Until the instance has ended. Raises `InstanceNotFound` if there is none."""
        if watch.ended.done():
            return watch.ended.result()
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
        self._watches.pop(instance, None)

    async def _begin(self, watch: Watch) -> None:
        self._waiting[watch.instance] = watch
        await self._share_if_busy()
        if self._shared is None:
            subject = self._prefix + watch.instance
            watch.subscription = await self._connection.subscribe(subject, self._on_done)
        known = self._shared is not None and watch.covered == self._epoch
        watch.ask_at = self._loop.time() + FIRST_ASK_SECONDS if known else 0.0
        self._wanted.set()
        if not known:
            await self._ask(watch)

    async def _end(self, watch: Watch) -> None:
        self._waiting.pop(watch.instance, None)
        subscription, watch.subscription = watch.subscription, None
        if subscription is not None and not self._connection.bus.nats.is_closed:
            await subscription.unsubscribe()

    async def _share_if_busy(self) -> None:
        if self._shared is not None or self._is_sharing or len(self._waiting) + self._starting < SHARE_FROM:
            return
        self._is_sharing = True
        try:
            self._shared = await self._connection.subscribe(f"{self._prefix}*", self._on_done)
        finally:
            self._is_sharing = False
        self._epoch += 1
        self._wanted.set()

    async def _share_no_more(self) -> None:
        if self._shared is None or len(self._waiting) + self._starting > SHARE_UNTIL:
            return
        shared, self._shared = self._shared, None
        self._epoch += 1
        for watch in self._waiting.values():
            if watch.subscription is None:
                subject = self._prefix + watch.instance
                watch.subscription = await self._connection.subscribe(subject, self._on_done)
        await shared.unsubscribe()

    def _on_reconnect(self) -> None:
        self._epoch += 1
        for watch in self._waiting.values():
            watch.ask_at = 0.0

    def _on_done(self, msg: Msg) -> None:
        watch = self._watches.get(msg.subject[len(self._prefix) :])
        if watch is None:
            return
        try:
            self._settle(watch, _decoder.decode(msg.data))
        except msgspec.MsgspecError as exc:
            log.warning("done_unreadable", subject=msg.subject, reason=str(exc))

    def _settle(self, watch: Watch, done: Done) -> None:
        if not watch.ended.done():
            watch.ended.set_result(done)
        if self._watches.get(watch.instance) is watch:
            del self._watches[watch.instance]

    async def _sweep(self) -> None:
        while True:
            await self._wanted.wait()
            await asyncio.sleep(SWEEP_SECONDS)
            now = self._loop.time()
            for watch in list(self._waiting.values()):
                if watch.ask_at <= now and len(self._asking) < MAX_ASKING:
                    self._ask_soon(watch)
            await self._share_no_more()
            if not self._waiting and self._shared is None:
                self._wanted.clear()

    def _ask_soon(self, watch: Watch) -> None:
        watch.ask_at = self._loop.time() + watch.delay
        watch.delay = min(watch.delay * 1.5, MAX_ASK_SECONDS)
        task = self._loop.create_task(self._ask(watch), name=f"get {watch.instance}")
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, watch: Watch) -> None:
        try:
            view = await self._connection.call("get", {}, InstanceView, instance=watch.instance)
        except InstanceNotFound as exc:
            if watch.covered == 0 and not watch.ended.done():
                watch.ended.set_exception(exc)
                watch.ended.exception()  # seen by whoever waits; nobody waiting is no warning
                self.forget(watch.instance)
            return
        except RuntaraError as exc:
            log.debug("result_unknown", instance=watch.instance, reason=str(exc))
            watch.ask_at = self._loop.time() + SWEEP_SECONDS
            return
        if view.status.is_terminal:
            self._settle(watch, Done(status=view.status, version=view.version, result=view.result, error=view.error))
