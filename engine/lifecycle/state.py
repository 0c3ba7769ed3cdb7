"""The state of an instance: exactly what `decide` needs to know of its past, and nothing else.

Results, memos and inputs stay in the log; of keys only 64-bit hashes are kept, in memory. A state is immutable and a
function of the events alone (`evolve`); its `version` is the number of those events.

Invariants: `claim` is set if and only if the status is `running`; `waits` are the parks without an outcome, in the
order in which they began; `timers` are pending, named by the version of the event that made them.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec
from msgspec import Raw

from runtara.protocol.blobs import Blob
from runtara.protocol.messages import Status
from runtara.protocol.records import Options, Parent

from .keyset import UNKNOWN, KeySet

Mode = Literal["normal", "cancelling"]
WaitKind = Literal["sleep", "signal", "child", "retry"]
TimerPurpose = Literal["sleep", "signal", "retry", "restart", "grace"]

_QUEUED_BY_START = 2  # the version of the InstanceQueued that follows an InstanceCreated
SUSPENDED = (Status.SLEEPING, Status.WAITING)


class _Part(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    pass


class Launch(_Part, frozen=True, kw_only=True):
    """A runner's reservation, kept while its container holds the claim. `attempt`: what the container was told."""

    attempt: int
    nonce: str
    worker: str
    token: str | None


class Claim(_Part, frozen=True, kw_only=True):
    """Who may report. `version` is that of its AttemptStarted: up to there the worker was told everything.

    `reserved`: by a runner whose container has not spoken yet; nobody can report under it. `resumed_at`: the last seq
    when a pause was taken back. `restarted`: it ended because its own source started again.
    """

    attempt: int
    nonce: str
    worker: str
    source: str
    version: int
    last_seq: int = 0
    reserved: bool = False
    resumed_at: int | None = None
    restarted: bool = False
    launch: Launch | None = None


class Wait(_Part, frozen=True, kw_only=True):
    """An open park, or the time before a step's next try. `version`: of the event that began it; its timer's id."""

    kind: WaitKind
    version: int
    due_us: int | None = None
    name: str | None = None  # of the signal, or the child's id


class Timer(_Part, frozen=True, kw_only=True):
    due_us: int
    purpose: TimerPurpose
    key: str | None = None


class PendingSignal(_Part, frozen=True, kw_only=True):
    """A signal that nobody has asked for. `version` is that of its SignalReceived."""

    version: int
    data: Raw
    blob: Blob | None = None


class Resolution(_Part, frozen=True, kw_only=True):
    """An outcome that the current claim was not told when it started. `version`: of the event that holds it."""

    version: int
    kind: WaitKind
    due_us: int | None = None
    name: str | None = None
    signal: PendingSignal | None = None


class Child(_Part, frozen=True, kw_only=True):
    instance: str
    cancel: bool  # when its parent ends before it


class CancelOrder(_Part, frozen=True, kw_only=True):
    reason: str | None = None


class State(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """One instance after `version` events.

    Identity: `workflow`, `options`, `input_digest`, `parent`, `external` (a script of the user's; nobody launches it).

    Attempts: `losses` in a row without anything recorded, `restarts` in all. `ended` is the last claim that ended, with
    its last accepted seq; `past` the last nonces of claims whose sender may come again with the same attempt number;
    `requested` an attempt whose run request may be out and unclaimed; `queued_at` the version since when it is due;
    `measured` the last attempt of which the log knows what its process used.

    Waiting: `restart_timer` is what the queued attempt waits for, `grace_timer` what ends a claim that ignores a
    cancel; `awaiting` are the keys a suspended or paused instance is blocked on; `unseen` are outcomes that the
    resident attempt was not told at its start; `undone` says that a compensation has begun.

    Generations: `floor` is the version of the last InstanceContinued (memos before it are not served), `retried` that
    of the last InstanceRetried; `generation` counts both.
    """

    version: int
    status: Status = Status.QUEUED
    workflow: str = ""
    options: Options = Options()
    input_digest: str = ""
    parent: Parent | None = None
    external: bool = False

    attempt: int = 0
    mode: Mode = "normal"
    claim: Claim | None = None
    ended: Claim | None = None
    past: tuple[str, ...] = ()
    keys: KeySet = UNKNOWN
    losses: int = 0
    restarts: int = 0
    measured: int = 0
    requested: int | None = None
    queued_at: int = 0

    pause: bool = False
    cancel: CancelOrder | None = None

    waits: dict[str, Wait] = {}
    timers: dict[int, Timer] = {}
    restart_timer: int | None = None
    grace_timer: int | None = None
    awaiting: tuple[str, ...] = ()
    unseen: dict[str, Resolution] = {}
    pending: dict[str, tuple[PendingSignal, ...]] = {}
    children: dict[str, Child] = {}
    compensations: dict[str, int] = {}
    undone: bool = False

    floor: int = 0
    retried: int = 0
    generation: int = 0

    @property
    def is_suspended(self) -> bool:
        return self.status in SUSPENDED

    @property
    def is_fresh(self) -> bool:
        """Whether its attempt is the first of all, so that nothing can be recorded: a fork's first has a history."""
        return self.attempt == 1 and self.queued_at <= _QUEUED_BY_START


def with_keys(state: State, hashes: Iterable[int]) -> State:
    """`state` as read from the database, with the hashes of the keys it has recorded (see `memos.recorded_keys`)."""
    return msgspec.structs.replace(state, keys=KeySet.of(hashes))


def needs_keys(state: State) -> bool:
    """Whether `with_keys` must be called before anything is decided on `state`."""
    return not state.keys.complete and not state.status.is_terminal
