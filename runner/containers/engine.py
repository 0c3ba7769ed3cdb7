"""The Docker Engine as a runner needs it: an adapter over the package `docker`, whose calls block, in threads.

That package (rather than an asynchronous one) because images are built and looked up with it too, so there is one
client of the engine in the house. Invariants: a thread is only ever blocked for seconds, so cancelling is safe; errors
of the package do not leave this module; while the engine is away, `wait` waits for it.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import docker
import docker.errors
import msgspec
import requests.exceptions

from runtara.protocol.errors import Refused, Unavailable
from runtara.sdk.threads import THREADS

T = TypeVar("T")
Config = dict[str, Any]  # what the engine's API takes, as JSON

CALL_SECONDS: Final = 30.0
WAIT_SECONDS: Final = 10.0  # a thread waits for the end of a container at a time
AWAY_SECONDS: Final = 0.5  # between two looks whether the engine is back
POOL: Final = 64  # connections to the engine; each container that is waited for holds one


class EngineAway(Unavailable):
    template = "the Docker Engine does not answer: {reason}; see DOCKER_HOST, and whether it runs"
    reason: str


class EngineRefused(Refused):
    """What the engine said. `status` is that of HTTP: 404 there is none, 409 not in this state."""

    template = "the Docker Engine says: {reason}"
    reason: str
    status: int


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A container that exists."""

    id: str
    name: str
    labels: dict[str, str]


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Of a container. `started_at` as the engine writes times."""

    status: str
    code: int
    out_of_memory: bool
    error: str
    started_at: str


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    memory_bytes: int
    cpu_us: int


class Network(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    gateway: str | None


class ContainerEngine:
    """Make it with `connect`."""

    def __init__(self, api: docker.APIClient) -> None:
        self._api = api

    @classmethod
    async def connect(cls) -> "ContainerEngine":
        """The engine that `DOCKER_HOST` names, or this machine's. Raises `EngineAway`."""
        return cls(await _in_thread(lambda: docker.from_env(timeout=CALL_SECONDS, max_pool_size=POOL).api))

    def close(self) -> None:
        self._api.close()

    # containers

    async def create(self, name: str, config: Config) -> str:
        """The id of a new container, or of the one that has this name. Raises `EngineRefused`, `EngineAway`."""
        try:
            created = await self._call(lambda api: api.create_container_from_config(config, name))
        except EngineRefused as exc:
            if exc.status != 409:
                raise
            return str((await self._call(lambda api: api.inspect_container(name)))["Id"])
        return str(created["Id"])

    async def start(self, id: str) -> None:
        await self._call(lambda api: api.start(id))

    async def kill(self, id: str, signal: str) -> None:
        """Nothing if it does not run (any more). A container that is paused goes on, to get it."""
        try:
            await self._call(lambda api: api.kill(id, signal))
        except EngineRefused as exc:
            if exc.status == 409 and "paused" in str(exc):
                await self._call(lambda api: api.unpause(id))
                await self._call(lambda api: api.kill(id, signal))
            elif exc.status not in (404, 409):
                raise

    async def wait(self, id: str) -> State | None:
        """Until it does not run; how it ended, or None if it is gone."""
        while True:
            try:
                with contextlib.suppress(TimeoutError):
                    await self._call(lambda api: api.wait(id, timeout=WAIT_SECONDS))
                state = await self.state(id)
            except (EngineAway, EngineRefused, TimeoutError) as exc:
                if isinstance(exc, EngineRefused) and exc.status == 404:
                    return None
                await asyncio.sleep(AWAY_SECONDS)  # it may just be starting, too
                continue
            if state is None or state.status not in ("running", "paused", "restarting"):
                return state

    async def state(self, id: str) -> State | None:
        """None if there is no such container."""
        try:
            found = (await self._call(lambda api: api.inspect_container(id)))["State"]
        except EngineRefused as exc:
            if exc.status != 404:
                raise
            return None
        return State(
            status=found["Status"], code=found["ExitCode"], out_of_memory=bool(found["OOMKilled"]),
            error=found["Error"] or "", started_at=found["StartedAt"],
        )  # fmt: skip

    async def age(self, id: str) -> float:
        """Seconds since it was started; 0 if it never was, or is gone."""
        state = await self.state(id)
        return _age(state.started_at) if state is not None else 0.0

    async def output(self, id: str) -> bytes:
        """All that it wrote to stdout, as far as its log reaches."""
        return bytes(await self._call(lambda api: api.logs(id, stdout=True, stderr=False)))

    async def last_words(self, id: str, lines: int) -> bytes:
        """The end of what it wrote to stderr."""
        return bytes(await self._call(lambda api: api.logs(id, stdout=False, stderr=True, tail=lines)))

    async def usage(self, id: str) -> Usage | None:
        """As of now; None if it does not run. The most memory that it ever held, where the kernel says that."""
        found = await self._call(lambda api: api.stats(id, stream=False, one_shot=True))
        memory, cpu = found.get("memory_stats") or {}, (found.get("cpu_stats") or {}).get("cpu_usage") or {}
        if "usage" not in memory:
            return None
        return Usage(
            memory_bytes=int(memory.get("max_usage") or memory["usage"]),
            cpu_us=int(cpu.get("total_usage", 0)) // 1_000,
        )

    async def remove(self, id: str) -> None:
        try:
            await self._call(lambda api: api.remove_container(id, v=True, force=True))
        except EngineRefused as exc:
            if exc.status not in (404, 409):  # gone, or on its way
                raise

    async def labelled(self, labels: Mapping[str, str], *, statuses: Sequence[str] = ()) -> list[Found]:
        """All containers with these labels; of these statuses alone, if any are given."""
        filters = {"label": [f"{name}={value}" for name, value in labels.items()], "status": list(statuses)}
        found = await self._call(lambda api: api.containers(all=True, filters=filters))
        return [Found(id=one["Id"], name=one["Names"][0].lstrip("/"), labels=one["Labels"]) for one in found]

    # images and networks

    async def pull(self, reference: str) -> None:
        """Raises `EngineRefused` with the registry's reason, which comes in the midst of a good answer."""
        for line in str(await self._call(lambda api: api.pull(reference))).splitlines():
            error = msgspec.json.decode(line).get("error") if line.startswith("{") else None
            if error:
                raise EngineRefused(reason=error, status=404)

    async def network(self, name: str) -> Network | None:
        try:
            found = await self._call(lambda api: api.inspect_network(name))
        except EngineRefused as exc:
            if exc.status != 404:
                raise
            return None
        configs: Sequence[Mapping[str, str]] = (found.get("IPAM") or {}).get("Config") or []
        gateway = next((config["Gateway"] for config in configs if config.get("Gateway")), None)
        return Network(name=found["Name"], gateway=gateway)

    async def create_network(self, name: str, *, options: Mapping[str, str], labels: Mapping[str, str]) -> None:
        """An internal bridge. Nothing if it is there."""
        try:
            await self._call(
                lambda api: api.create_network(
                    name, driver="bridge", internal=True, check_duplicate=True, options=dict(options),
                    labels=dict(labels),
                )
            )  # fmt: skip
        except EngineRefused as exc:
            if exc.status != 409:
                raise

    async def _call(self, call: Callable[[Any], T]) -> T:
        return await _in_thread(lambda: call(self._api))


async def _in_thread(call: Callable[[], T]) -> T:
    def translated() -> T:
        with _translated():
            return call()

    return (await THREADS.submit(translated, asyncio.get_running_loop()).finished).get()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except docker.errors.APIError as exc:
        raise EngineRefused(reason=str(exc.explanation or exc), status=exc.status_code or 0) from exc
    except requests.exceptions.ReadTimeout as exc:
        raise TimeoutError("no answer yet") from exc
    except requests.exceptions.ConnectionError as exc:
        if "Read timed out" in str(exc):
            raise TimeoutError("no answer yet") from exc
        raise EngineAway(reason=_short(exc)) from exc
    except (docker.errors.DockerException, requests.exceptions.RequestException) as exc:
        raise EngineAway(reason=_short(exc)) from exc


def _short(error: Exception) -> str:
    return str(error)[:300]


def _age(started_at: str) -> float:
    """Since a time as the engine writes it, with nanoseconds; 0 if it never was."""
    try:
        started = datetime.fromisoformat(f"{started_at[:19]}+00:00")
    except ValueError:
        return 0.0
    return max(0.0, (datetime.now(UTC) - started).total_seconds()) if started.year > 1 else 0.0
