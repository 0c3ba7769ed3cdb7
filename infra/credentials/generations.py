"""The secrets from which the accounts' signing keys are derived, one after the other: pure functions of them and time.

A rotation draws the next generation. Until `active_from` it is only announced: accounts name its keys, so that every
engine and server knows them before the first credential is signed with one. From then on everything is signed with
it. What the former one has signed is good until its `ends_at`; then accounts no longer name its keys.
"""

from collections.abc import Sequence

import msgspec


class Generation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Times in seconds since 1970. `secret`: hexadecimal. `ends_at` is 0 until the next rotation says when."""

    secret: str
    active_from: int = 0
    ends_at: int = 0


def good(generations: Sequence[Generation], now: float) -> list[Generation]:
    """Those whose keys accounts name: announced, current, former ones; the newest first."""
    return [one for one in reversed(generations) if not one.ends_at or now < one.ends_at]


def current(generations: Sequence[Generation], now: float) -> Generation:
    """The one that signs."""
    return next(one for one in reversed(generations) if one.active_from <= now)


def announced(generations: Sequence[Generation], now: float) -> Generation | None:
    """The one that does not sign yet."""
    return next((one for one in generations if one.active_from > now), None)


def rotated(
    generations: Sequence[Generation], secret: str, *, active_from: int, ends_at: int, now: float
) -> list[Generation]:
    """With one more, active from `active_from`; what its predecessors have signed ends at `ends_at`, if not before."""
    former = [
        msgspec.structs.replace(one, ends_at=min(one.ends_at or ends_at, ends_at))
        for one in reversed(good(generations, now))
    ]
    return [*former, Generation(secret=secret, active_from=active_from)]
