"""When a schedule is due: pure functions of its definition and a time; nothing here knows what time it is.

Cron expressions are read by cronsim in the schedule's zone, and when clocks are changed as Debian's cron reads them:
what is due at set times and falls into the hour that is left out is due right after it, in the hour that comes twice
once; what has `*` (or `*/n`) as its minute or hour goes by what the clock on the wall shows, through both of these
hours. Six fields are not taken: cronsim leaves that care out for them, and intervals below a minute are what `every`
is for. An interval counts from its anchor in elapsed time, whatever clocks on the wall do.

Invariants: `next_after(t)` is later than t; it is the same for all t between two due times, so what was due is found
again from any moment and none is skipped. Times are integer microseconds since 1970, due times are whole seconds.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from difflib import get_close_matches
from typing import Final, Literal, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import msgspec
from cronsim import CronSim, CronSimError

from runtara.protocol.errors import InvalidSchedule
from runtara.protocol.limits import MAX_CATCH_UP, MAX_CRON_LENGTH, MAX_EVERY_SECONDS, MIN_EVERY_SECONDS

SECOND_US: Final = 1_000_000
LATE_SECONDS: Final = 10  # what is later was missed: longer than it takes another engine to take over
FIELDS: Final = ("minute", "hour", "day-of-month", "month", "day-of-week")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_LONGEST_YEARS: Final = 50  # for which cronsim looks

CatchUp = Literal["last", "all", "none"]


class Cadence(Protocol):
    def next_after(self, at_us: int) -> int:
        """The first due time behind `at_us`."""
        ...

    def latest(self, first: int, until: int) -> int:
        """The last due time up to `until`, where `first` is one."""
        ...


class Every(msgspec.Struct, frozen=True):
    every_us: int
    anchor: int

    def next_after(self, at_us: int) -> int:
        return self.anchor + max((at_us - self.anchor) // self.every_us + 1, 1) * self.every_us

    def latest(self, first: int, until: int) -> int:
        return max(first, self.next_after(until) - self.every_us)


class Cron(msgspec.Struct, frozen=True):
    """Of an expression that `cadence` has checked."""

    schedule: str
    expression: str
    zone: tzinfo

    def next_after(self, at_us: int) -> int:
        for moment in CronSim(self.expression, (_EPOCH + at_us * _MICROSECOND).astimezone(self.zone)):
            due = (moment - _EPOCH) // _MICROSECOND
            if due > at_us:  # in the second of two equal hours cronsim begins with times of the first
                return due
        raise _fault(self.schedule, f"{self.expression!r} is not due once in {_LONGEST_YEARS} years")

    def latest(self, first: int, until: int) -> int:
        known, late = first // SECOND_US, until // SECOND_US + 1
        while late - known > 1:
            middle = (known + late) // 2
            found = self.next_after(middle * SECOND_US)
            if found > until:
                late = middle
            else:
                known, first = middle, found
        return first


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to make of being due: `starts` are due times; `note` says what was missed and is not made up for."""

    starts: list[int]
    next_due: int
    note: str | None = None


def cadence(schedule: str, *, cron: str | None, every_us: int | None, anchor: int, timezone: str) -> Cadence:
    """Raises `InvalidSchedule`, saying what is wrong with it."""
    if (cron is None) == (every_us is None):
        raise _fault(schedule, "give either a cron expression or an interval (--cron or --every)")
    zone = _zone(schedule, timezone)
    if cron is not None:
        found = Cron(schedule, " ".join(cron.split()), zone)
        _check_expression(schedule, cron)
        found.next_after(0)
        return found
    assert every_us is not None
    if every_us % SECOND_US or not MIN_EVERY_SECONDS * SECOND_US <= every_us <= MAX_EVERY_SECONDS * SECOND_US:
        limits = f"from {MIN_EVERY_SECONDS} second to {MAX_EVERY_SECONDS // 86_400:,} days"
        raise _fault(schedule, f"the interval is not in whole seconds, {limits}")
    if timezone != "UTC":
        raise _fault(schedule, "an interval is elapsed time and has no time zone; use --cron for times of day")
    return Every(every_us, anchor)


def plan(cadence: Cadence, due: int, now: int, catch_up: CatchUp) -> Plan:
    """For what is `due` at or before `now`."""
    next_due = cadence.next_after(now)
    if catch_up == "all":
        starts = list(_due(cadence, due, now))
        beyond = cadence.next_after(starts[-1])
        note = f"more than {MAX_CATCH_UP:,} starts were missed: those from {stamp(beyond)} on were skipped"
        return Plan(starts=starts, next_due=next_due, note=note if beyond <= now else None)
    latest = cadence.latest(due, now)
    if catch_up == "none" and now - latest > LATE_SECONDS * SECOND_US:
        since = f" (and others since {stamp(due)})" if due != latest else ""
        return Plan(starts=[], next_due=next_due, note=f"missed at {stamp(latest)}{since}: no engine ran")
    return Plan(starts=[latest], next_due=next_due)


def _due(cadence: Cadence, due: int, now: int) -> Iterator[int]:
    for _ in range(MAX_CATCH_UP):
        yield due
        due = cadence.next_after(due)
        if due > now:
            return


def upcoming(cadence: Cadence, first: int, count: int) -> list[int]:
    """`first`, which is due, and the times behind it."""
    found = [first]
    while len(found) < count:
        found.append(cadence.next_after(found[-1]))
    return found


def stamp(at_us: int) -> str:
    """`20261122T030000Z`: a due time as part of an id."""
    return (_EPOCH + at_us * _MICROSECOND).strftime("%Y%m%dT%H%M%SZ")


def precise_stamp(at_us: int) -> str:
    """The same with microseconds, for what people start by hand."""
    return (_EPOCH + at_us * _MICROSECOND).strftime("%Y%m%dT%H%M%S%fZ")


def _zone(schedule: str, name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        by_lower = {known.lower(): known for known in available_timezones()}
        close = get_close_matches(name.lower(), by_lower, n=3)
        hint = f" (did you mean {', '.join(repr(by_lower[lower]) for lower in close)}?)" if close else ""
        raise _fault(schedule, f"there is no time zone {name[:80]!r}{hint}; names are like Europe/Zurich") from exc


def _check_expression(schedule: str, expression: str) -> None:
    """Raises `InvalidSchedule` naming the field that is wrong, and what it is."""
    parts = expression.split()
    if len(expression) > MAX_CRON_LENGTH or not expression.isprintable():
        raise _fault(schedule, f"a cron expression has at most {MAX_CRON_LENGTH} printable characters")
    if len(parts) != len(FIELDS):
        count = f"{len(parts)} field" if len(parts) == 1 else f"{len(parts)} fields"
        raise _fault(schedule, f"{expression!r} has {count}; a cron expression has five: {' '.join(FIELDS)}")
    for n, part in enumerate(parts):
        alone = ["*"] * n + [part] + ["*"] * (len(FIELDS) - n - 1)
        if not _is_legal(alone):
            raise _fault(schedule, f"{part!r} is no {FIELDS[n]} of a cron expression, in {expression!r}")
    if not _is_legal(parts):
        raise _fault(schedule, f"{expression!r} is never due: month {parts[3]} has no day {parts[2]}")


def _is_legal(parts: list[str]) -> bool:
    try:
        CronSim(" ".join(parts), _EPOCH)
    except CronSimError:
        return False
    return True


def _fault(schedule: str, reason: str) -> InvalidSchedule:
    return InvalidSchedule(schedule=schedule, reason=reason)
