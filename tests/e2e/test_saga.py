"""`examples/saga.py` on a platform: what fails or is cancelled is undone in reverse, also over a killed worker."""

import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from runtara.engine.service import Engine
from runtara.infra.settings import Settings
from runtara.protocol.errors import IllegalTransition, WorkflowCancelled, WorkflowFailed
from runtara.protocol.messages import Status
from runtara.runner.pool import Pool
from runtara.sdk.client import Client, Handle
from tests.support.polling import eventually

from .test_waits import until

EXAMPLE = Path(__file__).parents[2] / "examples" / "saga.py"
UNDO_ORDER = [f"~undo/cancel_booking/{what}" for what in ("car", "hotel", "flight")]

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def pool(deployed: Settings, engine: Engine, stack: AsyncExitStack) -> Pool:
    return await stack.enter_async_context(Pool(deployed, [str(EXAMPLE)]))


class Ledger:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "bookings.log"

    @property
    def lines(self) -> list[str]:
        """What was booked and cancelled, in order, without the references."""
        text = self.path.read_text() if self.path.exists() else ""
        return [line.rpartition(" ")[0] for line in text.splitlines()]

    @property
    def cancelled(self) -> int:
        return sum(line.startswith("cancelled") for line in self.lines)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def kill_worker(pool: Pool) -> None:
    (child,) = pool.children
    os.kill(child.pid, signal.SIGKILL)


async def undone(handle: Handle[Any]) -> list[str]:
    keys = [event.key async for event in handle.history() if event.type == "CheckpointSaved" and event.key]
    return [key for key in keys if key.startswith("~undo/")]


async def is_booked_and_waits(handle: Handle[Any]) -> bool:
    return any([event.type == "WaitStarted" async for event in handle.history()])


async def test_a_trip_that_cannot_be_booked_whole_is_not_booked(client: Client, pool: Pool, ledger: Ledger) -> None:
    handle = await client.start("book-trip", {"sold_out": "car", "ledger": str(ledger.path)})
    with pytest.raises(WorkflowFailed, match="there is no car left"):
        await handle.result(timeout=20)
    assert ledger.lines == ["booked flight", "booked hotel", "cancelled hotel", "cancelled flight"]
    assert await undone(handle) == UNDO_ORDER
    with pytest.raises(IllegalTransition, match=f"`runtara fork {handle.id}`"):
        await handle.retry()


async def test_a_trip_that_was_undone_is_booked_again_in_a_fork(client: Client, pool: Pool, ledger: Ledger) -> None:
    handle = await client.start("book-trip", {"sold_out": "car", "ledger": str(ledger.path)})
    with pytest.raises(WorkflowFailed, match="there is no car left"):
        await handle.result(timeout=20)
    fork = await handle.fork(input={"ledger": str(ledger.path)})
    assert sorted(await fork.result(timeout=20)) == ["car", "flight", "hotel"]
    assert ledger.lines[4:] == ["booked flight", "booked hotel", "booked car"]


async def test_a_worker_killed_in_the_middle_of_the_undoing_loses_and_repeats_nothing(
    client: Client, pool: Pool, ledger: Ledger
) -> None:
    handle = await client.start("book-trip", {"sold_out": "car", "ledger": str(ledger.path)})
    await eventually(lambda: ledger.cancelled == 1)
    kill_worker(pool)
    with pytest.raises(WorkflowFailed, match="there is no car left"):
        await handle.result(timeout=30)
    assert ledger.lines == ["booked flight", "booked hotel", "cancelled hotel", "cancelled flight"]
    assert await undone(handle) == UNDO_ORDER
    assert (await handle.get()).restarts == 1


@pytest.mark.parametrize("killed", [False, True])
async def test_a_running_booking_that_is_cancelled_is_undone(
    client: Client, pool: Pool, ledger: Ledger, killed: bool
) -> None:
    handle = await client.start("book-trip", {"approval": True, "ledger": str(ledger.path)})
    await eventually(lambda: is_booked_and_waits(handle))
    await handle.cancel(reason="changed my mind")
    if killed:
        await eventually(lambda: ledger.cancelled == 1)
        kill_worker(pool)
    with pytest.raises(WorkflowCancelled, match="changed my mind"):
        await handle.result(timeout=30)
    assert ledger.lines[3:] == ["cancelled car", "cancelled hotel", "cancelled flight"]
    assert await undone(handle) == UNDO_ORDER


async def test_a_booking_that_has_left_memory_is_woken_to_be_undone(client: Client, pool: Pool, ledger: Ledger) -> None:
    handle = await client.start("book-trip", {"approval": True, "ledger": str(ledger.path)})
    await until(handle, Status.WAITING)
    await handle.cancel()
    with pytest.raises(WorkflowCancelled):
        await handle.result(timeout=20)
    assert ledger.lines[3:] == ["cancelled car", "cancelled hotel", "cancelled flight"]


async def test_a_fork_of_a_booking_cancels_only_what_it_booked_itself(
    client: Client, pool: Pool, ledger: Ledger
) -> None:
    handle = await client.start("book-trip", {"approval": True, "ledger": str(ledger.path)})
    await until(handle, Status.WAITING)
    fork = await handle.fork(at="book/car")
    await until(fork, Status.WAITING)
    await fork.cancel()
    with pytest.raises(WorkflowCancelled):
        await fork.result(timeout=20)
    assert ledger.lines == ["booked flight", "booked hotel", "booked car", "booked car", "cancelled car"]
    await handle.signal("approved")
    assert sorted(await handle.result(timeout=20)) == ["car", "flight", "hotel"]


async def test_a_trip_that_is_approved_stays_booked(client: Client, pool: Pool, ledger: Ledger) -> None:
    handle = await client.start("book-trip", {"approval": True, "ledger": str(ledger.path)})
    await handle.signal("approved")
    assert sorted(await handle.result(timeout=20)) == ["car", "flight", "hotel"]
    assert ledger.cancelled == 0
