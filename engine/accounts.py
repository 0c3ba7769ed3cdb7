"""Keeps the NATS server's accounts as they should be: the platform's, and one for each tenant.

Accounts are JWTs that the server is told over its system account; it needs no restart and no configuration for a new
tenant. What an account should hold is a function of the keys and of two tables, so it can be told again at any time:
a server that lost its folder of accounts is told all of them when it is back.

Invariants: a tenant's row is locked from before it is changed until the server has the change, so of two engines the
later one tells what both know; an account is told before anybody gets a credential in it.
"""

import asyncio
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final

import asyncpg
import msgspec

from runtara.infra.bus import Bus
from runtara.infra.credentials.jwt import AccountBody, BadJwt, read
from runtara.infra.credentials.keyring import KeyRing
from runtara.infra.credentials.kinds import platform_inbox
from runtara.infra.login import MintedLogin, platform_login, tls_of
from runtara.infra.logs import logger
from runtara.infra.postgres import CONNECTION_ERRORS
from runtara.infra.settings import Settings
from runtara.protocol.credentials import Kind
from runtara.protocol.errors import PlatformUnreachable, RuntaraError
from runtara.protocol.ids import new_token

log = logger("accounts")

HEAL_RETRY_SECONDS: Final = 1.0
_UPDATE: Final = "$SYS.REQ.CLAIMS.UPDATE"
_LIST: Final = "$SYS.REQ.CLAIMS.LIST"

_NEW: Final = "INSERT INTO tenants (tenant, consumers, created_at) VALUES ($1, '[]', $2) ON CONFLICT DO NOTHING"
_LOCK: Final = "SELECT consumers FROM tenants WHERE tenant = $1 FOR UPDATE"
_SET_CONSUMERS: Final = "UPDATE tenants SET consumers = $2 WHERE tenant = $1"
_ALL: Final = "SELECT tenant FROM tenants ORDER BY tenant"
_WITH_REVOKED: Final = "SELECT DISTINCT tenant FROM credentials WHERE revoked_at IS NOT NULL AND expires_at > $1"
_REVOKED: Final = """
SELECT public_key, expires_at FROM credentials WHERE tenant = $1 AND revoked_at IS NOT NULL AND expires_at > $2
"""


class _Told(msgspec.Struct, frozen=True):
    code: int = 0
    description: str = ""


class _Update(msgspec.Struct, frozen=True):
    data: _Told = _Told()
    error: _Told | None = None


class _Listed(msgspec.Struct, frozen=True):
    data: list[str] = []


class Accounts:
    """Of one deployment. `bus` is of the system account."""

    def __init__(
        self, ring: KeyRing, deployment: str, bus: Bus, pool: "asyncpg.Pool[asyncpg.Record] | None" = None
    ) -> None:
        self._ring = ring
        self._deployment = deployment
        self._bus = bus
        self._pool = pool
        self._told: dict[str, set[str]] = {}  # tenant → consumers that the server was told by us
        self._lost = asyncio.Event()
        bus.on_reconnect.append(self._lost.set)

    async def tell_platform(self) -> None:
        """Make sure that the platform's account is there, as this version has it."""
        account = self._ring.platform_account(self._deployment)
        wanted = self._ring.platform_jwt(self._deployment)
        known = await self._bus.request(f"$SYS.REQ.ACCOUNT.{account}.CLAIMS.LOOKUP", b"")
        if _body(known.decode()) != _body(wanted):
            await self._tell(wanted)
            log.info("platform_account_told", account=account)

    async def ensure(self, tenant: str, consumers: Collection[str] = ()) -> None:
        """Make sure that the tenant has an account, in which it may pull from `consumers`; asks nobody if it has."""
        known = self._told.get(tenant)
        if known is None or not known.issuperset(consumers):
            await self.tell(tenant, consumers)

    async def tell(self, tenant: str, consumers: Collection[str] = ()) -> None:
        """Tell the server the tenant's account anew, with what is in the tables and `consumers`."""
        assert self._pool is not None
        async with self._pool.acquire() as connection, connection.transaction():
            now = time.time_ns() // 1_000
            await connection.execute(_NEW, tenant, now)
            before = set(msgspec.json.decode(await connection.fetchval(_LOCK, tenant), type=list[str]))
            after = before | set(consumers)
            if after != before:
                await connection.execute(_SET_CONSUMERS, tenant, msgspec.json.encode(sorted(after)))
            rows = await connection.fetch(_REVOKED, tenant, now)
            # all that was ever issued for such a key, whatever the clocks of engines: it has one credential only
            revocations = {row["public_key"]: -(-row["expires_at"] // 1_000_000) for row in rows}
            jwt = self._ring.tenant_jwt(
                self._deployment, tenant, consumers=sorted(after), revocations=revocations
            )  # fmt: skip
            await self._tell(jwt)
        self._told[tenant] = after
        log.info("tenant_account_told", tenant=tenant, consumers=len(after), revocations=len(revocations))

    async def run(self) -> None:
        """At the start and whenever the server was away, tell it what it does not have (any more)."""
        self._lost.set()
        while True:
            await self._lost.wait()
            self._lost.clear()
            try:
                await self._heal()
            except (RuntaraError, asyncpg.PostgresError, *CONNECTION_ERRORS) as exc:
                log.warning("accounts_not_checked", reason=str(exc))
                self._lost.set()
                await asyncio.sleep(HEAL_RETRY_SECONDS)

    async def _heal(self) -> None:
        assert self._pool is not None
        there = set(msgspec.json.decode(await self._bus.request(_LIST, b""), type=_Listed).data)
        if self._ring.platform_account(self._deployment) not in there:
            log.warning("platform_account_lost")
            await self.tell_platform()
        for row in await self._pool.fetch(_ALL):
            tenant = row["tenant"]
            if self._ring.tenant_account(self._deployment, tenant) not in there:
                log.warning("tenant_account_lost", tenant=tenant)
                await self.tell(tenant)
        for row in await self._pool.fetch(_WITH_REVOKED, time.time_ns() // 1_000):
            await self.tell(row["tenant"])  # an engine that died may have revoked, and not have told

    async def _tell(self, jwt: str) -> None:
        answer = msgspec.json.decode(await self._bus.request(_UPDATE, jwt.encode()), type=_Update)
        if answer.error is not None:
            raise PlatformUnreachable(reason=f"the NATS server does not take an account: {answer.error.description}")


async def connect_system(settings: Settings, ring: KeyRing, *, name: str) -> Bus:
    """A connection in the server's system account."""
    user = f"s-{new_token(8)}"
    return await Bus.connect(
        settings.require_nats_url(),
        name=name,
        inbox=platform_inbox(Kind.SYSTEM, user),
        login=MintedLogin(lambda: ring.mint(Kind.SYSTEM, settings.deployment, user)),
        tls=tls_of(settings),
    )


async def connect_platform(settings: Settings, *, name: str) -> Bus:
    """A connection in the platform's account, which is made if it is not there; of `migrate` and of recovery."""
    if settings.nats_keys is not None:
        ring = KeyRing.load(Path(settings.nats_keys))
        async with await connect_system(settings, ring, name=name) as system:
            await Accounts(ring, settings.deployment, system).tell_platform()
    user = new_token(8)
    return await Bus.connect(
        settings.require_nats_url(),
        name=name,
        inbox=platform_inbox(Kind.ENGINE, user),
        login=platform_login(settings, Kind.ENGINE, user),
        tls=tls_of(settings),
    )


def _body(jwt: str) -> AccountBody | None:
    try:
        body = read(jwt).nats
    except BadJwt:
        return None
    return body if isinstance(body, AccountBody) else None
