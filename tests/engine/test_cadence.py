"""When schedules are due: cron expressions in time zones whose clocks are changed, intervals, what was missed."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from runtara.engine.cadence import (
    LATE_SECONDS,
    SECOND_US,
    Cadence,
    Every,
    cadence,
    plan,
    precise_stamp,
    stamp,
    upcoming,
)
from runtara.protocol.errors import InvalidSchedule
from runtara.protocol.limits import MAX_CATCH_UP

ZONES = ("UTC", "Europe/Zurich", "America/New_York", "Australia/Lord_Howe", "America/Havana", "Pacific/Apia")
TIMES = (
    "0 3 * * *", "30 2 * * *", "0,30 1-3 * * *", "15 0 * * *", "59 23 * * *", "0 0 1 * *", "0 2 * * SUN", "0 12 L * *",
    "0 0 29 2 *", "0 4 LW * *", "0 9 * * FRI#2", "5,10,15 2,3 13 * FRI",
)  # fmt: skip
SHOWN = ("* * * * *", "*/10 * * * *", "0 * * * *", "*/15 2 * * *", "30 */2 * * *", "7 1-3 * * *")
moments = st.integers(0, 4_000_000_000 * SECOND_US)


def cron(expression: str, zone: str = "UTC") -> Cadence:
    return cadence("s", cron=expression, every_us=None, anchor=0, timezone=zone)


def us(text: str, zone: str = "UTC") -> int:
    moment = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def dues(expression: str, zone: str, after: str, count: int) -> list[str]:
    found = cron(expression, zone)
    return [stamp(due)[4:13] for due in upcoming(found, found.next_after(us(after, zone)), count)]


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [  # Zurich: 29 March 2026, 2:00 → 3:00 (01:00Z); 25 October 2026, 3:00 → 2:00 (01:00Z)
        ("30 2 * * *", "2026-03-28T00:00", ["0328T0130", "0329T0100", "0330T0030"]),  # left out: right after it
        ("0 3 * * *", "2026-03-28T00:00", ["0328T0200", "0329T0100", "0330T0100"]),
        ("0,30 2 * * *", "2026-03-29T00:00", ["0329T0100", "0330T0000", "0330T0030"]),  # both are at 3:00: once
        ("30 2 * * *", "2026-10-24T12:00", ["1025T0030", "1026T0130"]),  # twice on the wall, once due
        ("0 0 * * *", "2026-10-24T12:00", ["1024T2200", "1025T2300"]),
        ("*/30 * * * *", "2026-10-25T01:59", ["1025T0000", "1025T0030", "1025T0100", "1025T0130", "1025T0200"]),
        ("*/30 2 * * *", "2026-03-29T00:00", ["0330T0000", "0330T0030"]),  # by the wall: there is no such hour
    ],
)
def test_clocks_are_changed(expression: str, after: str, expected: list[str]) -> None:
    assert dues(expression, "Europe/Zurich", after, len(expected)) == expected


def test_in_the_second_of_two_equal_hours_what_was_due_in_the_first_is_not_due_again() -> None:
    found = cron("45 2 * * *", "Europe/Zurich")
    assert stamp(found.next_after(us("2026-10-25T01:30"))) == "20261026T014500Z"


@given(st.sampled_from(TIMES + SHOWN), st.sampled_from(ZONES[:3]), moments, st.integers(0, 3 * 86_400 * SECOND_US))
def test_due_times_only_grow_and_none_is_skipped_from_wherever_one_looks(
    expression: str, zone: str, at: int, later: int
) -> None:
    found = cron(expression, zone)
    due = found.next_after(at)
    assert due > at
    assert due % SECOND_US == 0
    if at + later < due:
        assert found.next_after(at + later) == due
    else:
        assert due < found.next_after(at + later)


@given(st.sampled_from(TIMES), st.sampled_from(ZONES), moments)
def test_set_times_are_due_as_the_wall_shows_them_in_every_zone(expression: str, zone: str, at: int) -> None:
    """But for the days on which the clocks are changed."""
    found = cron(expression, zone)
    first = found.next_after(at)
    second = found.next_after(first)
    assert at < first < second
    wall = datetime.fromtimestamp(first / 1e6, ZoneInfo(zone))
    assume(wall.utcoffset() == (wall - timedelta(days=1)).utcoffset() == (wall + timedelta(days=1)).utcoffset())
    minutes, hours = (set(part.split(",")) for part in expression.split()[:2])
    assert str(wall.minute) in minutes
    assert str(wall.hour) in hours or expression.startswith("0,30 1-3")


@given(st.sampled_from(TIMES + SHOWN), st.sampled_from(ZONES[:3]), moments, st.integers(0, 40 * 86_400 * SECOND_US))
def test_the_latest_is_the_last_of_all_that_were_due(expression: str, zone: str, at: int, length: int) -> None:
    found = cron(expression, zone)
    first = found.next_after(at)
    until = first + (length if expression not in ("* * * * *", "*/10 * * * *") else length // 100)
    due, following = first, found.next_after(first)
    while following <= until:
        due, following = following, found.next_after(following)
    assert found.latest(first, until) == due


@given(st.integers(1, 10**6), st.integers(0, 10**15), st.integers(0, 10**16))
def test_intervals_count_from_their_anchor(seconds: int, anchor: int, at: int) -> None:
    found = Every(seconds * SECOND_US, anchor)
    due = found.next_after(at)
    assert due > at
    assert due > anchor
    assert (due - anchor) % (seconds * SECOND_US) == 0
    assert due - max(at, anchor) <= seconds * SECOND_US
    assert found.latest(due, due + at) == due + at // (seconds * SECOND_US) * seconds * SECOND_US


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("0 0 30 2 *", "'0 0 30 2 *' is never due: month 2 has no day 30"),
        ("0 0 31 4,6 *", "is never due"),
        ("61 * * * *", "'61' is no minute"),
        ("0 24 * * *", "'24' is no hour"),
        ("0 0 * * FUNDAY", "'FUNDAY' is no day-of-week"),
        ("0 0 0 * *", "'0' is no day-of-month"),
        ("*/0 * * * *", "is no minute"),
        ("0 3 * *", "has 4 fields; a cron expression has five: minute hour day-of-month month day-of-week"),
        ("0 0 3 * * *", "has 6 fields"),
        ("@daily", "has 1 field;"),
        ("", "has 0 fields"),
        ("0 3 * * *\x00", "printable"),
        (",".join(["0"] * 200) + " * * * *", "at most 256"),
    ],
)
def test_an_expression_that_is_wrong_is_refused_and_shows_what_is(expression: str, reason: str) -> None:
    with pytest.raises(InvalidSchedule, match=reason.replace("*", r"\*").replace("?", r"\?")):
        cron(expression)


@given(st.text(st.sampled_from("0123456789*/,-#LWMONDAYFEB "), max_size=20))
def test_whatever_is_typed_is_read_or_refused(expression: str) -> None:
    try:
        found = cron(expression)
    except InvalidSchedule:
        return
    assert found.next_after(0) > 0


@pytest.mark.parametrize(
    ("zone", "hint"),
    [("Europe/Zürich", "'Europe/Zurich'"), ("europe/zurich", "'Europe/Zurich'"), ("Europe", ""), ("../etc/passwd", ""),
     ("", ""), ("a\x00b", "")],
)  # fmt: skip
def test_a_zone_that_there_is_not_is_refused_with_the_nearest(zone: str, hint: str) -> None:
    with pytest.raises(InvalidSchedule, match="there is no time zone") as refused:
        cron("0 3 * * *", zone)
    assert hint in str(refused.value)


@pytest.mark.parametrize("every_us", [0, -SECOND_US, SECOND_US // 2, SECOND_US * 3 // 2, 10**18])
def test_an_interval_is_in_whole_seconds(every_us: int) -> None:
    with pytest.raises(InvalidSchedule, match="whole seconds"):
        cadence("s", cron=None, every_us=every_us, anchor=0, timezone="UTC")


def test_either_an_expression_or_an_interval() -> None:
    for both in ({"cron": "0 3 * * *", "every_us": SECOND_US}, {"cron": None, "every_us": None}):
        with pytest.raises(InvalidSchedule, match="either"):
            cadence("s", anchor=0, timezone="UTC", **both)


def test_on_time_every_kind_of_catch_up_starts_what_is_due() -> None:
    every = Every(60 * SECOND_US, 0)
    due, now = 600 * SECOND_US, 600 * SECOND_US + 5
    for catch_up in ("last", "all", "none"):
        found = plan(every, due, now, catch_up)
        assert (found.starts, found.next_due, found.note) == ([due], 660 * SECOND_US, None)


def test_after_an_outage_the_last_one_is_made_up_for_or_all_or_none() -> None:
    every = Every(60 * SECOND_US, 0)
    due, now = 600 * SECOND_US, (780 + LATE_SECONDS + 1) * SECOND_US
    last, all_of_them, none = (plan(every, due, now, kind) for kind in ("last", "all", "none"))
    assert last.starts == [780 * SECOND_US]
    assert all_of_them.starts == [n * SECOND_US for n in (600, 660, 720, 780)]
    assert (none.starts, none.note) == (
        [], "missed at 19700101T001300Z (and others since 19700101T001000Z): no engine ran"
    )  # fmt: skip
    assert {found.next_due for found in (last, all_of_them, none)} == {840 * SECOND_US}
    assert plan(every, due, 785 * SECOND_US, "none").starts == [780 * SECOND_US]


def test_what_is_missed_beyond_the_limit_is_skipped_with_a_note() -> None:
    found = plan(Every(SECOND_US, 0), SECOND_US, 5_000 * SECOND_US, "all")
    assert len(found.starts) == MAX_CATCH_UP
    assert found.next_due == 5_001 * SECOND_US
    assert found.note == "more than 1,000 starts were missed: those from 19700101T001641Z on were skipped"
    assert plan(Every(SECOND_US, 0), SECOND_US, MAX_CATCH_UP * SECOND_US, "all").note is None


def test_stamps() -> None:
    assert stamp(us("2026-11-22T03:00:00")) == "20261122T030000Z"
    assert precise_stamp(us("2026-11-22T03:00:00") + 42) == "20261122T030000000042Z"
