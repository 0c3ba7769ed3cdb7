"""Sleeps and signals: what they say, what answers them, in the first run and after a resume."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runtara.protocol.errors import BadInput, DuplicateKey, InvalidInput, KeyMismatch, SignalTimeout
from runtara.protocol.messages import Memo
from runtara.protocol.records import Completed, Failed, Parked, Suspended, Unparked
from runtara.sdk import Context, sync, workflow
from runtara.sdk.execution import Execution
from tests.support.outlet import MemoryOutlet, execution, journal_us, outcome, run, run_until_killed

DAY = timedelta(days=1)
MOMENT = timedelta(milliseconds=1)


class Life:
    """An attempt under way."""

    def __init__(self, code: Any, *, memos: list[Memo] | None = None, **input: object) -> None:
        self.outlet = MemoryOutlet()
        self.attempt: Execution = execution(code, self.outlet, input, memos=memos)
        self.task = asyncio.ensure_future(self.attempt.run())

    async def parked(self, *keys: str) -> None:
        """Until exactly these keys are waited for."""
        async with asyncio.timeout(5):
            while sorted(self.attempt._parks.waiting.values()) != sorted(keys):
                await asyncio.sleep(0)

    def resolve(self, key: str, kind: str = "signal", data: object = None, **more: Any) -> None:
        self.attempt.resolved(outcome(key, kind, data, **more))

    async def end(self) -> MemoryOutlet:
        await asyncio.wait_for(self.task, 5)
        self.outlet.check_numbers()
        return self.outlet


@workflow
async def sleeper(ctx: Context) -> str:
    await ctx.sleep(MOMENT)
    await ctx.sleep("named", MOMENT)
    await ctx.durable_sleep(timedelta(seconds=0))
    await ctx.sleep(MOMENT)
    return "awake"


async def test_a_sleep_is_said_once_and_ends_by_this_process_clock_alone() -> None:
    outlet = await run(sleeper)
    assert outlet.result == "awake"
    assert [(record.key, record.for_us) for record in outlet.all(Parked)] == [
        ("sleep~1000us", 1_000), ("named", 1_000), ("sleep~0s", 0), ("sleep~1000us#2", 1_000),
    ]  # fmt: skip


async def test_a_resumed_run_does_not_sleep_again() -> None:
    @workflow
    async def code(ctx: Context) -> int:
        await ctx.sleep(DAY)
        return 1

    first = await run_until_killed(code, 1)
    resumed = await run(code, memos=[*first.memos(), outcome("sleep~86400s", "slept")])
    assert (resumed.result, resumed.all(Parked)) == (1, [])


async def test_a_resumed_sleep_goes_on_with_its_deadline_and_says_nothing_again() -> None:
    @workflow
    async def code(ctx: Context, delay: float) -> int:
        await ctx.sleep("nap", timedelta(seconds=delay))
        return 1

    first = await run_until_killed(code, 1, delay=0.05)
    began = time.perf_counter()
    resumed = await run(code, memos=list(first.memos()), delay=86_400)  # another duration does not move it
    assert 0.04 < time.perf_counter() - began < 5
    assert [type(record) for record in resumed.records] == [Completed]


async def test_sleep_until_names_the_moment_and_follows_the_journals_clock() -> None:
    until_us = journal_us() + 20_000
    moment = datetime.fromtimestamp(until_us / 1e6, UTC)

    @workflow
    async def code(ctx: Context) -> int:
        await ctx.sleep_until(moment)
        await ctx.sleep_until("again", moment)
        return 1

    outlet = await run(code)  # our own clock is an hour away from the journal's
    assert outlet.result == 1
    assert [(record.key, record.until_us) for record in outlet.all(Parked)] == [
        (f"sleep_until~{moment.isoformat()}", until_us), ("again", until_us),
    ]  # fmt: skip


async def test_a_negative_duration_and_a_time_without_a_zone_are_refused() -> None:
    @workflow
    async def code(ctx: Context) -> list[str]:
        refused = []
        for wait in (
            lambda: ctx.sleep(timedelta(seconds=-1)),
            lambda: ctx.sleep_until(datetime(2026, 1, 1)),  # noqa: DTZ001
            lambda: ctx.wait_signal("go", timeout=timedelta(seconds=-1)),
        ):
            with pytest.raises(BadInput) as caught:
                await wait()
            refused.append(str(caught.value))
        with pytest.raises(TypeError, match="timedelta"):
            await ctx.sleep("key", 5)  # type: ignore[call-overload]
        return refused

    outlet = await run(code)
    assert ["negative" in text or "time zone" in text for text in outlet.result] == [True] * 3
    assert outlet.all(Parked) == []


@workflow
async def approval(ctx: Context) -> str:
    try:
        return str(await ctx.wait_signal("approved", timeout=DAY))
    except TimeoutError as exc:
        if not isinstance(exc, SignalTimeout):
            raise
        return f"nobody: {exc.attributes['name']}"


async def test_a_signal_gives_its_data_to_the_wait() -> None:
    life = Life(approval)
    await life.parked("signal~approved")
    life.resolve("signal~approved", data="yes")
    outlet = await life.end()
    assert outlet.result == "yes"
    (said,) = outlet.all(Parked)
    assert (said.kind, said.name, said.for_us) == ("signal", "approved", 86_400_000_000)


async def test_a_signal_that_does_not_come_in_time_is_the_same_error_now_and_after_a_resume() -> None:
    life = Life(approval)
    await life.parked("signal~approved")
    life.resolve("signal~approved", "timeout")
    outlet = await life.end()
    assert outlet.result == "nobody: approved"
    resumed = await run(approval, memos=[*outlet.memos(), outcome("signal~approved", "timeout")])
    assert (resumed.result, resumed.all(Parked)) == ("nobody: approved", [])


async def test_an_outcome_that_comes_before_the_acknowledgement_counts() -> None:
    life = Life(approval)
    life.outlet.hold = True
    await life.outlet.until(1)
    life.resolve("signal~approved", data="at once")
    life.outlet.release()
    assert (await life.end()).result == "at once"


async def test_the_first_outcome_of_a_wait_stays() -> None:
    life = Life(approval)
    await life.parked("signal~approved")
    life.resolve("signal~approved", data="first")
    life.resolve("signal~approved", data="second")
    life.resolve("signal~approved", "timeout")
    assert (await life.end()).result == "first"


async def test_a_signal_is_read_as_its_type_or_refused() -> None:
    @workflow
    async def typed(ctx: Context) -> int:
        return await ctx.wait_signal("n", type=int)

    for data, last in ((5, Completed), ("five", Failed)):
        life = Life(typed)
        await life.parked("signal~n")
        life.resolve("signal~n", data=data)
        assert type((await life.end()).last) is last
    assert life.outlet.last.error.code == InvalidInput.__name__
    assert "signal 'n'" in life.outlet.last.error.message


async def test_two_waits_at_once_on_one_signal_need_keys() -> None:
    @workflow
    async def code(ctx: Context) -> list[str]:
        first = asyncio.create_task(ctx.wait_signal("go"))
        await asyncio.sleep(0)
        with pytest.raises(KeyMismatch, match="another wait for the signal 'go' is open"):
            await ctx.wait_signal("go")
        second = await ctx.wait_signal("go", key="mine")
        return [await first, second, await ctx.wait_signal("go")]

    life = Life(code)
    await life.parked("signal~go", "mine")
    life.resolve("mine", data=2)
    life.resolve("signal~go", data=1)
    await life.parked("signal~go#2")
    life.resolve("signal~go#2", data=3)
    assert (await life.end()).result == [1, 2, 3]


async def test_waits_for_one_signal_in_scopes_of_their_own_may_be_open_at_once() -> None:
    @workflow
    async def code(ctx: Context) -> list[int]:
        async def branch(name: str) -> int:
            with ctx.scope(name):
                return await ctx.wait_signal("go", type=int)

        return list(await asyncio.gather(branch("a"), branch("b")))

    life = Life(code)
    await life.parked("a/signal~go", "b/signal~go")
    life.resolve("b/signal~go", data=2)
    life.resolve("a/signal~go", data=1)
    assert (await life.end()).result == [1, 2]


@workflow
async def impatient(ctx: Context, key: str | None = None) -> str:
    for _ in range(2):
        try:
            async with asyncio.timeout(0.01):
                await ctx.wait_signal("go", key=key)
        except TimeoutError:
            continue
    await ctx.wait_signal("go", key=key)
    return "gone"


@pytest.mark.parametrize(("key", "base"), [(None, "signal~go"), ("mine", "mine")])
async def test_a_wait_that_the_code_gives_up_is_given_up_in_the_log_and_the_next_one_is_another(
    key: str | None, base: str
) -> None:
    life = Life(impatient, key=key)
    await life.parked(f"{base}#3")
    life.resolve(f"{base}#3", data=1)
    outlet = await life.end()
    assert outlet.result == "gone"
    assert [(type(record), record.key) for record in outlet.records if isinstance(record, Parked | Unparked)] == [
        (Parked, base), (Unparked, base), (Parked, f"{base}#2"), (Unparked, f"{base}#2"), (Parked, f"{base}#3"),
    ]  # fmt: skip
    again = Life(impatient, memos=list(outlet.memos()), key=key)
    await again.parked(f"{base}#3")  # none of those that were given up is waited for again
    again.resolve(f"{base}#3", data=1)
    assert (await again.end()).all(Parked) == again.outlet.all(Parked)


async def test_a_key_of_a_wait_is_used_once_in_a_run() -> None:
    @workflow
    async def code(ctx: Context) -> None:
        await ctx.sleep("k", MOMENT)
        with pytest.raises(DuplicateKey):
            await ctx.sleep("k", MOMENT)
        await ctx.checkpoint("c", 1)

    outlet = await run(code)
    memos = [*outlet.memos(), outcome("k", "slept")]

    @workflow(name="code")
    async def changed(ctx: Context) -> None:
        with pytest.raises(KeyMismatch):
            await ctx.wait_signal("go", key="k")
        with pytest.raises(KeyMismatch):
            await ctx.sleep("c", MOMENT)

    assert type((await run(changed, memos=memos)).last) is Completed


async def test_stopping_a_waiting_instance_gives_nothing_up_and_acts_at_once() -> None:
    for why, last in (("cancel", "Cancelled"), ("drain", "Suspended"), ("pause", "Suspended")):
        life = Life(approval)
        await life.parked("signal~approved")
        life.attempt.stop(why)  # type: ignore[arg-type]
        outlet = await life.end()
        assert [type(record).__name__ for record in outlet.records] == ["Parked", last]


async def test_one_that_only_waits_is_handed_to_nobody_when_its_worker_drains() -> None:
    for why, reason in (("drain", "parked"), ("pause", "pause")):
        life = Life(approval)
        await life.parked("signal~approved")
        life.attempt.stop(why)  # type: ignore[arg-type]
        last = (await life.end()).last
        assert isinstance(last, Suspended)
        assert (last.reason, last.keys) == (reason, ("signal~approved",))


async def test_an_outcome_that_comes_while_it_pauses_is_kept_until_it_is_resumed() -> None:
    @workflow
    async def code(ctx: Context) -> str:
        release = asyncio.create_task(ctx.step("busy", busy))
        got = await ctx.wait_signal("go", type=str)
        await release
        return got

    begun, done = asyncio.Event(), asyncio.Event()

    async def busy() -> int:
        begun.set()
        await done.wait()
        return 1

    life = Life(code)
    await life.parked("signal~go")
    await begun.wait()
    life.attempt.stop("pause")  # the step in flight keeps it
    life.resolve("signal~go", data="kept")
    life.attempt.resume()
    done.set()
    assert (await life.end()).result == "kept"


async def test_the_blocking_context_waits_too() -> None:
    @workflow
    def code(ctx: sync.Context) -> str:
        ctx.sleep(MOMENT)
        ctx.sleep("k", MOMENT)
        return ctx.wait_signal("go", type=str)

    life = Life(code)
    await life.parked("signal~go")
    life.resolve("signal~go", data="x")
    assert (await life.end()).result == "x"
