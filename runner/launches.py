"""The port between the runner and what it launches: processes, containers.

Invariants of a `Launched`: `ended` returns once, however its end came, and may be awaited again; its output is read all
the time and kept within bounds; `forget` leaves nothing of it behind. A `Launcher` keeps no count: how many run at once
is the runner's business.
"""

from types import TracebackType
from typing import Protocol, Self

import msgspec

from runtara.protocol.api import Registration
from runtara.protocol.errors import Refused
from runtara.protocol.records import Options


class LaunchFailed(Refused):
    """Nothing was started; the attempt is lost, with this as its reason."""

    template = "it could not be launched: {reason}"
    reason: str


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to launch. `nonce` is the runner's claim; `token` lets the launched process, as `worker`, take it over.

    `credential`: its own, good for this instance alone; None where the platform issues none, and it shows the runner's.
    """

    tenant: str
    instance: str
    workflow: str
    attempt: int
    nonce: str
    token: str
    worker: str
    options: Options
    credential: str | None = None


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How it ended. `stderr` are its last words; what it used is None where nobody knows."""

    reason: str
    stderr: str = ""
    memory_bytes: int | None = None
    cpu_us: int | None = None


class Launched(Protocol):
    """One process or container."""

    @property
    def instance(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def nonce(self) -> str: ...

    @property
    def runner(self) -> str | None:
        """Who launched it. None: this runner."""
        ...

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        ...

    @property
    def time_limit(self) -> float | None:
        """Seconds that it may run."""
        ...

    async def ended(self) -> Ending: ...

    async def last_words(self) -> str:
        """The end of what it has written to stderr so far."""
        ...

    async def stop(self, grace: float) -> None:
        """Ask it to end, and end it if it still runs after `grace` seconds."""
        ...

    async def forget(self) -> None:
        """Its end is told: clean up."""
        ...


class Launcher(Protocol):
    """An async context manager; leaving it ends what it launched, unless that can live on without it."""

    @property
    def kind(self) -> str: ...

    @property
    def registrations(self) -> list[Registration] | None:
        """What it can launch and registers itself. None: whatever is registered with its kind."""
        ...

    async def launch(self, order: Order) -> Launched:
        """Raises `LaunchFailed`."""
        ...

    async def left_behind(self) -> list[Launched]:
        """What an earlier life of this runner launched, whether it still runs or not."""
        ...

    async def abandoned(self) -> list[Launched]:
        """What other runners launched, has ended a while ago, and nobody cleared away."""
        ...

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
