"""Time zones by name or offset, and a date's ISO 8601 text.

Invariants: a zone is a rule, not an offset: what it means is asked for at each date, and again after each calculation.
"""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from ..errors import AgentError

INVALID_ZONE: Final = "DATETIME_INVALID_TIMEZONE"
_OFFSET: Final = re.compile(r"(?:UTC|GMT)?([+-])(\d{2}):?(\d{2})?", re.ASCII | re.IGNORECASE)
_DAY_MINUTES: Final = 24 * 60


@lru_cache(maxsize=1024)
def zone_of(name: str | None) -> tzinfo:
    """The zone. Raises `AgentError` DATETIME_INVALID_TIMEZONE."""
    text = (name or "UTC").strip()
    if text.upper() in ("", "UTC", "Z", "GMT"):
        return UTC
    offset = _OFFSET.fullmatch(text)
    if offset is not None:
        minutes = int(offset[2]) * 60 + int(offset[3] or 0)
        if minutes < _DAY_MINUTES:
            return timezone(timedelta(minutes=-minutes if offset[1] == "-" else minutes))
    elif not text.startswith(("/", ".")):
        try:
            return ZoneInfo(text)
        except (LookupError, ValueError, OSError):
            pass  # refused below: no zone of that name, or a path
    reason = f"there is no time zone {text!r}; write an IANA name such as Europe/Berlin, or an offset such as +05:30"
    raise AgentError(INVALID_ZONE, reason, attributes={"timezone": text})


def iso(date: datetime) -> str:
    """ISO 8601, to the second; milliseconds only if the date has some."""
    text = date.isoformat(timespec="milliseconds" if date.microsecond >= 1_000 else "seconds")
    return f"{text.removesuffix('+00:00')}Z" if not date.utcoffset() else text


def settled(date: datetime) -> datetime:
    """A date after changes to its clock time: an hour that a zone leaves out becomes the one behind it."""
    return date.astimezone(UTC).astimezone(date.tzinfo)
