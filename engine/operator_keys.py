"""Changing the key that signs accounts, as far as NATS servers have a part in it.

A server takes an account whoever has signed it, and then lets nobody in whose account was not signed by a key that it
was told to trust when it started. So all of them are asked first, and then all accounts are signed anew at once.
"""

import asyncio
import contextlib
import time
from typing import Final

import msgspec
from nats.aio.msg import Msg

from runtara.infra.bus import Bus
from runtara.infra.credentials.jwt import BadJwt, Claims, OperatorBody, read
from runtara.infra.credentials.keyring import KeyRing
from runtara.infra.logs import logger
from runtara.protocol.errors import PlatformUnreachable

from .accounts import LIST_ACCOUNTS, UPDATE_ACCOUNT, Listed, Updated, lookup

log = logger("accounts")

ANSWER_SECONDS: Final = 1.0  # from the last server that said something to the end of the question
AGAIN_SECONDS: Final = 1.0  # an engine may have told an account just before it saw the new key
LOOKS: Final = 30
_VARZ: Final = "$SYS.REQ.SERVER.PING.VARZ"


class _Server(msgspec.Struct, frozen=True):
    name: str = ""


class _Variables(msgspec.Struct, frozen=True):
    trusted_operators_jwt: list[str] = []


class _Answer(msgspec.Struct, frozen=True):
    server: _Server = _Server()
    data: _Variables = _Variables()


async def servers_without(bus: Bus, signing_key: str) -> list[str]:
    """The names of the servers that do not trust this key of the operator. `bus` is of the system account."""
    answers: asyncio.Queue[bytes] = asyncio.Queue()
    inbox = bus.new_inbox()

    def on_answer(msg: Msg) -> None:
        answers.put_nowait(msg.data)

    subscription = await bus.subscribe(inbox, on_answer)
    await bus.flush()
    await bus.publish(_VARZ, b"", reply=inbox)
    found: list[_Answer] = []
    with contextlib.suppress(TimeoutError):
        while True:
            async with asyncio.timeout(ANSWER_SECONDS):
                found.append(msgspec.json.decode(await answers.get(), type=_Answer))
    await subscription.unsubscribe()
    if not found:
        raise PlatformUnreachable(reason="no NATS server says which operator it trusts")
    return sorted(one.server.name for one in found if not _trusts(one.data, signing_key))


async def sign_anew(bus: Bus, ring: KeyRing) -> int:
    """Tell servers each account that they have, signed by the ring's key; how many it were.

    Until none is left that somebody else has signed: engines go on telling accounts meanwhile.
    """
    changed: set[str] = set()
    for _ in range(LOOKS):
        stale = await _signed_by_others(bus, ring)
        for claims in stale:
            await _tell(bus, ring, claims)
        changed |= {claims.sub for claims in stale}
        if not stale:
            return len(changed)
        await asyncio.sleep(AGAIN_SECONDS)
    reason = "somebody goes on signing accounts with the former key: give every engine the new keys, then repeat this"
    raise PlatformUnreachable(reason=reason)


async def _signed_by_others(bus: Bus, ring: KeyRing) -> list[Claims]:
    accounts = msgspec.json.decode(await bus.request(LIST_ACCOUNTS, b""), type=Listed).data
    known = [await lookup(bus, account) for account in accounts]
    return [claims for claims in known if claims is not None and claims.iss != ring.operator_signing_key]


async def _tell(bus: Bus, ring: KeyRing, claims: Claims) -> None:
    answer = msgspec.json.decode(await bus.request(UPDATE_ACCOUNT, ring.signed_anew(claims).encode()), type=Updated)
    if answer.error is not None:
        raise PlatformUnreachable(reason=f"the NATS server does not take an account: {answer.error.description}")
    log.info("account_signed_anew", account=claims.sub, name=claims.name, at=int(time.time()))


def _trusts(server: _Variables, signing_key: str) -> bool:
    for jwt in server.trusted_operators_jwt:
        with contextlib.suppress(BadJwt):
            body = read(jwt).nats
            if isinstance(body, OperatorBody) and signing_key in body.signing_keys:
                return True
    return False
