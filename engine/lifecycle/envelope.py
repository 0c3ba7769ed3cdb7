"""What a record's subject allows: the partition, the tenant, the type, and who may speak for whom.

Checked before anything is decided. The subject is what its publisher had the right to; the record is what it claims.
"""

from typing import Final

from runtara.protocol.errors import Forbidden, RuntaraError, WrongPartition
from runtara.protocol.ids import is_id, partition_of
from runtara.protocol.records import ALLOWED, OF_NO_INSTANCE, AnyRecord, Record, Registered, Start, Started, Unreadable
from runtara.protocol.subjects import Channel, Source

_ALLOWED: Final[dict[Channel, frozenset[type[Record]]]] = {
    channel: frozenset(types) | ({Unreadable} if channel is Channel.REPORTS else frozenset())
    for channel, types in ALLOWED.items()
}
_WITH_TENANT: Final = frozenset(cls for types in ALLOWED.values() for cls in types if "tenant" in cls.__struct_fields__)


def check_envelope(record: AnyRecord, source: Source, partition: int, partitions: int) -> RuntaraError | None:
    """Why `record` may not be sent from `source` to this `partition`; None if it may."""
    cls = type(record)
    if cls not in _ALLOWED[source.channel]:
        return _forbidden(record, source, "this kind of sender may not say it")
    if cls in OF_NO_INSTANCE:
        return None
    tenant, fault = source.tenant, None
    if cls in _WITH_TENANT:
        tenant, fault = _tenant(record, source)
    if fault is None and (source.channel is not Channel.ENGINE):
        fault = _speaker(record, source)
    if fault is not None:
        return _forbidden(record, source, fault)
    expected = partition_of(tenant, record.instance, partitions)
    if expected != partition:
        return WrongPartition(instance=record.instance, expected=expected, actual=partition)
    return None


def _tenant(record: AnyRecord, source: Source) -> tuple[str, str | None]:
    """The record's tenant: the subject's, except on the engines' own, where the record has to name it."""
    named: str | None = getattr(record, "tenant", None)
    if source.channel is Channel.ENGINE:
        return (named, None) if named is not None and is_id(named) else ("", "it names no tenant")
    return source.tenant, None if named is None or named == source.tenant else "it names another tenant"


def _speaker(record: AnyRecord, source: Source) -> str | None:
    """Why the sender may not speak for this instance or worker."""
    if source.instance is not None and record.instance != source.instance:
        return "it is about another instance"
    if isinstance(record, Started | Registered) and source.worker is not None and record.worker != source.worker:
        return "it names another worker"
    if isinstance(record, Started) and record.by != ("runner" if source.channel is Channel.RUNNER else "worker"):
        return "it says that somebody else sent it"
    if isinstance(record, Start) and record.parent is not None:
        return "only the platform starts children"
    if isinstance(record, Start) and record.schedule is not None:
        return "only the platform starts what a schedule says"
    return None


def _forbidden(record: AnyRecord, source: Source, reason: str) -> Forbidden:
    name = record.__struct_config__.tag
    return Forbidden(type=str(name), subject=str(source.channel), reason=reason)
