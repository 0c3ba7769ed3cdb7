"""JSON workflows that are measured, and the same work in Python."""

from typing import Any, Final

from runtara.agents.utils import ReturnInput, Utils
from runtara.dsl.load import load_workflow
from runtara.sdk import Context, workflow

Json = dict[str, Any]
ROWS: Final = [{"order": "o-4711", "state": "x" * 60}]
_UTILS: Final = Utils()


def steps_in_a_row(count: int) -> Json:
    """A graph of so many Agent steps, and a Finish."""
    ids = [f"step-{n}" for n in range(count)]
    mapping = {"value": {"valueType": "reference", "value": "data.rows"}}
    steps: dict[str, Json] = {
        id: {"stepType": "Agent", "agentId": "utils", "capabilityId": "return-input", "inputMapping": mapping}
        for id in ids
    }
    steps["end"] = {"stepType": "Finish", "inputMapping": {"last": _reference(f"steps.{ids[-1]}.outputs")}}
    edges = [{"fromStep": one, "toStep": other} for one, other in zip(ids, [*ids[1:], "end"], strict=True)]
    return {"steps": steps, "executionPlan": edges, "inputSchema": {"rows": {"type": "array", "required": True}}}


def split(parallelism: int) -> Json:
    """A Split with a body of one Agent step over `data.items`."""
    body = {
        "steps": {
            "text": {
                "stepType": "Agent", "agentId": "utils", "capabilityId": "return-input",
                "inputMapping": {"value": _reference("item")},
            },
            "end": {"stepType": "Finish", "inputMapping": {"text": _reference("steps.text.outputs")}},
        },
        "executionPlan": [{"fromStep": "text", "toStep": "end"}],
    }  # fmt: skip
    count = {"count": _reference("data.count"), "done": _reference("steps.each.outputs[-1].text")}
    steps = {
        "each": {
            "stepType": "Split", "subgraph": body,
            "config": {"value": _reference("data.items"), "parallelism": parallelism},
        },
        "end": {"stepType": "Finish", "inputMapping": count},
    }  # fmt: skip
    schema = {"items": {"type": "array", "required": True}, "count": {"type": "integer"}}
    return {"steps": steps, "executionPlan": [{"fromStep": "each", "toStep": "end"}], "inputSchema": schema}


def _reference(path: str) -> Json:
    return {"valueType": "reference", "value": path}


IN_A_ROW: Final = 500
json_steps: Final = load_workflow(steps_in_a_row(IN_A_ROW), id="json-steps")
json_split: Final = load_workflow(split(100), id="json-split")


async def return_input(value: Any) -> Any:
    """What the capability does."""
    return _UTILS.return_input(ReturnInput(value=value))


@workflow(name="python-steps")
async def python_steps(ctx: Context, rows: list[Json]) -> Any:
    """The same calls as `json-steps`."""
    last: Any = None
    for n in range(IN_A_ROW):
        last = await ctx.step(f"step-{n}", return_input, rows)
    return last
