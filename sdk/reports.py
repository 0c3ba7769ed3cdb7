"""The reports of one claim: numbered, in order, until the last one.

Invariants: a report gets its number when it is queued, without gaps; after the last one nothing is sent; the outlet
is called outside the workflow's own context, so that tasks it may start for itself are not the instance's.
"""

import asyncio
import time
from contextvars import copy_context
from typing import Any, Final, TypeVar

from msgspec import Raw

from runtara.protocol.records import Checkpointed, Log, Progress, Record, Report

from .ports import Durability, Outlet

PROGRESS_SECONDS: Final = 1.0  # between two reports of progress
R = TypeVar("R", bound=Report)
Sent = asyncio.Future[int] | asyncio.Future[None]


class Reports:
    """Makes and sends the records of one claim. Create it outside of user code."""

    def __init__(self, outlet: Outlet, *, instance: str, attempt: int, nonce: str) -> None:
        self._outlet = outlet
        self._instance = instance
        self._attempt = attempt
        self._nonce = nonce
        self._seq = 0
        self._ended = False
        self._outside = copy_context()
        self._progress: tuple[int, int | None] | None = None
        self._progress_at = -PROGRESS_SECONDS

    def checkpointed(self, key: str, data: bytes) -> Checkpointed:
        return Checkpointed(
            instance=self._instance, attempt=self._attempt, nonce=self._nonce, seq=self._next(),
            at=time.time_ns() // 1000, key=key, data=Raw(data),
        )  # fmt: skip

    def send(self, record: Report, durability: Durability) -> Sent:
        """Queue a record that was just made."""
        outlet = self._outlet
        if durability == "journal":
            return self._outside.run(outlet.send, record)
        return self._outside.run(outlet.send_committed, record)

    def last(self, kind: type[Report], /, **fields: Any) -> asyncio.Future[int]:
        """Send the claim's last record. Nothing can follow it."""
        record = self.make(kind, **fields)
        self._ended = True
        return self._outside.run(self._outlet.send, record)

    def make(self, kind: type[R], /, **fields: Any) -> R:
        """A report with the next number. It must be sent at once."""
        claim: dict[str, Any] = {"instance": self._instance, "attempt": self._attempt, "nonce": self._nonce}
        return kind(**claim, seq=self._next(), at=time.time_ns() // 1000, **fields)

    def end(self) -> None:
        """Nothing more is sent: another attempt has taken over."""
        self._ended = True

    def log(self, level: str, message: str, data: bytes) -> None:
        self._best_effort(Log, level=level, message=message, data=Raw(data))

    def progress(self, done: int, total: int | None) -> None:
        """At most one a second is sent; of what comes faster the latest is sent when its time has come."""
        loop = asyncio.get_running_loop()
        waiting, self._progress = self._progress, (done, total)
        if waiting is None:
            delay = self._progress_at + PROGRESS_SECONDS - loop.time()
            if delay <= 0:
                self._flush_progress()
            else:
                loop.call_later(delay, self._flush_progress, context=self._outside.copy())

    def _flush_progress(self) -> None:
        if self._progress is not None:
            done, total = self._progress
            self._progress = None
            self._progress_at = asyncio.get_running_loop().time()
            self._best_effort(Progress, done=done, total=total)

    def _best_effort(self, kind: type[Record], **fields: Any) -> None:
        if not self._ended:
            claim: dict[str, Any] = {"instance": self._instance, "attempt": self._attempt, "nonce": self._nonce}
            record = kind(**claim, at=time.time_ns() // 1000, **fields)
            self._outside.run(self._outlet.send_best_effort, record)

    def _next(self) -> int:
        if self._ended:
            raise asyncio.CancelledError("the instance has ended")
        self._seq += 1
        return self._seq
