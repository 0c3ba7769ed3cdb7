"""The hosting side against real NATS, with the test in the engine's place."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from runtara.engine.streams import create_stream, journal_config
from runtara.infra.bus import Bus
from runtara.infra.settings import Settings
from runtara.protocol.api import Reply
from runtara.protocol.subjects import Subjects
from runtara.sdk.connection import Connection
from tests.support.platform import connect


class Platform:
    """The engine's side of the wire: what was written into the journal, and answers in its place."""

    def __init__(self, bus: Bus, subjects: Subjects) -> None:
        self.bus = bus
        self.subjects = subjects
        self.records: list[dict[str, Any]] = []
        self.questions: list[tuple[str, dict[str, Any]]] = []

    async def listen(self) -> None:
        for subject in self.subjects.journal_subjects(0):
            await self.bus.subscribe(subject, lambda msg: self.records.extend(msgspec.json.decode(msg.data)))
        await self.bus.flush()

    async def tell(self, subject: str, message: object) -> None:
        await self.bus.publish(subject, msgspec.json.encode(message))

    async def answer(self, inbox: str, *answers: object) -> None:
        """As after one commit."""
        await self.tell(inbox, answers)

    async def serve(self, verb: str, instance: str, answer: Callable[[dict[str, Any]], object]) -> None:
        async def reply(msg: Any) -> None:
            question = msgspec.json.decode(msg.data)
            self.questions.append((verb, question))
            data = msgspec.Raw(msgspec.json.encode(answer(question)))
            await self.bus.publish(msg.reply, msgspec.json.encode(Reply(data=data)))

        await self.bus.subscribe(self.subjects.api("default", verb, instance), reply)
        await self.bus.flush()  # who asks has another connection


@pytest.fixture
async def platform(settings: Settings) -> AsyncIterator[Platform]:
    async with await connect(settings, user="engine") as bus:
        subjects = Subjects(settings.deployment)
        config = journal_config(
            subjects, 0, deployment_id="test", max_bytes=settings.journal_max_bytes, replicas=settings.replicas
        )
        await create_stream(bus, config)
        platform = Platform(bus, subjects)
        await platform.listen()
        yield platform


@pytest.fixture
async def connection(settings: Settings, platform: Platform) -> AsyncIterator[Connection]:
    async with await connect(settings, user="w-1") as bus:
        yield Connection(bus, settings, None, "w-1", 1)
