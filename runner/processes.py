"""Launching processes: children of a warm parent (`warm.py`) that has imported the targets.

Invariants: a launched process ends with its warm parent, and that with the runner; when the warm parent ends, all that
it had launched has ended, and another one is started; the output of every process is read to its end.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from runtara.infra.lifetime import Service
from runtara.infra.logs import logger
from runtara.infra.settings import Settings
from runtara.protocol.api import Registration

from .child import DRAIN_PIPE_SECONDS, exit_reason, worker_environ
from .forks import Ended, Fork, FromWarm, Limits, NotForked, Ready, Signal, decode_from_warm, encode_line
from .launches import Ending, Launched, LaunchFailed, Order
from .supervisor import Backoff, WorkersFailed
from .tail import READ_BYTES, Tail, to_stderr
from .warm import KIND

log = logger("runner")

END_SECONDS: Final = 5.0  # for a warm parent to end by itself once its link is closed, beyond its children's grace


class Process:
    """A launched process. Its pipe is read from the start."""

    def __init__(self, id: int, order: Order, time_limit: float | None, tell: Callable[[Signal], None]) -> None:
        self.id = id
        self.instance = order.instance
        self.attempt = order.attempt
        self.nonce = order.nonce
        self.time_limit = time_limit
        self.runner: str | None = None
        self._tell = tell
        self._started_at = time.monotonic()
        self._end: asyncio.Future[Ended | NotForked] = asyncio.get_running_loop().create_future()
        self._tail = Tail(to_stderr)
        self._reading: asyncio.Task[None] | None = None

    @property
    def age(self) -> float:
        return time.monotonic() - self._started_at

    async def read(self, pipe: int) -> None:
        """Begin to read its output."""
        loop = asyncio.get_running_loop()
        stream = asyncio.StreamReader(limit=READ_BYTES)
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(pipe, "rb", 0)
        )
        self._reading = asyncio.create_task(self._tail.read(stream), name=f"output {self.instance}")
        self._reading.add_done_callback(lambda _: transport.close())

    def has_ended(self, how: Ended | NotForked) -> None:
        if not self._end.done():
            self._end.set_result(how)

    async def ended(self) -> Ending:
        how = await asyncio.shield(self._end)
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=DRAIN_PIPE_SECONDS)
            self._reading.cancel()
        if isinstance(how, NotForked):
            return Ending(reason=how.reason, stderr=self._tail.text())
        return Ending(
            reason=_reason(how.code), stderr=self._tail.text(), memory_bytes=how.memory_bytes or None,
            cpu_us=how.cpu_us,
        )  # fmt: skip

    async def last_words(self) -> str:
        return self._tail.text()

    async def stop(self, grace: float) -> None:
        self._tell(Signal(id=self.id, number=signal.SIGTERM))
        done, _ = await asyncio.wait({self._end}, timeout=grace)
        if not done:
            log.warning("process_killed", instance=self.instance, attempt=self.attempt, grace=grace)
            self._tell(Signal(id=self.id, number=signal.SIGKILL))

    async def forget(self) -> None:
        self._tell(Signal(id=self.id, number=signal.SIGKILL))  # nothing, unless the warm parent thinks otherwise


class ProcessLauncher(Service):
    """Launches processes for the workflows of `targets`, each with `limits` and for `time_limit` seconds at most."""

    kind = KIND

    def __init__(
        self,
        settings: Settings,
        targets: Sequence[str],
        *,
        limits: Limits | None = None,
        time_limit: float | None = None,
    ) -> None:
        super().__init__("processes")
        self._environ = worker_environ(settings)
        self._targets = list(targets)
        self._limits = limits or Limits()
        self._time_limit = time_limit
        self._grace = settings.drain_seconds
        self._processes: dict[int, Process] = {}
        self._next_id = 0
        self._warm: _WarmParent | None = None
        self._is_warm = asyncio.Event()
        self.registrations: list[Registration] | None = []

    async def open(self) -> None:
        first = await self._start()
        if first is None:
            raise WorkersFailed(reason="its targets cannot be loaded", code=2)
        self.on_close(self._end_warm)
        self.spawn(self._keep_warm(first), "warm parent")

    async def _end_warm(self) -> None:
        if self._warm is not None:
            await self._warm.end(self._grace + END_SECONDS)

    async def launch(self, order: Order) -> Launched:
        await self._is_warm.wait()
        warm = self._warm
        assert warm is not None
        self._next_id += 1
        process = Process(self._next_id, order, self._time_limit, self._signal)
        reader, writer = os.pipe()
        try:
            fork = Fork(
                id=process.id, instance=order.instance, attempt=order.attempt, token=order.token, worker=order.worker,
                limits=self._limits, credential=order.credential,
            )  # fmt: skip
            warm.send(fork, [writer])
        except OSError as exc:
            os.close(reader)
            raise LaunchFailed(reason=f"its parent process takes no order ({exc})") from exc
        finally:
            os.close(writer)
        self._processes[process.id] = process
        await process.read(reader)
        return process

    async def left_behind(self) -> list[Launched]:
        return []  # processes end with their runner

    async def abandoned(self) -> list[Launched]:
        return []

    async def _start(self) -> "_WarmParent | None":
        """A warm parent that is ready; None if it ended before that, with its reason on stderr."""
        warm = await _WarmParent.spawn(self._targets, self._environ, self._on_message)
        ready = await warm.ready()
        if ready is None:
            return None
        self.registrations = ready.registrations
        self._warm = warm
        self._is_warm.set()
        return warm

    async def _keep_warm(self, warm: "_WarmParent | None") -> None:
        backoff = Backoff()
        while True:
            began = time.monotonic()
            if warm is not None:
                how = exit_reason(await warm.ended(), of="it")
                log.warning("warm_parent_ended", reason=how, processes=len(self._processes))
                self._is_warm.clear()
                for id in list(self._processes):
                    self._on_message(NotForked(id=id, reason=f"its parent process ended: {how}"))
            await asyncio.sleep(backoff.delay_after(time.monotonic() - began))
            warm = await self._start()

    def _on_message(self, message: FromWarm) -> None:
        if isinstance(message, Ended | NotForked):
            process = self._processes.pop(message.id, None)
            if process is not None:
                process.has_ended(message)

    def _signal(self, signal: Signal) -> None:
        if self._warm is not None and signal.id in self._processes:
            with contextlib.suppress(OSError):
                self._warm.send(signal)


class _WarmParent:
    """The other end of the link."""

    def __init__(
        self, process: asyncio.subprocess.Process, link: socket.socket, on_message: Callable[[FromWarm], None]
    ) -> None:
        self._process = process
        self._link = link
        self._on_message = on_message
        self._ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read(), name=f"warm parent {process.pid}")

    @classmethod
    async def spawn(
        cls, targets: Sequence[str], environ: dict[str, str], on_message: Callable[[FromWarm], None]
    ) -> "_WarmParent":
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "runtara.runner.warm", *targets, "--link", str(theirs.fileno()),
                env=environ, stdin=asyncio.subprocess.DEVNULL, pass_fds=(theirs.fileno(),),
            )  # fmt: skip
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(process, ours, on_message)

    async def ready(self) -> Ready | None:
        """None if it ends before it is."""
        ended = asyncio.ensure_future(self._process.wait())
        either: list[asyncio.Future[Any]] = [self._ready, ended]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self._ready.done():
            ended.cancel()
            return self._ready.result()
        await self.end(0)
        return None

    def send(self, message: Fork | Signal, pipes: Sequence[int] = ()) -> None:
        """Raises `OSError` if it cannot take it now."""
        line = encode_line(message)
        sent = socket.send_fds(self._link, [line], list(pipes)) if pipes else self._link.send(line)
        if sent != len(line):
            self._link.close()  # half an order can only be misunderstood: it ends, and another one is started
            raise BrokenPipeError("it is far behind")

    async def ended(self) -> int:
        code = await self._process.wait()
        await asyncio.wait({self._reading}, timeout=DRAIN_PIPE_SECONDS)
        self._link.close()
        return code

    async def end(self, grace: float) -> None:
        """Without its link it ends its children, and itself."""
        self._reading.cancel()
        self._link.close()
        try:
            async with asyncio.timeout(grace):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        rest = b""
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(self._link, READ_BYTES):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    message = decode_from_warm(line)
                    if isinstance(message, Ready):
                        self._ready.set_result(message)
                    else:
                        self._on_message(message)


def _reason(code: int) -> str:
    if code == -signal.SIGXCPU:
        return "over its limit of processor time"
    return exit_reason(code, of="the process")
