"""A container that was launched: how it is going, how it ended, what it used.

The engine forgets what a container used when it ends, so that is looked at while it runs: soon after the start, then
less and less often. Of one that is over sooner than the first look nothing is known.
"""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Final

from runtara.infra.logs import logger
from runtara.protocol.errors import RuntaraError

from ..child import exit_reason
from ..launches import Ending
from ..tail import as_last_words
from .engine import ContainerEngine, EngineAway, EngineRefused, Found, State, Usage
from .spec import LABEL

log = logger("runner")

FIRST_LOOK_SECONDS: Final = 0.2
MAX_LOOK_SECONDS: Final = 5.0
LAST_LINES: Final = 100
SIGNALLED: Final = 128  # a shell's way, and the engine's, to say that a signal ended it
ASK_AGAIN_SECONDS: Final = 1.0
AWAY_SECONDS: Final = 0.5
MAX_REFUSALS: Final = 20


class Box:
    """`age`: seconds since it was started. `on_forgotten` gets its name once it is removed."""

    def __init__(
        self, engine: ContainerEngine, id: str, name: str, *, age: float, on_forgotten: Callable[[str], None]
    ) -> None:
        self._engine = engine
        self._id = id
        self._name = name
        self._on_forgotten = on_forgotten
        self._started_at = time.monotonic() - age
        self._usage: Usage | None = None

    @property
    def age(self) -> float:
        return time.monotonic() - self._started_at

    async def ended(self) -> Ending:
        looking = asyncio.create_task(self._look(), name=f"usage {self._name}")
        try:
            state = await self._engine.wait(self._id)
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
        usage = self._usage
        return Ending(
            reason=_reason(state), stderr=await self.last_words() if state is not None else "",
            memory_bytes=usage.memory_bytes if usage is not None else None,
            cpu_us=usage.cpu_us if usage is not None else None,
        )  # fmt: skip

    async def stop(self, grace: float) -> None:
        """The engine may be away: then its containers are not stopped before it is back.

        It is asked again and again, because the first process of a container does not hear what it has no handler for,
        and an interpreter that has just been started has none yet.
        """
        await self._kill(signal.SIGTERM)
        asking = asyncio.create_task(self._ask_again(), name=f"stop {self._name}")
        try:
            async with asyncio.timeout(grace):
                await self._engine.wait(self._id)
        except TimeoutError:
            log.warning("container_killed", container=self._name, grace=grace)
            await self._kill(signal.SIGKILL)
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _ask_again(self) -> None:
        while True:
            await asyncio.sleep(ASK_AGAIN_SECONDS)
            await self._kill(signal.SIGTERM)

    async def forget(self) -> None:
        await self._insist("remove", lambda: self._engine.remove(self._id))
        self._on_forgotten(self._name)

    async def _kill(self, number: signal.Signals) -> None:
        await self._insist("kill", lambda: self._engine.kill(self._id, number.name))

    async def _insist(self, what: str, call: Callable[[], Awaitable[None]]) -> None:
        """As long as the engine is away; what it refuses a few times more, since it may just be starting."""
        refusals = 0
        while True:
            try:
                return await call()
            except (EngineAway, TimeoutError):
                pass
            except EngineRefused as exc:
                refusals += 1
                if refusals == MAX_REFUSALS:
                    log.warning("container_left", container=self._name, what=what, reason=str(exc))
                    return
            await asyncio.sleep(AWAY_SECONDS)

    async def last_words(self) -> str:
        try:
            return as_last_words(await self._engine.last_words(self._id, LAST_LINES))
        except (RuntaraError, TimeoutError) as exc:
            return f"(its last words cannot be had: {exc})"

    async def _look(self) -> None:
        pause = FIRST_LOOK_SECONDS
        while True:
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_LOOK_SECONDS)
            try:
                usage = await self._engine.usage(self._id)
            except (RuntaraError, TimeoutError):
                continue
            if usage is not None:
                most = max(usage.memory_bytes, self._usage.memory_bytes if self._usage is not None else 0)
                self._usage = Usage(memory_bytes=most, cpu_us=usage.cpu_us)


class Container(Box):
    """That of one attempt."""

    def __init__(
        self, engine: ContainerEngine, id: str, name: str, labels: dict[str, str], *, age: float,
        on_forgotten: Callable[[str], None],
    ) -> None:  # fmt: skip
        super().__init__(engine, id, name, age=age, on_forgotten=on_forgotten)
        self.instance = labels[f"{LABEL}instance"]
        self.attempt = int(labels[f"{LABEL}attempt"])
        self.nonce = labels[f"{LABEL}nonce"]
        self.runner: str | None = labels[f"{LABEL}runner"]
        limit = labels.get(f"{LABEL}timeout-us")
        self.time_limit = int(limit) / 1e6 if limit is not None else None

    @classmethod
    async def of(cls, engine: ContainerEngine, found: Found, on_forgotten: Callable[[str], None]) -> "Container":
        """One that is there already."""
        age = await engine.age(found.id)
        return cls(engine, found.id, found.name, found.labels, age=age, on_forgotten=on_forgotten)


def _reason(state: State | None) -> str:
    if state is None:
        return "somebody removed the container"
    if state.out_of_memory:
        return "out of memory"
    if state.status == "created":
        return f"the container was never started{': ' if state.error else ''}{state.error}"
    code = SIGNALLED - state.code if state.code > SIGNALLED else state.code
    return exit_reason(code, of="the container")
