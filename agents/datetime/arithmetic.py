"""Adding to dates, rounding them, and what lies between two of them.

Invariants: days, weeks, months and years are counted on the calendar of the date's zone and keep the time of day, also
across a change to summer time; hours, minutes and seconds are counted on the clock of physics.
"""

from datetime import UTC, datetime, timedelta
from typing import assert_never

from dateutil.relativedelta import relativedelta

from .models import Mode, Part, Unit
from .reading import out_of_range
from .zones import settled


def moved(date: datetime, amount: int, unit: Unit) -> datetime:
    """The date `amount` units later. Raises `AgentError` DATETIME_OUT_OF_RANGE."""
    try:
        match unit:
            case "years":
                return settled(date + relativedelta(years=amount))
            case "months":
                return settled(date + relativedelta(months=amount))
            case "weeks":
                return settled(date + timedelta(weeks=amount))
            case "days":
                return settled(date + timedelta(days=amount))
            case "hours" | "minutes" | "seconds":
                return (date.astimezone(UTC) + timedelta(**{unit: amount})).astimezone(date.tzinfo)
            case _:
                assert_never(unit)
    except (OverflowError, ValueError):
        raise out_of_range() from None


def rounded(date: datetime, unit: Unit, mode: Mode) -> datetime:
    """The beginning of a unit: of this one, the next one, or whichever is nearer."""
    before = settled(_beginning(date, unit))
    if before == date:
        return before
    after = settled(_beginning(moved(before, 1, unit), unit))
    match mode:
        case "floor":
            return before
        case "ceil":
            return after
        case "round":
            here = date.astimezone(UTC)
            return after if here - before.astimezone(UTC) >= after.astimezone(UTC) - here else before
        case _:
            assert_never(mode)


def between(start: datetime, end: datetime, unit: Unit) -> int:
    """Whole units from start to end; those that are not whole do not count, in either direction."""
    match unit:
        case "years":
            return relativedelta(end.astimezone(UTC), start.astimezone(UTC)).years
        case "months":
            found = relativedelta(end.astimezone(UTC), start.astimezone(UTC))
            return found.years * 12 + found.months
        case "weeks" | "days" | "hours" | "minutes" | "seconds":
            passed, one = end - start, timedelta(**{unit: 1})
            return passed // one if passed >= timedelta() else -(-passed // one)
        case _:
            assert_never(unit)


def part_of(date: datetime, part: Part) -> int:
    match part:
        case "week":
            return date.isocalendar().week
        case "day-of-week":
            return date.isoweekday()
        case "day-of-year":
            return date.timetuple().tm_yday
        case "quarter":
            return (date.month - 1) // 3 + 1
        case "millisecond":
            return date.microsecond // 1_000
        case "year" | "month" | "day" | "hour" | "minute" | "second":
            return int(getattr(date, part))
        case _:
            assert_never(part)


def _beginning(date: datetime, unit: Unit) -> datetime:
    """Of the unit that the date lies in, on the clock of its zone."""
    second = date.replace(microsecond=0)
    day = second.replace(hour=0, minute=0, second=0, fold=0)
    match unit:
        case "years":
            return day.replace(month=1, day=1)
        case "months":
            return day.replace(day=1)
        case "weeks":
            return day - timedelta(days=day.weekday())
        case "days":
            return day
        case "hours":
            return second.replace(minute=0, second=0)
        case "minutes":
            return second.replace(second=0)
        case "seconds":
            return second
        case _:
            assert_never(unit)
