"""One attempt in this process: its claim, its outlet and its execution, from the run request to its last record.

Invariants: user code runs before the claim is answered only for attempt 1 of a request that was published and
delivered for the first time (nothing can have run before it); it leaves the worker's list only after its last
record was acknowledged, or because it does not hold the claim; control that names another nonce is not for it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Literal, Protocol

from runtara.infra.logs import logger
from runtara.protocol.errors import RuntaraError
from runtara.protocol.messages import (
    CancelControl,
    ClaimAnswer,
    Claimed,
    Control,
    Memo,
    PauseControl,
    Resolved,
    ResumeControl,
    RunRequest,
    Superseded,
)
from runtara.protocol.records import Suspended

from .blobs import Blobs
from .execution import Execution
from .granted import Opener
from .idle import IdleWatch
from .overdue import Overdue
from .ports import Clock, Outlet
from .workflow import Workflow

log = logger("worker")

HISTORY_RETRY_SECONDS: Final = 1.0
AnyWorkflow = Workflow[..., object]
History = Callable[[Claimed], Awaitable[Claimed]]


class Claim(Protocol):
    """What an attempt has to know of its claim."""

    @property
    def nonce(self) -> str: ...


class Resident:
    """Made for a run request; `on_left` is called once, when nothing of it is left in this process."""

    __slots__ = (
        "_blobs", "_clock", "_fetching", "_history", "_left", "_on_idle", "_on_left", "_opener", "_outlet", "_overdue",
        "_task", "_watch", "_workflow", "claim", "confirmed", "execution", "is_draining", "request", "version",
    )  # fmt: skip

    def __init__(
        self, workflow: AnyWorkflow, request: RunRequest, outlet: Callable[["Resident"], Outlet], *,
        blobs: Blobs, history: History, watch: IdleWatch, on_idle: Callable[["Resident", bool], None],
        on_left: Callable[["Resident"], None], clock: Clock | None = None, overdue: Overdue | None = None,
        opener: Opener | None = None,
    ) -> None:  # fmt: skip
        self._workflow = workflow
        self._blobs = blobs
        self._history = history
        self._watch = watch
        self._on_idle = on_idle
        self._on_left = on_left
        self._clock = clock
        self._overdue = overdue
        self._opener = opener
        self.execution: Execution | None = None
        self._fetching: asyncio.Future[None] | None = None
        self._task: asyncio.Future[None] | None = None
        self._left = False
        self.request = request
        self.claim: Claim | None = None
        self.confirmed = False
        self.is_draining = False
        self.version = 0
        self._outlet = outlet(self)

    @property
    def key(self) -> tuple[str, int]:
        return self.request.instance, self.request.attempt

    @property
    def id(self) -> str:
        return self.request.instance

    def begin(self, claim: Claim, *, at_once: bool) -> None:
        """The claim is on its way; `at_once`: the request is fresh, so nobody can have run a first attempt of it."""
        self.claim = claim
        if at_once and self.request.attempt == 1 and self.request.first:
            self._run(None)

    def on_answer(self, answer: ClaimAnswer) -> None:
        if isinstance(answer, Superseded):
            self.stop("superseded", answer.reason)
        elif answer.more:
            self._fetching = asyncio.ensure_future(self._fetch_history(answer))
        else:
            self._on_claimed(answer)

    def on_control(self, control: Control) -> bool:
        """Obey; False if it is for another claim."""
        claim = self.claim
        if claim is None or control.nonce != claim.nonce:
            return False
        execution = self.execution
        match control:
            case Superseded():
                self.stop("superseded", control.reason)
            case CancelControl():
                self.stop("cancel", control.reason or "")
            case PauseControl():
                self.stop("pause")
            case ResumeControl():
                if execution is not None:
                    execution.resume()
            case Resolved():
                self.resolved(control.memo)
        return True

    def resolved(self, memo: Memo) -> None:
        """A wait has its outcome. Before the claim is answered that is in the history still to come."""
        if self.execution is not None:
            self.execution.resolved(memo)

    @property
    def is_overdue(self) -> bool:
        """It is over, but its code does not end."""
        return self.execution is not None and self.execution.residents.is_overdue

    def owns(self, task: "asyncio.Future[object]") -> bool:
        """Whether `task` is one of its code's. May be asked from any thread."""
        return self.execution is not None and task in self.execution.residents.tasks

    def leave_if_idle(self) -> None:
        if self.execution is not None:
            self.execution.leave_if_idle()

    def waits_longer_than(self, seconds: float) -> bool:
        return self.confirmed and self.execution is not None and self.execution.waits_longer_than(seconds)

    def stop(self, why: Literal["pause", "cancel", "superseded", "drain"], reason: str = "") -> None:
        """Without an execution only `superseded` means something: an answer still to come tells the rest."""
        if self.execution is not None:
            self.execution.stop(why, reason)
        elif why == "superseded":
            self._leave()

    def drain(self) -> None:
        """Suspend for somebody else to go on; a second time: at once."""
        self.is_draining = True
        self.stop("drain")

    def abandon(self) -> None:
        """There is no more time: leave as it is."""
        if self._task is not None:
            self._task.cancel()
        self._leave()

    async def ended(self) -> None:
        """Until its code has ended, or was told to after `abandon`."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def _on_claimed(self, claimed: Claimed) -> None:
        self.confirmed = True
        self.version = claimed.version
        if self.execution is not None:
            self.execution.confirm(claimed)
        elif self.is_draining:
            self._spawn(self._hand_back())
        elif not self._left:
            self._run(claimed)

    def _run(self, claimed: Claimed | None) -> None:
        request, claim = self.request, self.claim
        if claim is None:
            raise RuntimeError("an attempt cannot run before it is claimed")
        self.execution = Execution(
            self._workflow,
            tenant=request.tenant,
            instance=request.instance,
            attempt=request.attempt,
            nonce=claim.nonce,
            input=claimed.input if claimed else request.input,
            blob=claimed.blob if claimed else request.blob,
            blobs=self._blobs,
            options=claimed.options if claimed else request.options,
            labels=claimed.labels if claimed else request.labels,
            outlet=self._outlet,
            claim=claimed,
            clock=self._clock,
            watch=self._watch,
            on_idle=partial(self._on_idle, self),
            overdue=self._overdue,
            opener=self._opener,
        )
        self._spawn(self._host(self.execution))

    def _spawn(self, work: Awaitable[None]) -> None:
        self._task = asyncio.ensure_future(work)

    async def _host(self, execution: Execution) -> None:
        try:
            await execution.run()
        except Exception:  # a bug of ours: the instance is dropped, and the platform notices that nobody hosts it
            log.exception("execution_failed", instance=self.request.instance, attempt=self.request.attempt)
        finally:
            self._leave()

    async def _fetch_history(self, claimed: Claimed) -> None:
        while not self._left:
            try:
                complete = await self._history(claimed)
            except RuntaraError as exc:
                log.warning("history_delayed", instance=claimed.instance, reason=str(exc))
                await asyncio.sleep(HISTORY_RETRY_SECONDS)
            else:
                self._on_claimed(complete)
                return

    async def _hand_back(self) -> None:
        instance, attempt = self.key
        nonce = self.claim.nonce if self.claim else ""
        try:
            await self._outlet.send(
                Suspended(instance=instance, attempt=attempt, nonce=nonce, seq=1, reason="released")
            )
        except RuntaraError:
            log.debug("hand_back_failed", instance=instance, exc_info=True)
        finally:
            self._leave()

    def _leave(self) -> None:
        if not self._left:
            self._left = True
            self._on_left(self)
