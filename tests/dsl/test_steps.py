"""Each kind of step, compiled and run."""

from typing import Any

import pytest

from runtara.dsl.load import load_workflow
from runtara.protocol.errors import InvalidInput, WorkflowFailed, WorkflowTimeout
from runtara.sdk import Context, workflow
from runtara.sdk.client import Handle
from runtara.sdk.connections import ConnectionValue
from runtara.sdk.testing import MemoryPlatform
from tests.dsl.running import keys_of, result_of, run, running
from tests.support.probe_agent import EFFECTS, most_at_once
from tests.support.steps import agent, echo, finish, graph, imm, mapping, op, ref, step


async def test_an_agent_is_called_and_its_output_read() -> None:
    document = graph(
        {
            "fetch": echo({"id": 7}),
            "more": agent("add", {"number": ref("steps.fetch.outputs.id")}),
            "end": finish(sum=ref("steps.more.outputs"), name=ref("steps.fetch.stepName")),
        },
    )
    assert await result_of(document) == {"sum": 8, "name": "fetch"}
    assert keys_of(running.log) == ["fetch", "more"]


async def test_inputs_are_coerced_and_dotted_destinations_build_objects() -> None:
    document = graph(
        {
            "a": agent("add", {"number": "41"}),
            "b": agent("echo", {"value.x.y": ref("data.n"), "value.x.z": 2}),
            "end": finish(**{"a.b": ref("steps.a.outputs"), "c": ref("steps.b.outputs")}),
        },
    )
    assert await result_of(document, {"n": None}) == {"a": {"b": 42}, "c": {"x": {"y": None, "z": 2}}}


async def test_a_conditional_takes_one_way() -> None:
    document = graph(
        {
            "check": step("Conditional", condition=op("GT", ref("data.n"), 5)),
            "big": echo("big"),
            "small": echo("small"),
            "end": finish(
                big=ref("steps.big.outputs"), small=ref("steps.small.outputs"), was=ref("steps.check.outputs.result")
            ),
        },
        "check big true",
        "check small false",
        "big end",
        "small end",
    )
    assert await result_of(document, {"n": 6}) == {"big": "big", "small": None, "was": True}
    assert await result_of(document, {"n": 5}) == {"big": None, "small": "small", "was": False}


SWITCH = {
    "value": ref("data.kind"),
    "cases": [
        {
            "matchType": "EQ",
            "match": ["a", "b"],
            "output": {"is": "letter", "of": ref("data.kind")},
            "route": "letters",
        },
        {"matchType": "BETWEEN", "match": [1, 9], "output": "digit", "route": "digits"},
    ],
    "default": {"is": "other"},
}


async def test_a_switch_routes() -> None:
    document = graph(
        {
            "kind": step("Switch", config=SWITCH),
            "l": finish(l=ref("steps.kind.outputs")),
            "d": finish(d=ref("steps.kind.outputs")),
            "o": finish(o=ref("steps.kind.outputs")),
        },
        "kind l letters",
        "kind d digits",
        "kind o default",
    )
    assert await result_of(document, {"kind": "b"}) == {"l": {"is": "letter", "of": "b", "route": "letters"}}
    assert await result_of(document, {"kind": 4}) == {"d": "digit"}
    assert await result_of(document, {"kind": None}) == {"o": {"is": "other", "route": "default"}}


async def test_a_switch_without_routes_only_gives_a_value() -> None:
    cases = [{"matchType": "RANGE", "match": {"gte": 10}, "output": "much"}]
    document = graph(
        {
            "size": step("Switch", config={"value": ref("data.n"), "cases": cases, "default": "little"}),
            "end": finish(size=ref("steps.size.outputs")),
        },
    )
    assert await result_of(document, {"n": 10}) == {"size": "much"}
    assert await result_of(document, {"n": 1}) == {"size": "little"}


async def test_a_switch_without_a_default_gives_an_empty_object() -> None:
    cases = [{"matchType": "EQ", "match": 1, "output": "one"}]
    for default, result in ({}, {}), ({"default": None}, None):
        config = {"value": ref("data.n"), "cases": cases, **default}
        document = graph({"s": step("Switch", config=config), "end": finish(s=ref("steps.s.outputs"))})
        assert await result_of(document, {"n": 2}) == {"s": result}


async def test_conditional_edges_are_tried_by_priority() -> None:
    document = graph({"a": echo(1), "low": finish(way="low"), "high": finish(way="high"), "none": finish(way="none")})
    document["executionPlan"] = [
        {"fromStep": "a", "toStep": "low", "condition": op("GT", ref("data.n"), 0), "priority": 1},
        {"fromStep": "a", "toStep": "none"},
        {"fromStep": "a", "toStep": "high", "condition": op("GT", ref("data.n"), 10), "priority": 5},
    ]
    assert [(await result_of(document, {"n": n}))["way"] for n in (11, 1, 0)] == ["high", "low", "none"]


def split(body: dict[str, Any], value: object, **config: object) -> dict[str, Any]:
    return step("Split", subgraph=body, config={"value": value if isinstance(value, dict) else imm(value), **config})


BODY = graph(
    {
        "x": agent("add", {"number": ref("data")}),
        "end": finish(x=ref("steps.x.outputs"), i=ref("variables._index"), k=ref("variables.k"), item=ref("item")),
    },
)


@pytest.mark.parametrize("how", [{}, {"parallelism": 2}, {"sequential": True}])
async def test_a_split_keeps_the_order_of_its_items(how: dict[str, Any]) -> None:
    document = graph(
        {"s": split(BODY, [5, 6, 7], variables=mapping({"k": "K"}), **how), "end": finish(all=ref("steps.s.outputs"))}
    )
    expected = [{"x": n + 1, "i": i, "k": "K", "item": n} for i, n in enumerate((5, 6, 7))]
    assert await result_of(document) == {"all": expected}
    assert sorted(keys_of(running.log)) == ["s/0/x", "s/1/x", "s/2/x"]


@pytest.mark.parametrize(("config", "most"), [({"parallelism": 7}, 7), ({}, 100), ({"sequential": True}, 1)])
async def test_so_many_bodies_of_a_split_run_at_once_and_no_more(config: dict[str, Any], most: int) -> None:
    turn = graph({"x": agent("gauge", {"value": ref("loop.index")}), "end": finish()})
    loop = step("While", condition=op("LT", ref("loop.index"), 2), subgraph=turn)
    body = graph({"w": loop, "y": agent("gauge", {"value": ref("item")}), "end": finish(y=ref("steps.y.outputs"))})
    document = graph({"s": split(body, ref("data.v"), **config), "end": finish(all=ref("steps.s.outputs"))})
    result = await result_of(document, {"v": list(range(300))})
    assert result == {"all": [{"y": n} for n in range(300)]}
    assert most_at_once() == most


async def test_a_wait_in_a_split_has_a_signal_for_each_item() -> None:
    body = graph({"ask": step("WaitForSignal"), "end": finish(got=ref("steps.ask.outputs"))})
    document = graph({"s": split(body, ["a", "b"]), "end": finish(all=ref("steps.s.outputs"))})

    async def drive(platform: MemoryPlatform, handle: Handle[Any]) -> None:
        await platform.settle()
        await handle.signal("s-1-ask", "second")
        await handle.signal("s-0-ask", "first")

    assert await result_of(document, drive=drive) == {"all": [{"got": "first"}, {"got": "second"}]}


@pytest.mark.parametrize(
    ("value", "config", "count"),
    [
        ([], {}, 0),
        (None, {"allowNull": True}, 0),
        (4, {"convertSingleValue": True}, 1),
        ([1, 2, 3], {"batchSize": 2}, 2),
    ],
)
async def test_what_a_split_makes_of_other_values(value: object, config: dict[str, Any], count: int) -> None:
    body = graph({"x": echo(ref("data")), "end": finish(got=ref("steps.x.outputs"))})
    document = graph({"s": split(body, ref("data.v"), **config), "end": finish(all=ref("steps.s.outputs"))})
    result = await result_of(document, {"v": value})
    assert len(result["all"]) == count
    if "batchSize" in config:
        assert result["all"] == [{"got": [1, 2]}, {"got": [3]}]


@pytest.mark.parametrize("value", [None, "text", {"a": 1}])
async def test_a_split_over_no_array_fails(value: object) -> None:
    document = graph({"s": split(BODY, ref("data.v"), variables=mapping({"k": 1})), "end": finish()})
    with pytest.raises(WorkflowFailed, match=r"'s' failed: STEP_INVALID_INPUT: its value must be an array"):
        await result_of(document, {"v": value})


FAILING = graph(
    {
        "x": agent("fails", {"times": ref("data.times"), "id": ref("data.id"), "value": ref("data.id")}, maxRetries=0),
        "end": finish(ok=ref("steps.x.outputs")),
    },
)


async def test_a_split_collects_failures_if_told_to() -> None:
    items = [{"id": "a", "times": 0}, {"id": "b", "times": 9}, {"id": "c", "times": 0}]
    document = graph({"s": split(FAILING, items, dontStopOnFailed=True), "end": finish(all=ref("steps.s.outputs"))})
    found = (await result_of(document))["all"]
    assert found["data"]["success"] == [{"ok": "a"}, {"ok": "c"}]
    assert [(one["index"], one["item"]["id"], one["error"]["code"]) for one in found["data"]["error"]] == [
        (1, "b", "PROBE_FAILED")
    ]
    assert found["stats"] == {"success": 2, "error": 1, "aborted": 0, "unknown": 0, "skipped": 0, "total": 3}
    assert found["hasFailures"] is True


async def test_a_split_fails_as_the_first_of_its_items_and_retries_them_if_told_to() -> None:
    items = [{"id": "a", "times": 0}, {"id": "b", "times": 2}]
    document = graph({"s": split(FAILING, items), "end": finish(all=ref("steps.s.outputs"))})
    with pytest.raises(WorkflowFailed, match="step 's' failed: PROBE_FAILED: try 1"):
        await result_of(document)
    document = graph(
        {"s": split(FAILING, [{"id": "r", "times": 2}], maxRetries=2), "end": finish(all=ref("steps.s.outputs"))}
    )
    assert await result_of(document) == {"all": [{"ok": "r"}]}
    assert keys_of(running.log, "SleepStarted") == ["s/0#1", "s/0#2"]
    assert "s/0#3/x" in keys_of(running.log)


async def test_a_loop_goes_round_as_long_as_its_condition_holds() -> None:
    body = graph(
        {
            "n": agent("add", {"number": ref("loop.index")}),
            "end": finish(n=ref("steps.n.outputs"), before=ref("variables._previousOutputs.n")),
        }
    )
    document = graph(
        {
            "w": step(
                "While",
                condition=op("LT", ref("loop.index"), ref("data.n")),
                subgraph=body,
                config={"maxIterations": 4},
            ),
            "end": finish(w=ref("steps.w.outputs")),
        },
    )
    assert await result_of(document, {"n": 3}) == {"w": {"iterations": 3, "outputs": {"n": 3, "before": 2}}}
    assert keys_of(running.log) == ["w/0/n", "w/1/n", "w/2/n"]
    assert (await result_of(document, {"n": 99}))["w"]["iterations"] == 4
    assert await result_of(document, {"n": 0}) == {"w": {"iterations": 0, "outputs": None}}


async def test_filter_and_group_by() -> None:
    items = [{"c": "de", "n": 1}, {"c": "fr", "n": 5}, {"n": 9}]
    document = graph(
        {
            "f": step(
                "Filter", config={"value": ref("data.items"), "condition": op("LT", ref("item.n"), ref("data.max"))}
            ),
            "g": step("GroupBy", config={"value": ref("data.items"), "key": "c", "expectedKeys": ["it"]}),
            "end": finish(f=ref("steps.f.outputs"), g=ref("steps.g.outputs")),
        },
    )
    assert await result_of(document, {"items": items, "max": 6}) == {
        "f": {"items": items[:2], "count": 2},
        "g": {
            "groups": {"it": [], "de": [items[0]], "fr": [items[1]], "null": [items[2]]},
            "counts": {"it": 0, "de": 1, "fr": 1, "null": 1},
            "total_groups": 4,
        },
    }


@workflow
async def audit(ctx: Context, order: int, by: str = "nobody") -> dict[str, Any]:
    return {"audited": order, "by": by}


async def test_a_child_is_an_instance_of_its_own() -> None:
    child = load_workflow(graph({"end": finish(got=ref("data.order"))}), id="child")
    embed = {"inputMapping": mapping({"order": 7, "by": ref("data.none")})}
    document = graph(
        {
            "json": step("EmbedWorkflow", childWorkflowId="child", **embed),
            "python": step("StartScenario", childScenarioId="audit", **embed),
            "end": finish(json=ref("steps.json.outputs"), python=ref("steps.python.outputs")),
        },
    )
    result = await result_of(document, hosts=(child, audit))
    assert result == {"json": {"got": 7}, "python": {"audited": 7, "by": "nobody"}}
    assert keys_of(running.log, "ChildRequested") == ["json/1", "python/1"]


async def test_a_child_that_fails_is_tried_again_and_its_error_read() -> None:
    child = load_workflow(
        graph(
            {
                "x": agent("fails", {"times": ref("data.times"), "value": "fine"}, maxRetries=0),
                "end": finish(x=ref("steps.x.outputs")),
            }
        ),
        id="child",
    )
    embed = step(
        "EmbedWorkflow", childWorkflowId="child", inputMapping=mapping({"times": 2}), maxRetries=2, retryDelay=50
    )
    document = graph({"c": embed, "end": finish(c=ref("steps.c.outputs"))})
    assert await result_of(document, hosts=(child,)) == {"c": {"x": "fine"}}
    assert keys_of(running.log, "ChildRequested") == ["c/1", "c/2", "c/3"]

    bad = load_workflow(graph({"no": step("Error", code="NO_STOCK", message="none left")}), id="child")
    document = graph(
        {
            "c": embed,
            "end": finish(),
            "sorry": finish(code=ref("steps.__error.code"), by=ref("error.attributes.cause")),
        },
        "c end",
        "c sorry onError",
    )
    assert await result_of(document, hosts=(bad,)) == {"code": "NO_STOCK", "by": "no"}
    assert keys_of(running.log, "ChildRequested") == ["c/1"], "a permanent error of the child's own is not tried again"


async def test_a_child_that_takes_too_long_times_out() -> None:
    slow = load_workflow(graph({"z": step("Delay", durationMs=60_000), "end": finish()}), id="child")
    embed = step("EmbedWorkflow", childWorkflowId="child", timeout=5_000, maxRetries=0)
    document = graph({"c": embed, "end": finish(), "late": finish(code=ref("error.code"))}, "c end", "c late onError")
    assert await result_of(document, hosts=(slow,)) == {"code": "STEP_TIMEOUT"}


async def test_a_delay_is_a_durable_sleep() -> None:
    document = graph({"z": step("Delay", durationMs=ref("data.ms")), "end": finish()})
    await result_of(document, {"ms": "86400000"})
    assert keys_of(running.log, "SleepStarted") == ["z"]
    with pytest.raises(WorkflowFailed, match="durationMs must be milliseconds"):
        await result_of(document, {"ms": -1})


async def send(platform: MemoryPlatform, handle: Handle[Any], name: str, payload: object) -> None:
    await platform.settle()
    await handle.signal(name, payload)


async def test_a_signal_is_waited_for_and_its_payload_checked() -> None:
    wait = step(
        "WaitForSignal",
        timeoutMs=60_000,
        responseSchema={"ok": {"type": "boolean", "required": True}, "by": {"type": "string", "default": "?"}},
    )
    document = graph({"approve": wait, "end": finish(got=ref("steps.approve.outputs"))})
    result = await result_of(document, drive=lambda p, h: send(p, h, "approve", {"ok": True}))
    assert result == {"got": {"ok": True, "by": "?"}}
    with pytest.raises(
        WorkflowFailed, match=r"SCHEMA_MISMATCH: the payload of signal 'approve' .*\.ok must be a boolean, not text"
    ):
        await result_of(document, drive=lambda p, h: send(p, h, "approve", {"ok": "yes"}))


async def test_a_signal_that_does_not_come_leads_to_the_handler() -> None:
    document = graph(
        {"approve": step("WaitForSignal", timeoutMs=60_000), "end": finish(), "late": finish(code=ref("error.code"))},
        "approve end",
        "approve late onError",
    )
    assert await result_of(document) == {"code": "SIGNAL_TIMEOUT"}


async def test_what_runs_before_a_wait_knows_the_signal() -> None:
    before = graph({"tell": echo(ref("variables._signal_id")), "end": finish()})
    action = {"key": "ship", "correlation": mapping({"order": ref("data.order")}), "context": mapping({"who": "Zoë"})}
    document = graph(
        {
            "before": echo("b"),
            "ask": step("WaitForSignal", onWait=before, action=action),
            "end": finish(got=ref("steps.ask.outputs")),
        }
    )
    result, log = await run(document, {"order": 7}, drive=lambda p, h: send(p, h, "ask", "go"))
    assert result == {"got": "go"}
    assert "ask/wait/tell" in keys_of(log)
    (told,) = [event for event in log if event.type == "CustomEvent"]
    assert b'"signal":"ask","step":"ask","key":"ship","correlation":{"order":7}' in bytes(told.data)
    assert b'"who":"Zo' in bytes(told.data)


async def test_a_log_step_writes_into_the_event_log() -> None:
    document = graph(
        {"l": step("Log", level="warn", message="hear", context=mapping({"n": ref("data.n")})), "end": finish()}
    )
    _, log = await run(document, {"n": 3})
    (line,) = [event for event in log if event.type == "CustomEvent"]
    assert bytes(line.data) == b'{"name":"log","data":{"level":"warn","message":"hear","context":{"n":3}}}'


async def test_an_error_step_fails_the_graph_with_a_structured_error() -> None:
    document = graph(
        {
            "no": step(
                "Error",
                code="NO_STOCK",
                message="none left",
                severity="critical",
                context=mapping({"sku": ref("data.sku")}),
            )
        }
    )
    with pytest.raises(WorkflowFailed, match="step 'no' failed: NO_STOCK: none left") as failed:
        await result_of(document, {"sku": "x"})
    details: Any = failed.value.attributes["details"]
    assert details["details"] == {"sku": "x"}
    assert details["severity"] == "critical"


async def test_a_handler_reads_the_error_and_may_come_back() -> None:
    document = graph(
        {
            "try": agent("fails", {"times": 9}, maxRetries=1, retryDelay=10),
            "note": echo(ref("steps.__error")),
            "good": echo("good"),
            "end": finish(note=ref("steps.note.outputs"), good=ref("steps.good.outputs")),
        },
        "try good",
        "try note onError",
        "note end",
        "good end",
    )
    result = await result_of(document)
    assert result["good"] is None
    assert result["note"] == {
        "code": "PROBE_FAILED",
        "message": "try 2",
        "category": "transient",
        "severity": "error",
        "stepId": "try",
        "attributes": {"try": 2},
    }


async def test_permanent_errors_are_not_tried_again() -> None:
    document = graph({"try": agent("fails", {"times": 9, "permanent": True}), "end": finish()})
    with pytest.raises(WorkflowFailed, match="try 1"):
        await result_of(document)


async def test_bad_inputs_fail_the_step() -> None:
    inputs = {"value": ref("data.value", type="integer"), "number": ref("data.number")}
    document = graph({"a": agent("add", inputs), "end": finish(a=ref("steps.a.outputs"))})
    assert await result_of(document, {"value": None}) == {"a": 1}, "what is missing takes the default"
    with pytest.raises(WorkflowFailed, match=r"'a' failed: STEP_INVALID_INPUT: .*number"):
        await result_of(document, {"number": "x"})
    with pytest.raises(WorkflowFailed, match=r"INVALID_INPUT: data\.value cannot be read as integer: 'x' is no"):
        await result_of(document, {"value": "x"})


async def test_waits_for_a_rate_limit_have_their_own_budget() -> None:
    busy = agent("fails", {"times": 3, "retry_after_ms": 20_000, "value": "served"}, maxRetries=0)
    document = graph({"busy": busy, "end": finish(got=ref("steps.busy.outputs"))}, rateLimitBudgetMs=60_000)
    assert await result_of(document) == {"got": "served"}
    document["rateLimitBudgetMs"] = 50_000
    document["steps"]["busy"]["inputMapping"]["id"] = imm("again")
    with pytest.raises(WorkflowFailed, match="try 3"):
        await result_of(document)


async def test_a_try_that_hangs_is_timed_out() -> None:
    document = graph(
        {
            "h": agent("hangs", timeout=20, maxRetries=1, retryDelay=1),
            "end": finish(),
            "late": finish(code=ref("error.code")),
        },
        "h end",
        "h late onError",
    )
    assert await result_of(document) == {"code": "STEP_TIMEOUT"}
    assert keys_of(running.log, "StepFailed") == ["h", "h"]


async def test_loops_and_splits_have_time_limits_in_the_log() -> None:
    turn = graph({"z": step("Delay", durationMs=10_000), "end": finish()})
    loop = step("While", condition=imm(True), subgraph=turn, config={"maxIterations": 100, "timeout": 35_000})
    document = graph(
        {"w": loop, "end": finish(), "late": finish(by=ref("error.stepId"), code=ref("error.code"))},
        "w end",
        "w late onError",
    )
    assert await result_of(document) == {"by": "w", "code": "STEP_TIMEOUT"}
    assert "w/timeout" in keys_of(running.log, "SleepStarted")
    document["steps"]["w"] = split(turn, [1, 2], timeout=5_000)
    assert await result_of(document) == {"by": "w", "code": "STEP_TIMEOUT"}
    document["steps"]["w"] = split(turn, [1, 2], timeout=15_000)
    assert await result_of(document) == {}


async def test_parallel_branches_meet_once() -> None:
    document = graph(
        {
            "a": echo("a"),
            "b": echo("b"),
            "c": step("Delay", durationMs=1_000),
            "c2": echo("c2"),
            "d": echo(ref("steps.b.outputs")),
            "end": finish(b=ref("steps.b.outputs"), c=ref("steps.c2.outputs"), d=ref("steps.d.outputs")),
        },
        "a b",
        "a c",
        "c c2",
        "b d",
        "c2 d",
        "d end",
    )
    assert await result_of(document) == {"b": "b", "c": "c2", "d": "b"}
    assert keys_of(running.log, "CheckpointSaved") == ["a", "b", "c2", "d"]


async def test_a_diamond_that_blocks_cannot_have_runs_by_readiness() -> None:
    document = graph(
        {
            "a": echo("a"),
            "b": echo("b"),
            "c": echo("c"),
            "d": echo(ref("steps.b.outputs")),
            "e": echo([1]),
            "f": echo(ref("steps.e.outputs")),
            "end": finish(d=ref("steps.d.outputs"), f=ref("steps.f.outputs")),
        },
        "a b",
        "a c",
        "b d",
        "b e",
        "c e",
        "d f",
        "e f",
        "f end",
    )
    assert await result_of(document) == {"d": "b", "f": [1]}
    assert sorted(keys_of(running.log)) == list("abcdef")


async def test_a_failing_branch_ends_its_siblings() -> None:
    document = graph(
        {
            "a": echo("a"),
            "bad": agent("fails", {"times": 9, "permanent": True}),
            "slow": step("Delay", durationMs=3_600_000),
            "after": echo("after"),
            "end": finish(),
        },
        "a bad",
        "a slow",
        "slow after",
        "bad end",
        "after end",
    )
    with pytest.raises(WorkflowFailed, match="step 'bad' failed"):
        await result_of(document)
    assert "after" not in keys_of(running.log)


async def test_handlers_side_by_side_each_read_their_own_error() -> None:
    steps: dict[str, Any] = {"a": echo("a")}
    edges = []
    for name in ("x", "y"):
        steps[name] = agent("fails", {"times": 9, "code": f"CODE_{name.upper()}", "id": name}, maxRetries=0)
        steps[f"rest-{name}"] = step("Delay", durationMs=1_000)
        steps[f"told-{name}"] = echo({"valueType": "template", "value": "{{ steps.__error.code }} {{ error.stepId }}"})
        edges += [
            f"a {name}",
            f"{name} rest-{name} onError",
            f"rest-{name} told-{name}",
            f"told-{name} end",
            f"{name} end",
        ]
    steps["end"] = finish(x=ref('steps["told-x"].outputs'), y=ref('steps["told-y"].outputs'))
    assert await result_of(graph(steps, *edges)) == {"x": "CODE_X x", "y": "CODE_Y y"}


async def test_what_only_waits_leaves_memory() -> None:
    body = graph({"z": step("Delay", durationMs=3_600_000), "end": finish()})
    document = graph(
        {
            "a": echo("a"),
            "s": split(body, [1, 2, 3], timeout=7_200_000),
            "w": step("While", condition=op("LT", ref("loop.index"), 1), subgraph=body, config={"timeout": 7_200_000}),
            "q": step("WaitForSignal", timeoutMs=1_800_000),
            "r": echo("r"),
            "end": finish(),
        },
        "a s",
        "a w",
        "a q",
        "q r",
        "q end onError",
        "s end",
        "w end",
        "r end",
    )
    _, log = await run(document)
    assert [event.type for event in log].count("InstanceSuspended") >= 2


async def test_a_connection_is_opened_by_the_step_and_never_recorded() -> None:
    document = graph({"c": agent("connected", connectionId="crm"), "end": finish(user=ref("steps.c.outputs"))})
    workflow = load_workflow(document, id="doc")
    assert workflow.options.connections == ("crm",)
    secret = "s3cret-of-ours"
    fields = {"username": "ada", "password": secret, "base_url": "https://example.org"}
    async with MemoryPlatform(workflow, connections=[ConnectionValue("crm", "http_basic", fields)]) as platform:
        handle = await platform.start(workflow, {})
        assert await handle.result() == {"user": "ada"}
        assert all(secret.encode() not in bytes(event.data) for event in platform.log(handle.id))
    async with MemoryPlatform(workflow) as platform:
        with pytest.raises(WorkflowFailed, match=r"step 'c' failed: STEP_FAILED: .*crm"):
            await (await platform.start(workflow, {})).result()


async def test_a_breakpoint_waits_to_be_continued() -> None:
    document = graph({"a": echo("a", breakpoint=True), "end": finish(a=ref("steps.a.outputs"))})
    EFFECTS.calls.clear()

    async def drive(platform: MemoryPlatform, handle: Handle[Any]) -> None:
        await platform.settle()
        assert keys_of(platform.log("one")) == ["a/breakpoint"]
        await handle.signal("_continue")

    assert await result_of(document, drive=drive) == {"a": "a"}


async def test_the_whole_workflow_has_a_time_limit() -> None:
    document = graph({"z": step("Delay", durationMs=10_000), "end": finish()}, executionTimeoutSeconds=5)
    with pytest.raises((WorkflowTimeout, WorkflowFailed), match="did not finish within 5 s"):
        await result_of(document)


async def test_what_is_not_durable_leaves_no_record() -> None:
    steps = {
        "a": echo(1, durable=False),
        "b": agent("fails", {"times": 2, "value": "ok"}, durable=False, retryDelay=1),
        "c": echo(2),
    }
    document = graph({**steps, "end": finish(b=ref("steps.b.outputs"))})
    assert await result_of(document) == {"b": "ok"}
    assert keys_of(running.log) == ["c"]
    document["durable"] = False
    await result_of(document)
    assert keys_of(running.log) == []


async def test_input_is_data_and_variables_or_bare_data() -> None:
    document = graph(
        {
            "end": finish(
                n=ref("data.n"),
                limit=ref("variables.limit"),
                again=ref("scenario.inputs.data.n"),
                id=ref("variables._instance_id"),
            )
        },
        inputSchema={"n": {"type": "integer", "required": True}},
        outputSchema={"n": {"type": "integer", "max": 99}},
        variables={"limit": {"type": "integer", "value": 10}},
    )
    workflow = load_workflow(document, id="doc")
    async with MemoryPlatform(workflow) as platform:
        for given, limit in (
            ({"n": 4}, 10),
            ({"data": {"n": 4}}, 10),
            ({"data": {"n": 4}, "variables": {"limit": 3}}, 3),
        ):
            handle = await platform.start("doc", given)
            assert await handle.result() == {"n": 4, "limit": limit, "again": 4, "id": handle.id}
        refused: Any = (
            ({"n": "x"}, "data.n must be an integer, not text"),
            ({}, "data.n is missing"),
            ({"data": {"n": 1}, "variables": {"x": 1}}, "it has no variable 'x'"),
            ({"data": {"n": 1}, "more": 1}, "put it into data"),
            ({"data": {"n": 1}, "variables": {"limit": "x"}}, "variables.limit must be an integer, not text"),
            ({"data": {"n": 1}, "variables": [1]}, "variables is an object"),
        )
        for given, why in refused:
            with pytest.raises(WorkflowFailed, match=why):
                await (await platform.start("doc", given)).result()
        with pytest.raises(WorkflowFailed, match="SCHEMA_MISMATCH: the result does not fit its schema"):
            await (await platform.start("doc", {"n": 100})).result()
        with pytest.raises(InvalidInput):
            workflow.encode_input({"n": None})


async def test_step_events_show_inputs_and_outputs_within_bounds() -> None:
    document = graph(
        {
            "a": echo(ref("data.many")),
            "bad": agent("fails", {"times": 9, "permanent": True}),
            "end": finish(),
            "no": finish(),
        },
        "a bad",
        "bad end",
        "bad no onError",
        trackEvents=True,
    )
    _, log = await run(document, {"many": [*range(60), "x" * 9_000]})
    events = [event for event in log if event.type == "CustomEvent"]
    assert [event.key for event in events] == [
        "a/started",
        "a/ended",
        "bad/started",
        "bad/ended",
        "no/started",
        "no/ended",
    ]
    first = bytes(events[0].data)
    assert b'{"\xe2\x80\xa6truncated":{"items":11}}' in first
    assert len(first) < 9_000
    assert b'"phase":"failed"' in bytes(events[3].data)
