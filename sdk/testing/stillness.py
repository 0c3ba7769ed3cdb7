"""When nothing more can happen unless time passes or somebody outside says something.

An instance is known to stand still if all its tasks sleep by the platform's clock, wait for the engine, or wait for
such tasks. Where that cannot be seen (a lock, a queue, input and output outside of steps), stillness is taken for
granted once nothing has happened in `PATIENCE_LOOKS` looks, a millisecond of real time apart at least: counted, so that
a machine that stands still for a while is not taken for an instance that does. A step in flight is never cut short.
"""

import asyncio
from typing import Any, Final

from runtara.engine.memory import MemoryBus

from .host import MemoryHost

PATIENCE_LOOKS: Final = 20
LOOK_SECONDS: Final = 0.001


class Stillness:
    """Of one platform. All of it happens in the event loop that calls."""

    def __init__(self, bus: MemoryBus, host: MemoryHost) -> None:
        self._bus = bus
        self._host = host

    @property
    def changes(self) -> int:
        return self._bus.changes + self._bus.clock.changes

    async def reached(self, *, within: float | None = None) -> None:
        """Return when nothing more can happen by itself. What follows without an `await` still finds it so.

        A step in flight is waited for, at most `within` real seconds in which nothing else happens.
        """
        loop = asyncio.get_running_loop()
        seen, changed_at, looks = self.changes, loop.time(), 0
        while True:
            await asyncio.sleep(0)
            if self.changes != seen:
                seen, changed_at, looks = self.changes, loop.time(), 0
                continue
            if self._bus.is_busy or self._host.is_busy:
                looks = 0
                if within is not None and loop.time() - changed_at >= within:
                    return
            elif looks >= PATIENCE_LOOKS or (_is_idle(loop) and self._all_wait()):
                return
            looks += 1
            await asyncio.sleep(LOOK_SECONDS)

    def _all_wait(self) -> bool:
        for resident in self._host.residents.values():
            execution = resident.execution
            if execution is None or not execution.stands_still(self._bus.clock.sleepers):
                return False
        return True


def _is_idle(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether no callback is due, as far as the loop lets us see."""
    ready: Any = getattr(loop, "_ready", None)
    return ready is not None and not ready
