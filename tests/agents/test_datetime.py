"""The agent `datetime`, capability by capability, in many zones."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from runtara.agents.datetime import Datetime, GetCurrentDate
from tests.support.perform import perform, refused

NEW_YORK, BERLIN = "America/New_York", "Europe/Berlin"
AT = "2024-01-15T14:30:05.250Z"  # a Monday

CASES: list[tuple[str, dict[str, object], JsonValue]] = [
    ("format-date", {"date": AT}, AT),
    ("format-date", {"date": AT, "timezone": NEW_YORK}, "2024-01-15T09:30:05.250-05:00"),
    ("format-date", {"date": "2024-07-15T14:30:00Z", "timezone": NEW_YORK}, "2024-07-15T10:30:00-04:00"),
    ("format-date", {"date": AT, "timezone": "+05:30", "format": "date-time"}, "2024-01-15 20:00:05"),
    ("format-date", {"date": AT, "timezone": "-0800", "format": "time-only"}, "06:30:05"),
    ("format-date", {"date": AT, "format": "rfc2822"}, "Mon, 15 Jan 2024 14:30:05 +0000"),
    ("format-date", {"date": AT, "format": "date-only"}, "2024-01-15"),
    ("format-date", {"date": AT, "format": "us-short-date"}, "01/15/2024"),
    ("format-date", {"date": AT, "format": "eu-short-date"}, "15/01/2024"),
    ("format-date", {"date": AT, "format": "long-date"}, "January 15, 2024"),
    ("format-date", {"date": AT, "format": "unix"}, "1705329005"),
    ("format-date", {"date": AT, "format": "unix-ms"}, "1705329005250"),
    (
        "format-date",
        {
            "date": AT,
            "format": "custom",
            "customFormat": "EEEE EEE d.M.yy hh:mm:ss.SSS a 'o''clock' W o ZZ",
            "timezone": BERLIN,
        },
        "Monday Mon 15.1.24 03:30:05.250 PM oclock 03 015 +0100",
    ),
    (
        "format-date",
        {"date": AT, "format": "custom", "custom_format": "yyyyMMdd'T'HHmm MMMM MMM Z"},
        "20240115T1430 January Jan UTC",
    ),
    ("add-to-date", {"date": "2024-01-31", "amount": 1, "unit": "months"}, "2024-02-29T00:00:00Z"),
    ("add-to-date", {"date": "2024-02-29", "amount": 1, "unit": "years"}, "2025-02-28T00:00:00Z"),
    ("add-to-date", {"date": "2024-01-15", "amount": "7"}, "2024-01-22T00:00:00Z"),
    ("add-to-date", {"date": "2024-01-15", "amount": -2, "unit": "weeks"}, "2024-01-01T00:00:00Z"),
    ("add-to-date", {"date": AT, "amount": 90, "unit": "minutes"}, "2024-01-15T16:00:05.250Z"),
    ("add-to-date", {"date": AT, "amount": 90, "unit": "seconds"}, "2024-01-15T14:31:35.250Z"),
    (  # the day that summer time begins in Berlin has 23 hours
        "add-to-date",
        {"date": "2024-03-30T12:00:00+01:00", "amount": 1, "unit": "days", "timezone": BERLIN},
        "2024-03-31T12:00:00+02:00",
    ),
    (
        "add-to-date",
        {"date": "2024-03-30T12:00:00+01:00", "amount": 24, "unit": "hours", "timezone": BERLIN},
        "2024-03-31T13:00:00+02:00",
    ),
    (  # 02:30 on that day is no time
        "add-to-date",
        {"date": "2024-03-30T02:30:00+01:00", "amount": 1, "unit": "days", "timezone": BERLIN},
        "2024-03-31T03:30:00+02:00",
    ),
    ("subtract-from-date", {"date": "2024-03-31", "amount": 1, "unit": "months"}, "2024-02-29T00:00:00Z"),
    (
        "get-time-between",
        {"startDate": "2024-01-01", "endDate": "2024-01-15T12:00:00Z"},
        {"difference": 14, "unit": "days", "exactMs": 1252800000},
    ),
    (
        "get-time-between",
        {"start_date": "2024-01-15T12:00:00Z", "end_date": "2024-01-01"},
        {"difference": -14, "unit": "days", "exactMs": -1252800000},
    ),
    (
        "get-time-between",
        {"startDate": "2023-03-01", "endDate": "2024-02-29", "unit": "months"},
        {"difference": 11, "unit": "months", "exactMs": 31536000000},
    ),
    (
        "get-time-between",
        {"startDate": "2020-02-29", "endDate": "2024-02-29", "unit": "years"},
        {"difference": 4, "unit": "years", "exactMs": 126230400000},
    ),
    (
        "get-time-between",
        {"startDate": "2024-01-01T00:00:00+02:00", "endDate": "2024-01-01T00:00:00Z", "unit": "hours"},
        {"difference": 2, "unit": "hours", "exactMs": 7200000},
    ),
    ("extract-date-part", {"date": AT}, 15),
    ("extract-date-part", {"date": AT, "part": "year"}, 2024),
    ("extract-date-part", {"date": "2021-01-03", "part": "week"}, 53),
    ("extract-date-part", {"date": AT, "part": "day-of-week"}, 1),
    ("extract-date-part", {"date": "2024-12-31", "part": "day-of-year"}, 366),
    ("extract-date-part", {"date": AT, "part": "hour", "timezone": "Asia/Kolkata"}, 20),
    ("extract-date-part", {"date": AT, "part": "millisecond"}, 250),
    ("extract-date-part", {"date": "2024-10-01", "part": "quarter"}, 4),
    ("round-date", {"date": AT, "unit": "hours"}, "2024-01-15T15:00:00Z"),
    ("round-date", {"date": AT, "unit": "hours", "mode": "floor"}, "2024-01-15T14:00:00Z"),
    ("round-date", {"date": "2024-01-15T23:30:00Z", "unit": "hours", "mode": "ceil"}, "2024-01-16T00:00:00Z"),
    ("round-date", {"date": "2024-01-15T00:00:00Z", "unit": "days", "mode": "ceil"}, "2024-01-15T00:00:00Z"),
    ("round-date", {"date": AT, "unit": "seconds", "mode": "ceil"}, "2024-01-15T14:30:06Z"),
    ("round-date", {"date": AT, "unit": "minutes"}, "2024-01-15T14:30:00Z"),
    ("round-date", {"date": "2024-01-18", "unit": "weeks", "mode": "floor"}, "2024-01-15T00:00:00Z"),
    ("round-date", {"date": "2024-01-19", "unit": "weeks"}, "2024-01-22T00:00:00Z"),
    ("round-date", {"date": "2024-12-20", "unit": "months"}, "2025-01-01T00:00:00Z"),
    ("round-date", {"date": AT, "unit": "years", "mode": "ceil"}, "2025-01-01T00:00:00Z"),
    ("round-date", {"date": AT, "timezone": NEW_YORK, "mode": "floor"}, "2024-01-15T00:00:00-05:00"),
    (
        "round-date",
        {"date": "2024-03-31T12:00:00Z", "timezone": BERLIN, "mode": "floor"},
        "2024-03-31T00:00:00+01:00",
    ),
    ("date-to-unix", {"date": AT}, {"timestamp": 1705329005, "isMilliseconds": False}),
    ("date-to-unix", {"date": AT, "milliseconds": True}, {"timestamp": 1705329005250, "isMilliseconds": True}),
    ("date-to-unix", {"date": "1969-12-31T23:59:59.5Z"}, {"timestamp": -1, "isMilliseconds": False}),
    ("unix-to-date", {"timestamp": 1705329005}, "2024-01-15T14:30:05Z"),
    ("unix-to-date", {"timestamp": 1705329005250}, AT),
    ("unix-to-date", {"timestamp": 1705329005, "isMilliseconds": True}, "1970-01-20T17:42:09.005Z"),
    ("unix-to-date", {"timestamp": 0, "timezone": "Asia/Tokyo"}, "1970-01-01T09:00:00+09:00"),
    ("unix-to-date", {"timestamp": -1}, "1969-12-31T23:59:59Z"),
]


@pytest.mark.parametrize(("capability", "inputs", "expected"), CASES)
def test_each_capability(capability: str, inputs: dict[str, object], expected: JsonValue) -> None:
    assert perform("datetime", capability, inputs) == expected


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-15T14:30:00Z",
        "2024-01-15T14:30:00.000+00:00",
        "2024-01-15T16:30:00+02:00",
        "2024-01-15 14:30:00",
        "20240115T143000Z",
        "Mon, 15 Jan 2024 14:30:00 +0000",
        "Mon, 15 Jan 2024 14:30:00 GMT",
        "1705329000",
        " 1705329000000 ",
        "01/15/2024 14:30",
        "15/01/2024 14:30:00",
        "01/15/24 2:30 PM",
        "15.01.2024 14:30",
        "15.01.24 14:30",
        "January 15, 2024 14:30",
        "15 Jan 2024 2:30pm UTC",
        "2024-01-15 14:30:00 UTC",
    ],
)
def test_dates_are_read_as_people_and_machines_write_them(text: str) -> None:
    assert perform("datetime", "format-date", {"date": text}) == "2024-01-15T14:30:00Z"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("03/04/2024", "2024-03-04"),
        ("03.04.2024", "2024-04-03"),
        ("13/04/2024", "2024-04-13"),
        ("01/15/69", "2069-01-15"),
        ("01/15/70", "1970-01-15"),
        ("2024-W03-1", "2024-01-15"),
    ],
)
def test_what_could_mean_two_dates_always_means_one(text: str, expected: str) -> None:
    assert perform("datetime", "format-date", {"date": text, "format": "date-only"}) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "today", "Monday", "10:30", "January", "January 2024", "2024-13-01", "2024-02-30", "15 Jan",
        "32.01.2024", "2024-01-15 14:30 EST", "2024-01-15 25:00", "a" * 1_000, "2024-01-15T14:30:00Z; x", "\x00", "١٢",
    ],
)  # fmt: skip
def test_what_is_no_whole_date_is_refused(text: str) -> None:
    assert refused("datetime", "format-date", {"date": text}).code == "DATETIME_INVALID_DATE"


@pytest.mark.parametrize(
    ("capability", "inputs", "code"),
    [
        ("format-date", {}, "STEP_REQUIRED_INPUT_MISSING"),
        ("format-date", {"date": None}, "STEP_REQUIRED_INPUT_NULL"),
        ("format-date", {"date": AT, "format": "custom"}, "DATETIME_FORMAT_MISSING"),
        ("format-date", {"date": AT, "format": "julian"}, "STEP_INVALID_INPUT"),
        ("format-date", {"date": AT, "timezone": "Mars/Olympus"}, "DATETIME_INVALID_TIMEZONE"),
        ("format-date", {"date": AT, "timezone": "../../etc/passwd"}, "DATETIME_INVALID_TIMEZONE"),
        ("format-date", {"date": AT, "timezone": "/etc/localtime"}, "DATETIME_INVALID_TIMEZONE"),
        ("format-date", {"date": AT, "timezone": "Europe"}, "DATETIME_INVALID_TIMEZONE"),
        ("format-date", {"date": AT, "timezone": "+99:00"}, "DATETIME_INVALID_TIMEZONE"),
        ("format-date", {"date": AT, "timezone": "\x00"}, "DATETIME_INVALID_TIMEZONE"),
        ("add-to-date", {"date": AT, "amount": 10_000, "unit": "years"}, "DATETIME_OUT_OF_RANGE"),
        ("add-to-date", {"date": AT, "amount": 10**20, "unit": "seconds"}, "DATETIME_OUT_OF_RANGE"),
        ("add-to-date", {"date": AT, "amount": 10**30, "unit": "months"}, "DATETIME_OUT_OF_RANGE"),
        ("add-to-date", {"date": AT, "amount": 1, "unit": "fortnights"}, "STEP_INVALID_INPUT"),
        ("add-to-date", {"date": AT, "amount": 1.5}, "STEP_INVALID_INPUT"),
        ("round-date", {"date": "9999-12-31", "unit": "years"}, "DATETIME_OUT_OF_RANGE"),
        ("unix-to-date", {"timestamp": 10**17}, "DATETIME_OUT_OF_RANGE"),
        ("format-date", {"date": "0001-01-01", "timezone": NEW_YORK}, "DATETIME_OUT_OF_RANGE"),
        ("format-date", {"date": "9" * 17}, "DATETIME_OUT_OF_RANGE"),
    ],
)
def test_what_each_capability_refuses(capability: str, inputs: dict[str, object], code: str) -> None:
    assert refused("datetime", capability, inputs).code == code


def test_the_current_date_is_that_of_the_zone() -> None:
    agent = Datetime(now=lambda: datetime(2024, 1, 1, 3, 0, 0, 999, tzinfo=UTC))
    assert agent.get_current_date(GetCurrentDate()) == "2024-01-01T03:00:00Z"
    assert agent.get_current_date(GetCurrentDate(timezone=NEW_YORK)) == "2023-12-31T22:00:00-05:00"
    assert agent.get_current_date(GetCurrentDate(timezone=NEW_YORK, include_time=False)) == "2023-12-31"
    now = datetime.now(UTC)
    found = str(perform("datetime", "get-current-date", {"includeTime": True}))
    assert abs((datetime.fromisoformat(found) - now).total_seconds()) < 60


zones = st.sampled_from(["UTC", NEW_YORK, BERLIN, "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia", "-03:30"])
moments = st.integers(-(10**9), 4 * 10**9)
units = st.sampled_from(["years", "months", "weeks", "days", "hours", "minutes", "seconds"])


@given(moments, zones)
def test_a_date_in_any_zone_is_the_same_moment(moment: int, zone: str) -> None:
    text = perform("datetime", "unix-to-date", {"timestamp": moment, "is_milliseconds": False, "timezone": zone})
    assert perform("datetime", "date-to-unix", {"date": text}) == {"timestamp": moment, "isMilliseconds": False}


@given(moments, zones, units)
def test_a_date_lies_between_its_floor_and_its_ceiling(moment: int, zone: str, unit: str) -> None:
    date = perform("datetime", "unix-to-date", {"timestamp": moment, "is_milliseconds": False, "timezone": zone})
    inputs = {"date": date, "timezone": zone, "unit": unit}
    floor, ceil, nearest = (
        datetime.fromisoformat(str(perform("datetime", "round-date", {**inputs, "mode": mode})))
        for mode in ("floor", "ceil", "round")
    )
    here = datetime.fromisoformat(str(date))
    assert floor <= here <= ceil
    assert nearest in (floor, ceil)
    assert abs(nearest - here) == min(here - floor, ceil - here)


@given(moments, zones, st.sampled_from(["weeks", "days", "hours", "minutes", "seconds"]), st.integers(-5_000, 5_000))
def test_what_is_added_lies_between(moment: int, zone: str, unit: str, amount: int) -> None:
    date = perform("datetime", "unix-to-date", {"timestamp": moment, "is_milliseconds": False, "timezone": "UTC"})
    later = perform("datetime", "add-to-date", {"date": date, "amount": amount, "unit": unit})
    found = perform("datetime", "get-time-between", {"start_date": date, "end_date": later, "unit": unit})
    assert isinstance(found, dict)
    assert found["difference"] == amount
    assert perform("datetime", "subtract-from-date", {"date": later, "amount": amount, "unit": unit}) == date
