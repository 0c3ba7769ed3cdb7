"""A copy of what a label selector finds in the cluster, kept up to date: list, then watch from where the list ended.

Invariants: what is listed, is watched from that very version, so nothing in between is missed; when the server no
longer knows that version (410), all is listed again, and what is not there any more is said to be gone; a watch that
ends, breaks or falls silent is begun again where it was, sooner or later as the server wishes. So a change is seen late
at worst, never not at all.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from runtara.infra.lifetime import Service
from runtara.infra.logs import logger

from .api import ApiServer, Change, ClusterAway, ClusterRefused, Resource
from .objects import Thing

T = TypeVar("T", bound=Thing)
log = logger("runner")

FIRST_DELAY_SECONDS: Final = 0.1
MAX_DELAY_SECONDS: Final = 10.0
SHORT_WATCH_SECONDS: Final = 1.0  # a server that ends watches so soon is not asked again at once
GONE: Final = 410


class Mirror(Service, Generic[T]):
    """Of `resource` where `selector` holds. `on_seen` gets what is new or has changed, `on_gone` what is no more.

    Entering it lists for the first time: it waits for a server that is away, and raises what the server refuses.
    """

    def __init__(
        self, api: ApiServer, resource: Resource, type: type[T], selector: str, *,
        on_seen: Callable[[T], None], on_gone: Callable[[T], None],
    ) -> None:  # fmt: skip
        super().__init__(f"mirror {resource.plural}")
        self._api = api
        self._resource = resource
        self._type = type
        self._selector = selector
        self._on_seen = on_seen
        self._on_gone = on_gone
        self._items: dict[str, T] = {}
        self._version: str | None = None
        self._failures = 0

    @property
    def items(self) -> dict[str, T]:
        """By name."""
        return dict(self._items)

    def get(self, name: str) -> T | None:
        return self._items.get(name)

    @property
    def version(self) -> str | None:
        """Up to which all is known; None while that has to be found out."""
        return self._version

    def expect(self, item: T) -> None:
        """We have just made it; unless the watch has told that already."""
        if self._items.setdefault(item.metadata.name, item) is item:
            self._on_seen(item)

    async def open(self) -> None:
        while self._version is None:
            try:
                await self._list()
            except ClusterAway as exc:
                await self._pause(exc)
            except ClusterRefused as exc:
                if exc.status != GONE:
                    raise
                await self._pause(exc)
        self.spawn(self._follow(), "follow")

    async def _follow(self) -> None:
        while True:
            try:
                if self._version is None:
                    await self._list()
                await self._keep_up()
            except ClusterAway as exc:
                await self._pause(exc)
            except ClusterRefused as exc:  # rights can be given back; what runs goes on meanwhile
                self._version = None
                await self._pause(exc)

    async def _list(self) -> None:
        before = set(self._items)  # what is expected meanwhile may be too new for the list
        listed = await self._api.list(self._resource, self._type, self._selector)
        found = {item.metadata.name: item for item in listed.items}
        for name in before - found.keys():
            self._lose(name)
        for item in found.values():
            self._see(item)
        self._version = listed.version

    async def _keep_up(self) -> None:
        assert self._version is not None
        loop = asyncio.get_running_loop()
        began = loop.time()
        async for change in self._api.watch(self._resource, self._type, self._selector, self._version):
            self._take(change)
            self._version = change.object.metadata.resource_version or self._version
            self._failures = 0
        if loop.time() - began < SHORT_WATCH_SECONDS:
            raise ClusterAway(reason="it ends a watch as soon as it has begun", retry_after=None)

    def _take(self, change: Change[T]) -> None:
        match change.type:
            case "ADDED" | "MODIFIED":
                self._see(change.object)
            case "DELETED":
                self._see(change.object)  # how it was at its end
                self._lose(change.object.metadata.name)
            case _:  # BOOKMARK, and what is not invented yet
                pass

    def _see(self, item: T) -> None:
        self._items[item.metadata.name] = item
        self._on_seen(item)

    def _lose(self, name: str) -> None:
        item = self._items.pop(name, None)
        if item is not None:
            self._on_gone(item)

    async def _pause(self, error: ClusterAway | ClusterRefused) -> None:
        delay = min(FIRST_DELAY_SECONDS * 2.0 ** min(self._failures, 16), MAX_DELAY_SECONDS)
        self._failures += 1
        match error:
            case ClusterAway():
                wanted = error.retry_after
            case _:
                wanted = None if error.status == GONE else MAX_DELAY_SECONDS
        log.warning("cluster_watch_waits", resource=self._resource.plural, reason=str(error))
        await asyncio.sleep(max(delay * random.uniform(0.5, 1.0), wanted or 0.0))
