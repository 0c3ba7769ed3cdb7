"""Keeps one server running: starts it, waits until it answers, starts it again when it dies, stops it cleanly.

Invariants:
- The server ends with this process (see `launch`). One that outlived its parent all the same is recognised by pid
  and start time and ended before a new one starts, so that two never share a folder.
- `stop` is the only way in which a server stays down (or `supervise=False`). One that dies before it ever answered
  is tried again a bounded number of times (a Postgres whose postmaster was killed needs a moment until its orphans
  are gone); then the service fails with the end of the server's log.
- A full disk ends nothing. A server that was up and died over it is started again once there is room; one that lives
  on and needs a restart to write again (`ServerSpec.ails`) gets it, but not before there is room.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import msgspec

from runtara.infra.lifetime import Service
from runtara.infra.logs import logger
from runtara.infra.private_files import write_private
from runtara.infra.processes import ProcessId
from runtara.protocol.errors import ServerFailed

from .identity import Identity

START_SECONDS: Final = 120.0  # to become ready; a recovery after a crash may take long
STOP_SECONDS: Final = 30.0  # until SIGKILL
MAX_FAILED_STARTS: Final = 12
PROBE_SECONDS: Final = 0.02
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 2.0
HEALTH_SECONDS: Final = 2.0
ROOM_SECONDS: Final = 0.5  # how often a full disk is looked at
MIN_ROOM_BYTES: Final = 32 * 1024 * 1024  # a segment of Postgres's write-ahead log, and some of the largest frames
_KEEP_LOG_BYTES: Final = 16 * 1024 * 1024  # a longer log is moved aside at the next start
_TAIL_LINES: Final = 10
_log = logger("compose")


class Probe(Protocol):
    """Whether the server answers now; never raises."""

    async def __call__(self) -> bool: ...


class Ailment(Protocol):
    """Why a server that runs will not work again until it is restarted; None if it does. Never raises."""

    async def __call__(self) -> str | None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerSpec:
    """How to run a server. `folder` is the server's own; its log and the note of its process lie beside it."""

    name: str
    command: Sequence[str | Path]
    folder: Path
    identity: Identity
    stop_signal: signal.Signals
    is_ready: Probe
    ails: Ailment | None = None

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def process_note(self) -> Path:
        return note_of(self.folder)


def note_of(folder: Path) -> Path:
    """Where it is written which process serves `folder`."""
    return folder.with_name(f"{folder.name}.process.json")


class Server(Service):
    """One supervised server."""

    def __init__(self, spec: ServerSpec, *, supervise: bool = True) -> None:
        super().__init__(spec.name)
        self.spec = spec
        self.starts = 0  # how often it became ready
        self._supervise = supervise
        self._process: asyncio.subprocess.Process | None = None
        self._wanted = asyncio.Event()
        self._up = asyncio.Event()
        self._log = logger("compose", server=spec.name)

    @property
    def pid(self) -> int | None:
        """The server's process, None while it is down."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def is_up(self) -> bool:
        return self._up.is_set()

    async def open(self) -> None:
        self.on_close(self.stop)
        self._wanted.set()
        self.spawn(self._keep_running(), "keep-running")

    async def wait_up(self) -> None:
        """Wait until the server answers; raises `ServerFailed` if it does not start."""
        up = asyncio.create_task(self._up.wait())
        failed = asyncio.create_task(self.failed())
        try:
            await asyncio.wait({up, failed}, return_when=asyncio.FIRST_COMPLETED)
            if failed.done():
                failed.result()
        finally:
            up.cancel()
            failed.cancel()
            await asyncio.gather(up, failed, return_exceptions=True)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send the server a signal, as an accident would."""
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)  # not Popen's: in Python 3.11 it takes the exit status from asyncio's watcher

    async def stop(self) -> None:
        """Stop it cleanly; it stays down until `start`."""
        self._wanted.clear()
        process = self._process
        if process is None:
            return
        await self._end(process)
        self._up.clear()
        self.spec.process_note.unlink(missing_ok=True)

    async def start(self) -> None:
        """Start it again after `stop` (or after its death, if nobody supervises it) and wait until it answers."""
        self._wanted.set()
        await self.wait_up()

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        self.kill(signal.SIGCONT)  # a stopped process would not hear the next one
        self.kill(self.spec.stop_signal)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            self._log.warning("server_did_not_stop", seconds=STOP_SECONDS)
            self.kill()
            await process.wait()

    async def _keep_running(self) -> None:
        failed_starts = 0
        pause = _FIRST_PAUSE_SECONDS
        while True:
            await self._wanted.wait()
            process = await self._launch()
            if await self._became_ready(process):
                failed_starts, pause = 0, _FIRST_PAUSE_SECONDS
                await self._while_up(process)
            elif self._wanted.is_set():
                failed_starts += 1
            if failed_starts and self.starts and await self._waited_for_room():
                failed_starts = 0
            if not self._wanted.is_set():
                continue
            if failed_starts >= MAX_FAILED_STARTS:
                raise ServerFailed(server=self.name, reason=_tail(self.spec.log))
            self._log.warning("server_died", code=process.returncode, failed_starts=failed_starts)
            if not self._supervise and failed_starts == 0:
                self._wanted.clear()
                continue
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _launch(self) -> asyncio.subprocess.Process:
        spec = self.spec
        command = spec.identity.command(spec.command, folder=spec.folder, death_signal=spec.stop_signal)
        if spec.log.exists() and spec.log.stat().st_size > _KEEP_LOG_BYTES:
            spec.log.replace(spec.log.with_suffix(".log.1"))
        with spec.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C at the terminal is for us: we stop the servers last
            )
        self._process = process
        self._note(process.pid)
        return process

    def _note(self, pid: int) -> None:
        """Write down which process it is, for a start after a crash of ours; on a full disk that does without."""
        try:
            write_private(self.spec.process_note, msgspec.json.encode(ProcessId.of(pid)))
        except ProcessLookupError:
            pass  # it is dead already
        except OSError as error:
            self._log.warning("process_not_noted", reason=str(error))

    async def _became_ready(self, process: asyncio.subprocess.Process) -> bool:
        try:
            async with asyncio.timeout(START_SECONDS):
                while process.returncode is None:
                    if await self.spec.is_ready() and process.returncode is None:
                        return True
                    await asyncio.sleep(PROBE_SECONDS)
        except TimeoutError:
            self._log.error("server_does_not_answer", seconds=START_SECONDS)
            self.kill()
            await process.wait()
        return False

    async def _while_up(self, process: asyncio.subprocess.Process) -> None:
        self.starts += 1
        self._up.set()
        self._log.debug("server_up", pid=process.pid)
        watch = self.spawn(self._watch_health(process), "health", may_end=True)
        await process.wait()
        watch.cancel()
        self._up.clear()

    async def _watch_health(self, process: asyncio.subprocess.Process) -> None:
        """End a server that only a restart can help; it is started again as if it had died."""
        ails = self.spec.ails
        if ails is None or not self._supervise:
            return
        while (reason := await ails()) is None:
            await asyncio.sleep(HEALTH_SECONDS)
        self._log.error("server_ails", reason=reason)
        await self._waited_for_room()
        if self._wanted.is_set():
            self._log.warning("server_restarts", reason=reason)
            await self._end(process)

    async def _waited_for_room(self) -> bool:
        """Return once there is room, or the server is no longer wanted; whether that had to be waited for."""
        folder, waited = self.spec.folder, False
        while self._wanted.is_set() and (free := _room(folder)) < MIN_ROOM_BYTES:
            if not waited:
                self._log.error("disk_full", folder=str(folder), free=free, needed=MIN_ROOM_BYTES)
            waited = True
            await asyncio.sleep(ROOM_SECONDS)
        return waited


async def end_leftover(note: Path, stop_signal: signal.Signals) -> None:
    """End the server that a parent which crashed has left behind, if `note` tells of one that still lives."""
    left = _read_note(note)
    if left is None:
        return
    if left.send(signal.SIGCONT):
        _log.info("server_left_over", pid=left.pid, note=str(note))
        left.send(stop_signal)
    if not await _gone(left, seconds=STOP_SECONDS):
        left.send(signal.SIGKILL)
        await _gone(left, seconds=STOP_SECONDS)
    note.unlink(missing_ok=True)


def _read_note(note: Path) -> ProcessId | None:
    try:
        return msgspec.json.decode(note.read_bytes(), type=ProcessId)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


async def _gone(process: ProcessId, *, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            while process.is_alive():
                await asyncio.sleep(PROBE_SECONDS)
    except TimeoutError:
        return False
    return True


def _room(folder: Path) -> int:
    """Bytes that an ordinary user may still write there."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
    return "\n".join([f"the end of {log}:", *lines])
