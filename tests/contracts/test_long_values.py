"""Values of every size, wherever a value can go, on the real platform and in memory: authors notice nothing."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from runtara.protocol.api import EventView
from runtara.protocol.errors import StateTooLarge
from runtara.protocol.limits import INLINE_BYTES, MAX_STATE_BYTES
from runtara.sdk import Context, step, workflow
from runtara.sdk.client import Client

from .conftest import Host

pytestmark = pytest.mark.timeout(120)
AT_ONCE = timedelta(0)
INLINE = INLINE_BYTES - 2  # characters of a text whose JSON is the longest that stays where it is
LONG = 200_000


@step
async def text(size: int) -> str:
    return "x" * size


@workflow
async def echo(ctx: Context, value: Any) -> Any:
    return value


@workflow(linger=AT_ONCE)
async def everywhere(ctx: Context, value: str) -> dict[str, int]:
    """Long values by every way in and out; it leaves memory in between, so the second half reads what was recorded."""
    first = await text(len(value))
    saved = await ctx.checkpoint("saved", {"state": value})
    await ctx.emit("told", {"value": value})
    given = await ctx.wait_signal("more")
    again = await text(len(value))
    child = await ctx.call(echo, value=value)
    return {
        "input": len(value), "step": len(first), "state": len(saved.state["state"]), "signal": len(given),
        "again": len(again), "child": len(child),
    }  # fmt: skip


@workflow(linger=AT_ONCE)
async def twice(ctx: Context, value: str, round: int) -> int:
    if round == 0:
        await ctx.continue_as(value=value + "y", round=1)
    return len(value)


@pytest.fixture
async def client(host: Host) -> AsyncIterator[Client]:
    async with host(everywhere, echo, twice) as client:
        yield client


async def log_of(client: Client, id: str) -> list[EventView]:
    return [event async for event in client.history(id)]


async def longest(client: Client, id: str) -> int:
    return max(len(event.data) for event in await log_of(client, id))


@pytest.mark.parametrize("size", [INLINE, INLINE + 1, 2_500_000])
async def test_a_value_comes_back_whatever_its_size_and_only_short_ones_are_in_the_log(
    client: Client, size: int
) -> None:
    handle = await client.start(echo, value="x" * size)
    assert await handle.result(timeout=30) == "x" * size
    inline = size == INLINE
    assert (await longest(client, handle.id) > INLINE) is inline
    view = await handle.get()
    assert (view.input_blob is None, view.result_blob is None) == (size + len('{"value":}') + 2 <= INLINE_BYTES, inline)
    whole = await client.with_values(view)
    assert bytes(whole.result) == b'"%b"' % (b"x" * size)
    assert bytes(whole.input) == b'{"value":"%b"}' % (b"x" * size)


async def test_long_values_go_by_every_way_and_are_read_again_by_the_next_attempt(client: Client) -> None:
    handle = await client.start(everywhere, value="v" * LONG, id="all")
    await handle.signal("more", "s" * (LONG + 1))
    expected = {"input": LONG, "step": LONG, "state": LONG, "signal": LONG + 1, "again": LONG, "child": LONG}
    assert await handle.result(timeout=60) == expected
    assert await longest(client, "all") < 1_000
    named = {event.type for event in await log_of(client, "all") if b'"blob":{"hash"' in bytes(event.data)}
    assert named == {
        "InstanceCreated", "CheckpointSaved", "CustomEvent", "SignalReceived", "WaitResolved", "ChildRequested",
        "ChildCompleted",
    }  # fmt: skip


async def test_a_signal_that_waits_to_be_asked_for_may_be_long(client: Client) -> None:
    handle = await client.start_or_signal(
        everywhere, value="v" * LONG, id="early", signal="more", data="s" * LONG
    )  # fmt: skip
    assert (await handle.result(timeout=60))["signal"] == LONG


async def test_an_instance_that_goes_on_as_another_takes_its_long_input_along(client: Client) -> None:
    handle = await client.start(twice, value="v" * LONG, round=0)
    assert await handle.result(timeout=30) == LONG + 1


async def test_the_same_start_again_is_the_same_instance_though_its_input_is_long(client: Client) -> None:
    one = await client.start(echo, value="v" * LONG, id="same")
    two = await client.start(echo, value="v" * LONG, id="same")
    assert await one.result(timeout=30) == await two.result(timeout=30)


async def test_a_fork_is_answered_with_long_values_and_may_be_given_some(client: Client) -> None:
    handle = await client.start(everywhere, value="v" * LONG, id="source")
    await handle.signal("more", "s" * LONG)
    await handle.result(timeout=60)
    key = next(event.key for event in await log_of(client, "source") if (event.key or "").startswith("text~"))
    forked = await handle.fork(
        set={key or "": "t" * (LONG + 5), "saved": {"state": "u" * (LONG + 6)}}, input={"value": "w" * LONG}
    )
    result = await forked.result(timeout=60)
    assert (result["step"], result["state"], result["signal"], result["input"]) == (LONG + 5, LONG + 6, LONG, LONG)
    assert await longest(client, forked.id) < 1_000


async def test_sixty_four_mebibytes_pass_and_a_byte_more_is_refused_before_anything_is_sent(client: Client) -> None:
    room = MAX_STATE_BYTES - len('{"value":""}')
    with pytest.raises(StateTooLarge, match=r"'input' has 67,108,865 bytes; the limit is 67,108,864"):
        await client.start(echo, value="x" * (room + 1), id="too-much")
    handle = await client.start(echo, value="x" * room, id="most")
    assert len(await handle.result(timeout=100)) == room
    assert [view.id for view in (await client.list()).instances] == ["most"]


async def test_many_long_values_at_once_are_all_their_own(client: Client) -> None:
    handles = [await client.start(echo, value=f"{n}" * 100_000) for n in range(9)]
    results = await asyncio.gather(*(handle.result(timeout=60) for handle in handles))
    assert results == [f"{n}" * 100_000 for n in range(9)]
