"""Every way in which a Job can end, or never begin: what the log says of it, and that it counts against the budget."""

import base64
import json
from typing import Any

import pytest

from runtara.protocol.errors import WorkflowFailed
from runtara.protocol.records import Image, Options
from runtara.runner.cluster import spec
from runtara.runner.cluster.api import RightMissing
from tests.support.peer import connect_peer

from .conftest import IMAGE, Jobs

NAMESPACE = "runtara-instances"


async def running(jobs: Jobs, id: str, **image: Any) -> str:
    """The name of the pod of an instance that has recorded something."""
    await jobs.runner(image=image)
    await jobs.client.start("count", {"steps": 3_000, "pause": 0.1}, id=id)
    await jobs.recorded(id, "step-0")
    name: str = (await jobs.pod(id))["metadata"]["name"]
    return name


async def test_out_of_memory(jobs: Jobs) -> None:
    pod = await running(jobs, "oom", memory_bytes=64 * 1024 * 1024)
    jobs.cluster.kubelet.run_out_of_memory(NAMESPACE, pod)
    assert (await jobs.losses("oom"))[0]["reason"] == "exited: out of memory"


async def test_killed(jobs: Jobs) -> None:
    pod = await running(jobs, "killed")
    jobs.cluster.kubelet.kill(NAMESPACE, pod)
    assert (await jobs.losses("killed"))[0]["reason"] == "exited: the container was ended by SIGKILL"


async def test_evicted(jobs: Jobs) -> None:
    pod = await running(jobs, "evicted")
    jobs.cluster.kubelet.evict(NAMESPACE, pod, "The node was low on resource: memory.")
    reason = "exited: Evicted: The node was low on resource: memory."
    assert (await jobs.losses("evicted"))[0]["reason"] == reason


async def test_its_pod_was_deleted(jobs: Jobs) -> None:
    pod = await running(jobs, "deleted")
    jobs.cluster.kubelet.delete(NAMESPACE, pod, 0)
    assert "SIGKILL" in (await jobs.losses("deleted"))[0]["reason"]


async def test_its_job_was_deleted_by_somebody(jobs: Jobs) -> None:
    """One that neither hands over nor ends when it is asked to."""
    await jobs.runner()
    await jobs.client.start("deaf", {}, id="removed")
    await jobs.recorded("removed", "first")
    job = jobs.cluster.store.all("jobs", NAMESPACE)[0]["metadata"]["name"]
    jobs.cluster.delete_job(job)
    assert (await jobs.losses("removed"))[0]["reason"] == "exited: somebody removed its Job"
    await jobs.pod("removed")


async def test_over_its_wall_clock_an_attempt_is_lost_however_politely_it_would_leave(jobs: Jobs) -> None:
    await jobs.runner(image={"timeout_us": 3_000_000})
    await jobs.client.start("count", {"steps": 3_000, "pause": 0.1}, id="late")
    assert (await jobs.losses("late"))[0]["reason"] == "exited: over its wall-clock limit of 3 s"


async def test_the_cluster_keeps_the_wall_clock_if_the_runner_does_not(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spec, "DEADLINE_MARGIN_SECONDS", -57)
    await jobs.runner(image={"timeout_us": 60_000_000})
    await jobs.client.start("deaf", {}, id="later")
    reason = (await jobs.losses("later"))[0]["reason"]
    assert reason.startswith("exited: over its wall-clock limit: Pod was active on the node longer"), reason


async def test_exited_without_an_end_of_its_own_and_its_last_words(jobs: Jobs) -> None:
    await jobs.runner()
    await jobs.client.start("leaves", {"code": 3}, id="left")
    loss = (await jobs.losses("left"))[0]
    assert loss["reason"] == "exited: the container exited with code 3"
    assert "so long" in loss["detail"]


async def test_a_lost_node(jobs: Jobs) -> None:
    """Nobody reports the end of its pods. The lease does; and the Job must not hold a slot for ever."""
    await running(jobs, "node")
    jobs.cluster.kubelet.lose_node()
    assert (await jobs.losses("node"))[0]["reason"] == "worker lost"


# what never begins


async def begins_never(jobs: Jobs) -> str:
    """Why; of an instance whose budget is used up by that, and which has failed therefore."""
    handle = await jobs.client.start("greet", {"name": "x"}, id="never")
    with pytest.raises(WorkflowFailed):
        await handle.result(timeout=60)
    await jobs.none_left()
    losses = await jobs.losses("never", at_least=2)
    assert len(losses) == 2
    reason: str = losses[0]["reason"]
    assert reason.startswith("exited: it could not be launched: ")
    return reason.removeprefix("exited: it could not be launched: ")


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("nowhere.example/a:1", 'ImagePullBackOff: Back-off pulling image "nowhere.example/a:1": not found (for 2 s)'),
        ("example/Capitals", 'InvalidImageName: Failed to apply default image tag "example/Capitals"'),
    ],
)
async def test_an_image_that_cannot_be_had(jobs: Jobs, reference: str, reason: str) -> None:
    await jobs.runner(image={"reference": reference}, restarts=2, launch_seconds=2.0)
    assert await begins_never(jobs) == reason


async def test_no_node_has_room(jobs: Jobs) -> None:
    jobs.cluster.kubelet.unschedulable = True
    await jobs.runner(restarts=2, launch_seconds=2.0)
    assert await begins_never(jobs) == "Unschedulable: 0/3 nodes are available: 3 Insufficient memory. (for 2 s)"


async def test_a_secret_that_is_not_there(jobs: Jobs) -> None:
    await jobs.runner(image={"secrets": ("api-key",)}, restarts=2, launch_seconds=2.0)
    assert "ContainerCreating" in await begins_never(jobs)


async def test_a_secret_of_ours_cannot_be_had(jobs: Jobs) -> None:
    await jobs.runner(image={"secrets": ("runtara-nats",)}, restarts=2)
    assert "secret 'runtara-nats' cannot be had" in await begins_never(jobs)


async def test_the_network_of_the_node_cannot_be_had(jobs: Jobs) -> None:
    await jobs.runner(image={"network": "host"}, restarts=2)
    assert "network host is not for pods" in await begins_never(jobs)


async def test_what_the_api_server_finds_invalid(jobs: Jobs) -> None:
    """The registry refuses it too; but what a journal holds may be of another day."""
    await jobs.runner(restarts=2)
    image = Image(name="flows", version=1, reference=IMAGE, env={"NOT VALID": "x"})
    options = Options(runner="kubernetes", restarts=2, image=image)
    async with connect_peer(jobs.settings) as peer:
        for partition in range(jobs.settings.partitions):
            told = peer.registered("greet", kind="kubernetes", options=options)
            await peer.folded(await peer.engine_says(partition, told), partition)
    assert "env: Invalid value: 'NOT VALID'" in await begins_never(jobs)


async def test_a_right_that_is_missing_is_named(jobs: Jobs) -> None:
    await jobs.runner(restarts=2)
    jobs.cluster.rights.remove(("create", "jobs"))
    reason = await begins_never(jobs)
    assert reason.startswith("the runner may not create jobs in namespace runtara-instances: ")


async def test_a_right_that_is_missing_for_the_secret_leaves_no_job(jobs: Jobs) -> None:
    await jobs.runner(restarts=2)
    jobs.cluster.rights.remove(("create", "secrets"))
    assert (await begins_never(jobs)).startswith("the runner may not create secrets ")


async def test_a_runner_without_the_right_to_look_does_not_start(jobs: Jobs) -> None:
    jobs.cluster.rights.remove(("list", "pods"))
    with pytest.raises(RightMissing, match="the runner may not list pods in namespace runtara-instances"):
        await jobs.runner()


# what begins all the same


@pytest.mark.parametrize(
    ("status", "message", "retry_after"),
    [
        (429, "too many requests, please try again later", 1),
        (503, "etcdserver: leader changed", None),
        (500, "the server was unable to respond", None),
        (403, 'jobs "x" is forbidden: exceeded quota: compute, requested: count/jobs=1, used: 9, limited: 9', None),
    ],
)
async def test_what_will_pass_is_waited_for(jobs: Jobs, status: int, message: str, retry_after: int | None) -> None:
    await jobs.runner()
    jobs.cluster.fail("create", "jobs", status, message, retry_after=retry_after)
    jobs.cluster.fail("create", "secrets", status, message, retry_after=retry_after)
    handle = await jobs.client.start("greet", {"name": "bob"}, id="waits")
    assert await handle.result(timeout=60) == "hello BOB"
    assert not await jobs.events("waits", "AttemptLost")
    assert jobs.cluster.calls["create", "jobs"] == 2


async def test_a_creation_whose_answer_got_lost_is_not_made_twice(jobs: Jobs) -> None:
    await jobs.runner()
    jobs.cluster.lose_answer("create", "jobs")
    jobs.cluster.lose_answer("create", "secrets")
    handle = await jobs.client.start("greet", {"name": "bob"}, id="once")
    assert await handle.result(timeout=60) == "hello BOB"
    assert not await jobs.events("once", "AttemptLost")
    assert jobs.cluster.calls["create", "jobs"] == 2
    await jobs.none_left()


async def test_secrets_come_as_files_and_the_token_in_no_variable(jobs: Jobs) -> None:
    """Nor does a label or annotation hold anything that opens a door."""
    jobs.cluster.create_secret("api-key", value="s3cret")
    await jobs.runner(image={"secrets": ("API_KEY",), "env": {"GREETING": "$(HOME) costs $5"}})
    await jobs.client.start("count", {"steps": 100}, id="seen")
    await jobs.recorded("seen", "step-1")
    job = jobs.cluster.store.all("jobs", NAMESPACE)[0]
    secret = jobs.cluster.store.get("secrets", NAMESPACE, job["metadata"]["name"])
    assert secret is not None
    pod = (await jobs.pod("seen"))["metadata"]["name"]
    values = [base64.b64decode(value).decode() for value in secret["data"].values()]
    assert len(values) == 2, "the token, and the password for NATS"
    environ = jobs.cluster.kubelet.environ_of(NAMESPACE, pod)
    assert not [value for value in values if value in json.dumps(job) or value in environ.values()]
    assert environ["GREETING"] == "$(HOME) costs $5"
    folder = jobs.cluster.kubelet.folder_of(NAMESPACE, pod)
    assert (folder / "secrets" / "API_KEY").read_text() == "s3cret"
