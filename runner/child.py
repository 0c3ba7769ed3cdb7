"""One worker process as its supervisor sees it: started, ready, hosting this and that, ended.

Invariants: its stderr is always read (an unread pipe would block it) and passed on, the end of it kept; it is
waited for, never polled by pid; `hosted` is what it said it hosts over the link, and does not change after
`ended` is set.
"""

import asyncio
import contextlib
import dataclasses
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from runtara.infra.logs import logger
from runtara.infra.settings import PREFIX, Settings
from runtara.sdk.link import READY, REPLACE

from .tail import READ_BYTES, Tail, to_stderr

log = logger("runner")

_NOT_INHERITED: Final = (f"{PREFIX}NATS_", f"{PREFIX}CONNECTIONS_KEY")
DRAIN_PIPE_SECONDS: Final = 1.0  # a grandchild may hold the pipe open after the child's end


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a child ended. `hosted` are the attempts that ended with it."""

    worker: str | None
    code: int
    reason: str
    stderr: str
    lived: float
    was_ready: bool
    hosted: tuple[tuple[str, int], ...] = ()


class Child:
    """A worker process. `spawn` starts it; `ended` is its end."""

    def __init__(
        self, process: asyncio.subprocess.Process, link: socket.socket, forward: Callable[[bytes], None]
    ) -> None:
        self._process = process
        self._link = link
        self._started_at = time.monotonic()
        self._hosted: set[tuple[str, int]] = set()
        self._tail = Tail(forward)
        self._rest = b""
        self.worker: str | None = None
        self.workflows: tuple[str, ...] = ()
        self.ready = asyncio.Event()
        self.worn_out = asyncio.Event()  # it asks for another process in its place
        self.ended: asyncio.Task[Ended] = asyncio.create_task(self._run(), name=f"child {process.pid}")

    @classmethod
    async def spawn(
        cls, command: Sequence[str], environ: dict[str, str], *, forward: Callable[[bytes], None] | None = None
    ) -> "Child":
        """Start `command`, given the number of its link's descriptor as last option `--link N`."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            process = await asyncio.create_subprocess_exec(
                *command, "--link", str(theirs.fileno()),
                env=environ, stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),), limit=READ_BYTES,
            )  # fmt: skip
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(process, ours, forward or to_stderr)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def hosted(self) -> set[tuple[str, int]]:
        """The attempts (instance, number) that it says it hosts."""
        return set(self._hosted)

    def send_signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def stop(self, grace: float) -> Ended:
        """SIGTERM, and SIGKILL if it still lives after `grace` seconds."""
        self.send_signal(signal.SIGTERM)
        done, _ = await asyncio.wait({self.ended}, timeout=grace)
        if not done:
            log.warning("worker_killed", worker=self.worker, pid=self.pid, grace=grace)
            self.send_signal(signal.SIGKILL)
        return await self.ended

    async def wait_ready(self) -> bool:
        """Until it is ready (True) or has ended before that."""
        ready = asyncio.create_task(self.ready.wait())
        try:
            await asyncio.wait({ready, self.ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        return self.ready.is_set()

    async def _run(self) -> Ended:
        stderr = self._process.stderr
        assert stderr is not None  # it was asked for
        pipes = asyncio.gather(self._tail.read(stderr), self._read_link())
        code = await self._process.wait()
        lived = time.monotonic() - self._started_at
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_PIPE_SECONDS):
                await pipes
        self._link.close()
        return Ended(
            worker=self.worker,
            code=code,
            reason=exit_reason(code),
            stderr=self._tail.text(),
            lived=lived,
            was_ready=self.ready.is_set(),
            hosted=tuple(sorted(self._hosted)),
        )

    async def _read_link(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(self._link, READ_BYTES):
                *lines, self._rest = (self._rest + data).split(b"\n")
                for line in lines:
                    self._on_line(line.decode())

    def _on_line(self, line: str) -> None:
        kind, rest = line[:1], line[1:]
        if kind in "+-":
            instance, _, attempt = rest.partition(" ")
            (self._hosted.add if kind == "+" else self._hosted.discard)((instance, int(attempt)))
        elif line.startswith(READY):
            _, self.worker, *workflows = line.split(" ")
            self.workflows = tuple(workflows)
            self.ready.set()
        elif line == REPLACE:
            self.worn_out.set()


def exit_reason(code: int, of: str = "the worker process") -> str:
    """In words; a negative code is a signal's number, as in `subprocess`."""
    if code >= 0:
        return f"{of} exited with code {code}"
    try:
        return f"{of} was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"{of} was ended by signal {-code}"


def worker_command(targets: Sequence[str], *, registered: bool = False) -> list[str]:
    """The command line of a worker process for `targets`, and for all registered definitions."""
    return [sys.executable, "-m", "runtara.sdk.run", *targets, *(["--registered"] if registered else [])]


def worker_environ(settings: Settings) -> dict[str, str]:
    """Our own environment with `settings`, which alone say what the process knows of logins; it seals nothing."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
    return {**inherited, **dataclasses.replace(settings, connections_key=None).to_environ()}
