"""What the capabilities of `datetime` take and give.

The JSON of the engine that we follow writes these names in camel case; both forms are taken, and outputs have that one.
"""

from typing import Annotated, Literal

from pydantic import AliasChoices, Field

from ..models import Inputs, Outputs

Unit = Literal["years", "months", "weeks", "days", "hours", "minutes", "seconds"]
Part = Literal[
    "year",
    "month",
    "week",
    "day",
    "day-of-week",
    "day-of-year",
    "hour",
    "minute",
    "second",
    "millisecond",
    "quarter",
]
Mode = Literal["floor", "ceil", "round"]
Form = Literal[
    "iso8601",
    "rfc2822",
    "date-only",
    "time-only",
    "us-short-date",
    "eu-short-date",
    "long-date",
    "date-time",
    "unix",
    "unix-ms",
    "custom",
]
Date = Annotated[
    str,
    Field(
        description="ISO 8601, RFC 2822, a Unix timestamp, or a usual form such as 01/31/2024. Without an offset: UTC.",
        examples=["2024-01-15T14:30:00Z"],
    ),
]
Zone = Annotated[
    str | None,
    Field(description="IANA time zone, or an offset. By default UTC.", examples=["America/New_York", "+05:30"]),
]


class GetCurrentDate(Inputs):
    """Inputs of `get-current-date`."""

    include_time: bool = Field(
        default=True,
        description="Whether the time is given too.",
        validation_alias=AliasChoices("include_time", "includeTime"),
    )
    timezone: Zone = None


class FormatDate(Inputs):
    """Inputs of `format-date`."""

    date: Date
    format: Form = Field(default="iso8601", description="The form, or custom for that of `custom_format`.")
    custom_format: str | None = Field(
        default=None,
        description="yyyy yy MMMM MMM MM M dd d EEEE EEE HH H hh h mm m ss s SSS a ZZZ ZZ Z W o; 'text' in quotes.",
        examples=["yyyy-MM-dd HH:mm:ss"],
        validation_alias=AliasChoices("custom_format", "customFormat"),
    )
    timezone: Zone = None


class AddToDate(Inputs):
    """Inputs of `add-to-date`."""

    date: Date
    amount: int = Field(default=0, description="How many; negative ones go back.", examples=[7])
    unit: Unit = Field(default="days", description="Of what. Days and longer ones keep the time of day.")
    timezone: Zone = None


class SubtractFromDate(AddToDate):
    """Inputs of `subtract-from-date`."""


class GetTimeBetween(Inputs):
    """Inputs of `get-time-between`."""

    start_date: Date = Field(validation_alias=AliasChoices("start_date", "startDate"))
    end_date: Date = Field(validation_alias=AliasChoices("end_date", "endDate"))
    unit: Unit = Field(default="days", description="What to count; whole ones only.")


class ExtractDatePart(Inputs):
    """Inputs of `extract-date-part`."""

    date: Date
    part: Part = Field(default="day", description="Weeks are those of ISO 8601; Monday is day 1.")
    timezone: Zone = None


class RoundDate(Inputs):
    """Inputs of `round-date`."""

    date: Date
    unit: Unit = Field(default="days", description="To the beginning of which of them. Weeks begin on Monday.")
    mode: Mode = Field(default="round", description="The one before, the next, or the nearer; halfway is the next.")
    timezone: Zone = None


class DateToUnix(Inputs):
    """Inputs of `date-to-unix`."""

    date: Date
    milliseconds: bool = Field(default=False, description="Whether to count milliseconds, not seconds.")


class UnixToDate(Inputs):
    """Inputs of `unix-to-date`."""

    timestamp: int = Field(description="Seconds or milliseconds since 1970.", examples=[1705329000])
    is_milliseconds: bool | None = Field(
        default=None,
        description="Which of them; by default milliseconds from 1,000,000,000,000 on.",
        validation_alias=AliasChoices("is_milliseconds", "isMilliseconds"),
    )
    timezone: Zone = None


class TimeBetween(Outputs):
    """Whole units between two dates, negative if the end is first."""

    difference: int
    unit: Unit
    exact_ms: int = Field(alias="exactMs", description="The exact difference in milliseconds.")


class UnixTimestamp(Outputs):
    """Seconds or milliseconds since 1970."""

    timestamp: int
    is_milliseconds: bool = Field(alias="isMilliseconds")
