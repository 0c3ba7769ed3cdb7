"""Deadlines from the journal's clock and the durations that records carry; always within what a log can hold."""

from typing import Final

SECOND: Final = 1_000_000
END_OF_TIME: Final = 253_402_300_799 * SECOND  # the year 9999: any later deadline means never


def deadline(now: int, duration_us: int) -> int:
    """`now` plus `duration_us`; a negative duration is none."""
    return absolute(now + max(duration_us, 0))


def absolute(time_us: int) -> int:
    """A time that somebody named, within bounds."""
    return min(max(time_us, 0), END_OF_TIME)
