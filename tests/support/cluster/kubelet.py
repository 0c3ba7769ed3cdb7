"""The scheduler and kubelet of the stand-in: really run a pod's command, as a process of this machine.

What it does: waits for the Secrets that a pod mounts, lays their values into a folder, runs what the image stands for
with the pod's variables, keeps its output as the pod's log, reports states as the real one does, ends it with SIGTERM
and after the grace SIGKILL, keeps the pod's own deadline. What it does not: no isolation of any kind. There is no
image, no user, no limit, no network of the pod's own; paths of mounts in variables are rewritten to folders of the
test. A test says what a node would notice: out of memory, evicted, …
"""

import asyncio
import base64
import contextlib
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from .store import Object, Store, now

LOOK_SECONDS: Final = 0.05
_EXPANDED: Final = re.compile(r"\$(?:\$|\(([^)]*)\))")  # as in the kubelet: $$ is $, $(NAME) a variable


class Kubelet:
    """`images`: what each stands for. Whatever is not in it cannot be pulled."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.images: dict[str, Sequence[str]] = {}
        self.unschedulable = False
        self.lost = False  # the node: its processes are gone, and nobody says so
        self._store = store
        self._folder = folder
        self._pods: dict[tuple[str, str], _Pod] = {}

    def start(self, pod: Object) -> None:
        key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        if key not in self._pods:
            self._pods[key] = _Pod(self, self._store, self._folder / key[1], pod)

    async def run(self, namespace: str) -> None:
        for pod in self._store.all("pods", namespace):
            self.start(pod)
        async for type, pod in self._store.changes("pods", namespace, self._store.version):
            if type == "ADDED":
                self.start(pod)

    async def close(self) -> None:
        for pod in self._pods.values():
            await pod.close()
        self._pods.clear()

    def delete(self, namespace: str, name: str, grace: int | None = None) -> None:
        """What the API server does when a pod is deleted."""
        pod = self._store.get("pods", namespace, name)
        if pod is None or "deletionTimestamp" in pod["metadata"]:
            return
        seconds = pod["spec"].get("terminationGracePeriodSeconds", 30) if grace is None else grace
        pod["metadata"].update(deletionTimestamp=now(), deletionGracePeriodSeconds=seconds)
        self._store.update("pods", pod)
        self._pods[namespace, name].end(seconds)

    def log(self, namespace: str, name: str) -> bytes | None:
        return self._pods[namespace, name].log()

    def folder_of(self, namespace: str, name: str) -> Path:
        """In which there is a folder for each volume."""
        return self._pods[namespace, name].folder

    def environ_of(self, namespace: str, name: str) -> dict[str, str]:
        """As its process really has it."""
        process = self._pods[namespace, name].process
        assert process is not None
        pairs = Path(f"/proc/{process.pid}/environ").read_bytes().decode().split("\0")
        return dict(pair.split("=", 1) for pair in pairs if pair)

    # accidents

    def kill(self, namespace: str, name: str) -> None:
        """Its process, from outside."""
        self.signal(namespace, name, signal.SIGKILL)

    def signal(self, namespace: str, name: str, number: signal.Signals) -> None:
        self._pods[namespace, name].signal(number)

    def run_out_of_memory(self, namespace: str, name: str) -> None:
        pod = self._pods[namespace, name]
        pod.terminated_reason = "OOMKilled"
        pod.signal(signal.SIGKILL)

    def evict(self, namespace: str, name: str, message: str) -> None:
        pod = self._pods[namespace, name]
        pod.pod_reason = ("Evicted", message)
        pod.signal(signal.SIGKILL)

    def lose_node(self) -> None:
        """It says nothing any more; what it ran is gone."""
        self.lost = True
        for pod in self._pods.values():
            pod.signal(signal.SIGKILL)


class _Pod:
    def __init__(self, kubelet: Kubelet, store: Store, folder: Path, pod: Object) -> None:
        self._kubelet = kubelet
        self._store = store
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self._key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        self._spec: dict[str, Any] = pod["spec"]
        self.process: asyncio.subprocess.Process | None = None
        self._grace: int | None = None
        self.terminated_reason: str | None = None
        self.pod_reason: tuple[str, str] | None = None
        self._task = asyncio.create_task(self._run(), name=f"pod {self._key[1]}")

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def end(self, grace: int) -> None:
        self._grace = grace
        asyncio.get_running_loop().create_task(self._end(grace))

    def log(self) -> bytes | None:
        file = self.folder / "log"
        return file.read_bytes() if file.exists() else None

    async def close(self) -> None:
        self._task.cancel()
        self.signal(signal.SIGKILL)
        if self.process is not None:
            await self.process.wait()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task  # an error of the stand-in's own fails the test

    async def _run(self) -> None:
        code = None
        if await self._is_scheduled() and await self._is_ready():
            code = await self._execute()
        if self._kubelet.lost:
            return
        if code is not None:
            self._report_end(code)
        while self._grace is None:
            await asyncio.sleep(LOOK_SECONDS)
        self._store.remove("pods", *self._key)

    async def _is_scheduled(self) -> bool:
        while self._kubelet.unschedulable:
            message = "0/3 nodes are available: 3 Insufficient memory."
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
            self._set(phase="Pending", conditions=[condition])
            await asyncio.sleep(LOOK_SECONDS)
            if self._grace is not None:
                return False
        self._set(phase="Pending", conditions=[{"type": "PodScheduled", "status": "True"}], startTime=now())
        return True

    async def _is_ready(self) -> bool:
        """Volumes, then the image."""
        while (problem := self._problem()) is not None:
            self._set(containerStatuses=[self._status(waiting=problem)])
            await asyncio.sleep(LOOK_SECONDS)
            if self._grace is not None:
                return False
        return True

    def _problem(self) -> dict[str, str] | None:
        if not self._mount():
            return {"reason": "ContainerCreating"}
        image = self._spec["containers"][0]["image"]
        if image in self._kubelet.images:
            return None
        if image != image.lower():  # of the repository; that of a tag may have capitals
            return {"reason": "InvalidImageName", "message": f'Failed to apply default image tag "{image}"'}
        return {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{image}": not found'}

    def _mount(self) -> bool:
        """Whether all Secrets are there; then their values are, too."""
        for volume in self._spec.get("volumes", []):
            folder = self.folder / volume["name"]
            folder.mkdir(parents=True, exist_ok=True)
            sources = volume.get("projected", {}).get("sources", [])
            wanted = [(one["secret"]["name"], one["secret"]["items"]) for one in sources]
            if "secret" in volume:
                wanted.append((volume["secret"]["secretName"], None))
            for name, items in wanted:
                if not self._lay(folder, name, items):
                    return False
        return True

    def _lay(self, folder: Path, name: str, items: list[dict[str, str]] | None) -> bool:
        secret = self._store.get("secrets", self._key[0], name)
        if secret is None:
            return False
        for item in items or [{"key": key, "path": key} for key in secret["data"]]:
            file = folder / item["path"]
            file.write_bytes(base64.b64decode(secret["data"][item["key"]]))
            file.chmod(0o400)
        return True

    async def _execute(self) -> int:
        container = self._spec["containers"][0]
        with (self.folder / "log").open("wb") as output:
            self.process = await asyncio.create_subprocess_exec(
                *self._kubelet.images[container["image"]], env=self._environ(container), cwd=self.folder,
                stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
        self._started = now()
        self._set(phase="Running", containerStatuses=[self._status(running={"startedAt": self._started})])
        try:
            async with asyncio.timeout(self._spec.get("activeDeadlineSeconds")):
                return await self.process.wait()
        except TimeoutError:
            self.pod_reason = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
            await self._end(self._spec["terminationGracePeriodSeconds"])
            return await self.process.wait()

    def _environ(self, container: dict[str, Any]) -> dict[str, str]:
        """Where the container would see a folder, its variables name the one that stands for it."""
        mounts = {one["mountPath"]: str(self.folder / one["name"]) for one in container.get("volumeMounts", [])}
        environ = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        for variable in container.get("env", []):
            value = _EXPANDED.sub(lambda found: _expand(found, environ), variable["value"])
            for path, folder in mounts.items():
                if value == path or value.startswith(f"{path}/"):
                    value = f"{folder}{value.removeprefix(path)}"
            environ[variable["name"]] = value
        return environ

    async def _end(self, grace: int) -> None:
        if self.process is None:
            return
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace):
                await self.process.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)

    def _report_end(self, code: int) -> None:
        shown = 128 - code if code < 0 else code  # a signal's number, as a shell says it
        reason = self.terminated_reason or ("Completed" if shown == 0 else "Error")
        terminated = {"exitCode": shown, "reason": reason, "startedAt": self._started, "finishedAt": now()}
        self._set(containerStatuses=[self._status(terminated=terminated)])
        more = dict(zip(("reason", "message"), self.pod_reason or (), strict=False))
        self._set(phase="Succeeded" if shown == 0 and not more else "Failed", **more)

    def _status(self, **state: Any) -> dict[str, Any]:
        return {"name": self._spec["containers"][0]["name"], "state": state, "restartCount": 0}

    def _set(self, **status: Any) -> None:
        pod = self._store.get("pods", *self._key)
        if pod is None:
            return
        changed = {**pod["status"], **status}
        if changed != pod["status"]:
            self._store.update("pods", {**pod, "status": changed})


def _expand(found: "re.Match[str]", environ: dict[str, str]) -> str:
    return "$" if found[0] == "$$" else environ.get(found[1], found[0])
