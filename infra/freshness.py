"""Keeps a connection on a credential that has not expired: it comes back with the renewed one before the old one ends.

A server closes a connection when the credential that it was opened with expires, renewed or not; so the connection is
made anew at a moment of ours, between the half of the credential's life and its end. Who renews it is not known here.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from .credentials.files import Credential
from .login import Login, PasswordLogin
from .logs import logger

log = logger("bus")

LOOKS: Final = 16  # for a renewed credential, in the life of one
SHORTEST_LOOK_SECONDS: Final = 0.1


class Freshness:
    """Of one connection. `reconnect` opens it anew."""

    def __init__(self, login: Login | None, reconnect: Callable[[], Awaitable[None]]) -> None:
        self._login = login
        self._reconnect = reconnect
        self._shown: Credential | None = None  # at the last connect
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Future[None] | None = None

    def options(self) -> dict[str, object]:
        """How nats-py logs in."""
        match self._login:
            case None:
                return {}
            case PasswordLogin(user=user, password=password):
                return {"user": user, "password": password}
        return {"signature_cb": self._sign, "user_jwt_cb": self._jwt}

    def watch(self) -> None:
        """Called at each connect."""
        self.stop()
        shown = self._shown
        if shown is None or not shown.expires_at:
            return
        now, life = time.time(), shown.expires_at - shown.issued_at
        pause = max(min(shown.half_life_at - now, life / 2), life / LOOKS, SHORTEST_LOOK_SECONDS)
        self._timer = asyncio.get_running_loop().call_later(pause, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def is_renewed(self) -> bool:
        """Whether the next connect would show a newer credential than this one did."""
        login, shown = self._login, self._shown
        return shown is not None and not isinstance(login, PasswordLogin | None) and login.has_newer(shown)

    def is_expired(self) -> bool:
        """Whether what was shown last has expired, and there is no newer one: coming again is of no use."""
        return self._shown is not None and self._shown.is_expired() and not self.is_renewed()

    def _look(self) -> None:
        if self.is_renewed():
            log.debug("reconnects_with_a_renewed_credential")
            self._task = asyncio.ensure_future(self._reconnect())
        else:
            self.watch()

    def _sign(self, nonce: str) -> bytes:  # nats-py asks for the signature first
        assert self._login is not None
        assert not isinstance(self._login, PasswordLogin)
        self._shown = self._login.take()
        return self._shown.sign_nonce(nonce)

    def _jwt(self) -> bytearray:
        assert self._shown is not None
        return bytearray(self._shown.jwt.encode())
