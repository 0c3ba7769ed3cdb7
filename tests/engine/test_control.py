"""Control is a hint, state is the truth: what a worker has not answered is said again until it has."""

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from runtara.engine.lifecycle import control as lifecycle_control
from runtara.protocol.messages import Heartbeat
from runtara.protocol.records import Cancel, Parked, Pause, Resume, Signal, Suspended
from tests.support.peer import Inbox, Peer


async def control(peer: Peer, worker: str = "w1") -> Inbox:
    """What the worker is told from now on."""
    inbox = peer.inbox()
    await peer.bus.subscribe(peer.subjects.control("default", worker), lambda msg: inbox.messages.put_nowait(msg.data))
    await peer.bus.flush()
    return inbox


async def beat(peer: Peer, worker: str = "w1") -> None:
    await peer.bus.publish(peer.subjects.heartbeat("default", worker), msgspec.json.encode(Heartbeat(worker=worker)))


async def told(inbox: Inbox, kind: str) -> dict[str, Any]:
    """The next message, which must be of that kind."""
    message = await inbox.next(dict[str, Any])
    assert message["type"] == kind
    return message


async def test_a_pause_is_repeated_on_every_heartbeat_until_it_is_obeyed(platform: Peer) -> None:
    held = await platform.started("i-1")
    inbox = await control(platform)
    await platform.ask(Pause(instance="i-1", id="p-1"))
    await told(inbox, "pause")
    for _ in range(3):
        await beat(platform)
        assert (await told(inbox, "pause"))["nonce"] == held.nonce
    await held.commit(held.record(Suspended, reason="pause"))
    assert await platform.status("i-1") == "paused"
    await beat(platform)
    other = await platform.started("i-2")
    await platform.ask(Cancel(instance="i-2", id="c-1"))
    assert (await told(inbox, "cancel"))["nonce"] == other.nonce  # and no more of the pause before it


async def test_a_pause_that_was_taken_back_is_said_to_be(platform: Peer) -> None:
    held = await platform.started("i-1")
    inbox = await control(platform)
    await platform.ask(Pause(instance="i-1", id="p-1"))
    await told(inbox, "pause")
    await platform.ask(Resume(instance="i-1", id="r-1"))
    await told(inbox, "resume")
    # its answer to the pause was under way: it is queued again, not paused for ever
    await held.commit(held.record(Suspended, reason="pause"))
    assert await platform.status("i-1") == "queued"


async def test_a_signal_reaches_a_waiting_resident_with_its_memo(platform: Peer) -> None:
    held = await platform.started("i-1")
    inbox = await control(platform)
    await held.commit(held.record(Parked, key="go", kind="signal", name="go"))
    await platform.ask(Signal(instance="i-1", id="g-1", name="go", data=Raw(b'{"x":1}')))
    memo = (await told(inbox, "resolved"))["memo"]
    assert (memo["key"], memo["type"], memo["data"]["data"]) == ("go", "WaitResolved", {"x": 1})
    await beat(platform)
    assert (await told(inbox, "resolved"))["memo"] == memo


async def test_a_worker_that_ignores_a_cancel_loses_the_instance_after_the_grace(
    platform: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle_control, "CANCEL_GRACE_SECONDS", 0.3)
    held = await platform.started("i-1")
    inbox = await control(platform)
    await platform.ask(Cancel(instance="i-1", id="c-1", reason="enough"))
    assert (await told(inbox, "cancel"))["reason"] == "enough"
    await platform.until_status("i-1", "cancelled")
    assert (await told(inbox, "superseded"))["nonce"] == held.nonce
    assert (await held.commit(held.step("late"))).rejected != []
