"""A Job that was launched: how it is going, how it ended, its last words.

What it used is not known: the API server does not tell (a metrics server, where there is one, samples too rarely).
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from runtara.infra.logs import logger
from runtara.protocol.errors import RuntaraError
from runtara.protocol.limits import MAX_REASON_LENGTH

from ..launches import Ending
from ..tail import as_last_words
from .api import JOBS, ApiServer, ClusterAway, ClusterRefused
from .objects import Job
from .reasons import NODE_LOST, end_of, has_started, obstacle_of
from .sightings import Sightings
from .spec import PREFIX, TIMEOUT

log = logger("runner")

SETTLE_SECONDS: Final = 2.0  # after the first sign of an end, for the pod to say more about it
GONE_SECONDS: Final = 30.0  # beyond the grace, for a node to say that it has ended what it was told to
AWAY_SECONDS: Final = 0.5
LAST_LINES: Final = 100
LOG_BYTES: Final = 256 * 1024


class ClusterJob:
    """`job` as it was first seen."""

    def __init__(self, api: ApiServer, sightings: Sightings, job: Job) -> None:
        notes = job.metadata.annotations or {}
        self.name = job.metadata.name
        self.instance = notes[f"{PREFIX}instance"]
        self.attempt = int(notes[f"{PREFIX}attempt"])
        self.nonce = notes[f"{PREFIX}nonce"]
        self.runner: str | None = None
        limit = notes.get(TIMEOUT)
        self.time_limit = int(limit) / 1e6 if limit is not None else None
        self._api = api
        self._sightings = sightings
        self._created_at = job.metadata.creation_timestamp or api.now()
        self._is_abandoned = False
        sightings.want(self.name)
        self._ending: Ending | None = None

    @property
    def age(self) -> float:
        """Since its container was started, by the cluster's clocks; the time before that is the cluster's."""
        pod = self._sightings.of(self.name).pod
        state = pod.container if pod is not None else None
        running = (state.running or state.terminated) if state is not None else None
        since = running.started_at if running is not None and running.started_at is not None else self._created_at
        return max(0.0, (self._api.now() - since).total_seconds())

    async def started(self, seconds: float) -> str | None:
        """Until its container runs, or it has ended; or the reason why neither came within `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    count = self._sightings.count(self.name)
                    sight = self._sightings.of(self.name)
                    if has_started(sight) or end_of(sight) is not None:
                        return None
                    if sight.pod is not None and (obstacle := obstacle_of(sight.pod)).is_hopeless:
                        return obstacle.reason
                    await self._sightings.change(self.name, after=count)
        return f"{obstacle_of(self._sightings.of(self.name).pod).reason} (for {seconds:g} s)"

    async def ended(self) -> Ending:
        if self._ending is None:
            reason = await self._end()
            stderr = "" if self._is_abandoned else await self.last_words()
            self._ending = Ending(reason=reason[:MAX_REASON_LENGTH], stderr=stderr)
        return self._ending

    async def stop(self, grace: float) -> None:
        """The pod gives itself the grace that it was made with. A node that is lost cannot even say so."""
        try:
            await patiently(lambda: self._delete("Foreground"))
        except ClusterRefused as exc:
            log.error("job_not_stopped", job=self.name, instance=self.instance, reason=str(exc))
            return
        try:
            async with asyncio.timeout(grace + GONE_SECONDS):
                await self._end()
        except TimeoutError:
            log.warning("job_abandoned", job=self.name, instance=self.instance, attempt=self.attempt)
            self._is_abandoned = True
            self._sightings.touch(self.name)

    async def forget(self) -> None:
        try:
            await patiently(lambda: self._delete("Background"))
        except ClusterRefused as exc:
            log.warning("job_not_removed", job=self.name, reason=str(exc))
        self._sightings.forget(self.name)

    async def _end(self) -> str:
        """A sign of its end is followed by better ones, mostly."""
        deadline: float | None = None
        loop = asyncio.get_running_loop()
        while not self._is_abandoned:
            count = self._sightings.count(self.name)
            end = end_of(self._sightings.of(self.name))
            if end is not None:
                deadline = deadline or loop.time() + SETTLE_SECONDS
                if end.is_final or loop.time() >= deadline:
                    return end.reason
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await self._sightings.change(self.name, after=count)
        return NODE_LOST

    async def _delete(self, propagation: str) -> None:
        try:
            await self._api.delete(JOBS, self.name, propagation=propagation)
        except ClusterRefused as exc:
            if exc.status != 404:
                raise

    async def last_words(self) -> str:
        pod = self._sightings.of(self.name)
        if pod.pod is None or pod.pod_is_gone:
            return ""
        try:
            return as_last_words(await self._api.log(pod.pod.metadata.name, lines=LAST_LINES, limit_bytes=LOG_BYTES))
        except RuntaraError as exc:
            return f"(its last words cannot be had: {exc})"


async def patiently(call: Callable[[], Awaitable[None]]) -> None:
    """Until the API server is there for it."""
    while True:
        try:
            return await call()
        except ClusterAway as exc:
            await asyncio.sleep(exc.retry_after or AWAY_SECONDS)
