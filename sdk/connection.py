"""What workers, clients and scripts share: a connection to the platform that knows its deployment.

Invariants: the partition count is what the platform says it is (`info`), never configuration; tasks that are made
on behalf of everyone who shares the connection belong to nobody's context: a client may be used for the first time
inside a workflow, whose end takes its own tasks along.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from types import TracebackType
from typing import Final, TypeVar

from nats.aio.subscription import Subscription

from runtara.infra.bus import Bus
from runtara.infra.credentials.files import Credential
from runtara.infra.login import CredentialLogin, Login, tls_of
from runtara.infra.logs import logger
from runtara.infra.nats_client import Handler
from runtara.infra.settings import Settings
from runtara.protocol.api import Info
from runtara.protocol.credentials import Issued, Kind, Revoke
from runtara.protocol.errors import PlatformUnreachable
from runtara.protocol.ids import partition_of
from runtara.protocol.subjects import Subjects, inbox_prefix

from .credentials import Need, ask_over, keep_renewed, login_for, new_order

T = TypeVar("T")
log = logger("connection")

INFO_TIMEOUT_SECONDS: Final = 2.0
INFO_RETRY_SECONDS: Final = 0.2
MAX_PARTS_IN_FLIGHT: Final = 4  # of long values, a megabyte each, for all who share the connection


async def connect_bus(settings: Settings, login: Login | None, *, inbox: str, name: str) -> Bus:
    """A NATS connection whose answers come to `inbox`, which is the login's or below it."""
    return await Bus.connect(
        settings.require_nats_url(), name=name, inbox=inbox, login=login, tls=tls_of(settings)
    )  # fmt: skip


class Connection:
    """A tenant's view of one deployment. Made by `Connection.open`, closed by leaving it as a context manager.

    `user` is who its subjects name; `login` is for other connections of the same process.
    """

    def __init__(self, bus: Bus, settings: Settings, login: Login | None, user: str, partitions: int) -> None:
        self.bus = bus
        self.login = login
        self.user = user
        self.tenant = settings.tenant
        self.subjects = Subjects(settings.deployment)
        self.partitions = partitions
        self.inbox = bus.inbox
        self.outside = copy_context()
        self.parts_in_flight = asyncio.Semaphore(MAX_PARTS_IN_FLIGHT)
        self._settings = settings
        self._renewal: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        settings: Settings,
        *,
        kind: Kind,
        user: str,
        name: str,
        patience: float | None,
        instance: str | None = None,
    ) -> "Connection":
        """Connect and learn the partition count. Without NATS or an engine for `patience` seconds (`None`: for
        ever) raises `PlatformUnreachable`. `user` is used unless the settings have a credential of `kind` of another.
        """
        loop = asyncio.get_running_loop()
        deadline = None if patience is None else loop.time() + patience
        need = Need(kind=kind, user=user, instance=instance)
        login, named = await retried(deadline, lambda: login_for(settings, need))
        prefix = inbox_prefix(settings.tenant, named)
        inbox = prefix if named == user else f"{prefix}.{user}"  # others may share the credential
        bus = await retried(deadline, lambda: connect_bus(settings, login, inbox=inbox, name=name))
        try:
            subject = Subjects(settings.deployment).api(settings.tenant, "info")
            info = await retried(deadline, lambda: bus.call(subject, {}, Info, timeout=INFO_TIMEOUT_SECONDS))
        except BaseException:
            await bus.close()
            raise
        return cls(bus, settings, login, named, info.partitions)

    async def __aenter__(self) -> "Connection":
        self._renewal = asyncio.get_running_loop().create_task(
            keep_renewed(self.bus, self._settings, self.login), name="renewal", context=self.outside.copy()
        )
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        await self.bus.close()

    async def subscribe(self, subject: str, handler: Handler) -> Subscription:
        """Subscribe for everyone who shares the connection, whoever calls."""
        task = asyncio.get_running_loop().create_task(
            self.bus.subscribe(subject, handler), name=f"subscribe {subject}", context=self.outside.copy()
        )
        return await asyncio.shield(task)

    def partition(self, instance: str) -> int:
        return partition_of(self.tenant, instance, self.partitions)

    async def call(
        self, verb: str, question: object, answer: type[T], *, instance: str | None = None, timeout: float = 5.0
    ) -> T:
        """A verb of the API. Raises what the platform answers, `PlatformUnreachable` if nobody does."""
        subject = self.subjects.api(self.tenant, verb, instance)
        return await self.bus.call(subject, question, answer, timeout=timeout)

    async def issue(
        self,
        *,
        kind: Kind,
        user: str,
        instance: str | None = None,
        consumers: list[str] | None = None,
        expires_in: float | None = None,
        name: str | None = None,
    ) -> Credential | None:
        """Have a credential issued that this one's kind may: a runner's for a worker, or for the container that it is
        about to launch (`Kind.CONTAINER`, `user` its worker id). `consumers`: all that a worker may pull from, if
        given; `expires_in`: seconds.

        None if the platform issues none, because its server is not in operator mode: then what it launches shows the
        login that this process has. Raises `CredentialRefused`, `PlatformUnreachable`.
        """
        login = self.login
        if not isinstance(login, CredentialLogin) or login.credential.holder is None:
            return None
        key, order = new_order(
            kind=kind, user=user, instance=instance, consumers=consumers, expires_in=expires_in, name=name
        )  # fmt: skip
        issued = await ask_over(self.bus, self._settings, login.credential, order, Issued)
        return Credential.of(issued.jwt, key)

    async def revoke(self, user: str) -> None:
        """Have what was issued to `user` by way of this connection revoked. Raises as `issue` does."""
        login = self.login
        if isinstance(login, CredentialLogin) and login.credential.holder is not None:
            await ask_over(self.bus, self._settings, login.credential, Revoke(user=user), list[str])


async def retried(deadline: float | None, attempt: Callable[[], Awaitable[T]]) -> T:
    """The outcome of `attempt`, tried again while the platform cannot be reached and there is time."""
    loop = asyncio.get_running_loop()
    said = False
    while True:
        try:
            return await attempt()
        except PlatformUnreachable as exc:
            if deadline is not None and loop.time() + INFO_RETRY_SECONDS > deadline:
                raise
            if not said:
                log.warning("platform_unreachable", reason=str(exc))
                said = True
        await asyncio.sleep(INFO_RETRY_SECONDS)
