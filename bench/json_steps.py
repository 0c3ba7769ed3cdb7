"""JSON workflows: what compiling costs, what a step costs more than in Python, and how fast a Split is."""

import statistics
import time

from runtara.dsl.compiler import compile_workflow
from runtara.dsl.load import graph_of

from .cases import Case, OurBench
from .json_workflows import IN_A_ROW, ROWS, steps_in_a_row
from .measure import Line, children_of, line, rss_mb

TARGET = "bench.json_workflows"
PAIRS = 15  # of runs, one of each kind: on a small machine one alone says little


async def compiling(bench: OurBench) -> list[Line]:
    graph = graph_of(steps_in_a_row(100), id="bench")
    runs = []
    for _ in range(bench.runs * 5):
        began = time.perf_counter()
        compile(compile_workflow(graph, id="bench"), "bench", "exec")
        runs.append((time.perf_counter() - began) * 1_000)
    return [line("compile a JSON workflow of 100 steps", "ms", runs, budget=50, best="low")]


async def steps(bench: OurBench) -> list[Line]:
    """Both kinds in turn, so that both see the same machine; the ratio is that of their medians."""
    overheads, medians = [], []
    for _ in range(bench.runs):
        python, json = [], []
        for _ in range(bench.scaled(PAIRS)):
            python.append(await _seconds(bench, "python-steps", rows=ROWS))
            json.append(await _seconds(bench, "json-steps", data={"rows": ROWS}))
        overheads.append((statistics.median(json) / statistics.median(python) - 1) * 100)
        medians.append(statistics.median(json) / IN_A_ROW * 1_000)
    return [
        line("a JSON step over the same step in Python", "%", overheads, budget=15, best="low"),
        line("a JSON step, one after the other", "ms", medians, budget=None, best="low"),
    ]


async def splits(bench: OurBench) -> list[Line]:
    count = bench.scaled(10_000)
    items = [{"n": n} for n in range(count)]
    worker = max(children_of(bench.platform.pids[1]), key=rss_mb)
    rates, sizes = [], []
    for _ in range(bench.runs + 1):
        seconds = await _seconds(bench, "json-split", data={"items": items, "count": count})
        rates.append(count / seconds)
        sizes.append(rss_mb(worker))
    growth = [size - sizes[0] for size in sizes[1:]]
    return [
        line("a Split over 10,000 items, 100 at once, a step each", "items/s", rates[1:], budget=5_000, best="high"),
        line("memory of its worker, over the first such run", "MB", growth, budget=16, best="low"),
    ]


async def _seconds(bench: OurBench, workflow: str, **input: object) -> float:
    began = time.perf_counter()
    await bench.run(workflow, **input)
    return time.perf_counter() - began


JSON: dict[str, Case] = {"dsl-compile": compiling, "dsl-step": steps, "dsl-split": splits}
