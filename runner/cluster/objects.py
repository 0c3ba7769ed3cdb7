"""What is read of Kubernetes objects: the few fields that say how a Job and its pod are going.

Invariant: reading is lenient (an API server of another version adds fields, and writes `null` for what is empty);
what is written is in `spec`.
"""

from datetime import datetime

import msgspec


class _Read(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    pass


class Meta(_Read, frozen=True, kw_only=True):
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


class Thing(_Read, frozen=True, kw_only=True):
    """What every object has."""

    metadata: Meta


class Condition(_Read, frozen=True, kw_only=True):
    type: str
    status: str = "Unknown"
    reason: str | None = None
    message: str | None = None


class JobStatus(_Read, frozen=True, kw_only=True):
    conditions: list[Condition] | None = None


class Job(Thing, frozen=True, kw_only=True):
    status: JobStatus = JobStatus()

    def condition(self, type: str) -> Condition | None:
        return _holding(self.status.conditions, type)


class Waiting(_Read, frozen=True, kw_only=True):
    reason: str | None = None
    message: str | None = None


class Running(_Read, frozen=True, kw_only=True):
    started_at: datetime | None = None


class Terminated(_Read, frozen=True, kw_only=True):
    exit_code: int = 0
    reason: str | None = None
    message: str | None = None
    started_at: datetime | None = None


class ContainerState(_Read, frozen=True, kw_only=True):
    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(_Read, frozen=True, kw_only=True):
    name: str = ""
    state: ContainerState = ContainerState()


class PodStatus(_Read, frozen=True, kw_only=True):
    phase: str | None = None
    reason: str | None = None
    message: str | None = None
    conditions: list[Condition] | None = None
    container_statuses: list[ContainerStatus] | None = None


class Pod(Thing, frozen=True, kw_only=True):
    status: PodStatus = PodStatus()

    @property
    def container(self) -> ContainerState:
        """Of its only container; empty before there is any."""
        statuses = self.status.container_statuses
        return statuses[0].state if statuses else ContainerState()

    def condition(self, type: str) -> Condition | None:
        return _holding(self.status.conditions, type)

    def lacks(self, type: str) -> Condition | None:
        """The condition, if it is said not to hold."""
        return next((one for one in self.status.conditions or [] if (one.type, one.status) == (type, "False")), None)


def _holding(conditions: list[Condition] | None, type: str) -> Condition | None:
    return next((one for one in conditions or [] if (one.type, one.status) == (type, "True")), None)
