"""What a client asks for when it asks for a fork."""

import time
from collections.abc import Mapping

from runtara.protocol.api import ForkRequest
from runtara.protocol.blobs import Carried
from runtara.protocol.ids import check_id, check_key, new_token
from runtara.protocol.records import NO_DATA

from .blobs import Blobs
from .values import encode

_SOURCE_PART = 100  # a made-up id keeps this much of its source's
_TOKEN_CHARACTERS = 12  # 60 random bits: forks of one instance are few


async def fork_request(
    blobs: Blobs, source: str, *, at: str | None, answers: Mapping[str, object], input: Mapping[str, object] | None,
    id: str | None, labels: Mapping[str, str] | None, latest: bool, actor: str | None,
) -> ForkRequest:  # fmt: skip
    """Raises `InvalidId`, `InvalidKey`, `StateTooLarge`, `StateNotRepresentable`."""
    check_id(source, "instance")
    given = {
        check_key(key): await blobs.carried(encode(value, key=key), key=key) for key, value in answers.items()
    }  # fmt: skip
    replaced = Carried(NO_DATA)
    if input is not None:
        replaced = await blobs.carried(encode(dict(input), key="input"), key="input")
    return ForkRequest(
        id=new_token(),
        instance=f"{source[:_SOURCE_PART]}-fork-{new_token(_TOKEN_CHARACTERS)}"
        if id is None
        else check_id(id, "instance"),
        reply="",
        at=time.time_ns() // 1_000,
        actor=actor,
        at_key=check_key(at) if at is not None else None,
        set={key: value.text for key, value in given.items()},
        set_blobs={key: value.blob for key, value in given.items() if value.blob is not None},
        input=replaced.text,
        blob=replaced.blob,
        labels=dict(labels) if labels is not None else None,
        latest=latest,
    )
