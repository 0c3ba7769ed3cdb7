"""Dates as text: named forms, and those that people compose of tokens (yyyy-MM-dd).

Invariants: names of months and days are English whatever the process's locale is; what is no token stays as it is.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final, assert_never

from ..errors import AgentError
from .models import Form
from .reading import milliseconds_of
from .zones import iso

NO_FORMAT: Final = "DATETIME_FORMAT_MISSING"
_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_TOKENS: Final[Mapping[str, Callable[[datetime], str]]] = {
    "yyyy": lambda date: f"{date.year:04}",
    "yy": lambda date: f"{date.year % 100:02}",
    "MMMM": lambda date: _MONTHS[date.month - 1],
    "MMM": lambda date: _MONTHS[date.month - 1][:3],
    "MM": lambda date: f"{date.month:02}",
    "M": lambda date: str(date.month),
    "dd": lambda date: f"{date.day:02}",
    "d": lambda date: str(date.day),
    "EEEE": lambda date: _DAYS[date.weekday()],
    "EEE": lambda date: _DAYS[date.weekday()][:3],
    "E": lambda date: _DAYS[date.weekday()][:3],
    "HH": lambda date: f"{date.hour:02}",
    "H": lambda date: str(date.hour),
    "hh": lambda date: f"{(date.hour - 1) % 12 + 1:02}",
    "h": lambda date: str((date.hour - 1) % 12 + 1),
    "mm": lambda date: f"{date.minute:02}",
    "m": lambda date: str(date.minute),
    "ss": lambda date: f"{date.second:02}",
    "s": lambda date: str(date.second),
    "SSS": lambda date: f"{date.microsecond // 1_000:03}",
    "a": lambda date: "AM" if date.hour < 12 else "PM",
    "ZZZ": lambda date: _offset(date, ":"),
    "ZZ": lambda date: _offset(date, ""),
    "Z": lambda date: date.tzname() or "",
    "W": lambda date: f"{date.isocalendar().week:02}",
    "o": lambda date: f"{date.timetuple().tm_yday:03}",
}
_PIECE: Final = re.compile("'([^']*)'|(" + "|".join(sorted(_TOKENS, key=len, reverse=True)) + ")")


def formatted(date: datetime, tokens: str) -> str:
    """The date in a form of tokens; what stands in single quotes is text."""
    return _PIECE.sub(lambda found: found[1] if found[1] is not None else _TOKENS[found[2]](date), tokens)


def in_form(date: datetime, form: Form, custom: str | None) -> str:
    """The date in a named form. Raises `AgentError` DATETIME_FORMAT_MISSING."""
    match form:
        case "iso8601":
            return iso(date)
        case "unix":
            return str(milliseconds_of(date) // 1_000)
        case "unix-ms":
            return str(milliseconds_of(date))
        case "custom":
            if not custom:
                raise AgentError(NO_FORMAT, "the format custom needs a custom_format, such as yyyy-MM-dd")
            return formatted(date, custom)
        case _:
            return formatted(date, _named(form))


def _named(form: Form) -> str:
    match form:
        case "rfc2822":
            return "EEE, dd MMM yyyy HH:mm:ss ZZ"
        case "date-only":
            return "yyyy-MM-dd"
        case "time-only":
            return "HH:mm:ss"
        case "us-short-date":
            return "MM/dd/yyyy"
        case "eu-short-date":
            return "dd/MM/yyyy"
        case "long-date":
            return "MMMM dd, yyyy"
        case "date-time":
            return "yyyy-MM-dd HH:mm:ss"
        case "iso8601" | "unix" | "unix-ms" | "custom":
            raise AssertionError(form)
        case _:
            assert_never(form)


def _offset(date: datetime, colon: str) -> str:
    minutes = (date.utcoffset() or timedelta()) // timedelta(minutes=1)
    sign, minutes = "-" if minutes < 0 else "+", abs(minutes)
    return f"{sign}{minutes // 60:02}{colon}{minutes % 60:02}"
