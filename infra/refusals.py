"""What a stream's refusal means: will the same bytes be stored later, or never?

A frame is sent again unchanged (whoever waits for it has numbered it already), so a publisher may wait for what is
wrong with the server, and must not for what is wrong with the message. JetStream says which it is by an `err_code`,
and roughly by a status as HTTP has it: 4xx blames the message, 5xx the server. The table holds what a publish is
known to be answered with, and why it waits or ends; a code it does not name goes by its status.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from runtara.protocol.errors import Refused

from .bus import PublishRefused

TOO_MANY_REQUESTS: Final = 429
SERVER_ERRORS: Final = range(500, 600)


class NeverStored(Refused):
    """However often it is sent, the journal will not take this message."""

    template = "{stream} will never take a message on {subject}: {reason} ({code}). {advice}"
    subject: str
    stream: str
    reason: str
    code: int
    advice: str


class Meaning(msgspec.Struct, frozen=True):
    """`passes`: the same bytes may be stored later. `advice`: what to do about it, if they will not be."""

    passes: bool
    why: str
    advice: str = ""


def _passes(why: str) -> Meaning:
    return Meaning(True, why)


def _stays(why: str, advice: str) -> Meaning:
    return Meaning(False, why, advice)


MEANINGS: Final[Mapping[int, Meaning]] = {
    # it is full: the engine purges behind its commits, or somebody makes room
    10077: _passes("a limit of the stream is reached, or its file could not be written"),
    10002: _passes("the account's share of the storage is used up"),
    10023: _passes("the server's storage is used up"),
    10028: _passes("the server's memory is used up"),
    10047: _passes("the server's disk is used up"),
    # nobody is in charge just now: a server starts, a leader is elected
    10007: _passes("the stream has no server yet"),
    10008: _passes("JetStream is starting, or has no leader"),
    10009: _passes("this server does not lead the stream (any more)"),
    10035: _passes("the account is not loaded yet"),
    10039: _passes("JetStream is off for the account: it starts, or it was shut down over a disk error"),
    10041: _passes("the stream's replicas do not agree yet"),
    10076: _passes("JetStream is off: it starts, or it was shut down over a disk error"),
    10118: _passes("the stream is offline until its server is upgraded or repaired"),
    10194: _passes("the stream is offline until its server is upgraded or repaired"),
    10167: _passes("the server has too much to do"),
    # these bytes, or this stream as it is configured
    10054: _stays(
        "it is larger than the stream's max_msg_size",
        "Take that limit off the stream: the platform bounds messages by itself, and `runtara migrate` sets none.",
    ),
    10097: _stays("its headers are too large", "The platform sends none: look for a proxy that adds them."),
    10109: _stays("the stream is sealed", "A sealed stream is never opened again: restore the journal's stream."),
}


def meaning_of(refused: PublishRefused) -> Meaning:
    known = MEANINGS.get(refused.code)
    if known is not None:
        return known
    if refused.status in SERVER_ERRORS or refused.status == TOO_MANY_REQUESTS:
        return _passes("the server says that the fault is its own")
    return _stays(
        "the server says that the fault is the message's",
        "It is what our publishers never send: compare the stream's configuration with what `runtara migrate` makes.",
    )


def check_passes(refused: PublishRefused) -> None:
    """Return if sending the same bytes again may succeed; raise `NeverStored` if it cannot."""
    meaning = meaning_of(refused)
    if not meaning.passes:
        raise NeverStored(
            subject=refused.subject,
            stream=refused.stream,
            reason=f"{meaning.why}: {refused.reason}",
            code=refused.code,
            advice=meaning.advice,
        ) from refused
