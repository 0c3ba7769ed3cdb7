"""Compensations: what undoes a step, registered before it, called in reverse if the workflow fails or is cancelled.

That there is something to undo is a record of its own (`compensating`); the function is found again by running the
code again, as results are. Each runs as a step under `~undo/<key>`: recorded once, tried again as its `retry=` says,
not repeated by a later attempt.

What a fork inherits is its source's to undo: registering it again does nothing.

Invariants: an undo is known to the journal before what it undoes can begin; the order is that of the log, the same in
every attempt; one that fails does not keep the others from running; whatever was not undone is told, by name.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import orjson
from msgspec import Raw

from runtara.protocol.errors import BadInput, StepFailed, WireError
from runtara.protocol.ids import UNDO_PREFIX, check_key
from runtara.protocol.records import Compensating

from .failures import describe
from .gate import Gate
from .keys import Keys
from .memos import Failure, Memos
from .operations import Operations
from .reports import Reports
from .scope import FRAME
from .signature import StepSpec
from .step import spec_of

logger: Final = logging.getLogger("runtara.sdk")
_NOT_REGISTERED: Final = "the code no longer registers it, so nobody knows how to undo it"


class Undo(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be called. `order`: later ones are called first."""

    order: tuple[int, int]
    spec: StepSpec
    args: tuple[object, ...]
    kwargs: dict[str, object]


class NotUndone(msgspec.Struct, frozen=True, kw_only=True):
    """A compensation that failed, or that there is no code for."""

    key: str
    type: str
    message: str


class Compensations:
    """The compensations of one attempt. `on_found`: told when the code has registered one that the log has."""

    def __init__(
        self, operations: Operations, *, gate: Gate, reports: Reports, memos: Memos, instance: str,
        on_found: Callable[[], None],
    ) -> None:  # fmt: skip
        self._operations = operations
        self._gate = gate
        self._reports = reports
        self._memos = memos
        self._instance = instance
        self._on_found = on_found
        self._keys = Keys(memos.undo_digest if memos else None)
        self._undos: dict[str, Undo] = {}

    def __bool__(self) -> bool:
        """Whether there is, or was, anything to undo."""
        return bool(self._undos or self._memos.undos)

    @property
    def missing(self) -> list[str]:
        """The keys that the log has, that are not undone, and that this run has not registered (yet)."""
        return [key for key in self._memos.undos if key not in self._undos and not self._is_done(key)]

    async def register(
        self, fn: Callable[..., Any], key: str | None, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        frame = FRAME.get()
        if frame.in_step:
            raise BadInput(
                reason="ctx.compensate was called inside a step, which a resumed run does not call again; "
                "call it in the workflow, before the step that it undoes"
            )
        if self._gate.shut:
            await self._gate.passing()
        spec, digest = spec_of(fn), ""
        if key is not None:
            found = self._keys.explicit(frame.prefix, key)
        else:
            found, digest = self._keys.of_step(frame.prefix, spec, args, kwargs)
        check_key(UNDO_PREFIX + found)
        if found in self._memos.inherited:
            return
        version = self._memos.undos.get(found)
        if version is None:
            await self._operations.begins(frame)
        order = (0, version) if version else (1, len(self._undos))
        self._undos[found] = Undo(order=order, spec=spec, args=args, kwargs=kwargs)
        if version is None:
            await self._record(found, spec, digest)
        else:
            self._on_found()

    async def _record(self, key: str, spec: StepSpec, digest: str) -> None:
        data = orjson.dumps({"function": ".".join(spec.identity), **({"args": digest} if digest else {})})
        record = self._reports.make(Compensating, key=key, data=Raw(data))
        try:
            await self._operations.acknowledged(record, self._reports.send(record, self._operations.default))
        except asyncio.CancelledError:
            self._keys.release(key)  # it is on its way: who registers it again finds it
            raise

    async def run(self) -> list[NotUndone]:
        """Undo everything, the last first; what could not be undone."""
        failures = [failure async for failure in self._run()]
        for failure in failures:
            logger.error(
                "not_undone instance=%s key=%s type=%s reason=%s",
                self._instance, failure.key, failure.type, failure.message,
            )  # fmt: skip
        return failures

    async def _run(self) -> Any:
        for key in self._backwards():
            error = await self._undo(key)
            if error is not None:
                yield NotUndone(key=key, type=error.code, message=error.message)

    def _backwards(self) -> Iterator[str]:
        orders = {key: (0, version) for key, version in self._memos.undos.items()}
        orders.update((key, undo.order) for key, undo in self._undos.items())
        yield from sorted(orders, key=lambda key: orders[key], reverse=True)

    async def _undo(self, key: str) -> WireError | None:
        """Unless that was done. What is raised instead of a result is told, and the next one's turn comes."""
        undo, known = self._undos.get(key), self._memos.answer(UNDO_PREFIX + key)
        if isinstance(known, Failure):
            return known.error
        if known is not None:
            return None
        if undo is None:
            return WireError(code="NotRegistered", message=_NOT_REGISTERED)
        try:
            await self._operations.undo(undo.spec, UNDO_PREFIX + key, undo.args, undo.kwargs)
        except StepFailed as exc:
            return WireError(code=exc.type, message=exc.message)
        except Exception as exc:
            return describe(exc)
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if self._gate.frozen or (task is not None and task.cancelling()):
                raise
            return describe(exc)  # by the function's own doing
        return None

    def _is_done(self, key: str) -> bool:
        return self._memos.peek(UNDO_PREFIX + key) is not None
