"""The Docker Engine as images need it: look one up, build, import, run once. An adapter over the package `docker`.

Invariants: nothing is pulled by itself; what an operation starts it also removes; errors of the engine become ours
here. Calls block: in async code, run them in a thread.
"""

import io
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from runtara.protocol.errors import DockerUnreachable, ExtraMissing, ImageFailed, ImageNotFound
from runtara.protocol.images import split_reference
from runtara.protocol.records import Image

try:
    import docker
    import requests
    from docker import errors as docker_errors
except ImportError as _missing:  # the extra `docker` is not installed: `connect` says so
    _MISSING: ImportError | None = _missing
else:
    _MISSING = None

_UNIX: Final = "unix://"
DEFAULT_HOST: Final = f"{_UNIX}/var/run/docker.sock"
ANSWER_SECONDS: Final = 600  # a step of a build may be silent for long
CONNECT_SECONDS: Final = 5
KEPT_LINES: Final = 20  # of a build, for its error
_STEP: Final = re.compile(r"Step (\d+/\d+) : ((?:FROM|COPY|ADD|RUN) .*)")  # those that may take their time
_CHATTER: Final = re.compile(r"Step |---> |Removing intermediate|Successfully ")
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_WITHOUT_QUOTES: Final = str.maketrans({"[": None, "]": None, '"': None, ",": " "})
MAX_OUTPUT_BYTES: Final = 1024 * 1024  # of a container that is run once


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """An image that the engine has. `digests` as registries know it, `name@sha256:…`; `size` in bytes."""

    id: str
    digests: list[str]
    labels: dict[str, str]
    user: str
    size: int
    command: list[str]  # entry point and arguments


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """A container that was run to its end, which took `seconds` from the order to start it. `code` None: killed."""

    code: int | None
    stdout: str
    stderr: str
    seconds: float


class DockerEngine:
    """Make it with `connect`, and leave it as a context manager."""

    def __init__(self, client: Any) -> None:
        self._api = client.api

    @classmethod
    def connect(cls) -> "DockerEngine":
        """The engine that `DOCKER_HOST` names, or this machine's. Raises `ExtraMissing`, `DockerUnreachable`."""
        if _MISSING is not None:
            raise ExtraMissing(extra="docker") from _MISSING
        with _translated():
            _knock()
            client = docker.from_env(timeout=CONNECT_SECONDS)
            try:
                client.ping()
            except BaseException:
                client.close()
                raise
        client.api.timeout = ANSWER_SECONDS
        return cls(client)

    def __enter__(self) -> "DockerEngine":
        return self

    def __exit__(self, *exc: object) -> None:
        self._api.close()

    def inspect(self, reference: str) -> Found | None:
        """None if the engine does not have it."""
        with _translated(reference):
            try:
                found = self._api.inspect_image(reference)
            except docker_errors.ImageNotFound:
                return None
        config = found.get("Config") or {}
        return Found(
            id=found["Id"],
            digests=found.get("RepoDigests") or [],
            labels=config.get("Labels") or {},
            user=config.get("User") or "",
            size=found["Size"],
            command=[*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])],
        )

    def require(self, reference: str, hint: str) -> Found:
        """Raises `ImageNotFound` if the engine does not have it."""
        found = self.inspect(reference)
        if found is None:
            raise ImageNotFound(image=reference, where="at the Docker Engine", hint=hint)
        return found

    def digest_at_registry(self, reference: str) -> str | None:
        """What its registry has under this name, asked by the engine; None if it has nothing, or cannot be asked."""
        try:
            with _translated(reference):
                digest: str = self._api.inspect_distribution(reference)["Descriptor"]["digest"]
        except ImageFailed:
            return None
        return digest

    def build(
        self, context: bytes, *, tag: str, build_args: dict[str, str], network: bool, told: Callable[[str], None]
    ) -> Found:
        """Build from a tar. `told`: each step of the build. Raises `ImageFailed` with its last lines."""
        last: list[str] = []
        with _translated(tag):
            lines = self._api.build(
                fileobj=io.BytesIO(context), custom_context=True, tag=tag, rm=True, forcerm=True, decode=True,
                network_mode=None if network else "none", buildargs=build_args,
            )  # fmt: skip
            for line in lines:
                for text in map(_plain, str(line.get("stream", "")).splitlines()):
                    step = _STEP.fullmatch(text)
                    if step is not None:
                        told(f"step {step[1]}: {step[2].translate(_WITHOUT_QUOTES)}")
                    last = [*last[-(KEPT_LINES - 1) :], text] if text and not _CHATTER.match(text) else last
                if "error" in line:
                    words = "\n".join([str(line["error"]), *last])
                    raise ImageFailed(image=tag, reason=f"cannot be built: {words}")
        return self.require(tag, "the build made it, and somebody has removed it since")

    def import_rootfs(self, tar: bytes, name: str, changes: Sequence[str]) -> str:
        """An image of one layer, configured by `changes` in the words of a Dockerfile; its id."""
        repository, _, tag = name.partition(":")
        with _translated(name):
            self._api.import_image_from_data(tar, repository=repository, tag=tag or "latest", changes=list(changes))
        return self.require(name, "it was imported, and somebody has removed it since").id

    def run_once(self, reference: str, command: Sequence[str], limits: Image, *, seconds: float) -> Ran:
        """Run `command` in it to its end, at most for so long: without a network, rights or a disk to write to."""
        with _translated(reference):
            host = self._api.create_host_config(
                network_mode="none", read_only=True, cap_drop=["ALL"], security_opt=["no-new-privileges"],
                tmpfs={"/tmp": "size=16m"}, mem_limit=limits.memory_bytes or 0, pids_limit=limits.pids,
                nano_cpus=None if limits.cpus is None else int(limits.cpus * 1e9),
                log_config={"type": "json-file", "config": {"max-size": "1m", "max-file": "1"}},
            )  # fmt: skip
            id = self._api.create_container(
                reference, entrypoint=list(command[:1]), command=list(command[1:]), host_config=host,
                environment=limits.env, labels={"dev.runtara.check": limits.name},
            )["Id"]  # fmt: skip
            try:
                began = time.monotonic()
                self._api.start(id)
                code = self._wait(id, seconds)
                took = time.monotonic() - began
                return Ran(
                    code=code, stdout=self._output(id, "stdout"), stderr=self._output(id, "stderr"), seconds=took
                )
            finally:
                self._api.remove_container(id, force=True, v=True)

    def remove(self, reference: str) -> None:
        """Nothing happens if it is not there."""
        with _translated(reference):
            try:
                self._api.remove_image(reference, force=True)
            except docker_errors.ImageNotFound:
                return

    def _wait(self, id: str, seconds: float) -> int | None:
        try:
            return int(self._api.wait(id, timeout=seconds)["StatusCode"])
        except requests.exceptions.RequestException:  # its time is up: `remove` ends it
            return None

    def _output(self, id: str, stream: str) -> str:
        chosen = {"stdout": stream == "stdout", "stderr": stream == "stderr"}
        data: bytes = self._api.logs(id, **chosen, tail=1_000)
        return data[-MAX_OUTPUT_BYTES:].decode(errors="replace")


def resolve(engine: DockerEngine, reference: str) -> tuple[str, Found | None]:
    """The reference by digest, and the image if the engine has it.

    By the registry's digest where the image has one, else by its id, which only this engine knows. Raises
    `ImageNotFound` if neither the engine nor a registry has it, or under another digest.
    """
    name, digest = split_reference(reference)
    found = engine.inspect(reference) or engine.inspect(name)
    if found is None:
        there = engine.digest_at_registry(reference)
        if there is None:
            hint = "build or pull it, or register it with --as-given if only the runner's machine has it"
            raise ImageNotFound(image=reference, where="at the Docker Engine, and no registry has it either", hint=hint)
        return f"{_without_tag(name)}@{there}", None
    known = [found.id, *(split_reference(known)[1] or "" for known in found.digests)]
    if digest is not None and digest not in known:
        hint = f"what is there under this name is {known[-1]}: pull the one that is meant, or register that"
        raise ImageNotFound(image=reference, where="at the Docker Engine", hint=hint)
    of_registry = [known for known in found.digests if digest in (None, split_reference(known)[1])]
    return (of_registry[0] if of_registry else found.id), found


def _plain(line: str) -> str:
    return _COLOUR.sub("", line).strip()


def _without_tag(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition(':')[0]}"


def _knock() -> None:
    """Raises `OSError` if nobody listens at the socket: the package would leave its own open (a ResourceWarning)."""
    host = os.environ.get("DOCKER_HOST") or DEFAULT_HOST
    if host.startswith(_UNIX):
        with socket.socket(socket.AF_UNIX) as knocking:
            knocking.settimeout(CONNECT_SECONDS)
            knocking.connect(host.removeprefix(_UNIX))


@contextmanager
def _translated(image: str = "") -> Iterator[None]:
    try:
        yield
    except docker_errors.APIError as exc:
        raise ImageFailed(image=image, reason=f"the Docker Engine says: {exc.explanation or exc}") from exc
    except (docker_errors.DockerException, requests.exceptions.RequestException, OSError) as exc:
        raise DockerUnreachable(reason=_short(exc)) from exc


def _short(error: Exception) -> str:
    """What is behind an error that names four layers of an HTTP client."""
    cause: BaseException = error
    while cause.__context__ is not None:
        cause = cause.__context__
    return str(cause)
