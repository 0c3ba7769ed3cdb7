"""The API server goes away, a node goes away, somebody misconfigures: what becomes of what runs."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from runtara.protocol.errors import InvalidSetting
from runtara.runner.cluster import launched
from runtara.runner.kinds import kubernetes_runner
from tests.support.cluster.server import Cluster
from tests.support.polling import eventually
from tests.support.proxy import Proxy, proxy_of

from .conftest import Jobs


@pytest.fixture
async def wire(cluster: Cluster, jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    """What is between the runner and the API server."""
    async with proxy_of(cluster.url) as proxy:
        server = proxy.url.replace("nats://", "https://")
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(server=server)))
        yield proxy


async def test_while_the_api_server_is_away_jobs_run_on_and_new_ones_wait(jobs: Jobs, wire: Proxy) -> None:
    await jobs.runner()
    running = await jobs.client.start("count", {"steps": 40, "pause": 0.1}, id="a-1")
    await jobs.recorded("a-1", "step-1")
    await wire.cut()
    waiting = await jobs.client.start("greet", {"name": "bob"}, id="a-2")
    assert len(set(await running.result(timeout=60))) == 1
    assert (await waiting.get()).status in ("queued", "running")
    await wire.mend()
    assert await waiting.result(timeout=60) == "hello BOB"
    await jobs.none_left()
    assert not await jobs.events("a-2", "AttemptLost")


async def test_an_end_that_no_watch_tells_is_found_by_listing_again(jobs: Jobs) -> None:
    """The watches end, the pod too, and by the time they are back the server has forgotten what happened since."""
    await jobs.runner()
    await jobs.client.start("count", {"steps": 3_000, "pause": 0.1}, id="g-1")
    await jobs.recorded("g-1", "step-0")
    pod = (await jobs.pod("g-1"))["metadata"]["name"]
    for resource in ("jobs", "pods"):
        jobs.cluster.fail("watch", resource, 503, "down for a moment", retry_after=1)
    lists = jobs.cluster.calls["list", "pods"]
    jobs.cluster.hang_up()
    jobs.cluster.kubelet.kill(jobs.cluster.namespace, pod)
    await jobs.pod("g-1", phase="Failed")
    jobs.cluster.store.compact()
    assert [one["reason"] for one in await jobs.losses("g-1")] == ["exited: the container was ended by SIGKILL"]
    assert jobs.cluster.calls["list", "pods"] == lists + 1
    await jobs.recorded("g-1", "step-20")


async def test_a_job_on_a_lost_node_does_not_hold_its_slot_for_ever(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launched, "GONE_SECONDS", 0.5)
    runner = await jobs.runner(drain_seconds=0.1)
    await jobs.client.start("spins", {}, id="n-1")
    await jobs.recorded("n-1", "first")
    jobs.cluster.kubelet.lose_node()
    (old,) = runner.jobs
    await eventually(lambda: old not in runner.jobs, within=60, what="the old attempt is given up")
    attempts = [one["metadata"]["annotations"]["runtara.dev/attempt"] for one in jobs.cluster.store.all("jobs")]
    assert "1" not in attempts, "its Job is deleted; the pod goes when the node is declared dead"


async def test_a_finished_job_that_nobody_claims_is_removed_by_the_next_runner(jobs: Jobs) -> None:
    """Its runner died between the end and the telling, and the platform has gone on."""
    await jobs.register()
    first = await jobs.process()
    handle = await jobs.client.start("count", {"steps": 15, "pause": 0.1}, id="f-1")
    await jobs.recorded("f-1", "step-1")
    first.kill()
    await first.wait()
    assert len(await handle.result(timeout=60)) == 15
    assert jobs.cluster.store.all("jobs"), "nobody has removed it yet"
    await jobs.process()
    await jobs.none_left()


def test_without_a_cluster_the_command_says_what_is_missing(jobs: Jobs, tmp_path: Path) -> None:
    environ = {**os.environ, **jobs.settings.to_environ(), "KUBECONFIG": str(tmp_path / "none")}
    command = [sys.executable, "-m", "runtara.cli", "runner", "--kind", "kubernetes"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "not in a pod, and there is no" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_missing_right_is_said_on_the_command_line(jobs: Jobs) -> None:
    jobs.cluster.rights.remove(("watch", "jobs"))
    jobs.cluster.rights.remove(("list", "jobs"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "runtara.cli", "runner", "--kind", "kubernetes", stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **jobs.settings.to_environ()},
    )  # fmt: skip
    _, stderr = await process.communicate()
    assert process.returncode not in (0, None)
    assert "the runner may not list jobs in namespace runtara-instances" in stderr.decode()
    assert "Traceback" not in stderr.decode()


def test_a_target_is_refused_since_images_are_registered(jobs: Jobs) -> None:
    command = [sys.executable, "-m", "runtara.cli", "runner", "--kind", "kubernetes", "flows.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "takes none: register an image" in done.stderr


async def test_the_name_of_a_runner_is_its_namespaces(jobs: Jobs) -> None:
    assert kubernetes_runner(jobs.settings).id == "r-kubernetes-runtara-instances"


async def test_a_context_that_there_is_not(jobs: Jobs) -> None:
    with pytest.raises(InvalidSetting, match="no context 'other'"):
        kubernetes_runner(replace(jobs.settings, kubernetes_context="other"))
