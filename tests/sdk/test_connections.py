"""Connections in the code of workflows and steps: what opens them, and what never shows them."""

import asyncio
import pickle
import traceback
from typing import Any

import pytest

from runtara.protocol.connections import check_names
from runtara.protocol.errors import (
    ConnectionNotAllowed,
    ConnectionNotFound,
    InvalidConnection,
    InvalidId,
    NoContext,
    WorkflowFailed,
)
from runtara.sdk import ConnectionValue, Context, connection, step, sync, workflow
from runtara.sdk.testing import MemoryPlatform, assert_crash_safe

SECRET = "tr0ub4dor-and-3"
CRM = ConnectionValue("crm", "http_bearer", {"token": SECRET, "base_url": "https://crm.example"})


@step
async def push(row: int) -> str:
    crm = await connection("crm")
    return f"{row} to {crm.fields['base_url']} as {crm.type}, {len(crm.fields['token'])}"


@workflow(connections=("crm",))
async def pushes(ctx: Context, rows: list[int]) -> list[str]:
    assert (await connection("crm")).name == "crm"
    return [await push(row) for row in rows]


@workflow(connections=["crm"])
def blocking(ctx: sync.Context) -> int:
    def in_step() -> int:
        return len(sync.connection("crm").fields["token"])

    return len(sync.connection("crm").fields) + ctx.step("length", in_step)


@workflow
async def unnamed(ctx: Context) -> None:
    await connection("crm")


@workflow(connections=("crm",))
async def careless(ctx: Context, how: str) -> Any:
    crm = await connection("crm")
    if how == "returned":
        return crm
    if how == "argument":
        return await step(_takes)(crm)
    if how == "recorded":
        return await ctx.checkpoint("crm", crm)
    raise ValueError(f"{crm} {crm.fields} {[crm.fields]!r}")


async def _takes(crm: ConnectionValue) -> str:
    return crm.name


def all_of(platform: MemoryPlatform, id: str) -> str:
    return str([(event.key, bytes(event.data)) for event in platform.log(id)])


async def test_a_workflow_and_its_steps_open_what_it_names_and_the_log_has_none_of_it() -> None:
    async with MemoryPlatform(connections=[CRM]) as platform:
        handle = await platform.start(pushes, rows=[1, 2])
        assert (await handle.result())[1] == "2 to https://crm.example as http_bearer, 15"
        assert SECRET not in all_of(platform, handle.id)


async def test_a_blocking_workflow_and_its_steps_do_too() -> None:
    async with MemoryPlatform(connections=[CRM]) as platform:
        assert await (await platform.start(blocking)).result() == 2 + len(SECRET)


async def test_it_is_the_same_after_any_crash() -> None:
    await assert_crash_safe(pushes, rows=[1, 2], effects=[push], connections=[CRM])


async def test_a_connection_that_the_workflow_does_not_name_is_refused() -> None:
    async with MemoryPlatform(connections=[CRM]) as platform:
        with pytest.raises(WorkflowFailed, match=r"its workflow unnamed does not name it.*connections=\('crm',\)") as e:
            await (await platform.start(unnamed, id="i-1")).result()
        assert e.value.type == ConnectionNotAllowed.__name__


async def test_a_connection_that_nobody_has_set_says_how_to() -> None:
    async with MemoryPlatform() as platform:
        with pytest.raises(WorkflowFailed, match="`runtara connections set crm --type") as caught:
            await (await platform.start(pushes, rows=[])).result()
        assert caught.value.type == ConnectionNotFound.__name__


@pytest.mark.parametrize("how", ["returned", "argument", "recorded", "raised"])
async def test_it_cannot_be_recorded_and_no_error_shows_it(how: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with MemoryPlatform(connections=[CRM]) as platform:
        handle = await platform.start(careless, how=how)
        with pytest.raises(WorkflowFailed) as caught:
            await handle.result()
        assert SECRET not in str(caught.value)
        assert SECRET not in all_of(platform, handle.id)
        assert SECRET not in caplog.text


@workflow(connections=("crm",))
async def mixed_up(ctx: Context, where: str) -> None:
    if where == "loop":
        sync.connection("crm")
    await ctx.run_in_thread(lambda: asyncio.run(_opened()))


async def _opened() -> None:
    await connection("crm")


@pytest.mark.parametrize(("where", "hint"), [("loop", "await connection"), ("thread", "sync.connection")])
async def test_the_wrong_one_of_the_two_says_which_it_is(where: str, hint: str) -> None:
    async with MemoryPlatform(connections=[CRM]) as platform:
        with pytest.raises(WorkflowFailed, match=hint):
            await (await platform.start(mixed_up, where=where)).result()


async def test_outside_of_a_workflow_there_is_none() -> None:
    with pytest.raises(NoContext):
        await connection("crm")
    with pytest.raises(NoContext):
        sync.connection("crm")


async def test_the_platform_in_memory_sets_lists_and_deletes_them() -> None:
    async with MemoryPlatform(pushes, connections=[CRM], actor="ann") as platform:
        await platform.connections.set("files", "sftp", {"host": "h", "password": SECRET})
        await (await platform.start(pushes, rows=[])).result()  # behind its registration
        listed = await platform.connections.list()
        assert [(view.name, view.type, view.used_by, view.set_by) for view in listed] == [
            ("crm", "http_bearer", ["pushes"], None), ("files", "sftp", [], "ann"),
        ]  # fmt: skip
        assert SECRET not in repr(listed)
        await platform.connections.delete("crm")
        with pytest.raises(ConnectionNotFound):
            await platform.connections.delete("crm")
        with pytest.raises(InvalidConnection):
            await platform.connections.set("crm", "http_bearer", {})
        with pytest.raises(InvalidConnection, match="plain JSON") as caught:
            await platform.connections.set("crm", "http_bearer", {"token": object(), "other": SECRET})
        assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_its_texts_name_its_fields_and_show_none() -> None:
    for text in (repr(CRM), str(CRM), repr(CRM.fields), str(CRM.fields), f"{CRM.fields}", repr({"a": CRM.fields})):
        assert SECRET not in text
    assert repr(CRM.fields) == "{'token': …, 'base_url': …}"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(CRM)


def test_what_is_named_is_checked_where_the_workflow_is_made() -> None:
    with pytest.raises(InvalidId):
        workflow(connections=("a.b",))(_nothing)
    with pytest.raises(TypeError, match=r"connections=\('crm',\)"):
        workflow(connections="crm")(_nothing)
    assert workflow(connections=["b", "a", "b"])(_nothing).options.connections == ("b", "a")
    assert check_names([]) == ()


async def _nothing(ctx: Context) -> None:
    pass
