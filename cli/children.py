"""A part of the platform as a child process of ours, kept running.

Invariants: it ends when we end, however that is (it reads the end of a pipe that we hold); it is up when it has said
`ready`; one that dies is started again, more and more slowly; on the way out it is asked first and killed last.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

from runtara.infra.lifetime import Service
from runtara.infra.logs import logger
from runtara.infra.settings import Settings
from runtara.protocol.errors import ServerFailed

STOP_SECONDS: Final = 30.0
START_SECONDS: Final = 60.0
HEALTHY_SECONDS: Final = 10.0
FIRST_DELAY_SECONDS: Final = 0.2
MAX_DELAY_SECONDS: Final = 10.0
log = logger("cli")


class Part(Service):
    """`runtara COMMAND…` with `settings`. Open when it is ready; raises `ServerFailed` if it never gets there."""

    def __init__(self, settings: Settings, command: Sequence[str]) -> None:
        super().__init__(command[0])
        self._command = [sys.executable, "-m", "runtara.cli", *command, "--child"]
        self._environ = {**os.environ, **settings.to_environ()}
        self._process: asyncio.subprocess.Process | None = None
        self._ready = asyncio.Event()
        self._delay = FIRST_DELAY_SECONDS

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def open(self) -> None:
        self.on_close(self._stop)
        await self._start()
        try:
            async with asyncio.timeout(START_SECONDS):
                ready = await self._until_ready()
        except TimeoutError:
            ready = False
        if not ready:
            raise ServerFailed(server=self.name, reason="it did not get ready; its own words are above")
        self.spawn(self._keep_running(), "keep running")

    async def _start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            env=self._environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us: we decide in which order things end
        )

    async def _until_ready(self) -> bool:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if line.startswith(b"ready"):
                return True
        return False

    async def _keep_running(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            assert self._process is not None
            began = loop.time()
            code = await self._process.wait()
            log.warning("part_ended", part=self.name, code=code)
            if loop.time() - began > HEALTHY_SECONDS:
                self._delay = FIRST_DELAY_SECONDS
            await asyncio.sleep(self._delay)
            self._delay = min(self._delay * 2, MAX_DELAY_SECONDS)
            await self._start()
            await self._until_ready()

    async def _stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            log.warning("part_killed", part=self.name)
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            await process.wait()
