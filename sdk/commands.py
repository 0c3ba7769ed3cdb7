"""Commands of a client: into the journal, in as few frames as possible, and their answers from the engine.

Invariants: a command keeps its id however often it is sent, so it takes effect once; it is sent again every
second until it is answered; a wait that ends without an answer says whether the journal has the command
(`NotConfirmed`: it will be carried out) or not (`PlatformUnreachable`).
"""

import asyncio
from typing import Final

import msgspec
from nats.aio.msg import Msg

from runtara.infra.logs import logger
from runtara.infra.writer import JournalWriter
from runtara.protocol.api import ForkRequest
from runtara.protocol.errors import NotConfirmed, PlatformUnreachable, RuntaraError, from_wire
from runtara.protocol.frames import encode_record
from runtara.protocol.messages import CommandAnswer
from runtara.protocol.records import AnyCommand

from .connection import Connection

log = logger("commands")

RESEND_SECONDS: Final = 1.0
FORK_RESEND_SECONDS: Final = 4.0  # its record may have megabytes, and the journal has it
SWEEP_SECONDS: Final = 0.25
ANSWER_SECONDS: Final = 10.0  # how long a command waits for its answer unless the caller says otherwise
_decoder = msgspec.json.Decoder(list[CommandAnswer])


class _Pending:
    __slots__ = ("answer", "instance", "is_asked", "partition", "record", "sent_at", "stored")

    def __init__(self, instance: str, partition: int, record: bytes, answer: asyncio.Future[CommandAnswer]) -> None:
        self.instance = instance
        self.partition = partition
        self.record = record
        self.answer = answer
        self.sent_at = 0.0
        self.is_asked = False  # an engine was asked for it, and has put it into the journal
        self.stored: asyncio.Future[int] | None = None

    @property
    def is_stored(self) -> bool:
        stored = self.stored
        return stored is not None and stored.done() and not stored.cancelled() and stored.exception() is None


class Commands:
    """One client's commands. Use as an async context manager."""

    def __init__(self, connection: Connection) -> None:
        subjects, tenant, user = connection.subjects, connection.tenant, connection.user
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._writer = JournalWriter(
            connection.bus, lambda partition: subjects.commands(partition, tenant, user), on_fatal=self._fail
        )
        self._pending: dict[str, _Pending] = {}
        self._wanted = asyncio.Event()
        self._sweeper: asyncio.Task[None] | None = None
        self.subject = f"{connection.inbox}.answers"
        self.ignored = 0

    async def __aenter__(self) -> "Commands":
        await self._connection.bus.subscribe(self.subject, self._on_answer)
        self._sweeper = asyncio.create_task(self._sweep(), name="commands")
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        await self._writer.close()
        self._fail(PlatformUnreachable(reason="the client was closed"))

    async def send(self, command: AnyCommand, *, timeout: float = ANSWER_SECONDS) -> CommandAnswer:
        """Carry out `command`. Raises the engine's refusal, `NotConfirmed`, or `PlatformUnreachable`."""
        pending = self._enqueue(command)
        timer = self._loop.call_later(timeout, self._expire, pending, timeout)
        try:
            answer = await pending.answer
        finally:
            timer.cancel()
            self._pending.pop(command.id, None)
        return _accepted(answer)

    async def fork(self, source: str, request: ForkRequest, *, timeout: float = ANSWER_SECONDS) -> CommandAnswer:
        """As `send`; an engine reads the source and puts the record into the journal. It is asked until it answers."""
        request = msgspec.structs.replace(request, reply=self.subject)
        pending = _Pending(request.instance, 0, b"", self._loop.create_future())
        self._pending[request.id] = pending
        reason = f"no engine answered within {timeout:g} s; it may still be carried out"
        try:
            async with asyncio.timeout(timeout):
                while not pending.answer.done():
                    try:
                        await self._connection.call("fork", request, bool, instance=source)
                        pending.is_asked = True
                    except PlatformUnreachable as exc:
                        reason = exc.reason
                    patience = FORK_RESEND_SECONDS if pending.is_asked else RESEND_SECONDS
                    await asyncio.wait([pending.answer], timeout=patience)
        except TimeoutError as exc:
            if pending.is_asked:
                raise NotConfirmed(instance=request.instance) from exc
            raise PlatformUnreachable(reason=reason) from exc
        finally:
            self._pending.pop(request.id, None)
        return _accepted(pending.answer.result())

    def _enqueue(self, command: AnyCommand) -> _Pending:
        instance = command.instance
        record = encode_record(msgspec.structs.replace(command, reply=self.subject))
        pending = _Pending(instance, self._connection.partition(instance), record, self._loop.create_future())
        self._pending[command.id] = pending
        self._publish(pending)
        self._wanted.set()
        return pending

    def _publish(self, pending: _Pending) -> None:
        pending.sent_at = self._loop.time()
        pending.stored = self._connection.outside.copy().run(self._writer.send, pending.partition, pending.record)
        pending.stored.add_done_callback(lambda stored: _refuse(pending, stored))

    def _expire(self, pending: _Pending, timeout: float) -> None:
        if pending.answer.done():
            return
        if pending.is_stored:
            pending.answer.set_exception(NotConfirmed(instance=pending.instance))
        else:
            reason = f"the journal did not take the command within {timeout:g} s; it may still be carried out"
            pending.answer.set_exception(PlatformUnreachable(reason=reason))

    def _on_answer(self, msg: Msg) -> None:
        try:
            answers = _decoder.decode(msg.data)
        except msgspec.MsgspecError:
            self.ignored += 1
            return
        for answer in answers:
            self._answered(answer)

    def _answered(self, answer: CommandAnswer) -> None:
        pending = self._pending.get(answer.id)
        if pending is None or pending.instance != answer.instance or pending.answer.done():
            self.ignored += 1
            return
        pending.answer.set_result(answer)

    async def _sweep(self) -> None:
        while True:
            await self._wanted.wait()
            await asyncio.sleep(SWEEP_SECONDS)
            now = self._loop.time()
            for pending in self._pending.values():
                if pending.is_stored and now - pending.sent_at >= RESEND_SECONDS:
                    self._publish(pending)
            if not self._pending:
                self._wanted.clear()

    def _fail(self, error: RuntaraError) -> None:
        for pending in self._pending.values():
            if not pending.answer.done():
                pending.answer.set_exception(error)


def _accepted(answer: CommandAnswer) -> CommandAnswer:
    if answer.error is not None:
        raise from_wire(answer.error)
    return answer


def _refuse(pending: _Pending, stored: "asyncio.Future[int]") -> None:
    """The journal will never take it: whoever waits need not wait for the time to run out."""
    if stored.cancelled() or pending.answer.done():
        return
    error = stored.exception()
    if error is not None:
        pending.answer.set_exception(error)
