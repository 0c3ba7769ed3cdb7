"""The port between the keeper of pooled containers and who makes them.

A pooled container hosts many instances of one tenant and workflow: a worker, with a worker's credential. Invariants of
a `Pooled` are those of a `Launched`: `ended` returns once and may be awaited again, `forget` leaves nothing behind.
"""

from typing import Protocol

import msgspec

from runtara.protocol.ids import derived_name
from runtara.protocol.records import Image

from .launches import Ending


class PooledOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What to launch, as `worker`. `credential`: its own; None where the platform issues none."""

    tenant: str
    workflow: str
    image: Image
    worker: str
    credential: str | None = None


class Pooled(Protocol):
    """One container."""

    @property
    def workflow(self) -> str: ...
    @property
    def worker(self) -> str: ...

    @property
    def made_of(self) -> str:
        """The `fingerprint` of its image."""
        ...

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        ...

    async def ready(self) -> None:
        """Until it takes requests. Not, if it ends before that."""
        ...

    async def ended(self) -> Ending: ...

    async def stop(self, grace: float) -> None:
        """Ask it to hand over and end, and end it if it still runs after `grace` seconds."""
        ...

    async def forget(self) -> None:
        """Its end is told: clean up."""
        ...


class PooledLauncher(Protocol):
    async def launch_pooled(self, order: PooledOrder) -> Pooled:
        """Raises `LaunchFailed`."""
        ...

    async def pooled_left_behind(self) -> list[Pooled]:
        """What an earlier life of this runner launched, whether it still runs or not."""
        ...


def fingerprint(image: Image) -> str:
    """Of all that a container is made of: another one, and it has to be replaced."""
    return derived_name("image", msgspec.json.encode(image).decode())
