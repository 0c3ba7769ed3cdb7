"""One attempt in a runner's hands: from its claim until its end is told.

Invariants: nothing is launched before the engine has granted the claim; whatever was launched is waited for and its end
told, also if the claim was lost meanwhile (that changes nothing: it is stale then); it is forgotten only after that.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from runtara.infra.logs import logger
from runtara.protocol.errors import RuntaraError

from .launches import Ending, Launched, LaunchFailed

log = logger("runner")

LOOK_AGAIN_SECONDS: Final = 2.0
MIN_SECONDS: Final = 0.001

Launch = Callable[[], Awaitable[Launched]]


class Job:
    """`launch` starts it, `is_reserved` asks the platform whether its process has not spoken yet, `tell` returns once
    the journal has its end. `runner` is who claimed."""

    def __init__(
        self, instance: str, attempt: int, nonce: str, *, launch: Launch,
        is_reserved: Callable[["Job"], Awaitable[bool]], tell: Callable[["Job", Ending], Awaitable[None]],
        launch_seconds: float, grace: float, runner: str,
    ) -> None:  # fmt: skip
        self.runner = runner
        self.instance = instance
        self.attempt = attempt
        self.nonce = nonce
        self.confirmed = False
        self._launch = launch
        self._is_reserved = is_reserved
        self._tell = tell
        self._launch_seconds = launch_seconds
        self._grace = grace
        self._cause: str | None = None
        self._stop = asyncio.Event()

    @property
    def key(self) -> tuple[str, int]:
        return self.instance, self.attempt

    def stop(self, cause: str | None = None) -> None:
        """End it: politely, then by force. With a `cause` its attempt is lost before it hears of it, so that it cannot
        hand over and go on as before."""
        if not self._stop.is_set():
            self._cause = cause
            self._stop.set()

    async def run(self) -> None:
        """Launch it and see to its end. Raises nothing of what may go wrong with it."""
        try:
            launched = await self._launch()
        except LaunchFailed as exc:
            log.warning("launch_failed", instance=self.instance, attempt=self.attempt, reason=str(exc))
            await self._tell(self, Ending(reason=str(exc)))
            return
        ending = await self._see_to(launched)
        log.info("launched_ended", instance=self.instance, attempt=self.attempt, reason=ending.reason)
        await self._tell(self, ending)
        await launched.forget()

    async def _see_to(self, launched: Launched) -> Ending:
        watches = [
            asyncio.create_task(self._obey(launched), name=f"stop {self.instance}"),
            asyncio.create_task(self._end_if_silent(launched), name=f"silence {self.instance}"),
            asyncio.create_task(self._limit(launched), name=f"limit {self.instance}"),
        ]
        try:
            ending = await launched.ended()
        finally:
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)
        return ending

    async def _obey(self, launched: Launched) -> None:
        await self._stop.wait()
        if self._cause is not None:
            await self._tell(self, Ending(reason=self._cause, stderr=await launched.last_words()))
        await launched.stop(self._grace)

    async def _limit(self, launched: Launched) -> None:
        limit = launched.time_limit
        if limit is not None:
            await asyncio.sleep(max(MIN_SECONDS, limit - launched.age))
            self.stop(f"over its wall-clock limit of {limit:g} s")

    async def _end_if_silent(self, launched: Launched) -> None:
        """What has not spoken for its instance in time never will."""
        await asyncio.sleep(max(MIN_SECONDS, self._launch_seconds - launched.age))
        while True:
            try:
                if await self._is_reserved(self):
                    self.stop(f"it did not speak for its instance within {self._launch_seconds:g} s")
                return
            except RuntaraError as exc:
                log.debug("launch_unknown", instance=self.instance, reason=str(exc))
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
