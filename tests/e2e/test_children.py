"""Children on real servers: in several partitions, many at once, ends and cancellations in both directions."""

import asyncio
from dataclasses import replace

import pytest

from runtara.infra.settings import Settings
from runtara.protocol.errors import InstanceNotFound, WorkflowCancelled
from runtara.protocol.ids import partition_of
from runtara.protocol.limits import MAX_CHILD_DEPTH
from runtara.protocol.messages import Status
from runtara.runner.pool import Pool
from runtara.sdk.client import Client
from tests.support.polling import eventually

from .test_waits import types, until

pytestmark = pytest.mark.timeout(90)

PARTITIONS = 4


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, partitions=PARTITIONS, journal_max_bytes=16 * 1024 * 1024)


async def test_a_parent_waits_for_children_in_all_partitions(client: Client, pool: Pool) -> None:
    handle = await client.start("fan_out", {"count": 20})
    assert await handle.result(timeout=30) == 380
    page = await client.list(workflow="double")
    assert {view.parent.instance for view in page.instances if view.parent is not None} == {handle.id}
    assert len({partition_of("default", view.id, PARTITIONS) for view in page.instances}) > 1
    seen = await types(handle)
    assert (seen["ChildRequested"], seen["ChildCompleted"], seen["WaitResolved"]) == (20, 20, 20)


async def test_a_thousand_children_are_joined(client: Client, pool: Pool) -> None:
    handle = await client.start("fan_out", {"count": 1_000})
    assert await handle.result(timeout=60) == 999_000


async def test_a_parent_that_has_left_is_woken_by_the_end_of_its_child(client: Client, pool: Pool) -> None:
    handle = await client.start("parent", {"child": "c-1"})
    await until(handle, Status.WAITING)
    await eventually_exists(client, "c-1")
    await client.signal("c-1", "item", 5)
    assert await handle.result(timeout=20) == "got [5]"


async def eventually_exists(client: Client, id: str) -> None:
    async def exists() -> bool:
        try:
            return (await client.get(id)).status is Status.WAITING
        except InstanceNotFound:
            return False

    await eventually(exists)


async def test_a_cancelled_child_is_an_error_of_its_own_to_the_parent(client: Client, pool: Pool) -> None:
    handle = await client.start("parent", {"child": "c-1"})
    await eventually_exists(client, "c-1")
    await client.cancel("c-1")
    assert await handle.result(timeout=20) == "cancelled"


async def test_a_cancelled_parent_cancels_its_child(client: Client, pool: Pool) -> None:
    handle = await client.start("parent", {"child": "c-1"})
    await eventually_exists(client, "c-1")
    await handle.cancel()
    with pytest.raises(WorkflowCancelled):
        await client.handle("c-1").result(timeout=20)


async def test_a_child_that_is_to_be_left_outlives_its_parent(client: Client, pool: Pool) -> None:
    handle = await client.start("parent", {"child": "c-1", "on_end": "leave"})
    assert await handle.result(timeout=20) == "c-1"
    await eventually_exists(client, "c-1")
    found = await client.list(labels={"parent": handle.id})
    assert [view.id for view in found.instances] == ["c-1"]
    await client.signal("c-1", "item", 5)
    assert await client.handle("c-1").result(timeout=20) == [5]


async def test_a_parent_ends_after_the_child_that_it_is_to_wait_for(client: Client, pool: Pool) -> None:
    handle = await client.start("parent", {"child": "c-1", "on_end": "wait"})
    await until(handle, Status.WAITING)
    await eventually_exists(client, "c-1")
    await client.signal("c-1", "item", 5)
    assert await handle.result(timeout=20) == "c-1"


async def test_a_child_that_fails_or_cannot_be_started_is_an_error_to_the_parent(client: Client, pool: Pool) -> None:
    failed, unknown = await asyncio.gather(
        client.start("unlucky_parent", {"child": "fail"}), client.start("unlucky_parent", {"child": "fali"})
    )
    assert await failed.result(timeout=20) == "ValueError: it had to"
    assert (await unknown.result(timeout=20)).startswith("UnknownWorkflow: no worker has ever registered")


async def test_the_id_of_somebody_else_is_no_child(client: Client, pool: Pool) -> None:
    """Also a cycle of children by ids: the one that would close it is refused."""
    taken = await client.start("collect", {"count": 1}, id="c-1")
    handle = await client.start("parent", {"child": "c-1"})
    with pytest.raises(Exception, match="StartConflict"):
        await handle.result(timeout=20)
    assert (await taken.get()).status is not Status.CANCELLED
    cycle = await client.start("parent", {"child": "p-1"}, id="p-1")
    with pytest.raises(Exception, match="StartConflict"):
        await cycle.result(timeout=20)


async def test_workflows_that_call_each_other_in_a_circle_fail_with_the_reason(client: Client, pool: Pool) -> None:
    handle = await client.start("circle", {})
    with pytest.raises(Exception, match="ChildTooDeep"):
        await handle.result(timeout=60)
    ended = await client.list(workflow="circle", limit=100)
    assert {view.status for view in ended.instances} == {Status.FAILED}
    assert len(ended.instances) == MAX_CHILD_DEPTH + 1


async def test_a_retried_parent_gets_a_new_child_for_the_one_that_failed(client: Client, pool: Pool) -> None:
    handle = await client.start("collect_from_failing", {})
    with pytest.raises(Exception, match="ChildFailed"):
        await handle.result(timeout=20)
    await handle.retry()
    with pytest.raises(Exception, match="ChildFailed"):
        await handle.result(timeout=20)
    children = [view.id for view in (await client.list(workflow="fail")).instances]
    assert len(set(children)) == 2
