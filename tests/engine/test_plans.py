"""How Postgres finds what the hot path names: by the key, whatever it knows of the tables.

It plans a statement of ours once, while the tables are new and it knows nothing of them, and keeps that plan: one that
goes through all of a tenant's instances works well in every small test, and ever worse in use.
"""

import re

import pytest

from runtara.engine import blob_store, queries, schedules, sql
from tests.support.peer import Peer

VALUES = {"text[]": "{a}", "int[]": "{1}", "bigint[]": "{1}", "json[]": "{1}", "bytea[]": "{a}", "jsonb": "{}"}
PLANS = {
    "LOAD_INSTANCES": (sql.LOAD_INSTANCES, ["text[]"] * 2, {"instances_pkey"}),
    "LOAD_KNOWN": (sql.LOAD_KNOWN, ["text[]"] * 2, {"instances_pkey", "retired_pkey"}),
    "HOLD_ENDED": (sql.HOLD_ENDED, ["text[]"] * 2, {"instances_pkey"}),
    "UPDATE_GROWN": (sql.UPDATE_GROWN, [f"{kind}[]" for kind in sql.GROWN_COLUMNS.values()], {"instances_pkey"}),
    "RECORD_DISPATCHED": (sql.RECORD_DISPATCHED, ["text[]", "text[]", "int[]"], {"instances_pkey"}),
    "LOAD_KEYS": (sql.LOAD_KEYS, ["text[]", "text[]", "int[]"], {"uq_events_tenant_instance_version"}),
    "REPEATED_COMMANDS": (sql.REPEATED_COMMANDS, ["text[]"] * 3, {"uq_events_command"}),
    "DROP_TIMERS": (sql.DROP_TIMERS, ["text[]", "text[]", "int[]"], {"timers_pkey"}),
    "SHORT_MEMOS": (
        sql.SHORT_MEMOS,
        ["text[]", "text[]", "int[]", "int[]", "text[]", "int", "int"],
        {"uq_events_tenant_instance_version"},
    ),
    "MEMOS_AT": (sql.MEMOS_AT, ["text[]", "text[]", "int[]"], {"uq_events_tenant_instance_version"}),
    "GET": (blob_store.GET, ["text", "text", "int", "text"], {"blobs_pkey", "blob_parts_pkey", "ix_blob_uses_hash"}),
    "COLLECT": (
        blob_store.COLLECT,
        ["bigint", "int"],
        {"ix_blobs_unused", "ix_blob_uses_hash", "schedules_pkey", "blobs_pkey", "blob_parts_pkey"},
    ),
    "COLLECT_UPLOADS": (blob_store.COLLECT_UPLOADS, ["bigint"], {"blob_parts_pkey"}),
    "LET_GO": (blob_store.LET_GO, ["text", "text[]", "bigint"], {"blobs_pkey"}),
    "LIST": (
        queries.LIST,
        ["text", "text", "text", "jsonb", "bigint", "text", "int"],
        {"ix_instances_listing"},
    ),
    "DUE": (schedules.DUE, ["int", "bigint", "int"], {"ix_schedules_due"}),
    "SOONEST": (schedules.SOONEST, ["int", "bigint"], {"ix_schedules_due"}),
    "UNSETTLED": (
        schedules.UNSETTLED,
        ["int", "int"],
        {"ix_schedules_sent", "ix_rejected_instance", "uq_events_tenant_instance_version", "retired_pkey"},
    ),
    "UNENDED": (schedules.UNENDED, ["text[]"] * 3, {"instances_pkey"}),
    "PAGE": (schedules.PAGE, ["text", "text", "text", "bool", "jsonb", "int"], {"schedules_pkey"}),
}


async def plan(peer: Peer, statement: str, kinds: list[str]) -> str:
    """As Postgres keeps it, for any parameters."""
    values = ", ".join(f"'{VALUES.get(kind, 1)}'::{kind}" for kind in kinds)
    async with peer.pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        await connection.execute(f"PREPARE asked ({', '.join(kinds)}) AS {statement}")
        rows = await connection.fetch(f"EXPLAIN EXECUTE asked ({values})")
        await connection.execute("DEALLOCATE asked")
    return "\n".join(row[0] for row in rows)


@pytest.mark.parametrize("name", PLANS)
async def test_rows_are_found_by_the_index_that_is_meant_for_them(peer: Peer, name: str) -> None:
    statement, kinds, indexes = PLANS[name]
    text = await plan(peer, statement, kinds)
    assert set(re.findall(r"using (\w+)", text)) == indexes, text
    assert "Seq Scan" not in text


async def test_a_list_is_read_in_its_order(peer: Peer) -> None:
    statement, kinds, _ = PLANS["LIST"]
    assert "Sort" not in await plan(peer, statement, kinds)
