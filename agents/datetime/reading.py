"""What people and machines write for a date, as a date.

Invariants: a text that is no whole date is an error; nothing is filled in from today; the same text always means the
same, whenever and wherever it is read; month before day where both would fit and dots do not say otherwise.
"""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from email.utils import parsedate_to_datetime
from typing import Any, Final

from dateutil import parser

from ..errors import AgentError
from .zones import zone_of

INVALID_DATE: Final = "DATETIME_INVALID_DATE"
OUT_OF_RANGE: Final = "DATETIME_OUT_OF_RANGE"
MILLISECONDS_FROM: Final = 10**12  # a number above is no date in seconds that anyone means (33,658)
CHARACTERS: Final = 100  # of a date; the parser's time grows with them
PIVOT: Final = 69  # two digits up to it are 20xx
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER: Final = re.compile(r"[+-]?\d{1,17}", re.ASCII)
_DOTTED: Final = re.compile(r"\d{1,2}\.\d{1,2}\.(?:\d{2}|\d{4})(?!\.)\b", re.ASCII)
_WEEKDAY: Final = re.compile(r"[A-Za-z]{3}, \d", re.ASCII)


def date_of(text: str, zone: str | None) -> datetime:
    """The date in `zone`; without one, in the zone that the text itself has, and else in UTC.

    Raises `AgentError` DATETIME_INVALID_DATE, DATETIME_OUT_OF_RANGE or DATETIME_INVALID_TIMEZONE.
    """
    found = _parsed(text.strip())
    date = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return in_zone(date, zone) if zone else date


def from_unix(number: int, *, milliseconds: bool) -> datetime:
    """Raises `AgentError` DATETIME_OUT_OF_RANGE."""
    try:
        return _EPOCH + (timedelta(milliseconds=number) if milliseconds else timedelta(seconds=number))
    except OverflowError:
        raise out_of_range() from None


def in_zone(date: datetime, zone: str | None) -> datetime:
    try:
        return date.astimezone(zone_of(zone))
    except (OverflowError, ValueError):
        raise out_of_range() from None


def milliseconds_of(date: datetime) -> int:
    return (date - _EPOCH) // timedelta(milliseconds=1)


def out_of_range() -> AgentError:
    return AgentError(OUT_OF_RANGE, "the date would lie outside the years 1 to 9999")


def _parsed(text: str) -> datetime:
    if _NUMBER.fullmatch(text):
        number = int(text)
        return from_unix(number, milliseconds=abs(number) >= MILLISECONDS_FROM)
    if not text or len(text) > CHARACTERS:
        raise _no_date(text)
    for read in (datetime.fromisoformat, _internet, _human):
        try:
            return read(text)
        except (ValueError, OverflowError, TypeError, IndexError):
            continue
    raise _no_date(text)


def _internet(text: str) -> datetime:
    if not _WEEKDAY.match(text):
        raise ValueError
    return parsedate_to_datetime(text)


def _human(text: str) -> datetime:
    """Whatever `dateutil` understands, if it needs no other date to fill in what is missing."""
    first = _with_default(text, datetime(2000, 1, 1, tzinfo=UTC))
    second = _with_default(text, datetime(2001, 2, 2, tzinfo=UTC))
    if first != second:
        raise ValueError
    return first


def _with_default(text: str, default: datetime) -> datetime:
    return parser.parse(
        text, default=default, dayfirst=bool(_DOTTED.match(text)), tzinfos=_zone_in_text, parserinfo=_Info()
    )


def _zone_in_text(name: str | None, offset_seconds: int | None) -> tzinfo:
    """EST and its like mean different things in different places, so only UTC and offsets are taken."""
    if offset_seconds is not None:
        return timezone(timedelta(seconds=offset_seconds))
    if name is not None and name.upper() not in ("UTC", "GMT", "Z"):
        raise ValueError
    return UTC  # also where the text has no zone


class _Info(parser.parserinfo):
    """`dateutil` takes two-digit years as within 50 of today, which changes every year."""

    def convertyear(self, year: int, century_specified: Any = False) -> int:
        if year >= 100 or century_specified:
            return year
        return year + (2000 if year <= PIVOT else 1900)


def _no_date(text: str) -> AgentError:
    reason = f"{text[:CHARACTERS]!r} is no date; write it in ISO 8601, as 2024-01-31 or 2024-01-31T14:30:00Z"
    return AgentError(INVALID_DATE, reason)
