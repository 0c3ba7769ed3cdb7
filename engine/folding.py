"""Folding what has arrived, on top of what is still being committed.

Folding a batch and committing one take about the same time, one of them here and the other in Postgres, so they go on
side by side: while one batch is under way, what arrives is folded into the next, on the rows that the first will have
left. That batch grows until the other one is done and somebody waits for it (`patience`), so that a slow commit makes
the next larger, not later.

Invariants: a batch is committed only after the one it was folded on; if that one cannot be, everything folded on it is
thrown away and folded again. What is known of an instance is looked for in the order of its age: the batch that is
open, the one under way, the cache, Postgres. Rows that are read there are of instances that no batch under way knows.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from runtara.protocol.errors import RuntaraError
from runtara.protocol.limits import MAX_BATCH_BYTES, MAX_BATCH_RECORDS
from runtara.protocol.records import Command, Fork, Start

from . import log as event_log
from .cache import Id, InstanceCache
from .fold import Fold
from .fold_values import CommandId, Context, Position
from .lifecycle import needs_keys
from .patience import patience
from .platform import Platform
from .reader import Frame
from .workflows import WorkflowCache


class Batch:
    """Frames, and the fold of them. Made by `Folding`. `due`: when it is to be committed (the loop's time)."""

    def __init__(self, fold: Fold) -> None:
        self.fold = fold
        self.frames: list[Frame] = []
        self.due = math.inf
        self._records = self._bytes = 0

    def has_room(self, frames: Sequence[Frame]) -> bool:
        records, size = _size(frames)
        return not self.frames or (
            self._records + records <= MAX_BATCH_RECORDS and self._bytes + size <= MAX_BATCH_BYTES
        )

    def add(self, frames: Sequence[Frame], now: float) -> None:
        for frame in frames:
            self.fold.frame(frame)
            self.due = min(self.due, now + patience(frame))
        records, size = _size(frames)
        self.frames += frames
        self._records += records
        self._bytes += size


class Folding:
    """One task calls `add`, another one `take`, and `committed` for each batch that it took."""

    def __init__(self, platform: Platform, partition: int, position: Position) -> None:
        self._platform = platform
        self._partition = partition
        self._cache = InstanceCache()
        self._workflows = WorkflowCache(partition)
        self._under_way: Fold | None = None
        self._open = Batch(self._fold_from(position))
        self._loop = asyncio.get_running_loop()
        self._changing = asyncio.Lock()
        self._settled = asyncio.Event()  # no batch is under way
        self._settled.set()
        self._ready = asyncio.Event()  # the open batch is due, or full
        self._timer: asyncio.TimerHandle | None = None
        self._taken = asyncio.Event()
        self.is_blocked = False

    async def add(self, frames: Sequence[Frame]) -> set[Id]:
        """Fold frames into the open batch, waiting for room in it; the workers that the batch has heard from."""
        while not self._open.has_room(frames):
            self.is_blocked = True
            self._ready.set()
            self._taken.clear()
            await self._taken.wait()
        self.is_blocked = False
        async with self._changing:
            batch = self._open
            await self._learn(batch.fold, frames)
            batch.add(frames, self._loop.time())
            self._wake_at(batch.due)
        return batch.fold.heard

    def _wake_at(self, due: float) -> None:
        timer = self._timer
        if due <= self._loop.time():
            self._ready.set()
        elif timer is None or timer.when() > due:
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(due, self._ready.set)

    async def take(self) -> Batch:
        """The open batch, as soon as it is due. What comes now is folded on it."""
        await self._ready.wait()
        async with self._changing:
            batch = self._open
            self._under_way = batch.fold
            self._settled.clear()
            self._begin(batch.fold.position)
        return batch

    def committed(self, fold: Fold) -> None:
        for row in fold.changed.values():
            if row.state.status.is_terminal or needs_keys(row.state):  # after a retry its keys are read again
                self._cache.discard((row.tenant, row.instance))
            else:
                self._cache.put(row)
        self._workflows.committed(fold.workflows.changes)
        self._settled.set()

    @asynccontextmanager
    async def set_aside(self, failed: Fold) -> AsyncIterator[list[Frame]]:
        """After a commit that failed: forget what was folded since. The frames of it, which were folded on `failed`.

        As long as it lasts nothing else is folded than by `alone`; `resume` is to be called at its end.
        """
        self._settled.set()
        async with self._changing:
            self.forget(failed)
            self.forget(self._open.fold)
            self._under_way = None
            yield self._open.frames

    def resume(self, position: Position) -> None:
        """From here on frames are folded on what is committed up to `position`."""
        self._begin(position)

    async def alone(self, frames: Sequence[Frame], position: Position) -> Fold:
        """Frames folded on what is committed up to `position`."""
        fold = self._fold_from(position)
        await self._learn(fold, frames)
        for frame in frames:
            fold.frame(frame)
        return fold

    def forget(self, fold: Fold) -> None:
        """What a fold touched that was not committed is read again."""
        for id in fold.before:
            self._cache.discard(id)
        self._workflows.forget(fold.workflows.changes)

    def _begin(self, position: Position) -> None:
        self._open = Batch(self._fold_from(position))
        self._ready.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._taken.set()

    def _fold_from(self, position: Position) -> Fold:
        context = Context(
            partition=self._partition,
            partitions=self._platform.partitions,
            subjects=self._platform.subjects,
            repeated=frozenset(self._under_way.commands) if self._under_way is not None else frozenset(),
            workflows={},
            registered=self._under_way.workflows.changes if self._under_way is not None else {},
        )
        return Fold(position, {}, context)

    async def _learn(self, fold: Fold, frames: Sequence[Frame]) -> None:
        """Tell `fold` all that it has to know of what the frames speak of."""
        ids, commands, tenants = _mentioned(frames, self._platform)
        missing = await self._without_known(fold, ids)
        if not (missing or commands):
            return
        async with self._platform.pool.acquire() as connection:
            rows, retired = await event_log.load_known(connection, missing)
            fold.rows.update({(row.tenant, row.instance): row for row in rows})
            fold.retired.update(retired)
            repeatable = [command for command in commands if command[:2] in fold.rows]
            fold.learn_repeated(await event_log.repeated_commands(connection, repeatable))
            if tenants:
                fold.workflows.learn(await self._workflows.of(connection, tenants))

    async def _without_known(self, fold: Fold, ids: set[Id]) -> list[Id]:
        """Give `fold` the rows that are in memory; the others have to be read."""
        missing: list[Id] = []
        for id in ids:
            if id in fold.rows:
                continue
            row = (self._under_way.rows.get(id) if self._under_way is not None else None) or self._cache.get(id)
            if row is None:
                missing.append(id)
            elif needs_keys(row.state):  # only Postgres has them, once the batch under way is there
                await self._settled.wait()
                missing.append(id)
            else:
                fold.rows[id] = row
        return missing


def _size(frames: Sequence[Frame]) -> tuple[int, int]:
    return sum(len(frame.records) for frame in frames), sum(len(frame.data) for frame in frames)


def _mentioned(frames: Sequence[Frame], platform: Platform) -> tuple[set[Id], list[CommandId], set[str]]:
    """The instances and commands that frames speak of, and the tenants that start something: all that has to be known
    before they are folded."""
    ids: set[Id] = set()
    commands: list[CommandId] = []
    tenants: set[str] = set()
    for frame in frames:
        try:
            tenant_of_subject = platform.subjects.parse_journal(frame.subject).tenant
        except RuntaraError:
            continue
        for record in frame.records:
            tenant = tenant_of_subject or getattr(record, "tenant", None) or ""
            ids.add((tenant, record.instance))
            if isinstance(record, Command):
                commands.append((tenant, record.instance, record.id))
                if isinstance(record, Start | Fork):
                    tenants.add(tenant)
    return ids, commands, tenants
