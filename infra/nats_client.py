"""nats-py's client, with what it does too eagerly, too often or not at all.

The way in and out: of itself it wakes a task for each message that arrives (through a queue of its subscription) and
for each one that leaves (its flusher); on the hot path that costs more than the message. Here a handler that does not
wait is called where the message is read, and what was published in one turn of the event loop leaves in one write.

Errors: it closes the connection for good on almost anything that the server says. A server that has to close a
connection does so by itself, and then the client reconnects; here only a refused login is left to it, unless it has
been renewed meanwhile. And it closes the socket of such a login.

Invariants: messages of a subscription are handed out in order; commands leave in the order of the calls, whichever way
they take; what is published while there is no connection is kept, up to `pending_size`, and leaves after the reconnect.
"""

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.protocol import command

from .logs import logger

log = logger("bus")

Handler = Callable[[Msg], Awaitable[None] | None]
BAD_LOGIN: Final = re.compile(r"authorization violation|authentication (expired|revoked)", re.IGNORECASE)
EXPIRED_LOGIN: Final = re.compile(r"authentication expired", re.IGNORECASE)
_ITS_OWN: Final = re.compile(r"permissions violation|stale connection", re.IGNORECASE)  # what nats-py treats well
HIGH_WATER_BYTES: Final = 1024 * 1024  # waiting to be written, and in the socket's buffer: above, publishers wait


class OurClient(Client):
    """Everything of nats-py's client; use `listen` in place of `subscribe`."""

    def __init__(self) -> None:
        super().__init__()
        self._direct: dict[int, Handler] = {}
        self._is_write_due = False
        self.comes_again: Callable[[], bool] = lambda: False  # whether a login that expired has been renewed

    async def listen(self, subject: str, handler: Handler, *, queue: str = "") -> Subscription:
        """Call `handler` for each message, in order; what it raises is logged.

        A plain function is called where the message is read, a coroutine function in a task of the subscription.
        """
        if inspect.iscoroutinefunction(handler):
            return await self.subscribe(subject, queue=queue, cb=_logged(handler))
        self._direct[self._sid + 1] = handler
        return await self.subscribe(subject, queue=queue)

    async def publish(
        self, subject: str, payload: bytes = b"", reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        transport = self._transport
        if headers or not self.is_connected or transport is None or len(payload) > self.max_payload or self.is_draining:
            await super().publish(subject, payload, reply, headers)
            return
        text = command.pub_cmd(subject, reply, payload)
        self._pending.append(text)
        self._pending_data_size += len(text)
        if self._pending_data_size > HIGH_WATER_BYTES:
            await self._flush_pending(force_flush=True)
        elif not self._is_write_due:
            self._is_write_due = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        """All that is pending, in one write. Errors show where the connection is read.

        Not if the server takes it slowly: then it stays pending, nats-py's flusher waits for the socket, and publishers
        wait for the flusher once there is too much.
        """
        self._is_write_due = False
        if not self._pending or not self.is_connected or self._transport is None:
            return
        if self._buffered_bytes() > HIGH_WATER_BYTES:
            if self._flush_queue is not None and self._flush_queue.empty():
                self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())
            return
        pending, self._pending, self._pending_data_size = self._pending, [], 0
        self._transport.writelines(pending)

    def abort(self) -> None:
        """Drop the socket, whatever is under way."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    def _buffered_bytes(self) -> int:
        """What the socket has not taken yet. (A web socket's is not known; nats-py bounds it itself.)"""
        writer = getattr(self._transport, "_io_writer", None)
        return writer.transport.get_write_buffer_size() if writer is not None else 0

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        handler = self._direct.get(sid)
        if handler is None or sid not in self._subs:
            await super()._process_msg(sid, subject, reply, data, headers)  # type: ignore[arg-type]
            return
        known = await self._process_headers(headers) if headers else None
        try:
            handler(self._build_message(sid, subject, reply, data, known))
        except Exception:
            log.exception("handler_failed", subject=subject.decode())

    def _connect_command(self) -> bytes:
        """Who we are is said to no server that a `tls://` address names and that speaks without TLS."""
        server, transport = self._current_server, self._transport
        writer = getattr(transport, "_io_writer", None)
        is_secret = writer is not None and writer.get_extra_info("ssl_object") is not None
        if server is not None and server.uri.scheme == "tls" and not is_secret:
            raise nats.errors.SecureConnWantedError
        return super()._connect_command()

    async def _connect_to_server(self, s: Any) -> None:
        if self._transport:
            self._transport.close()  # type: ignore[no-untyped-call]
        await super()._connect_to_server(s)

    async def _process_err(self, err_msg: str) -> None:
        if EXPIRED_LOGIN.search(err_msg) and self.is_connected and self.comes_again():
            await self._process_op_err(nats.errors.Error(f"nats: {err_msg}"))
        elif BAD_LOGIN.search(err_msg) or _ITS_OWN.search(err_msg):
            await super()._process_err(err_msg)
        else:
            await self._error_cb(nats.errors.Error(f"nats: {err_msg}"))

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        super()._remove_sub(sid, max_msgs)
        self._direct.pop(sid, None)


def _logged(handler: Handler) -> Callable[[Msg], Awaitable[None]]:
    async def call(msg: Msg) -> None:
        try:
            outcome: Any = handler(msg)
            await outcome
        except Exception:
            log.exception("handler_failed", subject=msg.subject)

    return call
