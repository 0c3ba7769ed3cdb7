"""Gets connections from the platform for all instances of a process, and keeps them for a little while.

The answer comes to an inbox of the process's own credential, under a name that it drew for the one question.

Invariants: a connection is kept for at most a minute, so what was set or deleted counts by then; many that ask for the
same at once are one question; what was opened for a workflow is given to that workflow only; errors are not kept, and
while nobody answers, whoever asks waits, as all operations do.
"""

import asyncio
import contextlib
from typing import Final

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from runtara.protocol.configuration import OpenConnection
from runtara.protocol.connections import read_fields
from runtara.protocol.errors import PlatformUnreachable
from runtara.protocol.ids import new_token
from runtara.protocol.messages import OpenedConnection

from .connection import Connection, retried
from .granted import ConnectionValue

KEPT_SECONDS: Final = 60.0
MAX_KEPT: Final = 256  # the oldest goes
ANSWER_SECONDS: Final = 5.0
_decoder = msgspec.json.Decoder(OpenedConnection)
_Key = tuple[str, str]  # workflow, connection


class Openings:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._kept: dict[_Key, tuple[float, ConnectionValue]] = {}
        self._asked: dict[_Key, asyncio.Lock] = {}  # of those that the workflows here name
        self._answers: dict[str, asyncio.Future[OpenedConnection]] = {}
        self._listening: asyncio.Task[Subscription] | None = None

    async def open(self, workflow: str, instance: str, name: str) -> ConnectionValue:
        key = (workflow, name)
        async with self._asked.setdefault(key, asyncio.Lock()):
            kept = self._kept.get(key)
            if kept is not None and self._loop.time() - kept[0] < KEPT_SECONDS:
                return kept[1]
            self._kept.pop(key, None)
            value = await retried(None, lambda: self._ask(instance, name))
            self._kept[key] = (self._loop.time(), value)
            while len(self._kept) > MAX_KEPT:
                del self._kept[next(iter(self._kept))]
            return value

    async def _ask(self, instance: str, name: str) -> ConnectionValue:
        await self._listen()
        token = new_token()
        answer = self._answers[token] = self._loop.create_future()
        question = OpenConnection(name=name, reply=f"{self._prefix}.{token}")
        try:
            await self._connection.call("connection", question, bool, instance=instance)
            async with asyncio.timeout(ANSWER_SECONDS):
                opened = await answer
        except TimeoutError:
            raise PlatformUnreachable(reason=f"the connection {name} was not answered") from None
        finally:
            del self._answers[token]
        return ConnectionValue(opened.name, opened.type, read_fields(opened.fields))

    @property
    def _prefix(self) -> str:
        return f"{self._connection.inbox}.connections"

    async def _listen(self) -> None:
        """Once, for everyone: whoever asks first may be cancelled, and its tasks end with it."""
        if self._listening is None:
            subscribing = self._connection.subscribe(f"{self._prefix}.*", self._on_answer)
            outside = self._connection.outside.copy()
            self._listening = self._loop.create_task(subscribing, name="connections", context=outside)
        try:
            await asyncio.shield(self._listening)
        except Exception:
            self._listening = None
            raise

    def _on_answer(self, msg: Msg) -> None:
        answer = self._answers.get(msg.subject.rpartition(".")[2])
        with contextlib.suppress(msgspec.MsgspecError):
            if answer is not None and not answer.done():
                answer.set_result(_decoder.decode(msg.data))
