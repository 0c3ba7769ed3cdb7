"""One NATS connection under our rules.

Invariants: it reconnects for ever, unless its credential is refused, which `on_refused` is told; a publish that wants
an acknowledgement ends at once when the connection breaks (the caller sends the same bytes again) instead of waiting
for its time-out; a refused permission, which NATS tells only through the error callback, becomes `NotAllowed`; dropped
messages are counted, never silent.
"""

import asyncio
import contextlib
import itertools
import re
import ssl
import time
from collections.abc import Callable, Coroutine
from typing import Final, TypeVar

import msgspec
import nats
import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from runtara.protocol.api import Reply
from runtara.protocol.errors import (
    Malformed,
    NotAllowed,
    PlatformUnreachable,
    Refused,
    RuntaraError,
    StreamMissing,
    Unavailable,
    from_wire,
)

from .freshness import Freshness
from .login import Login
from .logs import logger
from .nats_client import BAD_LOGIN, Handler, OurClient

log = logger("bus")

CONNECT_TIMEOUT_SECONDS: Final = 5.0
CANCEL_AGAIN_SECONDS: Final = 0.2
REQUEST_TIMEOUT_SECONDS: Final = 5.0
RECONNECT_WAIT_SECONDS: Final = 0.1  # nats-py takes fractions, whatever its annotation says
CLOSE_SECONDS: Final = 2.0  # a server that does not answer a TLS farewell would keep us for half a minute
PENDING_BYTES: Final = 32 * 1024 * 1024  # of one connection's outgoing buffer while it reconnects
VIOLATION_MEMORY_SECONDS: Final = 30.0
REFUSED_CONNECT_SECONDS: Final = 0.5  # of a first connect: a server may not have heard of a new account yet
REFUSED_LOGIN_SECONDS: Final = 60.0  # of reconnecting; a server may come back before its users do
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
    code: int  # JetStream's err_code
    status: int  # 4xx blames the message, 5xx the server

    @property
    def is_full(self) -> bool:
        return self.code == STREAM_FULL


class PayloadTooLarge(Refused):
    template = (
        "a message of {size:,} bytes on {subject} is larger than the NATS server takes ({limit:,} bytes): "
        "raise its max_payload to 8 MiB"
    )
    subject: str
    size: int
    limit: int


class LoginRefused(NotAllowed):
    """The server does not, or no longer, take our credential."""

    template = (
        "the NATS server at {subject} does not accept this credential: {reason}; "
        "it may have expired, been revoked or been changed: see RUNTARA_NATS_CREDENTIALS, or RUNTARA_NATS_USER and "
        "RUNTARA_NATS_PASSWORD"
    )
    subject: str
    reason: str


class Bus:
    """A connection. Make it with `Bus.connect`; `inbox` is the prefix under which its user may receive answers."""

    def __init__(self, client: OurClient, inbox: str) -> None:
        self.nats = client
        self.inbox = inbox
        self.on_reconnect: list[Callable[[], None]] = []
        self.on_disconnect: list[Callable[[], None]] = []
        self.on_refused: list[Callable[[RuntaraError], None]] = []
        self.dropped = 0
        self._ids = itertools.count(1)
        self._pending: dict[str, tuple[asyncio.Future[Msg], str]] = {}
        self._answers: Subscription | None = None
        self._answer_prefix = f"{inbox}.{_nuid(client)}."
        self._violations: dict[str, float] = {}
        self._bad_login: tuple[float, str] | None = None  # since when, and what the server says
        self._freshness = Freshness(None, self.reconnect)
        self._refused: LoginRefused | None = None
        self._is_hopeless = asyncio.Event()  # the first connect
        self._server = ""
        self._closer: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()
        self._closing = False

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        name: str,
        inbox: str,
        login: Login | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> "Bus":
        """Connect, or raise: `PlatformUnreachable` after some seconds, `LoginRefused` as soon as a server has answered
        that it does not let us in. `url` may name several servers, with commas."""
        options: dict[str, object] = {"name": name, "inbox_prefix": inbox.encode()}
        if tls is not None:
            options["tls"] = tls
        bus = cls(OurClient(), inbox)
        bus._freshness = Freshness(login, bus.reconnect)
        await bus._connect(url, options | bus._freshness.options())
        return bus

    async def _connect(self, url: str, options: dict[str, object]) -> None:
        client, self._server = self.nats, _plain(url)
        connecting = client.connect(
            servers=url.split(","),
            max_reconnect_attempts=-1,
            reconnect_time_wait=RECONNECT_WAIT_SECONDS,  # type: ignore[arg-type]
            connect_timeout=2,
            ping_interval=10,
            max_outstanding_pings=2,
            pending_size=PENDING_BYTES,
            skip_subject_validation=True,  # every token of a subject is a checked id
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            closed_cb=self._on_closed,
            **options,  # type: ignore[arg-type]
        )
        try:
            await _within(CONNECT_TIMEOUT_SECONDS, connecting, unless=self._is_hopeless)
        except asyncio.CancelledError:
            await _close_quietly(client)
            raise
        except (OSError, TimeoutError, nats.errors.Error) as exc:
            self._closing = True
            await _close_quietly(client)
            if self._bad_login is not None:
                raise LoginRefused(action="connect", subject=self._server, reason=self._bad_login[1]) from exc
            reason = f"cannot connect to NATS at {self._server}: {exc or 'no answer'}"
            raise PlatformUnreachable(reason=reason) from exc
        self._connected.set()
        self._freshness.watch()
        client.comes_again = self._freshness.is_renewed
        self._answers = await client.listen(f"{self._answer_prefix}*", self._on_answer)

    async def __aenter__(self) -> "Bus":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Send what is buffered and close; waits at most two seconds for a server that does not answer."""
        self._closing = True
        self._freshness.stop()
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

    @property
    def server(self) -> str:
        """The address that was asked for, without a password."""
        return self._server

    @property
    def server_version(self) -> tuple[int, int] | None:
        """Of the server that this connection is with, as far as it says one that can be read."""
        version = self.nats.connected_server_version
        try:
            return version.major, version.minor
        except ValueError:
            return None

    async def wait_connected(self) -> None:
        """Returns at once while connected; raises `LoginRefused` if there will be no connection any more."""
        await self._connected.wait()
        if self._refused is not None:
            raise self._refused

    async def flush(self) -> None:
        """Wait until the server has taken everything sent so far, subscriptions too.

        Twice, because nats-py writes its PING past what it has still buffered; by the first PONG that is written.
        """
        for _ in range(2):
            await self.nats.flush(timeout=int(CONNECT_TIMEOUT_SECONDS))

    async def reconnect(self) -> None:
        """Leave and come back at once, as the login now says; what is under way is sent first, and again if need be."""
        if self.nats.is_connected and not self._closing:
            with contextlib.suppress(TimeoutError, nats.errors.Error):
                await self.flush()
            await self.nats.force_reconnect()

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

        Raises `NotAcknowledged` (send the same bytes again), `PublishRefused` (by the stream; whether to send them
        again is in `refusals`), `NotAllowed`, `PayloadTooLarge`.
        """
        ack = ack_decoder.decode((await self._ask(subject, payload, timeout)).data)
        if ack.error is None:
            return ack
        error = ack.error
        raise PublishRefused(
            subject=subject, stream=ack.stream, reason=error.description, code=error.err_code, status=error.code
        )

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
        except nats.errors.MaxPayloadError as exc:
            raise PayloadTooLarge(subject=subject, size=len(payload), limit=self.nats.max_payload) from exc
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
        if BAD_LOGIN.search(str(error)):
            self._on_bad_login(str(error).removeprefix("nats: "))
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
        self._bad_login = None
        self._connected.set()
        self._freshness.watch()
        log.info("nats_reconnected")
        for callback in self.on_reconnect:
            callback()

    def _on_bad_login(self, reason: str) -> None:
        """A server refused us while we tried to connect to it."""
        now = time.monotonic()
        if self._bad_login is None:
            log.warning("login_refused", reason=reason)
            self._bad_login = (now, reason)
        if self._answers is None:
            if self._freshness.is_expired() or now - self._bad_login[0] >= REFUSED_CONNECT_SECONDS:
                self._is_hopeless.set()
        elif self._freshness.is_expired() or now - self._bad_login[0] > REFUSED_LOGIN_SECONDS:
            self._give_up(reason)
            self._closer = asyncio.create_task(_close_quietly(self.nats))  # of a task that it cancels: not in here

    async def _on_closed(self) -> None:
        """The client will not reconnect: we closed it, or the server said that our credential is no longer good."""
        if not self._closing:
            self._give_up(str(self.nats.last_error or "the server closed the connection").removeprefix("nats: "))

    def _give_up(self, reason: str) -> None:
        if self._refused is not None:
            return
        self._refused = LoginRefused(action="connect", subject=self._server, reason=reason)
        log.critical("login_refused", reason=reason)
        self._fail_pending("the login was refused")
        self._connected.set()  # nobody need wait any longer
        for callback in self.on_refused:
            callback(self._refused)

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


def _nuid(client: OurClient) -> str:
    return client._nuid.next().decode()


def _plain(url: str) -> str:
    """The URL without a password in it."""
    return re.sub(r"//[^@/]*@", "//", url)


async def _within(seconds: float, work: Coroutine[object, None, None], *, unless: asyncio.Event) -> None:
    """As `asyncio.timeout`, but it cancels until the work ends: nats-py may lose one cancellation (its `wait_for` does,
    on Python 3.11, when what it waits for ends at that moment), and then tries to connect for ever."""
    task, hopeless = asyncio.ensure_future(work), asyncio.ensure_future(unless.wait())
    try:
        await asyncio.wait({task, hopeless}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
    finally:
        hopeless.cancel()
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_AGAIN_SECONDS)
    raise TimeoutError


async def _close_quietly(client: OurClient) -> None:
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await client.close()
    except Exception:
        log.debug("nats_close_failed", exc_info=True)
        client.abort()
