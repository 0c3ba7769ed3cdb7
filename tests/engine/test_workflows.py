"""What a partition knows of workflows: a function of its journal alone, however that is cut, read again or failed."""

import asyncio
from typing import Any, cast

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from runtara.engine.fold import Fold
from runtara.engine.fold_values import CommandId, Context, Position
from runtara.engine.reader import Frame
from runtara.engine.sql import EVENT_COLUMNS
from runtara.engine.workflows import Changes, WorkflowCache
from runtara.infra.postgres import PgConnection
from runtara.projections.instances import InstanceRow
from runtara.protocol.chain import GENESIS
from runtara.protocol.frames import decode_frame, encode_frame
from runtara.protocol.records import Options, Parent, Record, Start, WorkflowForgotten, WorkflowRegistered
from runtara.protocol.subjects import Subjects

SUBJECTS = Subjects("d")
NAMES = ("fulfil", "fulfill", "refund")
TENANTS = ("acme", "zoo")
_TENANT, _INSTANCE, _COMMAND = (list(EVENT_COLUMNS).index(name) for name in ("tenant", "instance", "command"))


class Rows:
    """The table `workflows` of one partition."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], WorkflowRegistered] = {}

    async def fetch(self, query: str, partition: int, tenants: list[str]) -> list[dict[str, Any]]:
        return [
            {"tenant": tenant, "id": id, "kind": row.kind, "options": msgspec.json.encode(row.options)}
            for (tenant, id), row in self.rows.items()
            if tenant in tenants
        ]

    def write(self, changes: Changes) -> None:
        for id, record in changes.items():
            if record is None:
                self.rows.pop(id, None)
            else:
                self.rows[id] = record


def registered(tenant: str, workflow: str, restarts: int) -> Record:
    return WorkflowRegistered(instance="", tenant=tenant, workflow=workflow, options=Options(restarts=restarts))


def start(tenant: str, workflow: str, n: int, is_child: bool) -> Record:  # Hypothesis calls it
    parent = Parent(instance="p", key=workflow) if is_child else None
    return Start(instance=f"i-{n}", id=f"s-{n}", tenant=tenant, workflow=workflow, parent=parent)


def forgotten(tenant: str, workflow: str) -> Record:
    return WorkflowForgotten(instance="", tenant=tenant, workflow=workflow)


names, tenants = st.sampled_from(NAMES), st.sampled_from(TENANTS)
records = st.one_of(
    st.builds(registered, tenants, names, st.integers(0, 9)),
    st.builds(forgotten, tenants, names),
    st.builds(start, tenants, names, st.integers(0, 20), st.booleans()),
)
cuts = st.sampled_from(["", "batch", "failed", "tenure"])  # what ends behind a record


class Partition:
    """Folds as a partition's loop does, one tenure after the other."""

    def __init__(self) -> None:
        self.table = Rows()
        self.written: list[str] = []
        self._cache = WorkflowCache(0)
        self._position = Position(head=0, head_hash=GENESIS, clock=0, journal_owner=None)
        self._rows: dict[tuple[str, str], InstanceRow] = {}
        self._commands: set[CommandId] = set()  # that the log has: each is decided once, whatever was registered since

    async def _fold(self, frames: list[Frame]) -> Fold:
        known = await self._cache.of(cast(PgConnection, self.table), TENANTS)
        repeated = frozenset(self._commands)
        context = Context(partition=0, partitions=1, subjects=SUBJECTS, repeated=repeated, workflows=known)
        fold = Fold(self._position, dict(self._rows), context)
        for one in frames:
            fold.frame(one)
        return fold

    async def batch(self, frames: list[Frame], *, cut: str) -> None:
        fold = await self._fold(frames)
        if cut == "failed":
            self._cache.forget(fold.workflows.changes)
            fold = await self._fold(frames)
        self.table.write(fold.workflows.changes)
        self._cache.committed(fold.workflows.changes)
        self._position, self._rows = fold.position, fold.rows
        self._commands |= {_command(event) for event in fold.events if event[_COMMAND] is not None}
        self.written += [f"event {event}" for event in fold.events]
        self.written += [f"command {row.sequence} {row.record!r}" for row in fold.outbox]
        self.written += [f"rejected {row.sequence} {row.reason}" for row in fold.rejected]
        if cut == "tenure":
            self._cache = WorkflowCache(0)


def _command(event: tuple[object, ...]) -> CommandId:
    return cast(CommandId, (event[_TENANT], event[_INSTANCE], event[_COMMAND]))


async def folded(spoken: list[tuple[Record, str]]) -> Partition:
    partition = Partition()
    batch: list[Frame] = []
    for sequence, (record, cut) in enumerate(spoken, start=1):
        data = encode_frame([record])
        decoded, rejections = decode_frame(data)
        assert rejections == []
        batch.append(Frame(SUBJECTS.engine(0), sequence, sequence * 1_000, data, decoded, rejections))
        if cut or sequence == len(spoken):
            await partition.batch(batch, cut=cut)
            batch = []
    return partition


@given(st.lists(st.tuples(records, cuts), max_size=25))
def test_cutting_the_journal_into_other_batches_and_tenures_changes_nothing(spoken: list[tuple[Record, str]]) -> None:
    whole = asyncio.run(folded([(record, "") for record, _ in spoken]))
    pieces = asyncio.run(folded(spoken))
    assert sorted(pieces.written) == sorted(whole.written)
    assert pieces.table.rows == whole.table.rows
