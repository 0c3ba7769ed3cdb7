"""Pooled containers: many instances of one tenant and workflow in one, which is kept, replaced and found again."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runtara.infra.credentials.files import Credential, load
from runtara.protocol.api import ConsumersRequest, RegisterReply
from runtara.protocol.credentials import Issued, Kind
from runtara.protocol.errors import CredentialRefused
from runtara.protocol.frames import encode_record, join_frame
from runtara.protocol.ids import new_nonce
from runtara.protocol.messages import Status
from runtara.protocol.records import Started
from runtara.protocol.subjects import Subjects
from runtara.runner.containers.spec import USER
from runtara.runner.kinds import docker_runner
from runtara.runner.runner import Runner
from runtara.sdk.client import Client
from runtara.sdk.connection import Connection
from runtara.sdk.credentials import ask, new_order
from tests.launching.conftest import Containers, events_of, until_recorded
from tests.security.conftest import Intruder, intrude
from tests.support.polling import eventually

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]

MIB = 1024 * 1024
Start = Callable[[Any], Awaitable[asyncio.subprocess.Process]]


async def pooled(boxes: Containers, *workflows: str, **image: Any) -> Runner:
    """A runner, and `workflows` registered with a pooled image."""
    settings = image.pop("settings", boxes.settings)
    await boxes.register(*workflows, isolation="pool", **image)
    return await boxes.enter(docker_runner(settings))


async def losses(client: Client, instance: str) -> list[str]:
    return [msgspec.json.decode(event.data)["reason"] for event in await events_of(client, instance, "AttemptLost")]


async def serving(boxes: Containers, workflow: str, *, other_than: str = "") -> str:
    """The one container of a workflow, once it runs."""

    def one() -> str | None:
        found = [one for one in boxes.all() if one["Labels"]["dev.runtara.workflow"] == workflow]
        is_one = len(found) == 1 and found[0]["State"] == "running" and found[0]["Id"] != other_than
        return str(found[0]["Id"]) if is_one else None

    return str(await eventually(one, within=60, what=f"one container of {workflow}"))


async def test_one_container_hosts_fifty_instances(boxes: Containers, client: Client) -> None:
    runner = await pooled(boxes, "count")
    handles = [await client.start("count", {"steps": 5, "pause": 0.2}) for _ in range(50)]
    lives = await asyncio.gather(*(handle.result(timeout=90) for handle in handles))
    assert len({life for one in lives for life in one}) == 1
    assert len(boxes.all()) == 1
    assert {(await client.get(handle.id)).restarts for handle in handles} == {0}
    assert not runner.jobs


async def test_it_is_nobody_and_finds_nothing(boxes: Containers, client: Client, tmp_path: Path) -> None:
    (tmp_path / "values").mkdir()
    (tmp_path / "values/api-key").write_text("hunter2")
    settings = replace(boxes.settings, secrets_dir=str(tmp_path / "values"))
    await pooled(boxes, "looks", secrets=("api-key",), env={"COLOUR": "blue"}, settings=settings)
    found = await (await client.start("looks")).result(timeout=60)
    assert (found["uid"], found["capabilities"], found["no_new_privileges"]) == (USER, 0, "1")
    assert found["root_is_writable"] is False
    assert found["secrets"] == {"api-key": "hunter2"}
    assert found["environ"]["COLOUR"] == "blue"
    assert "SEED" not in str(found["environ"])
    assert "NATS_KEYS" not in str(found["environ"])


async def test_what_a_killed_container_hosted_is_resumed_behind_its_last_key(boxes: Containers, client: Client) -> None:
    await pooled(boxes, "count")
    handles = [await client.start("count", {"steps": 60, "pause": 0.1}) for _ in range(5)]
    for handle in handles:
        await until_recorded(client, handle, "step-3")
    boxes.api.kill(await serving(boxes, "count"))
    for handle in handles:
        lives = await handle.result(timeout=90)
        assert len(set(lives)) == 2
        assert lives == sorted(lives, key=lives.index)
        assert await losses(client, handle.id) == ["exited: the container was ended by SIGKILL"]
    assert len(boxes.all()) == 1


async def test_out_of_memory_is_said_so_and_another_takes_its_place(boxes: Containers, client: Client) -> None:
    await pooled(boxes, "hogs", "greet", memory_bytes=96 * MIB)
    handle = await client.start("hogs")
    (reason, *_) = await eventually(lambda: losses(client, handle.id), within=60)
    assert reason == "exited: out of memory"
    await handle.cancel()
    assert await (await client.start("greet", {"name": "ada"})).result(timeout=60) == "hello ADA"


async def test_a_new_version_takes_the_old_ones_place_and_nothing_is_lost(boxes: Containers, client: Client) -> None:
    await pooled(boxes, "count")
    handles = [await client.start("count", {"steps": 100, "pause": 0.1}) for _ in range(10)]
    for handle in handles:
        await until_recorded(client, handle, "step-3")
    old = await serving(boxes, "count")
    await boxes.register("count", isolation="pool", env={"COLOUR": "blue"})
    for handle in handles:
        lives = await handle.result(timeout=90)
        assert (len(lives), len(set(lives))) == (100, 2)
        assert (await client.get(handle.id)).restarts == 0  # it was handed over
    await serving(boxes, "count", other_than=old)


async def test_a_new_version_that_does_not_start_leaves_the_old_one_in_its_place(
    boxes: Containers, client: Client
) -> None:
    runner = await pooled(boxes, "count")
    old = await serving(boxes, "count")
    await boxes.register("count", isolation="pool", env={"FAIL_AT_IMPORT": "1"})
    await eventually(lambda: len(runner.pooled) == 2, within=30, what="the new version")
    await eventually(lambda: len(runner.pooled) == 1, within=30, what="its end")
    lives = await (await client.start("count", {"steps": 3})).result(timeout=60)
    assert len(set(lives)) == 1
    assert boxes.api.inspect_container(old)["State"]["Running"] is True
    await boxes.register("count", isolation="pool", env={"COLOUR": "blue"})
    await serving(boxes, "count", other_than=old)
    assert len(await (await client.start("count", {"steps": 3})).result(timeout=60)) == 3


async def test_a_runner_that_was_killed_finds_it_again(
    boxes: Containers, client: Client, runner_process: Start
) -> None:
    await boxes.register("count", isolation="pool")
    first = await runner_process(boxes)
    handle = await client.start("count", {"steps": 150, "pause": 0.1})
    await until_recorded(client, handle, "step-3")
    box = await serving(boxes, "count")
    first.kill()
    await first.wait()
    meanwhile = await client.start("count", {"steps": 3})  # it needs no runner to take more
    lives = set(await meanwhile.result(timeout=60))
    await runner_process(boxes)
    assert set(await handle.result(timeout=90)) == lives
    assert await serving(boxes, "count") == box
    boxes.api.kill(box)
    await serving(boxes, "count", other_than=box)  # it is kept, as before
    assert len(await (await client.start("count", {"steps": 3})).result(timeout=60)) == 3


async def test_a_runner_that_is_killed_while_it_replaces_one_ends_with_the_new_one(
    boxes: Containers, client: Client, runner_process: Start
) -> None:
    await boxes.register("count", isolation="pool")
    first = await runner_process(boxes)
    handle = await client.start("count", {"steps": 200, "pause": 0.1})
    await until_recorded(client, handle, "step-3")
    old = await serving(boxes, "count")
    await boxes.register("count", isolation="pool", env={"COLOUR": "blue"})
    await eventually(lambda: len(boxes.all()) == 2, within=30, what="the new version beside the old one")
    first.kill()
    await first.wait()
    await runner_process(boxes)
    new = await serving(boxes, "count", other_than=old)
    assert "COLOUR=blue" in boxes.api.inspect_container(new)["Config"]["Env"]
    lives = await handle.result(timeout=90)
    assert (len(lives), len(set(lives))) == (200, 2)
    assert (await client.get(handle.id)).restarts == 0


async def test_a_runner_that_is_asked_to_stop_has_it_hand_over(
    boxes: Containers, client: Client, runner_process: Start
) -> None:
    await boxes.register("count", isolation="pool")
    first = await runner_process(boxes)
    handle = await client.start("count", {"steps": 100, "pause": 0.1})
    await until_recorded(client, handle, "step-3")
    first.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(first.wait(), 40) == 0
    view = await client.get(handle.id)
    assert (view.status, view.restarts) == (Status.QUEUED, 0)
    assert boxes.all() == []
    await runner_process(boxes)
    assert len(set(await handle.result(timeout=90))) == 2


async def test_an_image_that_is_no_longer_pooled_gives_each_instance_its_own_again(
    boxes: Containers, client: Client
) -> None:
    await pooled(boxes, "count")
    handle = await client.start("count", {"steps": 100, "pause": 0.1})
    await until_recorded(client, handle, "step-3")
    shared = await serving(boxes, "count")
    await boxes.register("count")
    box = await boxes.running(handle.id)
    assert box != shared
    lives = await handle.result(timeout=90)
    assert (len(lives), len(set(lives))) == (100, 2)
    assert await eventually(lambda: not boxes.all(), within=30)


async def test_a_workflow_that_is_forgotten_keeps_no_container(boxes: Containers, client: Client) -> None:
    await pooled(boxes, "count")
    await serving(boxes, "count")
    await client.forget_workflow("count")
    assert await eventually(lambda: not boxes.all(), within=30)


async def test_tenants_and_workflows_share_no_container(boxes: Containers, client: Client) -> None:
    await pooled(boxes, "count", "greet")
    theirs = replace(boxes.settings, tenant="other", runner_name=f"{boxes.settings.runner_name}-other")
    await boxes.register("count", isolation="pool", settings=theirs)
    await boxes.enter(docker_runner(theirs))
    async with Client(theirs) as other:
        mine, others = await client.start("count", {"steps": 3}), await other.start("count", {"steps": 3})
        assert set(await mine.result(timeout=60)).isdisjoint(await others.result(timeout=60))
    assert await (await client.start("greet", {"name": "ada"})).result(timeout=60) == "hello ADA"
    labels = [found["Labels"] for found in boxes.all()]
    hosts = {(one["dev.runtara.tenant"], one["dev.runtara.workflow"]) for one in labels}
    assert (len(labels), hosts) == (3, {("default", "count"), ("default", "greet"), ("other", "count")})


@pytest.fixture
async def shown(boxes: Containers, client: Client, tmp_path: Path) -> Credential:
    """What the pooled container of `count` shows to NATS. `greet` has another one."""
    await pooled(boxes, "count", "greet")
    worker = boxes.api.inspect_container(await serving(boxes, "count"))["Config"]["Labels"]["dev.runtara.worker"]
    found = [load(str(file)) for file in (tmp_path / "runner").rglob("nats_credentials")]
    return next(one for one in found if one.holder is not None and one.holder.user == worker)


@pytest.fixture
async def intruder(boxes: Containers, shown: Credential, stack: AsyncExitStack) -> Intruder:
    """Somebody who has it."""
    return await intrude(boxes.settings, shown, stack)


async def consumers(boxes: Containers) -> dict[str, str]:
    async with await Connection.open(boxes.settings, kind=Kind.RUNNER, user="r", name="r", patience=5) as connection:
        request = ConsumersRequest(runner="r", kind="docker")
        return (await connection.call("consumers", request, RegisterReply)).consumers


async def test_its_credential_is_good_for_nothing_once_it_has_ended(
    boxes: Containers, client: Client, intruder: Intruder
) -> None:
    await client.forget_workflow("count")
    await eventually(lambda: not intruder.bus.is_connected, within=60, what="the end of what its credential opened")
    assert await eventually(lambda: len(boxes.all()) == 1, within=30), "that of `greet` goes on"


async def test_its_credential_takes_one_workflows_requests_and_registers_nothing(
    boxes: Containers, intruder: Intruder
) -> None:
    names, found = Subjects(boxes.settings.deployment), await consumers(boxes)
    pull = f"$JS.API.CONSUMER.MSG.NEXT.{names.run_stream}."
    assert not await intruder.is_refused_publish(pull + found["count"])
    assert await intruder.is_refused_publish(pull + found["greet"])
    assert await intruder.is_refused_publish(f"$JS.ACK.{names.run_stream}.{found['greet']}.1.1.1.1.0", b"+TERM")
    for verb in ("register", "consumers", "list", "register_image", "forget_image"):
        assert await intruder.is_refused_publish(names.api("default", verb)), verb
    assert await intruder.is_refused_publish(f"{boxes.settings.deployment}.commands.0.default.x")


@pytest.mark.parametrize("kind", [Kind.CLIENT, Kind.WORKER, Kind.CONTAINER])
async def test_its_credential_gets_it_no_other(boxes: Containers, shown: Credential, kind: Kind) -> None:
    _, order = new_order(kind=kind, user="x", instance="i" if kind is Kind.CONTAINER else None)
    with pytest.raises(CredentialRefused, match="a worker may not have"):
        await ask(boxes.settings, shown, order, Issued)


async def test_it_cannot_claim_another_workflows_instance(
    boxes: Containers, client: Client, shown: Credential, intruder: Intruder
) -> None:
    assert shown.holder is not None
    worker = shown.holder.user
    await boxes.register("nap", env={"FAIL_AT_IMPORT": "1"}, isolation="pool")  # nobody takes it
    handle = await client.start("nap", {"seconds": 1})
    record = Started(instance=handle.id, attempt=1, nonce=new_nonce(), worker=worker)
    subject = Subjects(boxes.settings.deployment).worker_reports(0, "default", worker)
    await intruder.bus.publish_acked(subject, join_frame([encode_record(record)]))

    # What comes behind it in the journal is answered, and it has had no effect.
    await handle.signal("any")
    view = await client.get(handle.id)
    assert (view.status, view.worker) == (Status.QUEUED, None)
