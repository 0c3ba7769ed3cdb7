"""What a Job and its pod say of an attempt: has its container started, how did it end, why can it not start.

Pure, and in the words that all runners use. Invariant: an end is `is_final` once nothing better can become known: a
Job's failure and a container's exit are seen some moments before the pod says that it was evicted or timed out.
"""

from typing import Final

import msgspec

from ..child import exit_reason
from .objects import Job, Pod, Terminated
from .sightings import Sight

SIGNALLED: Final = 128  # the code of a container that a signal ended begins here
HOPELESS: Final = frozenset({"InvalidImageName", "ErrImageNeverPull"})  # waiting would not help
STUCK: Final = HOPELESS | {
    "ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError", "CreateContainerConfigError",
    "CreateContainerError", "RunContainerError",
}  # fmt: skip
ENDED: Final = frozenset({"Succeeded", "Failed"})
NODE_LOST: Final = "the node that it ran on was lost"
_POD_REASONS: Final = {"DeadlineExceeded": "over its wall-clock limit", "NodeLost": NODE_LOST}


class End(msgspec.Struct, frozen=True, kw_only=True):
    reason: str
    is_final: bool


class Obstacle(msgspec.Struct, frozen=True, kw_only=True):
    """Why the container has not started so far. `is_hopeless`: it never will."""

    reason: str
    is_hopeless: bool = False


def end_of(sight: Sight) -> End | None:
    """None while it is on its way."""
    job, pod = sight.job, sight.pod
    if pod is not None and (pod.status.phase in ENDED or sight.pod_is_gone):
        return End(reason=_end_of_pod(pod), is_final=True)
    if job is None:
        return End(reason="somebody removed its Job", is_final=pod is None)
    terminated = pod.container.terminated if pod is not None else None
    if terminated is not None:
        return End(reason=_exit(terminated), is_final=False)
    return _end_of_job(job)


def has_started(sight: Sight) -> bool:
    container = sight.pod.container if sight.pod is not None else None
    return container is not None and (container.running is not None or container.terminated is not None)


def obstacle_of(pod: Pod | None) -> Obstacle:
    if pod is None:
        return Obstacle(reason="the Job has no pod yet: a quota, or an admission rule, or a busy Job controller")
    waiting = pod.container.waiting
    if waiting is not None and waiting.reason in STUCK:
        return Obstacle(reason=_with(waiting.reason, waiting.message), is_hopeless=waiting.reason in HOPELESS)
    unscheduled = pod.lacks("PodScheduled")
    if unscheduled is not None:
        return Obstacle(reason=_with(unscheduled.reason or "Unschedulable", unscheduled.message))
    return Obstacle(reason=_with(waiting.reason if waiting is not None else None, "its container did not start"))


def _end_of_pod(pod: Pod) -> str:
    status = pod.status
    if status.reason is not None:
        return _with(_POD_REASONS.get(status.reason, status.reason), status.message)
    disrupted = pod.condition("DisruptionTarget")
    if disrupted is not None:
        return _with(f"the cluster took its place ({disrupted.reason})", disrupted.message)
    terminated = pod.container.terminated
    if terminated is not None:
        return _exit(terminated)
    return "somebody deleted its pod"


def _end_of_job(job: Job) -> End | None:
    failed = job.condition("Failed")
    if failed is not None:
        reason = _POD_REASONS.get(failed.reason or "", f"its Job failed ({failed.reason})")
        return End(reason=_with(reason, failed.message), is_final=False)
    if job.condition("Complete") is not None:
        return End(reason=exit_reason(0, of="the container"), is_final=False)
    return None


def _exit(terminated: Terminated) -> str:
    if terminated.reason == "OOMKilled":
        return "out of memory"
    if terminated.reason in ("ContainerCannotRun", "StartError"):
        return _with(terminated.reason, terminated.message)
    code = terminated.exit_code
    return exit_reason(SIGNALLED - code if code > SIGNALLED else code, of="the container")


def _with(reason: str | None, message: str | None) -> str:
    return ": ".join(part for part in (reason, message) if part)
