"""Issues, renews, lists and revokes the credentials of tenants' users.

Who asks shows its own credential and signs its order, so what it may have is read off a JWT that we have signed. What
was issued is a row, without the private key: that never leaves whoever made it (`issue` makes one where nobody asks).

Invariants: nobody is issued a right that `kinds.may_issue` does not name for it, nor another user's id, nor
anything of another tenant unless it is an operator; a revoked credential is neither renewed nor good for an order; a
container's is revoked when its claim has ended, or when it floods the platform.
"""

import asyncio
import base64
import binascii
import contextlib
import time
from collections.abc import Sequence
from typing import Final, assert_never

import asyncpg
import msgspec

from runtara.infra.credentials.files import Credential
from runtara.infra.credentials.jwt import BadJwt, Claims, read, verified
from runtara.infra.credentials.key_file import KeyFile
from runtara.infra.credentials.keys import Key, Role, has_signed, is_public
from runtara.infra.credentials.kinds import LIFE_SECONDS, Holder, holder_of, may_issue
from runtara.infra.logs import logger
from runtara.infra.postgres import CONNECTION_ERRORS
from runtara.protocol.credentials import (
    CredentialRequest,
    CredentialView,
    Issue,
    Issued,
    Kind,
    ListIssued,
    Order,
    Renew,
    Revoke,
)
from runtara.protocol.errors import CredentialRefused, RuntaraError
from runtara.protocol.ids import check_id, partition_of
from runtara.protocol.subjects import Source

from .accounts import Accounts
from .quotas import Offence

log = logger("credentials")

MAX_LIFE_SECONDS: Final = 10 * 366 * 24 * 3600
DELEGATED_LIFE_SECONDS: Final = 7 * 24 * 3600  # at most, unless an operator asks: its holder can renew it
MAX_LISTED: Final = 1_000
MAX_ENDED: Final = 10_000  # claims whose credentials wait to be revoked; beyond, expiry has to do
REVOKE_EVERY_SECONDS: Final = 1.0  # an account is told its revocations at most this often
KEPT_SECONDS: Final = 30 * 24 * 3600  # rows of what has expired
FORGET_EVERY_SECONDS: Final = 3600.0
SHOWN_OFFENCE_SECONDS: Final = 7 * 24 * 3600  # in the short list, among what people have made
MAX_OFFENCES: Final = 1_000  # that wait to be written down
_NAME_LENGTH: Final = 128

_COLUMNS: Final = """
public_key, tenant, kind, user_id, name, instance, issued_by, issued_at, expires_at, revoked_at, offence, offended_at
"""
_NEW: Final = """
INSERT INTO credentials (public_key, tenant, kind, user_id, name, instance, issued_by, issued_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (public_key) DO NOTHING RETURNING public_key
"""
_RENEW: Final = """
UPDATE credentials SET expires_at = $3 WHERE public_key = $1 AND tenant = $2 AND revoked_at IS NULL RETURNING public_key
"""
_IS_GOOD: Final = "SELECT revoked_at IS NULL FROM credentials WHERE public_key = $1 AND tenant = $2"
_IS_TAKEN: Final = """
SELECT EXISTS (SELECT FROM credentials WHERE tenant = $1 AND user_id = $2 AND revoked_at IS NULL AND expires_at > $3)
"""
_LIST: Final = f"""
SELECT {_COLUMNS} FROM credentials
WHERE tenant = $1 AND ($2 OR (name IS NOT NULL AND revoked_at IS NULL AND expires_at > $3) OR offended_at > $5)
ORDER BY issued_at DESC LIMIT $4
"""
_REVOKE: Final = """
UPDATE credentials SET revoked_at = $2 WHERE tenant = $1 AND revoked_at IS NULL AND expires_at > $2
    AND ($3::text IS NULL OR public_key = $3) AND ($4::text IS NULL OR user_id = $4) AND ($5::text IS NULL OR name = $5)
    AND ($6::text IS NULL OR issued_by = $6)
RETURNING public_key
"""
_REVOKE_ENDED: Final = """
UPDATE credentials c SET revoked_at = $3 FROM unnest($1::text[], $2::text[]) AS ended (tenant, user_id)
WHERE c.tenant = ended.tenant AND c.user_id = ended.user_id AND c.kind = 'container' AND c.revoked_at IS NULL
    AND c.expires_at > $3 AND split_part(c.issued_by, ' ', 1) IN ('runner', 'engine') -- a script's own just expires
RETURNING c.tenant
"""
_OFFENDED: Final = """
UPDATE credentials SET offence = $4, offended_at = $5,
    revoked_at = CASE WHEN kind = 'container' THEN COALESCE(revoked_at, $5) ELSE revoked_at END
WHERE tenant = $1 AND expires_at > $5 AND ((kind = 'container' AND instance = $2) OR user_id = $3)
RETURNING public_key, revoked_at = $5 AS is_revoked
"""
_FORGET: Final = "DELETE FROM credentials WHERE expires_at < $1"

_request_decoder = msgspec.json.Decoder(CredentialRequest)
_order_decoder: msgspec.json.Decoder[Order] = msgspec.json.Decoder(Order)


class Credentials:
    """Of one deployment with `partitions` partitions."""

    def __init__(
        self, keys: KeyFile, accounts: Accounts, pool: "asyncpg.Pool[asyncpg.Record]", deployment: str, partitions: int
    ) -> None:
        self._keys = keys
        self._accounts = accounts
        self._pool = pool
        self._deployment = deployment
        self._partitions = partitions
        self._ended: set[tuple[str, str]] = set()
        self._offences: dict[Source, Offence] = {}
        self._untold: set[str] = set()  # tenants whose revocations are in the table, and perhaps not in the server
        self._wanted = asyncio.Event()
        self.refused = 0

    async def issue(
        self,
        kind: Kind,
        tenant: str,
        user: str,
        *,
        instance: str | None = None,
        partition: int | None = None,
        consumers: Sequence[str] = (),
        expires_in: float | None = None,
        name: str | None = None,
    ) -> Credential:
        """A credential with a key pair made here. The first one of a tenant creates its account.

        `instance`: whom a container speaks for; its `partition` is computed unless given. `consumers`: those that a
        worker may pull from; all of its tenant unless given. `expires_in`: seconds; by kind unless given.
        """
        holder = self._holder(kind, tenant, user, instance=instance, partition=partition, consumers=consumers)
        key = Key.new(Role.USER)
        issued = await self._sign(holder, key.public, expires_in=expires_in, name=name, issued_by="engine")
        return Credential.of(issued.jwt, key)

    async def answer(self, tenant: str, data: bytes) -> object:
        """Carry out a request of the API's verb `credential`. Raises `CredentialRefused`."""
        request = _request_decoder.decode(data)
        order = _order_decoder.decode(request.order)
        try:
            claims, asker = await self._asker(tenant, request)
            return await self._carry_out(order, tenant, claims, asker)
        except CredentialRefused as exc:
            self.refused += 1
            log.warning("credential_refused", tenant=tenant, order=type(order).__name__, reason=str(exc))
            raise

    async def revoke(
        self,
        tenant: str,
        *,
        public_key: str | None = None,
        user: str | None = None,
        name: str | None = None,
        issued_by: str | None = None,
    ) -> list[str]:
        """Void what these name, at once: the server closes connections that use it. Returns the public keys."""
        if public_key is None and user is None and name is None:
            raise CredentialRefused(reason="say which: by public key, user or name")
        rows = await self._pool.fetch(_REVOKE, tenant, _now_us(), public_key, user, name, issued_by)
        revoked = [row["public_key"] for row in rows]
        if revoked:
            log.info("credentials_revoked", tenant=tenant, public_keys=revoked)
            self._untold.add(tenant)
            self._wanted.set()  # should the server not be there now, `run` goes on
            await self._tell_revoked()
        return revoked

    def claim_ended(self, tenant: str, worker: str) -> None:
        """The container that had this claim has nothing more to say. Never waits."""
        if len(self._ended) < MAX_ENDED:
            self._ended.add((tenant, worker))
            self._wanted.set()

    def offended(self, offence: Offence) -> None:
        """A source asks too much of the platform: the operator is shown it, and a container is cut off. Never waits."""
        if len(self._offences) < MAX_OFFENCES:
            self._offences[offence.source] = offence
            self._wanted.set()

    async def run(self) -> None:
        """Revoke what containers leave behind, write down who asks too much, and forget what has expired long ago."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FORGET_EVERY_SECONDS):
                    await self._wanted.wait()
            await asyncio.sleep(REVOKE_EVERY_SECONDS)
            self._wanted.clear()
            try:
                await self._revoke_ended()
                await self._write_offences()
                await self._tell_revoked()
                await self._pool.execute(_FORGET, _now_us() - KEPT_SECONDS * 1_000_000)
            except (RuntaraError, asyncpg.PostgresError, *CONNECTION_ERRORS) as exc:
                log.warning("credentials_not_revoked", count=len(self._ended), reason=str(exc))
                self._wanted.set()

    async def _revoke_ended(self) -> None:
        ended = set(self._ended)
        tenants, workers = [tenant for tenant, _ in ended], [worker for _, worker in ended]
        for row in await self._pool.fetch(_REVOKE_ENDED, tenants, workers, _now_us()):
            self._untold.add(row["tenant"])
        self._ended -= ended

    async def _write_offences(self) -> None:
        for source, offence in list(self._offences.items()):
            user = source.client or source.worker or source.runner
            rows = await self._pool.fetch(_OFFENDED, source.tenant, source.instance, user, offence.reason, _now_us())
            revoked = [row["public_key"] for row in rows if row["is_revoked"]]
            if revoked:
                log.warning("offender_revoked", tenant=source.tenant, instance=source.instance, public_keys=revoked)
                self._untold.add(source.tenant)
            del self._offences[source]

    async def _tell_revoked(self) -> None:
        for tenant in sorted(self._untold):
            await self._accounts.tell(tenant)
            self._untold.discard(tenant)

    async def _asker(self, tenant: str, request: CredentialRequest) -> tuple[Claims, Holder]:
        """Who asks, proved by our signature of its credential and its own of the order."""
        claims, holder = self._verified(request.jwt)
        try:
            signature = base64.b64decode(request.signature, validate=True)
        except binascii.Error as exc:
            raise CredentialRefused(reason="the order's signature cannot be read") from exc
        if not has_signed(claims.sub, Role.USER, request.order.encode(), signature):
            raise CredentialRefused(reason="the order was not signed by the key of the credential that came with it")
        if holder.kind is not Kind.OPERATOR:
            if holder.tenant != tenant:
                raise CredentialRefused(reason=f"the credential is of tenant {holder.tenant}")
            if not await self._pool.fetchval(_IS_GOOD, claims.sub, tenant):
                raise CredentialRefused(reason="the credential was revoked")
        return claims, holder

    def _verified(self, jwt: str) -> tuple[Claims, Holder]:
        try:
            holder = holder_of(read(jwt).nats)
            if holder is None or holder.deployment != self._deployment:
                raise BadJwt("it is not one of this deployment")
            claims = verified(jwt, self._keys.ring.issuers(holder), Role.ACCOUNT)
        except BadJwt as exc:
            raise CredentialRefused(reason=f"the credential that asks is not good: {exc}") from exc
        if claims.exp and claims.exp <= time.time():
            raise CredentialRefused(reason="the credential that asks has expired")
        return claims, holder

    async def _carry_out(self, order: Order, tenant: str, claims: Claims, asker: Holder) -> object:
        match order:
            case Issue():
                return await self._issue(order, tenant, asker)
            case Renew():
                return await self._renew(claims, asker)
            case ListIssued():
                self._check_rules(asker)
                return await self._list(tenant, everything=order.all)
            case Revoke():
                its_own = _who(asker) if asker.kind is Kind.RUNNER else None
                if its_own is None:
                    self._check_rules(asker)
                return await self.revoke(
                    tenant, public_key=order.public_key, user=order.user, name=order.name, issued_by=its_own
                )
            case _:
                assert_never(order)

    async def _issue(self, order: Issue, tenant: str, asker: Holder) -> Issued:
        if order.kind not in may_issue(asker):
            raise CredentialRefused(reason=f"a {asker.kind} may not have a {order.kind} credential issued")
        if not is_public(order.public_key, Role.USER):
            raise CredentialRefused(reason="the public key is not a user's nkey")
        holder = self._holder(
            order.kind, tenant, order.user, instance=order.instance, consumers=order.consumers or ()
        )  # fmt: skip
        life = order.expires_seconds
        if asker.kind is not Kind.OPERATOR:
            life = min(life or LIFE_SECONDS[order.kind], DELEGATED_LIFE_SECONDS)
            if await self._pool.fetchval(_IS_TAKEN, tenant, order.user, _now_us()):
                raise CredentialRefused(reason=f"{order.user} is a user already, and whoever has its id is heard as it")
        return await self._sign(
            holder, order.public_key, expires_in=life, name=order.name, issued_by=_who(asker)
        )  # fmt: skip

    def _check_rules(self, asker: Holder) -> None:
        if asker.kind is not Kind.OPERATOR:
            raise CredentialRefused(reason=f"a {asker.kind} may not list or revoke credentials")

    async def _renew(self, claims: Claims, holder: Holder) -> Issued:
        if holder.kind is Kind.OPERATOR:
            raise CredentialRefused(reason="an operator's credential is not renewed: sign a new one")
        now, life = _now_us(), claims.exp - claims.iat
        expires_at = now + life * 1_000_000
        if await self._pool.fetchval(_RENEW, claims.sub, holder.tenant, expires_at) is None:
            raise CredentialRefused(reason="the credential was revoked")
        jwt = self._keys.ring.user_jwt(holder, claims.sub, life=life)
        return Issued(jwt=jwt, expires_at=expires_at)

    async def _list(self, tenant: str, *, everything: bool) -> list[CredentialView]:
        now = _now_us()
        since = now - SHOWN_OFFENCE_SECONDS * 1_000_000
        rows = await self._pool.fetch(_LIST, tenant, everything, now, MAX_LISTED, since)
        return [_view(row) for row in rows]

    def _holder(
        self,
        kind: Kind,
        tenant: str,
        user: str,
        *,
        instance: str | None,
        partition: int | None = None,
        consumers: Sequence[str],
    ) -> Holder:
        check_id(tenant, "tenant")
        check_id(user, "user")
        for consumer in consumers:
            check_id(consumer, "consumer")
        if kind is Kind.CONTAINER:
            check_id(instance, "instance")
            if partition is None:
                partition = partition_of(tenant, str(instance), self._partitions)
        elif instance is not None:
            raise CredentialRefused(reason=f"a {kind} credential is not for one instance")
        return Holder(
            kind=kind,
            tenant=tenant,
            user=user,
            deployment=self._deployment,
            instance=instance,
            partition=partition,
            consumers=tuple(consumers),
        )

    async def _sign(
        self, holder: Holder, public_key: str, *, expires_in: float | None, name: str | None, issued_by: str
    ) -> Issued:
        life = min(expires_in or LIFE_SECONDS[holder.kind], MAX_LIFE_SECONDS)
        if life <= 0:
            raise CredentialRefused(reason="it would have expired already")
        if name is not None and not (name.isprintable() and len(name) <= _NAME_LENGTH):
            raise CredentialRefused(reason=f"a name is at most {_NAME_LENGTH} printable characters")
        await self._accounts.ensure(holder.tenant)
        now = _now_us()
        expires_at = now + round(life * 1_000_000)
        new = await self._pool.fetchval(
            _NEW, public_key, holder.tenant, holder.kind.value, holder.user, name, holder.instance, issued_by, now,
            expires_at,
        )  # fmt: skip
        if new is None:
            raise CredentialRefused(reason="a key pair is used for one credential only: make a new one")
        jwt = self._keys.ring.user_jwt(holder, public_key, life=life)
        log.info("credential_issued", kind=holder.kind.value, tenant=holder.tenant, user=holder.user, by=issued_by)
        return Issued(jwt=jwt, expires_at=expires_at)


def _who(asker: Holder) -> str:
    """Whoever had a credential issued, as the table names it."""
    return f"{asker.kind} {asker.user}"


def _view(row: asyncpg.Record) -> CredentialView:
    return CredentialView(
        public_key=row["public_key"],
        tenant=row["tenant"],
        kind=Kind(row["kind"]),
        user=row["user_id"],
        name=row["name"],
        instance=row["instance"],
        issued_by=row["issued_by"],
        issued_at=row["issued_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        offence=row["offence"],
        offended_at=row["offended_at"],
    )


def _now_us() -> int:
    return time.time_ns() // 1_000
