"""A random walk over claims, redelivery, take-over, a stale engine and lost messages: nothing sticks, nothing lies."""

from collections.abc import Callable
from itertools import islice

import pytest
from msgspec.structs import replace

from runtara.engine.lifecycle import Decision, State, decide
from runtara.protocol.events import InstanceQueued
from runtara.protocol.records import AnyRecord, Report, Signal, TimerDue
from runtara.protocol.subjects import Channel, Source
from tests.lifecycle.hosts import TENANT
from tests.lifecycle.world import live

CHUNKS, CHUNK = 10, 2_000
Decider = Callable[..., Decision]


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_life_gets_stuck_or_builds_on_what_the_log_does_not_hold(chunk: int) -> None:
    wrong = {seed: complaint for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK) if (complaint := live(seed))}
    assert not wrong, f"{len(wrong)} of {CHUNK} lives went wrong: {dict(islice(wrong.items(), 3))}"


def without_nonces(state: State | None, record: AnyRecord, now: int, *, source: Source) -> Decision:
    """As if the attempt alone were the claim."""
    claim = state.claim if state is not None else None
    if claim is not None and isinstance(record, Report) and record.attempt == claim.attempt:
        record = replace(record, nonce=claim.nonce)
        source = Source(Channel.REPORTS, 0, TENANT, worker=claim.worker)
    return decide(state, record, now, source=source)


def without_numbers(state: State | None, record: AnyRecord, now: int, *, source: Source) -> Decision:
    """As if duplicates and gaps of a claim were nothing to care about."""
    claim = state.claim if state is not None else None
    if claim is not None and isinstance(record, Report) and record.nonce == claim.nonce:
        record = replace(record, seq=claim.last_seq + 1)
    return decide(state, record, now, source=source)


def without_wakes(state: State | None, record: AnyRecord, now: int, *, source: Source) -> Decision:
    """As if whoever resolves a wait left it to somebody else to queue the instance."""
    decision = decide(state, record, now, source=source)
    if state is not None and state.is_suspended and isinstance(record, TimerDue | Signal):
        kept = tuple(event for event in decision.events if not isinstance(event, InstanceQueued))
        return replace(decision, events=kept)
    return decision


def first_complaint(decider: Decider, *, sweeps: bool = True) -> str:
    complaints = (live(seed, decider=decider, sweeps=sweeps) for seed in range(6_000))
    return next((complaint for complaint in complaints if complaint), "")


@pytest.mark.parametrize(
    ("decider", "complaint"),
    [(without_nonces, "does not hold"), (without_numbers, "does not hold"), (without_wakes, "stuck as")],
)
def test_the_walk_notices_a_rule_that_is_missing(decider: Decider, complaint: str) -> None:
    assert complaint in first_complaint(decider)


def test_the_walk_notices_an_engine_that_does_not_repeat_itself() -> None:
    assert "stuck as queued" in first_complaint(decide, sweeps=False)
