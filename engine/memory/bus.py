"""The transports of the in-memory platform: the journal's acknowledgements, the run queue, control, answers, hints.

Everything that arrives somewhere does so in a later turn of the event loop, in the order in which it was sent, as with
a server in between; nothing is lost. The engine folds one turn after a record was stored.

Invariants: a stored record is acknowledged before anything that it caused is heard of; callbacks run outside of any
workflow's context; all calls come from the event loop's thread.
"""

import asyncio
from collections.abc import Callable
from contextvars import copy_context

from runtara.protocol.messages import ClaimAnswer, CommandAnswer, CommitAnswer, Control, Done, RunRequest
from runtara.protocol.records import AnyRecord
from runtara.protocol.subjects import Source

from .clock import VirtualClock
from .engine import Answer, Ended, MemoryEngine, Out, RunDue, ToWorker, Withdrawn

OnAnswer = Callable[[CommandAnswer | CommitAnswer | ClaimAnswer], None]
OnControl = Callable[[Control], None]


class MemoryBus:
    """`on_run` is offered each run request and says whether it took it; `on_ended` hears of every end.

    Make it outside of workflows. `changes` counts what has happened, so that others can see whether anything does.
    """

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.engine = MemoryEngine(clock)
        self.on_run: Callable[[RunRequest], bool] = lambda request: False
        self.on_ended: Callable[[str, str, Done], None] = lambda tenant, instance, done: None
        self.waiting: dict[tuple[str, str, int], RunRequest] = {}
        self.changes = 0
        self._workers: dict[tuple[str, str], OnControl] = {}
        self._replies: dict[str, OnAnswer] = {}
        self._serial = 0
        self._folding = False
        self._next_fold: asyncio.Future[None] | None = None
        self.folds = 0
        self._outside = copy_context()

    # saying

    def store(self, source: Source, record: AnyRecord) -> "asyncio.Future[int]":
        """Put a record into the journal; the future is its acknowledgement."""
        loop = asyncio.get_running_loop()
        stored: asyncio.Future[int] = loop.create_future()
        sequence = self.engine.append(source, record)
        self._soon(_resolve, stored, sequence)
        self.fold_soon()
        return stored

    def fold_soon(self) -> None:
        """Let the engine decide what the journal holds, in one of the next turns."""
        if not self._folding:
            self._folding = True
            self._soon(self._soon, self._fold)  # behind the acknowledgement, and whatever that wakes

    def offer_again(self, request: RunRequest) -> None:
        """A request that was taken by somebody who died before its claim was stored."""
        self.waiting[request.tenant, request.instance, request.attempt] = request
        self.offer_soon()

    def offer_soon(self) -> None:
        """Somebody can take requests now."""
        self._soon(self._offer)

    def _offer(self) -> None:
        """Offer what waits in the run queue, oldest first."""
        for key, request in list(self.waiting.items()):
            if self.on_run(request):
                self.waiting.pop(key, None)

    # hearing

    def expect(self, on_answer: OnAnswer) -> str:
        """A name to be put into `reply`; the answers to it go to `on_answer` until it is forgotten."""
        self._serial += 1
        reply = f"reply-{self._serial}"
        self._replies[reply] = on_answer
        return reply

    def forget(self, reply: str) -> None:
        self._replies.pop(reply, None)

    def join(self, tenant: str, worker: str, on_control: OnControl) -> None:
        self._workers[tenant, worker] = on_control

    def leave(self, tenant: str, worker: str) -> None:
        self._workers.pop((tenant, worker), None)

    def next_fold(self) -> "asyncio.Future[None]":
        """Resolved when the engine has decided something."""
        if self._next_fold is None or self._next_fold.done():
            self._next_fold = asyncio.get_running_loop().create_future()
        return self._next_fold

    @property
    def is_busy(self) -> bool:
        return self._folding or self.engine.is_behind

    # time

    def next_due(self) -> int | None:
        """When something happens by the clock alone."""
        due = [time for time in (self.engine.next_due(), self.clock.next_due()) if time is not None]
        return min(due, default=None)

    def move_to(self, time_us: int) -> None:
        """Let time pass, and whoever is due then know. The engine's timers come before those of processes."""
        self.clock.move_to(time_us)
        self.engine.propose_timers()
        if self.engine.is_behind:
            self.fold_soon()
        self.changes += 1

    # inside

    def _fold(self) -> None:
        self._folding = False
        self.folds += 1
        for out in self.engine.fold():
            self._deliver(out)
        if self._next_fold is not None and not self._next_fold.done():
            self._next_fold.set_result(None)

    def _deliver(self, out: Out) -> None:
        match out:
            case RunDue(request):
                self.waiting[request.tenant, request.instance, request.attempt] = request
                self.offer_soon()
            case Withdrawn(tenant, instance, attempt):
                self.waiting.pop((tenant, instance, attempt), None)
            case ToWorker(tenant, worker, message):
                on_control = self._workers.get((tenant, worker))
                if on_control is not None:
                    self._soon(on_control, message)
            case Answer(reply, answer):
                on_answer = self._replies.get(reply)
                if on_answer is not None:
                    self._soon(on_answer, answer)
            case Ended(tenant, instance, done):
                self._soon(self.on_ended, tenant, instance, done)

    def _soon(self, callback: Callable[..., None], *args: object) -> None:
        self.changes += 1
        asyncio.get_running_loop().call_soon(callback, *args, context=self._outside.copy())


def _resolve(future: "asyncio.Future[int]", sequence: int) -> None:
    if not future.done():
        future.set_result(sequence)
