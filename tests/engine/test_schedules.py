"""Schedules on real servers: one instance for each due time, whatever happens to engines, clocks and journals."""

import itertools
import logging
import time
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from runtara.engine import rebuild, registry, scheduler, schedules
from runtara.engine.cadence import SECOND_US, stamp
from runtara.infra.settings import Settings
from runtara.protocol.configuration import (
    ScheduleCreateRequest,
    ScheduleDefinition,
    ScheduleListReply,
    ScheduleListRequest,
    ScheduleRequest,
    ScheduleView,
)
from runtara.protocol.errors import (
    InvalidId,
    InvalidSchedule,
    Malformed,
    ScheduleConflict,
    ScheduleNotFound,
    StateTooLarge,
    UnknownWorkflow,
)
from runtara.protocol.limits import MAX_RECORD_VALUE_BYTES, MAX_SCHEDULE_NAME_LENGTH, SCHEDULE_RECENT
from runtara.protocol.records import Options, Start
from tests.support.peer import Peer, connect_peer
from tests.support.platform import running
from tests.support.polling import eventually

HOUR_US = 3_600 * SECOND_US


async def create(
    peer: Peer, name: str = "s", *, paused: bool = False, replace: bool = False, **fields: Any
) -> ScheduleView:
    """By default every hour, of `wf`."""
    fields.setdefault("workflow", "wf")
    if "cron" not in fields:
        fields.setdefault("every_us", HOUR_US)
    request = ScheduleCreateRequest(
        schedule=ScheduleDefinition(name=name, **fields), paused=paused, replace=replace, actor="alice"
    )
    return await peer.api("schedule_create", request, ScheduleView)


async def show(peer: Peer, name: str = "s") -> ScheduleView:
    return await peer.api("schedule_get", ScheduleRequest(name=name), ScheduleView)


async def ask(peer: Peer, verb: str, name: str = "s", type: Any = ScheduleView) -> Any:
    return await peer.api(f"schedule_{verb}", ScheduleRequest(name=name, actor="bob"), type)


async def make_due(peer: Peer, name: str = "s", *, tenant: str = "default") -> int:
    """Let an hourly one be due now, at its anchor; when that is."""
    statement = "UPDATE schedules SET next_due = anchor WHERE name = $1 AND tenant = $2 RETURNING next_due"
    return int(await peer.pool.fetchval(statement, name, tenant))


async def outage(peer: Peer, name: str = "s", *, minutes: int = 30) -> list[int]:
    """As if no engine had run for three hours and so many minutes; the times at which the hourly one was due."""
    created_at = await peer.pool.fetchval("SELECT created_at FROM schedules WHERE name = $1", name)
    anchor = created_at // SECOND_US * SECOND_US - 3 * HOUR_US - minutes * 60 * SECOND_US
    statement = "UPDATE schedules SET anchor = $1, next_due = $2 WHERE name = $3"
    await peer.pool.execute(statement, anchor, anchor + HOUR_US, name)
    return [anchor + n * HOUR_US for n in (1, 2, 3)]


async def instances(peer: Peer, name: str = "s", tenant: str = "default") -> list[str]:
    """What it has started, in the order of their ids."""
    rows = await peer.pool.fetch(
        "SELECT instance FROM events WHERE type = 'InstanceCreated' AND tenant = $1 AND instance LIKE $2 || '-%'"
        " ORDER BY instance",
        tenant,
        name,
    )
    return [row["instance"] for row in rows]


async def until_started(peer: Peer, count: int, name: str = "s") -> list[str]:
    async def there() -> list[str]:
        found = await instances(peer, name)
        return found if len(found) >= count else []

    return await eventually(there, within=20, what=f"{count} instances of {name}")


async def until_settled(peer: Peer, name: str = "s") -> ScheduleView:
    """Until nothing is due and it is known what became of all that was sent."""

    async def settled() -> bool:
        row = await peer.pool.fetchrow("SELECT * FROM schedules WHERE name = $1", name)
        assert row is not None
        return not row["sent"] and bool(row["paused"] or row["next_due"] > time.time_ns() // 1_000)

    await eventually(settled, within=20)
    return await show(peer, name)


async def until_problem(peer: Peer, part: str, name: str = "s") -> ScheduleView:
    async def told() -> ScheduleView:
        view = await show(peer, name)
        assert part in (view.problem or "")
        return view

    return await eventually(told, within=20, what=f"the problem {part!r}")


async def created(peer: Peer, instance: str) -> dict[str, Any]:
    (event,) = [event for event in await peer.events(instance) if event["type"] == "InstanceCreated"]
    return {**msgspec.json.decode(event["data"]), "actor": event["actor"]}


# when it is due


async def test_each_due_time_starts_one_instance_whose_id_says_which(platform: Peer) -> None:
    view = await create(platform, every_us=SECOND_US, overlap="allow", catch_up="all")
    found = await until_started(platform, 3)
    anchor = view.next_due_us - SECOND_US  # type: ignore[operator]
    assert found[:3] == [f"s-{stamp(anchor + n * SECOND_US)}" for n in (1, 2, 3)]
    await ask(platform, "pause")
    await platform.is_sound()


async def test_an_instance_is_started_as_the_definition_and_the_registration_say(platform: Peer) -> None:
    await platform.engine_says(0, platform.registered("wf", kind="docker", options=Options(restarts=3)))
    await create(platform, input=Raw(b'{"n":1}'), labels={"team": "red"})
    due = await make_due(platform)
    (instance,) = await until_started(platform, 1)
    assert instance == f"s-{stamp(due)}"
    event = await created(platform, instance)
    assert event["origin"] == "schedule"
    assert event["input"] == {"n": 1}
    assert event["labels"] == {"team": "red", "schedule": "s"}
    assert event["options"] == {"runner": "docker", "restarts": 3}
    view = await until_settled(platform)
    assert [(last.id, str(last.status)) for last in view.last] == [(instance, "queued")]
    assert view.problem is None


async def test_who_made_it_and_who_changed_it_is_kept(platform: Peer) -> None:
    view = await create(platform)
    assert (view.created_by, view.updated_by) == ("alice", "alice")
    view = await ask(platform, "pause")
    assert (view.created_by, view.updated_by) == ("alice", "bob")
    assert view.created_at < view.updated_at


async def test_it_is_shown_when_it_is_due_next(platform: Peer) -> None:
    view = await create(platform, every_us=None, cron="0  3 * * *", timezone="Europe/Zurich")
    assert view.schedule.cron == "0 3 * * *"
    assert view.upcoming[0] == view.next_due_us
    assert len(view.upcoming) == 5
    steps = [due - before for before, due in itertools.pairwise(view.upcoming)]
    assert all(23 * HOUR_US <= step <= 25 * HOUR_US for step in steps)


# what was missed


@pytest.mark.parametrize(
    ("fields", "made_up_for"),
    [
        ({"catch_up": "last"}, [2]),
        ({"catch_up": "none"}, []),
        ({"catch_up": "all", "overlap": "allow"}, [0, 1, 2]),
    ],
)
async def test_what_no_engine_started_is_made_up_for_as_asked(
    deployed: Settings, peer: Peer, fields: dict[str, Any], made_up_for: list[int]
) -> None:
    async with running(deployed):
        await peer.register("wf")
        await create(peer, **fields)
    missed = await outage(peer)
    async with running(deployed):
        view = await until_settled(peer)
        assert await instances(peer) == [f"s-{stamp(missed[n])}" for n in made_up_for]
        assert view.next_due_us == missed[2] + HOUR_US
        assert (view.problem or "").startswith("missed at") == (fields["catch_up"] == "none")
    await peer.is_sound()


# once, whatever happens


@pytest.mark.parametrize("partitions", [3])
async def test_two_engines_start_one_instance_for_each_due_time(deployed: Settings, peer: Peer) -> None:
    names = [f"n{n}" for n in range(6)]
    async with running(deployed), running(deployed):
        await peer.register("wf")
        for name in names:
            await create(peer, name, every_us=SECOND_US, overlap="allow", catch_up="all")
        for name in names:
            await until_started(peer, 3, name)
            await ask(peer, "pause", name)
            await until_settled(peer, name)
            row = await peer.pool.fetchrow("SELECT anchor, next_due FROM schedules WHERE name = $1", name)
            assert row is not None
            found = await instances(peer, name)
            dues = [row["anchor"] + n * SECOND_US for n in range(1, len(found) + 1)]
            assert found == [f"{name}-{stamp(due)}" for due in dues]
            assert row["next_due"] in (dues[-1], dues[-1] + SECOND_US)  # paused while one was on its way, or behind it
    assert await peer.rejected() == []
    await peer.is_sound()


async def test_a_start_that_is_sent_again_is_the_same_one(platform: Peer) -> None:
    """As by an engine that owned the partition before, and does not know that it was done."""
    await create(platform, overlap="allow")
    due = await make_due(platform)
    (instance,) = await until_started(platform, 1)
    await until_settled(platform)
    await platform.pool.execute("UPDATE schedules SET next_due = $1", due)
    view = await until_settled(platform)
    assert [last.id for last in view.last] == [instance]
    assert view.problem is None
    assert await platform.types(instance) == ["InstanceCreated", "InstanceQueued"]
    assert await platform.rejected() == []


async def test_a_start_that_nobody_noted_counts_after_an_outage(platform: Peer) -> None:
    """Its engine died before it could, and the next one finds that more was missed."""
    await create(platform)
    missed = await outage(platform)
    (first,) = await until_started(platform, 1)  # the last of the three
    await until_settled(platform)
    statement = "UPDATE schedules SET anchor = anchor + $1, next_due = $2, recent = '{}'"
    await platform.pool.execute(statement, 20 * 60 * SECOND_US, missed[2])
    view = await until_problem(platform, f"because {first} is queued")
    assert [last.id for last in view.last] == [first]
    assert await instances(platform) == [first]


async def test_a_start_that_was_lost_with_its_journal_is_sent_again(
    platform: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "RESEND_SECONDS", 0.1)
    await create(platform)
    await platform.pool.execute("UPDATE schedules SET sent = ARRAY['s-20261122T030000Z']")
    assert await until_started(platform, 1) == ["s-20261122T030000Z"]
    assert [last.id for last in (await until_settled(platform)).last] == ["s-20261122T030000Z"]


async def test_a_change_by_a_person_while_a_start_is_on_its_way_is_kept(platform: Peer) -> None:
    await create(platform, input=Raw(b'{"n":1}'))
    pool = platform.pool
    schedule = await schedules.load(pool, "default", "s")
    assert schedule is not None
    await create(platform, input=Raw(b'{"n":2}'), replace=True)
    await schedules.advance(pool, schedule, next_due=1, sent=["s-1"], problem="too late", now=2)
    after = await schedules.load(pool, "default", "s")
    assert after is not None
    assert (after.next_due > 1, bytes(after.input), after.problem) == (True, b'{"n":2}', None)
    assert after.sent == ["s-1"]


# side by side, or not


async def test_a_start_is_skipped_while_the_last_one_has_not_ended(platform: Peer) -> None:
    await create(platform)
    await make_due(platform)
    (first,) = await until_started(platform, 1)
    await until_settled(platform)
    missed = await outage(platform)
    view = await until_problem(platform, "skipped")
    assert view.problem == f"skipped at {stamp(missed[2])} because {first} is queued"
    assert await instances(platform) == [first]
    assert view.next_due_us == missed[2] + HOUR_US

    await (await platform.claim(first)).complete()
    missed = await outage(platform, minutes=20)
    assert await until_started(platform, 2) == sorted([first, f"s-{stamp(missed[2])}"])


async def test_one_that_was_started_by_hand_counts_as_well(platform: Peer) -> None:
    await create(platform)
    id = await ask(platform, "trigger", type=str)
    await make_due(platform)
    await until_problem(platform, f"because {id} is queued")
    assert await instances(platform) == [id]


async def test_only_if_allowed_do_they_run_side_by_side(platform: Peer) -> None:
    await create(platform, overlap="allow")
    await make_due(platform)
    await until_started(platform, 1)
    await outage(platform)
    await until_started(platform, 2)


async def test_it_remembers_the_last_ones_only(platform: Peer) -> None:
    await create(platform, overlap="allow", catch_up="all")
    statement = "UPDATE schedules SET anchor = anchor - $1, next_due = anchor - $1 + $2"
    await platform.pool.execute(statement, 30 * HOUR_US, HOUR_US)
    found = await until_started(platform, 30)
    await until_settled(platform)
    recent = await platform.pool.fetchval("SELECT recent FROM schedules")
    assert sorted(recent) == found[-SCHEDULE_RECENT:]


# people


async def test_while_it_is_paused_nothing_is_due_and_nothing_is_made_up_for(platform: Peer) -> None:
    await create(platform)
    view = await ask(platform, "pause")
    assert (view.paused, view.next_due_us, view.upcoming) == (True, None, [])
    await outage(platform)
    await create(platform, "other", every_us=SECOND_US)
    await until_started(platform, 1, "other")  # meanwhile the owner looked
    view = await ask(platform, "resume")
    assert not view.paused
    row = await platform.pool.fetchrow("SELECT * FROM schedules WHERE name = 's'")
    assert row is not None
    assert view.next_due_us == row["anchor"] + 4 * HOUR_US
    assert await instances(platform) == []
    assert (await ask(platform, "resume")).updated_at == view.updated_at  # it goes on already


async def test_it_can_be_made_paused_and_triggered_all_the_same(platform: Peer) -> None:
    await create(platform, paused=True)
    first, second = [await ask(platform, "trigger", type=str) for _ in range(2)]
    assert first != second
    assert await instances(platform) == [first, second]
    assert first.startswith("s-manual-2")
    event = await created(platform, first)
    assert (event["origin"], event["actor"], event["labels"]) == ("schedule", "bob", {"schedule": "s"})
    assert [last.id for last in (await show(platform)).last] == [second, first]


async def test_what_it_has_started_goes_on_when_it_is_deleted(platform: Peer) -> None:
    await create(platform)
    await make_due(platform)
    (instance,) = await until_started(platform, 1)
    await ask(platform, "delete", type=bool)
    assert await platform.status(instance) == "queued"
    for verb in ("get", "pause", "resume", "trigger", "delete"):
        with pytest.raises(ScheduleNotFound, match="no schedule 's' in tenant 'default'"):
            await ask(platform, verb)


async def test_the_same_again_changes_nothing_and_another_definition_is_a_conflict(platform: Peer) -> None:
    first = await create(platform, input=Raw(b'{"a": 1, "b": 2}'))
    assert await create(platform, input=Raw(b'{"b":2,"a":1}')) == first
    with pytest.raises(ScheduleConflict, match=r"exists already, with another interval and input; .*--replace"):
        await create(platform, every_us=2 * HOUR_US)
    assert await show(platform) == first


async def test_replaced_it_keeps_what_it_remembers_and_stays_paused(platform: Peer) -> None:
    before = await create(platform)
    id = await ask(platform, "trigger", type=str)
    await ask(platform, "pause")
    after = await create(platform, cron="0 3 * * *", replace=True)
    assert (after.schedule.cron, after.schedule.every_us, after.paused) == ("0 3 * * *", None, True)
    assert [last.id for last in after.last] == [id]
    assert (after.created_at, after.created_by) == (before.created_at, "alice")


async def test_an_interval_that_stays_goes_on_from_where_it_began(platform: Peer) -> None:
    before = await create(platform)
    await outage(platform)
    anchor = await platform.pool.fetchval("SELECT anchor FROM schedules")
    await create(platform, overlap="allow", replace=True)
    assert await platform.pool.fetchval("SELECT anchor FROM schedules") == anchor
    await create(platform, every_us=2 * HOUR_US, replace=True)
    assert await platform.pool.fetchval("SELECT anchor FROM schedules") >= before.created_at // SECOND_US * SECOND_US


async def test_lists_come_in_pages_by_name_with_filters(platform: Peer) -> None:
    await platform.register("wf", "other")
    for name in ("c", "a", "b"):
        await create(platform, name, labels={"team": name}, paused=name == "b")
    await create(platform, "d", workflow="other")

    async def names(**fields: Any) -> tuple[list[str], str | None]:
        reply = await platform.api("schedule_list", ScheduleListRequest(**fields), ScheduleListReply)
        return [view.schedule.name for view in reply.schedules], reply.next

    assert await names() == (["a", "b", "c", "d"], None)
    reply = await platform.api("schedule_list", ScheduleListRequest(limit=1), ScheduleListReply)
    assert bytes(reply.schedules[0].schedule.input) == b"null"  # as in lists of instances
    assert await names(limit=2) == (["a", "b"], "b")
    assert await names(limit=2, cursor="b") == (["c", "d"], None)
    assert await names(workflow="other") == (["d"], None)
    assert await names(paused=True) == (["b"], None)
    assert await names(paused=False, labels={"team": "c"}) == (["c"], None)


# what goes wrong


async def test_a_workflow_that_there_is_not_is_refused_with_the_nearest(
    platform: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "FOLD_SECONDS", 0.1)
    await platform.register("fulfil")
    with pytest.raises(UnknownWorkflow, match="did you mean 'fulfil'"):
        await create(platform, workflow="fulfill")
    assert await platform.pool.fetch("SELECT * FROM schedules") == []


async def test_a_workflow_that_was_forgotten_since_is_a_problem_and_the_schedule_stays(
    platform: Peer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(registry, "FOLD_SECONDS", 0.1)
    await create(platform)
    assert await platform.api("forget", "wf", bool)
    await platform.until_shown()
    due = await make_due(platform)
    with caplog.at_level(logging.WARNING):
        view = await until_problem(platform, "no worker has ever registered a workflow named 'wf'")
    assert (view.problem or "").startswith(f"s-{stamp(due)} was refused")
    assert "schedule_not_started" in caplog.text
    assert view.next_due_us == due + HOUR_US
    with pytest.raises(UnknownWorkflow):
        await ask(platform, "trigger")
    await platform.register("wf")
    missed = await outage(platform)
    assert await until_started(platform, 1) == [f"s-{stamp(missed[2])}"]


@pytest.mark.parametrize("workflow", ["wf", "other"])
async def test_somebody_elses_instance_of_that_id_is_a_problem_and_does_not_stop_the_schedule(
    platform: Peer, workflow: str
) -> None:
    """The very same start by somebody else is somebody else's, too."""
    await platform.register("wf", "other")
    await create(platform)
    anchor = await platform.pool.fetchval("SELECT anchor FROM schedules")
    foreign = f"s-{stamp(anchor)}"
    await platform.start(foreign, workflow)
    await make_due(platform)
    view = await until_problem(platform, f"{foreign} exists already, and this schedule has not started it")
    assert view.last == []
    missed = await outage(platform)
    assert f"s-{stamp(missed[2])}" in await until_started(platform, 2)


@pytest.mark.parametrize(
    ("fields", "error", "reason"),
    [
        ({"cron": "0 0 30 2 *"}, InvalidSchedule, "never due: month 2 has no day 30"),
        ({"cron": "0 3 * * *", "timezone": "Mars/Olympus"}, InvalidSchedule, "no time zone 'Mars/Olympus'"),
        ({"every_us": 1}, InvalidSchedule, "whole seconds"),
        ({"cron": "0 3 * * *", "every_us": HOUR_US}, InvalidSchedule, "either"),
        ({"every_us": HOUR_US, "timezone": "Europe/Zurich"}, InvalidSchedule, "elapsed time"),
        ({"name": "x" * (MAX_SCHEDULE_NAME_LENGTH + 1)}, InvalidSchedule, "99 characters"),
        ({"name": "a.b"}, InvalidId, "not a legal schedule"),
        ({"workflow": "a b"}, InvalidId, "not a legal workflow"),
        ({"catch_up": "all"}, InvalidSchedule, "needs overlap allow"),
        ({"labels": {"schedule": "mine"}}, InvalidSchedule, "its own"),
        ({"labels": {f"l{n}": "" for n in range(32)}}, Malformed, "more than 32 labels"),
        ({"labels": {"a": "b\x00"}}, Malformed, "control characters"),
        ({"input": Raw(b"[1]")}, InvalidSchedule, "not one JSON object"),
        ({"input": Raw(b'{"a":' + b"[" * 200 + b"]" * 200 + b"}")}, InvalidSchedule, "nested"),
        ({"input": Raw(b'{"a":"' + b"x" * MAX_RECORD_VALUE_BYTES + b'"}')}, StateTooLarge, "the limit is"),
    ],
)  # fmt: skip
async def test_what_could_never_be_started_is_refused_before_it_is_stored(
    platform: Peer, fields: dict[str, Any], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        await create(platform, **fields)
    assert await platform.pool.fetch("SELECT * FROM schedules") == []


async def test_the_longest_name_gives_legal_ids(platform: Peer) -> None:
    name = "x" * MAX_SCHEDULE_NAME_LENGTH
    await create(platform, name)
    assert len(await ask(platform, "trigger", name, type=str)) == 128


async def test_one_that_an_engine_cannot_read_keeps_no_other_from_its_time(
    platform: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    await create(platform, "broken", cron="0 3 * * *")
    await create(platform, every_us=SECOND_US, overlap="allow")
    with caplog.at_level(logging.ERROR):
        await platform.pool.execute(
            "UPDATE schedules SET timezone = 'Mars/Olympus', next_due = 1 WHERE name = 'broken'"
        )
        await until_problem(platform, "no time zone 'Mars/Olympus'", "broken")
        before = len(await instances(platform))
        await until_started(platform, before + 2)
    assert caplog.text.count("schedule_unreadable") == 1
    assert (await show(platform, "broken")).upcoming == [1]


async def test_no_client_may_say_that_a_schedule_started_it(platform: Peer) -> None:
    answer = await platform.ask(Start(instance="i-1", id="c-1", workflow="wf", schedule="s"))
    assert answer.error is not None
    assert answer.error.code == "Forbidden"
    assert [row["code"] for row in await platform.rejected()] == ["Forbidden"]
    assert await platform.events("i-1") == []


# tenants, and what keeps the table


async def test_tenants_do_not_see_or_disturb_each_other(deployed: Settings, platform: Peer) -> None:
    async with connect_peer(deployed, tenant="acme") as acme:
        await acme.register("wf")
        await create(platform, input=Raw(b'{"whose":"default"}'))
        await create(acme, input=Raw(b'{"whose":"acme"}'))
        await create(platform, "mine")
        with pytest.raises(ScheduleNotFound):
            await show(acme, "mine")
        await ask(platform, "pause")
        assert not (await show(acme)).paused
        due = await make_due(acme, tenant="acme")

        async def started() -> list[str]:
            return await instances(acme, tenant="acme")

        assert await eventually(started) == [f"s-{stamp(due)}"]
        (event, *_) = await acme.events(f"s-{stamp(due)}")
        assert b"acme" in event["data"]
        await ask(acme, "delete", type=bool)
        assert (await show(platform)).paused
        assert await instances(platform) == []


async def test_rebuilding_the_projections_keeps_schedules(deployed: Settings, platform: Peer) -> None:
    await create(platform)
    await ask(platform, "trigger", type=str)
    await ask(platform, "pause")
    before = await platform.pool.fetch("SELECT * FROM schedules")
    await platform.pool.execute("DELETE FROM instances")
    async with platform.pool.acquire() as connection:
        assert (await rebuild.rebuild(connection)).differed == 1
    assert await platform.pool.fetch("SELECT * FROM schedules") == before
