"""A document that is changed while an instance of it is on its way: what was recorded stays, by the step's id."""

from typing import Any

import pytest

from runtara.dsl.load import load_workflow
from runtara.protocol.errors import WorkflowFailed
from runtara.sdk.testing import MemoryPlatform
from tests.support.probe_agent import EFFECTS
from tests.support.steps import agent, echo, finish, graph, imm, ref, step

PAUSE = step("WaitForSignal")


async def resumed(before: dict[str, Any], after: dict[str, Any]) -> Any:
    """The result of an instance whose process ends at the wait, and that goes on with another document."""
    async with MemoryPlatform(load_workflow(before, id="doc")) as platform:
        handle = await platform.start("doc", {})
        await platform.settle()
        EFFECTS.calls.clear()
        await platform.crash()
        platform._host.workflows["doc"] = load_workflow(after, id="doc")
        await platform.crash()
        await handle.signal("pause")
        return await handle.result()


async def test_steps_may_be_added_moved_and_taken_away() -> None:
    before = graph({"a": echo("a"), "b": echo("b"), "pause": PAUSE, "end": finish()})
    after = graph(
        {
            "new": echo("new"),
            "b": echo("changed"),
            "also": echo("also"),
            "pause": PAUSE,
            "end": finish(b=ref("steps.b.outputs"), new=ref("steps.new.outputs"), also=ref("steps.also.outputs")),
        }
    )
    assert await resumed(before, after) == {"b": "b", "new": "new", "also": "also"}
    assert [call.what for call in EFFECTS.calls] == ["echo 'new'", "echo 'also'"]


async def test_items_of_a_split_that_were_done_stay_done() -> None:
    def document(items: list[object], at_once: int) -> dict[str, Any]:
        body = graph({"x": echo(ref("item")), "end": finish(x=ref("steps.x.outputs"))})
        split = step("Split", subgraph=body, config={"value": imm(items), "parallelism": at_once})
        return graph({"s": split, "pause": PAUSE, "end": finish(s=ref("steps.s.outputs"))})

    result = await resumed(document([1, 2], 2), document([1, 2, 3], 1))
    assert result == {"s": [{"x": 1}, {"x": 2}, {"x": 3}]}
    assert [call.what for call in EFFECTS.calls] == ["echo 3"]


async def test_another_kind_of_step_under_a_recorded_id_fails_loudly() -> None:
    before = graph({"a": echo("a"), "pause": PAUSE, "end": finish()})
    after = graph(
        {"a": step("Delay", durationMs=5), "pause": PAUSE, "end": finish(), "never": echo("never"), "end2": finish()},
        "a pause", "pause end", "a never onError", "never end2",
    )  # fmt: skip
    with pytest.raises(WorkflowFailed, match="KeyMismatch: key 'a' belongs to another operation"):
        await resumed(before, after)


async def test_a_failure_that_was_recorded_stays_until_the_instance_is_retried() -> None:
    fails = agent("fails", {"times": 1, "permanent": True, "value": "fine"}, maxRetries=0)
    workflow = load_workflow(graph({"x": fails, "end": finish(x=ref("steps.x.outputs"))}), id="doc")
    async with MemoryPlatform(workflow) as platform:
        handle = await platform.start("doc", {})
        with pytest.raises(WorkflowFailed, match="PROBE_FAILED"):
            await handle.result()
        await handle.retry()
        assert await handle.result() == {"x": "fine"}
