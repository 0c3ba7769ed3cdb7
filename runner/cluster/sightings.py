"""What is known of each Job of a runner and of its pod, and when that changes.

Invariants: a pod's last state outlives the pod, since it says how it ended, for as long as it is wanted; who waits
for a change misses none, because a change is counted, not only announced; of what nobody wants and is gone nothing is
kept, in whatever order its end is told.
"""

import asyncio

import msgspec

from runtara.infra.lifetime import Service

from .api import JOBS, PODS, ApiServer
from .mirror import Mirror
from .objects import Job, Pod
from .spec import JOB_LABEL


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """`job` is None if there is none (any more), `pod` the last state of its pod, which may be gone."""

    job: Job | None = None
    pod: Pod | None = None
    pod_is_gone: bool = False


class Sightings(Service):
    """Of the Jobs and pods that `selector` finds."""

    def __init__(self, api: ApiServer, selector: str) -> None:
        super().__init__("sightings")
        self._jobs = Mirror(api, JOBS, Job, selector, on_seen=self._on_job, on_gone=self._on_job_gone)
        self._pods = Mirror(api, PODS, Pod, selector, on_seen=self._on_pod, on_gone=self._on_pod_gone)
        self._last: dict[str, tuple[Pod, bool]] = {}
        self._counts: dict[str, int] = {}
        self._wanted: set[str] = set()
        self._changed = asyncio.Event()

    async def open(self) -> None:
        await self.enter(self._jobs)
        await self.enter(self._pods)

    @property
    def jobs(self) -> list[Job]:
        return list(self._jobs.items.values())

    def expect(self, job: Job) -> None:
        self._jobs.expect(job)

    def of(self, name: str) -> Sight:
        pod, is_gone = self._last.get(name, (None, False))
        return Sight(job=self._jobs.get(name), pod=pod, pod_is_gone=is_gone)

    def count(self, name: str) -> int:
        """How many changes there were of the Job `name` and its pod."""
        return self._counts.get(name, 0)

    async def change(self, name: str, *, after: int) -> None:
        """Until there have been more than `after` changes."""
        while self.count(name) <= after:
            changed = self._changed
            await changed.wait()

    def touch(self, name: str) -> None:
        """Whoever waits for a change shall look again."""
        self._counts[name] = self.count(name) + 1
        self._changed.set()
        self._changed = asyncio.Event()

    def want(self, name: str) -> None:
        """Somebody will ask for it until it is forgotten."""
        self._wanted.add(name)

    def forget(self, name: str) -> None:
        """Nobody will ask for it again."""
        self._wanted.discard(name)
        self._purge(name)

    @property
    def known(self) -> set[str]:
        """The names of which something is kept."""
        return self._last.keys() | self._counts.keys() | self._wanted

    def _on_job(self, job: Job) -> None:
        self.touch(job.metadata.name)

    def _on_job_gone(self, job: Job) -> None:
        self.touch(job.metadata.name)
        self._purge(job.metadata.name)

    def _on_pod(self, pod: Pod) -> None:
        self._note(pod, is_gone=False)

    def _on_pod_gone(self, pod: Pod) -> None:
        self._note(pod, is_gone=True)

    def _note(self, pod: Pod, *, is_gone: bool) -> None:
        name = (pod.metadata.labels or {}).get(JOB_LABEL)
        if name is not None:
            self._last[name] = (pod, is_gone)
            self.touch(name)
            self._purge(name)

    def _purge(self, name: str) -> None:
        _, pod_is_gone = self._last.get(name, (None, True))
        if name not in self._wanted and pod_is_gone and self._jobs.get(name) is None:
            self._last.pop(name, None)
            self._counts.pop(name, None)
