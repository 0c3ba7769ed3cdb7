"""What a committed fold owes: run requests, answers, control, hints. Read off the states before and after it.

Invariants: called only after the commit, never waits; a run request is withdrawn before its pause or cancel is
answered; the answer to a claim is the history up to it, read from the primary after the commit.
"""

import asyncio
import contextlib
import time
from typing import Final, Protocol

import msgspec
from msgspec import Raw

from runtara.infra.logs import logger
from runtara.projections.instances import InstanceRow
from runtara.projections.leases import Resident, WorkerId
from runtara.protocol.messages import (
    CancelControl,
    Claimed,
    Committed,
    Control,
    Done,
    Ended,
    Memo,
    PauseControl,
    Resolved,
    ResumeControl,
    RunRequest,
    Superseded,
)

from . import log as event_log
from .dispatch import Answers, Mouth, RunDue, RunQueue, Starters, withdraw
from .fold import Fold
from .fold_values import ClaimDue
from .histories import Histories
from .lifecycle import Claim, ControlDue, Effects, State, effects, is_launched
from .log import Ownership
from .outbox import OutboxSender
from .platform import Platform
from .streams import Anchor

log = logger("outlets")

SETTLE_SECONDS: Final = 1.0
SETTLE_LOOK_SECONDS: Final = 0.005
SUPERSEDED_EVERY_SECONDS: Final = 1.0  # to one worker of one instance, however many stale reports it sends
BY_INSTANCE: Final = "i."  # how the source of a claim begins that a container or a script made (`lifecycle.claims`)
_encode = msgspec.json.Encoder().encode


class Watcher(Protocol):
    """Who has to know of every change: timers and leases."""

    def changed(self, before: InstanceRow | None, after: InstanceRow) -> None: ...
    def queued(self, due: RunDue) -> None: ...


class Outlets:
    def __init__(self, platform: Platform, ownership: Ownership) -> None:
        self._platform = platform
        self._ownership = ownership
        self._subjects = platform.subjects
        self._mouth = Mouth(platform.voice)
        self._runs = RunQueue(platform.bus, self._on_queued)
        self._outbox = OutboxSender(platform.pool, platform.bus, platform.subjects, ownership.partition)
        self._histories = Histories(platform.pool, self._answer_with_histories)
        self._group: asyncio.TaskGroup | None = None
        self._under_way: set[asyncio.Task[None]] = set()
        self._told: dict[tuple[str, str, str], float] = {}
        self._starters = Starters()
        self.watch: Watcher | None = None

    async def run(self, caught_up: asyncio.Event) -> None:
        """Run requests and the outbox wait until this owner knows all that was in the journal when it took over."""
        async with asyncio.TaskGroup() as self._group:
            self._group.create_task(self._mouth.run(), name="mouth")
            self._group.create_task(self._histories.run(), name="histories")
            await caught_up.wait()
            self._group.create_task(self._runs.run(), name="run queue")
            self._group.create_task(self._outbox.run(), name="outbox")

    def let_out(self, fold: Fold, anchor: Anchor) -> None:
        withdrawn: list[str] = []
        answers = Answers()
        for answer in fold.answers:
            answers.add(answer.reply, answer.message)
        self._starters.started(fold.starters)
        for id, before in fold.before.items():
            self._changed(before, fold.rows[id], withdrawn, answers)
        if withdrawn:
            self._start(self._withdraw_and_answer(withdrawn, answers))
            answers = Answers()
        for claim in fold.claims:
            self._answer_claim(claim, fold.rows[claim.tenant, claim.instance], answers)
        answers.say(self._mouth)
        for tenant, instance, taken in fold.lost:
            self._tell_lost(fold.rows[tenant, instance], taken)
        for told in fold.resolved:
            self._say_resolved(fold.rows[told.tenant, told.instance], told.memo)
        for (tenant, worker, _), superseded in fold.superseded.items():
            self._tell_superseded(tenant, worker, superseded)
        if fold.outbox:
            self._outbox.wake()
        self.committed(anchor)

    async def settle(self) -> None:
        """Until all that was let out has left, a second at most: the next owner would repeat it, but not at once."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                while self._under_way or self._histories.is_busy or self._runs.is_busy or self._mouth.is_busy:
                    await asyncio.sleep(SETTLE_LOOK_SECONDS)

    def committed(self, anchor: Anchor) -> None:
        hint = Committed(
            stream=anchor.created,
            partition=self._ownership.partition,
            owner=self._ownership.token,
            cursor=anchor.cursor,
        )
        self._mouth.say(self._subjects.committed(self._ownership.partition), _encode(hint))

    def request_run(self, row: InstanceRow, *, first: bool) -> None:
        """Publish the run request of a queued instance, or make sure that it is there."""
        state = row.state
        request = RunRequest(
            tenant=row.tenant,
            instance=row.instance,
            workflow=state.workflow,
            attempt=state.attempt,
            first=first,
            input=row.input,
            blob=row.input_blob,
            options=state.options,
            labels=row.labels,
        )
        subject = self._run_subject(row, state.attempt)
        self._runs.put(RunDue(row.tenant, row.instance, state.attempt, subject, _encode(request)))

    def control(self, row: InstanceRow) -> None:
        """Tell the worker of a resident instance what people ask of it and it has not answered yet."""
        due = effects(row.state).control
        if due is None:
            return
        subject = self._subjects.control(row.tenant, due.worker)
        for message in control_messages(row.instance, due):
            self._mouth.say(subject, _encode(message))

    async def tell_resolved_again(self, worker: WorkerId, owed: list[tuple[Resident, list[int]]]) -> None:
        """Say once more what outcomes the waits of a worker's residents had, in the events of these versions."""
        if not owed:
            return
        residents = {resident.instance: resident for resident, _ in owed}
        wanted = [(worker[0], resident.instance, version) for resident, versions in owed for version in versions]
        subject = self._subjects.control(*worker)
        async with self._platform.pool.acquire() as connection:
            for instance, memo in await event_log.memos_at(connection, wanted):
                there = residents[instance]
                told = Resolved(instance=instance, attempt=there.attempt, nonce=there.nonce, memo=memo)
                self._mouth.say(subject, _encode(told))

    def _say_resolved(self, row: InstanceRow, memo: Memo) -> None:
        claim = row.state.claim
        if claim is not None and claim.version < memo.version:  # else it is in the history of the next claim
            told = Resolved(instance=row.instance, attempt=claim.attempt, nonce=claim.nonce, memo=memo)
            self._mouth.say(self._subjects.control(row.tenant, claim.worker), _encode(told))

    def tell_superseded(self, tenant: str, worker: str, instance: str, attempt: int, nonce: str, reason: str) -> None:
        message = Superseded(instance=instance, attempt=attempt, nonce=nonce, reason=reason)
        self._mouth.say(self._subjects.control(tenant, worker), _encode(message))

    def _tell_lost(self, row: InstanceRow, taken: Claim) -> None:
        """The worker that held the claim, and the runner that launched it, which ends what does not obey."""
        reason = "the attempt was ended"
        self.tell_superseded(row.tenant, taken.worker, row.instance, taken.attempt, taken.nonce, reason)
        launch = taken.launch
        if launch is not None and launch.nonce != taken.nonce and not is_launched(row.state, launch.nonce):
            self.tell_superseded(row.tenant, launch.worker, row.instance, launch.attempt, launch.nonce, reason)

    def _changed(self, before: InstanceRow | None, after: InstanceRow, withdrawn: list[str], answers: Answers) -> None:
        old, new = before.state if before is not None else None, after.state
        was, now = effects(old) if old is not None else Effects(), effects(new)
        if now.run_request is not None and now.run_request != was.run_request:
            self.request_run(after, first=new.is_fresh)
        if now.purge is not None and now.purge != was.purge:
            withdrawn.append(self._run_subject(after, now.purge))
        if new.status.is_terminal and (old is None or not old.status.is_terminal):
            self._say_done(after, answers)
        if old is not None and old.claim is not None and old.claim.source.startswith(BY_INSTANCE):
            self._claim_may_have_ended(after.tenant, old.claim.worker, new)
        self.control(after)
        if self.watch is not None:
            self.watch.changed(before, after)

    def _claim_may_have_ended(self, tenant: str, worker: str, after: State) -> None:
        """What spoke for one instance alone has nothing more to say once its claim is over."""
        credentials = self._platform.credentials
        if credentials is not None and (after.claim is None or after.claim.worker != worker):
            credentials.claim_ended(tenant, worker)

    def _run_subject(self, row: InstanceRow, attempt: int) -> str:
        state = row.state
        return self._subjects.run(state.options.runner, row.tenant, state.workflow, row.instance, attempt)

    def _say_done(self, row: InstanceRow, answers: Answers) -> None:
        done = Done(
            status=row.state.status,
            version=row.state.version,
            result=row.result if row.result is not None else Raw(b"null"),
            blob=row.result_blob,
            error=event_log.error_of(row),
        )
        self._mouth.say(self._subjects.done(row.tenant, row.instance), _encode(done))
        starter = self._starters.ended((row.tenant, row.instance))
        if starter is not None:
            answers.add(starter, Ended(instance=row.instance, done=done))

    async def _withdraw_and_answer(self, subjects: list[str], answers: Answers) -> None:
        await self._runs.forget(set(subjects))
        for subject in subjects:
            await withdraw(self._platform.bus, self._subjects, subject)
        answers.say(self._mouth)

    def _tell_superseded(self, tenant: str, worker: str, message: Superseded) -> None:
        now = time.monotonic()
        about = (tenant, worker, message.instance)
        if now - self._told.get(about, 0.0) < SUPERSEDED_EVERY_SECONDS:
            return
        if len(self._told) > 10_000:
            self._told.clear()
        self._told[about] = now
        self._mouth.say(self._subjects.control(tenant, worker), _encode(message))

    def _answer_claim(self, due: ClaimDue, row: InstanceRow, answers: Answers) -> None:
        claim = row.state.claim
        if claim is None or claim.nonce != due.nonce:
            superseded = Superseded(
                instance=due.instance, attempt=due.attempt, nonce=due.nonce, reason="the attempt has ended"
            )
            answers.add(due.reply, superseded)
        elif claim.reserved or row.state.is_fresh:  # a runner asks for no history
            answers.add(due.reply, _claimed(due, row))
        else:
            self._histories.want(due, row)

    def _answer_with_histories(self, found: list[tuple[ClaimDue, InstanceRow, list[Memo], bool]]) -> None:
        answers = Answers()
        for due, row, memos, more in found:
            answers.add(due.reply, msgspec.structs.replace(_claimed(due, row), memos=memos, more=more))
        answers.say(self._mouth)

    def _start(self, coroutine: "asyncio._CoroutineLike[None]") -> None:
        if self._group is not None:
            task = self._group.create_task(coroutine)
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    def _on_queued(self, due: RunDue) -> None:
        if self.watch is not None:
            self.watch.queued(due)


def control_messages(instance: str, due: ControlDue) -> list[Control]:
    attempt, nonce = due.attempt, due.nonce
    messages: list[Control] = []
    if due.pause:
        messages.append(PauseControl(instance=instance, attempt=attempt, nonce=nonce))
    if due.resume:
        messages.append(ResumeControl(instance=instance, attempt=attempt, nonce=nonce))
    if due.cancel:
        messages.append(CancelControl(instance=instance, attempt=attempt, nonce=nonce, reason=due.reason))
    return messages


def _claimed(due: ClaimDue, row: InstanceRow) -> Claimed:
    state = row.state
    return Claimed(
        instance=due.instance,
        attempt=due.attempt,
        nonce=due.nonce,
        version=due.version,
        now_us=due.now_us,
        workflow=state.workflow,
        input=row.input,
        blob=row.input_blob,
        options=state.options,
        labels=row.labels,
        pause=state.pause,
        cancel=state.cancel is not None,
        cancelling=state.mode == "cancelling",
        floor=state.floor,
        generation=state.generation,
    )
