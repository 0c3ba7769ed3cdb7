"""What an audit says: findings, and the heads that prove later that nothing was replaced."""

from typing import Final, TypedDict

import asyncpg
import msgspec

MAX_FINDINGS: Final = 100
PAGE: Final = 2_000

Connection = asyncpg.pool.PoolConnectionProxy


class Place(TypedDict, total=False):
    """Where in the log something is."""

    offset: int
    tenant: str
    instance: str
    version: int


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong, and where: `offset` and `version` of the first event that shows it."""

    problem: str
    partition: int
    offset: int | None = None
    tenant: str | None = None
    instance: str | None = None
    version: int | None = None


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """A partition's hash (in hex) over its events before `offset`."""

    partition: int
    offset: int
    hash: str


class Heads(msgspec.Struct, frozen=True, kw_only=True):
    """The heads of all partitions of a deployment, as an export, an archive and `verify --json` end with them."""

    deployment: str
    heads: list[Head]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """`heads`, kept elsewhere, prove that nothing was replaced. `retired`: events of which only the hashes are left."""

    events: int
    instances: int
    findings: list[Finding]
    retired: int = 0
    deployment: str = ""
    heads: list[Head] = []

    @property
    def is_clean(self) -> bool:
        return not self.findings


def place_of(record: asyncpg.Record) -> Place:
    return {
        "offset": record["offset"],
        "tenant": record["tenant"],
        "instance": record["instance"],
        "version": record["version"],
    }
