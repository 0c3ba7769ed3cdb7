"""The API: every verb, what it says to bad questions, and that it keeps its own troubles to itself."""

import asyncio
import logging
from typing import Any

import msgspec
import pytest

from runtara.engine import queries
from runtara.infra.settings import Settings
from runtara.protocol.api import (
    EventsReply,
    EventsRequest,
    Info,
    InstanceView,
    ListReply,
    ListRequest,
    MemosReply,
    RegisterRequest,
    Registration,
    Reply,
    TailReply,
    TailRequest,
)
from runtara.protocol.errors import (
    InstanceNotFound,
    InternalError,
    InvalidId,
    Malformed,
    PlatformUnreachable,
    RuntaraError,
    UnknownWorkflow,
)
from runtara.protocol.messages import Heartbeat, Status
from runtara.protocol.records import Start
from tests.support.peer import Peer, connect_peer
from tests.support.polling import eventually


async def ask(peer: Peer, verb: str, payload: bytes, instance: str | None = None) -> Reply:
    """Any bytes as a question."""
    return msgspec.json.decode(
        await peer.bus.request(peer.subjects.api("default", verb, instance), payload), type=Reply
    )


@pytest.mark.parametrize("partitions", [3])
async def test_info_says_what_nobody_may_guess(platform: Peer) -> None:
    info = await platform.api("info", {}, Info)
    assert info.partitions == 3
    assert info.deployment == await platform.pool.fetchval("SELECT id FROM deployment")


async def test_register_answers_with_a_queue_for_each_workflow(platform: Peer) -> None:
    first = await platform.register("a", "b")
    again = await platform.register("b", "a", worker="w2")
    assert first == again
    assert first.stream == platform.subjects.run_stream
    assert len(set(first.consumers.values())) == 2
    for consumer in first.consumers.values():
        info = msgspec.json.decode(await platform.bus.jetstream(f"CONSUMER.INFO.{first.stream}.{consumer}"))
        assert info["config"]["ack_wait"] == 2_000_000_000


async def test_register_replaces_what_was_registered_before(platform: Peer) -> None:
    for version in ("v1", "v2"):
        workflow = Registration(workflow="wf", code_version=version, description=f"as of {version}")
        await platform.api("register", RegisterRequest(worker="w1", workflows=[workflow]), dict)
    await platform.start("i-1")  # answered behind it
    (view,) = await platform.workflows()
    assert (view.code_version, view.description, view.workers) == ("v2", "as of v2", ["w1"])


@pytest.mark.parametrize(
    "request_",
    [
        RegisterRequest(worker="a.b", workflows=[]),
        RegisterRequest(worker="w1", workflows=[Registration(workflow="a>")]),
        RegisterRequest(worker="w1", workflows=[Registration(workflow="x" * 200)]),
        RegisterRequest(worker="w1", workflows=[Registration(workflow="wf", kind="*")]),
    ],
)
async def test_nothing_is_registered_under_an_illegal_id(platform: Peer, request_: RegisterRequest) -> None:
    with pytest.raises(InvalidId):
        await platform.api("register", request_, dict)
    await platform.start("i-1")
    assert [view.id for view in await platform.workflows()] == ["wf"]


async def test_workflows_are_forgotten_on_request(platform: Peer) -> None:
    await platform.until_shown("wf")
    assert await platform.api("forget", "wf", bool) is True
    answer = await platform.start("i-1")
    assert answer.error is not None
    assert await platform.workflows() == []
    with pytest.raises(UnknownWorkflow):
        await platform.api("forget", "wf", bool)


async def test_get_shows_an_instance_and_says_if_there_is_none(platform: Peer) -> None:
    held = await platform.started("i-1")
    view = await platform.get("i-1")
    assert (view.status, view.worker, view.attempt, view.version) == (Status.RUNNING, "w1", 1, 3)
    await held.complete(b'{"x":1}')
    view = await platform.get("i-1")
    assert (view.status, view.worker, bytes(view.result)) == (Status.COMPLETED, None, b'{"x":1}')
    with pytest.raises(InstanceNotFound, match="'nobody'"):
        await platform.get("nobody")


async def test_lists_come_newest_first_in_pages_and_narrowed(platform: Peer) -> None:
    await platform.register("wf", "other")
    for n in range(7):
        await platform.ask(
            Start(instance=f"i-{n}", id=f"s-{n}", workflow="other" if n == 3 else "wf", labels={"odd": str(n % 2)})
        )
    seen: list[str] = []
    cursor = None
    for _ in range(4):
        page = await platform.api("list", ListRequest(limit=2, cursor=cursor), ListReply)
        seen += [view.id for view in page.instances]
        cursor = page.next
    assert seen == [f"i-{n}" for n in range(6, -1, -1)]
    assert cursor is None

    async def ids(**filters: Any) -> list[str]:
        return [view.id for view in (await platform.api("list", ListRequest(**filters), ListReply)).instances]

    assert await ids(workflow="other") == ["i-3"]
    assert await ids(labels={"odd": "1"}) == ["i-5", "i-3", "i-1"]
    assert await ids(status=Status.RUNNING) == []
    assert await ids(limit=-5) == ["i-6"]


async def test_events_come_in_pages_and_none_of_nobody(platform: Peer) -> None:
    held = await platform.started("i-1")
    await held.commit(*(held.step(f"k-{n}") for n in range(10)))
    page = await platform.api("events", EventsRequest(after=3, limit=4), EventsReply, "i-1")
    assert ([event.key for event in page.events], page.more) == ([f"k-{n}" for n in range(4)], True)
    page = await platform.api("events", EventsRequest(after=11), EventsReply, "i-1")
    assert ([event.version for event in page.events], page.more) == ([12, 13], False)
    assert (await platform.api("events", EventsRequest(after=99), EventsReply, "i-1")).events == []
    with pytest.raises(InstanceNotFound):
        await platform.api("events", EventsRequest(), EventsReply, "nobody")


async def test_a_page_of_large_events_fits_into_an_answer(platform: Peer) -> None:
    held = await platform.started("i-1")
    for n in range(4):
        await held.commit(held.step(f"k-{n}", b'"%s"' % (b"x" * 3_000_000)))
    after, keys = 0, []
    more = True
    while more:
        page = await platform.api("events", EventsRequest(after=after), EventsReply, "i-1")
        keys += [event.key for event in page.events if event.key]
        after, more = page.events[-1].version, page.more
    assert keys == ["k-0", "k-1", "k-2", "k-3"]


@pytest.mark.parametrize("partitions", [3])
async def test_tail_follows_the_whole_tenant_and_no_other(platform: Peer, deployed: Settings) -> None:
    await platform.start("before")
    start = await platform.api("tail", TailRequest(), TailReply)
    assert start.events == []
    async with connect_peer(deployed, tenant="other") as other:
        await other.register("wf")
        await other.start("foreign")
    for n in range(6):
        await platform.start(f"i-{n}")
    page = await platform.api("tail", TailRequest(after=start.after), TailReply)
    assert {event.instance for event in page.events} == {f"i-{n}" for n in range(6)}
    assert len(page.events) == 12
    assert (await platform.api("tail", TailRequest(after=page.after), TailReply)).events == []


async def test_memos_of_nobody_are_not_found(platform: Peer) -> None:
    with pytest.raises(InstanceNotFound):
        await platform.api("memos", {"after": 0}, MemosReply, "nobody")


BAD = [b"[", b"\xff", b"[]", b'"x"', b"7", b'{"limit":"many"}', b'{"after":"x"}', b'{"cursor":5}', b"[" * 100_000]


@pytest.mark.parametrize(
    ("verb", "instance"),
    [(v, None) for v in ("register", "list", "tail", "forget")] + [(v, "i-1") for v in ("events", "memos", "position")],
)
async def test_a_bad_question_gets_a_clear_answer(platform: Peer, verb: str, instance: str | None) -> None:
    await platform.start("i-1")
    for payload in BAD:
        reply = await ask(platform, verb, payload, instance)
        if reply.error is not None:
            assert reply.error.code in ("Malformed", "UnknownWorkflow", "InvalidId"), (payload[:20], reply.error)
            assert reply.error.message
        else:
            assert payload not in (b"[", b"\xff", b"[]"), payload
    assert (await platform.get("i-1")).id == "i-1"


@pytest.mark.parametrize("cursor", ["nonsense", "é", "MTIz", "", "MS8="])
async def test_a_cursor_that_list_did_not_give_out_is_refused_or_empty(platform: Peer, cursor: str) -> None:
    try:
        page = await platform.api("list", ListRequest(cursor=cursor), ListReply)
    except Malformed:
        return
    assert page.instances == []


@pytest.mark.parametrize("number", [2**31, 2**63, -(2**63), 2**70])
async def test_a_number_beyond_all_versions_is_no_internal_error(platform: Peer, number: int) -> None:
    await platform.start("i-1")
    for verb, field in (("events", "after"), ("memos", "after"), ("position", "seq")):
        question = msgspec.json.encode({field: 0})[:-2] + str(number).encode() + b"}"
        if verb == "position":
            question = b'{"attempt":%d,"nonce":"n","seq":%d}' % (number, number)
        reply = await ask(platform, verb, question, "i-1")
        assert reply.error is None or reply.error.code == "Malformed", (verb, reply.error)
    reply = await ask(platform, "tail", b'{"after":{"0":%d}}' % number)
    assert reply.error is None or reply.error.code == "Malformed"
    reply = await ask(platform, "list", b'{"limit":%d}' % number)
    assert reply.error is None or reply.error.code == "Malformed"


async def test_a_filter_that_no_row_can_match_finds_nothing_or_is_refused(platform: Peer) -> None:
    for question in (b'{"workflow":"a\\u0000b"}', b'{"labels":{"a":"\\u0000"}}', b'{"labels":{"":""}}'):
        reply = await ask(platform, "list", question)
        assert reply.error is None or reply.error.code == "Malformed", reply.error


async def test_a_subject_with_an_illegal_id_gets_a_clear_answer(platform: Peer) -> None:
    for tenant, instance in (("a$b", None), ("default", "i$1"), ("x" * 200, None), ("default", "x" * 200)):
        subject = platform.subjects.api(tenant, "get" if instance else "info", instance)
        with pytest.raises(InvalidId):
            await platform.bus.call(subject, {}, dict)


async def test_an_error_of_our_own_is_an_id_and_the_text_stays_in_the_log(
    platform: Peer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("secret text")

    monkeypatch.setattr(queries, "get", broken)
    with caplog.at_level(logging.ERROR), pytest.raises(InternalError) as caught:
        await platform.get("i-1")
    id = str(caught.value.attributes["id"])
    assert "secret" not in str(caught.value)
    assert any(id in str(record.__dict__) for record in caplog.records)
    assert "secret text" in caplog.text


async def test_without_its_database_the_engine_says_that_it_cannot_reach_it(
    platform: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise ConnectionRefusedError("nobody there")

    monkeypatch.setattr(queries, "get", away)
    with pytest.raises(PlatformUnreachable, match="database"):
        await platform.get("i-1")


async def test_a_hundred_questions_at_once_are_all_answered(platform: Peer) -> None:
    await platform.start("i-1")
    views = await asyncio.gather(*(platform.get("i-1") for _ in range(200)))
    assert {view.id for view in views} == {"i-1"}


async def test_a_question_that_is_not_understood_answers_only_whoever_asked(platform: Peer) -> None:
    await platform.bus.publish(platform.subjects.api("default", "list"), b"junk")  # nowhere to answer to
    assert isinstance(await platform.api("list", {}, ListReply), ListReply)


@pytest.mark.usefixtures("quick_watch")
async def test_workers_are_shown_while_they_are_heard(platform: Peer) -> None:
    await platform.pool.execute("UPDATE workers SET heard_at = heard_at - 60000000")
    (view,) = await platform.until_shown("wf")
    assert (view.workers, view.hosted_until is not None) == ([], True)

    async def shown() -> bool:
        await platform.bus.publish(
            platform.subjects.heartbeat("default", "w1"), msgspec.json.encode(Heartbeat(worker="w1"))
        )
        (view,) = await platform.workflows()
        return view.workers == ["w1"]

    await eventually(shown)


async def test_views_never_show_another_tenants_instance(platform: Peer, deployed: Settings) -> None:
    await platform.start("i-1")
    async with connect_peer(deployed, tenant="other") as other:
        for verb, answer in (("get", InstanceView), ("events", EventsReply), ("memos", MemosReply)):
            with pytest.raises(RuntaraError, match="no instance 'i-1'"):
                await other.api(verb, {}, answer, "i-1")
        assert (await other.api("list", {}, ListReply)).instances == []
