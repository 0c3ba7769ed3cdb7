"""The agent `datetime`: dates, and the time between them, in any time zone."""

from .agent import Datetime
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

__all__ = [
    "AddToDate",
    "DateToUnix",
    "Datetime",
    "ExtractDatePart",
    "FormatDate",
    "GetCurrentDate",
    "GetTimeBetween",
    "RoundDate",
    "SubtractFromDate",
    "TimeBetween",
    "UnixTimestamp",
    "UnixToDate",
]
