"""One attempt of one instance in this process: from the claim to its last record.

The execution runs the workflow's code, stops it when told to, decides the last record, and returns when that is
acknowledged and everything the instance started has ended.

Invariants: there is one last record, decided once (`_end`), and nothing after it; what user code returns or raises
past that is thrown away; user code that swallows its cancellation changes nothing. All methods belong to the loop's
thread.

Stopping: `superseded` and `cancel` end the attempt at once. `pause` and `drain` are polite (see `gate`). User code
is unwound after the last record's acknowledgement.

Undoing: an attempt that fails, or that is claimed to be cancelled, with compensations registered, is undone before its
last record (`undoing`).

Leaving memory: an instance that only waits (`idle`) is suspended on the keys that it is blocked on once it has done so
for `linger`; so is one that is asked to leave while it only waits.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextvars import copy_context
from functools import partial
from typing import Any, Final, NoReturn, TypeVar

from msgspec import Raw

from runtara.infra.clock import JournalClock
from runtara.protocol.blobs import Blob, Carried
from runtara.protocol.errors import Stopped, WorkflowTimeout
from runtara.protocol.events import SleepStarted, WaitResolved
from runtara.protocol.ids import TIMEOUT_KEY
from runtara.protocol.messages import Claimed, Memo
from runtara.protocol.records import Completed, Continued, Options, Parked, Report, Suspended

from .blobs import Blobs
from .children import Children
from .context import Context
from .failures import describe
from .gate import Gate
from .granted import Granted, Opener
from .idle import Idleness, IdleWatch, all_wait, linger_seconds
from .memos import Memos
from .operations import Operations
from .overdue import Overdue
from .parks import Parks
from .ports import Clock, Durability, Outlet, Timer, Why
from .reports import Reports
from .scope import FRAME, Frame, enter_process, leave_process
from .signature import StepSpec
from .sync.context import Context as BlockingContext
from .tasks import Residents, track_tasks
from .threads import Portal, Result
from .undoing import Undoing
from .waits import Waits
from .workflow import Workflow

R = TypeVar("R")
MAX_STEP_THREADS: Final = 32  # `def` steps of one instance that run at once beside an async workflow
logger: Final = logging.getLogger("runtara.sdk")


class Execution:
    """Construct it inside the running loop.

    Args:
        claim: the answer to the claim, with all its memos (the host has followed `more`). None: an optimistic
            start of attempt 1, whose answer comes to `confirm`.
        input: its JSON, or null if it is `blob`.
        blobs: where long values of this instance are.
        durability: the worker's default for operations.
        clock: what it waits by; the machine's unless given.
        watch: looks for idle instances; one for all of a process.
        on_idle: told when the instance only waits, and when it no longer does.
        overdue: told of code that does not end although it was told to; one for all of a process.
        opener: gets connections; one for all of a process.
    """

    def __init__(
        self,
        workflow: Workflow[..., Any],
        *,
        tenant: str,
        instance: str,
        attempt: int,
        nonce: str,
        input: Raw,
        options: Options,
        labels: Mapping[str, str],
        outlet: Outlet,
        blobs: Blobs,
        blob: Blob | None = None,
        claim: Claimed | None = None,
        durability: Durability | None = None,
        clock: Clock | None = None,
        watch: IdleWatch | None = None,
        on_idle: Callable[[bool], None] | None = None,
        overdue: Overdue | None = None,
        opener: Opener | None = None,
    ) -> None:
        self.workflow = workflow
        self.tenant = tenant
        self.instance = instance
        self.attempt = attempt
        self.nonce = nonce
        self.labels = labels
        self.floor = claim.floor if claim else 0  # an optimistic start is of the very first run
        self.loop = asyncio.get_running_loop()
        self.portal = Portal(self.loop)
        self.is_told = False  # the journal has its last record
        self._input = Carried(input, blob)
        self._blobs = blobs
        self._options = options
        self._main: asyncio.Task[None] | None = None
        self._ended: asyncio.Future[asyncio.Future[int] | None] = self.loop.create_future()
        self._confirmed = asyncio.Event()
        self.granted = Granted(opener, instance, workflow.name, workflow.options.connections, self._confirmed)
        self._deadline: Timer | None = None
        self._clock = clock or JournalClock()
        self._step_threads = asyncio.Semaphore(MAX_STEP_THREADS)
        self.residents = Residents(instance, self.portal, overdue=overdue or Overdue(), on_end=self._look_for_idleness)
        self._gate = Gate(self._leave, self._clock)
        self._memos = Memos(claim.memos if claim else (), claim.now_us if claim else None, self._clock)
        self._reports = Reports(outlet, instance=instance, attempt=attempt, nonce=nonce)
        self._parks = Parks(
            self._gate, self._memos, self._clock, on_parked=self._look_for_idleness, on_woken=self._on_woken
        )
        self._idleness = Idleness(
            self, self.residents, self._parks, watch or IdleWatch(self.loop),
            linger=linger_seconds(options, workflow.options), leave=self._suspend, on_change=on_idle,
        )  # fmt: skip
        self._operations = Operations(
            instance=instance, gate=self._gate, reports=self._reports, memos=self._memos, parks=self._parks,
            blobs=blobs, in_thread=self._in_step_thread, portal=self.portal, fenced=partial(self.stop, "superseded"),
            confirmed=self._confirmed,
            default=options.durability or workflow.options.durability or durability,
        )  # fmt: skip
        self._waits = Waits(
            self._operations, instance=instance, gate=self._gate, reports=self._reports, memos=self._memos,
            parks=self._parks, blobs=blobs, fenced=partial(self.stop, "superseded"),
        )  # fmt: skip
        self._children = Children(
            self._waits, self._memos, self._parks, instance=instance, generation=claim.generation if claim else 0
        )
        self._undoing = Undoing(
            self, self._operations, gate=self._gate, reports=self._reports, memos=self._memos,
            residents=self.residents, instance=instance, end=self._end,
        )  # fmt: skip
        compensations = self._undoing.compensations
        self.context = Context(self, self._operations, self._waits, self._children, compensations, self._reports)
        if claim is not None:
            self.confirm(claim)

    # for the host

    async def run(self) -> None:
        """Run the code to its end; return when the last record is acknowledged and all of the code has ended.

        Cancelling it abandons the instance at once: nothing more is sent, tasks are cancelled and not waited for.
        """
        track_tasks(self.loop)
        enter_process(self)
        try:
            self._start()
            acknowledged = await self._ended
            if acknowledged is not None:
                await self._acknowledged(acknowledged)
            self._undoing.stop()
            await self.residents.unwind(self._main)
        finally:
            self._undoing.stop()
            self._freeze("superseded")
            self.residents.cancel()
            leave_process(self)

    def confirm(self, claim: Claimed) -> None:
        """The claim holds."""
        self._confirmed.set()
        self._clock.seen(claim.now_us)
        if claim.cancelling:
            self._undoing.is_cancelled = True
        elif claim.cancel:
            self.stop("cancel")
        elif claim.pause:
            self.stop("pause")

    def stop(self, why: Why, reason: str = "") -> None:
        """Make the instance leave its process. Said again it changes nothing, but a second `drain` is not polite."""
        gate = self._gate
        if gate.frozen:
            return
        if why == "superseded":
            self._freeze(why, reason)
        elif why == "cancel":
            self._undoing.cancel(reason)
        elif why == "drain" and gate.why == "drain":
            self._leave()
        elif why == "drain" or gate.why is None:
            gate.close(why, reason)

    def resume(self) -> None:
        """The pause was taken back before it was obeyed."""
        if self._gate.why == "pause":
            self._gate.reopen()

    def resolved(self, memo: Memo) -> None:
        """A wait has its outcome."""
        if self._gate.frozen or memo.type != WaitResolved.__name__:
            return
        self._parks.resolve(memo)
        if memo.key == TIMEOUT_KEY:
            self._time_out()

    def leave_if_idle(self) -> None:
        """Memory is short: do not linger."""
        if not self._gate.frozen:
            self._idleness.leave_now()

    def waits_longer_than(self, seconds: float) -> bool:
        """Whether code has waited for so long since this was last asked: a word to it may have been lost."""
        return not self._gate.frozen and self._parks.is_overdue(seconds)

    @property
    def frozen(self) -> bool:
        """The last record is decided. If `run` does not return for long then, user code does not end."""
        return self._gate.frozen

    @property
    def stopping(self) -> Why | None:
        return self._gate.why or ("cancel" if self._undoing.is_cancelled else None)

    @property
    def is_busy(self) -> bool:
        """A step is in flight, or a thread is in user code: what comes next does not depend on us."""
        return self._gate.in_flight > 0 or not self.residents.threads_wait()

    def stands_still(self, sleepers: Collection["asyncio.Future[Any]"]) -> bool:
        """Whether all of its code waits for the engine, or for one of `sleepers`."""
        return all_wait(self.residents, {*self._parks.waiting, *sleepers})

    # for the operations and the context

    def adopt(self, task: "asyncio.Future[Any]") -> None:
        self.residents.adopt(task)

    def call_step(
        self, spec: StepSpec, key: str | None, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> Coroutine[Any, Any, Any]:
        return self._operations.step(spec, key, args, kwargs)

    def call_blocking(self, operation: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Run an operation for a thread of the instance. Raises `Stopped` when the instance must leave."""
        if self._gate.frozen:
            raise Stopped(self._gate.why or "the instance has ended")
        return self.portal.call(operation)

    async def run_in_thread(self, fn: Callable[[], R]) -> R:
        if self._gate.shut:
            await self._gate.passing()
        return (await self.residents.in_a_thread(fn)).get()

    async def continue_as(self, input: dict[str, object]) -> NoReturn:
        text = self.workflow.check_input(input)
        if self._gate.shut:
            await self._gate.passing()
        await self._operations.begins(FRAME.get())
        await self._children.join()
        carried = await self._blobs.carried(text, key="input")
        self._tell_unasked()
        self._end(Continued, input=carried.text, blob=carried.blob)
        raise asyncio.CancelledError("continued")

    # the workflow's code

    def _start(self) -> None:
        if self._gate.why is not None:
            self._leave()
        if self._gate.frozen or (self._undoing.is_due and not self._undoing.prepare()):
            return
        context = copy_context()
        context.run(FRAME.set, Frame(self))
        self._main = self.loop.create_task(self._run_code(), name=f"runtara {self.instance}", context=context)
        self._undoing.runs(self._main)
        if not self._undoing.is_due:
            self._limit_time()

    async def _run_code(self) -> None:
        try:
            try:
                result = await self._call()
            finally:
                await self._children.join()
            carried = await self._result(self.workflow.encode_result(result))
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as exc:  # whatever user code raises, CancelledError without a reason included
            self._undoing.fail(describe(exc))
            return
        if self._undoing.is_due:
            self._undoing.begin()
        elif not self._gate.frozen:
            self._tell_unasked()
            self._end(Completed, result=carried.text, blob=carried.blob)

    async def _result(self, text: bytes) -> Carried:
        """While a long one is stored the instance is not asked to leave: nothing is left to do but to say it."""
        self._gate.in_flight += 1
        try:
            return await self._blobs.carried(text, key="result")
        finally:
            self._gate.landed()

    async def _call(self) -> Any:
        arguments = self.workflow.arguments(await self._blobs.text(self._input, instance=self.instance, key="input"))
        if self.workflow.colour == "async":
            return await self.workflow.fn(self.context, **arguments)
        context = BlockingContext(self.context, self)
        return (await self.residents.in_a_thread(lambda: self.workflow.fn(context, **arguments))).get()

    async def _in_step_thread(self, fn: Callable[[], R], timed: bool) -> Result[R]:
        async with self._step_threads:
            return await self.residents.in_a_thread(fn, timed=timed)

    # waiting

    def _look_for_idleness(self) -> None:
        if self._parks.waiting and not self._gate.frozen:
            self._idleness.look_soon()

    def _on_woken(self) -> None:
        self._idleness.woken()

    # the end

    def _leave(self) -> None:
        """If it only waits, nobody needs to go on with it until something happens."""
        keys = self._idleness.keys()
        if self._gate.why == "pause":
            self._end(Suspended, reason="pause", keys=self._with_timeout(keys))
        elif keys and not self._undoing.is_cancelled:
            self._suspend(keys)
        else:
            self._end(Suspended, reason="released")

    def _suspend(self, keys: tuple[str, ...]) -> None:
        if not self._undoing.is_cancelled:  # it is undone to the end, in memory
            self._end(Suspended, reason="parked", keys=self._with_timeout(keys))

    def _with_timeout(self, keys: tuple[str, ...]) -> tuple[str, ...]:
        """The end of its time wakes the instance, too."""
        is_limited = self._time_allowed is not None and not self._undoing.is_due
        return (*keys, TIMEOUT_KEY) if keys and is_limited else keys

    def _end(self, kind: type[Report], *, why: Why | None = None, **fields: Any) -> None:
        """Decide the last record. What comes later has no effect."""
        if not self._gate.frozen:
            self._gate.freeze(why, str(fields.get("reason") or ""))
            self._finish(self._reports.last(kind, **fields))

    def _freeze(self, why: Why, reason: str = "") -> None:
        """End without a record."""
        if not self._gate.frozen:
            self._gate.freeze(why, reason)
            self._reports.end()
            self._finish(None)

    def _finish(self, acknowledged: asyncio.Future[int] | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._idleness.woken()
        if not self._ended.done():
            self._ended.set_result(acknowledged)

    async def _acknowledged(self, sent: asyncio.Future[int]) -> None:
        try:
            await sent
            self.is_told = True
        except Exception as exc:  # the claim no longer counts; its record does not either
            logger.warning("last_record_refused instance=%s attempt=%d error=%s", self.instance, self.attempt, exc)

    def _tell_unasked(self) -> None:
        keys = self._memos.unasked()
        if keys:
            logger.warning(
                "recorded_keys_not_asked_for instance=%s attempt=%d count=%d first=%s",
                self.instance, self.attempt, len(keys), keys[:5],
            )  # fmt: skip

    # the workflow's time-out

    def _limit_time(self) -> None:
        """The time is a durable sleep, begun by the first attempt: it goes on while the instance is suspended."""
        micros = self._time_allowed
        if micros is None:
            return
        opened = self._memos.opened(TIMEOUT_KEY)
        if self._memos.answer(TIMEOUT_KEY) is not None:
            self._time_out()
            return
        seconds = micros / 1e6
        if isinstance(opened, SleepStarted):
            seconds = self._clock.seconds_until(opened.due_us)
        else:
            self._reports.send(self._reports.make(Parked, key=TIMEOUT_KEY, kind="sleep", for_us=micros), "journal")
        self._deadline = self._clock.call_later(seconds, self._time_out)

    @property
    def _time_allowed(self) -> int | None:
        return self._options.timeout_us or self.workflow.options.timeout_us

    def _time_out(self) -> None:
        if self._undoing.is_due:
            return
        error = WorkflowTimeout(instance=self.instance, seconds=(self._time_allowed or 0) / 1e6).to_wire()
        self._undoing.fail(error)
