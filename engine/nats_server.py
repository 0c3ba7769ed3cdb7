"""Whether the NATS server is one on which the promises of accounts hold: new enough, and strict.

A server writes its acknowledgement of a publish to whatever reply subject the publisher names. In an account without
JetStream that stays within the account. But JetStream's own API would take an acknowledgement for a question, if it
overlooked fields that it does not know: nats-server does so before 2.12, and later with `strict: false` (measured: what
a container published then purged the run queue). So such a server is refused, not only warned about.

Invariant: asked of the server that a connection has now; so at the start, and again with every tenure, which begins
after each reconnect.
"""

from typing import Final

from runtara.infra.bus import Bus, JetStreamError
from runtara.protocol.errors import UnfitServer

OLDEST: Final = (2, 12)
_INVALID_JSON: Final = 10025
_HARMLESS: Final = "STREAM.NAMES"  # that reads its question before anything else, also in a cluster
_UNKNOWN_FIELD: Final = {"runtara_no_such_field": True}


def check_version(bus: Bus) -> None:
    """Raise `UnfitServer` if the server is too old. Asks nobody: a server says its version when it greets."""
    version = bus.server_version
    if version is not None and version < OLDEST:
        found, wanted = (".".join(map(str, numbers)) for numbers in (version, OLDEST))
        raise UnfitServer(server=bus.server, reason=f"it is nats-server {found}: use {wanted} or later")


async def check_server(bus: Bus) -> None:
    """Raise `UnfitServer` if the server is too old, or its JetStream API overlooks what it does not know."""
    check_version(bus)
    try:
        await bus.jetstream(_HARMLESS, _UNKNOWN_FIELD)
    except JetStreamError as exc:
        if exc.code != _INVALID_JSON:
            raise  # no leader yet, say: it did not get as far as the question
    else:
        reason = "its JetStream API is not strict: take `strict: false` out of the jetstream block of its configuration"
        raise UnfitServer(server=bus.server, reason=reason)
