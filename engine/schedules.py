"""The table `schedules`: what a schedule is, what it starts, and what became of that.

A start of a schedule is a `start` record on the engine's subject of the instance's partition. Its instance's id comes
from the schedule's name and the due time, its command's id from the instance's, so the same due time gives the same
record, whoever sends it and however often. It goes into the journal first and into `sent` after that; once the log (or
`rejected`) shows what became of it, it moves to `recent`, or a problem is noted.

Invariants: `next_due` moves only from the due time that was acted on, under the definition that was acted on
(`revision`); so a row that somebody changed meanwhile is looked at again, and no due time is passed over. The table is
configuration, as registrations are: no log has it, nothing derives it, and no retention touches it.
"""

import time
from collections.abc import Sequence
from typing import Final, Literal

import asyncpg
import msgspec
from msgspec import Raw

from runtara.infra.postgres import Pool
from runtara.protocol.blobs import Blob
from runtara.protocol.configuration import ScheduleDefinition, ScheduledInstance
from runtara.protocol.ids import derived_name
from runtara.protocol.limits import SCHEDULE_RECENT
from runtara.protocol.messages import Status
from runtara.protocol.records import Start

from .blob_store import LET_GO
from .cadence import Cadence, cadence, stamp

LABEL: Final = "schedule"  # of every instance that one starts; its value is the schedule's name

_COLUMNS: Final = """tenant, name, workflow, cron, every, anchor, timezone, input, input_blob, labels, overlap,
    catch_up, paused, revision, next_due, sent, recent, problem, problem_at, created_at, created_by, updated_at,
    updated_by"""
_OF: Final = f"SELECT {_COLUMNS} FROM schedules WHERE tenant = $1 AND name = $2"
# Without inputs: a thousand of them may be larger than any answer.
PAGE: Final = f"""
SELECT {_COLUMNS.replace(" input,", " 'null'::json AS input,")} FROM schedules
WHERE tenant = $1 AND name > $2 AND ($3::text IS NULL OR workflow = $3) AND ($4::bool IS NULL OR paused = $4)
    AND ($5::jsonb IS NULL OR labels @> $5)
ORDER BY name LIMIT $6
"""
_INSERT: Final = f"""
INSERT INTO schedules (partition, {_COLUMNS})
VALUES (
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, '{{}}', '{{}}', NULL, NULL,
    $17, $18, $17, $18
)
ON CONFLICT DO NOTHING
"""
_REPLACE: Final = """
UPDATE schedules SET workflow = $4, cron = $5, every = $6, anchor = $7, timezone = $8, input = $9, input_blob = $10,
    labels = $11, overlap = $12, catch_up = $13, paused = $14, revision = $15, next_due = $16, updated_at = $17,
    updated_by = $18
WHERE tenant = $1 AND name = $2 AND revision = $3
"""
_PAUSE: Final = """
UPDATE schedules SET paused = $4, revision = $5, next_due = $6, updated_at = $7, updated_by = $8
WHERE tenant = $1 AND name = $2 AND revision = $3
"""
_DELETE: Final = "DELETE FROM schedules WHERE tenant = $1 AND name = $2 RETURNING name"

DUE: Final = """
SELECT tenant, name FROM schedules WHERE partition = $1 AND NOT paused AND next_due <= $2 ORDER BY next_due LIMIT $3
"""
SOONEST: Final = """
SELECT next_due FROM schedules WHERE partition = $1 AND NOT paused AND next_due > $2 ORDER BY next_due LIMIT 1
"""
# What is known already is not remembered twice: another engine may have sent the same.
_SENT: Final = """sent || ARRAY(
        SELECT new.instance FROM unnest({new}::text[]) WITH ORDINALITY AS new (instance, n)
        WHERE new.instance <> ALL(sent || recent) ORDER BY new.n
    )"""
_ADVANCE: Final = f"""
UPDATE schedules SET next_due = $5, sent = {_SENT.format(new="$6")},
    problem = coalesce($7, problem), problem_at = CASE WHEN $7::text IS NULL THEN problem_at ELSE $8::bigint END
WHERE tenant = $1 AND name = $2 AND revision = $3 AND next_due = $4 RETURNING name
"""
_REMEMBER: Final = f"UPDATE schedules SET sent = {_SENT.format(new='$3')} WHERE tenant = $1 AND name = $2"

_OUTCOME: Final = """
SELECT asked.tenant, asked.name, asked.instance, e.command, r.archive, (
    SELECT j.reason FROM rejected j
    WHERE j.tenant = asked.tenant AND j.instance = asked.instance AND j.subject LIKE '%.engine.%'
    ORDER BY j.id DESC LIMIT 1
) AS reason
FROM {asked} AS asked
LEFT JOIN events e ON e.tenant = asked.tenant AND e.instance = asked.instance AND e.version = 1
LEFT JOIN retired r ON r.tenant = asked.tenant AND r.instance = asked.instance
ORDER BY asked.n
"""
UNSETTLED: Final = _OUTCOME.format(
    asked="""(
        SELECT s.tenant, s.name, u.instance, u.n
        FROM schedules s CROSS JOIN unnest(s.sent) WITH ORDINALITY AS u (instance, n)
        WHERE s.partition = $1 AND s.sent <> '{}' LIMIT $2
    )"""
)
_OUTCOME_OF: Final = _OUTCOME.format(
    asked="(SELECT $1::text AS tenant, $2::text AS name, $3::text AS instance, 1 AS n)"
)
_SETTLE: Final = """
UPDATE schedules SET sent = array_remove(sent, $3),
    recent = CASE WHEN $4::text IS NULL THEN (recent || $3)[greatest(cardinality(recent) + 2 - $6, 1):] ELSE recent END,
    problem = coalesce($4, problem), problem_at = CASE WHEN $4 IS NULL THEN problem_at ELSE $5::bigint END
WHERE tenant = $1 AND name = $2 AND $3 = ANY(sent)
"""
UNENDED: Final = """
SELECT i.instance, i.status FROM instances i
JOIN unnest($1::text[], $2::text[]) AS asked (tenant, instance) USING (tenant, instance)
WHERE i.status <> ALL($3::text[]) ORDER BY i.created_at DESC LIMIT 1
"""
_STATUSES: Final = """
SELECT asked.instance, i.status FROM unnest($1::text[], $2::text[]) AS asked (tenant, instance)
LEFT JOIN instances i USING (tenant, instance)
"""
_ENDED: Final = [status.value for status in Status if status.is_terminal]


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A row. `every` and all times in microseconds."""

    tenant: str
    name: str
    workflow: str
    cron: str | None
    every: int | None
    anchor: int
    timezone: str
    input: Raw
    input_blob: Blob | None = None
    labels: dict[str, str]
    overlap: Literal["skip", "allow"]
    catch_up: Literal["last", "all", "none"]
    paused: bool
    revision: str
    next_due: int
    sent: list[str] = []
    recent: list[str] = []
    problem: str | None = None
    problem_at: int | None = None
    created_at: int = 0
    created_by: str | None = None
    updated_at: int = 0
    updated_by: str | None = None

    @property
    def cadence(self) -> Cadence:
        """Raises `InvalidSchedule` where this engine does not know its time zone, say."""
        return cadence(self.name, cron=self.cron, every_us=self.every, anchor=self.anchor, timezone=self.timezone)

    @property
    def definition(self) -> ScheduleDefinition:
        return ScheduleDefinition(
            name=self.name, workflow=self.workflow, cron=self.cron, every_us=self.every, timezone=self.timezone,
            input=self.input, blob=self.input_blob, labels=self.labels, overlap=self.overlap, catch_up=self.catch_up,
        )  # fmt: skip

    def instance(self, due: int) -> str:
        """The id of what is started then."""
        return f"{self.name}-{stamp(due)}"

    def start(self, instance: str, actor: str | None = None) -> Start:
        """The record that starts `instance`; the same for the same instance."""
        return Start(
            instance=instance,
            id=command_id(self.tenant, self.name, instance),
            actor=actor,
            tenant=self.tenant,
            workflow=self.workflow,
            input=self.input,
            blob=self.input_blob,
            labels={**self.labels, LABEL: self.name},
            schedule=self.name,
        )


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a start: there is the instance, or a `problem`."""

    tenant: str
    name: str
    instance: str
    problem: str | None


def command_id(tenant: str, schedule: str, instance: str) -> str:
    return derived_name("schedule", tenant, schedule, instance)


async def load(pool: "Pool[asyncpg.Record]", tenant: str, name: str) -> Schedule | None:
    row = await pool.fetchrow(_OF, tenant, name)
    return schedule_of(row) if row is not None else None


def schedule_of(row: asyncpg.Record) -> Schedule:
    fields = dict(row)
    fields["input"] = Raw(fields["input"])
    blob = fields["input_blob"]
    fields["input_blob"] = msgspec.json.decode(blob, type=Blob) if blob is not None else None
    fields["labels"] = msgspec.json.decode(fields["labels"], type=dict[str, str])
    return Schedule(**fields)


def _definition_columns(new: Schedule) -> tuple[object, ...]:
    return (
        new.workflow, new.cron, new.every, new.anchor, new.timezone, bytes(new.input),
        msgspec.json.encode(new.input_blob) if new.input_blob is not None else None, msgspec.json.encode(new.labels),
        new.overlap, new.catch_up, new.paused, new.revision, new.next_due,
    )  # fmt: skip


async def insert(pool: "Pool[asyncpg.Record]", partition: int, new: Schedule) -> bool:
    """False if there is one of that name."""
    columns = (partition, new.tenant, new.name, *_definition_columns(new), new.updated_at, new.updated_by)
    return (await pool.execute(_INSERT, *columns)).endswith(" 1")


async def replace(pool: "Pool[asyncpg.Record]", old: Schedule, new: Schedule) -> bool:
    """False if `old` is no longer what is there."""
    columns = (old.tenant, old.name, old.revision, *_definition_columns(new), new.updated_at, new.updated_by)
    await _let_go(pool, old)
    return (await pool.execute(_REPLACE, *columns)).endswith(" 1")


async def set_paused(pool: "Pool[asyncpg.Record]", old: Schedule, new: Schedule) -> bool:
    """False if `old` is no longer what is there."""
    columns = (new.paused, new.revision, new.next_due, new.updated_at, new.updated_by)
    return (await pool.execute(_PAUSE, old.tenant, old.name, old.revision, *columns)).endswith(" 1")


async def delete(pool: "Pool[asyncpg.Record]", tenant: str, name: str) -> bool:
    old = await load(pool, tenant, name)
    if old is not None:
        await _let_go(pool, old)
    return await pool.fetchval(_DELETE, tenant, name) is not None


async def _let_go(pool: "Pool[asyncpg.Record]", old: Schedule) -> None:
    """Its input may soon be nobody's."""
    if old.input_blob is not None:
        await pool.execute(LET_GO, old.tenant, [old.input_blob.hash], time.time_ns() // 1_000)


async def advance(
    pool: "Pool[asyncpg.Record]", old: Schedule, *, next_due: int, sent: Sequence[str], problem: str | None, now: int
) -> None:
    """What was due is done. Where somebody has changed the schedule meanwhile, only what was sent is kept in mind."""
    moved = await pool.fetchval(
        _ADVANCE, old.tenant, old.name, old.revision, old.next_due, next_due, list(sent), problem, now
    )
    if moved is None and sent:
        await remember(pool, old, sent)


async def remember(pool: "Pool[asyncpg.Record]", of: Schedule, sent: Sequence[str]) -> None:
    """These are in the journal."""
    await pool.execute(_REMEMBER, of.tenant, of.name, list(sent))


async def outcomes(
    pool: "Pool[asyncpg.Record]", partition: int, limit: int
) -> tuple[list[Outcome], list[tuple[tuple[str, str], str]]]:
    """What became of starts that nobody has looked after yet; and those (schedule, instance) still on their way."""
    rows = await pool.fetch(UNSETTLED, partition, limit)
    found = [_outcome(row) for row in rows]
    waiting = [
        ((row["tenant"], row["name"]), row["instance"])
        for row, outcome in zip(rows, found, strict=True)
        if outcome is None
    ]
    return [outcome for outcome in found if outcome is not None], waiting


async def outcome_of(pool: "Pool[asyncpg.Record]", schedule: Schedule, instance: str) -> Outcome | None:
    """None while it is on its way."""
    (row,) = await pool.fetch(_OUTCOME_OF, schedule.tenant, schedule.name, instance)
    return _outcome(row)


def _outcome(row: asyncpg.Record) -> Outcome | None:
    tenant, name, instance = row["tenant"], row["name"], row["instance"]
    if row["command"] == command_id(tenant, name, instance):
        problem = None
    elif row["command"] is not None:
        problem = f"{instance} exists already, and this schedule has not started it"
    elif row["archive"] is not None:
        problem = f"{instance} was there before, and is in the archive {row['archive']}"
    elif row["reason"] is not None:
        problem = f"{instance} was refused: {row['reason']}"
    else:
        return None
    return Outcome(tenant=tenant, name=name, instance=instance, problem=problem)


async def settle(pool: "Pool[asyncpg.Record]", outcome: Outcome, now: int) -> None:
    await pool.execute(_SETTLE, outcome.tenant, outcome.name, outcome.instance, outcome.problem, now, SCHEDULE_RECENT)


async def unended(pool: "Pool[asyncpg.Record]", schedule: Schedule) -> str | None:
    """An instance that it started and that has not ended: why the next one must wait; None if there is none."""
    if schedule.sent:
        return f"{schedule.sent[-1]} has not been folded yet"
    row = await pool.fetchrow(UNENDED, [schedule.tenant] * len(schedule.recent), schedule.recent, _ENDED)
    return f"{row['instance']} is {row['status']}" if row is not None else None


async def last_instances(
    pool: "Pool[asyncpg.Record]", page: Sequence[Schedule], count: int
) -> list[list[ScheduledInstance]]:
    """Of each of these, the latest first."""
    asked = [(schedule.tenant, id) for schedule in page for id in schedule.recent[-count:]]
    rows = await pool.fetch(_STATUSES, [tenant for tenant, _ in asked], [id for _, id in asked])
    found = {
        row["instance"]: ScheduledInstance(id=row["instance"], status=Status(row["status"]) if row["status"] else None)
        for row in rows
    }
    return [[found[id] for id in reversed(schedule.recent[-count:])] for schedule in page]
