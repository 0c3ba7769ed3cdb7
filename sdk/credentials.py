"""How a process of a tenant comes by its credential, and keeps it: given, or issued to it; renewed at half its life.

A process that was given the credential it needs shows that. Else one that may have others issued (a runner's for its
workers, the local operator's by the platform's keys) is shown once, to have one issued: the key pair is made here, and
only its public half is sent. A login that is none of ours (a password, a foreign `.creds` file) is shown as it is.

Invariants: a renewed credential is shown from the next connect on, which comes before the old one ends; one that came
from a file is written back there; one that cannot be renewed ends its connections when it expires, loudly.
"""

import asyncio
import base64
import time
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from runtara.infra.bus import Bus
from runtara.infra.credentials.files import BEGIN, Credential, load
from runtara.infra.credentials.keys import Key, Role
from runtara.infra.credentials.kinds import Holder, may_issue
from runtara.infra.login import CredentialLogin, Login, given_login, tls_of
from runtara.infra.logs import logger
from runtara.infra.settings import Settings
from runtara.protocol.credentials import CredentialRequest, Issue, Issued, Kind, Order, Renew
from runtara.protocol.errors import CredentialRefused, RuntaraError, Unavailable
from runtara.protocol.ids import new_token
from runtara.protocol.subjects import Subjects

log = logger("credentials")
T = TypeVar("T")

RENEW_TRIES: Final = 16  # in the second half of a credential's life
SHORTEST_RENEWAL_SECONDS: Final = 0.2
OPERATOR_USER: Final = "local"


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """The credential that a process needs: of `user` (an id of its own), unless it is given one."""

    kind: Kind
    user: str
    instance: str | None = None


async def login_for(settings: Settings, need: Need) -> tuple[Login | None, str]:
    """A login, and the user whose subjects and inboxes it is for. Raises `CredentialRefused`, `PlatformUnreachable`."""
    given = load(settings.nats_credentials) if settings.nats_credentials is not None else None
    if given is not None and given.holder is None:
        return CredentialLogin(given), need.user
    if given is not None and given.holder is not None and _fits(given.holder, need, settings):
        return CredentialLogin(given), given.holder.user
    if given is None and settings.nats_keys is None:
        return given_login(settings), need.user
    asker = _who_asks(settings, given, need)
    credential = await obtain(
        settings, asker, kind=need.kind, user=need.user, instance=need.instance, name=_purpose(need)
    )  # fmt: skip
    return CredentialLogin(credential), need.user


def own_user(settings: Settings, kind: Kind) -> str | None:
    """The user of the credential that this process was given, if it is of this kind."""
    if settings.nats_credentials is None:
        return None
    holder = load(settings.nats_credentials).holder
    return holder.user if holder is not None and holder.kind is kind else None


def _purpose(need: Need) -> str | None:
    return f"script of {need.instance}"[:128] if need.kind is Kind.CONTAINER else None


async def obtain(
    settings: Settings,
    asker: Credential,
    *,
    kind: Kind,
    user: str,
    instance: str | None = None,
    consumers: list[str] | None = None,
    expires_in: float | None = None,
    name: str | None = None,
) -> Credential:
    """Have a credential of the settings' tenant issued, over a connection of its own. `expires_in`: seconds.

    Its `text` is what a process needs in `RUNTARA_NATS_CREDENTIALS`. Raises `CredentialRefused`.
    """
    key, order = new_order(
        kind=kind, user=user, instance=instance, consumers=consumers, expires_in=expires_in, name=name
    )  # fmt: skip
    return Credential.of((await ask(settings, asker, order, Issued)).jwt, key)


def new_order(
    *,
    kind: Kind,
    user: str,
    instance: str | None = None,
    consumers: list[str] | None = None,
    expires_in: float | None = None,
    name: str | None = None,
) -> tuple[Key, Issue]:
    """A new key pair, and the order for a credential about it."""
    key = Key.new(Role.USER)
    order = Issue(
        kind=kind,
        user=user,
        public_key=key.public,
        instance=instance,
        consumers=consumers,
        expires_seconds=None if expires_in is None else max(1, round(expires_in)),
        name=name,
    )
    return key, order


async def ask(settings: Settings, asker: Credential, order: Order, answer: type[T]) -> T:
    """Give `order` to the platform in the name of `asker`, over a connection of its own."""
    async with await connect_as(settings, asker) as bus:
        return await ask_over(bus, settings, asker, order, answer)


async def connect_as(settings: Settings, asker: Credential) -> Bus:
    """A connection for a question or two, with a credential of ours as it is."""
    assert asker.holder is not None
    return await Bus.connect(
        settings.require_nats_url(),
        name=f"runtara {asker.holder.kind} asks",
        inbox=f"{asker.holder.inbox}.{new_token(8)}",
        login=CredentialLogin(asker),
        tls=tls_of(settings),
    )


async def ask_over(bus: Bus, settings: Settings, asker: Credential, order: Order, answer: type[T]) -> T:
    """The same over a connection that `asker` has."""
    holder = asker.holder
    instance = holder.instance if holder is not None else None
    subject = Subjects(settings.deployment).api(settings.tenant, "credential", instance)
    return await bus.call(subject, _signed(asker, order), answer)


def operator(settings: Settings) -> Credential | None:
    """The local operator's credential: given, or signed on the spot by whoever has the platform's keys."""
    if settings.nats_keys is not None:
        from runtara.infra.credentials.keyring import KeyRing  # most processes have no keys

        ring = KeyRing.load(Path(settings.nats_keys))
        return ring.mint(Kind.OPERATOR, settings.deployment, f"{OPERATOR_USER}-{new_token(8)}")
    given = load(settings.nats_credentials) if settings.nats_credentials is not None else None
    is_one = given is not None and given.holder is not None and given.holder.kind is Kind.OPERATOR
    return given if is_one else None


async def keep_renewed(bus: Bus, settings: Settings, login: Login | None) -> None:
    """Renew the login's credential at each half of its life, for as long as this runs; ends if there is nothing to."""
    while isinstance(login, CredentialLogin) and login.credential.holder is not None and login.credential.expires_at:
        credential = login.credential
        life = credential.expires_at - credential.issued_at
        await asyncio.sleep(_until_half_life(credential))
        while login.credential is credential:
            try:
                login.credential = await _renewed(bus, settings, credential)
            except Unavailable as exc:
                log.warning("renewal_delayed", reason=str(exc), expires_at=credential.expires_at)
            except RuntaraError as exc:
                log.error("renewal_refused", reason=str(exc), expires_at=credential.expires_at)
            if login.credential is credential:
                await asyncio.sleep(max(life / 2 / RENEW_TRIES, SHORTEST_RENEWAL_SECONDS))


def _until_half_life(credential: Credential) -> float:
    """Seconds; within bounds that keep a process whose clock is wrong from renewing too late, or all the time."""
    life = credential.expires_at - credential.issued_at
    pause = min(credential.half_life_at - time.time(), life / 2)
    return max(pause, life / 2 / RENEW_TRIES, SHORTEST_RENEWAL_SECONDS)


async def _renewed(bus: Bus, settings: Settings, credential: Credential) -> Credential:
    source = settings.nats_credentials
    file = None if source is None or source.lstrip().startswith(BEGIN) else source
    if file is not None:
        found = load(file)  # another process that shares the file may have been first
        if found.public_key == credential.public_key and found.expires_at > credential.expires_at:
            return found
    issued = await ask_over(bus, settings, credential, Renew(), Issued)
    renewed = Credential.of(issued.jwt, credential.key)
    log.info("credential_renewed", expires_at=renewed.expires_at)
    if file is not None and load(file).public_key == credential.public_key:
        try:
            renewed.write(Path(file))
        except OSError as exc:
            log.warning("renewed_credential_not_kept", file=file, reason=str(exc))
    return renewed


def _fits(holder: Holder, need: Need, settings: Settings) -> bool:
    if (holder.tenant, holder.deployment) != (settings.tenant, settings.deployment):
        return False
    if need.kind is Kind.CLIENT and holder.kind is Kind.READER:
        return True
    return holder.kind is need.kind and holder.instance == need.instance


def _who_asks(settings: Settings, given: Credential | None, need: Need) -> Credential:
    holder = given.holder if given is not None else None
    if given is not None and holder is not None:
        at_home = holder.kind is Kind.OPERATOR or holder.tenant == settings.tenant
        if at_home and holder.deployment == settings.deployment and need.kind in may_issue(holder):
            return given
    local = operator(settings)
    if local is not None:
        return local
    assert holder is not None
    what = f"a {need.kind} of tenant {settings.tenant}"
    raise CredentialRefused(
        reason=f"RUNTARA_NATS_CREDENTIALS is of a {holder.kind} of tenant {holder.tenant}, and {what} is needed; "
        f"whoever runs the platform makes one: runtara credential create --tenant {settings.tenant}"
    )


def _signed(asker: Credential, order: Order) -> CredentialRequest:
    text = msgspec.json.encode(order)
    signature = base64.b64encode(asker.key.sign(text)).decode()
    return CredentialRequest(jwt=asker.jwt, order=text.decode(), signature=signature)
