"""evolve: the state as a function of the events."""

import pytest

from runtara.engine.lifecycle import State, evolve
from runtara.protocol.events import AnyEvent, InstanceQueued, LogWritten, ProgressReported
from tests.lifecycle.life import Life


def fold(log: list[tuple[int, AnyEvent]]) -> State:
    state: State | None = None
    for _, event in log:
        state = evolve(state, event)
    assert state is not None
    return state


def test_every_event_adds_one_to_the_version() -> None:
    life = Life().running()
    life.step("a")
    life.sleep("s")
    life.suspend("s")
    life.fire()
    assert [version for version, _ in life.log] == list(range(1, len(life.log) + 1))


def test_the_state_is_a_function_of_the_events() -> None:
    life = Life().running()
    life.step("a")
    life.wait("w")
    life.signal()
    life.lose()
    assert fold(life.log) == life.state


def test_what_is_observed_changes_nothing_but_the_version() -> None:
    life = Life().running()
    for event in (ProgressReported(done=1), LogWritten(level="info", message="x")):
        after = evolve(life.state, event)
        assert after.claim == life.state.claim
        assert after.version == life.state.version + 1


def test_an_instance_begins_with_its_creation() -> None:
    with pytest.raises(ValueError, match="not its creation"):
        evolve(None, InstanceQueued(attempt=1))


def test_old_states_stay_as_they_were() -> None:
    life = Life().running()
    before = life.state
    waits, timers = dict(before.waits), dict(before.timers)
    life.sleep("s")
    life.step("a")
    assert (before.waits, before.timers, len(before.keys)) == (waits, timers, 0)
