"""The work of `bench/workflows.py`, word for word, on DBOS: a program of its own, run by the peers' interpreter.

It embeds DBOS as its documentation recommends: async workflows and steps, the default settings (a pool of 20
connections, LISTEN/NOTIFY), Postgres by DBOS_SYSTEM_DATABASE_URL. What interrupted workflows need is left to DBOS: it
recovers them when it launches. One request a line comes in, `{"id", "workflow", "input", "known"}`; one answer a line
goes out, `{"id", "result"}`, the first of all being `{"version"}` once DBOS has launched.
"""

import asyncio
import base64
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dbos import DBOS, SetWorkflowID

STATE = "x" * 90


@lru_cache
def filling(size: int, *, noise: bool) -> str:
    return base64.b64encode(os.urandom(size * 3 // 4)).decode() if noise else "x" * size


@DBOS.step()
async def work(n: int) -> str:
    return STATE


@DBOS.step()
async def large(n: int, size: int, noise: bool) -> str:
    """A text that was never there before; as `noise`, one that hardly anything can compress."""
    return f"{time.time_ns()} {filling(size, noise=noise)}"


@DBOS.workflow()
async def one_step() -> int:
    await work(1)
    return 1


@DBOS.workflow()
async def sequential(steps: int) -> list[float]:
    """Seconds of each step, as the workflow saw them."""
    seconds = []
    for n in range(steps):
        began = time.perf_counter()
        await work(n)
        seconds.append(time.perf_counter() - began)
    return seconds


@DBOS.workflow()
async def large_states(count: int, size: int, noise: bool) -> list[float]:
    filling(size, noise=noise)  # made once, and not measured
    seconds = []
    for n in range(count):
        began = time.perf_counter()
        await large(n, size, noise)
        seconds.append(time.perf_counter() - began)
    return seconds


@DBOS.workflow()
async def dies(steps: int, after: int, folder: str) -> int:
    """Kills its process after step `after`, once; leaves the time of each attempt's first new step in `folder`."""
    marker = Path(folder) / "died"
    for n in range(steps):
        if n == after and marker.exists():
            first = time.perf_counter()
            await work(n)
            (Path(folder) / "resumed").write_text(f"{time.time()} {time.perf_counter() - first}")
            continue
        await work(n)
        if n == after - 1 and not marker.exists():
            marker.write_text(str(time.time()))
            os.kill(os.getpid(), signal.SIGKILL)
    return steps


@DBOS.workflow()
async def replays(steps: int, folder: str) -> float:
    """Records `steps` steps, dies, and on its return measures what each recorded one costs."""
    marker = Path(folder) / "recorded"
    began = time.perf_counter()
    for n in range(steps):
        await work(n)
    seconds = time.perf_counter() - began
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return seconds


@DBOS.workflow()
async def checkpoints(count: int) -> list[float]:
    """A step of DBOS has returned when Postgres has committed it: what a checkpoint of ours waits for."""
    seconds = []
    for n in range(count):
        began = time.perf_counter()
        await work(n)
        seconds.append(time.perf_counter() - began)
    return seconds


WORKFLOWS: dict[str, Callable[..., Coroutine[Any, Any, Any]]] = {
    "one-step": one_step,
    "sequential": sequential,
    "checkpoints": checkpoints,
    "large-states": large_states,
    "dies": dies,
    "replays": replays,
}


async def answer(request: dict[str, Any]) -> None:
    """Run a workflow, or wait for the one that an earlier process began; an empty name is answered at once."""
    result = None
    if request["known"]:
        result = await (await DBOS.retrieve_workflow_async(request["id"])).get_result()
    elif request["workflow"]:
        with SetWorkflowID(request["id"]):
            handle = await DBOS.start_workflow_async(WORKFLOWS[request["workflow"]], **request["input"])
        result = await handle.get_result()
    say({"id": request["id"], "result": result})


def say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


async def serve() -> None:
    """Until the end of the input."""
    requests = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
    say({"version": version("dbos")})
    async with asyncio.TaskGroup() as running:
        while line := await requests.readline():
            running.create_task(answer(json.loads(line)))


def main() -> None:
    url = os.environ["DBOS_SYSTEM_DATABASE_URL"]
    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "ERROR"})
    DBOS.launch()
    asyncio.run(serve())
    DBOS.destroy()


if __name__ == "__main__":
    main()
