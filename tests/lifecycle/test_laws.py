"""The laws can fail: each breach of a rule, patched into `decide`, is noticed by the lives that Hypothesis makes up."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from msgspec.structs import replace

from runtara.engine.lifecycle import (
    Decision,
    Status,
    claims,
    control,
    endings,
    evolve_waits,
    parks,
    reports,
    starting,
    wakes,
)
from runtara.engine.lifecycle.decision import refused
from runtara.protocol.events import InstanceQueued, InstanceSuspended, SleepStarted
from tests.lifecycle.test_invariants import Lives

Patch = Callable[[pytest.MonkeyPatch], object]


def any_nonce_counts(patch: pytest.MonkeyPatch) -> None:
    real = reports.unclaimed

    def unclaimed(state: Any, record: Any, now: int, source: Any) -> Any:
        claim = state.claim
        if claim is not None and record.attempt == claim.attempt:
            record = replace(record, nonce=claim.nonce, seq=claim.last_seq + 1)
        return real(state, record, now, source)

    patch.setattr(reports, "unclaimed", unclaimed)


def a_gap_is_accepted(patch: pytest.MonkeyPatch) -> None:
    real = reports.unclaimed

    def unclaimed(state: Any, record: Any, now: int, source: Any) -> Any:
        claim = state.claim
        gap = claim is not None and record.nonce == claim.nonce and record.seq > claim.last_seq
        return None if gap else real(state, record, now, source)

    patch.setattr(reports, "unclaimed", unclaimed)


def an_old_number_is_not_a_duplicate(patch: pytest.MonkeyPatch) -> None:
    real = reports.unclaimed

    def unclaimed(state: Any, record: Any, now: int, source: Any) -> Any:
        claim = state.claim
        if claim is not None and record.nonce == claim.nonce:
            record = replace(record, seq=claim.last_seq + 1)
        return real(state, record, now, source)

    patch.setattr(reports, "unclaimed", unclaimed)


def a_refusal_is_only_said(patch: pytest.MonkeyPatch) -> None:
    def end_attempt(state: Any, record: Any, now: int, error: Any) -> Decision:
        return refused(error)

    for module in (reports, parks):
        patch.setattr(module, "end_attempt", end_attempt)


def a_second_value_is_taken(patch: pytest.MonkeyPatch) -> None:
    for module in (reports, parks):
        patch.setattr(module, "key_fault", lambda state, key: None)


def nobody_is_woken(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(wakes, "_wake", lambda draft, key, cause: None)


def suspended_on_anything(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        parks, "_leave_parked", lambda draft, record, still_open: draft.emit(InstanceSuspended(keys=record.keys))
    )


def a_timer_may_be_early(patch: pytest.MonkeyPatch) -> None:
    real = wakes.timer_fired
    patch.setattr(wakes, "timer_fired", lambda state, record, now: real(state, record, now + 10**15))


def the_budget_is_endless(patch: pytest.MonkeyPatch) -> None:
    real = endings.lose

    def lose(draft: Any, *arguments: Any, **options: Any) -> None:
        if draft.state.cancel is None and not draft.state.pause:
            draft.state = replace(draft.state, losses=-10)
        real(draft, *arguments, **options)

    for module in (endings, claims, parks, wakes):
        patch.setattr(module, "lose", lose)


def a_cancel_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(parks, "obey_cancel", lambda draft: draft.emit(InstanceSuspended(keys=tuple(draft.state.waits))))


def a_pause_outlives_its_resume(patch: pytest.MonkeyPatch) -> None:
    real = parks.suspended
    patch.setattr(parks, "suspended", lambda state, record, now: real(replace(state, pause=True), record, now))


def attempts_are_reused(patch: pytest.MonkeyPatch) -> None:
    def requeue(draft: Any, cause: str, **_: Any) -> None:
        draft.emit(InstanceQueued(attempt=draft.state.attempt, cause=cause))

    for module in (endings, parks, wakes, control, reports):
        patch.setattr(module, "requeue", requeue)


def a_signal_is_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(evolve_waits, "_abandoned", lambda state, key: evolve_waits.closed(state, key))


def the_newest_signal_goes_first(patch: pytest.MonkeyPatch) -> None:
    def give(draft: Any, key: str, signal: Any) -> None:
        real(draft, key, draft.state.pending[draft.state.waits[key].name][-1])

    real = parks._give
    patch.setattr(parks, "_give", give)


def a_deadline_moves(patch: pytest.MonkeyPatch) -> None:
    def park_again(draft: Any, record: Any, known: Any) -> None:
        draft.emit(SleepStarted(key=record.key, due_us=draft.now + 7))

    patch.setattr(parks, "_park_again", park_again)


def the_dead_are_signalled(patch: pytest.MonkeyPatch) -> None:
    real = wakes.signal

    def signal(state: Any, record: Any, now: int) -> Decision:
        return real(replace(state, status=Status.QUEUED) if state.status.is_terminal else state, record, now)

    patch.setattr(wakes, "signal", signal)


def everybody_may_claim(patch: pytest.MonkeyPatch) -> None:
    def while_running(state: Any, claim: Any, record: Any, now: int, source: Any) -> Decision:
        return Decision(events=(claims.claimed(record, claim.attempt, source),))

    patch.setattr(claims, "_while_running", while_running)


def a_script_may_claim_again(patch: pytest.MonkeyPatch) -> None:
    real = starting.registered

    def registered(state: Any, record: Any, now: int, source: Any) -> Decision:
        return real(replace(state, past=()) if state is not None else None, record, now, source)

    patch.setattr(starting, "registered", registered)


MANY = (
    5_000  # lives until one must have shown it; most do within 50, but which are made up changes with what is imported
)

BREACHES: list[tuple[Patch, str]] = [
    (any_nonce_counts, "law"),
    (a_gap_is_accepted, "law"),
    (an_old_number_is_not_a_duplicate, "law"),
    (a_refusal_is_only_said, "law 6"),
    (a_second_value_is_taken, "law 7"),
    (nobody_is_woken, "law 9"),
    (suspended_on_anything, "law"),
    (a_timer_may_be_early, "law 12"),
    (the_budget_is_endless, "law 14"),
    (a_cancel_is_forgotten, "law 13"),
    (a_pause_outlives_its_resume, "law 13"),
    (attempts_are_reused, "law 4"),
    (a_signal_is_lost, "law 10"),
    (the_newest_signal_goes_first, "law 10"),
    (a_deadline_moves, "law 11"),
    (the_dead_are_signalled, "law 5"),
    (everybody_may_claim, "law 3"),
    (a_script_may_claim_again, "law 2"),
]


@pytest.mark.parametrize(("breach", "law"), BREACHES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_breach_is_noticed(breach: Patch, law: str, monkeypatch: pytest.MonkeyPatch) -> None:
    breach(monkeypatch)
    with pytest.raises((AssertionError, ExceptionGroup)) as caught:
        run_state_machine_as_test(
            Lives,
            settings=settings(
                max_examples=MANY, stateful_step_count=40, deadline=None, database=None, derandomize=True,
                phases=[Phase.generate], suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
            ),
        )  # fmt: skip
    assert law in str(caught.value)
