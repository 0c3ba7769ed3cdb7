"""An `Outlet` under the test's control: keeps records, acknowledges them at once or when told, and gives memos back.

With `limit`, it stands for a process that dies: records after the first `limit` reach nobody and are never
acknowledged. What becomes of the records is what the engine in memory makes of them. (The twin that ships,
`runtara.sdk.testing.MemoryOutlet`, acknowledges when the journal would.)
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
import orjson
from msgspec import Raw

from runtara.engine.memory import MemoryBlobs, MemoryEngine, Row, VirtualClock, memos
from runtara.protocol.api import Registration
from runtara.protocol.errors import WireError
from runtara.protocol.events import WaitResolved, encode_data
from runtara.protocol.messages import Claimed, Memo
from runtara.protocol.records import Checkpointed, Completed, Options, Parked, Record, Report, Start, Started
from runtara.protocol.subjects import Channel, Source
from runtara.sdk.blobs import Blobs
from runtara.sdk.execution import Execution
from runtara.sdk.overdue import Overdue
from runtara.sdk.testing.blobs import MemoryDoor
from runtara.sdk.workflow import Workflow

CLIENT: Final = Source(Channel.COMMANDS, 0, "acme", client="c")
WORKER: Final = Source(Channel.REPORTS, 0, "acme", worker="w-1")
R = TypeVar("R", bound=Record)


def journal_us() -> int:
    """The journal's clock in these tests: an hour ahead of ours, so that nothing can confuse the two."""
    return time.time_ns() // 1_000 + 3_600_000_000


class MemoryOutlet:
    """`committed`: the records sent by `send_committed`; `hold` keeps acknowledgements back until `release`."""

    def __init__(self, *, limit: int | None = None, hold: bool = False) -> None:
        self.records: list[Record] = []
        self.committed: list[Record] = []
        self.best_effort: list[Record] = []
        self.hold = hold
        self._limit = limit
        self._held: list[asyncio.Future[Any]] = []
        self.stored = MemoryBlobs(VirtualClock(0))
        self.blobs = Blobs(MemoryDoor(self.stored, "acme"), patient=True)
        self.dead = asyncio.Event()
        self.changed = asyncio.Event()

    def send(self, record: Record) -> asyncio.Future[int]:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if self._limit is not None and len(self.records) >= self._limit:
            self.dead.set()
            return future
        self.records.append(record)
        self.changed.set()
        if self.hold:
            self._held.append(future)
        else:
            future.set_result(len(self.records))
        return future

    def send_committed(self, record: Record) -> asyncio.Future[None]:
        future: Any = self.send(record)
        if self.records and self.records[-1] is record:
            self.committed.append(record)
        return future  # type: ignore[no-any-return]  # nobody looks at its value

    def send_best_effort(self, record: Record) -> None:
        self.best_effort.append(record)

    def release(self) -> None:
        for future in self._held:
            if not future.done():
                future.set_result(0)
        self._held.clear()
        self.hold = False

    async def until(self, count: int) -> None:
        """Until so many records were sent."""
        while len(self.records) < count:
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), 5)

    def all(self, kind: type[R]) -> list[R]:
        return [record for record in self.records if isinstance(record, kind)]

    @property
    def keys(self) -> list[str]:
        return [record.key for record in self.all(Checkpointed)]

    @property
    def last(self) -> Any:
        return self.records[-1]

    @property
    def result(self) -> Any:
        """The result, if the last record is `completed`."""
        assert isinstance(self.last, Completed), self.last
        return orjson.loads(bytes(self.last.result))

    def memos(self, version: int = 0) -> list[Memo]:
        """The memos that the engine would give the next attempt, `version` events behind those of earlier ones."""
        row = folded(self.records)
        return [msgspec.structs.replace(memo, version=version + memo.version) for memo in memos(row)]

    def check_numbers(self) -> None:
        """Reports are numbered from 1 without gaps, and every key has one outcome."""
        reports = [record for record in self.records if isinstance(record, Report)]
        assert [report.seq for report in reports] == list(range(1, len(reports) + 1))
        assert len(set(self.keys)) == len(self.keys)


def folded(records: Sequence[Record]) -> Row:
    """What the engine makes of the reports of an attempt."""
    engine = MemoryEngine(VirtualClock(journal_us()))
    asked = {record.child.workflow for record in records if isinstance(record, Parked) and record.child is not None}
    for name in ("w", *asked):
        engine.register("acme", Registration(workflow=name))
    engine.append(CLIENT, Start(id="start", instance="i-1", workflow="w"))
    engine.append(WORKER, Started(instance="i-1", attempt=1, nonce="n", worker="w-1"))
    for record in records:
        assert isinstance(record, Report), record
        engine.append(WORKER, msgspec.structs.replace(record, attempt=1))  # type: ignore[arg-type]  # one of them
    engine.fold()
    return engine.rows["acme", "i-1"]


def outcome(key: str, kind: str, data: object = None, error: WireError | None = None, version: int = 1_000) -> Memo:
    """The engine's word on a wait."""
    event = WaitResolved(outcome=kind, data=Raw(orjson.dumps(data)), error=error)  # type: ignore[arg-type]
    return Memo(key=key, version=version, type="WaitResolved", data=Raw(encode_data(event)))


def claimed(
    workflow: Workflow[..., Any],
    input: Raw,
    memos: list[Memo],
    *,
    attempt: int = 2,
    cancel: bool = False,
    cancelling: bool = False,
    pause: bool = False,
    floor: int = 0,
) -> Claimed:
    return Claimed(
        instance="i-1", attempt=attempt, nonce="n", version=len(memos), now_us=journal_us(), workflow=workflow.name,
        input=input, memos=memos, cancel=cancel, cancelling=cancelling, pause=pause, floor=floor,
    )  # fmt: skip


def execution(
    workflow: Workflow[..., Any],
    outlet: MemoryOutlet,
    input: Mapping[str, object] | None = None,
    *,
    memos: list[Memo] | None = None,
    attempt: int = 2,
    options: Options | None = None,
    confirmed: bool = True,
    cancelling: bool = False,
    floor: int = 0,
    overdue: Overdue | None = None,
) -> Execution:
    """An execution that resumes with `memos`; `confirmed=False`: an optimistic first attempt."""
    text = Raw(b"{}") if not input else workflow.check_input(dict(input))
    claim = claimed(workflow, text, memos or [], attempt=attempt, cancelling=cancelling, floor=floor)
    return Execution(
        workflow, tenant="acme", instance="i-1", attempt=attempt, nonce="n", input=text, options=options or Options(),
        labels={"team": "a"}, outlet=outlet, blobs=outlet.blobs, claim=claim if confirmed else None, overdue=overdue,
    )  # fmt: skip


async def run(
    workflow: Workflow[..., Any], *, memos: list[Memo] | None = None, cancelling: bool = False, **input: object
) -> MemoryOutlet:
    """Run an attempt to its end."""
    outlet = MemoryOutlet()
    await asyncio.wait_for(execution(workflow, outlet, input, memos=memos, cancelling=cancelling).run(), 10)
    outlet.check_numbers()
    return outlet


async def run_until_killed(
    workflow: Workflow[..., Any], records: int, *, memos: list[Memo] | None = None, cancelling: bool = False,
    **input: object,
) -> MemoryOutlet:  # fmt: skip
    """Run an attempt whose process dies once `records` records are out (or that ends before)."""
    outlet = MemoryOutlet(limit=records)
    task = asyncio.ensure_future(execution(workflow, outlet, input, memos=memos, cancelling=cancelling).run())
    dead = asyncio.ensure_future(outlet.dead.wait())
    await asyncio.wait({task, dead}, return_when=asyncio.FIRST_COMPLETED, timeout=10)
    for waiting in (task, dead):
        waiting.cancel()
    await asyncio.gather(task, dead, return_exceptions=True)
    outlet.check_numbers()
    return outlet
