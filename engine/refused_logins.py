"""What a NATS server says of logins that it refuses or ends, told to the operator: a log line, and a count by reason.

It says so on its system account. Of a forbidden publish or subscription it tells only the client and its own log; what
those say is taken from the log where the server is ours (`compose/nats_log.py`).

Invariant: a flood of refused logins is one line a second for each user; the count has all of them.
"""

import time
from collections import Counter
from typing import Final

import msgspec
from nats.aio.msg import Msg

from runtara.infra.bus import Bus
from runtara.infra.credentials.jwt import BadJwt, read
from runtara.infra.credentials.kinds import Holder, holder_of
from runtara.infra.logs import logger

log = logger("accounts")

SUBJECTS: Final = ("$SYS.SERVER.*.CLIENT.AUTH.ERR", "$SYS.ACCOUNT.*.DISCONNECT")
EVERY_SECONDS: Final = 1.0
MAX_REMEMBERED: Final = 10_000
ENDED: Final = frozenset({"Authentication Expired", "Credentials Revoked"})  # of connections that there were


class _Client(msgspec.Struct, frozen=True):
    host: str = ""
    name: str = ""
    jwt: str = ""


class _Advisory(msgspec.Struct, frozen=True):
    client: _Client = _Client()
    reason: str = ""


class RefusedLogins:
    """Of one deployment. `counts`: reason → how many."""

    def __init__(self, deployment: str) -> None:
        self.counts: Counter[str] = Counter()
        self._deployment = deployment
        self._said: dict[tuple[str, str], float] = {}

    async def watch(self, system: Bus) -> None:
        for subject in SUBJECTS:
            await system.subscribe(subject, self._on_advisory)

    def _on_advisory(self, msg: Msg) -> None:
        try:
            advisory = msgspec.json.decode(msg.data, type=_Advisory)
        except msgspec.MsgspecError:
            return
        client, reason = advisory.client, advisory.reason
        if not msg.subject.endswith("AUTH.ERR") and reason not in ENDED:
            return
        holder = _holder(client.jwt)
        if holder is not None and holder.deployment != self._deployment:
            return
        self.counts[reason] += 1
        who = f"{holder.kind} {holder.tenant} {holder.user}" if holder is not None else client.name
        now = time.monotonic()
        if now - self._said.get((who, reason), -EVERY_SECONDS) >= EVERY_SECONDS:
            if len(self._said) >= MAX_REMEMBERED:
                self._said.clear()
            self._said[who, reason] = now
            log.warning("login_ended_by_server", who=who, reason=reason, host=client.host, client=client.name)


def _holder(jwt: str) -> Holder | None:
    """Whose the JWT says it is: unproved, since the server has refused it."""
    try:
        return holder_of(read(jwt).nats)
    except BadJwt:
        return None
