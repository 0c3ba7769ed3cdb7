"""Registered JSON workflows: hosted by workers that have no file of them, each instance in its own version."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from runtara.dsl.load import load_workflow
from runtara.engine.service import Engine
from runtara.infra.settings import Settings
from runtara.protocol.api import Registration
from runtara.protocol.configuration import RegisteredDefinition
from runtara.protocol.errors import PlatformUnreachable, WorkflowFailed
from runtara.protocol.messages import Status
from runtara.runner.pool import Pool
from runtara.sdk import library
from runtara.sdk.client import Client, Handle
from runtara.sdk.discovery import load
from runtara.sdk.roles import registrar
from runtara.sdk.worker import Worker
from tests.support.http_server import always, http_server

from .conftest import FLOWS
from .test_waits import until

pytestmark = pytest.mark.timeout(90)
SECRET = "tr0ub4dor-and-3"


def waiting(answer: str) -> dict[str, Any]:
    """Waits for the signal `go`, and says `answer`."""
    said = {"answer": {"valueType": "immediate", "value": answer}}
    steps: dict[str, Any] = {"go": {"stepType": "WaitForSignal"}, "end": {"stepType": "Finish", "inputMapping": said}}
    return {"steps": steps, "executionPlan": [{"fromStep": "go", "toStep": "end"}]}


def calling(child: str, version: int | str) -> dict[str, Any]:
    """Says what the child says."""
    said = {"child": {"valueType": "reference", "value": "steps.call.outputs.answer"}}
    call: dict[str, Any] = {
        "stepType": "EmbedWorkflow",
        "childWorkflowId": child,
        "childVersion": version,
        "inputMapping": {},
    }
    steps = {"call": call, "end": {"stepType": "Finish", "inputMapping": said}}
    return {"steps": steps, "executionPlan": [{"fromStep": "call", "toStep": "end"}]}


def saying(answer: str) -> dict[str, Any]:
    return {
        "steps": {
            "end": {"stepType": "Finish", "inputMapping": {"answer": {"valueType": "immediate", "value": answer}}}
        }
    }


async def register(client: Client, name: str, document: dict[str, Any]) -> RegisteredDefinition:
    registration = load_workflow(document, id=name).registration(code_version="")
    return await client.definitions.register(registration, msgspec.json.encode(document))


async def starts(client: Client, name: str, id: str, **options: Any) -> Handle[Any]:
    return await client.start(name, {}, id=id, **options)


@pytest.fixture
async def pool(deployed: Settings, engine: Engine) -> AsyncIterator[Pool]:
    """A process that hosts registered definitions, and has no file of any."""
    async with Pool(deployed, [], registered=True) as pool:
        yield pool


async def test_version_2_is_registered_while_version_1_waits_and_its_worker_is_killed(
    client: Client, pool: Pool
) -> None:
    """Each goes on in its own, in a process that has never seen either."""
    assert (await register(client, "flow", waiting("one"))).view.version == 1
    old = [await starts(client, "flow", f"old-{n}") for n in range(3)]
    for handle in old:
        await until(handle, Status.WAITING)
    running = await starts(client, "flow", "running")
    assert (await register(client, "flow", waiting("two"))).view.version == 2
    new, asked = await starts(client, "flow", "new"), await starts(client, "flow", "asked", version=1)
    os.kill(pool.children[0].pid, signal.SIGKILL)
    handles = {**{handle.id: handle for handle in old}, "running": running, "new": new, "asked": asked}
    for handle in handles.values():
        await handle.signal("go")
    results = {id: (await handle.result(timeout=40))["answer"] for id, handle in handles.items()}
    assert results == {
        "old-0": "one", "old-1": "one", "old-2": "one", "running": "one", "new": "two", "asked": "one"
    }  # fmt: skip
    assert (await new.get()).definition == 2
    assert (await running.get()).restarts == 1


async def test_a_registered_workflow_sends_the_secret_of_a_connection_and_nobody_records_it(
    client: Client, deployed: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RUNTARA_HTTP_ALLOW_PRIVATE", "127.0.0.1")
    called = {
        "stepType": "Agent", "agentId": "http", "capabilityId": "http-request", "connectionId": "crm",
        "inputMapping": {"url": {"valueType": "immediate", "value": "orders"}},
    }  # fmt: skip
    said = {"orders": {"valueType": "reference", "value": "steps.call.outputs.body"}}
    steps = {"call": called, "end": {"stepType": "Finish", "inputMapping": said}}
    document = {"steps": steps, "trackEvents": True, "executionPlan": [{"fromStep": "call", "toStep": "end"}]}
    async with http_server() as server, Pool(replace(deployed, log_level="debug"), [], registered=True):
        server.routes["/orders"] = always(200, b"[1, 2]")
        await client.connections.set("crm", "http_bearer", {"token": SECRET, "base_url": server.url})
        await register(client, "orders", document)
        handle = await starts(client, "orders", "i-1")
        assert await handle.result(timeout=40) == {"orders": [1, 2]}
        assert [request.headers["authorization"] for request in server.seen] == [f"Bearer {SECRET}"]
        assert SECRET not in str([bytes(event.data) async for event in handle.history()])
        (view,) = await client.connections.list()
        assert view.used_by == ["orders"]
    written = capfd.readouterr()
    assert SECRET not in written.out + written.err


async def test_a_child_is_of_the_last_version_or_of_the_one_that_is_named(client: Client, pool: Pool) -> None:
    await register(client, "inner", saying("one"))
    await register(client, "inner", saying("two"))
    answers = {}
    for name, version in (("last", "latest"), ("first", 1)):
        await register(client, name, calling("inner", version))
        answers[name] = (await (await starts(client, name, name)).result(timeout=30))["child"]
    assert answers == {"last": "two", "first": "one"}
    await register(client, "none", calling("inner", 9))
    with pytest.raises(WorkflowFailed, match=r"inner@9; the last version is 2"):
        await (await starts(client, "none", "none")).result(timeout=60)


async def test_one_worker_hosts_files_and_definitions_and_those_registered_later(
    client: Client, deployed: Settings
) -> None:
    async with Worker(deployed, load([FLOWS]), role=registrar(definitions=True)) as worker:
        assert await (await client.start("greet", {"name": "ada"})).result(timeout=30) == "hello ADA"
        await register(client, "later", saying("here"))
        assert await (await starts(client, "later", "i-1")).result(timeout=30) == {"answer": "here"}
        view = next(view for view in await client.workflows() if view.id == "later")
        assert (view.kind, view.workers) == ("json", [worker.id])


async def test_a_document_that_cannot_be_loaded_fails_its_instances_and_no_others(client: Client, pool: Pool) -> None:
    """Say, one of a later version of the language."""
    before = list(pool.workers)
    await client.definitions.register(Registration(workflow="odd"), b'{"steps": {"a": {"stepType": "Teleport"}}}')
    await register(client, "flow", saying("fine"))
    with pytest.raises(WorkflowFailed, match="Teleport"):
        await (await starts(client, "odd", "odd")).result(timeout=30)
    assert await (await starts(client, "flow", "i-1")).result(timeout=30) == {"answer": "fine"}
    assert list(pool.workers) == before, "it is still the same process"


async def test_few_versions_are_kept_and_each_is_loaded_once_while_it_is_used(
    client: Client, deployed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "MAX_LOADED", 2)
    loaded: list[tuple[str, int]] = []
    fetch = library.Library._fetch

    async def counted(self: library.Library, name: str, version: int) -> library.AnyWorkflow:
        loaded.append((name, version))
        return await fetch(self, name, version)

    monkeypatch.setattr(library.Library, "_fetch", counted)
    modules = []
    for answer in ("one", "two", "three"):
        await register(client, "flow", saying(answer))
        modules.append(load_workflow(saying(answer), id="flow").__module__)
    async with Worker(deployed, load([]), role=registrar(definitions=True)) as worker:
        handles = [await starts(client, "flow", f"i-{n}", version=1) for n in range(20)]
        assert [await handle.result(timeout=30) for handle in handles] == [{"answer": "one"}] * 20
        assert loaded == [("flow", 1)]
        for version in (2, 3, 1):
            await (await starts(client, "flow", f"v-{version}", version=version)).result(timeout=30)
        assert loaded == [("flow", 1), ("flow", 2), ("flow", 3), ("flow", 1)]
        assert len(worker._library._loaded) == 2
        assert [name in sys.modules for name in modules] == [True, False, True], "what is not kept is let go of"


async def test_a_document_that_cannot_be_had_now_is_asked_for_again(
    client: Client, deployed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    fetch = library.Library._fetch

    async def flaky(self: library.Library, name: str, version: int) -> library.AnyWorkflow:
        asked.append(name)
        if len(asked) == 1:
            raise PlatformUnreachable(reason="not now")
        return await fetch(self, name, version)

    monkeypatch.setattr(library.Library, "_fetch", flaky)
    await register(client, "flow", saying("late"))
    async with Worker(deployed, load([]), role=registrar(definitions=True)):
        assert await (await starts(client, "flow", "i-1")).result(timeout=30) == {"answer": "late"}
    assert asked == ["flow", "flow"], "after a pause, and not again and again"


async def test_a_deleted_version_is_a_clear_error_for_whoever_retries_it(client: Client, pool: Pool) -> None:
    failing = {"steps": {"no": {"stepType": "Error", "code": "NO", "message": "no"}}}
    await register(client, "flow", failing)
    handle = await starts(client, "flow", "i-1")
    with pytest.raises(WorkflowFailed):
        await handle.result(timeout=30)
    await register(client, "flow", saying("two"))
    await (await starts(client, "flow", "i-2")).result(timeout=30)  # the registration is folded
    assert await client.definitions.delete("flow", version=1) == [1]
    os.kill(pool.children[0].pid, signal.SIGKILL)  # whoever has it loaded could go on
    await handle.retry()
    with pytest.raises(WorkflowFailed, match="no registered definition flow@1; the last versions are 2"):
        await handle.result(timeout=30)
    fork = await client.fork("i-1", latest=True)
    async with asyncio.timeout(30):
        assert await fork.result() == {"answer": "two"}
