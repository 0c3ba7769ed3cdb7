"""The last part of an attempt that failed or was cancelled with something to undo.

The code is stopped, compensations run, and the last record says how it ended. That a failed workflow is to be undone
is recorded first (`~failed`): from then on it can only be undone, also if its code would succeed on another day. An
attempt that finds this record, or that is claimed to be cancelled, runs the code only to learn its compensations:
recorded keys answer, nothing new begins. Once all are known the code is stopped; what it does not register again
within `PATIENCE_SECONDS` is told as not undone.

Invariants: once `is_due` the code's own end means nothing; the code has been stopped (or had its grace) before the
first compensation runs; all methods belong to the loop's thread.
"""

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from runtara.protocol.errors import CompensationFailed, WireError
from runtara.protocol.ids import FAILED_KEY
from runtara.protocol.records import Cancelled, Failed, Suspended

from .compensations import Compensations, NotUndone
from .failures import describe
from .gate import Gate
from .memos import Memos, Recorded
from .operations import Operations
from .reports import Reports
from .scope import FRAME, Frame, Host
from .tasks import Residents

PATIENCE_SECONDS: Final = 5.0
_encoder: Final = msgspec.json.Encoder()
End = Callable[..., None]


class Undoing:
    """Construct it outside of user code. `end` sends the last record."""

    def __init__(
        self, host: Host, operations: Operations, *, gate: Gate, reports: Reports, memos: Memos, residents: Residents,
        instance: str, end: End,
    ) -> None:  # fmt: skip
        self._host = host
        self._gate = gate
        self._operations = operations
        self._residents = residents
        self._end = end
        self._outside = copy_context()
        self._main: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._error = _decided(memos)
        self._is_recorded = self._error is not None
        self.is_cancelled = False
        self.compensations = Compensations(
            operations, gate=gate, reports=reports, memos=memos, instance=instance, on_found=self._found
        )

    @property
    def is_due(self) -> bool:
        """Whether the instance is to be undone, or is being undone; nothing else can come of it."""
        return self._error is not None or self.is_cancelled

    def fail(self, error: WireError) -> None:
        """The workflow has failed: what it did is undone before that is said."""
        if self.is_due:
            self.begin()
        elif self.compensations:
            self.begin(error)
        else:
            self._end(Failed, error=error)

    def cancel(self, reason: str) -> None:
        """With something to undo the attempt is handed back: the next one is claimed to be cancelled, and undoes it."""
        if self.is_due:
            return
        if self.compensations:
            self._end(Suspended, why="cancel", reason="released")
        else:
            self._end(Cancelled, why="cancel", reason=reason or None)

    def prepare(self) -> bool:
        """At the start of an attempt that is due: whether its code is needed to learn what to call."""
        if not self.compensations.missing:
            self.begin()
            return False
        self._gate.undoing = True
        self._patience = self._host.loop.call_later(PATIENCE_SECONDS, self.begin, context=self._outside)
        return True

    def _found(self) -> None:
        """The code has registered what the log has."""
        if self.is_due and not self.compensations.missing:
            self.begin()

    def begin(self, error: WireError | None = None) -> None:
        """Stop the code and undo; `error`: why, unless that is known. Said again it changes nothing."""
        if self._task is not None or self._gate.frozen:
            return
        self._error = self._error or error
        self._gate.undoing = self._gate.unwound = True
        if self._patience is not None:
            self._patience.cancel()
        self._task = self._host.loop.create_task(self._run(), name="runtara undo", context=self._outside.copy())

    def stop(self) -> None:
        """The attempt has ended."""
        if self._patience is not None:
            self._patience.cancel()
        if self._task is not None:
            self._task.cancel()

    def runs(self, main: asyncio.Task[None]) -> None:
        self._main = main

    async def _run(self) -> None:
        try:
            await self._residents.unwind(self._main, once=True)
            FRAME.set(Frame(self._host, is_undo=True))
            task = asyncio.current_task()
            assert task is not None
            self._residents.adopt(task)  # from here on it is the instance's, and may be idle
            if self._error is not None and not self._is_recorded:
                await self._operations.decide(FAILED_KEY, _encoder.encode(self._error))
            self._finish(await self.compensations.run())
        except Exception as exc:  # a bug of ours must not leave the instance without an end
            self._end(Failed, error=describe(exc))

    def _finish(self, failures: list[NotUndone]) -> None:
        if self._error is not None and not self.is_cancelled:
            self._end(Failed, error=_with_failures(self._error, failures))
        elif failures:
            self._end(Failed, error=_not_cancelled(failures))
        else:
            self._end(Cancelled)


def _decided(memos: Memos) -> WireError | None:
    """Why an earlier attempt began to undo."""
    known = memos.answer(FAILED_KEY)
    return msgspec.json.decode(known.value, type=WireError) if isinstance(known, Recorded) else None


def _with_failures(error: WireError, failures: list[NotUndone]) -> WireError:
    if not failures:
        return error
    attributes: dict[str, object] = {**error.attributes, "not_undone": [msgspec.to_builtins(f) for f in failures]}
    return replace(error, message=f"{error.message} ({_text(failures)})", attributes=attributes)


def _not_cancelled(failures: list[NotUndone]) -> WireError:
    told: list[Any] = [msgspec.to_builtins(failure) for failure in failures]
    return CompensationFailed(reason=_text(failures), not_undone=told).to_wire()


def _text(failures: list[NotUndone]) -> str:
    return "not undone: " + "; ".join(f"{f.key!r}: {f.type}: {f.message}" for f in failures)
