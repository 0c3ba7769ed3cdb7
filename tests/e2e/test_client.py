"""What the client reads, and its blocking face."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from runtara.engine.service import Engine
from runtara.infra.settings import Settings
from runtara.protocol.api import WorkflowView
from runtara.protocol.errors import InvalidInput, NotConfirmed, PlatformUnreachable, ResultTimeout
from runtara.protocol.messages import Status
from runtara.runner.pool import Pool
from runtara.sdk import sync
from runtara.sdk.client import Client
from tests.support.peer import connect_peer
from tests.support.polling import eventually

from . import flows

pytestmark = pytest.mark.timeout(60)


async def test_a_workflow_is_started_with_its_own_parameters(client: Client, pool: Pool) -> None:
    handle = await client.start(flows.greet, name="ada")
    assert await handle.result(timeout=10) == "hello ADA"
    named = await client.start(flows.greet, name="bob", id="g-bob", labels={"who": "bob"})
    assert (named.id, await named.result(timeout=10)) == ("g-bob", "hello BOB")
    with pytest.raises(InvalidInput):
        await client.start(flows.greet, id="g-2", nome="bob")


async def test_lists_come_in_pages_and_can_be_narrowed(client: Client, pool: Pool) -> None:
    handles = [await client.start("greet", {"name": str(n)}, labels={"half": str(n % 2)}) for n in range(10)]
    await asyncio.gather(*(handle.result(timeout=10) for handle in handles))
    seen: list[str] = []
    cursor = None
    while True:
        page = await client.list(limit=4, cursor=cursor)
        seen += [view.id for view in page.instances]
        cursor = page.next
        if cursor is None:
            break
    assert sorted(seen) == sorted(handle.id for handle in handles)
    assert len((await client.list(labels={"half": "1"}, status="completed", workflow="greet")).instances) == 5
    assert (await client.list(status=Status.FAILED)).instances == []


async def test_the_workflows_and_their_hosts_are_known(client: Client, pool: Pool) -> None:
    async def are_shown() -> dict[str, WorkflowView]:  # when partition 0 has folded what the worker registered
        return {view.id: view for view in await client.workflows()}

    known = await eventually(are_shown)
    assert known.keys() >= {"greet", "count", "guarded", "fail", "crash", "rounds"}
    assert known["greet"].description == "One step."
    assert known["greet"].workers == list(pool.workers)


async def test_events_are_followed_to_the_end(client: Client, pool: Pool, tmp_path: Path) -> None:
    handle = await client.start("count", {"folder": str(tmp_path), "steps": 5, "pause": 0.05})
    async with asyncio.timeout(20):
        types = [event.type async for event in handle.events()]
    assert types == [
        "InstanceCreated", "InstanceQueued", "AttemptStarted", *["CheckpointSaved"] * 5, "InstanceCompleted",
    ]  # fmt: skip


async def test_the_tail_shows_everything_from_now_on(client: Client, pool: Pool) -> None:
    await (await client.start("greet", {"name": "before"}, id="before")).result(timeout=10)
    seen: list[tuple[str, str]] = []

    async def follow() -> None:
        async for event in client.tail():
            seen.append((event.instance, event.type))

    following = asyncio.create_task(follow())
    n = 0

    async def until_something_is_seen() -> bool:
        nonlocal n
        n += 1
        await (await client.start("greet", {"name": "x"}, id=f"after-{n}")).result(timeout=10)
        return any(type == "InstanceCompleted" for _, type in seen)

    await eventually(until_something_is_seen)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert "before" not in {instance for instance, _ in seen}


async def test_a_result_is_waited_for_as_long_as_said(client: Client, pool: Pool, tmp_path: Path) -> None:
    handle = await client.start("count", {"folder": str(tmp_path), "steps": 10_000, "pause": 0.05})
    with pytest.raises(ResultTimeout, match=r"still running after 0\.2 s"):
        await handle.result(timeout=0.2)


async def test_without_an_engine_a_client_says_that_nobody_is_there(
    deployed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtara.sdk.client.CONNECT_SECONDS", 0.5)
    with pytest.raises(PlatformUnreachable):
        await Client(deployed)


async def test_a_command_that_is_stored_but_not_answered_is_not_confirmed(
    deployed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(deployed)
    await engine.__aenter__()
    async with Client(deployed) as client:
        await engine.__aexit__(None, None, None)
        with pytest.raises(NotConfirmed):
            await client.pause("a", timeout=0.5)


async def test_a_fork_that_is_stored_but_not_answered_is_not_confirmed_and_there_later(
    client: Client, pool: Pool, deployed: Settings
) -> None:
    await (await client.start(flows.greet, name="ada", id="source")).result(timeout=20)
    async with connect_peer(deployed) as peer:
        async with peer.pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT id FROM partitions FOR UPDATE")  # nothing can be committed
            with pytest.raises(NotConfirmed, match="later"):
                await client.fork("source", new_id="later", timeout=1.5)
        await peer.until_status("later", "completed")


async def test_a_fork_that_no_engine_was_there_to_make_says_so(deployed: Settings) -> None:
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(AsyncExitStack())
        await engine.enter_async_context(Engine(deployed))
        client = await stack.enter_async_context(Client(deployed))
        await engine.aclose()
        with pytest.raises(PlatformUnreachable):
            await client.fork("source", timeout=1.0)


async def test_the_blocking_client_does_the_same(client: Client, pool: Pool, deployed: Settings) -> None:
    def program() -> tuple[str, str, list[str]]:
        with sync.Client.connect(deployed) as blocking:
            handle = blocking.start(flows.greet, name="ada")
            result, fork = handle.result(timeout=10), handle.fork()
            return result, fork.result(timeout=10), [event.type for event in handle.history()]

    result, forked, types = await asyncio.to_thread(program)
    assert result == forked == "hello ADA"
    assert types[-1] == "InstanceCompleted"
