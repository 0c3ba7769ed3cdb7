"""Credentials as they are asked for: kinds, and what travels with the API's verb `credential`.

Who asks proves who it is: a request carries the asker's own credential (a JWT that the engine has signed) and the
asker's signature over the order. So what may be had depends on the credential, never on the subject it came by.
Invariant: a private key never travels; the asker makes it and sends its public half.
"""

from enum import StrEnum

import msgspec


class Kind(StrEnum):
    """Whose credential it is; `infra/credentials/kinds.py` says what each may do."""

    CLIENT = "client"  # of a tenant: everything that people and programs ask
    READER = "reader"  # a client that may only ask and listen
    WORKER = "worker"
    RUNNER = "runner"
    CONTAINER = "container"  # speaks for one instance
    OPERATOR = "operator"  # may have credentials of any tenant issued, and revoke them; nothing else
    ENGINE = "engine"
    ANSWERING = "answering"  # an engine's second connection: inboxes, control and hints
    SYSTEM = "system"  # of the server's system account: pushes accounts, asks for the server's health


class _Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="do"):
    pass


class Issue(_Order, frozen=True, kw_only=True, tag="issue"):
    """A credential of `kind` for `user` (an id), whose key pair the asker has made."""

    kind: Kind
    user: str
    public_key: str
    instance: str | None = None
    consumers: list[str] | None = None
    expires_seconds: int | None = None
    name: str | None = None


class Renew(_Order, frozen=True, kw_only=True, tag="renew"):
    """The asker's own credential, for as long again."""


class ListIssued(_Order, frozen=True, kw_only=True, tag="list"):
    """The tenant's credentials with a name that are neither expired nor revoked, and whose user asked too much of the
    platform lately; or all that are known, those too that processes had issued for themselves."""

    all: bool = False


class Revoke(_Order, frozen=True, kw_only=True, tag="revoke"):
    """Those with this public key, user or name; at least one has to be given. A runner revokes what it had issued."""

    public_key: str | None = None
    user: str | None = None
    name: str | None = None


Order = Issue | Renew | ListIssued | Revoke


class CredentialRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`order` is an encoded `Order`; `signature` is over its bytes, by the key that `jwt` names, in base64."""

    jwt: str
    order: str
    signature: str


class Issued(msgspec.Struct, frozen=True, kw_only=True):
    jwt: str
    expires_at: int  # µs


class CredentialView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of a credential. Times in microseconds."""

    public_key: str
    tenant: str
    kind: Kind
    user: str
    name: str | None = None
    instance: str | None = None
    issued_by: str
    issued_at: int
    expires_at: int
    revoked_at: int | None = None
    offence: str | None = None  # what it did too much of, and when last
    offended_at: int | None = None
