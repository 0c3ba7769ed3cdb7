"""What it costs to give an instance a process or a container of its own. Run alone (`--only`)."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from runtara.infra.settings import Settings
from runtara.protocol.records import Image
from runtara.runner.kinds import docker_runner, process_runner
from runtara.runner.runner import Runner
from runtara.sdk.client import Client
from runtara.sdk.discovery import load
from tests.support import containers

from .cases import OurBench
from .measure import Line, line, percentile

FLOWS = Path(__file__).with_name("launched.py")
AT_ONCE = 20
Isolation = Literal["instance", "pool"]


async def processes(bench: OurBench) -> list[Line]:
    async with process_runner(bench.platform.settings, [str(FLOWS)]) as runner:
        medians = [await _to_first_checkpoint(bench, runner, bench.scaled(50)) for _ in range(bench.runs)]
    return [line("process: run request → first checkpoint, p50", "ms", medians, budget=60, best="low")]


async def docker(bench: OurBench) -> list[Line]:
    if containers.engine() is None:
        return []
    image = containers.build_image(FLOWS)
    alone = [await asyncio.to_thread(_run_alone, image) for _ in range(5 if bench.quick else 15)]
    settings = replace(bench.platform.settings, runner_name=bench.platform.settings.deployment, drain_seconds=1.0)
    await _register(settings, image)
    async with docker_runner(settings) as runner:
        medians = [await _to_first_checkpoint(bench, runner, bench.scaled(15)) for _ in range(bench.runs)]
        began = time.perf_counter()
        handles = [await bench.client.start("launched") for _ in range(AT_ONCE)]
        await asyncio.gather(*(handle.result(timeout=120) for handle in handles))
        all_of_them = time.perf_counter() - began
        await _idle(runner)
    bare = percentile(alone, 50) * 1_000
    return [
        line("container: run request → first checkpoint, p50", "ms", medians, budget=1_000, best="low"),
        line("for comparison: `docker run` of the same image, python -c pass", "ms", [bare], budget=None, best="low"),
        line("20 containers at once, all with a result", "s", [all_of_them], budget=None, best="low"),
    ]


async def pooled(bench: OurBench) -> list[Line]:
    if containers.engine() is None:
        return []
    settings = replace(bench.platform.settings, runner_name=bench.platform.settings.deployment, drain_seconds=1.0)
    await _register(settings, containers.build_image(FLOWS), isolation="pool")
    async with docker_runner(settings) as runner:
        await (await bench.client.start("launched")).result(timeout=60)  # until it is there
        medians = [await _to_first_checkpoint(bench, runner, bench.scaled(50)) for _ in range(bench.runs)]
    return [line("pooled container: run request → first checkpoint, p50", "ms", medians, budget=None, best="low")]


async def _to_first_checkpoint(bench: OurBench, runner: Runner, count: int) -> float:
    """The median of milliseconds, one after the other."""
    taken = []
    for _ in range(count):
        handle = await bench.client.start("launched")
        await handle.result(timeout=60)
        events = {event.type: event.at async for event in bench.client.history(handle.id)}
        taken.append((events["CheckpointSaved"] - events["InstanceQueued"]) / 1_000)
        await _idle(runner)
    return percentile(taken, 50)


async def _idle(runner: Runner) -> None:
    while runner.jobs:
        await asyncio.sleep(0.01)


async def _register(settings: Settings, reference: str, *, isolation: Isolation = "instance") -> None:
    image = Image(name="launched", version=1, reference=reference, network="host", isolation=isolation)
    registrations = [one.registration(code_version="1", kind="docker") for one in load([str(FLOWS)]).workflows]
    async with Client(settings) as client:
        await client.images.register(image, registrations)


def _run_alone(image: str) -> float:
    """Seconds of what any container costs here: created, started, ended. Its interpreter does nothing."""
    api: Any = containers.engine()
    began = time.perf_counter()
    config = {"Image": image, "Entrypoint": ["/usr/local/bin/python3", "-c", "pass"]}
    id = api.create_container_from_config(config)["Id"]
    api.start(id)
    api.wait(id)
    taken = time.perf_counter() - began
    api.remove_container(id, force=True)
    return taken


LAUNCHING = {"process": processes, "docker": docker, "pooled": pooled}
