"""What type checkers see of the decorators: mypy reads the assertions, running them shows that they are no fiction."""

from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, assert_type

from runtara.sdk import Child, Context, Retry, Saved, Workflow, step, sync, workflow


@step
async def bare(order_id: str, amount: int = 1) -> float:
    return amount / 2


@step(key="{order_id}", retry=Retry(), timeout=timedelta(seconds=1), raises=(ValueError,), durability="log")
def optioned(order_id: str) -> list[str]:
    return [order_id]


class Gateway:
    @step(key="{order}")
    async def charge(self, order: str) -> int:
        return len(order)


@workflow
async def fulfil(ctx: Context, order_ids: list[str], rush: bool = False) -> str:
    assert_type(await bare("a", amount=2), float)
    assert_type(await ctx.step("k", bare, "a"), float)
    assert_type(await ctx.step("l", optioned, "a"), list[str])
    assert_type(await Gateway().charge("a"), int)
    assert_type(await ctx.checkpoint("c", {"a": 1}), Saved[dict[str, int]])
    assert_type(await ctx.now("n"), datetime)
    assert_type(await ctx.run_in_thread(optioned, "a"), list[str])
    await ctx.sleep(timedelta(days=1))
    await ctx.sleep("key", timedelta(days=1))
    assert_type(await ctx.wait_signal("s", type=int, timeout=timedelta(days=1)), int)
    assert_type(await ctx.wait_signal("s", key="again"), Any)
    assert_type(await ctx.call(named, count=1), int)
    assert_type(await ctx.call(named, 1, key="k"), int)
    assert_type(await ctx.call("named", {"count": 1}, id="i"), Any)
    child = await ctx.start_child(named, count=1)
    assert_type(child, Child[int])
    assert_type(await child.result(), int)
    assert_type(await ctx.start_child(blocking, count=2, on_end="leave"), Child[bytes])
    assert_type(await ctx.call(named, count=1, labels={"team": "a"}), int)
    assert_type(await ctx.call(named, 1, key="k", labels={"team": "a"}), int)
    assert_type(await ctx.call("named", {"count": 1}, labels={"team": "a"}), Any)
    assert_type(await ctx.start_child(blocking, count=2, on_end="leave", labels={"team": "a"}), Child[bytes])
    assert_type(await ctx.start_child(blocking, count=2, labels={"team": "a"}), Child[bytes])
    return ""


@workflow(name="other", timeout=timedelta(hours=1))
async def named(ctx: Context, count: int) -> int:
    return count


@workflow
def blocking(ctx: sync.Context, count: int) -> bytes:
    assert_type(optioned("a"), list[str])
    assert_type(ctx.step("k", bare, "a"), float)
    assert_type(ctx.step("l", optioned, "a"), list[str])
    assert_type(ctx.checkpoint("c", 1), Saved[int])
    assert_type(ctx.wait_signal("s", type=int), int)
    assert_type(ctx.call(named, count=1), int)
    assert_type(ctx.start_child(named, count=1).result(), int)
    return b""


@workflow(restarts=3)
def blocking_named(ctx: sync.Context) -> None: ...


def wrong(ctx: Context) -> None:
    """Each `ignore` is needed, else mypy reports it as unused."""
    fulfil.encode_input(1)  # type: ignore[arg-type]
    fulfil.encode_input(["a"], lush=True)  # type: ignore[call-arg]
    _ = bare(1)  # type: ignore[arg-type]
    ctx.step("k", optioned, 1)  # type: ignore[call-overload]
    ctx.sleep(5)  # type: ignore[call-overload]
    ctx.call(named, count="1")  # type: ignore[call-overload]
    ctx.call(named, size=1)  # type: ignore[call-overload]
    ctx.start_child(named)  # type: ignore[call-overload]
    step(retries=3)  # type: ignore[call-overload]


def test_the_decorators_keep_the_types() -> None:
    assert_type(fulfil.decode_result(b'""'), str)
    assert_type(named.decode_result(b"1"), int)
    assert_type(blocking.decode_result(b'""'), bytes)
    assert_type(blocking_named.decode_result(b"null"), None)
    check: Callable[[str, int], Coroutine[Any, Any, float]] = bare
    flow: Workflow[[int], int] = Workflow(named.fn)
    assert (check, flow.name) == (bare, "named")
