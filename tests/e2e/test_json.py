"""JSON workflows on the real platform: hosted like any other, killed, suspended, woken."""

import json
import os
import signal
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from runtara.engine.service import Engine
from runtara.infra.settings import Settings
from runtara.protocol.errors import WorkflowFailed
from runtara.runner.pool import Pool
from runtara.sdk.client import Client, Handle
from tests.support.polling import eventually
from tests.support.steps import finish, graph, imm, mapping, op, ref, step

pytestmark = pytest.mark.timeout(90)


def csv(capability: str, inputs: dict[str, object]) -> dict[str, Any]:
    return {
        "stepType": "Agent",
        "agentId": "csv",
        "capabilityId": capability,
        "inputMapping": mapping(inputs),
    }


LINE = graph(
    {
        "text": csv("to-csv", {"value": {"valueType": "composite", "value": [ref("item")]}}),
        "end": finish(text=ref("steps.text.outputs"), n=ref("variables._index")),
    },
)
IMPORT = graph(
    {
        "rows": csv("from-csv", {"data": ref("data.text")}),
        "each": step("Split", subgraph=LINE, config={"value": ref("steps.rows.outputs"), "parallelism": 4}),
        "sum": step(
            "EmbedWorkflow", childWorkflowId="count-lines", inputMapping=mapping({"lines": ref("steps.each.outputs")})
        ),
        "end": finish(count=ref("steps.sum.outputs.count"), last=ref("steps.each.outputs[-1].text")),
    },
)
COUNT = graph(
    {
        "few": step("Filter", config={"value": ref("data.lines"), "condition": imm(True)}),
        "end": finish(count=ref("steps.few.outputs.count")),
    },
    inputSchema={"lines": {"type": "array", "required": True}},
)
INDEX = {"valueType": "composite", "value": {"i": ref("loop.index")}}
TURN = graph(
    {
        "row": csv("to-csv", {"value": {"valueType": "composite", "value": [INDEX]}}),
        "end": finish(row=ref("steps.row.outputs")),
    }
)
LONG = graph(
    {
        "go": step("While", condition=op("LT", ref("loop.index"), 400), subgraph=TURN, config={"maxIterations": 400}),
        "end": finish(all=ref("steps.go.outputs")),
    },
)
APPROVAL = graph(
    {
        "ask": step("WaitForSignal", timeoutMs=60_000),
        "rest": step("Delay", durationMs=50),
        "check": step("Conditional", condition=ref("steps.ask.outputs.ok")),
        "yes": finish(approved=imm(True)),
        "no": step("Error", code="DECLINED", message="not this time"),
    },
    "ask rest",
    "rest check",
    "check yes true",
    "check no false",
)
DOCUMENTS = {"csv-import": IMPORT, "count-lines": COUNT, "long-way": LONG, "approval": APPROVAL}


@pytest.fixture
async def json_pool(deployed: Settings, engine: Engine, stack: AsyncExitStack, tmp_path: Path) -> Pool:
    files = []
    for id, document in DOCUMENTS.items():
        files.append(tmp_path / f"{id}.json")
        files[-1].write_text(json.dumps(document))
    return await stack.enter_async_context(Pool(deployed, [str(file) for file in files]))


async def keys(handle: Handle[Any], client: Client) -> list[str]:
    return [event.key async for event in client.history(handle.id) if event.type == "CheckpointSaved" and event.key]


async def test_a_document_runs_with_its_child(client: Client, json_pool: Pool) -> None:
    handle = await client.start("csv-import", {"text": "a,b\n1,2\n3,4\n"})
    assert await handle.result(timeout=20) == {"count": 2, "last": "a,b\n3,4\n"}
    assert sorted(await keys(handle, client)) == ["each/0/text", "each/1/text", "rows"]
    with pytest.raises(WorkflowFailed, match="step 'rows' failed: STEP_REQUIRED_INPUT_MISSING"):
        await (await client.start("csv-import", {"none": 1})).result(timeout=20)


async def test_a_killed_worker_costs_no_recorded_step(client: Client, json_pool: Pool) -> None:
    handle = await client.start("long-way", {})

    async def has_come_far() -> bool:
        return len(await keys(handle, client)) > 60

    await eventually(has_come_far)
    (child,) = json_pool.children
    os.kill(child.pid, signal.SIGKILL)
    result = await handle.result(timeout=60)
    assert result == {"all": {"iterations": 400, "outputs": {"row": "i\n399\n"}}}
    recorded = await keys(handle, client)
    assert sorted(recorded, key=lambda key: int(key.split("/")[1])) == [f"go/{n}/row" for n in range(400)]
    assert max(Counter(recorded).values()) == 1
    assert (await handle.get()).attempt > 1


@pytest.mark.parametrize("ok", [True, False])
async def test_an_approval_waits_for_its_signal(client: Client, json_pool: Pool, ok: bool) -> None:
    handle = await client.start("approval", {})
    await handle.signal("ask", {"ok": ok})
    if ok:
        assert await handle.result(timeout=20) == {"approved": True}
    else:
        with pytest.raises(WorkflowFailed, match="step 'no' failed: DECLINED: not this time"):
            await handle.result(timeout=20)
