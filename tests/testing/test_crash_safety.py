"""`assert_crash_safe`: what is safe passes, and each kind of bug is found with words that help."""

import asyncio
import itertools
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from runtara.sdk import Context, Retry, Workflow, step, sync, workflow
from runtara.sdk.client import Handle
from runtara.sdk.testing import CrashReport, Effects, MemoryPlatform, NotCrashSafe, assert_crash_safe

effects = Effects()


@effects.at_least_once
async def pay(order: str) -> str:
    return f"receipt of {order}"


@effects.at_most_once
def mail(to: str) -> None:
    pass


@step
async def charge(order: str) -> str:
    return await pay(order)


@step
def charge_blocking(order: str) -> str:
    return f"receipt of {order}"


async def complaint(flow: Workflow[..., Any], *args: Any, **kwargs: Any) -> str:
    with pytest.raises(NotCrashSafe) as caught:
        await assert_crash_safe(flow, *args, **kwargs)
    return str(caught.value)


# what is safe


async def test_an_async_workflow_with_every_kind_of_wait_is_safe() -> None:
    @workflow
    async def child(ctx: Context, order: str) -> str:
        await ctx.sleep(timedelta(days=1))
        return await charge(order)

    @workflow
    async def order_batch(ctx: Context, orders: list[str]) -> list[str]:
        saved = await ctx.checkpoint("begun", len(orders))
        receipts = list(await asyncio.gather(*(charge(order) for order in orders)))
        async with asyncio.TaskGroup() as group:
            extra = group.create_task(charge("extra"))
        await ctx.sleep("cool down", timedelta(days=3))
        receipts.append(await ctx.wait_signal("approved", type=str, timeout=timedelta(days=7)))
        receipts.append(await ctx.call(child, order="of a child"))
        return [*receipts, extra.result(), str(saved.state)]

    async def approve(platform: MemoryPlatform, handle: Handle[list[str]]) -> None:
        await handle._client.signal(handle.id, "approved", "yes")

    report = await assert_crash_safe(order_batch, orders=["a", "b"], effects=effects, drive=approve, hosts=[child])
    assert report.result[:3] == ["receipt of a", "receipt of b", "yes"]
    assert report.crashes == 2 * report.records > 20


async def test_a_workflow_in_a_thread_is_safe() -> None:
    @workflow
    def blocking(ctx: sync.Context, orders: list[str]) -> list[str]:
        receipts = [charge_blocking(order) for order in orders]
        ctx.sleep("night", timedelta(hours=8))
        return receipts

    report = await assert_crash_safe(blocking, orders=["a", "b"], effects=[charge_blocking])
    assert report == CrashReport(
        records=report.records, crashes=report.crashes, result=["receipt of a", "receipt of b"]
    )


async def test_a_guarded_effect_happens_at_most_once_and_may_be_missing() -> None:
    @workflow
    async def welcome(ctx: Context, to: str) -> str:
        if not (await ctx.checkpoint("mailed", to)).existing:
            mail(to)
        return await charge(to)

    await assert_crash_safe(welcome, to="ada", effects=effects)


async def test_failures_and_retries_are_compared_as_well() -> None:
    tries = itertools.count()

    @step(retry=Retry(max_attempts=2, initial=timedelta(hours=1)))
    async def hopeless() -> None:
        next(tries)
        raise ValueError("never")

    @workflow
    async def failing(ctx: Context) -> None:
        await hopeless()

    report = await assert_crash_safe(failing, effects=[hopeless])
    assert "ValueError: never" in report.result


async def test_what_continues_as_another_run_is_safe() -> None:
    @workflow
    async def rounds(ctx: Context, left: int) -> int:
        await charge(f"round {left}")
        if left:
            await ctx.continue_as(left=left - 1)
        return left

    await assert_crash_safe(rounds, left=2, effects=effects)


@step(key="{n}")
async def book(n: int) -> int:
    return n


@step(key="{n}")
async def unbook(n: int) -> None: ...


@workflow
async def trip(ctx: Context, fails: bool) -> None:
    for n in range(3):
        await ctx.compensate(unbook, n)
        await book(n)
    if fails:
        raise ValueError("no hotel")
    await ctx.wait_signal("never")


async def cancel(platform: MemoryPlatform, handle: Handle[None]) -> None:
    await platform.settle()
    await handle.cancel(reason="changed my mind")


@pytest.mark.parametrize("fails", [True, False])
async def test_a_saga_is_undone_the_same_whichever_record_its_process_dies_at(fails: bool) -> None:
    """The records of undoing are among them, in the attempt that fails and in the one that is claimed to be undone."""
    report = await assert_crash_safe(trip, fails=fails, effects=[book, unbook], drive=None if fails else cancel)
    assert report.records >= 3 * 3 + 2  # compensation, step, undo; claim and end
    assert ("ValueError: no hotel" if fails else "changed my mind") in report.result


async def test_an_undo_that_is_tried_again_an_hour_later_is_safe_too() -> None:
    tries: list[int] = []

    @step(key="{n}", retry=Retry(max_attempts=None, initial=timedelta(hours=1), max_delay=timedelta(hours=1)))
    async def reluctant(n: int) -> None:
        tries.append(n)
        if len(tries) < 2:
            raise ConnectionError("not yet")

    @workflow
    async def saga(ctx: Context) -> None:
        await ctx.compensate(reluctant, 1)
        await book(1)
        raise ValueError("at the end")

    report = await assert_crash_safe(saga, effects=[book], before_each=tries.clear)
    assert report.crashes == 2 * report.records >= 2 * 6


# what is not


async def test_an_effect_outside_of_a_step_is_found() -> None:
    @workflow
    async def careless(ctx: Context, to: str) -> str:
        mail(to)
        return await charge(to)

    said = await complaint(careless, to="ada", effects=effects)
    assert "mail('ada') was called twice: it is called outside of any step" in said
    assert "after a crash just before record 2 of 3 was stored (checkpointed 'charge~" in said


async def test_a_key_that_depends_on_chance_is_found_and_named() -> None:
    @workflow
    async def lottery(ctx: Context) -> str:
        return await ctx.step(f"charge-{random.random()}", charge, "a")

    said = await complaint(lottery, effects=effects)
    assert "other keys were recorded: 'charge-0." in said
    assert "make it from the input, not from the time, chance or a counter" in said


async def test_a_key_that_changes_with_the_attempt_is_found_by_what_it_repeats() -> None:
    @workflow
    async def by_attempt(ctx: Context) -> str:
        return await ctx.step(f"charge in attempt {ctx.attempt}", charge, "a") + await charge("b")

    said = await complaint(by_attempt, effects=effects, same_keys=False)
    assert "pay('a') was called twice, under the key 'charge in attempt 1' before the crash" in said
    assert "and 'charge in attempt 2' after it" in said


async def test_an_update_that_no_record_holds_is_found() -> None:
    @workflow
    async def sums(ctx: Context) -> int:
        total = 0

        async def add(n: int) -> None:
            nonlocal total
            total += n

        for n in (1, 2, 3):
            await ctx.step(f"add {n}", add, n)
        return total

    said = await complaint(sums)
    assert "the outcome is another one" in said
    assert "('completed', 6)" in said
    assert "Let steps return what later code needs" in said


async def test_an_effect_that_a_checkpoint_loses_is_found() -> None:
    @workflow
    async def pays_later(ctx: Context) -> None:
        if not (await ctx.checkpoint("paid", True)).existing:
            await pay("a")
        await charge("b")

    said = await complaint(pays_later, effects=effects)
    assert "pay('a') was lost: called not at all instead of once" in said
    assert "checkpointed 'paid'" in said


async def test_an_effect_that_must_not_repeat_is_found_inside_a_step() -> None:
    async def notify(to: str) -> None:
        mail(to)

    @workflow
    async def eager(ctx: Context) -> None:
        await ctx.step("notify", notify, "ada")

    said = await complaint(eager, effects=effects)
    assert "mail('ada') was called twice, in step 'notify'" in said
    assert "belongs behind ctx.checkpoint" in said


async def test_a_world_that_counts_double_is_found() -> None:
    account = {"balance": 0}

    @step
    async def deposit(amount: int) -> None:
        account["balance"] += amount

    @workflow
    async def pays_in(ctx: Context) -> None:
        await deposit(10)

    said = await complaint(pays_in, state=lambda: dict(account), before_each=lambda: account.update(balance=0))
    assert "the world outside (`state=`) is another one" in said
    assert "{'balance': 20}" in said


async def test_an_instance_that_never_ends_after_a_crash_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtara.sdk.testing.platform.STUCK_SECONDS", 0.05)

    @workflow
    async def impatient(ctx: Context) -> str:
        if ctx.attempt > 1:
            await ctx.wait_signal("help")
        return await charge("a")

    said = await complaint(impatient, effects=effects)
    assert "it never ends" in said
    assert "crash-safe is waiting on signal 'help'" in said


async def test_what_differs_without_any_crash_is_said_to() -> None:
    numbers = itertools.count()

    @workflow
    async def counting(ctx: Context) -> int:
        return await ctx.step("number", lambda: next(numbers))

    said = await complaint(counting)
    assert said.startswith("without any crash, from one run to the next: the outcome is another one")
    await assert_crash_safe(counting, compare=lambda number: type(number))


# how it is used


async def test_steps_are_noted_by_themselves_and_left_as_they_were() -> None:
    @workflow
    async def one(ctx: Context) -> str:
        return await charge("a")

    before = await charge("plain")
    await assert_crash_safe(one, effects=[charge])
    assert await charge("plain") == before


@pytest.mark.parametrize(("wrong", "hint"), [(lambda: None, "is not a @step"), (print, "is not a @step")])
async def test_only_steps_can_be_noted_by_themselves(wrong: Callable[..., Any], hint: str) -> None:
    @workflow
    async def one(ctx: Context) -> None:
        pass

    with pytest.raises(TypeError, match=hint):
        await assert_crash_safe(one, effects=[wrong])


def test_a_step_cannot_be_wrapped_twice() -> None:
    with pytest.raises(TypeError, match="pass it as it is"):
        Effects().at_least_once(charge)


async def test_an_undo_that_only_the_first_attempt_registers_is_found() -> None:
    told: list[bool] = []

    @workflow
    async def forgetful(ctx: Context) -> None:
        if not told:
            told.append(True)
            await ctx.compensate(unbook, 1)
        await book(1)
        raise ValueError("at the end")

    text = await complaint(forgetful, effects=[book, unbook], before_each=told.clear)
    assert "unbook(1) was lost" in text


async def test_what_must_not_repeat_in_an_undo_is_found() -> None:
    @step(key="{n}")
    async def apologize(n: int) -> None:
        mail("ada")

    @workflow
    async def saga(ctx: Context) -> None:
        await ctx.compensate(apologize, 1)
        await book(1)
        raise ValueError("at the end")

    text = await complaint(saga, effects=effects)
    assert "mail('ada') was called twice, in step '~undo/apologize/1'" in text
