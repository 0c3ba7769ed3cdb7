"""The engine's SQL, by name. The hot path is five statements a batch, however many records it holds."""

from typing import Final

# A lease that lies further ahead than any can was given by a clock that has since been set back: an owner that lives
# puts it right within a second.
TAKE_OVER: Final = """
UPDATE partitions SET owner = $2, lease_until = now() + make_interval(secs => $3)
WHERE id = $1 AND (
    lease_until < now() - make_interval(secs => $4) OR lease_until > now() + 2 * make_interval(secs => $3) OR owner = $2
)
RETURNING id, stream_created, cursor, fingerprint, fingerprint_time, clock, head, head_hash, journal_owner, run_created
"""

RENEW: Final = """
UPDATE partitions SET lease_until = now() + make_interval(secs => $3) WHERE id = $1 AND owner = $2 RETURNING id
"""

# Whoever owns it is no longer the owner, waits for no lease, and drops what it has in memory.
SEIZE: Final = "UPDATE partitions SET owner = $2, lease_until = now() + make_interval(secs => $3) WHERE id = $1"

RELEASE: Final = "UPDATE partitions SET lease_until = now(), owner = NULL WHERE id = $1 AND owner = $2"

# Within a transaction: rebuilding an instance and archiving it exclude each other.
ONE_AT_A_TIME: Final = "SELECT pg_advisory_xact_lock(hashtext(current_schema() || ' audit'))"

# The other engines that live, and how many partitions they own; those that have died are swept away meanwhile.
ANNOUNCE_ENGINE: Final = """
WITH dead AS (DELETE FROM engines WHERE lease_until < now() - interval '1 minute' AND id <> $1),
ours AS (
    INSERT INTO engines (id, owned, lease_until) VALUES ($1, $2, now() + make_interval(secs => $3))
    ON CONFLICT (id) DO UPDATE SET owned = excluded.owned, lease_until = excluded.lease_until
)
SELECT id, owned FROM engines WHERE lease_until > now() AND id <> $1
"""
FORGET_ENGINE: Final = "DELETE FROM engines WHERE id = $1"

# The first statement of every batch: who may write, and from where. No row: another owner, or another history.
ADVANCE: Final = """
UPDATE partitions SET cursor = $4, fingerprint = $5, fingerprint_time = $6, clock = $7, head = $8, head_hash = $9,
    journal_owner = $10, lease_until = now() + make_interval(secs => $11)
WHERE id = $1 AND owner = $2 AND cursor = $3 RETURNING id
"""

EVENT_COLUMNS: Final = {
    "partition": "int", "offset": "bigint", "tenant": "text", "instance": "text", "version": "int", "type": "text",
    "attempt": "int", "key": "text", "actor": "text", "command": "text", "at": "bigint", "recorded_at": "bigint",
    "data": "json", "hash": "bytea",
}  # fmt: skip

INSTANCE_COLUMNS: Final = {
    "tenant": "text", "instance": "text", "partition": "int", "workflow": "text", "status": "text", "version": "int",
    "attempt": "int", "restarts": "int", "worker": "text", "parent": "text", "labels": "jsonb", "created_at": "bigint",
    "updated_at": "bigint", "wake_at": "bigint", "input": "json", "input_blob": "json", "result": "json",
    "result_blob": "json", "error": "json", "progress": "json", "state": "json", "hash": "bytea",
}  # fmt: skip
_KEY: Final = {"tenant", "instance"}
_FIXED: Final = {*_KEY, "partition", "workflow", "parent", "labels", "created_at"}


def _arrays(columns: dict[str, str], first: int) -> str:
    return ", ".join(f"${n}::{kind}[]" for n, kind in enumerate(columns.values(), start=first))


def _upsert_instances(first: int, condition: str = "", fixed: set[str] = _FIXED) -> str:
    updates = ", ".join(f"{name} = excluded.{name}" for name in INSTANCE_COLUMNS if name not in fixed)
    return f"""
INSERT INTO instances ({", ".join(INSTANCE_COLUMNS)})
SELECT * FROM unnest({_arrays(INSTANCE_COLUMNS, first)}) {condition}
ON CONFLICT (tenant, instance) DO UPDATE SET {updates}
"""


UPSERT_INSTANCES: Final = _upsert_instances(1)
REPLACE_INSTANCES: Final = _upsert_instances(1, fixed=_KEY)  # `dispatched` stays: it is evidence, not derived

# Rows of which only the fold itself moved on: most of them, and (m) twice as fast as the upsert of all columns.
GROWN_COLUMNS: Final = {
    "tenant": "text", "instance": "text", "version": "int", "updated_at": "bigint", "state": "json", "hash": "bytea",
}  # fmt: skip


def _update_grown(first: int, condition: str = "") -> str:
    return f"""
UPDATE instances SET version = grown.version, updated_at = grown.updated_at, state = grown.state, hash = grown.hash
FROM unnest({_arrays(GROWN_COLUMNS, first)}) AS grown ({", ".join(GROWN_COLUMNS)})
WHERE instances.tenant = grown.tenant AND instances.instance = grown.instance {condition}
"""


UPDATE_GROWN: Final = _update_grown(1)

# A whole small batch as one statement, hence one round trip and one transaction: (m) half the time of the same batch
# as a transaction with COPY up to about a hundred events, worse from two hundred on.
_EVENTS_FROM: Final = 11 + 1  # behind the parameters of ADVANCE


_USES: Final = {"tenant": "text", "instance": "text", "hash": "text"}


def _use_blobs(first: int, condition: str = "") -> str:
    return f"""
INSERT INTO blob_uses (tenant, instance, hash) SELECT * FROM unnest({_arrays(_USES, first)}) {condition}
ON CONFLICT DO NOTHING
"""


USE_BLOBS: Final = _use_blobs(1)


def _commit_small(*, reshaped: bool, grown: bool, used: bool) -> str:
    parts = [
        f"moved AS ({ADVANCE.strip()})",
        f"""appended AS (
    INSERT INTO events ({", ".join(f'"{name}"' for name in EVENT_COLUMNS)})
    SELECT * FROM unnest({_arrays(EVENT_COLUMNS, _EVENTS_FROM)}) WHERE EXISTS (SELECT FROM moved)
)""",
    ]
    first = _EVENTS_FROM + len(EVENT_COLUMNS)
    if reshaped:
        parts.append(f"projected AS ({_upsert_instances(first, 'WHERE EXISTS (SELECT FROM moved)')})")
        first += len(INSTANCE_COLUMNS)
    if grown:
        parts.append(f"grown AS ({_update_grown(first, 'AND EXISTS (SELECT FROM moved)')})")
        first += len(GROWN_COLUMNS)
    if used:
        parts.append(f"used AS ({_use_blobs(first, 'WHERE EXISTS (SELECT FROM moved)')})")
    return f"WITH {', '.join(parts)} SELECT id FROM moved"


# By whether there are rows to be written whole, rows that only grew, and blobs that are spoken of: parameters that say
# nothing cost a tenth.
COMMIT_SMALL: Final = {
    (reshaped, grown, used): _commit_small(reshaped=reshaped, grown=grown, used=used)
    for reshaped in (False, True)
    for grown in (False, True)
    for used in (False, True)
}

ADD_TIMERS: Final = """
INSERT INTO timers (tenant, instance, version, partition, due)
SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::int[], $5::bigint[])
"""
DROP_TIMERS: Final = """
DELETE FROM timers USING unnest($1::text[], $2::text[], $3::int[]) AS gone (tenant, instance, version)
WHERE timers.tenant = gone.tenant AND timers.instance = gone.instance AND timers.version = gone.version
"""
NEXT_TIMERS: Final = """
SELECT tenant, instance, version, due FROM timers WHERE partition = $1 AND due < $2 ORDER BY due LIMIT $3
"""

ADD_OUTBOX: Final = """
INSERT INTO outbox (partition, sequence, n, target, record)
SELECT $1, * FROM unnest($2::bigint[], $3::int[], $4::int[], $5::json[])
"""
NEXT_OUTBOX: Final = """
SELECT sequence, n, target, record FROM outbox WHERE partition = $1 ORDER BY sequence, n LIMIT $2
"""
DROP_OUTBOX: Final = """
DELETE FROM outbox USING unnest($2::bigint[], $3::int[]) AS gone (sequence, n)
WHERE outbox.partition = $1 AND outbox.sequence = gone.sequence AND outbox.n = gone.n
"""
# What a journal that was lost left unsent goes before all that the next one will cause, whose numbers begin anew.
OLD_OUTBOX: Final = """
UPDATE outbox SET sequence = sequence - (
    SELECT max(sequence) + 1 - least(min(sequence), 0) FROM outbox WHERE partition = $1
) WHERE partition = $1
"""

WORKFLOWS_OF: Final = (
    "SELECT tenant, id, kind, options FROM workflows WHERE partition = $1 AND tenant = ANY($2::text[])"
)
UPSERT_WORKFLOWS: Final = """
INSERT INTO workflows AS w (
    partition, tenant, id, kind, code_version, description, parameters, options, registered_at
)
SELECT $1, * FROM unnest(
    $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::json[], $8::json[], $9::bigint[]
)
ON CONFLICT (partition, tenant, id) DO UPDATE SET kind = excluded.kind, code_version = excluded.code_version,
    description = excluded.description, parameters = excluded.parameters, options = excluded.options,
    registered_at = excluded.registered_at
WHERE (w.kind, w.code_version, w.description, w.parameters::text, w.options::text) IS DISTINCT FROM
    (excluded.kind, excluded.code_version, excluded.description, excluded.parameters::text, excluded.options::text)
"""
DROP_WORKFLOWS: Final = """
DELETE FROM workflows USING unnest($2::text[], $3::text[]) AS gone (tenant, id)
WHERE workflows.partition = $1 AND workflows.tenant = gone.tenant AND workflows.id = gone.id
"""

ADD_REJECTED: Final = """
INSERT INTO rejected (partition, sequence, subject, tenant, instance, code, reason, payload, at)
SELECT $1, * FROM unnest(
    $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bytea[], $9::bigint[]
)
"""

LOAD_INSTANCES: Final = f"""
SELECT {", ".join(f"i.{name}" for name in INSTANCE_COLUMNS)} FROM instances i
JOIN unnest($1::text[], $2::text[]) AS wanted (tenant, instance) USING (tenant, instance)
"""

# The same for a fold, which also has to know what was archived: such an id is never used again.
LOAD_KNOWN: Final = f"""
SELECT wanted.tenant AS asked_tenant, wanted.instance AS asked_instance, r.archive,
    {", ".join(f"i.{name}" for name in INSTANCE_COLUMNS)}
FROM unnest($1::text[], $2::text[]) AS wanted (tenant, instance)
LEFT JOIN instances i USING (tenant, instance) LEFT JOIN retired r USING (tenant, instance)
WHERE i.version IS NOT NULL OR r.archive IS NOT NULL
"""
# Rows of instances that had ended and go on: an archive may have taken them since they were read.
HOLD_ENDED: Final = """
SELECT i.tenant, i.instance FROM instances i
JOIN unnest($1::text[], $2::text[]) AS wanted (tenant, instance) USING (tenant, instance) FOR UPDATE OF i
"""

# Keys are not in the rows: they are read again when an engine meets an instance for the first time.
LOAD_KEYS: Final = """
SELECT e.tenant, e.instance, e.key, e.type, e.version,
    CASE e.type WHEN 'CheckpointSaved' THEN 'null'::json WHEN 'MemoCopied' THEN '{"type": "", "data": null}'::json
        ELSE e.data END AS data
FROM events e JOIN unnest($1::text[], $2::text[], $3::int[]) AS wanted (tenant, instance, after)
    ON e.tenant = wanted.tenant AND e.instance = wanted.instance AND e.version > wanted.after
WHERE e.key IS NOT NULL ORDER BY e.version
"""

REPEATED_COMMANDS: Final = """
SELECT e.tenant, e.instance, e.command FROM events e
JOIN unnest($1::text[], $2::text[], $3::text[]) AS asked (tenant, instance, command)
    ON e.tenant = asked.tenant AND e.instance = asked.instance AND e.command = asked.command
WHERE e.command IS NOT NULL
"""

MEMOS: Final = """
SELECT e.instance, e.key, e.version, e.type, e.data, e.recorded_at FROM events e
WHERE e.tenant = $1 AND e.instance = $2 AND e.key IS NOT NULL AND e.type = ANY($3::text[])
    AND e.version > $4 AND e.version <= $5
ORDER BY e.version LIMIT $6
"""

# The same of many instances, each with few and small memos: the others have a memo without data, or too many.
SHORT_MEMOS: Final = """
SELECT claimed.n, e.key, e.version, e.type, e.recorded_at,
    CASE WHEN octet_length(e.data::text) <= $6 THEN e.data END AS data
FROM unnest($1::text[], $2::text[], $3::int[], $4::int[])
    WITH ORDINALITY AS claimed (tenant, instance, after, up_to, n)
CROSS JOIN LATERAL (
    SELECT key, version, type, recorded_at, data FROM events
    WHERE tenant = claimed.tenant AND instance = claimed.instance AND key IS NOT NULL AND type = ANY($5::text[])
        AND version > claimed.after AND version <= claimed.up_to
    ORDER BY version LIMIT $7
) AS e
"""

FAILURES: Final = """
SELECT key, version, type, data FROM events
WHERE tenant = $1 AND instance = $2 AND key IS NOT NULL AND version > $3 AND version < $4
    AND type IN ('StepFailed', 'WaitResolved')
ORDER BY version
"""
MEMOS_AT: Final = """
SELECT e.instance, e.key, e.version, e.type, e.data, e.recorded_at FROM events e
JOIN unnest($1::text[], $2::text[], $3::int[]) AS wanted (tenant, instance, version)
    ON e.tenant = wanted.tenant AND e.instance = wanted.instance AND e.version = wanted.version
ORDER BY e.instance, e.version
"""

RECORD_DISPATCHED: Final = """
UPDATE instances i SET dispatched = done.attempt
FROM unnest($1::text[], $2::text[], $3::int[]) AS done (tenant, instance, attempt)
WHERE i.tenant = done.tenant AND i.instance = done.instance AND i.attempt = done.attempt
"""
UNDISPATCHED: Final = """
SELECT tenant, instance FROM instances
WHERE partition = $1 AND status = 'queued' AND ((dispatched <> attempt AND updated_at < $2) OR updated_at < $3)
ORDER BY updated_at LIMIT $4
"""
RUNNING: Final = "SELECT tenant, instance FROM instances WHERE partition = $1 AND status = 'running'"

# A run queue that was made anew (another creation time) holds nothing of what was sent to the old one.
CLEAR_EVIDENCE: Final = """
WITH renewed AS (
    UPDATE partitions SET run_created = $2 WHERE id = $1 AND run_created IS DISTINCT FROM $2 RETURNING id
)
UPDATE instances SET dispatched = 0 FROM renewed
WHERE instances.partition = renewed.id AND status = 'queued' AND dispatched <> 0
"""
