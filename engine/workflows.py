"""The workflows that a partition knows: what its own journal has said of them so far.

A start is decided by them (is there such a workflow, what runs it, which options go into the log), so they come
through the journal like everything else that decides: a partition that is folded again, after its database was
restored or failed over, knows at each start what it knew the first time.

Invariant: only the partition's owner writes its rows, in the transaction of the batch that changed them; so what a
tenure has read once stays true until it commits a change itself.
"""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Final

import msgspec

from runtara.infra.postgres import PgConnection
from runtara.protocol.records import Options, WorkflowForgotten, WorkflowRegistered

from . import sql

MAX_TENANTS: Final = 1_000  # whose workflows a tenure remembers; it reads them again when it has seen so many others
NEAREST: Final = 3

WorkflowId = tuple[str, str]  # tenant, workflow
Changes = dict[WorkflowId, WorkflowRegistered | None]  # None: forgotten


class Known(msgspec.Struct, frozen=True):
    """What a start has to know of its workflow."""

    kind: str
    options: Options


Workflows = Mapping[str, Mapping[str, Known]]  # tenant → workflow's id → what is known


class Registrations:
    """The workflows as a fold sees them: those of its partition, and what its own records have changed so far.

    `before` is what the batch that it is folded on has changed.
    """

    def __init__(self, known: Workflows, before: Changes | None = None) -> None:
        self._known = dict(known)
        self._before = before or {}
        self.changes: Changes = {}

    def learn(self, known: Workflows) -> None:
        """All workflows of some more tenants, as of the last commit."""
        self._known.update(known)

    def apply(self, record: WorkflowRegistered | WorkflowForgotten) -> None:
        self.changes[record.tenant, record.workflow] = record if isinstance(record, WorkflowRegistered) else None

    def find(self, tenant: str, workflow: str) -> Known | WorkflowRegistered | None:
        for changes in (self.changes, self._before):
            if (tenant, workflow) in changes:
                return changes[tenant, workflow]
        return self._known.get(tenant, {}).get(workflow)

    def nearest(self, tenant: str, workflow: str) -> str:
        """A hint for whoever asked for a workflow that there is not."""
        changed = {*self.changes, *self._before}
        names = set(self._known.get(tenant, {})) | {name for owner, name in changed if owner == tenant}
        return nearest(workflow, [name for name in names if self.find(tenant, name) is not None])


class WorkflowCache:
    """What the log knows of a partition's workflows, read tenant by tenant and kept as long as a tenure lasts."""

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._tenants: dict[str, dict[str, Known]] = {}

    async def of(self, connection: PgConnection, tenants: Collection[str]) -> Workflows:
        """All workflows of these tenants, as of the last commit."""
        if len(self._tenants) > MAX_TENANTS:
            self._tenants.clear()
        missing = [tenant for tenant in tenants if tenant not in self._tenants]
        if missing:
            read: dict[str, dict[str, Known]] = {tenant: {} for tenant in missing}
            for row in await connection.fetch(sql.WORKFLOWS_OF, self._partition, missing):
                options = msgspec.json.decode(row["options"], type=Options)
                read[row["tenant"]][row["id"]] = Known(row["kind"], options)
            self._tenants |= read
        return {tenant: self._tenants[tenant] for tenant in tenants}

    def committed(self, changes: Changes) -> None:
        for (tenant, workflow), record in changes.items():
            known = self._tenants.get(tenant)
            if known is not None and record is not None:
                known[workflow] = Known(record.kind, record.options)
            elif known is not None:
                known.pop(workflow, None)

    def forget(self, changes: Changes) -> None:
        """A batch that would have changed these could not be committed: read them again."""
        for tenant, _ in changes:
            self._tenants.pop(tenant, None)


def nearest(workflow: str, known: Collection[str]) -> str:
    """A hint for whoever asked for a workflow that there is not."""
    close = get_close_matches(workflow, sorted(known), n=NEAREST)
    return f" (did you mean {', '.join(map(repr, close))}?)" if close else ""


async def write_changes(connection: PgConnection, partition: int, changes: Changes) -> None:
    """Within a batch's transaction. What is registered again unchanged writes nothing."""
    registered = [record for record in changes.values() if record is not None]
    gone = [id for id, record in changes.items() if record is None]
    if registered:
        await connection.execute(
            sql.UPSERT_WORKFLOWS,
            partition,
            [record.tenant for record in registered],
            [record.workflow for record in registered],
            [record.kind for record in registered],
            [record.code_version for record in registered],
            [record.description for record in registered],
            [bytes(record.parameters) for record in registered],
            [msgspec.json.encode(record.options) for record in registered],
            [record.at for record in registered],
        )
    if gone:
        await connection.execute(sql.DROP_WORKFLOWS, partition, [t for t, _ in gone], [w for _, w in gone])
