"""A JSON workflow comes to the same whenever its process dies; a recorded call of an agent is never repeated."""

from typing import Any

import pytest

from runtara.dsl.load import load_workflow
from runtara.sdk.client import Handle
from runtara.sdk.testing import MemoryPlatform, assert_crash_safe
from runtara.sdk.testing.host import Crash
from tests.support.probe_agent import EFFECTS, forget_tries
from tests.support.steps import agent, echo, finish, graph, imm, mapping, op, ref, step

CHILD = graph({"inner": agent("add", {"number": ref("data.number")}), "end": finish(n=ref("steps.inner.outputs"))})

ITEM = graph(
    {
        "x": agent("add", {"number": ref("data")}),
        "z": step("Delay", durationMs=10),
        "end": finish(x=ref("steps.x.outputs"), path=ref("variables._loop_indices")),
    },
)
TURN = graph(
    {"s": step("Split", subgraph=ITEM, config={"value": imm([1, 2])}), "end": finish(s=ref("steps.s.outputs"))}
)
NESTED = graph(
    {
        "w": step("While", condition=op("LT", ref("loop.index"), 2), subgraph=TURN),
        "end": finish(w=ref("steps.w.outputs")),
    }
)
WITH_CHILD = graph(
    {
        "c": step("EmbedWorkflow", childWorkflowId="child", inputMapping=mapping({"number": ref("data")})),
        "end": finish(c=ref("steps.c.outputs.n")),
    },
)
FAILS = agent("fails", {"times": 9, "permanent": True, "id": "handled"})
BEFORE = graph({"tell": echo(ref("variables._signal_id")), "end": finish()})

EVERYTHING = graph(
    {
        "first": echo("first", breakpoint=True),
        "unsteady": agent("fails", {"times": 2, "value": "at last", "id": "unsteady"}, retryDelay=20_000),
        "choose": step("Conditional", condition=op("EQ", ref("steps.unsteady.outputs"), "at last")),
        "never": finish(),
        "kind": step(
            "Switch",
            config={"value": imm(3), "cases": [{"matchType": "GT", "match": 1, "output": {}, "route": "some"}]},
        ),
        "left": agent("add", {"number": 10}),
        "right": step("Delay", durationMs=5_000),
        "right2": agent("add", {"number": 20}),
        "split": step("Split", subgraph=NESTED, config={"value": imm(["a", "b"]), "parallelism": 1}),
        "children": step("Split", subgraph=WITH_CHILD, config={"value": imm([5, 6]), "sequential": True}),
        "few": step("Filter", config={"value": imm([1, 2, 3]), "condition": op("GT", ref("item"), 1)}),
        "groups": step("GroupBy", config={"value": imm([{"k": 1}, {"k": 2}]), "key": "k"}),
        "note": step("Log", message="so far", context=mapping({"n": ref("steps.few.outputs.count")})),
        "ask": step("WaitForSignal", timeoutMs=3_600_000, onWait=BEFORE),
        "unheard": step("WaitForSignal", timeoutMs=1_000),
        "trouble": FAILS,
        "handled": echo(ref("steps.__error.code")),
        "end": finish(
            left=ref("steps.left.outputs"),
            right=ref("steps.right2.outputs"),
            split=ref("steps.split.outputs"),
            children=ref("steps.children.outputs"),
            groups=ref("steps.groups.outputs.counts"),
            asked=ref("steps.ask.outputs"),
            handled=ref("steps.handled.outputs"),
        ),
        "odd": step("Error", code="ODD", message="nobody comes here"),
    },
    "first unsteady",
    "unsteady choose",
    "choose kind true",
    "choose never false",
    "kind left some",
    "kind odd default",
    "left split",
    "left right",
    "right right2",
    "right2 children",
    "split children",
    "children few",
    "few groups",
    "groups note",
    "note ask",
    "ask unheard",
    "unheard odd",
    "unheard trouble onError",
    "trouble odd",
    "trouble handled onError",
    "handled end",
    trackEvents=True,
)


async def answer(platform: MemoryPlatform, handle: Handle[Any]) -> None:
    """Signals wait for their waits, so they may be sent before."""
    await platform.settle()
    await handle.signal("_continue")
    await handle.signal("ask", {"ok": True})


@pytest.mark.slow
async def test_a_workflow_with_every_kind_of_step_survives_a_crash_at_every_record() -> None:
    workflow, child = load_workflow(EVERYTHING, id="everything"), load_workflow(CHILD, id="child")
    report = await assert_crash_safe(
        workflow, {}, effects=EFFECTS, before_each=forget_tries, drive=answer, hosts=(child,)
    )
    assert report.result["split"][1]["w"]["outputs"]["s"][1] == {"x": 3, "path": [1, 1, 1]}
    assert report.result["children"] == [{"c": 6}, {"c": 7}]
    assert report.result["handled"] == "PROBE_FAILED"
    assert report.records > 80


SMALL = {
    "retries": graph(
        {"a": agent("fails", {"times": 2, "value": 1}, retryDelay=60_000), "end": finish(a=ref("steps.a.outputs"))}
    ),
    "rate limits": graph(
        {
            "a": agent("fails", {"times": 2, "value": 1, "retry_after_ms": 20_000}),
            "end": finish(a=ref("steps.a.outputs")),
        }
    ),
    "time limit that hits": graph(
        {
            "w": step(
                "While",
                condition=imm(True),
                subgraph=graph({"x": echo(ref("loop.index")), "z": step("Delay", durationMs=10_000), "end": finish()}),
                config={"timeout": 25_000},
            ),
            "end": finish(),
            "late": finish(code=ref("error.code")),
        },
        "w end",
        "w late onError",
    ),
    "time limit that does not hit": graph(
        {
            "s": step("Split", subgraph=ITEM, config={"value": imm([1, 2, 3]), "sequential": True, "timeout": 60_000}),
            "b": echo("b"),
            "end": finish(s=ref("steps.s.outputs")),
        },
    ),
    "retried items": graph(
        {
            "s": step(
                "Split",
                subgraph=graph(
                    {
                        "x": agent("fails", {"times": 2, "value": ref("item"), "id": "item"}, maxRetries=0),
                        "end": finish(x=ref("steps.x.outputs")),
                    }
                ),
                config={"value": imm([1]), "maxRetries": 3, "retryDelay": 30_000},
            ),
            "end": finish(s=ref("steps.s.outputs")),
        },
    ),
    "irregular diamond": graph(
        {"a": echo("a"), "b": echo("b"), "c": echo("c"), "d": echo("d"), "e": echo("e"), "end": finish()},
        "a b",
        "a c",
        "b d",
        "b e",
        "c e",
        "d end",
        "e end",
    ),
}


@pytest.mark.parametrize("name", SMALL)
async def test_crash_safe(name: str) -> None:
    workflow = load_workflow(SMALL[name], id="small")
    await assert_crash_safe(workflow, {}, effects=EFFECTS, before_each=forget_tries)


@pytest.mark.parametrize("inputs", [{"times": 3, "value": 1}, {"times": 3, "value": 1, "retry_after_ms": 15_000}])
async def test_no_try_that_was_recorded_is_made_again(inputs: dict[str, Any]) -> None:
    """Failed tries, too: between two of them a process may die."""
    document = graph({"a": agent("fails", inputs, retryDelay=30_000), "end": finish(a=ref("steps.a.outputs"))})
    workflow = load_workflow(document, id="tries")
    for at in range(1, 8):
        for when in ("before", "after"):
            forget_tries()
            EFFECTS.calls.clear()
            async with MemoryPlatform(workflow) as platform:
                platform._host.crash = Crash(at, when)
                handle = await platform.start(workflow, {})
                assert await handle.result() == {"a": 1}
                log = platform.log(handle.id)
            recorded = sum(event.key == "a" and event.type in ("StepFailed", "CheckpointSaved") for event in log)
            lost = len(EFFECTS.calls) - recorded
            assert lost == 0 if when == "after" else lost in (0, 1)
