"""The Job controller and the garbage collector of the stand-in: a pod for each Job, its end, and what goes with a Job.

Only what our Jobs use: one pod, no second try. As the real ones: a Job that is deleted in the background is gone at
once and its pods are asked to end; in the foreground it stays until they have; a deadline deletes the pods; a Job
finishes some moments after its pod.
"""

import asyncio
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from .store import Object, Store, now

FOREGROUND = "foregroundDeletion"


class Controllers:
    """Looks at everything whenever something changes: `run` is a task. `delete_pod` asks the kubelet."""

    def __init__(self, store: Store, delete_pod: Callable[[str, str], None]) -> None:
        self._store = store
        self._delete_pod = delete_pod

    async def run(self, namespace: str) -> None:
        jobs = asyncio.create_task(self._follow(namespace, "jobs"))
        pods = asyncio.create_task(self._follow(namespace, "pods"))
        try:
            await asyncio.gather(jobs, pods, self._tick(namespace))
        finally:
            jobs.cancel()
            pods.cancel()

    def delete_job(self, namespace: str, name: str, propagation: str) -> None:
        job = self._store.get("jobs", namespace, name)
        assert job is not None
        if propagation == "Foreground":
            job["metadata"].update(deletionTimestamp=now(), finalizers=[FOREGROUND])
            self._store.update("jobs", job)
        else:
            self._store.remove("jobs", namespace, name)
        self._collect(namespace)

    async def _follow(self, namespace: str, plural: str) -> None:
        async for _ in self._store.changes(plural, namespace, self._store.version):
            await asyncio.sleep(0)  # in its own time
            self._reconcile(namespace)

    async def _tick(self, namespace: str) -> None:
        while True:
            self._reconcile(namespace)
            await asyncio.sleep(0.1)

    def _reconcile(self, namespace: str) -> None:
        for job in self._store.all("jobs", namespace):
            if "deletionTimestamp" not in job["metadata"] and not is_finished(job):
                self._advance(namespace, job)
        self._collect(namespace)

    def _advance(self, namespace: str, job: Object) -> None:
        pod = self._pod_of(namespace, job)
        limit = job["spec"].get("activeDeadlineSeconds")
        if pod is None and not job.get("status"):
            self._make_pod(namespace, job)
            job["status"] = {"active": 1, "startTime": now()}
            self._store.update("jobs", job)
        elif limit is not None and now() > _later(job["status"]["startTime"], limit):
            self._finish(job, "Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
            if pod is not None:
                self._delete_pod(namespace, pod["metadata"]["name"])
        elif pod is None or pod["status"]["phase"] == "Failed":
            self._finish(job, "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
        elif pod["status"]["phase"] == "Succeeded":
            self._finish(job, "Complete", "CompletionsReached", "Reached expected number of succeeded pods")

    def _finish(self, job: Object, type: str, reason: str, message: str) -> None:
        condition = {"type": type, "status": "True", "reason": reason, "message": message}
        job["status"] = {**job["status"], "active": 0, "conditions": [condition]}
        self._store.update("jobs", job)

    def _make_pod(self, namespace: str, job: Object) -> None:
        template, name = job["spec"]["template"], job["metadata"]["name"]
        meta: dict[str, Any] = {
            **template["metadata"],
            "name": f"{name[:57]}-{secrets.token_hex(3)[:5]}",
            "labels": {
                **template["metadata"].get("labels", {}), "batch.kubernetes.io/job-name": name, "job-name": name,
                "batch.kubernetes.io/controller-uid": job["metadata"]["uid"],
            },
            "ownerReferences": [_reference(job)],
        }  # fmt: skip
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": meta,
            "spec": template["spec"],
            "status": {"phase": "Pending"},
        }
        self._store.create("pods", namespace, pod)

    def _pod_of(self, namespace: str, job: Object) -> Object | None:
        return next((pod for pod in self._store.all("pods", namespace) if job["metadata"]["uid"] in _owners(pod)), None)

    def _collect(self, namespace: str) -> None:
        jobs = self._store.all("jobs", namespace)
        live = {job["metadata"]["uid"] for job in jobs if "deletionTimestamp" not in job["metadata"]}
        waits = set()
        for plural in ("pods", "secrets"):
            for one in self._store.all(plural, namespace):
                owners, name = _owners(one), one["metadata"]["name"]
                if not owners or owners & live:
                    continue
                if plural == "secrets":
                    self._store.remove(plural, namespace, name)
                else:
                    waits |= owners
                    self._delete_pod(namespace, name)
        for job in jobs:
            if FOREGROUND in job["metadata"].get("finalizers", []) and job["metadata"]["uid"] not in waits:
                self._store.remove("jobs", namespace, job["metadata"]["name"])


def is_finished(job: Object) -> bool:
    return bool(job.get("status", {}).get("conditions"))


def _owners(one: Object) -> set[str]:
    return {owner["uid"] for owner in one["metadata"].get("ownerReferences", [])}


def _reference(job: Object) -> Object:
    return {
        "apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"],
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip


def _later(time: str, seconds: int) -> str:
    moved = datetime.fromisoformat(time) + timedelta(seconds=seconds)
    return moved.strftime("%Y-%m-%dT%H:%M:%SZ")
