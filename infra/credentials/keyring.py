"""A deployment's keys: the one file from which everything that the platform signs can be signed.

It holds the operator's signing key, which signs accounts; a secret from which each account's own key is derived; and
the generations of secrets from which the keys are derived that sign users. So any engine that has the file knows every
account without asking, and makes it again where it was lost. The operator's own (identity) key signs nothing but the
operator's JWT: it lies in a file of its own that is needed for `rotation` only, and may be taken away to a safe place.

Invariants: both files are 0600; which accounts there are never changes; a user's JWT is signed by its account's
signing key, never by the account itself (the operator's JWT says so, and the server holds to it).
"""

import json
import secrets
import time
from functools import cached_property
from pathlib import Path
from typing import Final

import msgspec

from runtara.protocol.credentials import Kind
from runtara.protocol.errors import InvalidSetting

from ..private_files import write_private
from .accounts import platform_body, system_body, tenant_body
from .files import Credential
from .generations import Generation, current, good
from .jwt import AccountBody, Claims, OperatorBody, signed
from .keys import Key, Role
from .kinds import LIFE_SECONDS, NO_TENANT, Holder, user_body

FILE: Final = "keys.json"
OPERATOR_FILE: Final = "operator.nk"
CONFIGURATION_FILE: Final = "operator.conf"
SECRET_BYTES: Final = 32
_OF_SYSTEM: Final = ("system signing",)


class Kept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the file holds. `next_…`: of the operator, drawn and not used yet. Without `generations` there is one, with
    `secret`."""

    operator_jwt: str
    signing_seed: str
    secret: str
    generations: list[Generation] = []
    next_signing_seed: str | None = None
    next_operator_jwt: str | None = None

    def write(self, folder: Path) -> None:
        write_private(folder / FILE, msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")

    @classmethod
    def read(cls, path: Path) -> "Kept":
        """From `path`, or from the file of the usual name in that folder. Raises `InvalidSetting`."""
        file = path / FILE if path.is_dir() else path
        try:
            return msgspec.json.decode(file.read_bytes(), type=cls)
        except (OSError, msgspec.MsgspecError) as exc:
            raise InvalidSetting(name="nats_keys", value=str(path), reason=f"it cannot be read: {exc}") from exc


class KeyRing:
    """Signs for one operator, whose servers may hold any number of deployments."""

    def __init__(self, kept: Kept) -> None:
        self._signing = Key.read(kept.signing_seed, what="nats_keys")
        self._secret = bytes.fromhex(kept.secret)
        self._generations = kept.generations or [Generation(secret=kept.secret)]
        self.operator_jwt = kept.operator_jwt

    @classmethod
    def load(cls, path: Path) -> "KeyRing":
        """From `path`, or from the file of the usual name in that folder. Raises `InvalidSetting`."""
        kept = Kept.read(path)
        try:
            return cls(kept)
        except ValueError as exc:
            raise InvalidSetting(name="nats_keys", value=str(path), reason=f"it cannot be read: {exc}") from exc

    @classmethod
    def load_or_create(cls, folder: Path) -> "KeyRing":
        """The keys in `folder`, drawn now if there are none."""
        if not (folder / FILE).exists():
            cls.create(folder)
        return cls.load(folder)

    @classmethod
    def create(cls, folder: Path) -> None:
        """Draw keys into `folder`, which must have none yet."""
        if (folder / FILE).exists():
            raise InvalidSetting(name="nats_keys", value=str(folder), reason="there are keys already; they are kept")
        operator, signing = Key.new(Role.OPERATOR), Key.new(Role.OPERATOR)
        secret = secrets.token_bytes(SECRET_BYTES)
        jwt = operator_jwt(operator, [signing.public], _system_key(secret).public)
        kept = Kept(operator_jwt=jwt, signing_seed=signing.seed, secret=secret.hex())
        write_private(folder / OPERATOR_FILE, f"{operator.seed}\n".encode())
        kept.write(folder)

    # accounts

    @cached_property
    def system_account(self) -> str:
        return _system_key(self._secret).public

    def platform_account(self, deployment: str) -> str:
        return self._key("platform", deployment).public

    def tenant_account(self, deployment: str, tenant: str) -> str:
        return self._key("tenant", deployment, tenant).public

    def tenant_signing_key(self, deployment: str, tenant: str) -> str:
        """The public half of what signs the users of a tenant."""
        return self._signing_key(*_of_tenant(deployment, tenant)).public

    def tenant_signing_keys(self, deployment: str, tenant: str) -> list[str]:
        """All that may have signed such users, or will."""
        return self._signing_keys(*_of_tenant(deployment, tenant))

    @property
    def operator_signing_key(self) -> str:
        """The public half of what signs accounts."""
        return self._signing.public

    @property
    def state(self) -> tuple[str, ...]:
        """What all accounts have in common: another one, and all have to be told anew."""
        return (self._signing.public, *self._signing_keys(*_OF_SYSTEM))

    def system_jwt(self) -> str:
        body = system_body(self._signing_keys(*_OF_SYSTEM))
        return self._account_jwt(self.system_account, "runtara system", body)

    def platform_jwt(self, deployment: str) -> str:
        body = platform_body(deployment, self._signing_keys(*_of_platform(deployment)))
        return self._account_jwt(self.platform_account(deployment), f"{deployment} platform", body)

    def tenant_jwt(self, deployment: str, tenant: str, *, consumers: list[str], revocations: dict[str, int]) -> str:
        body = tenant_body(
            deployment,
            tenant,
            platform=self.platform_account(deployment),
            signing_keys=self.tenant_signing_keys(deployment, tenant),
            consumers=consumers,
            revocations=revocations,
        )
        return self._account_jwt(self.tenant_account(deployment, tenant), f"{deployment} tenant {tenant}", body)

    def signed_anew(self, claims: Claims) -> str:
        """The same account, signed by the key that signs now."""
        assert isinstance(claims.nats, AccountBody)
        return self._account_jwt(claims.sub, claims.name, claims.nats)

    # users

    def user_jwt(self, holder: Holder, public_key: str, *, life: float) -> str:
        """A JWT for the user with this public key, good for `life` seconds."""
        account, signers = self._home_of(holder)
        now = _now()
        return signed(
            self._signing_key(*signers),
            subject=public_key,
            name=" ".join(filter(None, (holder.kind, holder.tenant, holder.user))),
            body=user_body(holder, account),
            issued_at=now,
            expires_at=now + max(1, round(life)),
        )

    def mint(self, kind: Kind, deployment: str, user: str) -> Credential:
        """A credential of the platform's own kinds, which are in no table: whoever has the keys makes them."""
        holder = Holder(kind=kind, tenant=NO_TENANT, user=user, deployment=deployment)
        key = Key.new(Role.USER)
        return Credential.of(self.user_jwt(holder, key.public, life=LIFE_SECONDS[kind]), key)

    def issuers(self, holder: Holder) -> list[str]:
        """Public keys that may have signed a JWT of such a user."""
        return self._signing_keys(*self._home_of(holder)[1])

    # the server

    def configuration(self, resolver: Path) -> str:
        """What a server's configuration needs to know of all this; it keeps accounts in the folder `resolver`."""
        return f"""\
operator: {self.operator_jwt}
system_account: {self.system_account}
resolver: {{ type: full, dir: {json.dumps(str(resolver))}, allow_delete: false, interval: "2m" }}
resolver_preload: {{ {self.system_account}: {self.system_jwt()} }}
"""

    def _home_of(self, holder: Holder) -> tuple[str, tuple[str, ...]]:
        """The account (public key) that such a user is in, and the name of what signs its users."""
        deployment, tenant = holder.deployment, holder.tenant
        match holder.kind:
            case Kind.SYSTEM:
                return self.system_account, _OF_SYSTEM
            case Kind.ENGINE | Kind.ANSWERING | Kind.OPERATOR:
                return self.platform_account(deployment), _of_platform(deployment)
            case _:
                return self.tenant_account(deployment, tenant), _of_tenant(deployment, tenant)

    def _signing_key(self, *name: str) -> Key:
        return _derived(current(self._generations, time.time()), *name)

    def _signing_keys(self, *name: str) -> list[str]:
        return [_derived(generation, *name).public for generation in good(self._generations, time.time())]

    def _account_jwt(self, account: str, name: str, body: AccountBody) -> str:
        return signed(self._signing, subject=account, name=name, body=body, issued_at=_now())

    def _key(self, *parts: str) -> Key:
        return Key.derived(Role.ACCOUNT, self._secret, *parts)


def operator_jwt(operator: Key, signing_keys: list[str], system_account: str) -> str:
    """What servers trust; signed by the operator's own key."""
    body = OperatorBody(signing_keys=signing_keys, system_account=system_account)
    return signed(operator, subject=operator.public, name="runtara", body=body, issued_at=_now())


def _of_platform(deployment: str) -> tuple[str, str]:
    return "platform signing", deployment


def _of_tenant(deployment: str, tenant: str) -> tuple[str, str, str]:
    return "tenant signing", deployment, tenant


def _derived(generation: Generation, *name: str) -> Key:
    return Key.derived(Role.ACCOUNT, bytes.fromhex(generation.secret), *name)


def _system_key(secret: bytes) -> Key:
    return Key.derived(Role.ACCOUNT, secret, "system")


def _now() -> int:
    return int(time.time())
