"""nats-py's client, with what it does too eagerly, too often or not at all.

Three changes: it kicks its flusher once for many publishes and not, with a new future, for each; it closes the socket
of a login that was refused; and it does not close the connection for good on almost anything that the server says: a
server that has to close a connection does so by itself, and then the client reconnects.
"""

import re
from typing import Any, Final

import nats.errors
from nats.aio.client import Client

BAD_LOGIN: Final = re.compile(r"authorization violation|authentication (expired|revoked)", re.IGNORECASE)
_ITS_OWN: Final = re.compile(r"permissions violation|stale connection", re.IGNORECASE)  # what nats-py treats well


class CalmClient(Client):
    async def _connect_to_server(self, s: Any) -> None:
        if self._transport:
            self._transport.close()  # type: ignore[no-untyped-call]
        await super()._connect_to_server(s)

    async def _process_err(self, err_msg: str) -> None:
        if BAD_LOGIN.search(err_msg) or _ITS_OWN.search(err_msg):
            await super()._process_err(err_msg)
        else:
            await self._error_cb(nats.errors.Error(f"nats: {err_msg}"))

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        if not force_flush and self._flush_queue is not None and not self._flush_queue.empty() and self.is_connected:
            return None  # kicked already: one write will take all that is pending
        return await super()._flush_pending(force_flush)
