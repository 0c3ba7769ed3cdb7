"""The tables, in SQLAlchemy Core. They live in a Postgres schema named like the deployment; no name here is qualified.

Invariants: `events` is the truth: it is only ever appended to, and what leaves it goes into an archive first and stays
provable by `retired` and `retired_hashes`. `instances`, `timers` and `blob_uses` are functions of it. The others say
what the log belongs to, who may write it, which engines live, what is still to be sent, what each partition was told of
workflows, who hosts them or what image runs them, what was refused, which tenants have an account, and which
credentials were issued; or hold the values that went aside (`blobs`, `blob_parts`, `blob_uploads`). What schedules are
to start, and the secrets of connections, is configuration, and in no log.
Times are integer microseconds since 1970 (`bigint`): they are hashed, compared and copied, never computed on in SQL.
`data` is `json`, never `jsonb`: the hash needs the bytes as they came.
"""

from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata: Final = MetaData(
    naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s"}
)

deployment: Final = Table(
    "deployment",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("partitions", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

partitions: Final = Table(
    "partitions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("stream_created", Text, nullable=False),
    Column("cursor", BigInteger, nullable=False),
    Column("fingerprint", LargeBinary),  # SHA-256 of the message at the cursor; its store time beside it
    Column("fingerprint_time", BigInteger),
    Column("clock", BigInteger, nullable=False),  # the journal's time, which never runs back
    Column("head", BigInteger, nullable=False),  # the next offset
    Column("head_hash", LargeBinary, nullable=False),
    Column("owner", Text),
    Column("lease_until", DateTime(timezone=True), nullable=False),
    Column("journal_owner", Text),  # the token of the last `owner` record that was folded
    Column("run_created", Text),  # identity of the run queue whose evidence `instances.dispatched` is
)

engines: Final = Table(
    "engines",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owned", Integer, nullable=False),  # how many partitions
    Column("lease_until", DateTime(timezone=True), nullable=False),
)

events: Final = Table(
    "events",
    metadata,
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("offset", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant", Text, nullable=False),
    Column("instance", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("type", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("key", Text),
    Column("actor", Text),
    Column("command", Text),
    Column("at", BigInteger, nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
    Column("data", JSON, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    UniqueConstraint("tenant", "instance", "version"),
    Index(
        "uq_events_command", "tenant", "instance", "command", unique=True, postgresql_where=text("command IS NOT NULL")
    ),
)

instances: Final = Table(
    "instances",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("instance", Text, primary_key=True),
    Column("partition", Integer, nullable=False),
    Column("workflow", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("restarts", Integer, nullable=False),
    Column("worker", Text),
    Column("parent", Text),
    Column("labels", JSONB, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("wake_at", BigInteger),
    Column("input", JSON, nullable=False),  # null where it is a blob, as the result is
    Column("input_blob", JSON),
    Column("result", JSON),
    Column("result_blob", JSON),
    Column("error", JSON),
    Column("progress", JSON),
    Column("dispatched", Integer, nullable=False, server_default="0"),  # evidence: the attempt the run queue has
    Column("state", JSON, nullable=False),
    Column("hash", LargeBinary, nullable=False),  # of its last event: the next one chains on it
    # The condition holds for all, and only a query that repeats it may use the index: as long as Postgres knows nothing
    # of a new table, it would look up single instances here, through all that their tenant has.
    Index("ix_instances_listing", "tenant", "created_at", "instance", postgresql_where=text("created_at > 0")),
    Index("ix_instances_queued", "partition", postgresql_where=text("status = 'queued'")),
    Index("ix_instances_running", "partition", postgresql_where=text("status = 'running'")),
    Index("ix_instances_labels", "labels", postgresql_using="gin", postgresql_where=text("labels <> '{}'")),
    postgresql_with={"fillfactor": "70"},  # most updates touch no indexed column: leave room for them in the page
)

# Values that went aside, by their content: `hash` is the SHA-256 of the JSON text, `upload` names its parts.
blobs: Final = Table(
    "blobs",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("hash", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("upload", Text, nullable=False),
    Column("stored_at", BigInteger, nullable=False),
    Column("unused_since", BigInteger),  # to be looked at when that is long ago: nobody may use it (any more)
    Index("ix_blobs_unused", "unused_since", postgresql_where=text("unused_since IS NOT NULL")),
)

blob_parts: Final = Table(
    "blob_parts",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("upload", Text, primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),  # compressed by us, hence `STORAGE EXTERNAL` (see the migration)
)

# Uploads of several parts that are under way, or were given up.
blob_uploads: Final = Table(
    "blob_uploads",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("upload", Text, primary_key=True),
    Column("began_at", BigInteger, nullable=False),
    Index("ix_blob_uploads_began", "began_at"),
)

# A function of `events`. (Schedules use blobs, too: `schedules.input_blob` says so.)
blob_uses: Final = Table(
    "blob_uses",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("instance", Text, primary_key=True),
    Column("hash", Text, primary_key=True),
    Index("ix_blob_uses_hash", "tenant", "hash"),
)

# Instances whose events went into an archive. Their ids are never used again.
retired: Final = Table(
    "retired",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("instance", Text, primary_key=True),
    Column("partition", Integer, nullable=False),
    Column("workflow", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("version", Integer, nullable=False),  # of its last event; the first was 1
    Column("hash", LargeBinary, nullable=False),  # of its last event: the head of its chain
    Column("created_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger, nullable=False),
    Column("retired_at", BigInteger, nullable=False),
    Column("archive", Text, nullable=False),  # the file's name, and its SHA-256
    Column("archive_hash", LargeBinary, nullable=False),
    Index("ix_retired_partition", "partition"),
)

# The hashes of retired events, 32 bytes each, for runs of offsets without a gap: the partition's head needs them.
retired_hashes: Final = Table(
    "retired_hashes",
    metadata,
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("first", BigInteger, primary_key=True, autoincrement=False),  # offset of the first of them
    Column("hashes", LargeBinary, nullable=False),
)

timers: Final = Table(
    "timers",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("instance", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("partition", Integer, nullable=False),
    Column("due", BigInteger, nullable=False),
    Index("ix_timers_due", "partition", "due"),
)

outbox: Final = Table(
    "outbox",
    metadata,
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),  # of the frame that caused it
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("target", Integer, nullable=False),
    Column("record", JSON, nullable=False),
)

workflows: Final = Table(
    "workflows",
    metadata,
    Column("partition", Integer, primary_key=True, autoincrement=False),  # whose journal said so
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("code_version", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("parameters", JSON, nullable=False),
    Column("options", JSON, nullable=False),
    Column("registered_at", BigInteger, nullable=False),
)

# Versions are never used again, since the log names them: a deleted one keeps its row.
images: Final = Table(
    "images",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("image", JSON, nullable=False),
    Column("workflows", JSON, nullable=False),  # the registrations that came with it
    Column("registered_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),
)

# JSON workflows. Versions are never used again, since the log names them: a deleted one keeps its row.
definitions: Final = Table(
    "definitions",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("workflow", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("document", JSON, nullable=False),
    Column("hash", Text, nullable=False),  # SHA-256 of the document without its white space
    Column("registration", JSON, nullable=False),  # that came with it
    Column("registered_at", BigInteger, nullable=False),
    Column("registered_by", Text),
    Column("deleted_at", BigInteger),
)

# Secrets of connections, sealed; the key is not in the database.
connections: Final = Table(
    "connections",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("key_id", Text, nullable=False),  # says which key opens it
    Column("set_at", BigInteger, nullable=False),
    Column("set_by", Text),
)

workers: Final = Table(
    "workers",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("worker", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("workflows", JSONB, nullable=False),
    Column("heard_at", BigInteger, nullable=False),
)

rejected: Final = Table(
    "rejected",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("partition", Integer, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("subject", Text, nullable=False),
    Column("tenant", Text),
    Column("instance", Text),
    Column("code", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("at", BigInteger, nullable=False),
    Index("ix_rejected_instance", "tenant", "instance"),
)

schedules: Final = Table(
    "schedules",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("partition", Integer, nullable=False),  # whose owner looks after it
    Column("workflow", Text, nullable=False),
    Column("cron", Text),  # either this or `every`
    Column("every", BigInteger),
    Column("anchor", BigInteger, nullable=False),  # `every` counts from here
    Column("timezone", Text, nullable=False),
    Column("input", JSON, nullable=False),
    Column("input_blob", JSON),
    Column("labels", JSONB, nullable=False),
    Column("overlap", Text, nullable=False),
    Column("catch_up", Text, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("revision", Text, nullable=False),  # another one with every change that a person makes
    Column("next_due", BigInteger, nullable=False),  # of no meaning while it is paused
    Column("sent", ARRAY(Text), nullable=False),  # started, and nobody has looked yet what became of it
    Column("recent", ARRAY(Text), nullable=False),  # what it started last, the oldest first
    Column("problem", Text),  # what last kept it from starting an instance
    Column("problem_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", Text),
    Column("updated_at", BigInteger, nullable=False),
    Column("updated_by", Text),
    Index("ix_schedules_due", "partition", "next_due", postgresql_where=text("NOT paused")),
    Index("ix_schedules_sent", "partition", postgresql_where=text("sent <> '{}'")),
)

# Tenants whose account the server was given. Whoever changes one holds its row until the server has the change.
tenants: Final = Table(
    "tenants",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("consumers", JSONB, nullable=False),  # names of those of its run requests: it may pull from these
    Column("created_at", BigInteger, nullable=False),
)

# Credentials that were issued to tenants: what can be listed and revoked. Private keys are nowhere.
credentials: Final = Table(
    "credentials",
    metadata,
    Column("public_key", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("name", Text),
    Column("instance", Text),
    Column("issued_by", Text, nullable=False),  # kind and user of whoever asked for it
    Column("issued_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
    Column("offence", Text),  # what its user did too much of
    Column("offended_at", BigInteger),
    Index("ix_credentials_user", "tenant", "user_id"),
    Index("ix_credentials_expiry", "tenant", "expires_at"),
)
