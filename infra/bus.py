"""One NATS connection under our rules.

Invariants: it reconnects for ever; a publish that wants an acknowledgement ends at once when the connection
breaks (the caller sends the same bytes again) instead of waiting for its time-out; a refused permission, which
NATS tells only through the error callback, becomes `NotAllowed`; dropped messages are counted, never silent.
"""

import asyncio
import itertools
import re
import ssl
import time
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
import nats
import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from runtara.protocol.errors import (
    Malformed,
    NotAllowed,
    PlatformUnreachable,
    RuntaraError,
    StreamMissing,
    Unavailable,
    from_wire,
)
from runtara.protocol.messages import Reply

from .logs import logger
from .nats_client import FastClient, Handler

log = logger("bus")

CONNECT_TIMEOUT_SECONDS: Final = 5.0
REQUEST_TIMEOUT_SECONDS: Final = 5.0
RECONNECT_WAIT_SECONDS: Final = 0.1  # nats-py takes fractions, whatever its annotation says
PENDING_BYTES: Final = 32 * 1024 * 1024  # of one connection's outgoing buffer while it reconnects
VIOLATION_MEMORY_SECONDS: Final = 30.0
STREAM_FULL: Final = 10077  # JetStream's err_code for "maximum bytes" and "maximum messages (per subject)"

_T = TypeVar("_T")
_encoder = msgspec.json.Encoder()
_reply_decoder = msgspec.json.Decoder(Reply)
_VIOLATION = re.compile(r'permissions violation for (publish|subscription) to "([^"]+)"', re.IGNORECASE)


class PubAck(msgspec.Struct, frozen=True):
    stream: str = ""
    seq: int = 0
    error: "ApiError | None" = None


class ApiError(msgspec.Struct, frozen=True):
    code: int = 0
    err_code: int = 0
    description: str = ""


ack_decoder = msgspec.json.Decoder(PubAck)


class NotAcknowledged(Unavailable):
    """Nobody confirmed the publish: time-out, no responders, or the connection broke. It may have been stored."""

    template = "no acknowledgement for a publish on {subject}: {reason}"
    subject: str
    reason: str


class PublishRefused(Unavailable):
    """The stream refused the message. `is_full` for its limits: bytes, messages, or messages of one subject."""

    template = "{stream} refused a message on {subject}: {reason} ({code})"
    subject: str
    stream: str
    reason: str
    code: int

    @property
    def is_full(self) -> bool:
        return self.code == STREAM_FULL


class Bus:
    """A connection. Make it with `Bus.connect`; `inbox` is the prefix under which its user may receive answers."""

    def __init__(self, client: FastClient, inbox: str) -> None:
        self.nats = client
        self.inbox = inbox
        self.on_reconnect: list[Callable[[], None]] = []
        self.on_disconnect: list[Callable[[], None]] = []
        self.dropped = 0
        self._ids = itertools.count(1)
        self._pending: dict[str, tuple[asyncio.Future[Msg], str]] = {}
        self._answers: Subscription | None = None
        self._answer_prefix = f"{inbox}.{_nuid(client)}."
        self._violations: dict[str, float] = {}
        self._connected = asyncio.Event()
        self._closing = False

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        name: str,
        inbox: str,
        user: str | None = None,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> "Bus":
        """Connect, or raise `PlatformUnreachable` after some seconds. `url` may name several servers, with commas."""
        client = FastClient()
        bus = cls(client, inbox)
        options: dict[str, object] = {"tls": tls} if tls else {}
        if user is not None:
            options |= {"user": user, "password": password}
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                await client.connect(
                    servers=url.split(","),
                    name=name,
                    inbox_prefix=inbox.encode(),
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=RECONNECT_WAIT_SECONDS,  # type: ignore[arg-type]
                    connect_timeout=2,
                    ping_interval=10,
                    max_outstanding_pings=2,
                    pending_size=PENDING_BYTES,
                    skip_subject_validation=True,  # every token of a subject is a checked id
                    error_cb=bus._on_error,
                    disconnected_cb=bus._on_disconnected,
                    reconnected_cb=bus._on_reconnected,
                    **options,  # type: ignore[arg-type]
                )
        except (OSError, TimeoutError, nats.errors.Error) as exc:
            await _close_quietly(client)
            raise PlatformUnreachable(reason=f"cannot connect to NATS at {_plain(url)}: {exc or 'no answer'}") from exc
        bus._connected.set()
        bus._answers = await client.listen(f"{bus._answer_prefix}*", bus._on_answer)
        return bus

    async def __aenter__(self) -> "Bus":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Send what is buffered and close; waits at most two seconds for a server that does not answer."""
        self._closing = True
        self._fail_pending("the connection was closed")
        if self.nats.is_connected:
            try:
                async with asyncio.timeout(2):
                    await self.flush()
            except (TimeoutError, nats.errors.Error):
                log.debug("bus_flush_failed", exc_info=True)
        await _close_quietly(self.nats)

    @property
    def is_connected(self) -> bool:
        return self.nats.is_connected

    async def wait_connected(self) -> None:
        await self._connected.wait()

    async def flush(self) -> None:
        """Wait until the server has taken everything sent so far, subscriptions too.

        Twice, because nats-py writes its PING past what it has still buffered; by the first PONG that is written.
        """
        for _ in range(2):
            await self.nats.flush(timeout=int(CONNECT_TIMEOUT_SECONDS))

    def new_inbox(self) -> str:
        """A subject of our own, never used before."""
        return f"{self._answer_prefix[:-1]}i.{next(self._ids)}"

    async def publish(self, subject: str, payload: bytes, reply: str = "") -> None:
        """Core NATS: at most once. Dropped, and counted, while the connection is down."""
        try:
            await self.nats.publish(subject, payload, reply=reply)
        except (nats.errors.OutboundBufferLimitError, nats.errors.ConnectionClosedError):
            self.dropped += 1

    async def subscribe(self, subject: str, handler: Handler, *, queue: str = "") -> Subscription:
        """Call `handler` for each message, in order; what it raises is logged."""
        return await self.nats.listen(subject, handler, queue=queue)

    async def request(self, subject: str, payload: bytes, *, timeout: float = REQUEST_TIMEOUT_SECONDS) -> bytes:
        """One answer to one question. Raises `PlatformUnreachable` or `NotAllowed`."""
        try:
            return (await self._ask(subject, payload, timeout)).data
        except NotAcknowledged as exc:
            raise PlatformUnreachable(reason=f"no answer from {subject}: {exc.reason}") from exc

    async def call(
        self, subject: str, question: object, answer: type[_T], *, timeout: float = REQUEST_TIMEOUT_SECONDS
    ) -> _T:
        """An API request: `question` as JSON, the envelope opened, errors raised as what they were."""
        payload = await self.request(subject, _encoder.encode(question), timeout=timeout)
        try:
            reply = _reply_decoder.decode(payload)
            if reply.error is None:
                return msgspec.json.decode(reply.data, type=answer)
        except msgspec.MsgspecError as exc:
            raise Malformed(reason=f"answer from {subject}: {exc}") from exc
        raise from_wire(reply.error)

    async def publish_acked(self, subject: str, payload: bytes, *, timeout: float = REQUEST_TIMEOUT_SECONDS) -> PubAck:
        """Publish to a stream and wait until it has the message.

        Raises `NotAcknowledged` (send the same bytes again), `PublishRefused` (by the stream), `NotAllowed`.
        """
        ack = ack_decoder.decode((await self._ask(subject, payload, timeout)).data)
        if ack.error is None:
            return ack
        raise PublishRefused(subject=subject, stream=ack.stream, reason=ack.error.description, code=ack.error.err_code)

    async def jetstream(self, verb: str, question: object = None, *, timeout: float = REQUEST_TIMEOUT_SECONDS) -> bytes:
        """A request to JetStream's API (`STREAM.INFO.name` …); its errors are raised as `JetStreamError`."""
        payload = b"" if question is None else _encoder.encode(question)
        data = await self.request(f"$JS.API.{verb}", payload, timeout=timeout)
        error = msgspec.json.decode(data, type=PubAck).error if b'"error"' in data else None
        if error is not None:
            raise JetStreamError(verb=verb, reason=error.description, code=error.err_code)
        return data

    async def _ask(self, subject: str, payload: bytes, timeout: float) -> Msg:
        token = str(next(self._ids))
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Msg] = loop.create_future()
        self._pending[token] = (answer, subject)
        timer = loop.call_later(timeout, self._expire, token, timeout)
        try:
            await self.nats.publish(subject, payload, reply=self._answer_prefix + token)
            msg = await answer
        except nats.errors.Error as exc:
            raise NotAcknowledged(subject=subject, reason=str(exc)) from exc
        finally:
            timer.cancel()
            self._pending.pop(token, None)
        if msg.headers and msg.headers.get("Status") == "503":
            raise NotAcknowledged(subject=subject, reason="no responders")
        return msg

    def _expire(self, token: str, timeout: float) -> None:
        answer, subject = self._pending[token]
        if answer.done():
            return
        if self._was_refused(subject):
            answer.set_exception(NotAllowed(action="publish", subject=subject))
        else:
            answer.set_exception(NotAcknowledged(subject=subject, reason=f"nothing within {timeout:g} s"))

    def _was_refused(self, subject: str) -> bool:
        seen = self._violations.get(subject.lower())
        return seen is not None and time.monotonic() - seen < VIOLATION_MEMORY_SECONDS

    def _on_answer(self, msg: Msg) -> None:
        pending = self._pending.get(msg.subject[len(self._answer_prefix) :])
        if pending is not None and not pending[0].done():
            pending[0].set_result(msg)

    async def _on_error(self, error: Exception) -> None:
        if isinstance(error, nats.errors.SlowConsumerError):
            self.dropped += 1
            log.warning("messages_dropped", subject=error.subject)
            return
        violation = _VIOLATION.search(str(error))
        if violation is None:
            log.debug("nats_error", error=repr(error))
            return
        action, subject = violation.groups()
        self._violations[subject.lower()] = time.monotonic()
        log.error("not_allowed", action=action, subject=subject)
        for answer, asked in list(self._pending.values()):
            if asked.lower() == subject.lower() and not answer.done():
                answer.set_exception(NotAllowed(action=action, subject=asked))

    async def _on_disconnected(self) -> None:
        self._connected.clear()
        self._fail_pending("the connection broke")
        if not self._closing:
            log.warning("nats_disconnected")
        for callback in self.on_disconnect:
            callback()

    async def _on_reconnected(self) -> None:
        self._connected.set()
        log.info("nats_reconnected")
        for callback in self.on_reconnect:
            callback()

    def _fail_pending(self, reason: str) -> None:
        for answer, subject in list(self._pending.values()):
            if not answer.done():
                answer.set_exception(NotAcknowledged(subject=subject, reason=reason))


class JetStreamError(RuntaraError):
    """JetStream's API said no; `code` is its err_code (10059: no such stream, 10014: no such consumer)."""

    template = "JetStream {verb}: {reason} ({code})"
    verb: str
    reason: str
    code: int

    @property
    def is_missing(self) -> bool:
        return self.code in (10059, 10014)

    def as_missing(self, stream: str) -> RuntaraError:
        return StreamMissing(stream=stream) if self.is_missing else self


def _nuid(client: NatsClient) -> str:
    return client._nuid.next().decode()


def _plain(url: str) -> str:
    """The URL without a password in it."""
    return re.sub(r"//[^@/]*@", "//", url)


async def _close_quietly(client: NatsClient) -> None:
    try:
        await client.close()
    except Exception:
        log.debug("nats_close_failed", exc_info=True)
