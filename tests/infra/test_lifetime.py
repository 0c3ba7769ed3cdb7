"""The life cycle of services: order, failure, signals."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import pytest

from runtara.infra.lifetime import Service, TaskEnded, run_until_stopped


class Recorder(Service):
    """A service that notes what happens to it."""

    def __init__(
        self,
        name: str,
        notes: list[str],
        *,
        inner: Service | None = None,
        work: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(name)
        self.notes = notes
        self.inner = inner
        self.work = work or asyncio.Event().wait

    async def open(self) -> None:
        self.notes.append(f"{self.name} opens")
        if self.inner is not None:
            await self.enter(self.inner)
        self.on_close(self._closed)
        self.spawn(self._loop(), "loop")

    async def drain(self) -> None:
        self.notes.append(f"{self.name} drains")

    async def _loop(self) -> None:
        try:
            await self.work()
        except asyncio.CancelledError:
            self.notes.append(f"{self.name}'s loop ends")
            raise

    async def _closed(self) -> None:
        self.notes.append(f"{self.name} is closed")


async def _fails() -> None:
    raise ValueError("boom")


async def _returns() -> None:
    pass


async def test_closing_goes_in_the_reverse_order_and_leaves_no_task() -> None:
    notes: list[str] = []
    async with Recorder("outer", notes, inner=Recorder("inner", notes)):
        await asyncio.sleep(0)
    assert notes == [
        "outer opens",
        "inner opens",
        "outer drains",
        "outer's loop ends",
        "outer is closed",
        "inner drains",
        "inner's loop ends",
        "inner is closed",
    ]
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize(("work", "error"), [(_fails, ValueError), (_returns, TaskEnded)])
async def test_a_dead_side_task_of_an_inner_service_stops_the_process(
    work: Callable[[], Awaitable[None]], error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    notes: list[str] = []
    outer = Recorder("outer", notes, inner=Recorder("inner", notes, work=work))
    with pytest.raises(error) as raised:
        await run_until_stopped(outer)
    assert "in task inner/loop" in raised.value.__notes__
    assert "outer drains" not in notes
    assert notes[-1] == "inner is closed"
    assert [record.levelname for record in caplog.records].count("CRITICAL") == 1


async def test_a_service_that_is_to_leave_drains_as_if_it_were_told_to_by_a_signal() -> None:
    notes: list[str] = []
    leave = asyncio.Event()
    await asyncio.wait_for(run_until_stopped(Recorder("it", notes), ready=leave.set, leave=leave), 5)
    assert "it drains" in notes
    assert notes[-1] == "it is closed"


async def test_what_open_had_entered_is_left_when_it_fails() -> None:
    notes: list[str] = []

    class Broken(Recorder):
        async def open(self) -> None:
            await super().open()
            raise OSError("no")

    with pytest.raises(OSError, match="no"):
        async with Broken("outer", notes, inner=Recorder("inner", notes)):
            pytest.fail("it must not get here")
    assert notes[-1] == "inner is closed"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_ends(number: signal.Signals) -> None:
    notes: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    await run_until_stopped(Recorder("it", notes), ready=lambda: os.kill(os.getpid(), number))
    assert notes == ["it opens", "it drains", "it's loop ends", "it is closed"]
    assert signal.getsignal(signal.SIGINT) == before


async def test_a_signal_during_start_up_undoes_it() -> None:
    notes: list[str] = []

    class Slow(Recorder):
        async def open(self) -> None:
            await super().open()
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()

    await run_until_stopped(Slow("it", notes), ready=lambda: pytest.fail("it was never ready"))
    assert notes[-1] == "it is closed"
    assert "it drains" not in notes


async def test_a_task_that_may_end_is_no_failure() -> None:
    class OneOff(Service):
        async def open(self) -> None:
            self.task = self.spawn(_returns(), "once", may_end=True)

    async with OneOff("it") as service:
        await service.task
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await service.failed()
