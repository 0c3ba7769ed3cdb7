"""What the API answers about schedules.

Any engine answers: it reads and writes the table, and whoever owns a schedule's partition sees it within a second.

Invariants: nothing is stored that no engine could carry out; the same definition again changes nothing; a change that
meets another one is made again on what that left; times are those of the schedule's journal.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from runtara.infra.bus import NotAcknowledged, PublishRefused
from runtara.infra.logs import logger
from runtara.protocol.configuration import (
    ScheduleCreateRequest,
    ScheduleDefinition,
    ScheduledInstance,
    ScheduleListReply,
    ScheduleListRequest,
    ScheduleRequest,
    ScheduleView,
)
from runtara.protocol.errors import (
    InvalidSchedule,
    NotConfirmed,
    PlatformUnreachable,
    Refused,
    ScheduleConflict,
    ScheduleNotFound,
    StateTooLarge,
)
from runtara.protocol.frames import decode_frame, encode_frame
from runtara.protocol.ids import check_id, new_token, partition_of
from runtara.protocol.limits import MAX_RECORD_VALUE_BYTES, MAX_SCHEDULE_NAME_LENGTH
from runtara.protocol.subjects import Channel, Source

from . import schedules
from .cadence import SECOND_US, precise_stamp, upcoming
from .lifecycle import decide
from .platform import Platform
from .queries import MAX_PAGE
from .scheduler import send
from .schedules import LABEL, Schedule
from .streams import stream_info

log = logger("api")

TRIES: Final = 5  # of a change that met another one
CONFIRM_SECONDS: Final = 4.0  # whoever triggers waits for five, and shall hear what became of it
CONFIRM_PAUSE_SECONDS: Final = 0.02
SHOWN_UPCOMING: Final = 5
SHOWN_INSTANCES: Final = 10

Verb = Callable[[str, str | None, bytes], Awaitable[object]]


class ScheduleVerbs:
    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._pool = platform.pool

    def verbs(self) -> dict[str, Verb]:
        return {
            "schedule_create": self._create,
            "schedule_list": self._list,
            "schedule_get": self._get,
            "schedule_pause": self._pause,
            "schedule_resume": self._resume,
            "schedule_trigger": self._trigger,
            "schedule_delete": self._delete,
        }

    async def _create(self, tenant: str, instance: str | None, data: bytes) -> ScheduleView:
        request = msgspec.json.decode(data, type=ScheduleCreateRequest)
        new = await self._checked(tenant, request)
        await self._platform.registry.check_known(tenant, new.workflow)
        partition = partition_of(tenant, new.name, self._platform.partitions)
        for _ in range(TRIES):
            old = await schedules.load(self._pool, tenant, new.name)
            if old is None:
                if await schedules.insert(self._pool, partition, new):
                    return await self._view(replace(new, created_at=new.updated_at, created_by=new.updated_by))
                continue
            different = _different(old, new)
            if not different:
                return await self._view(old)
            if not request.replace:
                raise ScheduleConflict(schedule=new.name, different=_listed(different))
            if await schedules.replace(self._pool, old, self._replacement(old, new)):
                return await self._view(await self._load(tenant, new.name))
        raise _busy(new.name)

    async def _checked(self, tenant: str, request: ScheduleCreateRequest) -> Schedule:
        """The schedule that is asked for. Raises what is wrong with it."""
        wanted, actor = request.schedule, _actor(request.actor)
        _check_names(wanted)
        if wanted.catch_up == "all" and wanted.overlap == "skip":
            reason = "catch-up all starts what was missed side by side, so it needs overlap allow"
            raise InvalidSchedule(schedule=wanted.name, reason=reason)
        now = await self._now(tenant, wanted.name)
        new = Schedule(
            tenant=tenant, name=wanted.name, workflow=wanted.workflow, cron=wanted.cron, every=wanted.every_us,
            anchor=-(-now // SECOND_US) * SECOND_US, timezone=wanted.timezone, input=Raw(bytes(wanted.input)),
            input_blob=wanted.blob, labels=wanted.labels, overlap=wanted.overlap, catch_up=wanted.catch_up,
            paused=request.paused, revision=new_token(), next_due=0, updated_at=now, updated_by=actor,
        )  # fmt: skip
        if new.cron is not None:
            new = replace(new, cron=" ".join(new.cron.split()))
        new = replace(new, next_due=new.cadence.next_after(now))
        _check_start(new)
        return new

    def _replacement(self, old: Schedule, new: Schedule) -> Schedule:
        """An interval that stays the same goes on from where it began; what is paused stays so."""
        if new.every is not None and new.every == old.every:
            new = replace(new, anchor=old.anchor)
        return replace(new, paused=new.paused or old.paused, next_due=new.cadence.next_after(new.updated_at))

    async def _list(self, tenant: str, instance: str | None, data: bytes) -> ScheduleListReply:
        request = msgspec.json.decode(data or b"{}", type=ScheduleListRequest)
        limit = max(1, min(request.limit, MAX_PAGE))
        labels = msgspec.json.encode(request.labels) if request.labels else None
        after = check_id(request.cursor, "cursor") if request.cursor is not None else ""
        rows = await self._pool.fetch(
            schedules.PAGE, tenant, after, request.workflow, request.paused, labels, limit + 1
        )
        page = [schedules.schedule_of(row) for row in rows[:limit]]
        lasts = await schedules.last_instances(self._pool, page, 1)
        views = [_view(schedule, last) for schedule, last in zip(page, lasts, strict=True)]
        return ScheduleListReply(schedules=views, next=page[-1].name if len(rows) > limit else None)

    async def _get(self, tenant: str, instance: str | None, data: bytes) -> ScheduleView:
        return await self._view(await self._load(tenant, _asked(data).name))

    async def _pause(self, tenant: str, instance: str | None, data: bytes) -> ScheduleView:
        return await self._set_paused(tenant, _asked(data), paused=True)

    async def _resume(self, tenant: str, instance: str | None, data: bytes) -> ScheduleView:
        return await self._set_paused(tenant, _asked(data), paused=False)

    async def _set_paused(self, tenant: str, asked: ScheduleRequest, *, paused: bool) -> ScheduleView:
        """What was due while it was paused is not made up for."""
        for _ in range(TRIES):
            old = await self._load(tenant, asked.name)
            if old.paused == paused:
                return await self._view(old)
            now = await self._now(tenant, old.name)
            new = replace(
                old, paused=paused, revision=new_token(), updated_at=now, updated_by=_actor(asked.actor),
                next_due=old.next_due if paused else old.cadence.next_after(now),
            )  # fmt: skip
            if await schedules.set_paused(self._pool, old, new):
                return await self._view(new)
        raise _busy(asked.name)

    async def _trigger(self, tenant: str, instance: str | None, data: bytes) -> str:
        """Start one now; its id, once the log has it. Also while it is paused, and whatever still runs."""
        asked = _asked(data)
        schedule = await self._load(tenant, asked.name)
        await self._platform.registry.check_known(tenant, schedule.workflow)
        id = f"{schedule.name}-manual-{precise_stamp(await self._now(tenant, schedule.name))}"
        try:
            await send(self._platform, schedule, id, _actor(asked.actor))
        except (NotAcknowledged, PublishRefused) as exc:
            raise PlatformUnreachable(
                reason=f"the journal did not take the start of {id}, which may come later ({exc.reason})"
            ) from exc
        await schedules.remember(self._pool, schedule, [id])
        log.info("schedule_triggered", tenant=tenant, schedule=schedule.name, instance=id)
        await self._confirm(schedule, id)
        return id

    async def _confirm(self, schedule: Schedule, instance: str) -> None:
        deadline = time.monotonic() + CONFIRM_SECONDS
        while (outcome := await schedules.outcome_of(self._pool, schedule, instance)) is None:
            if time.monotonic() > deadline:
                raise NotConfirmed(instance=instance)
            await asyncio.sleep(CONFIRM_PAUSE_SECONDS)
        await schedules.settle(self._pool, outcome, await self._now(schedule.tenant, schedule.name))
        if outcome.problem is not None:
            raise Refused(reason=outcome.problem)

    async def _delete(self, tenant: str, instance: str | None, data: bytes) -> bool:
        name = _asked(data).name
        if not await schedules.delete(self._pool, tenant, name):
            raise ScheduleNotFound(schedule=name, tenant=tenant)
        log.info("schedule_deleted", tenant=tenant, schedule=name, actor=_asked(data).actor)
        return True

    async def _load(self, tenant: str, name: str) -> Schedule:
        found = await schedules.load(self._pool, tenant, name)
        if found is None:
            raise ScheduleNotFound(schedule=name, tenant=tenant)
        return found

    async def _now(self, tenant: str, name: str) -> int:
        """What the clock of the schedule's journal shows: its server is asked, since our own may be wrong."""
        partition = partition_of(tenant, name, self._platform.partitions)
        stream = self._platform.subjects.journal_stream(partition)
        info = await stream_info(self._platform.bus, stream)
        if info is None:
            raise PlatformUnreachable(reason=f"the journal {stream} is missing")
        seen: int = await self._pool.fetchval("SELECT clock FROM partitions WHERE id = $1", partition)
        return max(info.now_us, seen)

    async def _view(self, schedule: Schedule) -> ScheduleView:
        (last,) = await schedules.last_instances(self._pool, [schedule], SHOWN_INSTANCES)
        return replace(_view(schedule, last), upcoming=_upcoming(schedule, SHOWN_UPCOMING))


def _view(schedule: Schedule, last: list[ScheduledInstance]) -> ScheduleView:
    return ScheduleView(
        schedule=schedule.definition,
        paused=schedule.paused,
        next_due_us=None if schedule.paused else schedule.next_due,
        upcoming=[],
        last=last,
        problem=schedule.problem,
        problem_at=schedule.problem_at,
        created_at=schedule.created_at,
        created_by=schedule.created_by,
        updated_at=schedule.updated_at,
        updated_by=schedule.updated_by,
    )


def _upcoming(schedule: Schedule, count: int) -> list[int]:
    if schedule.paused:
        return []
    try:
        return upcoming(schedule.cadence, schedule.next_due, count)
    except InvalidSchedule:  # this engine does not know its zone
        return [schedule.next_due]


def _check_names(wanted: ScheduleDefinition) -> None:
    check_id(wanted.name, "schedule")
    check_id(wanted.workflow, "workflow")
    if len(wanted.name) > MAX_SCHEDULE_NAME_LENGTH:
        reason = f"its name has {len(wanted.name)} characters; ids of instances leave {MAX_SCHEDULE_NAME_LENGTH} for it"
        raise InvalidSchedule(schedule=wanted.name, reason=reason)
    if LABEL in wanted.labels:
        raise InvalidSchedule(
            schedule=wanted.name, reason=f"the label {LABEL!r} is its own: it has the schedule's name"
        )


def _check_start(new: Schedule) -> None:
    """What an engine would not read, or would refuse, is refused here, where somebody waits for the answer."""
    if len(new.input) > MAX_RECORD_VALUE_BYTES:
        raise StateTooLarge(key="input", size=len(new.input), limit=MAX_RECORD_VALUE_BYTES)
    start = new.start(new.instance(new.next_due))
    _, rejections = decode_frame(encode_frame([start]))
    if rejections:
        raise InvalidSchedule(schedule=new.name, reason=rejections[0].reason)
    decision = decide(None, start, new.updated_at, source=Source(Channel.ENGINE, 0))
    if decision.error is not None:
        raise decision.error
    if new.input_blob is None and not isinstance(msgspec.json.decode(new.input), dict):
        raise InvalidSchedule(schedule=new.name, reason="the input is not one JSON object with the parameters by name")


def _different(old: Schedule, new: Schedule) -> list[str]:
    """What people call the parts of the definition that are not the same."""
    names = {
        "workflow": "workflow", "cron": "cron expression", "every": "interval", "timezone": "time zone",
        "labels": "labels", "overlap": "overlap", "catch_up": "catch-up",
    }  # fmt: skip
    found = [name for field, name in names.items() if getattr(old, field) != getattr(new, field)]
    is_same_text = msgspec.json.decode(old.input) == msgspec.json.decode(new.input)
    is_same_input = is_same_text and old.input_blob == new.input_blob
    return found if is_same_input else [*found, "input"]


def _listed(names: list[str]) -> str:
    *others, last = names
    return f"another {', '.join(others)} and {last}" if others else f"another {last}"


def _asked(data: bytes) -> ScheduleRequest:
    request = msgspec.json.decode(data, type=ScheduleRequest)
    check_id(request.name, "schedule")
    return request


def _actor(actor: str | None) -> str | None:
    return check_id(actor, "actor") if actor is not None else None


def _busy(name: str) -> Refused:
    return Refused(reason=f"schedule {name} is being changed by others; try again")
