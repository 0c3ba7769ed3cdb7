"""What a fold starts from and what it ends with, besides events and rows: plain values."""

import msgspec

from runtara.protocol.messages import CommandAnswer, CommitAnswer, Memo, Superseded
from runtara.protocol.subjects import Subjects

from .workflows import Changes, Workflows

CommandId = tuple[str, str, str]  # tenant, instance, command


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """Where a partition stands: the next offset, the chain's head, the journal's clock and last owner record."""

    head: int
    head_hash: bytes
    clock: int
    journal_owner: str | None


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What a fold needs to know and does not change.

    `repeated`: commands of this batch that the log has already. `workflows`: all that the partition knew before this
    batch, of the tenants that start something in it; `registered`: what the batch that it is folded on changed of them.
    """

    partition: int
    partitions: int
    subjects: Subjects
    repeated: frozenset[CommandId]
    workflows: Workflows
    registered: Changes = {}


class ClaimDue(msgspec.Struct, frozen=True, kw_only=True):
    """A claim to answer with the history up to `version`, if it still holds after the commit."""

    tenant: str
    instance: str
    attempt: int
    nonce: str
    version: int
    now_us: int
    reply: str


class Answer(msgspec.Struct, frozen=True):
    reply: str
    message: CommandAnswer | CommitAnswer | Superseded


class RejectedRow(msgspec.Struct, frozen=True, kw_only=True):
    sequence: int
    subject: str
    tenant: str | None
    instance: str | None
    code: str
    reason: str
    payload: bytes
    at: int


class ResolvedDue(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a wait, to be told to the attempt that is resident while it is recorded."""

    tenant: str
    instance: str
    memo: Memo


class OutboxRow(msgspec.Struct, frozen=True, kw_only=True):
    """`sequence`: of the frame that caused it. (A refused child has no event, hence no offset of its own.)"""

    sequence: int
    n: int
    target: int
    record: bytes


class TimerChanges(msgspec.Struct, frozen=True):
    """What a fold did to timers: (tenant, instance, id, due) of new ones, (tenant, instance, id) of gone ones."""

    added: list[tuple[str, str, int, int]]
    dropped: list[tuple[str, str, int]]

    def __bool__(self) -> bool:
        return bool(self.added or self.dropped)
