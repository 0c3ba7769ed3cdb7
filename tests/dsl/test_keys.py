"""Keys: the full path of every step, so that no two steps, turns or tries share one."""

import itertools
import string
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runtara.dsl.runtime.keys import key_part
from runtara.protocol.ids import is_key
from tests.dsl.running import keys_of, result_of, running
from tests.support.steps import echo, finish, graph, imm, ref, step

IDS = st.text(st.sampled_from(string.ascii_letters + "~/=#01h. é名"), min_size=1, max_size=128)


@given(st.lists(IDS, unique=True, max_size=40))
def test_no_two_ids_have_the_same_part(ids: list[str]) -> None:
    parts = [key_part(id) for id in ids]
    assert len(set(parts)) == len(ids)
    for part in parts:
        assert is_key(part)
        assert "/" not in part
        assert not part.startswith("~")
        assert len(part) <= 72


async def test_similar_ids_and_names_of_all_scripts_are_told_apart() -> None:
    ids = [
        "a",
        "a1",
        "a_1",
        "a-1",
        "A1",
        "a 1",
        "größe",
        "名前",
        "a.b",
        "x/y",
        "x~1y",
        "~x",
        "=~0x",
        "steps",
        "return",
        "run",
        "ctx",
    ]
    document = graph(
        {id: echo(n) for n, id in enumerate(ids)}
        | {"end": finish(**{f"r{n}": ref(f'steps["{id}"].outputs') for n, id in enumerate(ids)})},
    )
    document["executionPlan"] = [
        {"fromStep": one, "toStep": other} for one, other in zip(ids, [*ids[1:], "end"], strict=True)
    ]
    assert await result_of(document) == {f"r{n}": n for n in range(len(ids))}
    assert len(set(keys_of(running.log))) == len(ids)


async def test_turns_items_and_bodies_have_paths_of_their_own() -> None:
    innermost = graph({"x": echo(ref("variables._loop_indices")), "end": finish(x=ref("steps.x.outputs"))})
    inner = split(innermost, [1, 2])
    turn = graph({"x": echo(ref("variables._loop_indices")), "s": inner, "end": finish(s=ref("steps.s.outputs"))})
    loop = step("While", condition=imm(True), subgraph=turn, config={"maxIterations": 2})
    outer = graph({"x": echo("outer"), "w": loop, "end": finish(w=ref("steps.w.outputs.outputs.s"))})
    document = graph({"s": split(outer, ["a", "b"]), "x": echo("whole"), "end": finish(s=ref("steps.s.outputs"))})
    assert await result_of(document) == {
        "s": [{"w": [{"x": [i, 1, j]} for j in range(2)]} for i in range(2)],
    }
    expected = ["x"]
    for i in range(2):
        expected.append(f"s/{i}/x")
        for turn_number in range(2):
            expected.append(f"s/{i}/w/{turn_number}/x")
            expected += [f"s/{i}/w/{turn_number}/s/{j}/x" for j in range(2)]
    assert sorted(keys_of(running.log)) == sorted(expected)


def split(body: dict[str, Any], items: list[object]) -> dict[str, Any]:
    return step("Split", subgraph=body, config={"value": imm(items)})


async def test_a_thousand_steps_in_a_row() -> None:
    steps = {f"step {n}": echo(n) for n in range(1_000)}
    document = graph({**steps, "end": finish(last=ref('steps["step 999"].outputs'))})
    ids = [*steps, "end"]
    document["executionPlan"] = [{"fromStep": one, "toStep": other} for one, other in itertools.pairwise(ids)]
    assert await result_of(document) == {"last": 999}
    assert len(keys_of(running.log)) == 1_000
