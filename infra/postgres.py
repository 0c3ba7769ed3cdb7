"""Postgres: a pool with our codecs, and the migrations.

Invariants: `json` goes in and out as bytes, unparsed (the event log hashes them); every connection has the
deployment's schema as its search path and asks for `synchronous_commit = on`, whatever the server's default.
"""

import asyncio
import os
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from runtara.protocol.errors import PlatformUnreachable
from runtara.protocol.ids import check_id

CONNECT_TIMEOUT_SECONDS: Final = 10.0
COMMAND_TIMEOUT_SECONDS: Final = 60.0
MIGRATIONS: Final = Path(__file__).parent / "migrations"
CONNECTION_ERRORS: Final = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what asyncpg says of a session that the server ends while it is about to use it
    TimeoutError,
)

Pool = asyncpg.Pool
PgConnection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy


async def open_pool(
    database_url: str,
    deployment: str,
    *,
    size: int = 8,
    patience: float | None = COMMAND_TIMEOUT_SECONDS,
    tls: ssl.SSLContext | None = None,
) -> "Pool[asyncpg.Record]":
    """A pool of at most `size` connections. Raises `PlatformUnreachable` if the server cannot be reached.

    `patience`: seconds that a statement may take; None for those that go through a whole log. `tls`: with it the
    connection is encrypted and the server's certificate checked, unless the address has an `sslmode` of its own.
    """
    try:
        pool = asyncpg.create_pool(
            _dsn(database_url),
            min_size=1,
            max_size=size,
            timeout=CONNECT_TIMEOUT_SECONDS,
            command_timeout=patience,
            max_inactive_connection_lifetime=0,
            server_settings=_session(deployment),
            init=_prepare,
            reset=_keep,
            ssl=_tls_for(database_url, tls),
        )
        return await pool
    except (*CONNECTION_ERRORS, asyncpg.PostgresError) as exc:
        raise PlatformUnreachable(reason=f"cannot connect to Postgres at {_plain(database_url)}: {exc}") from exc


async def _keep(connection: PgConnection) -> None:
    """Nobody leaves anything behind in a session (`bound_transactions` is undone), so no round trip takes it away."""


async def _prepare(connection: PgConnection) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name,
            schema="pg_catalog",
            encoder=_encode_json if name == "json" else _encode_jsonb,
            decoder=bytes if name == "json" else _decode_jsonb,
            format="binary",
        )


def _encode_json(value: bytes) -> bytes:
    return value


def _encode_jsonb(value: bytes) -> bytes:
    return b"\x01" + value


def _decode_jsonb(value: bytes) -> bytes:
    return bytes(value[1:])


def _session(deployment: str) -> dict[str, str]:
    return {
        "search_path": check_id(deployment, "deployment"),
        "synchronous_commit": "on",
        "application_name": f"runtara {os.getpid()}",
        "jit": "off",
        # Every statement of ours finds its rows by an index, however many it names. Left to choose, Postgres plans it
        # once, while the tables are small, as a scan of all of them, and keeps that plan while they grow.
        "enable_seqscan": "off",
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
    }


async def migrate(database_url: str, deployment: str, *, tls: ssl.SSLContext | None = None) -> None:
    """Bring the deployment's schema to this version. Safe to call from several processes: they take turns."""

    async def connect() -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(
            _dsn(database_url), timeout=CONNECT_TIMEOUT_SECONDS, ssl=_tls_for(database_url, tls)
        )

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_upgrade, check_id(deployment, "deployment"))
    except CONNECTION_ERRORS as exc:
        raise PlatformUnreachable(reason=f"cannot connect to Postgres at {_plain(database_url)}: {exc}") from exc
    finally:
        await engine.dispose()


def _upgrade(connection: Connection, deployment: str) -> None:
    connection.execute(text("SELECT pg_advisory_lock(hashtext(:name))"), {"name": f"runtara migrate {deployment}"})
    connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{deployment}"'))
    connection.execute(text(f'SET search_path TO "{deployment}"'))
    connection.commit()
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    connection.commit()
    connection.execute(text("SELECT pg_advisory_unlock(hashtext(:name))"), {"name": f"runtara migrate {deployment}"})
    connection.commit()


async def is_migrated(pool: "Pool[asyncpg.Record]") -> bool:
    return bool(await pool.fetchval("SELECT to_regclass('deployment') IS NOT NULL"))


def _tls_for(database_url: str, tls: ssl.SSLContext | None) -> ssl.SSLContext | None:
    """With None, asyncpg reads `sslmode` and its files off the address."""
    return None if "sslmode=" in urlsplit(database_url).query else tls


def _dsn(database_url: str) -> str:
    """As asyncpg reads it; SQLAlchemy's form names the driver too."""
    return database_url.replace("postgresql+asyncpg://", "postgresql://", 1)


def _plain(database_url: str) -> str:
    return make_url(database_url).render_as_string(hide_password=True)


def is_transient(error: BaseException) -> bool:
    """Whether the same transaction may succeed later as it is: the connection broke, or two transactions met.

    Not by an error of asyncpg's own, which may as well be the batch's: whether its connection is closed says more.
    """
    if isinstance(error, (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncio.CancelledError)):
        return True
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "")[:2] in ("08", "53", "57", "58")
    return isinstance(error, CONNECTION_ERRORS) and not isinstance(error, asyncpg.InternalClientError)
