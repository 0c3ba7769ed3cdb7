"""Compiled source: readable, formatted, typed, and never nested too deeply. The goldens are what people would read."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from runtara.dsl.compiler import compile_workflow
from runtara.dsl.compiler.printing import WIDTH, literal, printed, quoted
from runtara.dsl.load import graph_of, graph_of_file
from runtara.dsl.runtime import JsonWorkflow
from runtara.protocol.errors import WorkflowFailed
from runtara.sdk.discovery import load
from tests.dsl.running import keys_of, result_of, running
from tests.support.steps import agent, echo, finish, graph, imm, mapping, op, ref, step

GOLDEN: Final = Path(__file__).with_name("golden")
ROOT: Final = Path(__file__).parents[2]

DOCUMENTS: Final = sorted(GOLDEN.glob("*.json"))


def compiled(file: Path) -> str:
    return compile_workflow(graph_of_file(file), id=file.stem)


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.stem)
def test_the_source_is_the_golden_one(file: Path) -> None:
    source = file.with_suffix(".py").read_text()
    assert compiled(file) == source, "if it is meant, write it anew: python -m tests.dsl.write_golden"


def test_the_goldens_are_formatted_and_typed() -> None:
    for command in (["ruff", "format", "--check"], ["ruff", "check", "--no-cache"], ["mypy", "--strict"]):
        done = subprocess.run(
            [sys.executable, "-m", *command, str(GOLDEN)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_compiled_source_is_a_target_like_any_other() -> None:
    (workflow,) = load([str(GOLDEN / "order.py")]).workflows
    assert isinstance(workflow, JsonWorkflow)
    assert workflow.name == "order"
    assert workflow.json_schema["required"] == ["data"]


@pytest.mark.parametrize("ok", [True, False])
async def test_the_irregular_one_runs_in_its_order(ok: bool) -> None:
    await result_of(json.loads((GOLDEN / "irregular.json").read_text()), {"ok": ok})
    found = keys_of(running.log, "CheckpointSaved")
    assert sorted(found) == ["a", "b", "d", "e"]
    assert found.index("b") < found.index("e")


async def test_long_lines_of_choices_and_handlers_stay_flat() -> None:
    steps: dict[str, Any] = {}
    edges = []
    for n in range(60):
        steps[f"c{n}"] = step("Conditional", condition=op("EQ", ref("data.n"), n))
        steps[f"t{n}"] = agent("fails", {"times": 1, "id": str(n)}, maxRetries=0)
        steps[f"h{n}"] = echo(n)
        edges += [
            f"c{n} out true",
            f"c{n} t{n} false",
            f"t{n} h{n} onError",
            f"t{n} m{n}",
            f"h{n} m{n}",
            f"m{n} c{n + 1}",
        ]
        steps[f"m{n}"] = step("Log", message="on")
    steps["c60"] = finish(way="through")
    steps["out"] = finish(way="out")
    document = graph(steps, *edges)
    source = compile_workflow(graph_of(document, id="flat"), id="flat")
    deepest = max(len(line) - len(line.lstrip()) for line in source.splitlines())
    assert deepest <= 16
    assert await result_of(document, {"n": -1}) == {"way": "through"}
    assert await result_of(document, {"n": 31}) == {"way": "out"}


async def test_a_handler_that_all_steps_share_is_written_once() -> None:
    steps: dict[str, Any] = {f"s{n}": agent("fails", {"times": 1, "id": str(n)}, maxRetries=0) for n in range(50)}
    steps |= {"last": finish(ok=imm(True)), "tell": echo(ref("steps.__error.stepId"))}
    steps |= {"note": step("Log", message="failed"), "sorry": finish(by=ref("steps.tell.outputs"))}
    edges = [f"s{n} s{n + 1}" for n in range(49)] + ["s49 last", "tell note", "note sorry"]
    document = graph(steps, *edges, *(f"s{n} tell onError" for n in range(50)))
    source = compile_workflow(graph_of(document, id="shared"), id="shared")
    assert source.count('run.agent("tell"') == 1
    assert source.count("return await tell_and_end()") == 50
    assert "else:" not in source
    assert await result_of(document) == {"by": "s0"}


async def test_a_handler_that_parallel_branches_share_ends_the_graph() -> None:
    steps = {
        "a": echo("a"),
        "b": agent("fails", {"times": 1}, maxRetries=0),
        "c": step("Delay", durationMs=60_000),
        "d": echo("d"),
        "end": finish(),
        "tell": echo(ref("error.code")),
        "sorry": step("Error", code="SORRY", message="no", context=mapping({"of": ref("steps.tell.outputs")})),
    }
    edges = ["a b", "a c", "b d", "c d", "d end", "b tell onError", "c tell onError", "d tell onError", "tell sorry"]
    with pytest.raises(WorkflowFailed, match="SORRY") as failed:
        await result_of(graph(steps, *edges))
    details: Any = failed.value.attributes["details"]
    assert details["details"] == {"of": "PROBE_FAILED"}
    assert "d" not in keys_of(running.log)


@pytest.mark.parametrize("ok", [True, False])
async def test_where_branches_meet_by_choice_is_reached_once_by_all(ok: bool) -> None:
    steps = {
        "a": echo("a"),
        "b": step("Conditional", condition=ref("data.ok")),
        "slow": step("Delay", durationMs=5_000),
        "c": step("Conditional", condition=imm(True)),
        "meet": echo("meet"),
        "end": finish(met=ref("steps.meet.outputs"), slow=ref("steps.slow.stepType")),
        "no": step("Error", code="NO", message="no"),
    }
    edges = ["a b", "a slow", "slow c", "b meet true", "b no false", "c meet true", "c no false", "meet end"]
    if ok:
        assert await result_of(graph(steps, *edges), {"ok": ok}) == {"met": "meet", "slow": "Delay"}
        assert keys_of(running.log).count("meet") == 1
    else:
        with pytest.raises(WorkflowFailed, match="NO: no"):
            await result_of(graph(steps, *edges), {"ok": ok})


async def test_a_step_that_leads_into_an_error_lets_nothing_start_that_waits_for_it() -> None:
    steps = {
        "a": echo("a"),
        "b": agent("fails", {"times": 1}, maxRetries=0),
        "c": echo("c"),
        "d": echo("d"),
        "e": echo("e"),
        "end": finish(),
        "tell": step("Delay", durationMs=60_000),
        "sorry": step("Error", code="SORRY", message="no"),
    }
    edges = ["a b", "a c", "b d", "c d", "b e", "d end", "e end", "b tell onError", "c tell onError", "tell sorry"]
    with pytest.raises(WorkflowFailed, match="SORRY"):
        await result_of(graph(steps, *edges))
    assert sorted(keys_of(running.log, "CheckpointSaved", "SleepStarted")) == ["a", "c", "tell"]


async def test_deep_trees_of_choices_are_no_deep_code() -> None:
    steps: dict[str, Any] = {f"c{n}": step("Conditional", condition=op("LT", ref("data.n"), n)) for n in range(1, 32)}
    steps |= {f"c{n}": finish(leaf=imm(n)) for n in range(32, 64)}
    edges = [f"c{n} c{2 * n} true" for n in range(1, 32)] + [f"c{n} c{2 * n + 1} false" for n in range(1, 32)]
    assert await result_of(graph(steps, *edges), {"n": 0}) == {"leaf": 32}
    assert await result_of(graph(steps, *edges), {"n": 99}) == {"leaf": 63}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "it's",
        'say "hi"',
        "both ' and \"",
        "back\\slash",
        "a\nb\tc\r",
        "\x00\x7f\u2028\ufeff\U000e0001",
        "名前",
        "{{ x }}",
        "x" * 500,
        " " * 300,
        "word " * 100,
    ],
)
def test_texts_are_read_back_as_they_were(text: str) -> None:
    for node in (literal(text), literal({"k": [text]}), literal({text: text})):
        lines = printed(node, indent=8, before="x = ")
        found: dict[str, Any] = {}
        exec("\n".join(line.removeprefix(" " * 8) for line in lines), found)
        assert found["x"] in (text, {"k": [text]}, {text: text})
        if len(quoted(text)) < 80:
            assert max(map(len, lines)) <= WIDTH
