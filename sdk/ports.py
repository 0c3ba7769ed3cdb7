"""What an execution needs from whoever hosts it.

Invariants of an `Outlet`: records leave in the order of the calls, whatever their kind; the returned future
may be cancelled by whoever waits for it (user code gave up), the record travels nonetheless; a future that
fails means that the claim no longer counts, and the execution ends as superseded.
"""

import asyncio
from typing import Literal, Protocol

from runtara.protocol.records import Record

Durability = Literal["journal", "log"]
"""`journal`: acknowledged by the journal, where it counts if the attempt is current. `log`: committed by the engine."""

Why = Literal["pause", "cancel", "superseded", "drain"]
"""Why an instance must leave its process."""


class Outlet(Protocol):
    """Where one execution's records go, in order. All calls come from the event loop's thread."""

    def send(self, record: Record) -> asyncio.Future[int]:
        """Resolved with the journal sequence once the journal has acknowledged the record."""
        ...

    def send_committed(self, record: Record) -> asyncio.Future[None]:
        """Resolved once the engine has committed the record; fails if the engine rejected it."""
        ...

    def send_best_effort(self, record: Record) -> None:
        """May be lost. Never blocks, never raises."""
        ...
