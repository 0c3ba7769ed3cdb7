"""Containers: what is done to them, what they may not do, and what is left of them."""

import asyncio
import re
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from runtara.protocol.errors import Refused, WorkflowFailed
from runtara.protocol.messages import Status
from runtara.runner import runner as runner_module
from runtara.runner.containers.spec import USER
from runtara.runner.kinds import docker_runner
from runtara.sdk.client import Client
from tests.launching.conftest import Containers, events_of, until_recorded
from tests.support.polling import eventually
from tests.support.proxy import proxy_of

SECRET = re.compile(r"SU[A-Z2-7]{20}|eyJ[\w-]{20}|-----BEGIN")  # a private key, a JWT, a file of credentials

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]

MIB = 1024 * 1024
Start = Callable[[Any], Awaitable[asyncio.subprocess.Process]]


async def losses(client: Client, instance: str) -> list[dict[str, Any]]:
    return [msgspec.json.decode(event.data) for event in await events_of(client, instance, "AttemptLost")]


async def test_a_killed_container_is_resumed_behind_its_last_key(boxes: Containers, client: Client) -> None:
    await boxes.runner()
    handle = await client.start("count", {"steps": 60, "pause": 0.05})
    await until_recorded(client, handle, "step-5")
    boxes.api.kill(await boxes.running(handle.id))
    lives = await handle.result(timeout=60)
    assert len(set(lives)) == 2
    assert lives == sorted(lives, key=lives.index)  # the first one's steps, then the second's
    (lost,) = await losses(client, handle.id)
    assert lost["reason"] == "exited: the container was ended by SIGKILL"
    assert (await client.get(handle.id)).restarts == 1


async def test_out_of_memory_is_said_so(boxes: Containers, client: Client) -> None:
    await boxes.runner(memory=96 * MIB)
    handle = await client.start("hogs")
    (lost, *_) = await eventually(lambda: losses(client, handle.id), within=60)
    assert lost["reason"] == "exited: out of memory"
    await handle.cancel()


async def test_what_cannot_be_imported_uses_the_budget_up_and_says_why(boxes: Containers, client: Client) -> None:
    await boxes.runner(image={"env": {"FAIL_AT_IMPORT": "1"}})
    handle = await client.start("greet", {"name": "ada"})
    with pytest.raises(WorkflowFailed, match="the moon is not in this phase"):
        await handle.result(timeout=90)
    assert len(await losses(client, handle.id)) == 5
    assert await eventually(lambda: not boxes.all(), within=20)


async def test_it_starts_no_more_processes_than_it_may(boxes: Containers, client: Client) -> None:
    await boxes.runner(image={"pids": 24})
    handle = await client.start("forks")
    assert "Resource temporarily unavailable" in await handle.result(timeout=60)
    assert await eventually(lambda: not boxes.all(), within=20)


async def test_it_writes_to_nothing_but_a_bounded_folder(boxes: Containers, client: Client) -> None:
    await boxes.runner()
    handle = await client.start("fills")
    assert await handle.result(timeout=60) == "64 MiB and then No space left on device"


async def test_it_is_nobody_and_finds_nothing(boxes: Containers, client: Client, tmp_path: Path) -> None:
    (tmp_path / "values").mkdir()
    (tmp_path / "values/api-key").write_text("hunter2")
    await boxes.runner(image={"secrets": ("api-key",), "env": {"COLOUR": "blue"}}, secrets_dir=str(tmp_path / "values"))
    handle = await client.start("looks")
    found = await handle.result(timeout=60)
    assert (found["uid"], found["capabilities"], found["no_new_privileges"]) == (USER, 0, "1")
    assert found["root_is_writable"] is False
    assert (found["secrets"], found["secret_modes"]) == ({"api-key": "hunter2"}, ["0o400"])
    assert found["environ"]["COLOUR"] == "blue"
    assert found["environ"]["RUNTARA_NATS_CREDENTIALS_FILE"].startswith("/run/runtara/")
    assert not SECRET.search(str(found["environ"]))
    assert "RUNTARA_NATS_KEYS" not in found["environ"], "the platform's keys are the engines' alone"
    assert await eventually(lambda: not list((tmp_path / "runner").glob("*/*")), within=20)


async def test_no_secret_is_in_what_the_engine_shows(boxes: Containers, client: Client) -> None:
    await boxes.runner()
    handle = await client.start("count", {"steps": 50, "pause": 0.1})
    shown = boxes.api.inspect_container(await boxes.running(handle.id))
    assert shown["Config"]["Labels"]["dev.runtara.instance"] == handle.id
    assert shown["Name"].startswith(f"/runtara-{handle.id[:40]}-")
    assert not SECRET.search(str(shown))
    await handle.cancel()


async def test_a_secret_that_is_not_there_is_the_reason(boxes: Containers, client: Client) -> None:
    await boxes.runner(image={"secrets": ("not-there",)})
    handle = await client.start("greet", {"name": "ada"})
    (lost, *_) = await eventually(lambda: losses(client, handle.id), within=30)
    assert "secret 'not-there' cannot be had" in lost["reason"]
    await handle.cancel()


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("sha256:" + "0" * 64, "has no image"),
        ("registry.invalid/nothing:1", "there is no image registry.invalid/nothing:1, nor can it be pulled"),
        ("127.0.0.1:9/flows@sha256:" + "1" * 64, "there is no image 127.0.0.1:9/flows@sha256"),
    ],
    ids=["gone", "unresolved", "another digest"],
)
async def test_an_image_that_cannot_be_had_is_the_reason(
    boxes: Containers, client: Client, reference: str, reason: str
) -> None:
    await boxes.runner(image={"reference": reference})
    handle = await client.start("greet", {"name": "ada"})
    (lost, *_) = await eventually(lambda: losses(client, handle.id), within=60)
    assert reason in lost["reason"]
    await handle.cancel()


async def test_what_does_not_speak_in_time_is_ended(boxes: Containers, client: Client) -> None:
    await boxes.runner(nats_url_inside="nats://127.0.0.1:9", launch_seconds=3.0)
    handle = await client.start("greet", {"name": "ada"})
    (lost, *_) = await eventually(lambda: losses(client, handle.id), within=60)
    assert lost["reason"] == "exited: it did not speak for its instance within 3 s"
    await handle.cancel()


async def test_twenty_at_once_and_none_is_lost(boxes: Containers, client: Client) -> None:
    runner = await boxes.runner(slots=20)
    handles = [await client.start("count", {"steps": 5, "pause": 0.5}) for _ in range(20)]
    results = await asyncio.gather(*(handle.result(timeout=150) for handle in handles))
    assert {len(set(lives)) for lives in results} == {1}
    assert len({lives[0] for lives in results}) == 20
    assert {(await client.get(handle.id)).restarts for handle in handles} == {0}
    assert await eventually(lambda: not runner.jobs and not boxes.all(), within=60)


async def test_a_runner_that_was_killed_finds_its_containers_again(
    boxes: Containers, client: Client, runner_process: Start
) -> None:
    await boxes.register()
    first = await runner_process(boxes)
    going, ended, killed = [await client.start("count", {"steps": n, "pause": 0.1}) for n in (150, 40, 150)]
    for handle in (going, ended, killed):
        await until_recorded(client, handle, "step-3")
    first.kill()
    await first.wait()
    boxes.api.kill(await boxes.running(killed.id))
    assert len(set(await ended.result(timeout=60))) == 1  # it needs no runner to go on
    await runner_process(boxes)
    assert len(set(await killed.result(timeout=60))) == 2
    assert len(set(await going.result(timeout=60))) == 1
    assert [(await client.get(handle.id)).restarts for handle in (going, ended, killed)] == [0, 0, 1]
    (lost,) = await losses(client, killed.id)
    assert lost["reason"] in ("exited: the container was ended by SIGKILL", "worker lost")
    assert await eventually(lambda: not boxes.all(), within=30)


async def test_what_a_runner_left_that_does_not_come_back_is_cleared_away_once_it_has_ended(
    boxes: Containers, client: Client, runner_process: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "ABANDONED_SECONDS", 0.3)
    await boxes.register()
    first = await runner_process(boxes)
    ended, killed = [await client.start("count", {"steps": n, "pause": 0.1}) for n in (30, 100)]
    for handle in (ended, killed):
        await until_recorded(client, handle, "step-3")
    first.kill()
    await first.wait()
    async with docker_runner(replace(boxes.settings, runner_name="another")):
        boxes.api.kill(await boxes.running(killed.id))
        assert len(set(await ended.result(timeout=60))) == 1
        assert len(set(await killed.result(timeout=60))) == 2
        assert await eventually(lambda: not boxes.all(), within=30)


async def test_a_container_that_stood_still_for_longer_than_its_lease_is_fenced(
    boxes: Containers, client: Client
) -> None:
    await boxes.runner()
    handle = await client.start("guarded", {"steps": 30, "pause": 0.1})
    await until_recorded(client, handle, "step-3")
    stale = await boxes.running(handle.id)
    boxes.api.pause(stale)
    assert await handle.result(timeout=90) == 30
    (lost,) = await losses(client, handle.id)
    assert lost["reason"] == "worker lost"
    keys = [event.key async for event in client.history(handle.id) if event.type == "CheckpointSaved"]
    assert keys == [f"step-{n}" for n in range(30)]
    assert await eventually(lambda: not boxes.all(), within=40)  # the runner was told, and has ended it


async def test_a_network_that_is_cut_for_longer_than_a_lease_fences_what_is_behind_it(
    boxes: Containers, client: Client
) -> None:
    await boxes.runner()
    handle = await client.start("count", {"steps": 150, "pause": 0.1})
    await until_recorded(client, handle, "step-3")
    cut = await boxes.running(handle.id)
    name = boxes.settings.bus_network
    boxes.api.disconnect_container_from_network(cut, name)
    await eventually(lambda: losses(client, handle.id), within=40)
    boxes.api.connect_container_to_network(cut, name)
    lives = await handle.result(timeout=90)
    assert len(set(lives)) == 2
    assert lives == sorted(lives, key=lives.index)
    assert await eventually(lambda: not boxes.all(), within=40)


async def test_without_a_network_of_the_operators_the_runner_makes_one_that_leads_to_this_machine_alone(
    boxes: Containers, client: Client, stack: AsyncExitStack
) -> None:
    boxes.settings = replace(boxes.settings, bus_network=None, nats_url_inside=None)
    await boxes.runner()
    handle = await client.start("greet", {"name": "ada"})
    await boxes.running(handle.id)
    (network,) = boxes.api.networks(filters={"label": f"dev.runtara.deployment={boxes.settings.deployment}"})
    assert network["Internal"] is True
    assert network["Options"] == {"com.docker.network.bridge.enable_icc": "false"}
    url = boxes.settings.require_nats_url()
    gateway = network["IPAM"]["Config"][0]["Gateway"]
    await stack.enter_async_context(proxy_of(url, host=gateway, port=urlsplit(url).port or 0))
    assert await handle.result(timeout=60) == "hello ADA"


@pytest.fixture
async def neighbour(boxes: Containers) -> tuple[str, int]:
    """A server in a container on the engine's usual network: whoever has a way out reaches it."""
    config = {
        "Image": boxes.image, "Entrypoint": ["/usr/local/bin/python3", "-m", "http.server", "8000"],
        "Labels": {"dev.runtara.deployment": boxes.settings.deployment},
    }  # fmt: skip
    id = boxes.api.create_container_from_config(config)["Id"]
    boxes.api.start(id)
    address = boxes.api.inspect_container(id)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]

    async def answers() -> bool:
        try:
            _, writer = await asyncio.open_connection(address, 8000)
        except OSError:
            return False
        writer.close()
        return True

    await eventually(answers, within=20)
    return address, 8000


@pytest.mark.parametrize(("mode", "expected"), [("bus", False), ("bridge", True)])
async def test_a_network_leads_as_far_as_it_should(
    boxes: Containers, client: Client, neighbour: tuple[str, int], mode: str, expected: bool
) -> None:
    await boxes.runner(image={"network": mode})
    handle = await client.start("reaches", {"host": neighbour[0], "port": neighbour[1]})
    assert await handle.result(timeout=60) is expected


async def test_with_the_hosts_network_it_runs_as_well(boxes: Containers, client: Client) -> None:
    await boxes.runner(image={"network": "host"})
    handle = await client.start("greet", {"name": "ada"})
    assert await handle.result(timeout=30) == "hello ADA"


async def test_two_runners_of_one_name_are_one_too_many(boxes: Containers) -> None:
    await boxes.runner()
    with pytest.raises(Refused, match="--name"):
        await boxes.runner()


@pytest.mark.parametrize("after", ["AttemptStarted", "CheckpointSaved"])
async def test_a_runner_that_is_killed_in_the_midst_of_a_launch_loses_nothing(
    boxes: Containers, client: Client, runner_process: Start, after: str
) -> None:
    await boxes.register()
    first = await runner_process(boxes)
    handle = await client.start("count", {"steps": 10, "pause": 0.05})
    await eventually(lambda: events_of(client, handle.id, after), within=30)
    first.kill()
    await first.wait()
    await runner_process(boxes)
    assert len(await handle.result(timeout=60)) == 10
    keys = [event.key async for event in client.history(handle.id) if event.type == "CheckpointSaved"]
    assert keys == [f"step-{n}" for n in range(10)]
    assert await eventually(lambda: not boxes.all(), within=30)


async def test_an_image_that_is_registered_later_is_seen(boxes: Containers, client: Client) -> None:
    async with docker_runner(boxes.settings) as runner:
        assert runner.workflows == ()
        await boxes.register()
        handle = await client.start("greet", {"name": "ada"})
        assert await handle.result(timeout=60) == "hello ADA"
        assert "greet" in runner.workflows


async def test_a_cancelled_container_that_blocks_its_loop_is_killed(boxes: Containers, client: Client) -> None:
    runner = await boxes.runner(drain_seconds=0.5)
    handle = await client.start("deaf")
    await until_recorded(client, handle, "first")
    await handle.cancel()
    await eventually(lambda: _is(client, handle.id, Status.CANCELLED), within=40)
    assert await eventually(lambda: not runner.jobs and not boxes.all(), within=40)


async def _is(client: Client, instance: str, status: Status) -> bool:
    return (await client.get(instance)).status is status


async def test_sigterm_reaches_what_runs_in_a_container(boxes: Containers, client: Client) -> None:
    await boxes.runner()
    handle = await client.start("count", {"steps": 40, "pause": 0.1})
    await until_recorded(client, handle, "step-3")
    boxes.api.kill(await boxes.running(handle.id), signal.SIGTERM.name)
    lives = await handle.result(timeout=60)
    assert len(set(lives)) == 2
    assert (await client.get(handle.id)).restarts == 0  # it handed over
