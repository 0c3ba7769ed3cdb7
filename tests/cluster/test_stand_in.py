"""The stand-in for a cluster, as kubectl sees it: a client that is not ours finds what it expects of an API server."""

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster.server import VERBS, Cluster
from tests.support.polling import eventually

EVERYTHING = [{"verbs": VERBS, "apiGroups": ["", "batch"], "resources": ["jobs", "pods", "secrets", "pods/log"]}]
SAY = "import time; print('hello'); print('world', flush=True); time.sleep(600)"


@pytest.fixture
async def cluster(tmp_path: Path, authority: Path) -> AsyncIterator[Cluster]:
    made = Cluster(tmp_path, EVERYTHING, authority)
    made.kubelet.images["say"] = [sys.executable, "-c", SAY]
    async with made.running():
        made.kubeconfig()
        yield made


async def kubectl(cluster: Cluster, *arguments: str, given: object = None, fails: bool = False) -> str:
    """What it says: on stdout, or where it is meant to fail on stderr."""
    process = await _start(cluster, *arguments)
    out, err = await process.communicate(json.dumps(given).encode())
    assert (process.returncode != 0) is fails, err.decode()
    return (err if fails else out).decode()


async def _start(cluster: Cluster, *arguments: str) -> asyncio.subprocess.Process:
    path = shutil.which("kubectl")
    if path is None:
        if "kubectl" in os.environ.get("RUNTARA_REQUIRE", "").split(","):
            pytest.fail("there is no kubectl, and RUNTARA_REQUIRE says that there must be")
        pytest.skip("there is no kubectl here")
    folder = cluster.kubeconfig().parent
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        path, *arguments, stdin=pipe, stdout=pipe, stderr=pipe,
        env={"KUBECONFIG": str(folder / "kubeconfig"), "HOME": str(folder), "PATH": os.environ["PATH"]},
    )  # fmt: skip


def job(name: str, **spec: Any) -> dict[str, Any]:
    closed = {
        "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    container = {"name": "c", "image": "say", "securityContext": closed}
    pod = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 2, "containers": [container]}
    template = {"metadata": {"labels": {"app": name}}, "spec": pod}
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"backoffLimit": 0, "template": template, **spec},
    }  # fmt: skip


async def made(cluster: Cluster, name: str, **spec: Any) -> str:
    """Its pod, once that runs."""
    await kubectl(cluster, "create", "--validate=false", "-f", "-", given=job(name, **spec))

    async def running() -> str:
        pods = json.loads(await kubectl(cluster, "get", "pods", "-l", f"app={name}", "-o", "json"))["items"]
        return "".join(pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] == "Running")

    return str(await eventually(running, within=20, what="a running pod"))


async def test_kubectl_creates_a_job_reads_its_log_and_deletes_it(cluster: Cluster) -> None:
    pod = await made(cluster, "one")
    assert await kubectl(cluster, "get", "jobs", "-o", "name") == "job.batch/one\n"

    async def log() -> bool:
        return await kubectl(cluster, "logs", pod, "--tail=1", "--limit-bytes=100") == "world\n"

    await eventually(log, what="the log")
    await kubectl(cluster, "delete", "job", "one", "--cascade=foreground", "--wait=false")
    await eventually(lambda: not cluster.store.all("jobs") and not cluster.store.all("pods"), what="an empty cluster")


async def test_kubectl_waits_until_a_job_that_it_deletes_is_gone(cluster: Cluster) -> None:
    await made(cluster, "two")
    await kubectl(cluster, "delete", "job", "two", "--cascade=background", "--timeout=20s")
    assert not cluster.store.all("jobs")


async def test_kubectl_watches(cluster: Cluster) -> None:
    watcher = await _start(cluster, "get", "jobs", "-w", "-o", "name")
    assert watcher.stdout is not None
    try:
        await eventually(lambda: cluster.calls["watch", "jobs"] > 0, what="its watch")
        await made(cluster, "three")
        async with asyncio.timeout(10):
            assert await watcher.stdout.readline() == b"job.batch/three\n"
    finally:
        with contextlib.suppress(ProcessLookupError):
            watcher.kill()
        await watcher.communicate()


async def test_kubectl_is_told_why(cluster: Cluster) -> None:
    await made(cluster, "four")
    again = await kubectl(cluster, "create", "--validate=false", "-f", "-", given=job("four"), fails=True)
    assert '(AlreadyExists): error when creating "STDIN": jobs "four" already exists' in again
    wrong = await kubectl(cluster, "create", "--validate=false", "-f", "-", given=job("x", nonsense=1), fails=True)
    assert "nonsense" in wrong
    assert '(NotFound): jobs "none"' in await kubectl(cluster, "get", "job", "none", fails=True)
    cluster.rights.remove(("list", "pods"))
    assert "(Forbidden)" in await kubectl(cluster, "get", "pods", fails=True)


async def test_a_job_over_its_deadline_loses_its_pod(cluster: Cluster) -> None:
    await made(cluster, "five", activeDeadlineSeconds=2)

    async def reason() -> bool:
        found = json.loads(await kubectl(cluster, "get", "job", "five", "-o", "json"))
        return [c["reason"] for c in found["status"].get("conditions", [])] == ["DeadlineExceeded"]

    await eventually(reason, within=20, what="its end")
    await eventually(lambda: not cluster.store.all("pods"), what="no pod")
