"""`assert_crash_safe`: a workflow comes to the same whenever its process dies.

It is run undisturbed, and then once or twice for each record that this took: the process dies just before the record
is stored (the work is done, nobody knows it) and just after (it is known, and nothing further was done). Each run has
a platform of its own, the same instance id and the same clock.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from runtara.engine.memory import MemoryBus
from runtara.protocol.errors import ExecutionFailed
from runtara.protocol.events import MEMO_TYPES
from runtara.protocol.records import Checkpointed, Custom, Record, StepFailure

from ..client import Handle
from ..granted import ConnectionValue
from ..workflow import Workflow
from .effects import Effects, noted_steps
from .host import Crash
from .platform import MemoryPlatform, Stuck
from .verdict import Key, Run, complaint

INSTANCE: Final = "crash-safe"
Drive = Callable[[MemoryPlatform, Handle[Any]], Awaitable[object]]


class NotCrashSafe(AssertionError):
    """A crash made a difference. The text says where it came, what broke, and what to change."""


class CrashReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was tried: `crashes` runs with a crash, at the `records` that the undisturbed run took."""

    records: int
    crashes: int
    result: Any


async def assert_crash_safe(
    workflow: Workflow[..., Any],
    *args: Any,
    effects: Effects | Sequence[Callable[..., Any]] = (),
    state: Callable[[], object] = lambda: None,
    before_each: Callable[[], object] = lambda: None,
    drive: Drive | None = None,
    hosts: Sequence[Workflow[..., Any]] = (),
    compare: Callable[[Any], object] = lambda result: result,
    same_keys: bool = True,
    connections: Sequence[ConnectionValue] = (),
    **kwargs: Any,
) -> CrashReport:
    """Run `workflow` with this input, and again with a crash at each record; raise `NotCrashSafe` if one matters.

    Args:
        effects: what is done to the outside: an `Effects`, or a list of `@step` functions, each at least once.
        state: the world outside after a run (fakes, say), to be the same after each.
        before_each: puts the world outside back to its beginning.
        drive: what happens from outside in each run, such as signals: `async def drive(platform, handle)`.
        hosts: workflows that it calls as children.
        compare: what of the result must be the same; for results that hold what differs from run to run.
        same_keys: whether the same keys must be recorded.
        connections: those that it may open.
    """
    trial = Trial(
        workflow, args, kwargs, state=state, before_each=before_each, drive=drive, hosts=hosts,
        connections=connections,
    )  # fmt: skip
    with trial.noting(effects):
        quiet = await trial.run(None)
        again = await trial.run(None)
        crashes = list(_crashes(len(quiet.sent)))
        _compare(quiet, again, compare, same_keys=same_keys, where="without any crash, from one run to the next")
        for crash in crashes:
            where = f"after a crash just {crash.when} record {crash.at} of {len(quiet.sent)}"
            where += f" was stored ({_describe(quiet.sent[crash.at - 1])})"
            try:
                crashed = await trial.run(crash)
            except Stuck as exc:
                raise NotCrashSafe(f"{workflow.name}, {where}: it never ends. {exc}") from exc
            _compare(quiet, crashed, compare, same_keys=same_keys, where=where)
    result = quiet.outcome[1] if isinstance(quiet.outcome, tuple) else None
    return CrashReport(records=len(quiet.sent), crashes=len(crashes), result=result)


class Trial:
    """One workflow with one input, to be run again and again."""

    def __init__(
        self, workflow: Workflow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *,
        state: Callable[[], object], before_each: Callable[[], object], drive: Drive | None,
        hosts: Sequence[Workflow[..., Any]], connections: Sequence[ConnectionValue] = (),
    ) -> None:  # fmt: skip
        self._workflow = workflow
        self._args = args
        self._kwargs = kwargs
        self._state = state
        self._before_each = before_each
        self._drive = drive
        self._hosts = hosts
        self._connections = connections
        self._effects = Effects()

    @contextmanager
    def noting(self, effects: Effects | Sequence[Callable[..., Any]]) -> Iterator[None]:
        """While this lasts, these effects are noted."""
        if isinstance(effects, Effects):
            self._effects = effects
            yield
        else:
            with noted_steps(self._effects, effects):
                yield

    async def run(self, crash: Crash | None) -> Run:
        """One whole life, with at most one crash in it."""
        self._before_each()
        async with MemoryPlatform(*self._hosts, connections=self._connections) as platform:
            host = platform._host
            host.crash = crash
            stored: list[frozenset[Key]] = []
            host.on_death = lambda: stored.append(_stored(platform._bus))
            with self._effects.run(lambda execution: execution in host.dead):
                outcome = await self._outcome(platform)
                calls = tuple(self._effects.calls)
            return Run(
                outcome=outcome,
                state=self._state(),
                sent=tuple(host.sent),
                calls=calls,
                keys=_keys(platform._bus),
                stored=stored[0] if stored else frozenset(),
                dead=frozenset(id(execution) for execution in host.dead),
            )

    async def _outcome(self, platform: MemoryPlatform) -> tuple[str, object]:
        handle = await platform.start(self._workflow, *self._args, id=INSTANCE, **self._kwargs)
        if self._drive is not None:
            await self._drive(platform, handle)
        try:
            return "completed", await handle.result()
        except ExecutionFailed as exc:
            return type(exc).__name__, str(exc)


def _crashes(records: int) -> Iterator[Crash]:
    for at in range(1, records + 1):
        yield Crash(at, "before")
        yield Crash(at, "after")


def _compare(quiet: Run, other: Run, compare: Callable[[Any], object], *, same_keys: bool, where: str) -> None:
    said = complaint(_comparable(quiet, compare), _comparable(other, compare), same_keys=same_keys)
    if said is not None:
        raise NotCrashSafe(f"{where}: {said}")


def _comparable(run: Run, compare: Callable[[Any], object]) -> Run:
    kind, value = run.outcome if isinstance(run.outcome, tuple) else ("", run.outcome)
    return msgspec.structs.replace(run, outcome=(kind, compare(value) if kind == "completed" else value))


def _stored(bus: MemoryBus) -> frozenset[Key]:
    """The keys that had an outcome in the journal."""
    return frozenset(
        (entry.record.instance, entry.record.key)
        for entry in bus.engine.journal
        if isinstance(entry.record, Checkpointed | Custom)
        or (isinstance(entry.record, StepFailure) and entry.record.for_us is None)
    )


def _keys(bus: MemoryBus) -> frozenset[Key]:
    return frozenset(
        (row.instance, event.key)
        for row in bus.engine.rows.values()
        for event in row.events
        if event.key is not None and event.type in MEMO_TYPES
    )


def _describe(record: Record) -> str:
    kind, key = str(record.__struct_config__.tag), getattr(record, "key", None)
    what = f"{kind} {key!r}" if key is not None else kind
    return what if record.instance == INSTANCE else f"{what} of {record.instance}"
