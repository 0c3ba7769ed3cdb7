"""The outbox: what one instance has others do arrives in their partition, in order, once in effect."""

import msgspec
import pytest
from msgspec import Raw

from runtara.engine import sql
from runtara.infra.settings import Settings
from runtara.protocol.ids import child_id
from runtara.protocol.records import Cancel, ChildRequest, Completed, Parent, Parked, Start, Suspended
from tests.support.peer import Held, Peer
from tests.support.platform import running
from tests.support.polling import eventually

pytestmark = pytest.mark.parametrize("partitions", [4])


async def ask_for_child(held: Held, key: str = "kid", workflow: str = "wf") -> str:
    """Request a child and leave memory; its id."""
    request = ChildRequest(workflow=workflow, input=Raw(b'{"n":1}'))
    await held.commit(
        held.record(Parked, key=key, kind="child", child=request),
        held.record(Suspended, reason="parked", keys=(key,)),
    )
    return child_id(held.instance, key)


def parent_of_another_partition(peer: Peer) -> str:
    """A parent's id whose child (under "kid") lives in another partition."""
    candidates = (f"parent-{n}" for n in range(100))
    return next(id for id in candidates if peer.partition(id) != peer.partition(child_id(id, "kid")))


async def test_a_child_is_started_in_its_own_partition_and_its_result_wakes_the_parent(platform: Peer) -> None:
    parent = parent_of_another_partition(platform)
    child = await ask_for_child(await platform.started(parent))
    await platform.until_status(child, "queued")
    assert (await platform.get(child)).parent is not None
    held = await platform.claim(child)
    assert bytes(held.answer.input) == b'{"n":1}'
    await held.commit(held.record(Completed, result=Raw(b'"grown up"')))
    await platform.until_status(parent, "queued")
    again = await platform.claim(parent, attempt=2)
    memo = again.answer.memos[-1]
    assert (memo.key, memo.type, msgspec.json.decode(memo.data)["data"]) == ("kid", "WaitResolved", "grown up")
    await platform.until_sent()
    await platform.is_sound()


async def test_a_child_that_cannot_be_started_tells_its_parent_why(platform: Peer) -> None:
    parent = parent_of_another_partition(platform)
    await ask_for_child(await platform.started(parent), workflow="nobody-knows")
    await platform.until_status(parent, "queued")
    again = await platform.claim(parent, attempt=2)
    assert msgspec.json.decode(again.answer.memos[-1].data)["error"]["code"] == "UnknownWorkflow"


async def test_a_child_of_the_same_partition_that_cannot_be_started_tells_its_parent_why(
    platform: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That may be folded before the request for it has left the outbox."""
    monkeypatch.setattr(sql, "DROP_OUTBOX", f"{sql.DROP_OUTBOX} AND (SELECT pg_sleep(0.2) IS NOT NULL)")
    candidates = (f"parent-{n}" for n in range(100))
    parent = next(id for id in candidates if platform.partition(id) == platform.partition(child_id(id, "kid")))
    held = await platform.started(parent)
    await held.commit(held.record(Parked, key="kid", kind="child", child=ChildRequest(workflow="nobody-knows")))
    await platform.until_type(parent, "ChildFailed")
    child = await platform.get(child_id(parent, "kid"))
    assert (child.status, child.error and child.error.code) == ("failed", "UnknownWorkflow")


async def test_a_child_that_could_not_be_started_is_not_started_by_the_same_request_later(platform: Peer) -> None:
    """Its request may leave the outbox twice, and its workflow may be registered in between."""
    parent = parent_of_another_partition(platform)
    child = await ask_for_child(await platform.started(parent), workflow="comes-late")
    await platform.until_type(parent, "ChildFailed")
    await platform.register("comes-late")
    (asked,) = [event for event in await platform.events(child) if event["type"] == "InstanceCreated"]
    again = Start(
        instance=child, id=asked["command"], tenant=platform.tenant, workflow="comes-late", input=Raw(b'{"n":1}'),
        parent=Parent(instance=parent, key="kid"),
    )  # fmt: skip
    partition = platform.partition(child)
    await platform.folded(await platform.engine_says(partition, again), partition)
    assert [event["type"] for event in await platform.events(child)] == ["InstanceCreated", "InstanceFailed"]
    assert len([event for event in await platform.events(parent) if event["type"] == "ChildFailed"]) == 1


async def test_a_child_ends_with_its_cancelled_parent(platform: Peer) -> None:
    parent = parent_of_another_partition(platform)
    child = await ask_for_child(await platform.started(parent))
    await platform.until_status(child, "queued")
    await platform.ask(Cancel(instance=parent, id="c-1"))
    await platform.until_status(child, "cancelled")


async def test_a_start_and_the_cancel_behind_it_arrive_in_this_order(platform: Peer) -> None:
    """Else the cancel finds nobody, and the child outlives its parent."""
    parents = [f"parent-{n}" for n in range(20)]
    for parent in parents:
        held = await platform.started(parent)
        await held.publish(
            *(held.record(Parked, key=f"k-{n}", kind="child", child=ChildRequest(workflow="wf")) for n in range(3))
        )
        await platform.say(Cancel(instance=parent, id=f"c-{parent}"))
        await held.publish(held.record(Suspended, reason="parked", keys=("k-0", "k-1", "k-2")))

    async def all_cancelled() -> bool:
        statuses = await platform.pool.fetch("SELECT status, count(*) AS n FROM instances GROUP BY status")
        return {row["status"]: row["n"] for row in statuses} == {"cancelled": 80}

    await eventually(all_cancelled, within=20)


async def test_what_a_former_engine_could_not_send_the_next_one_sends_once_in_effect(
    deployed: Settings, peer: Peer
) -> None:
    parent = parent_of_another_partition(peer)
    async with running(deployed):
        await peer.register("wf")
        child = await ask_for_child(await peer.started(parent))
        await peer.until_status(child, "queued")
        await peer.until_sent()
    # as if it had died between the journal's acknowledgement and the deletion of the row
    record = {
        "type": "start", "instance": child, "id": (await peer.events(child))[0]["command"], "tenant": "default",
        "workflow": "wf", "input": {"n": 1}, "parent": {"instance": parent, "key": "kid"},
    }  # fmt: skip
    await peer.pool.execute(
        "INSERT INTO outbox (partition, sequence, n, target, record) VALUES ($1, 1, 0, $2, $3)",
        peer.partition(parent), peer.partition(child), msgspec.json.encode(record),
    )  # fmt: skip
    before = await peer.cursor(peer.partition(child))
    async with running(deployed):
        await peer.until_sent()
        await peer.folded(before + 2, peer.partition(child))  # the new owner's word, and the start again
        assert await peer.types(child) == ["InstanceCreated", "InstanceQueued"]
        held = await peer.claim(child)
        await held.complete()
        await peer.until_status(parent, "queued")
