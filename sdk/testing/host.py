"""The in-memory twin of a worker: one process after the other, each of which hosts instances until it dies.

Invariants: a process that died stores nothing more, whatever its code still does; what it held is lost to the platform
only when its tasks have ended, so runs come out the same each time; run requests whose claim was never stored are
delivered again, and no longer as the first.
"""

import asyncio
import weakref
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Literal

import msgspec

from runtara.engine.memory import MemoryBus
from runtara.protocol.errors import InvalidTarget
from runtara.protocol.messages import ClaimAnswer, Claimed, Control, RunRequest
from runtara.protocol.records import AnyRecord, Record, Report, Started
from runtara.protocol.subjects import Channel, Source

from ..blobs import Blobs
from ..execution import Execution
from ..granted import Opener
from ..idle import IdleWatch
from ..resident import Resident
from ..workflow import Workflow
from .blobs import MemoryDoor
from .outlet import MemoryOutlet

KIND = "pool"
_TURNS_TO_UNWIND = 8  # of the event loop, in which cancelled code of a dead process may take its last steps


class Crash(msgspec.Struct, frozen=True):
    """The process dies just before or just after its `at`-th record, counted from 1, is stored."""

    at: int
    when: Literal["before", "after"]


class HeldClaim:
    """A claim of this process."""

    def __init__(self, nonce: str, request: RunRequest) -> None:
        self.nonce = nonce
        self.request = request
        self.is_stored = False


class MemoryHost:
    """`sent` are the records that its processes sent for the journal, in order, the one at which it died included."""

    def __init__(self, bus: MemoryBus, tenant: str, opener: Opener | None = None) -> None:
        self.workflows: dict[str, Workflow[..., Any]] = {}
        self.residents: dict[tuple[str, int], Resident] = {}
        self.crash: Crash | None = None
        self.sent: list[Record] = []
        self.dead: weakref.WeakSet[Execution] = weakref.WeakSet()
        self.deaths = 0
        self.on_death: Callable[[], None] = lambda: None
        self._bus = bus
        self._tenant = tenant
        self._opener = opener
        self._claims: dict[tuple[str, int], HeldClaim] = {}
        self._nonces = 0
        self._process = 0
        self._burial: asyncio.Task[None] | None = None
        self._outside = copy_context()
        self._watch: IdleWatch | None = None
        bus.on_run = self._take
        self._join()

    def host(self, workflow: Workflow[..., Any]) -> None:
        """From now on it can be started. Raises `InvalidTarget` if another one has its name."""
        known = self.workflows.get(workflow.name)
        if known is workflow:
            return
        if known is not None:
            reason = f"{known!r} has this name, too; give one of them another with @workflow(name=…)"
            raise InvalidTarget(target=repr(workflow), reason=reason)
        self.workflows[workflow.name] = workflow
        self._bus.engine.register(self._tenant, workflow.registration(code_version="", kind=KIND))
        if self._bus.waiting:
            self._bus.offer_soon()

    @property
    def is_busy(self) -> bool:
        """Whether something goes on whose end is not ours to tell."""
        if self._burial is not None:
            return True
        return any(resident.execution.is_busy for resident in self.residents.values() if resident.execution is not None)

    def die(self) -> None:
        """The process ends here and now, as by kill -9; the next one takes over what it had."""
        self.deaths += 1
        self.on_death()
        residents, claims, worker = list(self.residents.values()), list(self._claims.values()), self._worker
        self.crash = None
        self.dead.update(resident.execution for resident in residents if resident.execution is not None)
        for resident in residents:
            resident.abandon()
        self._claims.clear()
        self._bus.leave(self._tenant, worker)
        self._join()
        unstored = [claim.request for claim in claims if not claim.is_stored]
        self._burial = asyncio.get_running_loop().create_task(
            self._bury(worker, residents, unstored), name=f"burial of {worker}", context=self._outside.copy()
        )

    async def close(self) -> None:
        """End everything that runs here."""
        self._bus.on_run = lambda request: False
        residents = list(self.residents.values())
        for resident in residents:
            resident.abandon()
        if self._burial is not None:
            self._burial.cancel()
        for resident in residents:
            await resident.ended()

    def _join(self) -> None:
        self._process += 1
        self._worker = f"w-memory-{self._process}"
        self._source = Source(Channel.REPORTS, 0, self._tenant, worker=self._worker)
        self._bus.join(self._tenant, self._worker, self._on_control)

    async def _bury(self, worker: str, residents: list[Resident], unstored: list[RunRequest]) -> None:
        for resident in residents:
            await resident.ended()
        for _ in range(_TURNS_TO_UNWIND):
            await asyncio.sleep(0)
        self._burial = None
        self._bus.engine.lose_worker(self._tenant, worker, "the process died")
        self._bus.fold_soon()
        for request in unstored:
            self._bus.offer_again(msgspec.structs.replace(request, first=False))
        self._bus.offer_soon()

    # taking

    def _watching(self) -> IdleWatch:
        """What looks for idle instances, by the platform's clock."""
        if self._watch is None:
            self._watch = self._outside.run(IdleWatch, asyncio.get_running_loop(), self._bus.clock)
        return self._watch

    def _take(self, request: RunRequest) -> bool:
        workflow = self.workflows.get(request.workflow)
        if workflow is None or self._burial is not None or request.tenant != self._tenant:
            return False
        resident = Resident(
            workflow, request, self._outlet, blobs=self._blobs(request.instance), history=_whole,
            on_left=self._on_left, clock=self._bus.clock,
            watch=self._watching(), on_idle=_ignore, opener=self._opener,
        )  # fmt: skip
        claim = self._claim(request, resident.on_answer)
        if claim is not None:
            self.residents[resident.key] = resident
            resident.begin(claim, at_once=request.first)
        return True

    def _claim(self, request: RunRequest, on_answer: Callable[[ClaimAnswer], None]) -> HeldClaim | None:
        """Claim an attempt; None if the process died of it."""
        self._nonces += 1
        claim = self._claims[request.instance, request.attempt] = HeldClaim(f"{self._nonces:032x}", request)
        reply = ""

        def answered(answer: object) -> None:
            self._bus.forget(reply)
            if self._claims.get((request.instance, request.attempt)) is claim:
                on_answer(answer)  # type: ignore[arg-type]  # what claims are answered with

        reply = self._bus.expect(answered)
        deaths = self.deaths
        self._send(
            Started(
                instance=request.instance, attempt=request.attempt, nonce=claim.nonce, worker=self._worker, reply=reply
            ),
            claim,
        )
        return claim if self.deaths == deaths else None

    def _on_left(self, resident: Resident) -> None:
        self.residents.pop(resident.key, None)
        self._claims.pop(resident.key, None)

    def _on_control(self, control: Control) -> None:
        resident = self.residents.get((control.instance, control.attempt))
        if resident is not None:
            resident.on_control(control)

    # sending

    def _blobs(self, instance: str) -> Blobs:
        return Blobs(MemoryDoor(self._bus.engine.blobs, self._tenant, instance), patient=True)

    def _outlet(self, resident: Resident) -> MemoryOutlet:
        deaths = self.deaths

        def store(record: AnyRecord) -> "asyncio.Future[int]":
            if self.deaths != deaths:
                return asyncio.get_running_loop().create_future()
            return self._send(record) if isinstance(record, Report) else self._bus.store(self._source, record)

        return MemoryOutlet(self._bus, store, lambda reason: resident.stop("superseded", reason))

    def _send(self, record: AnyRecord, claim: HeldClaim | None = None) -> "asyncio.Future[int]":
        """Store what counts, unless the process dies of it: then nobody hears of it any more."""
        self.sent.append(record)
        crash = self.crash if self.crash is not None and self.crash.at == len(self.sent) else None
        if crash is None or crash.when == "after":
            stored = self._bus.store(self._source, record)
            if claim is not None:
                claim.is_stored = True
        if crash is None:
            return stored
        self.die()
        return asyncio.get_running_loop().create_future()


def _ignore(resident: Resident, idle: bool) -> None:
    """There is room for all."""


async def _whole(claimed: Claimed) -> Claimed:
    """Answers in memory are never cut."""
    return claimed
