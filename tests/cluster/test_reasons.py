"""What Kubernetes says of an end, in the words of the log. The pods here are as the API server shows them."""

from typing import Any

import msgspec
import pytest

from runtara.runner.cluster.objects import Job, Pod
from runtara.runner.cluster.reasons import end_of, has_started, obstacle_of
from runtara.runner.cluster.sightings import Sight


def pod(phase: str = "Failed", *, state: dict[str, Any] | None = None, **status: Any) -> Pod:
    containers = [{"name": "instance", "state": state}] if state else None
    given = {"metadata": {"name": "p", "creationTimestamp": None}, "status": {"phase": phase, **status}}
    given["status"]["containerStatuses"] = containers
    return msgspec.json.decode(msgspec.json.encode(given), type=Pod)


def job(*conditions: dict[str, str]) -> Job:
    given = {"metadata": {"name": "j"}, "status": {"conditions": list(conditions), "uncountedTerminatedPods": {}}}
    return msgspec.json.decode(msgspec.json.encode(given), type=Job)


def ended(code: int, reason: str = "Error", **more: str) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "startedAt": "2026-11-25T10:00:00Z", **more}}


DISRUPTED = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "for another"}


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (pod("Succeeded", state=ended(0, "Completed")), "the container exited with code 0"),
        (pod(state=ended(1)), "the container exited with code 1"),
        (pod(state=ended(143)), "the container was ended by SIGTERM"),
        (pod(state=ended(137)), "the container was ended by SIGKILL"),
        (pod(state=ended(137, "OOMKilled")), "out of memory"),
        (pod(state=ended(128, "StartError", message="exec: no such file")), "StartError: exec: no such file"),
        (pod(reason="Evicted", message="low on memory", state=ended(137)), "Evicted: low on memory"),
        (pod(reason="NodeLost", message="Node n1"), "the node that it ran on was lost: Node n1"),
        (pod(reason="NodeShutdown", message="Pod was terminated"), "NodeShutdown: Pod was terminated"),
        (pod(reason="OutOfcpu"), "OutOfcpu"),
        (pod(reason="DeadlineExceeded", state=ended(137)), "over its wall-clock limit"),
        (
            pod(state=ended(143), conditions=[DISRUPTED]),
            "the cluster took its place (PreemptionByScheduler): for another",
        ),
    ],
)
def test_a_pod_that_has_ended(seen: Pod, reason: str) -> None:
    end = end_of(Sight(job=job(), pod=seen))
    assert end is not None
    assert (end.reason, end.is_final) == (reason, True)


def test_a_pod_that_is_gone_without_a_word() -> None:
    running = pod("Running", state={"running": {"startedAt": "2026-11-25T10:00:00Z"}})
    end = end_of(Sight(job=job(), pod=running, pod_is_gone=True))
    assert end is not None
    assert (end.reason, end.is_final) == ("somebody deleted its pod", True)


def test_a_container_that_has_ended_is_no_final_word_while_its_pod_has_not() -> None:
    end = end_of(Sight(job=job(), pod=pod("Running", state=ended(137))))
    assert end is not None
    assert not end.is_final


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        (
            {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "too long"},
            "over its wall-clock limit: too long",
        ),
        (
            {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"},
            "its Job failed (BackoffLimitExceeded)",
        ),
        ({"type": "Complete", "status": "True"}, "the container exited with code 0"),
    ],
)
def test_a_job_that_has_ended_waits_for_what_its_pod_says(condition: dict[str, str], reason: str) -> None:
    end = end_of(Sight(job=job(condition)))
    assert end is not None
    assert (end.reason, end.is_final) == (reason, False)


def test_a_job_that_is_gone() -> None:
    alone = end_of(Sight())
    assert alone is not None
    assert (alone.reason, alone.is_final) == ("somebody removed its Job", True)
    with_pod = end_of(Sight(pod=pod("Running")))
    assert with_pod is not None
    assert not with_pod.is_final, "its pod is being ended"


def test_what_is_on_its_way_has_no_end() -> None:
    assert end_of(Sight(job=job())) is None
    assert end_of(Sight(job=job({"type": "Failed", "status": "False"}), pod=pod("Pending"))) is None


UNSCHEDULED = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}


@pytest.mark.parametrize(
    ("seen", "reason", "is_hopeless"),
    [
        (None, "the Job has no pod yet: a quota, or an admission rule, or a busy Job controller", False),
        (pod("Pending", conditions=[UNSCHEDULED]), "Unschedulable: 0/3 nodes", False),
        (pod("Pending"), "its container did not start", False),
        (
            pod("Pending", state={"waiting": {"reason": "ContainerCreating"}}),
            "ContainerCreating: its container did not start",
            False,
        ),
        (
            pod("Pending", state={"waiting": {"reason": "ErrImagePull", "message": "no"}}),
            "ErrImagePull: no",
            False,
        ),
        (
            pod("Pending", state={"waiting": {"reason": "CreateContainerConfigError", "message": "no key"}}),
            "CreateContainerConfigError: no key",
            False,
        ),
        (pod("Pending", state={"waiting": {"reason": "InvalidImageName"}}), "InvalidImageName", True),
        (pod("Pending", state={"waiting": {"reason": "ErrImageNeverPull"}}), "ErrImageNeverPull", True),
    ],
)
def test_why_a_container_has_not_started(seen: Pod | None, reason: str, is_hopeless: bool) -> None:
    assert not has_started(Sight(job=job(), pod=seen))
    obstacle = obstacle_of(seen)
    assert (obstacle.reason, obstacle.is_hopeless) == (reason, is_hopeless)
