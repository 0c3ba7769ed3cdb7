"""A peer as a child process that runs the twins of our workflows, on an embedded Postgres of its own.

The process is what that peer's users would run: program, client and engine in one. If it dies by its own hand, as the
workflows that measure recovery make it, it is started again at once, as any supervisor would; whatever else ends it is
`PeerFailed`. Postgres is ours, with the settings that it has under Runtara: real fsync, synchronous commits.
"""

import asyncio
import json
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from runtara.compose import installation, postgres_server
from runtara.compose.supervisor import Server
from runtara.infra.lifetime import Service
from runtara.protocol.errors import RuntaraError

from ..cases import Bench
from ..measure import percentile

APP: Final = Path(__file__).with_name("dbos_app.py")
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024  # the longest are 1,000 durations
LAUNCH_SECONDS: Final = 60.0
STOP_SECONDS: Final = 15.0
EXCHANGES: Final = 200


class PeerFailed(RuntaraError):
    """The peer's process does not run, so nothing of it can be measured."""

    template = "{peer} cannot be measured: {reason}"
    peer: str
    reason: str


@asynccontextmanager
async def embedded_postgres(data: Path) -> AsyncIterator[str]:
    """The URL of a fresh Postgres in `data`, alone on the machine: no NATS beside it."""
    with installation.locked(data):
        drawn = installation.load(data)
        async with Server(await postgres_server.prepare(data, drawn)) as server:
            await server.wait_up()
            yield drawn.database_url


class Peer(Service):
    """DBOS, run by the interpreter `python` of an environment that has it."""

    def __init__(self, python: Path, database_url: str) -> None:
        super().__init__("DBOS")
        self.version = ""
        self._python = python
        self._environ = {**os.environ, "DBOS_SYSTEM_DATABASE_URL": database_url}
        self._waiting: dict[str, asyncio.Future[Any]] = {}

    async def open(self) -> None:
        self.on_close(self._stop)
        await self._launch()
        self.spawn(self._keep_running(), "keep running")

    async def run(self, workflow: str, **input: object) -> Any:
        """Start a workflow and wait for its result, through as many processes as it takes."""
        id = secrets.token_hex(8)
        answer = self._waiting[id] = asyncio.get_running_loop().create_future()
        try:
            self._write({"id": id, "workflow": workflow, "input": input, "known": False})
            return await answer
        finally:
            del self._waiting[id]

    async def exchange_ms(self) -> float:
        """What a question and an answer between the two processes cost by themselves: p50."""
        seconds = []
        for _ in range(EXCHANGES):
            began = time.perf_counter()
            await self.run("")
            seconds.append(time.perf_counter() - began)
        return percentile(seconds, 50) * 1_000

    async def _launch(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            self._python, APP, env=self._environ, limit=MAX_ANSWER_BYTES,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(LAUNCH_SECONDS):
                first = await self._answer()
        except TimeoutError:
            raise PeerFailed(peer=self.name, reason=f"it did not launch within {LAUNCH_SECONDS:g} s") from None
        if first is None:
            raise PeerFailed(peer=self.name, reason="its process ended as it launched; its own words are above")
        self.version = first["version"]

    async def _keep_running(self) -> None:
        try:
            while True:
                await self._until_killed()
                await self._launch()
                for id in self._waiting:
                    self._write({"id": id, "workflow": "", "input": {}, "known": True})
        except PeerFailed as error:
            for answer in self._waiting.values():
                answer.set_exception(error)
            raise

    async def _until_killed(self) -> None:
        while (answer := await self._answer()) is not None:
            self._waiting[answer["id"]].set_result(answer["result"])
        code = await self._process.wait()
        if code != -signal.SIGKILL:
            raise PeerFailed(peer=self.name, reason=f"its process ended with {code}; its own words are above")

    async def _answer(self) -> dict[str, Any] | None:
        """The next line; None at the end of the process."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        return json.loads(line) if line else None

    def _write(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")

    async def _stop(self) -> None:
        """The end of its input asks it to leave."""
        process = self._process
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


class PeerBench(Bench):
    """The cases, on a peer."""

    def __init__(self, peer: Peer, *, quick: bool, runs: int) -> None:
        super().__init__(quick=quick, runs=runs)
        self._peer = peer

    async def run(self, workflow: str, **input: object) -> Any:
        return await self._peer.run(workflow, **input)
