"""start and registered."""

import pytest
from msgspec.structs import replace

from runtara.engine.lifecycle import Status, effects, version_fault, with_registration
from runtara.protocol.errors import IllegalTransition, Malformed, StartConflict
from runtara.protocol.events import AttemptStarted, InstanceCreated
from runtara.protocol.records import Options, Parent, Registered, Start
from runtara.protocol.subjects import Source
from tests.lifecycle.life import CONTAINER, ENGINE, INSTANCE, TENANT, Life, worker_source

REGISTERED = Registered(instance=INSTANCE, workflow="batch", worker="s1", nonce="n1")
SCRIPT = worker_source("s1")


def test_a_start_creates_and_queues_attempt_one() -> None:
    life = Life()
    life.start()
    assert life.types == ["InstanceCreated", "InstanceQueued"]
    assert (life.status, life.state.attempt) == (Status.QUEUED, 1)
    due = effects(life.state).run_request
    assert due is not None
    assert due.attempt == 1


def test_the_same_start_again_is_the_same_instance() -> None:
    life = Life()
    life.start('{"n":1}')
    again = life.start('{"n":1}')
    assert (again.note, again.error, again.events) == ("duplicate", None, ())


@pytest.mark.parametrize("other", [{"input": '{"n":2}'}, {"workflow": "other"}])
def test_a_start_with_another_input_or_workflow_is_a_conflict(other: dict[str, str]) -> None:
    life = Life()
    life.start('{"n":1}')
    again = life.start(**{"input": '{"n":1}', **other})  # type: ignore[arg-type]
    assert isinstance(again.error, StartConflict)
    assert again.events == ()


def child_start(parent: str, id: str) -> Start:
    return Start(id=id, instance=INSTANCE, tenant=TENANT, workflow="w", parent=Parent(instance=parent, key="k"))


def test_a_child_of_somebody_else_is_a_conflict_so_that_its_parent_is_told() -> None:
    life = Life()
    life.tell(child_start("p1", "a"), ENGINE)
    assert isinstance(life.tell(child_start("p2", "b"), ENGINE).error, StartConflict)
    assert life.tell(child_start("p1", "c"), ENGINE).note == "duplicate"


def test_a_child_that_ended_cannot_be_asked_for_again() -> None:
    life = Life()
    life.tell(child_start("p1", "a"), ENGINE)
    life.claim()
    life.complete()
    assert isinstance(life.tell(child_start("p1", "b"), ENGINE).error, StartConflict)


@pytest.mark.parametrize(
    "fields",
    [
        {"labels": {str(n): "" for n in range(33)}},
        {"labels": {"a": "x" * 257}},
        {"labels": {"a": "\x00"}},
        {"options": Options(runner="a.b")},
        {"parent": Parent(instance="a.b", key="k")},
        {"schedule": "a.b"},
    ],
)
def test_a_start_that_the_tables_or_subjects_cannot_carry_is_malformed(fields: dict[str, object]) -> None:
    start = Start(id="x", instance=INSTANCE, workflow="w", **fields)  # type: ignore[arg-type]
    decision = Life().tell(start)
    assert isinstance(decision.error, Malformed)
    assert decision.note == "refused"


def test_what_a_schedule_starts_says_so() -> None:
    life = Life()
    life.tell(Start(id="x", instance=INSTANCE, workflow="w", schedule="nightly"))
    (_, created), *_ = life.log
    assert isinstance(created, InstanceCreated)
    assert created.origin == "schedule"


def test_a_script_creates_its_instance_and_holds_it() -> None:
    life = Life()
    life.tell(REGISTERED, SCRIPT)
    created, claimed = (event for _, event in life.log)
    assert isinstance(created, InstanceCreated)
    assert (created.origin, created.options.runner) == ("registered", "external")
    assert isinstance(claimed, AttemptStarted)
    assert claimed.external
    assert life.status is Status.RUNNING
    assert life.tell(REGISTERED, SCRIPT).note == "duplicate"


def test_a_lost_script_waits_for_itself_and_takes_the_next_attempt() -> None:
    life = Life()
    life.tell(REGISTERED, SCRIPT)
    life.step("a")
    life.lose()
    assert life.status is Status.QUEUED
    assert effects(life.state).run_request is None
    assert life.tell(REGISTERED, SCRIPT).note == "stale"  # its old claim, late
    life.tell(replace(REGISTERED, worker="s2", nonce="n2"), worker_source("s2"))
    assert (life.status, life.state.attempt) == (Status.RUNNING, 2)


def test_a_script_that_starts_again_from_the_same_source_takes_over_at_once() -> None:
    life = Life()
    life.tell(REGISTERED, CONTAINER)
    life.tell(replace(REGISTERED, nonce="n2"), CONTAINER)
    assert life.types[-3:] == ["AttemptLost", "InstanceQueued", "AttemptStarted"]
    assert (life.state.attempt, life.state.restarts) == (2, 1)
    assert life.tell(REGISTERED, CONTAINER).events == ()  # the first one, late


def test_a_script_that_starts_again_takes_a_pending_pause_back() -> None:
    life = Life()
    life.tell(REGISTERED, CONTAINER)
    life.pause()
    life.tell(replace(REGISTERED, nonce="n2"), CONTAINER)
    assert life.types[-3:] == ["AttemptLost", "InstancePaused", "AttemptStarted"]
    assert (life.status, life.state.attempt, life.state.pause) == (Status.RUNNING, 2, False)


def test_another_script_does_not_get_a_running_instance() -> None:
    life = Life()
    life.tell(REGISTERED, SCRIPT)
    other = life.tell(replace(REGISTERED, worker="s2", nonce="n2"), worker_source("s2"))
    assert (other.note, other.events) == ("stale", ())
    assert other.error is not None


@pytest.mark.parametrize("keep", ["sleep", "pause"])
def test_a_script_continues_what_was_suspended_or_paused(keep: str) -> None:
    life = Life()
    life.tell(REGISTERED, SCRIPT)
    if keep == "sleep":
        life.sleep("s")
        life.suspend("s")
    else:
        life.suspend(reason="self")
    life.tell(replace(REGISTERED, worker="s2", nonce="n2"), worker_source("s2"))
    assert (life.status, life.state.attempt) == (Status.RUNNING, 2)


def test_a_script_takes_a_queued_instance_and_its_run_request_is_purged() -> None:
    life = Life()
    life.start(workflow="batch")
    life.tell(REGISTERED, SCRIPT)
    assert life.state.attempt == 1
    assert effects(life.state).purge == 1


def test_a_script_of_another_workflow_is_a_conflict() -> None:
    life = Life()
    life.start(workflow="other")
    assert isinstance(life.tell(REGISTERED, SCRIPT).error, StartConflict)


def test_a_script_cannot_reopen_what_has_ended() -> None:
    life = Life()
    life.tell(REGISTERED, SCRIPT)
    life.complete()
    late = life.tell(replace(REGISTERED, worker="s2", nonce="n2"), worker_source("s2"))
    assert isinstance(late.error, IllegalTransition)
    assert late.events == ()


def test_sources_are_told_apart() -> None:
    life = Life()
    source: Source = worker_source("s1")
    life.tell(REGISTERED, source)
    assert life.state.claim is not None
    assert life.state.claim.source == "w.s1"


def test_a_start_takes_the_last_version_of_a_definition_or_an_earlier_one_that_is_asked_for() -> None:
    last = Options(timeout_us=9, restarts=2, connections=("crm",), definition=3)

    def taken(**start: object) -> Options | None:
        record = Start(instance="i", id="c", workflow="wf", **start)  # type: ignore[arg-type]
        return with_registration(record, "json", last).options

    common = Options(runner="json", restarts=2, connections=("crm",))
    assert taken() == replace(common, timeout_us=9, definition=3)
    assert taken(version=3) == replace(common, timeout_us=9, definition=3)
    assert taken(version=1) == replace(common, definition=1), "a time-out of version 3 is not version 1's"
    forged = Options(runner="pool", definition=1, connections=("root",), restarts=9)
    assert taken(options=forged) == replace(common, restarts=9, definition=3), "whoever starts says `version`"


@pytest.mark.parametrize(
    ("version", "is_fault"), [(None, False), (1, False), (3, False), (4, True), (0, True), (-1, True)]
)
def test_a_version_is_one_of_those_that_there_were(version: int | None, is_fault: bool) -> None:
    record = Start(instance="i", id="c", workflow="wf", version=version)
    assert (version_fault(record, Options(definition=3)) is not None) is is_fault
    assert (version_fault(record, Options()) is not None) is (version is not None)
