"""Whoever starts an instance may ask to be told of its end."""

import msgspec
from msgspec import Raw

from runtara.protocol.messages import Ended, Status
from runtara.protocol.records import Completed, Start
from tests.support.peer import Peer


async def test_the_starter_is_told_of_an_end_that_comes_soon(platform: Peer) -> None:
    inbox = platform.inbox()
    await platform.ask(Start(instance="i-1", id="s-1", workflow="wf", done=inbox.subject))
    held = await platform.claim("i-1")
    await held.commit(held.record(Completed, result=Raw(b'{"a":1}')))
    ended = await inbox.next(Ended)
    assert (ended.instance, ended.done.status, ended.done.result) == ("i-1", Status.COMPLETED, Raw(b'{"a":1}'))


async def test_nobody_is_told_in_an_inbox_of_another_tenant(platform: Peer) -> None:
    inbox = platform.inbox()
    await platform.bus.subscribe("_INBOX.victim.>", lambda msg: inbox.messages.put_nowait(msg.data))
    await platform.bus.flush()
    await platform.ask(Start(instance="i-1", id="s-1", workflow="wf", done="_INBOX.victim.c.ended"))
    held = await platform.claim("i-1")
    await held.complete()
    await platform.bus.flush()
    assert inbox.messages.empty()


async def test_where_the_end_is_told_is_no_part_of_the_log(platform: Peer) -> None:
    await platform.ask(Start(instance="i-1", id="s-1", workflow="wf", done=platform.inbox().subject))
    created = (await platform.events("i-1"))[0]
    assert b"_INBOX" not in created["data"]
    assert msgspec.json.decode(created["data"])["workflow"] == "wf"
