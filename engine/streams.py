"""The streams: what they must look like, who they belong to, and whether they still hold what we built on.

Invariants: only `runtara migrate` and the first `dev` create a stream; an engine refuses one whose configuration
it would not have made, because every promise rests on it (discard new, no age limit, no direct reads). Before
anything is folded, the message at the cursor must be the very message that was folded there.
"""

import hashlib
from datetime import datetime
from typing import Final

import msgspec

from runtara.infra.bus import Bus, JetStreamError
from runtara.protocol.errors import JournalMismatch
from runtara.protocol.subjects import Subjects

DEPLOYMENT_KEY: Final = "runtara-deployment"  # in each stream's metadata
NO_SUCH_MESSAGE: Final = 10037
COUNTED_NS: Final = 5_000_000_000  # what a consumer lives that is made to be counted, if we die before we delete it


class StreamConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that we set; what the server adds is none of our business."""

    name: str
    subjects: list[str]
    retention: str
    storage: str = "file"
    discard: str = "new"
    discard_new_per_subject: bool = False
    max_bytes: int = -1
    max_msgs: int = -1
    max_age: int = 0
    max_msgs_per_subject: int = -1
    num_replicas: int = 1
    allow_direct: bool = False
    mirror_direct: bool = False
    allow_rollup_hdrs: bool = False
    allow_msg_ttl: bool = False
    sealed: bool = False
    persist_mode: str = ""
    metadata: dict[str, str] = {}


class StreamState(msgspec.Struct, frozen=True, kw_only=True):
    messages: int = 0
    bytes: int = 0
    first_seq: int = 0
    last_seq: int = 0


class StreamInfo(msgspec.Struct, frozen=True, kw_only=True):
    config: StreamConfig
    created: str
    state: StreamState
    ts: str  # the server's clock, which is the one that gives messages their store time

    @property
    def now_us(self) -> int:
        return _micros(self.ts)

    @property
    def deployment(self) -> str | None:
        return self.config.metadata.get(DEPLOYMENT_KEY)


class StoredMessage(msgspec.Struct, frozen=True, kw_only=True):
    subject: str
    seq: int
    time: str
    data: bytes = b""  # base64 on the wire


class _MessageReply(msgspec.Struct, frozen=True, kw_only=True):
    message: StoredMessage


class _SubjectsState(msgspec.Struct, frozen=True, kw_only=True):
    subjects: dict[str, int] | None = None


class _Subjects(msgspec.Struct, frozen=True, kw_only=True):
    state: _SubjectsState


class _Counted(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    num_pending: int = 0


class Fingerprint(msgspec.Struct, frozen=True):
    """A message of the journal, known again by its store time (µs) and the SHA-256 of its bytes."""

    time_us: int
    digest: bytes


def fingerprint(data: bytes, time_us: int) -> Fingerprint:
    return Fingerprint(time_us, hashlib.sha256(data).digest())


def journal_config(
    subjects: Subjects, partition: int, *, deployment_id: str, max_bytes: int, replicas: int
) -> StreamConfig:
    return StreamConfig(
        name=subjects.journal_stream(partition),
        subjects=subjects.journal_subjects(partition),
        retention="limits",
        max_bytes=max_bytes,
        num_replicas=replicas,
        metadata={DEPLOYMENT_KEY: deployment_id},
    )


def run_config(subjects: Subjects, *, deployment_id: str, replicas: int) -> StreamConfig:
    """Publishing to the run queue means "make sure it is there": a second one of a subject is refused.

    It is the one stream that need not be synced for each message (m: 39,000 publishes/s against 4,200): what it holds
    is a function of the log, and the sweeper sends again what a power failure took.
    """
    return StreamConfig(
        name=subjects.run_stream,
        subjects=subjects.run_subjects,
        retention="workqueue",
        discard_new_per_subject=True,
        max_msgs_per_subject=1,
        num_replicas=replicas,
        persist_mode="async" if replicas == 1 else "",
        metadata={DEPLOYMENT_KEY: deployment_id},
    )


async def create_stream(bus: Bus, config: StreamConfig) -> None:
    given = {name: value for name, value in msgspec.structs.asdict(config).items() if value != ""}
    await bus.jetstream(f"STREAM.CREATE.{config.name}", given)


async def stream_info(bus: Bus, name: str) -> StreamInfo | None:
    """None if there is no such stream."""
    try:
        return msgspec.json.decode(await bus.jetstream(f"STREAM.INFO.{name}"), type=StreamInfo)
    except JetStreamError as exc:
        if exc.is_missing:
            return None
        raise


async def read_fingerprint(bus: Bus, stream: str, sequence: int) -> Fingerprint | None:
    """Of the message at `sequence`; None if it is gone."""
    try:
        data = await bus.jetstream(f"STREAM.MSG.GET.{stream}", {"seq": sequence})
    except JetStreamError as exc:
        if exc.code == NO_SUCH_MESSAGE:
            return None
        raise
    message = msgspec.json.decode(data, type=_MessageReply).message
    return fingerprint(message.data, _micros(message.time))


async def subjects_of(bus: Bus, stream: str) -> dict[str, int]:
    """How many messages it has of each subject, as far as one answer tells (100,000 subjects)."""
    data = await bus.jetstream(f"STREAM.INFO.{stream}", {"subjects_filter": ">"})
    return msgspec.json.decode(data, type=_Subjects).state.subjects or {}


async def waiting_for(bus: Bus, stream: str, subject: str, *, after: int) -> int:
    """How many messages of `subject` there are behind the sequence `after`."""
    config = {
        "deliver_policy": "by_start_sequence", "opt_start_seq": after + 1, "filter_subject": subject,
        "ack_policy": "none", "mem_storage": True, "num_replicas": 1, "inactive_threshold": COUNTED_NS,
    }  # fmt: skip
    data = await bus.jetstream(f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config})
    made = msgspec.json.decode(data, type=_Counted)
    await bus.jetstream(f"CONSUMER.DELETE.{stream}.{made.name}")
    return made.num_pending


async def purge(bus: Bus, stream: str, *, before: int) -> None:
    """Drop every message with a sequence below `before`."""
    await bus.jetstream(f"STREAM.PURGE.{stream}", {"seq": before})


def check_config(info: StreamInfo, wanted: StreamConfig) -> None:
    """Raise `JournalMismatch` if the stream is not as we would have made it. Its size is the operator's choice."""
    for field in StreamConfig.__struct_fields__:
        found, expected = getattr(info.config, field), getattr(wanted, field)
        if field == "metadata":
            found, expected = info.deployment, wanted.metadata[DEPLOYMENT_KEY]
        if field == "max_bytes":
            continue
        if found != expected:
            reason = f"its {field} is {found!r} and not {expected!r}"
            raise JournalMismatch(stream=wanted.name, reason=reason)


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """Where Postgres stands in a journal: which stream, how far, and what it found there."""

    created: str
    cursor: int
    fingerprint: Fingerprint | None


async def check_anchor(bus: Bus, stream: str, anchor: Anchor) -> StreamInfo:
    """Raise `JournalMismatch`, saying what is missing, unless the journal is the one that was folded so far."""
    info = await stream_info(bus, stream)
    if info is None:
        raise JournalMismatch(stream=stream, reason="it does not exist any more")
    if info.created != anchor.created:
        raise JournalMismatch(stream=stream, reason=f"it was made anew at {info.created}; ours was of {anchor.created}")
    if info.state.last_seq < anchor.cursor:
        reason = f"it ends at {info.state.last_seq}, but records up to {anchor.cursor} are in the event log"
        raise JournalMismatch(stream=stream, reason=reason)
    if info.state.first_seq > anchor.cursor + 1:
        reason = f"it begins at {info.state.first_seq}, but only records up to {anchor.cursor} are in the event log"
        raise JournalMismatch(stream=stream, reason=reason)
    if anchor.fingerprint is None:
        return info
    found = await read_fingerprint(bus, stream, anchor.cursor)
    if found is None:
        raise JournalMismatch(stream=stream, reason=f"message {anchor.cursor}, the last one folded, is gone")
    if found != anchor.fingerprint:
        raise JournalMismatch(stream=stream, reason=f"message {anchor.cursor} is not the one that was folded there")
    return info


def _micros(time: str) -> int:
    """RFC 3339 with up to nine decimals → µs, cut off as the acknowledgement subject's nanoseconds are."""
    whole, _, fraction = time.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
    return seconds * 1_000_000 + int(f"{fraction:0<9}"[:9]) // 1_000
