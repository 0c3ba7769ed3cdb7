"""The SDK's side of long values: what goes aside, when and in which order, how much at once, what answers mean."""

import asyncio
from collections.abc import Callable
from typing import Final

import pytest
from msgspec import Raw

from runtara.protocol.blobs import Blob, Carried, Part, PartRequest, blob_in, blob_of, decode_part
from runtara.protocol.errors import BlobCorrupt, BlobMissing, InternalError, Malformed, PlatformUnreachable
from runtara.protocol.limits import INLINE_BYTES, PART_BYTES
from runtara.protocol.records import Checkpointed, Parked
from runtara.sdk import Context, step, workflow
from runtara.sdk import blobs as under_test
from runtara.sdk.blobs import PARTS_AT_ONCE, Blobs
from runtara.sdk.testing import MemoryPlatform, assert_crash_safe
from tests.support.outlet import MemoryOutlet, execution, run

LONG: Final = b'"%b"' % (b"x" * (5 * PART_BYTES))


class Door:
    """A store of one value, that answers as the test wants."""

    def __init__(self, answer: Callable[[int], None] = lambda count: None) -> None:
        self.parts: dict[int, bytes] = {}
        self.order: list[int] = []
        self.at_once = self.most_at_once = self.asked = 0
        self._answer = answer

    async def put(self, message: bytes) -> None:
        part, data = decode_part(message)
        await self._work(part.n)
        self.parts[part.n] = data

    async def get(self, question: PartRequest) -> bytes:
        await self._work(question.n)
        return self.parts[question.n]

    async def _work(self, n: int) -> None:
        self.asked += 1
        self._answer(self.asked)
        self.order.append(n)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0.001)
        self.at_once -= 1


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "RETRY_SECONDS", 0.001)


async def stored(door: Door, text: bytes = LONG) -> Blob:
    blob = await Blobs(door, patient=True).put(text, key="k")
    assert blob == blob_of(text)
    return blob


async def read(door: Door, blob: Blob) -> bytes:
    return await Blobs(door, patient=False).text(Carried(Raw(b"null"), blob), instance="i-1", key="k")


@pytest.mark.parametrize(("size", "aside"), [(INLINE_BYTES, False), (INLINE_BYTES + 1, True)])
async def test_what_is_longer_than_64_kib_goes_aside(size: int, aside: bool) -> None:
    door = Door()
    carried = await Blobs(door, patient=True).carried(b"x" * size, key="k")
    assert (carried.blob is not None, door.asked) == (aside, int(aside))
    assert bytes(carried.text) == (b"null" if aside else b"x" * size)


async def test_the_last_part_is_sent_when_the_others_are_there_and_only_a_few_are_on_their_way() -> None:
    door = Door()
    blob = await stored(door)
    assert (blob.parts, sorted(door.order), door.order[-1]) == (6, [0, 1, 2, 3, 4, 5], 5)
    assert door.most_at_once == PARTS_AT_ONCE
    assert await read(door, blob) == LONG
    assert door.most_at_once == PARTS_AT_ONCE


async def test_an_attempt_waits_for_a_platform_that_cannot_answer_and_a_client_says_so() -> None:
    def away(count: int) -> None:
        if count in (1, 2, 4):
            raise PlatformUnreachable(reason="nobody there")
        if count == 3:
            raise InternalError(id="x")

    blob = await stored(Door(away), b"x" * 100_000)
    assert blob.parts == 1

    def gone(count: int) -> None:
        raise PlatformUnreachable(reason="nobody there")

    with pytest.raises(PlatformUnreachable):
        await Blobs(Door(gone), patient=False).put(b"x" * 100_000, key="k")


async def test_what_the_platform_refuses_is_raised_as_it_is() -> None:
    def refuse(count: int) -> None:
        raise Malformed(reason="no")

    for size in (100_000, 3 * PART_BYTES):
        with pytest.raises(Malformed, match="no"):
            await Blobs(Door(refuse), patient=True).put(b"x" * size, key="k")


async def test_a_wrong_value_is_never_handed_out() -> None:
    door = Door()
    blob = await stored(door)
    door.parts[3] = b"y" * PART_BYTES
    with pytest.raises(BlobCorrupt) as caught:
        await read(door, blob)
    assert (caught.value.instance, caught.value.key, caught.value.hash) == ("i-1", "k", blob.hash)
    door.parts[3] = b""
    with pytest.raises(BlobCorrupt):
        await read(door, blob)


async def test_a_missing_value_is_told_with_instance_key_and_hash() -> None:
    blob = await stored(Door())

    def missing(count: int) -> None:
        raise BlobMissing(instance="", key="", hash=blob.hash, reason="its part 2 is not stored")

    with pytest.raises(BlobMissing, match=rf"'k' of i-1 is gone \(its part 2 is not stored; SHA-256 {blob.hash}\)"):
        await read(Door(missing), blob)


@step
async def long(n: int) -> str:
    return f"{n}" * 100_000


@step
async def short(n: int) -> int:
    return n


@workflow
async def mixed(ctx: Context) -> int:
    """A long value and short ones at once: whose record comes first does not matter, numbers have no gap."""
    values = await asyncio.gather(long(1), short(1), long(2), short(2), short(3))
    return sum(len(str(value)) for value in values)


async def test_other_records_of_the_instance_go_on_while_a_value_is_stored() -> None:
    outlet = await run(mixed)  # which checks the numbers
    keys = [key.partition("~")[0] for key in outlet.keys]
    assert sorted(keys) == ["long", "long", "short", "short", "short"]
    assert keys[0] == "short"
    assert [blob_in(record.data) is not None for record in outlet.all(Checkpointed)] == [key == "long" for key in keys]
    assert outlet.result == 200_003


async def test_nothing_is_named_before_it_is_stored() -> None:
    outlet = MemoryOutlet()
    gate = asyncio.Event()
    put = outlet.stored.put

    async def slow(tenant: str, part: Part, data: bytes) -> None:
        await gate.wait()
        await put(tenant, part, data)

    outlet.stored.put = slow  # type: ignore[method-assign]
    attempt = asyncio.ensure_future(execution(mixed, outlet).run())
    await outlet.until(3)
    assert [key.partition("~")[0] for key in outlet.keys] == ["short"] * 3
    gate.set()
    await asyncio.wait_for(attempt, 10)
    assert outlet.result == 200_003


async def test_the_next_attempt_reads_what_was_stored_and_calls_nothing_again() -> None:
    first = await run(mixed)
    second, memos = MemoryOutlet(), first.memos()
    second.blobs = first.blobs
    await asyncio.wait_for(execution(mixed, second, memos=memos).run(), 10)
    assert (second.keys, second.result) == ([], 200_003)


@workflow
async def insists(ctx: Context) -> int:
    with pytest.raises(Malformed):
        await ctx.step("k", lambda: "x" * 100_000)
    with pytest.raises(Malformed):
        await ctx.checkpoint("c", "x" * 100_000)
    await ctx.checkpoint("c", "short")
    return len(await ctx.step("k", lambda: "x" * 100_000))


async def test_a_value_that_could_not_be_stored_leaves_its_key_free() -> None:
    outlet = MemoryOutlet()
    put, refusals = outlet.stored.put, iter(range(2))

    async def refuse(tenant: str, part: Part, data: bytes) -> None:
        if next(refusals, None) is not None:
            raise Malformed(reason="no")
        await put(tenant, part, data)

    outlet.stored.put = refuse  # type: ignore[method-assign]
    await asyncio.wait_for(execution(insists, outlet).run(), 10)
    outlet.check_numbers()
    assert (outlet.keys, outlet.result) == (["c", "k"], 100_000)


@workflow
async def parent(ctx: Context, value: str) -> int:
    child = await ctx.call(sized, value=value)
    again = await ctx.call(sized, value=value + "!")
    return child + again


@workflow
async def sized(ctx: Context, value: str) -> int:
    return len(value)


async def test_children_with_long_inputs_have_keys_of_their_own_and_are_found_again() -> None:
    outlet = MemoryOutlet()
    attempt = asyncio.ensure_future(execution(parent, outlet, {"value": "x" * 100_000}).run())
    await outlet.until(1)
    (asked,) = outlet.all(Parked)
    assert asked.child is not None
    assert asked.child.blob is not None
    assert len(asked.child.digest) == 16
    attempt.cancel()
    async with MemoryPlatform(parent, sized) as platform:
        handle = await platform.start(parent, value="x" * 100_000)
        await platform.settle()
        await platform.crash()
        assert await handle.result() == 200_001


@workflow
async def everything(ctx: Context, value: str) -> str:
    first = await long(1)
    await ctx.emit("told", value)
    saved = await ctx.checkpoint("saved", value)
    length = await ctx.call(sized, value=first + saved.state)
    return f"{length}" * 50_000


async def test_long_values_are_safe_whenever_the_process_dies() -> None:
    await assert_crash_safe(everything, value="x" * 100_000)
