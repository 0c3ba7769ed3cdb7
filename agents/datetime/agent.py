"""The agent `datetime`: its capabilities, over `reading`, `forms`, `arithmetic` and `zones`."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from ..agent import agent, capability
from . import arithmetic
from .forms import NO_FORMAT, in_form
from .models import (
    AddToDate,
    DateToUnix,
    ExtractDatePart,
    FormatDate,
    GetCurrentDate,
    GetTimeBetween,
    RoundDate,
    SubtractFromDate,
    TimeBetween,
    UnixTimestamp,
    UnixToDate,
)
from .reading import INVALID_DATE, MILLISECONDS_FROM, OUT_OF_RANGE, date_of, from_unix, in_zone, milliseconds_of
from .zones import INVALID_ZONE, iso

_ERRORS: Final = (INVALID_DATE, OUT_OF_RANGE, INVALID_ZONE)
_UTC: Final = "UTC"

pure = partial(capability, idempotent=True, inline=True)


@agent("datetime", display_name="DateTime")
class Datetime:
    """Reads, writes and calculates with dates. They are in UTC unless a time zone is named."""

    def __init__(self, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now

    @capability("get-current-date", inline=True, errors=(INVALID_ZONE,))
    def get_current_date(self, inputs: GetCurrentDate) -> str:
        """The date, with or without the time, in ISO 8601."""
        date = in_zone(self._now(), inputs.timezone).replace(microsecond=0)
        return iso(date) if inputs.include_time else date.date().isoformat()

    @pure("format-date", errors=(*_ERRORS, NO_FORMAT))
    def format_date(self, inputs: FormatDate) -> str:
        """A date as text in a named form, or one of tokens."""
        return in_form(date_of(inputs.date, inputs.timezone or _UTC), inputs.format, inputs.custom_format)

    @pure("add-to-date", errors=_ERRORS)
    def add_to_date(self, inputs: AddToDate) -> str:
        """A date some units later. The last of January plus a month is the last of February."""
        date = date_of(inputs.date, inputs.timezone or _UTC)
        return iso(arithmetic.moved(date, inputs.amount, inputs.unit))

    @pure("subtract-from-date", errors=_ERRORS)
    def subtract_from_date(self, inputs: SubtractFromDate) -> str:
        """A date some units earlier."""
        date = date_of(inputs.date, inputs.timezone or _UTC)
        return iso(arithmetic.moved(date, -inputs.amount, inputs.unit))

    @pure("get-time-between", errors=_ERRORS)
    def get_time_between(self, inputs: GetTimeBetween) -> TimeBetween:
        """The time between two dates, in whole units and exactly."""
        start, end = date_of(inputs.start_date, None), date_of(inputs.end_date, None)
        exact_ms = (end - start) // timedelta(milliseconds=1)
        return TimeBetween(difference=arithmetic.between(start, end, inputs.unit), unit=inputs.unit, exactMs=exact_ms)

    @pure("extract-date-part", errors=_ERRORS)
    def extract_date_part(self, inputs: ExtractDatePart) -> int:
        """One part of a date, as a number."""
        return arithmetic.part_of(date_of(inputs.date, inputs.timezone or _UTC), inputs.part)

    @pure("round-date", errors=_ERRORS)
    def round_date(self, inputs: RoundDate) -> str:
        """A date rounded to the beginning of a unit."""
        date = date_of(inputs.date, inputs.timezone or _UTC)
        return iso(arithmetic.rounded(date, inputs.unit, inputs.mode))

    @pure("date-to-unix", errors=_ERRORS)
    def date_to_unix(self, inputs: DateToUnix) -> UnixTimestamp:
        """A date's seconds or milliseconds since 1970."""
        found = milliseconds_of(date_of(inputs.date, None))
        return UnixTimestamp(
            timestamp=found if inputs.milliseconds else found // 1_000, isMilliseconds=inputs.milliseconds
        )

    @pure("unix-to-date", errors=_ERRORS)
    def unix_to_date(self, inputs: UnixToDate) -> str:
        """The date of seconds or milliseconds since 1970, in ISO 8601."""
        guessed = abs(inputs.timestamp) >= MILLISECONDS_FROM
        milliseconds = guessed if inputs.is_milliseconds is None else inputs.is_milliseconds
        return iso(in_zone(from_unix(inputs.timestamp, milliseconds=milliseconds), inputs.timezone))
