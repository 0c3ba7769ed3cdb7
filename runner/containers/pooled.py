"""A container that hosts many instances of one workflow."""

import asyncio
from collections.abc import Callable
from typing import Final

from runtara.protocol.errors import RuntaraError

from .container import Box
from .engine import ContainerEngine, Found
from .spec import LABEL

READY: Final = b"ready worker="  # how the line begins with which a worker says that it takes requests
LOOK_SECONDS: Final = 0.2


class PooledContainer(Box):
    """One that was launched, now or by an earlier life of its runner."""

    def __init__(
        self, engine: ContainerEngine, id: str, name: str, labels: dict[str, str], *, age: float,
        on_forgotten: Callable[[str], None],
    ) -> None:  # fmt: skip
        super().__init__(engine, id, name, age=age, on_forgotten=on_forgotten)
        self.workflow = labels[f"{LABEL}workflow"]
        self.worker = labels[f"{LABEL}worker"]
        self.made_of = labels[f"{LABEL}made-of"]

    @classmethod
    async def of(cls, engine: ContainerEngine, found: Found, on_forgotten: Callable[[str], None]) -> "PooledContainer":
        """One that is there already."""
        age = await engine.age(found.id)
        return cls(engine, found.id, found.name, found.labels, age=age, on_forgotten=on_forgotten)

    async def ready(self) -> None:
        while True:
            try:
                if any(line.startswith(READY) for line in (await self._engine.output(self._id)).splitlines()):
                    return
            except (RuntaraError, TimeoutError):
                pass  # the engine is away, or the container gone: others see to that
            await asyncio.sleep(LOOK_SECONDS)
