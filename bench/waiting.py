"""The lines of the table about instances that wait: sleeps, signals, children."""

import asyncio
import os
import signal
import time
from typing import Any

import msgspec

from runtara.protocol.messages import Status
from runtara.sdk.client import Handle

from .cases import Case, OurBench
from .measure import Line, children_of, line, percentile, rss_mb

AT_ONCE = 500  # starts under way
PAUSE_SECONDS = 0.05  # an instance certainly waits again after so long


async def sleep_lateness(bench: OurBench) -> list[Line]:
    """Both ways of sleeping: in memory, as one of 5 s does by default, and out of it."""
    here = await _lateness(bench, "sleeps", "1,000 sleeps of 5 s at once", budgets=(10, 25))
    away = await _lateness(bench, "sleeps-away", "1,000 sleeps of 5 s at once, out of memory", budgets=(10, 25))
    return [*here, *away]


async def _lateness(bench: OurBench, workflow: str, name: str, *, budgets: tuple[int, int]) -> list[Line]:
    medians, tails = [], []
    for _ in range(bench.runs):
        handles = await _start(bench, workflow, bench.scaled(1_000), seconds=5)
        woke = await asyncio.gather(*(handle.result() for handle in handles))
        late = [max(0.0, at - await _due(handle)) for at, handle in zip(woke, handles, strict=True)]
        medians.append(percentile(late, 50) * 1_000)
        tails.append(percentile(late, 99) * 1_000)
    return [
        line(f"{name}: late, p50", "ms", medians, budget=budgets[0], best="low"),
        line(f"{name}: late, p99", "ms", tails, budget=budgets[1], best="low"),
    ]


async def _start(bench: OurBench, workflow: str, count: int, **input: object) -> list[Handle[Any]]:
    free = asyncio.Semaphore(AT_ONCE)

    async def one() -> Handle[Any]:
        async with free:
            return await bench.client.start(workflow, input)

    return await asyncio.gather(*(one() for _ in range(count)))


async def _due(handle: Handle[Any]) -> float:
    """The deadline of its sleep, as the log has it."""
    async for event in handle.history():
        if event.type == "SleepStarted":
            due_us: int = msgspec.json.decode(event.data)["due_us"]
            return due_us / 1e6
    raise LookupError(f"{handle.id} does not sleep")


async def resident_memory(bench: OurBench) -> list[Line]:
    count = bench.scaled(1_000)
    worker = children_of(bench.platform.pids[1])[0]
    before = rss_mb(worker)
    handles = await _start(bench, "sleeps-here", count, seconds=3_600)
    await _until_none(bench, "sleeps-here", Status.QUEUED)
    each = (rss_mb(worker) - before) * 1_024 / count
    await asyncio.gather(*(handle.cancel() for handle in handles))
    return [line("memory of a worker per resident sleeper", "KB", [each], budget=20, best="low")]


async def sleeping_instances(bench: OurBench) -> list[Line]:
    """Once: it takes minutes. Then the engine is asked to stop, and its successor finds them all."""
    count = bench.scaled(100_000)
    began = time.perf_counter()
    await _start(bench, "sleeps-away", count, seconds=86_400)
    await _until_none(bench, "sleeps-away", Status.QUEUED)
    await _until_none(bench, "sleeps-away", Status.RUNNING)
    rate = count / (time.perf_counter() - began)
    engine, supervisor = bench.platform.pids
    worker = children_of(supervisor)[0]
    memory, there = rss_mb(engine), rss_mb(worker)
    restarted = time.perf_counter()
    os.kill(engine, signal.SIGTERM)
    await bench.run("one-step")
    serving = time.perf_counter() - restarted
    name = f"{count:,} sleeping instances"
    return [
        line(f"{name}: memory of the engine", "MB", [memory], budget=300, best="low"),
        line(f"{name}: memory of the worker that none is in", "MB", [there], budget=None, best="low"),
        line(f"{name}: started and put to sleep", "/s", [rate], budget=None, best="high"),
        line(f"{name}: a restarted engine serves", "s", [serving], budget=3, best="low"),
    ]


async def _until_none(bench: OurBench, workflow: str, status: Status) -> None:
    """Until no instance of it has that status, and whatever follows from that is done."""
    while (await bench.client.list(workflow=workflow, status=status, limit=1)).instances:
        await asyncio.sleep(0.1)
    await asyncio.sleep(0.5)


async def signal_latency(bench: OurBench) -> list[Line]:
    lines = []
    for workflow, where, budget in (("answers-here", "resident", 5), ("answers-away", "suspended", 30)):
        medians = []
        for _ in range(bench.runs):
            medians.append(percentile(await _signal(bench, workflow, bench.scaled(100)), 50) * 1_000)
        lines.append(
            line(f"signal to a {where} instance → its next step, p50", "ms", medians, budget=budget, best="low")
        )
    return lines


async def _signal(bench: OurBench, workflow: str, count: int) -> list[float]:
    handle = await bench.client.start(workflow, {"count": count})
    sent = []
    for n in range(count):
        while (await handle.get()).status is not Status.WAITING and workflow == "answers-away":
            await asyncio.sleep(0.005)
        await asyncio.sleep(PAUSE_SECONDS)
        sent.append(time.time())
        await handle.signal("go", n)
    return [ran - at for ran, at in zip(await handle.result(), sent, strict=True)]


async def fan_out(bench: OurBench) -> list[Line]:
    count, seconds = bench.scaled(1_000), []
    for _ in range(bench.runs):
        began = time.perf_counter()
        await bench.run("fan-out", count=count)
        seconds.append(time.perf_counter() - began)
    return [line("1,000 children: fan-out and join", "s", seconds, budget=2, best="low")]


WAITING: dict[str, Case] = {
    "sleeps": sleep_lateness,
    "sleepers": resident_memory,
    "sleeping": sleeping_instances,
    "signals": signal_latency,
    "children": fan_out,
}
