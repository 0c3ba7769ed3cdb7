"""check_envelope: what a record's subject allows."""

import pytest
from msgspec.structs import replace

from runtara.engine.lifecycle import check_envelope
from runtara.protocol.errors import Forbidden, WrongPartition
from runtara.protocol.ids import partition_of
from runtara.protocol.records import (
    AnyRecord,
    ChildDone,
    Completed,
    Exited,
    Owner,
    Parent,
    Pause,
    Registered,
    Start,
    Started,
    TimerDue,
    Unreadable,
    WorkflowForgotten,
    WorkflowRegistered,
)
from runtara.protocol.subjects import Source
from tests.lifecycle.life import CLIENT, CONTAINER, ENGINE, INSTANCE, RUNNER, TENANT, worker_source

WORKER = worker_source("w1")
HOME = partition_of(TENANT, INSTANCE, 4)
COMPLETED = Completed(instance=INSTANCE, attempt=1, nonce="n", seq=1)
STARTED = Started(instance=INSTANCE, attempt=1, nonce="n", worker="w1")
START = Start(id="1", instance=INSTANCE, workflow="w")
PAUSE = Pause(id="1", instance=INSTANCE)
EXITED = Exited(instance=INSTANCE, attempt=1, worker="w1", reason="1")
TIMER = TimerDue(instance=INSTANCE, tenant=TENANT, owner="e", timer=3)
DONE = ChildDone(instance=INSTANCE, id="1", tenant=TENANT, key="k", child="c", status="completed")
UNREADABLE = Unreadable(instance=INSTANCE, attempt=1, nonce="n", seq=1, reason="bad")


def check(record: AnyRecord, source: Source, partition: int = HOME) -> Exception | None:
    return check_envelope(record, source, partition, 4)


@pytest.mark.parametrize(
    ("record", "source"),
    [
        (START, CLIENT),
        (PAUSE, CLIENT),
        (COMPLETED, WORKER),
        (COMPLETED, CONTAINER),
        (UNREADABLE, WORKER),
        (STARTED, WORKER),
        (STARTED, CONTAINER),
        (replace(STARTED, by="runner"), RUNNER),
        (Registered(instance=INSTANCE, workflow="w", worker="w1", nonce="n"), WORKER),
        (EXITED, RUNNER),
        (TIMER, ENGINE),
        (DONE, ENGINE),
        (replace(START, tenant=TENANT, parent=Parent(instance="p", key="k")), ENGINE),
        (Owner(instance="", token="e"), ENGINE),
        (WorkflowRegistered(instance="", tenant=TENANT, workflow="w"), ENGINE),
        (WorkflowForgotten(instance="", tenant=TENANT, workflow="w"), ENGINE),
    ],
)
def test_what_each_sender_may_say(record: AnyRecord, source: Source) -> None:
    assert check(record, source) is None


@pytest.mark.parametrize(
    ("record", "source"),
    [
        (COMPLETED, CLIENT),
        (START, WORKER),
        (PAUSE, CONTAINER),
        (PAUSE, ENGINE),
        (EXITED, WORKER),
        (TIMER, CLIENT),
        (TIMER, WORKER),
        (TIMER, RUNNER),
        (DONE, CLIENT),
        (Owner(instance="", token="e"), WORKER),
        (WorkflowRegistered(instance="", tenant=TENANT, workflow="w"), WORKER),
        (WorkflowForgotten(instance="", tenant=TENANT, workflow="w"), CLIENT),
        (UNREADABLE, CLIENT),
    ],
)
def test_types_belong_to_their_subjects(record: AnyRecord, source: Source) -> None:
    assert isinstance(check(record, source), Forbidden)


def test_a_container_speaks_for_its_instance_only() -> None:
    assert isinstance(check(replace(COMPLETED, instance="other"), CONTAINER), Forbidden)


def test_a_worker_claims_for_itself_only() -> None:
    assert isinstance(check(replace(STARTED, worker="w2"), WORKER), Forbidden)
    other = Registered(instance=INSTANCE, workflow="w", worker="w2", nonce="n")
    assert isinstance(check(other, WORKER), Forbidden)


def test_only_runners_reserve() -> None:
    assert isinstance(check(replace(STARTED, by="runner"), WORKER), Forbidden)
    assert isinstance(check(STARTED, RUNNER), Forbidden)


def test_nobody_names_another_tenant() -> None:
    assert isinstance(check(replace(START, tenant="victim"), CLIENT), Forbidden)
    assert check(replace(START, tenant=TENANT), CLIENT) is None


@pytest.mark.parametrize("tenant", [None, "a.b", ""])
def test_an_engine_has_to_name_a_tenant(tenant: str | None) -> None:
    assert isinstance(check(replace(START, tenant=tenant), ENGINE), Forbidden)


def test_only_the_platform_starts_children() -> None:
    assert isinstance(check(replace(START, parent=Parent(instance="p", key="k")), CLIENT), Forbidden)


def test_only_the_platform_starts_what_a_schedule_says() -> None:
    assert isinstance(check(replace(START, schedule="s"), CLIENT), Forbidden)
    assert check(replace(START, schedule="s", tenant=TENANT), ENGINE) is None


@pytest.mark.parametrize(("record", "source"), [(COMPLETED, WORKER), (START, CLIENT), (TIMER, ENGINE)])
def test_a_record_in_the_wrong_partition_is_told_the_right_one(record: AnyRecord, source: Source) -> None:
    error = check(record, source, (HOME + 1) % 4)
    assert isinstance(error, WrongPartition)
    assert error.expected == HOME
