"""The in-memory twin of `JournalOutlet`: where one execution's records go on the in-memory platform.

Invariants: those of `ports.Outlet`. A record leaves whoever waits for it; `send_committed` resolves on the engine's
answer for this very record, after its acknowledgement.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec

from runtara.engine.memory import MemoryBus
from runtara.protocol.errors import Refused
from runtara.protocol.messages import CommitAnswer
from runtara.protocol.records import Record, Report

OnRejected = Callable[[str], None]
Store = Callable[[Any], "asyncio.Future[int]"]
_NOTHING: Final = ""


class MemoryOutlet:
    """`store` puts a record into the journal, or makes believe."""

    def __init__(self, bus: MemoryBus, store: Store, on_rejected: OnRejected) -> None:
        self._bus = bus
        self._store = store
        self._on_rejected = on_rejected

    def send(self, record: Record) -> "asyncio.Future[int]":
        return self._store(record)

    def send_committed(self, record: Record) -> "asyncio.Future[None]":
        if not isinstance(record, Report):
            raise TypeError(f"only reports have a place to wait for, not {type(record).__name__}")
        accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        reply = _NOTHING

        def on_answer(answer: object) -> None:
            self._bus.forget(reply)
            assert isinstance(answer, CommitAnswer)
            self._settle(record, answer, accepted)

        reply = self._bus.expect(on_answer)
        self._store(msgspec.structs.replace(record, reply=reply))
        return accepted

    def send_best_effort(self, record: Record) -> None:
        self._store(record)

    def _settle(self, record: Report, answer: CommitAnswer, accepted: "asyncio.Future[None]") -> None:
        for _, _, _, reason in answer.rejected:
            self._on_rejected(reason)
            if not accepted.done():
                accepted.set_exception(Refused(reason=f"the engine did not accept report {record.seq}: {reason}"))
                accepted.exception()  # whoever awaits it still sees it; nobody awaiting it is no warning
            return
        if not accepted.done():
            accepted.set_result(None)
