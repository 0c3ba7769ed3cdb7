"""One partition's loop: take over, fold the journal, commit, let effects out; step down when somebody else owns it.

Invariants: nothing is folded before the journal was found to be the one that Postgres was built from; nothing is let
out before its commit; an unknown outcome of a commit, a lost connection or a gap ends the tenure, and the next one
begins with an empty cache. A batch that cannot be committed for a reason of its own is halved until the culprit
stands alone; that frame is rejected and the rest goes in.
"""

import asyncio
import secrets
from collections.abc import Sequence
from typing import Final

import asyncpg
import msgspec

from runtara.infra.bus import NotAcknowledged, PublishRefused
from runtara.infra.logs import logger
from runtara.infra.postgres import PgConnection, is_transient
from runtara.projections.instances import InstanceRow
from runtara.protocol.errors import JournalLost, JournalMismatch, PartitionLost, RuntaraError, Unavailable
from runtara.protocol.frames import Rejection, encode_frame
from runtara.protocol.records import Command, Owner, Report, Start, Unreadable, WireRecord

from . import log as event_log
from .cache import Id, InstanceCache
from .fold import Context, Fold
from .lifecycle import needs_keys
from .log import Ownership
from .outlets import Outlets
from .platform import Platform
from .purge import Purger
from .reader import Frame, JournalReader
from .streams import Anchor, check_anchor, check_config, fingerprint
from .watch import Watch
from .workflows import WorkflowCache

log = logger("partition")

RETRY_SECONDS: Final = 0.5
RENEW_SECONDS: Final = 1.0

Records = list[WireRecord | Unreadable]


class PartitionLoop:
    """Runs for ever; stops with `JournalMismatch` when going on would lose records silently."""

    def __init__(self, platform: Platform, partition: int) -> None:
        self._platform = platform
        self._partition = partition
        self._stream = platform.subjects.journal_stream(partition)

    async def run(self) -> None:
        token = secrets.token_hex(16)
        while True:
            try:
                token = await self._tenure(token)
            except BaseExceptionGroup as group:
                token = self._after(_first(group), token)
            except (RuntaraError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as exc:
                token = self._after(exc, token)
            await asyncio.sleep(RETRY_SECONDS)

    def _after(self, error: BaseException, token: str) -> str:
        """Go on after a tenure that ended with `error`, as the same owner unless another one took over; or raise it."""
        if isinstance(error, (JournalMismatch, JournalLost)) or not isinstance(error, Exception):
            raise error
        if isinstance(error, PartitionLost):
            log.warning("partition_lost", partition=self._partition)
            return secrets.token_hex(16)
        if not isinstance(error, Unavailable) and not is_transient(error):
            log.error("tenure_failed", exc_info=error, partition=self._partition)
        else:
            log.info("tenure_ended", partition=self._partition, reason=str(error))
        return token

    async def _tenure(self, token: str) -> str:
        """From one take-over until something ends it; returns at once if another engine owns the partition.

        Returns the token to go on with: a new one after the partition was given back.
        """
        sharing = self._platform.sharing
        await self._platform.bus.wait_connected()
        async with self._platform.pool.acquire() as connection:
            if sharing.is_leaving:
                return token
            ownership = await event_log.take_over(connection, self._partition, token, patience=sharing.patience)
            if ownership is None:
                return token
            with sharing.owning(self._partition) as asked:
                await self._own(ownership, connection, asked)
            return secrets.token_hex(16)

    async def _own(self, ownership: Ownership, connection: PgConnection, asked: asyncio.Event) -> None:
        """Until we are `asked` to give the partition back, and have."""
        await event_log.bound_transactions(connection)
        try:
            info = await check_anchor(self._platform.bus, self._stream, ownership.anchor)
            check_config(info, self._platform.journal_config(self._partition))
            log.info("partition_taken", partition=self._partition, cursor=ownership.anchor.cursor)
            await Tenure(self._platform, ownership, connection, info.state.last_seq).run(asked)
            log.info("partition_given_back", partition=self._partition)
            await event_log.release(connection, self._partition, ownership.token)
        except (asyncio.CancelledError, JournalMismatch):  # this engine ends: nobody need wait for its lease
            await asyncio.shield(event_log.release(connection, self._partition, ownership.token))
            raise


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error of a task group that decides: what must stop the engine goes before what must not."""
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves.append(_first(error) if isinstance(error, BaseExceptionGroup) else error)
    fatal = [e for e in leaves if isinstance(e, (JournalMismatch, JournalLost))]
    lost = [e for e in leaves if isinstance(e, PartitionLost)]
    return (fatal or lost or leaves)[0]


class Tenure:
    """What an owner does between take-over and step-down. `until`: the journal's last sequence at take-over."""

    def __init__(self, platform: Platform, ownership: Ownership, connection: PgConnection, until: int) -> None:
        self._platform = platform
        self._ownership = ownership
        self._connection = connection
        self._until = until
        self._anchor = ownership.anchor
        self._position = ownership.position
        self._cache = InstanceCache()
        self._workflows = WorkflowCache(ownership.partition)
        self._outlets = Outlets(platform, ownership)
        self._caught_up = asyncio.Event()
        self._committing = asyncio.Lock()
        self._purger = Purger(
            platform.bus,
            platform.subjects.journal_stream(ownership.partition),
            keep_seconds=platform.settings.journal_keep_seconds,
            cursor=ownership.anchor.cursor,
        )

    async def run(self, asked: asyncio.Event) -> None:
        """Returns when it was `asked` to end, between two commits."""
        stream = self._platform.subjects.journal_stream(self._ownership.partition)
        async with JournalReader(self._platform.bus, stream, after=self._anchor.cursor) as reader:
            watch = Watch(self._platform, self._ownership, self._outlets, reader)
            self._outlets.watch = watch
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._fold_journal(reader, watch), name="fold"),
                    group.create_task(self._renew(), name="renew"),
                    group.create_task(self._outlets.run(self._caught_up), name="outlets"),
                    group.create_task(self._announce(watch), name="announce"),
                    group.create_task(self._purger.run(), name="purge"),
                ]
                await asked.wait()
                async with self._committing:  # from here on nothing more is committed
                    await self._outlets.settle()
                    for task in tasks:
                        task.cancel()

    async def _announce(self, watch: Watch) -> None:
        """Only when everything is folded that was there at take-over may this owner act by itself."""
        await self._caught_up.wait()
        record = Owner(instance="", token=self._ownership.token)
        subject = self._platform.subjects.engine(self._ownership.partition)
        while True:
            try:
                await self._platform.bus.publish_acked(subject, encode_frame([record]))
                break
            except (NotAcknowledged, PublishRefused) as exc:
                log.debug("owner_record_delayed", reason=str(exc))
                await asyncio.sleep(RETRY_SECONDS)
        await watch.run()

    async def _renew(self) -> None:
        """Through a connection of its own: a long commit must not cost us the lease it renews itself.

        Not while we cannot reach NATS: another engine may.
        """
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            if not self._platform.bus.is_connected:
                continue
            async with self._platform.pool.acquire() as connection:
                await event_log.renew(connection, self._ownership.partition, self._ownership.token)
            self._outlets.committed(self._anchor)

    async def _fold_journal(self, reader: JournalReader, watch: Watch) -> None:
        if self._anchor.cursor >= self._until:
            self._caught_up.set()
        while True:
            frames = await reader.next_batch()
            watch.clock_seen(frames[-1].time_us)
            async with self._committing:
                await self._commit(frames)
            if self._anchor.cursor >= self._until:
                self._caught_up.set()

    async def _commit(self, frames: Sequence[Frame]) -> None:
        """Fold and commit; on an error of the batch's own making, halve it until the culprit stands alone."""
        fold = await self._fold(frames)
        last = frames[-1]
        anchor = Anchor(
            created=self._anchor.created, cursor=last.sequence, fingerprint=fingerprint(last.data, last.time_us)
        )
        try:
            await event_log.commit(self._connection, self._ownership, fold, before=self._anchor, after=anchor)
        except PartitionLost:
            raise
        except Exception as exc:
            if is_transient(exc) or self._connection.is_closed():
                raise
            self._forget(fold)
            await self._commit_halves(frames, exc)
            return
        self._anchor, self._position = anchor, fold.position
        self._keep(fold)
        self._outlets.let_out(fold, anchor)
        self._purger.advanced(anchor.cursor, sum(len(frame.data) for frame in frames))

    async def _commit_halves(self, frames: Sequence[Frame], error: Exception) -> None:
        if len(frames) > 1:
            middle = len(frames) // 2
            await self._commit(frames[:middle])
            await self._commit(frames[middle:])
            return
        [frame] = frames
        if not frame.records:
            raise error
        log.error("frame_not_committed", exc_info=error, sequence=frame.sequence)
        await self._commit([await self._without_culprits(frame)])

    async def _without_culprits(self, frame: Frame) -> Frame:
        """The frame with each record that cannot be committed replaced by its rejection, and by what ends its attempt.

        A record is tried behind the ones before it: alone, a report would be a gap, which is another decision.
        """
        kept: Records = []
        rest, rejections = list(frame.records), list(frame.rejections)
        while (error := await self._trial(frame, kept + rest)) is not None:
            if not rest:  # without any of its records' own doing
                reason = f"it could not be committed: {error}"
                return msgspec.structs.replace(
                    frame, records=[], rejections=[Rejection(reason=reason, payload=frame.data)]
                )
            good, error = await self._first_culprit(frame, kept, rest, error)
            culprit = rest[good]
            reason = f"it could not be committed: {error}"
            rejections.append(Rejection(reason=reason, payload=encode_frame([culprit])))
            kept += rest[:good]
            if isinstance(culprit, Report):
                claim = {field: getattr(culprit, field) for field in ("instance", "attempt", "nonce", "seq")}
                kept.append(Unreadable(**claim, reason="its record could not be committed"))
            rest = rest[good + 1 :]
        return msgspec.structs.replace(frame, records=kept + rest, rejections=rejections)

    async def _first_culprit(
        self, frame: Frame, kept: Records, rest: Records, error: Exception
    ) -> tuple[int, Exception]:
        """How many of `rest` can be committed behind `kept`, and why one more cannot; found by halving."""
        good, bad = 0, len(rest)
        while bad - good > 1:
            middle = (good + bad) // 2
            found = await self._trial(frame, kept + rest[:middle])
            if found is None:
                good = middle
            else:
                bad, error = middle, found
        return good, error

    async def _trial(self, frame: Frame, records: Records) -> Exception | None:
        """Whether a frame of these records could be committed, found out by writing it and rolling back."""
        fold = await self._fold([msgspec.structs.replace(frame, records=records, rejections=[])])
        self._forget(fold)
        try:
            await event_log.try_commit(self._connection, self._ownership, fold, before=self._anchor)
        except PartitionLost:
            raise
        except Exception as exc:
            if is_transient(exc) or self._connection.is_closed():
                raise
            return exc
        return None

    async def _fold(self, frames: Sequence[Frame]) -> Fold:
        ids, commands, tenants = _mentioned(frames, self._platform)
        rows = await self._rows(ids)
        context = Context(
            partition=self._ownership.partition,
            partitions=self._platform.partitions,
            subjects=self._platform.subjects,
            repeated=await event_log.repeated_commands(
                self._connection, [command for command in commands if command[:2] in rows]
            ),
            workflows=await self._workflows.of(self._connection, tenants) if tenants else {},
        )
        fold = Fold(self._position, rows, context)
        for frame in frames:
            fold.frame(frame)
        return fold

    async def _rows(self, ids: set[Id]) -> dict[Id, InstanceRow]:
        rows: dict[Id, InstanceRow] = {}
        missing: list[Id] = []
        for id in ids:
            row = self._cache.get(id)
            if row is not None:
                rows[id] = row
            else:
                missing.append(id)
        for row in await event_log.load_rows(self._connection, missing):
            rows[row.tenant, row.instance] = row
        return rows

    def _keep(self, fold: Fold) -> None:
        for row in fold.changed.values():
            if row.state.status.is_terminal or needs_keys(row.state):  # after a retry its keys are read again
                self._cache.discard((row.tenant, row.instance))
            else:
                self._cache.put(row)
        self._workflows.committed(fold.workflows.changes)

    def _forget(self, fold: Fold) -> None:
        self._workflows.forget(fold.workflows.changes)
        for id in fold.before:
            self._cache.discard(id)


def _mentioned(frames: Sequence[Frame], platform: Platform) -> tuple[set[Id], list[tuple[str, str, str]], set[str]]:
    """The instances and commands that a batch speaks of, and the tenants that start something: what has to be read
    before it is folded."""
    ids: set[Id] = set()
    commands: list[tuple[str, str, str]] = []
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
                if isinstance(record, Start):
                    tenants.add(tenant)
    return ids, commands, tenants
