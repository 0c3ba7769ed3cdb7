"""What every part of an engine stands on: connections, names, settings."""

import asyncpg
import msgspec

from runtara.infra.bus import Bus
from runtara.infra.settings import Settings
from runtara.protocol.subjects import Subjects

from .blob_store import BlobStore
from .connections import Connections
from .credentials import Credentials
from .definitions import Definitions
from .images import Images
from .registry import Registry
from .sharing import Sharing
from .streams import StreamConfig, journal_config


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """`voice` is the second connection, which may publish nothing but inboxes, control, done and committed.

    `credentials` is None where the NATS server is not in operator mode: then everybody shares one account.
    """

    bus: Bus
    voice: Bus
    pool: "asyncpg.Pool[asyncpg.Record]"
    subjects: Subjects
    settings: Settings
    registry: Registry
    images: Images
    blobs: BlobStore
    connections: Connections
    definitions: Definitions
    sharing: Sharing
    credentials: Credentials | None
    deployment_id: str
    partitions: int

    def journal_config(self, partition: int) -> StreamConfig:
        return journal_config(
            self.subjects,
            partition,
            deployment_id=self.deployment_id,
            max_bytes=self.settings.journal_max_bytes,
            replicas=self.settings.replicas,
        )
