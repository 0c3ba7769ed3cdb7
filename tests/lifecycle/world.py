"""A small simulated world around `decide`: a journal, a run queue, engines, workers, and everything that goes wrong.

One instance runs a short program (steps, sleeps, waits for signals). Meanwhile workers are killed or stopped, requests
are delivered again, engines crash, take over and come back as stale ones, and messages are lost. Then the faults end,
and the instance has to come to its end, with a result built from nothing but what the log holds.

Everything here is what the real parts promise and no more: publishing to the journal is durable but may happen twice,
control and answers may be lost, the run queue refuses a request that it has and delivers again what was not
acknowledged.
"""

import random
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Raw

from runtara.engine.lifecycle import (
    Decision,
    State,
    Status,
    decide,
    effects,
    evolve,
    fork_record,
    needs_keys,
    recorded_keys,
)
from runtara.engine.lifecycle import with_keys as filled
from runtara.protocol.api import ForkRequest
from runtara.protocol.blobs import Carried
from runtara.protocol.events import AnyEvent, InstanceCompleted
from runtara.protocol.records import (
    Absent,
    AnyRecord,
    Cancel,
    Fork,
    Options,
    Owner,
    Pause,
    Resume,
    Signal,
    Start,
    Started,
    TimerDue,
    WorkerLost,
)
from runtara.protocol.subjects import Channel, Source
from tests.lifecycle.hosts import INSTANCE, SECOND, TENANT, Process, Request, Worker, memos

CLIENT = Source(Channel.COMMANDS, 0, TENANT, client="c")
ENGINE = Source(Channel.ENGINE, 0)
CHAOS_TICKS, CALM_TICKS, LEASE_TICKS = 25, 150, 4

COMMANDS: Final = (Start, Fork, Signal, Pause, Resume, Cancel)
Decider = Callable[..., Decision]


class World:
    def __init__(self, seed: int, *, decider: Decider = decide, sweeps: bool = True) -> None:
        self.random = random.Random(seed)
        self.decide, self.sweeps = decider, sweeps
        self.tick = self.serial = 0
        kinds = self.random.choices(["step", "sleep", "signal"], [6, 1, 1], k=self.random.randint(4, 10))
        self.program = [(kind, f"{kind}{n}") for n, kind in enumerate(kinds)]
        self.journal: list[tuple[AnyRecord, Source]] = []
        self.cursor = 0
        self.log: list[tuple[int, AnyEvent]] = []
        self.state: State | None = None
        self.commands: set[str] = set()
        self.queue: dict[int, Request] = {}
        self.published: set[int] = set()
        self.workers = [Worker("w0"), Worker("w1")]
        self.processes: list[Process] = []
        self.unheard = self.unlisted = 0
        self.token = self.journal_owner = ""
        self.stale: tuple[str, State | None] = ("", None)
        self.engine_back_at = 0
        self.take_over()
        self.command(Start, workflow="w", options=Options(restarts=10_000))

    # transports

    def publish(self, record: AnyRecord, source: Source) -> None:
        self.journal.append((record, source))
        if self.random.random() < 0.05:  # the acknowledgement was lost: sent again, unchanged
            self.journal.append((record, source))

    def command(self, cls: type, **fields: object) -> None:
        self.serial += 1
        self.publish(cls(id=f"c{self.serial}", instance=INSTANCE, **fields), CLIENT)

    def enqueue(self, attempt: int) -> None:
        """Refused while the request is there, waiting or in flight."""
        if attempt not in self.queue and not self.is_lost():
            self.queue[attempt] = Request(attempt, first=self.is_fresh() and attempt not in self.published)
            self.published.add(attempt)

    def is_fresh(self) -> bool:
        return self.state is not None and self.state.is_fresh

    def acknowledge(self, request: Request, by: Process) -> None:
        if request.holder is by and self.queue.get(request.attempt) is request:
            del self.queue[request.attempt]

    def is_lost(self) -> bool:
        return self.tick < CHAOS_TICKS and self.random.random() < 0.25

    # engines

    def take_over(self) -> None:
        """A new owner, with what the database holds; the old one may still act on what it last saw."""
        self.stale = (self.token, self.state)
        self.serial += 1
        self.token = f"e{self.serial}"
        if self.state is not None and self.random.random() < 0.3:
            self.state = msgspec.json.decode(msgspec.json.encode(self.state), type=State)
            self.load_keys()
        self.publish(Owner(instance="", token=self.token), ENGINE)

    def load_keys(self) -> None:
        if self.state is not None and needs_keys(self.state):
            self.state = filled(self.state, recorded_keys(self.state, self.log))

    def fold(self) -> None:
        """Decide what the journal holds, commit, then let effects out, unless the engine dies in between."""
        before, claims = self.state, list[Started]()
        for record, source in self.journal[self.cursor :]:
            if isinstance(record, Owner):
                self.journal_owner = record.token
            elif not self.is_void(record):
                self.fold_one(record, source)
                if isinstance(record, Started):
                    claims.append(record)
        self.cursor = len(self.journal)
        if self.is_lost():
            return
        for started in claims:
            self.answer(started)
        if self.state is not None and self.state is not before:
            self.let_out(self.state)

    def is_void(self, record: AnyRecord) -> bool:
        """Of an engine that is not the owner any more, or a command that was obeyed."""
        if isinstance(record, TimerDue | WorkerLost | Absent):
            return record.owner != self.journal_owner
        return isinstance(record, COMMANDS) and record.id in self.commands

    def fold_one(self, record: AnyRecord, source: Source) -> None:
        decision = self.decide(self.state, record, self.tick * SECOND, source=source)
        for event in decision.events:
            self.state = evolve(self.state, event)
            self.log.append((self.state.version, event))
        if decision.events and isinstance(record, COMMANDS):
            self.commands.add(record.id)
        self.load_keys()

    def answer(self, started: Started) -> None:
        claim = self.state.claim if self.state is not None else None
        for process in self.processes:
            if process.nonce != started.nonce or process.is_gone or self.is_lost():
                continue
            if claim is None or claim.nonce != started.nonce or self.state is None:
                process.is_gone = True
            elif process.memos is None:
                process.attempt = claim.attempt
                process.memos = memos(self.state, self.log)

    def let_out(self, state: State) -> None:
        owed = effects(state)
        if owed.run_request is not None:
            self.enqueue(owed.run_request.attempt)
        if owed.purge is not None:
            waiting = self.queue.get(owed.purge)
            if waiting is not None and waiting.holder is None:
                del self.queue[owed.purge]
        self.control(state)

    def control(self, state: State) -> None:
        """Hints to whoever holds the claim; they may be lost."""
        due = effects(state).control
        if due is None:
            return
        for process in self.processes:
            if process.nonce != due.nonce or process.is_gone or self.is_lost():
                continue
            if due.pause or due.cancel:
                process.must = "pause"
            elif due.resume:
                process.must = None
            if process.memos is not None and due.resolved:
                process.memos.update(memos(state, self.log))

    def sweep(self) -> None:
        """What an owner repeats for ever: requests, control, timers, leases."""
        state = self.state
        if state is None:
            return
        if self.sweeps:
            self.let_out(state)
        self.fire_timers(state, self.token)
        self.watch(state)

    def fire_timers(self, state: State, token: str) -> None:
        for timer, due in effects(state).timers.items():
            if due <= self.tick * SECOND + self.random.choice((0, 0, 2 * SECOND)):
                self.publish(TimerDue(instance=INSTANCE, tenant=TENANT, owner=token, timer=timer), ENGINE)

    def watch(self, state: State) -> None:
        claim = state.claim
        if claim is None:
            self.unheard = self.unlisted = 0
            return
        worker = next((w for w in self.workers if w.id == claim.worker), None)
        hosts = any(p.nonce == claim.nonce and not p.is_gone for p in self.processes)
        self.unheard = self.unheard + 1 if worker is None or worker.stopped_until > self.tick else 0
        self.unlisted = self.unlisted + 1 if worker is not None and not hosts and not self.unheard else 0
        named = {"instance": INSTANCE, "tenant": TENANT, "owner": self.token, "attempt": claim.attempt}
        if self.unheard > LEASE_TICKS:
            self.publish(WorkerLost(worker=claim.worker, **named), ENGINE)  # type: ignore[arg-type]
        elif self.unlisted > 1:
            self.publish(Absent(worker=claim.worker, **named), ENGINE)  # type: ignore[arg-type]

    # workers

    def pull(self) -> None:
        for request in list(self.queue.values()):
            holder = request.holder
            if holder is not None and (holder.is_gone or self.tick - request.delivered_at >= 2):
                request.holder, request.first = None, False  # delivered again, to whoever asks
            worker = self.random.choice(self.workers)
            if request.holder is None and worker.stopped_until <= self.tick:
                self.serial += 1
                process = Process(self, worker, request, f"n{self.serial}")
                request.holder, request.delivered_at = process, self.tick
                self.processes.append(process)
                if self.random.random() < 0.3:  # slow to claim, and redelivered meanwhile
                    process.slow_until = self.tick + self.random.randint(2, 6)

    def run(self) -> None:
        for process in list(self.processes):
            if max(process.worker.stopped_until, process.slow_until) > self.tick:
                continue
            for _ in range(self.random.randint(0, 2)):
                if not process.is_gone:
                    process.move()
        self.processes = [p for p in self.processes if not p.is_gone]

    def restart(self) -> None:
        """A process dies and comes back in the same place, with the same environment and an empty memory."""
        if self.processes:
            old = self.random.choice(self.processes)
            old.is_gone = True
            self.serial += 1
            self.processes.append(
                Process(self, old.worker, Request(old.request.attempt, first=False), f"n{self.serial}")
            )

    def kill(self, index: int) -> None:
        worker = self.workers[index]
        for process in self.processes:
            if process.worker is worker:
                process.is_gone = True
        self.serial += 1
        self.workers[index] = Worker(f"w{self.serial}")

    # what goes wrong

    def mischief(self) -> None:
        roll = self.random.random()
        if roll < 0.08:
            self.kill(self.random.randrange(2))
        elif roll < 0.16:
            self.random.choice(self.workers).stopped_until = self.tick + self.random.randint(1, 10)
        elif roll < 0.22:
            self.take_over()
        elif roll < 0.28:
            self.engine_back_at = self.tick + self.random.randint(1, 5)
        elif roll < 0.34:
            self.stale_engine_acts()
        elif roll < 0.42:
            self.command(self.random.choice([Pause, Pause, Resume, Resume, Resume]))
        elif roll < 0.48:
            self.command(Signal, name="go")
        elif roll < 0.485:
            self.command(Cancel)
        elif roll < 0.52:
            self.restart()
        elif roll < 0.53:
            self.fork()

    def fork(self) -> None:
        """From now on this is about a fork of what was, made as of the last commit."""
        if self.state is None:
            return
        self.serial += 1
        recorded = sorted(memos(self.state, self.log))
        at_key = self.random.choice(recorded) if recorded and self.random.random() < 0.5 else None
        request = ForkRequest(id=f"c{self.serial}", instance=INSTANCE, reply="", at_key=at_key)
        record = fork_record(
            TENANT,
            INSTANCE,
            state=self.state,
            log=self.log,
            input=Carried(Raw(b"{}")),
            labels={},
            hash=b"",
            request=request,
        )
        self.state, self.log, self.journal, self.cursor = None, [], [], 0
        self.queue, self.published, self.processes = {}, set(), []
        self.take_over()
        self.publish(record, ENGINE)

    def stale_engine_acts(self) -> None:
        """It publishes what it believed was owed; of that only the run requests can do anything."""
        token, state = self.stale
        if state is None:
            return
        owed = effects(state)
        if owed.run_request is not None:
            self.enqueue(owed.run_request.attempt)
        self.fire_timers(state, token)
        if state.claim is not None:
            lost = WorkerLost(
                instance=INSTANCE, tenant=TENANT, owner=token, attempt=state.claim.attempt, worker=state.claim.worker
            )
            self.publish(lost, ENGINE)

    # a whole life

    def live(self) -> None:
        while self.tick < CHAOS_TICKS + CALM_TICKS and not self.is_over:
            self.tick += 1
            if self.tick < CHAOS_TICKS:
                self.mischief()
            elif self.state is not None:
                self.calm(self.state)
            if self.engine_back_at <= self.tick:
                self.fold()
                self.sweep()
            self.pull()
            self.run()

    def calm(self, state: State) -> None:
        """The faults are over, and the people do their part."""
        if state.status is Status.PAUSED or state.pause:
            self.command(Resume)
        if any(wait.kind == "signal" for wait in state.waits.values()):
            self.command(Signal, name="go")

    @property
    def is_over(self) -> bool:
        return self.state is not None and self.state.status.is_terminal

    def complaint(self) -> str | None:
        """What is wrong with how it ended."""
        if self.state is None or not self.is_over:
            return f"stuck as {self.state.status if self.state is not None else 'nothing'}"
        if self.state.status is not Status.COMPLETED:
            return None if self.state.status is Status.CANCELLED else f"ended as {self.state.status}"
        result = next(event.result for _, event in self.log if isinstance(event, InstanceCompleted))
        held = memos(self.state, self.log)
        used = msgspec.json.decode(result, type=list[tuple[str, Raw]])
        if [key for key, _ in used] != [key for _, key in self.program]:
            return f"a result without some keys: {used}"
        wrong = [key for key, value in used if bytes(value) != held.get(key)]
        return f"built on values that the log does not hold: {wrong}" if wrong else None


def live(seed: int, *, decider: Decider = decide, sweeps: bool = True) -> str | None:
    """What went wrong in the life that `seed` makes; None if nothing did."""
    world = World(seed, decider=decider, sweeps=sweeps)
    world.live()
    return world.complaint()
