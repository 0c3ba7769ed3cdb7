"""How a process shows a NATS server who it is: a password, a credential that may be renewed, or one signed on the spot.

Invariant: a login is asked at each connect and reconnect, so what was renewed meanwhile is what the server sees.
"""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runtara.protocol.credentials import Kind
from runtara.protocol.errors import InvalidSetting

from .credentials.files import Credential, load

if TYPE_CHECKING:
    from .settings import Settings


class PasswordLogin(msgspec.Struct, frozen=True, kw_only=True):
    user: str
    password: str | None

    def __repr__(self) -> str:
        return f"PasswordLogin({self.user!r})"


class CredentialLogin:
    """A credential, which whoever renews it replaces. Several connections, in several threads, may share it."""

    def __init__(self, credential: Credential) -> None:
        self.credential = credential

    def take(self) -> Credential:
        return self.credential

    def has_newer(self, than: Credential) -> bool:
        return self.credential is not than


class MintedLogin:
    """A process that has the keys signs its own, anew at each connect."""

    def __init__(self, mint: Callable[[], Credential]) -> None:
        self._mint = mint

    def take(self) -> Credential:
        return self._mint()

    def has_newer(self, than: Credential) -> bool:
        return True


Login = PasswordLogin | CredentialLogin | MintedLogin


def given_login(settings: "Settings") -> PasswordLogin | CredentialLogin | None:
    """The login that the settings name; None where a server asks for none. Raises `InvalidSetting`."""
    if settings.nats_credentials is not None:
        return CredentialLogin(load(settings.nats_credentials))
    if settings.nats_user is not None:
        return PasswordLogin(user=settings.nats_user, password=settings.nats_password)
    return None


def platform_login(settings: "Settings", kind: Kind, user: str) -> Login | None:
    """The login of an engine or of `migrate`: signed with the deployment's keys, where there are any."""
    if settings.nats_keys is None:
        return given_login(settings)
    from .credentials.key_file import KeyFile  # most processes have no keys

    keys = KeyFile(Path(settings.nats_keys))
    return MintedLogin(lambda: keys.ring.mint(kind, settings.deployment, user))


def tls_of(settings: "Settings") -> ssl.SSLContext | None:
    """What the settings say of TLS; None if nothing, and then a `tls://` address trusts the system's authorities."""
    if settings.tls_ca is None and settings.tls_certificate is None:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca)
    except (OSError, ssl.SSLError) as exc:
        raise InvalidSetting(name="tls_ca", value=settings.tls_ca, reason=str(exc)) from exc
    if settings.tls_certificate is not None:
        try:
            context.load_cert_chain(settings.tls_certificate, settings.tls_key)
        except (OSError, ssl.SSLError) as exc:
            value = settings.tls_certificate
            raise InvalidSetting(name="tls_certificate", value=value, reason=str(exc)) from exc
    return context
