"""Keeps the NATS server's accounts as they should be: the platform's, and one for each tenant.

Accounts are JWTs that the server is told over its system account; it needs no restart and no configuration for a new
tenant. What an account should hold is a function of the keys and of two tables, so it can be told again at any time:
a server that lost its folder of accounts is told all of them when it is back.

Keys may be rotated while engines run: then every account is told anew, with the keys that sign from now on.

Invariants: a tenant's row is locked from before it is changed until the server has the change, so of two engines the
later one tells what both know; an account is told before anybody gets a credential in it.
"""

import asyncio
import contextlib
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final

import asyncpg
import msgspec

from runtara.infra.bus import Bus
from runtara.infra.credentials.jwt import AccountBody, BadJwt, Claims, read
from runtara.infra.credentials.key_file import KeyFile
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
KEYS_LOOK_SECONDS: Final = 2.0  # whether there are others, or some have ended
UPDATE_ACCOUNT: Final = "$SYS.REQ.CLAIMS.UPDATE"
LIST_ACCOUNTS: Final = "$SYS.REQ.CLAIMS.LIST"

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


class Updated(msgspec.Struct, frozen=True):
    data: _Told = _Told()
    error: _Told | None = None


class Listed(msgspec.Struct, frozen=True):
    data: list[str] = []


class Accounts:
    """Of one deployment. `bus` is of the system account."""

    def __init__(
        self, keys: KeyFile, deployment: str, bus: Bus, pool: "asyncpg.Pool[asyncpg.Record] | None" = None
    ) -> None:
        self._keys = keys
        self._deployment = deployment
        self._bus = bus
        self._pool = pool
        self._told: dict[str, set[str]] = {}  # tenant → consumers that the server was told by us
        self._lost = asyncio.Event()
        self._checked: tuple[str, ...] = ()  # the state of the keys with which all accounts were compared
        bus.on_reconnect.append(self._lost.set)

    async def tell_platform(self) -> None:
        """Make sure that the platform's account is there, as this version has it."""
        account = self._keys.ring.platform_account(self._deployment)
        wanted = self._keys.ring.platform_jwt(self._deployment)
        if _said(await lookup(self._bus, account)) != _said(read(wanted)):
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
            jwt = self._keys.ring.tenant_jwt(
                self._deployment, tenant, consumers=sorted(after), revocations=revocations
            )  # fmt: skip
            await self._tell(jwt)
        self._told[tenant] = after
        log.info("tenant_account_told", tenant=tenant, consumers=len(after), revocations=len(revocations))

    async def run(self) -> None:
        """At the start, whenever the server was away, and when the keys are others, tell it what it does not have."""
        self._lost.set()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KEYS_LOOK_SECONDS):
                    await self._lost.wait()
            if not self._lost.is_set() and self._checked == self._keys.ring.state:
                continue
            self._lost.clear()
            try:
                await self._heal()
            except (RuntaraError, asyncpg.PostgresError, *CONNECTION_ERRORS) as exc:
                log.warning("accounts_not_checked", reason=str(exc))
                self._lost.set()
                await asyncio.sleep(HEAL_RETRY_SECONDS)

    async def _heal(self) -> None:
        assert self._pool is not None
        state = self._keys.ring.state
        if state != self._checked:
            await self._follow_keys()
        there = set(msgspec.json.decode(await self._bus.request(LIST_ACCOUNTS, b""), type=Listed).data)
        if self._keys.ring.platform_account(self._deployment) not in there:
            log.warning("platform_account_lost")
            await self.tell_platform()
        for row in await self._pool.fetch(_ALL):
            tenant = row["tenant"]
            if self._keys.ring.tenant_account(self._deployment, tenant) not in there:
                log.warning("tenant_account_lost", tenant=tenant)
                await self.tell(tenant)
        for row in await self._pool.fetch(_WITH_REVOKED, time.time_ns() // 1_000):
            await self.tell(row["tenant"])  # an engine that died may have revoked, and not have told
        self._checked = state

    async def _follow_keys(self) -> None:
        """Tell anew each account that does not name the keys as they are now, or was signed with another one."""
        assert self._pool is not None
        system = self._keys.ring.system_jwt()
        if _said(await lookup(self._bus, self._keys.ring.system_account)) != _said(read(system)):
            await self._tell(system)
            log.info("system_account_told")
        await self.tell_platform()
        for row in await self._pool.fetch(_ALL):
            tenant, ring = row["tenant"], self._keys.ring
            known = await lookup(self._bus, ring.tenant_account(self._deployment, tenant))
            wanted = (ring.operator_signing_key, ring.tenant_signing_keys(self._deployment, tenant))
            if known is not None and (known.iss, _account(known).signing_keys) != wanted:
                await self.tell(tenant)

    async def _tell(self, jwt: str) -> None:
        answer = msgspec.json.decode(await self._bus.request(UPDATE_ACCOUNT, jwt.encode()), type=Updated)
        if answer.error is not None:
            raise PlatformUnreachable(reason=f"the NATS server does not take an account: {answer.error.description}")


async def connect_system(settings: Settings, keys: KeyFile, *, name: str) -> Bus:
    """A connection in the server's system account."""
    user = f"s-{new_token(8)}"
    return await Bus.connect(
        settings.require_nats_url(),
        name=name,
        inbox=platform_inbox(Kind.SYSTEM, user),
        login=MintedLogin(lambda: keys.ring.mint(Kind.SYSTEM, settings.deployment, user)),
        tls=tls_of(settings),
    )


async def connect_platform(settings: Settings, *, name: str) -> Bus:
    """A connection in the platform's account, which is made if it is not there; of `migrate` and of recovery."""
    if settings.nats_keys is not None:
        keys = KeyFile(Path(settings.nats_keys))
        async with await connect_system(settings, keys, name=name) as system:
            await Accounts(keys, settings.deployment, system).tell_platform()
    user = new_token(8)
    return await Bus.connect(
        settings.require_nats_url(),
        name=name,
        inbox=platform_inbox(Kind.ENGINE, user),
        login=platform_login(settings, Kind.ENGINE, user),
        tls=tls_of(settings),
    )


async def lookup(bus: Bus, account: str) -> Claims | None:
    """What the server has of an account; None if it has nothing. `bus` is of the system account."""
    answer = await bus.request(f"$SYS.REQ.ACCOUNT.{account}.CLAIMS.LOOKUP", b"")
    try:
        claims = read(answer.decode())
    except BadJwt:
        return None
    return claims if isinstance(claims.nats, AccountBody) else None


def _account(claims: Claims) -> AccountBody:
    assert isinstance(claims.nats, AccountBody)
    return claims.nats


def _said(claims: Claims | None) -> tuple[str, object] | None:
    """All that makes a difference: by whom it was signed, and what."""
    return None if claims is None else (claims.iss, claims.nats)
