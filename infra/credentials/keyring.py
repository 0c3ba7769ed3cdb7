"""A deployment's keys: the one file from which everything that the platform signs can be signed.

It holds the operator's signing key, which signs accounts, and a secret from which each account's keys are derived; so
any engine that has the file knows every account without asking, and makes it again where it was lost. The operator's
own (identity) key signs nothing but the operator's JWT, once: it lies in a file of its own that nobody reads, and may
be taken away to a safe place.

Invariants: both files are 0600; what was drawn once stays; a user's JWT is signed by its account's signing key, never
by the account itself (the operator's JWT says so, and the server holds to it).
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
from .jwt import AccountBody, OperatorBody, signed
from .keys import Key, Role
from .kinds import LIFE_SECONDS, NO_TENANT, Holder, user_body

FILE: Final = "keys.json"
OPERATOR_FILE: Final = "operator.nk"
CONFIGURATION_FILE: Final = "operator.conf"
_SECRET_BYTES: Final = 32


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What the file holds."""

    operator_jwt: str
    signing_seed: str
    secret: str


class KeyRing:
    """Signs for one operator, whose servers may hold any number of deployments."""

    def __init__(self, kept: _Kept) -> None:
        self._signing = Key.read(kept.signing_seed, what="nats_keys")
        self._secret = bytes.fromhex(kept.secret)
        self.operator_jwt = kept.operator_jwt

    @classmethod
    def load(cls, path: Path) -> "KeyRing":
        """From `path`, or from the file of the usual name in that folder. Raises `InvalidSetting`."""
        file = path / FILE if path.is_dir() else path
        try:
            return cls(msgspec.json.decode(file.read_bytes(), type=_Kept))
        except (OSError, ValueError, msgspec.MsgspecError) as exc:
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
        secret = secrets.token_bytes(_SECRET_BYTES)
        body = OperatorBody(signing_keys=[signing.public], system_account=_system_key(secret).public)
        jwt = signed(operator, subject=operator.public, name="runtara", body=body, issued_at=_now())
        kept = _Kept(operator_jwt=jwt, signing_seed=signing.seed, secret=secret.hex())
        write_private(folder / OPERATOR_FILE, f"{operator.seed}\n".encode())
        write_private(folder / FILE, msgspec.json.format(msgspec.json.encode(kept), indent=2) + b"\n")

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
        return self._key("tenant signing", deployment, tenant).public

    def system_jwt(self) -> str:
        body = system_body(self._key("system signing").public)
        return self._account_jwt(self.system_account, "runtara system", body)

    def platform_jwt(self, deployment: str) -> str:
        body = platform_body(deployment, self._key("platform signing", deployment).public)
        return self._account_jwt(self.platform_account(deployment), f"{deployment} platform", body)

    def tenant_jwt(self, deployment: str, tenant: str, *, consumers: list[str], revocations: dict[str, int]) -> str:
        body = tenant_body(
            deployment,
            tenant,
            platform=self.platform_account(deployment),
            signing_key=self.tenant_signing_key(deployment, tenant),
            consumers=consumers,
            revocations=revocations,
        )
        return self._account_jwt(self.tenant_account(deployment, tenant), f"{deployment} tenant {tenant}", body)

    # users

    def user_jwt(self, holder: Holder, public_key: str, *, life: float) -> str:
        """A JWT for the user with this public key, good for `life` seconds."""
        account, signing = self._home_of(holder)
        now = _now()
        return signed(
            signing,
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
        return [self._home_of(holder)[1].public]

    # the server

    def configuration(self, resolver: Path) -> str:
        """What a server's configuration needs to know of all this; it keeps accounts in the folder `resolver`."""
        return f"""\
operator: {self.operator_jwt}
system_account: {self.system_account}
resolver: {{ type: full, dir: {json.dumps(str(resolver))}, allow_delete: false, interval: "2m" }}
resolver_preload: {{ {self.system_account}: {self.system_jwt()} }}
"""

    def _home_of(self, holder: Holder) -> tuple[str, Key]:
        """The account (public key) that such a user is in, and what signs its users."""
        match holder.kind:
            case Kind.SYSTEM:
                return self.system_account, self._key("system signing")
            case Kind.ENGINE | Kind.ANSWERING | Kind.OPERATOR:
                return self.platform_account(holder.deployment), self._key("platform signing", holder.deployment)
            case _:
                account = self.tenant_account(holder.deployment, holder.tenant)
                return account, self._key("tenant signing", holder.deployment, holder.tenant)

    def _account_jwt(self, account: str, name: str, body: AccountBody) -> str:
        return signed(self._signing, subject=account, name=name, body=body, issued_at=_now())

    def _key(self, *parts: str) -> Key:
        return Key.derived(Role.ACCOUNT, self._secret, *parts)


def _system_key(secret: bytes) -> Key:
    return Key.derived(Role.ACCOUNT, secret, "system")


def _now() -> int:
    return int(time.time())
