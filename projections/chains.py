"""One partition's events in offset order: what the writer promised of them, checked one by one. No I/O.

Of retired events only the hashes are there: the partition's head goes on over them, and everything around them is
still proved.
"""

from operator import itemgetter
from typing import Final

import asyncpg
import msgspec

from runtara.protocol.chain import GENESIS, HASHED, canonical, event_hash, next_head

from .blobs import BlobId, Named, named_in
from .verdict import MAX_FINDINGS, Finding, Head, Place, place_of

HASH_BYTES: Final = len(GENESIS)
_hashed: Final = itemgetter(*HASHED)


class Chain(msgspec.Struct, frozen=True):
    """Where an instance's chain stands."""

    version: int
    hash: bytes

    def next(self, row: asyncpg.Record) -> "Chain":
        """Raises `ChainBroken` if `row` is not what comes next."""
        if row["version"] != self.version + 1:
            raise ChainBroken(f"version {row['version']} follows version {self.version}")
        if event_hash(self.hash, _text(row)) != row["hash"]:
            raise ChainBroken("its content does not match its hash")
        return Chain(row["version"], row["hash"])


class ChainBroken(Exception):
    """An event that does not follow from the one before it."""


START: Final = Chain(0, GENESIS)


class Links:
    """The chains of several instances, read each in its order. `broken`: where one does not go on, if so."""

    def __init__(self) -> None:
        self.chains: dict[tuple[str, str], Chain] = {}
        self.broken: dict[tuple[str, str], Finding] = {}

    def step(self, row: asyncpg.Record) -> None:
        id = (row["tenant"], row["instance"])
        if id in self.broken:
            return
        try:
            self.chains[id] = self.chains.get(id, START).next(row)
        except ChainBroken as exc:
            problem = f"{exc}; left as it is, see `runtara audit verify`"
            self.broken[id] = Finding(problem=problem, partition=row["partition"], **place_of(row))


class Walk:
    """`kept`: a head of this partition that was kept elsewhere, and has to be met on the way. `named`: the values that
    went aside, each with the first event that names it."""

    def __init__(self, partition: int, kept: Head | None = None) -> None:
        self.partition = partition
        self.offset = 0
        self.head = GENESIS
        self.retired = 0
        self.chains: dict[tuple[str, str], Chain] = {}
        self.findings: list[Finding] = []
        self.named: dict[BlobId, Named] = {}
        self._kept = kept
        self._kept_at = kept.offset if kept is not None else -1
        self._gap: int | None = None  # index of a finding about missing events that nobody has been named for

    @property
    def events(self) -> int:
        """Those that were there."""
        return self.offset - self.retired

    def step(self, row: asyncpg.Record) -> None:
        offset = row["offset"]
        if offset != self.offset:
            if offset < self.offset:
                self._find("it was retired, but is in the log again", place_of(row))
                return
            self.up_to(offset)
        id = (row["tenant"], row["instance"])
        chain = self.chains.get(id)
        before = chain if chain is not None else START
        version, hash = row["version"], row["hash"]
        if version != before.version + 1:
            self._version_jumps(before.version, row)
        elif event_hash(before.hash, _text(row)) != hash:
            self._find("its content does not match its hash", place_of(row))
        self.chains[id] = Chain(version, hash)
        found = named_in(row)
        if found is not None:
            self.named.setdefault(*found)
        self._advance(hash)

    def up_to(self, offset: int) -> None:
        """What there is next lies at `offset`: whatever should lie before it is missing."""
        if offset == self.offset:
            return
        what = f"events {self.offset} to {offset - 1} are" if offset > self.offset + 1 else f"event {self.offset} is"
        self._gap = len(self.findings)
        self._find(f"{what} missing", {"offset": self.offset})
        self.offset = offset

    def skip(self, hashes: bytes) -> None:
        """Over retired events, which lie next."""
        for start in range(0, len(hashes), HASH_BYTES):
            self._advance(hashes[start : start + HASH_BYTES])
        self.retired += len(hashes) // HASH_BYTES

    def overlaps(self, first: int) -> None:
        """Retired events from `first` on are said to lie where others are."""
        self._find("events from this offset on are retired, but the log has them", {"offset": first})

    def finish(self, head: int, head_hash: bytes, retired: int) -> None:
        """At the end: what the partition's row says, and how many events its retired instances had."""
        if self._kept is not None and self._kept_at > self.offset:
            self._find(f"the log ends here, but {self._kept_at} events were kept", {"offset": self.offset})
        if self.findings:
            return
        if self.offset != head:
            problem = f"the log ends at offset {self.offset}, but {head} events were written"
            self._find(problem, {"offset": self.offset})
        elif self.head != head_hash:
            self._find("the partition's head hash does not match its events", {})
        elif self.retired != retired:
            self._find(f"hashes of {self.retired} events are kept, but {retired} were retired", {})

    def second_outcomes(self, rows: list[asyncpg.Record]) -> None:
        """Where a key was recorded again, though its first outcome is its memo."""
        for row in rows:
            self._find(f"key {row['key']!r} has an outcome already", place_of(row))

    def other_sources(self, rows: list[asyncpg.Record]) -> None:
        """Forks whose source is not, or no longer, what they were forked from."""
        for row in rows:
            source, version = row["source"], row["source_version"]
            now = "is not in the log any more" if row["is_gone"] else "is another event now"
            self._find(f"it was forked from version {version} of {source}, which {now}", place_of(row))

    def _advance(self, hash: bytes) -> None:
        self.head = next_head(self.head, hash)
        self.offset += 1
        if self.offset == self._kept_at and self._kept is not None and self.head.hex() != self._kept.hash:
            problem = f"the {self.offset} events up to here are not those whose head was kept"
            self._find(problem, {"offset": self.offset - 1})

    def _version_jumps(self, before: int, row: asyncpg.Record) -> None:
        """The first instance that has a gap in its versions names what was missing in the offsets."""
        version = row["version"]
        if self._gap is None or version <= before or self._gap >= len(self.findings):
            self._find(f"version {version} follows version {before}", place_of(row))
            return
        missing = self.findings[self._gap]
        self.findings[self._gap] = msgspec.structs.replace(
            missing, tenant=row["tenant"], instance=row["instance"], version=before + 1
        )
        self._gap = None

    def _find(self, problem: str, place: Place) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(problem=problem, partition=self.partition, **place))


def _text(row: asyncpg.Record) -> bytes:
    return canonical(*_hashed(row))
