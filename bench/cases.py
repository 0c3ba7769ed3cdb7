"""One function for each line of the table. Each gets a platform with engine and worker as processes of their own."""

import asyncio
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from runtara.cli.platform import LocalPlatform
from runtara.engine.accounts import connect_platform
from runtara.infra.postgres import PgConnection
from runtara.projections.audit import verify
from runtara.projections.refold import replay
from runtara.projections.verdict import Verdict
from runtara.protocol.messages import Status
from runtara.runner.supervisor import HEALTHY_SECONDS
from runtara.sdk.client import Client

from .logs import long_log
from .measure import Line, children_of, line, percentile, rss_mb

Case = Callable[["OurBench"], Awaitable[list[Line]]]


class Bench(ABC):
    """What the cases share. `quick` makes them short: good enough to see that they work."""

    seconds_between_deaths = 0.0  # until a process that dies is started again as if it were the first time

    def __init__(self, *, quick: bool, runs: int) -> None:
        self.quick = quick
        self.runs = 1 if quick else runs

    def scaled(self, count: int) -> int:
        return max(10, count // 20) if self.quick else count

    @abstractmethod
    async def run(self, workflow: str, **input: object) -> Any:
        """Start a workflow of `workflows.py`, or a peer's twin of it, and wait for its result."""


class OurBench(Bench):
    """On a platform of ours."""

    seconds_between_deaths = HEALTHY_SECONDS

    def __init__(self, platform: LocalPlatform, client: Client, *, quick: bool, runs: int) -> None:
        super().__init__(quick=quick, runs=runs)
        self.platform = platform
        self.client = client

    async def run(self, workflow: str, **input: object) -> Any:
        return await (await self.client.start(workflow, input)).result()


async def journal_alone(bench: OurBench) -> list[Line]:
    """What the machine allows: one record after the other into a stream like the journal, and nothing else."""
    settings, record = bench.platform.settings, b"[" + b"x" * 300 + b"]"
    subject = f"{settings.deployment}.engine.bench"  # one that the platform may publish on
    async with await connect_platform(settings, name="bench") as bus:
        await bus.jetstream("STREAM.CREATE.BENCH", {"name": "BENCH", "subjects": [subject], "storage": "file"})
        medians = []
        for _ in range(bench.runs):
            seconds = []
            for _ in range(bench.scaled(1_000)):
                began = time.perf_counter()
                await bus.publish_acked(subject, record)
                seconds.append(time.perf_counter() - began)
            medians.append(percentile(seconds, 50) * 1_000)
    return [line("for comparison: a record into NATS, acknowledged, p50", "ms", medians, budget=None, best="low")]


async def sequential_steps(bench: Bench) -> list[Line]:
    steps = bench.scaled(1_000)
    rates, medians = [], []
    for _ in range(bench.runs):
        seconds = await bench.run("sequential", steps=steps)
        rates.append(steps / sum(seconds))
        medians.append(percentile(seconds, 50) * 1_000)
    name = "one workflow, 1,000 sequential steps"
    return [
        line(name, "steps/s", rates, budget=2_000, best="high"),
        line(f"{name}, p50", "ms", medians, budget=0.5, best="low"),
    ]


async def many_at_once(bench: Bench) -> list[Line]:
    workflows, steps = bench.scaled(100), 20
    rates = []
    for _ in range(bench.runs):
        began = time.perf_counter()
        await asyncio.gather(*(bench.run("sequential", steps=steps) for _ in range(workflows)))
        rates.append(workflows * steps / (time.perf_counter() - began))
    return [line("100 workflows × 20 steps at once", "steps/s", rates, budget=40_000, best="high")]


async def one_step_workflows(bench: Bench) -> list[Line]:
    count, free = bench.scaled(2_000), asyncio.Semaphore(50)

    async def one() -> None:
        async with free:
            await bench.run("one-step")

    rates = []
    for _ in range(bench.runs):
        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(count)))
        rates.append(count / (time.perf_counter() - began))
    return [line("2,000 one-step workflows, 50 at once", "workflows/s", rates, budget=6_000, best="high")]


async def idle_latency(bench: Bench) -> list[Line]:
    medians, tails = [], []
    for _ in range(bench.runs):
        seconds = []
        for _ in range(bench.scaled(200)):
            began = time.perf_counter()
            await bench.run("one-step")
            seconds.append(time.perf_counter() - began)
        medians.append(percentile(seconds, 50) * 1_000)
        tails.append(percentile(seconds, 99) * 1_000)
    name = "start → result of a one-step workflow, idle"
    return [
        line(f"{name}, p50", "ms", medians, budget=4, best="low"),
        line(f"{name}, p99", "ms", tails, budget=None, best="low"),
    ]


async def checkpoints(bench: Bench) -> list[Line]:
    medians = []
    for _ in range(bench.runs):
        medians.append(percentile(await bench.run("checkpoints", count=bench.scaled(500)), 50) * 1_000)
    return [line("checkpoint (waits for the commit), p50", "ms", medians, budget=1.5, best="low")]


async def kill_and_resume(bench: Bench) -> list[Line]:
    steps = bench.scaled(1_000)
    gaps: list[float] = []
    for _ in range(bench.runs):
        if gaps:
            await asyncio.sleep(bench.seconds_between_deaths)  # a worker that dies soon is restarted with a delay
        with tempfile.TemporaryDirectory() as folder:
            await bench.run("dies", steps=steps, after=steps // 2, folder=folder)
            died = float((Path(folder) / "died").read_text())
            resumed, first = map(float, (Path(folder) / "resumed").read_text().split())
            gaps.append(resumed - first - died)
    note = "from the kill: detection, process start, claim, replay"
    return [line("killed at step 500 of 1,000 → next new step", "s", gaps, budget=0.4, best="low", note=note)]


async def resume_cost(bench: Bench) -> list[Line]:
    steps = bench.scaled(5_000)
    costs = []
    for _ in range(bench.runs):
        with tempfile.TemporaryDirectory() as folder:
            costs.append(await bench.run("replays", steps=steps, folder=folder) / steps * 1_000)
    return [line("resume after 5,000 steps: each recorded step", "ms", costs, budget=0.02, best="low")]


async def large_state(bench: Bench) -> list[Line]:
    lines = []
    for what, noise in (("a state of 1 MB, p50", False), ("the same, hardly compressible", True)):
        medians = []
        for _ in range(bench.runs):
            seconds = await bench.run("large-states", count=bench.scaled(40), size=1_000_000, noise=noise)
            medians.append(percentile(seconds, 50) * 1_000)
        lines.append(line(what, "ms", medians, budget=8, best="low"))
    return lines


async def memory(bench: OurBench) -> list[Line]:
    """Resident memory of the engine and the worker that holds 1,000 instances."""
    count = bench.scaled(1_000)
    seconds = 30.0
    handles = await asyncio.gather(*(bench.client.start("resident", {"seconds": seconds}) for _ in range(count)))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        page = await bench.client.list(workflow="resident", status=Status.RUNNING, limit=1_000)
        if len(page.instances) >= min(count, bench.platform.settings.concurrency):
            break
        await asyncio.sleep(0.1)
    engine, worker = bench.platform.pids
    workers = [rss_mb(pid) for pid in children_of(worker)]
    running = len(page.instances)
    await asyncio.gather(*(handle.cancel() for handle in handles))
    return [
        line("memory of the engine at 1,000 resident", "MB", [rss_mb(engine)], budget=200, best="low"),
        line("memory of the worker at 1,000 resident", "MB", [max(workers)], budget=200, best="low", note=f"{running}"),
    ]


async def audits(bench: OurBench) -> list[Line]:
    """In this process, over a log of its own: made by the fold, 24 events an instance, 100 instances interleaved."""
    replayed, verified = [], []
    async with long_log(bench.platform.settings.require_database_url(), "auditlog", bench.scaled(200_000)) as log:
        for _ in range(bench.runs):
            replayed.append(await _events_a_second(replay, log))
            verified.append(await _events_a_second(verify, log))
    return [
        line("audit replay of 200,000 events", "events/s", replayed, budget=50_000, best="high"),
        line("audit verify of 200,000 events", "events/s", verified, budget=50_000, best="high"),
    ]


async def _events_a_second(check: Callable[[Any], Awaitable[Verdict]], log: PgConnection) -> float:
    began = time.perf_counter()
    verdict = await check(log)
    assert verdict.is_clean, verdict.findings
    return verdict.events / (time.perf_counter() - began)


CASES: dict[str, Case] = {
    "journal": journal_alone,
    "sequential": sequential_steps,
    "many": many_at_once,
    "one-step": one_step_workflows,
    "idle": idle_latency,
    "checkpoint": checkpoints,
    "kill": kill_and_resume,
    "resume": resume_cost,
    "large": large_state,
    "memory": memory,
    "audit": audits,
}
