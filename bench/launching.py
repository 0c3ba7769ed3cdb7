"""What it costs to give an instance a process or a container of its own. Run alone, `--only process docker`."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from runtara.infra.settings import Settings
from runtara.protocol.messages import RegisterReply, RegisterRequest, Registration
from runtara.protocol.records import Image
from runtara.runner.kinds import docker_runner, process_runner
from runtara.runner.runner import Runner
from runtara.sdk.connection import Connection
from runtara.sdk.discovery import load
from tests.support import containers

from .cases import OurBench
from .measure import Line, line, percentile

FLOWS = Path(__file__).with_name("launched.py")
AT_ONCE = 20


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


async def _register(settings: Settings, reference: str) -> None:
    image = Image(name="launched", version=1, reference=reference, network="host")
    registrations: list[Registration] = []
    for workflow in load([str(FLOWS)]).workflows:
        one = workflow.registration(code_version="1", kind="docker")
        options = msgspec.structs.replace(one.options, image=image)
        registrations.append(msgspec.structs.replace(one, options=options))
    async with await Connection.open(settings, user="bench", name="bench", patience=5) as connection:
        await connection.call("register", RegisterRequest(worker="bench", workflows=registrations), RegisterReply)


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


LAUNCHING = {"process": processes, "docker": docker}
