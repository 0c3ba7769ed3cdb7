"""Workers and the processes that they run in the simulated world: what the SDK does, as a list of small moves."""

import random
from typing import Final, Protocol

from msgspec import Raw

from runtara.engine.lifecycle import State, served
from runtara.protocol.events import AnyEvent, CheckpointSaved, WaitAbandoned, WaitResolved
from runtara.protocol.records import AnyRecord, Checkpointed, Completed, Parked, Started, Suspended
from runtara.protocol.subjects import Channel, Source
from tests.lifecycle.laws import unwrapped

SECOND: Final = 1_000_000
INSTANCE, TENANT = "i", "t"
RESEND_TICKS = 3


class Outside(Protocol):
    """What a process can see and do beyond itself."""

    random: random.Random
    tick: int
    program: list[tuple[str, str]]

    def publish(self, record: AnyRecord, source: Source) -> None: ...

    def acknowledge(self, request: "Request", by: "Process") -> None: ...


class Worker:
    def __init__(self, id: str) -> None:
        self.id = id
        self.source = Source(Channel.REPORTS, 0, TENANT, worker=id)
        self.stopped_until = 0
        self.is_dead = False


class Request:
    """A run request in the queue: waiting, or in flight with `holder`."""

    def __init__(self, attempt: int, *, first: bool) -> None:
        self.attempt = attempt
        self.first = first
        self.holder: Process | None = None
        self.delivered_at = 0


class Process:
    """One execution of the program by one worker: what the SDK does, as a list of small moves."""

    def __init__(self, world: Outside, worker: Worker, request: Request, nonce: str) -> None:
        self.world = world
        self.worker = worker
        self.request = request
        self.attempt = request.attempt
        self.nonce = nonce
        self.optimistic = request.first
        self.memos: dict[str, bytes] | None = None
        self.used: list[tuple[str, bytes]] = []
        self.at = self.seq = 0
        self.claimed_at: int | None = None
        self.slow_until = 0
        self.parked: set[str] = set()
        self.must: str | None = None
        self.is_gone = False

    def claim(self) -> None:
        self.claimed_at = self.world.tick
        record = Started(instance=INSTANCE, attempt=self.attempt, nonce=self.nonce, worker=self.worker.id)
        self.world.publish(record, self.worker.source)
        self.world.acknowledge(self.request, self)

    def report(self, cls: type, **fields: object) -> None:
        self.seq += 1
        record = cls(instance=INSTANCE, attempt=self.attempt, nonce=self.nonce, seq=self.seq, **fields)
        self.world.publish(record, self.worker.source)

    def move(self) -> None:
        """One thing that the process does when it gets the processor."""
        if self.memos is None:
            if self.claimed_at is None or self.claimed_at + RESEND_TICKS <= self.world.tick:
                self.claim()
            if not self.optimistic:
                return
        if self.must is not None:
            self.leave(self.must)
        elif self.at == len(self.world.program):
            self.report(Completed, result=encode(self.used))
            self.is_gone = True
        else:
            self.operate(*self.world.program[self.at])

    def operate(self, kind: str, key: str) -> None:
        memo = self.memos.get(key) if self.memos is not None else None
        if memo is not None:
            self.answer(key, memo)
        elif kind == "step":
            value = b'"%s"' % f"{self.nonce}-{key}".encode()
            self.report(Checkpointed, key=key, data=Raw(value))
            self.answer(key, value)
        elif key not in self.parked:
            self.park(kind, key)
        elif self.memos is not None and self.world.random.random() < 0.5:
            self.leave("parked", key)

    def park(self, kind: str, key: str) -> None:
        self.parked.add(key)
        if kind == "sleep":
            self.report(Parked, key=key, kind="sleep", for_us=3 * SECOND)
        else:
            self.report(Parked, key=key, kind="signal", name="go", for_us=40 * SECOND)

    def answer(self, key: str, value: bytes) -> None:
        self.used.append((key, value))
        self.at += 1

    def leave(self, reason: str, *keys: str) -> None:
        self.report(Suspended, reason=reason, keys=keys)
        self.is_gone = True


def memos(state: State, log: list[tuple[int, AnyEvent]]) -> dict[str, bytes]:
    """What a claim is answered with: the outcome of each key."""
    found: dict[str, bytes] = {}
    for version, event in map(unwrapped, served(state, log)):
        key = event.key or ""
        match event:
            case CheckpointSaved():
                found.setdefault(key, bytes(event.data))
            case WaitResolved():
                found[key] = b'"%s@%d"' % (event.outcome.encode(), version)
            case WaitAbandoned():
                found.pop(key, None)
    return found


def encode(used: list[tuple[str, bytes]]) -> Raw:
    return Raw(b"[" + b",".join(b'["%s",%s]' % (key.encode(), value) for key, value in used) + b"]")
