"""Made-up legal workflows: what validates compiles, runs, and comes to the same whenever its process dies."""

import asyncio
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from runtara.agents.registry import registry
from runtara.dsl.compiler import compile_workflow, graphs
from runtara.dsl.load import _executed, graph_of, load_workflow
from runtara.dsl.problems import errors
from runtara.dsl.validate import validate
from runtara.protocol.errors import ExecutionFailed
from runtara.sdk.testing import MemoryPlatform, assert_crash_safe
from runtara.sdk.testing.effects import Effects
from tests.support.documents import CHILDREN, inputs, workflows
from tests.support.shop_agent import shop_registry

EFFECTS: Final = Effects()
SLOWLY: Final = [HealthCheck.too_slow, HealthCheck.data_too_large]


@contextmanager
def noted_shop() -> Iterator[None]:
    """The shop in this process's registry; its calls are noted."""
    shop = shop_registry().agent("shop")
    noted = {
        id: dataclasses.replace(one, function=EFFECTS.at_least_once(one.function))
        for id, one in shop.capabilities.items()
    }
    registry()._loaded["shop"] = dataclasses.replace(shop, capabilities=noted)
    yield
    del registry()._loaded["shop"]


@pytest.fixture(autouse=True)
def _shop() -> Iterator[None]:
    with noted_shop():
        yield


@given(document=workflows(max_steps=30))
@settings(max_examples=60, deadline=None, suppress_health_check=SLOWLY)
def test_what_validates_compiles(document: dict[str, Any]) -> None:
    assume(not errors(validate(document, id="made-up", agents=registry())))
    source = compile_workflow(graph_of(document, id="made-up"), id="made-up")
    compile(source, "made-up", "exec")
    assert source == compile_workflow(graph_of(document, id="made-up"), id="made-up")
    assert max(map(len, source.splitlines())) <= 120


def crash(document: dict[str, Any], data: dict[str, Any]) -> None:
    assume(not errors(validate(document, id="made-up", agents=registry())))
    children = [load_workflow(child, id=id) for id, child in CHILDREN.items()]
    workflow = load_workflow(document, id="made-up")
    asyncio.run(assert_crash_safe(workflow, data, effects=EFFECTS, hosts=children))


@given(document=workflows(max_steps=6), data=inputs)
@settings(max_examples=12, deadline=None, suppress_health_check=SLOWLY)
def test_a_crash_at_any_record_changes_nothing(document: dict[str, Any], data: dict[str, Any]) -> None:
    crash(document, data)


@pytest.mark.slow
@given(document=workflows(max_steps=10), data=inputs)
@settings(max_examples=60, deadline=None, suppress_health_check=SLOWLY)
def test_a_crash_at_any_record_of_larger_ones_changes_nothing(document: dict[str, Any], data: dict[str, Any]) -> None:
    crash(document, data)


async def outcome(source: str, data: dict[str, Any]) -> tuple[str, object]:
    children = [load_workflow(child, id=id) for id, child in CHILDREN.items()]
    async with MemoryPlatform(*children) as platform:
        handle = await platform.start(_executed(source, "made-up"), data, id="one")
        try:
            return "completed", await handle.result()
        except ExecutionFailed as exc:
            return type(exc).__name__, str(exc)


def with_shared_handler(document: dict[str, Any], refusing: int) -> dict[str, Any]:
    """All agents of the outer graph that have no handler get the same one; one of them, if there are so many, fails."""
    graph = document.get("executionGraph", document)
    handled = {edge["fromStep"] for edge in graph["executionPlan"] if edge.get("label") == "onError"}
    agents = [id for id, one in graph["steps"].items() if one["stepType"] == "Agent" and id not in handled]
    steps = {id: dict(one) for id, one in graph["steps"].items()}
    if refusing < len(agents):
        steps[agents[refusing]] |= {"capabilityId": "refuse", "maxRetries": 0}
    steps["tell all"] = {"stepType": "Log", "message": "failed"}
    steps["so sorry"] = {"stepType": "Error", "code": "SORRY", "message": "it did not work"}
    edges = [{"fromStep": id, "toStep": "tell all", "label": "onError"} for id in agents]
    edges.append({"fromStep": "tell all", "toStep": "so sorry"})
    entry = graph.get("entryPoint") or next(iter(graph["steps"]))
    changed = {**graph, "steps": steps, "executionPlan": [*graph["executionPlan"], *edges], "entryPoint": entry}
    return changed if agents else document


@given(document=workflows(max_steps=12), data=inputs, refusing=st.none() | st.integers(0, 4))
@settings(max_examples=60, deadline=None, suppress_health_check=SLOWLY)
def test_blocks_do_what_the_steps_would_do_one_by_one(
    document: dict[str, Any], data: dict[str, Any], refusing: int | None
) -> None:
    """The same graph compiled twice: as blocks, and with all choices made step by step, by readiness."""
    if refusing is not None:
        document = with_shared_handler(document, refusing)
    assume(not errors(validate(document, id="made-up", agents=registry())))
    graph = graph_of(document, id="made-up")
    blocks = compile_workflow(graph, id="made-up")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "MAX_DEPTH", -1)
        steps = compile_workflow(graph, id="made-up")
    races = refusing is not None and ("together(" in blocks or "by_readiness(" in blocks)
    assume(not races)  # which of two failing branches ends the graph is theirs to settle
    assert asyncio.run(outcome(blocks, data)) == asyncio.run(outcome(steps, data))
