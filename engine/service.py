"""An engine: the loops of all partitions and the API, on one set of connections. Any number of them share the work."""

from pathlib import Path

from runtara.infra.bus import Bus
from runtara.infra.credentials.key_file import KeyFile
from runtara.infra.credentials.kinds import platform_inbox
from runtara.infra.lifetime import Service
from runtara.infra.login import platform_login, tls_of
from runtara.infra.logs import logger
from runtara.infra.postgres import Pool, is_migrated, open_pool
from runtara.infra.sealing import SealingKeys
from runtara.infra.settings import Settings
from runtara.protocol.credentials import Kind
from runtara.protocol.errors import StreamMissing
from runtara.protocol.ids import new_token
from runtara.protocol.subjects import Subjects

from .accounts import Accounts, connect_system
from .api import Api
from .blob_store import PostgresBlobs
from .collector import Collector
from .connections import Connections
from .credentials import Credentials
from .definitions import Definitions
from .images import Images
from .nats_server import check_version
from .partition import PartitionLoop
from .platform import Platform
from .refused_logins import RefusedLogins
from .registry import Registry
from .sharing import Sharing

log = logger("engine")


class Engine(Service):
    """Runs until it is closed. Raises `StreamMissing` if nobody has run `runtara migrate`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("engine")
        self._settings = settings

    async def open(self) -> None:
        platform = await self._platform()
        self._sharing = platform.sharing
        self.on_close(platform.sharing.forget)
        self.spawn(platform.sharing.run(), "sharing")
        for partition in range(platform.partitions):
            self.spawn(PartitionLoop(platform, partition).run(), f"partition {partition}")
        self.collector = Collector(platform)
        self.spawn(self.collector.run(), "collector")
        await self.enter(Api(platform))
        log.info("engine_ready", partitions=platform.partitions, deployment=self._settings.deployment)

    async def drain(self) -> None:
        """Between two commits, with all said that was decided: others take over at once and go on."""
        await self._sharing.leave()

    async def _platform(self) -> Platform:
        settings = self._settings
        subjects = Subjects(settings.deployment)
        deployment_id, partitions = await _deployment(settings)
        size = settings.database_connections + partitions  # a tenure keeps one for itself
        pool = await self.enter(
            await open_pool(
                settings.require_database_url(), settings.deployment, size=size, tls=tls_of(settings)
            )
        )  # fmt: skip
        accounts, credentials = await self._credentials(pool, partitions)
        bus = await self._connect(Kind.ENGINE, "engine")
        voice = await self._connect(Kind.ANSWERING, "engine voice")
        registry = Registry(pool, bus, subjects, partitions, accounts)
        return Platform(
            bus=bus,
            voice=voice,
            pool=pool,
            subjects=subjects,
            settings=settings,
            sharing=Sharing(pool, bus),
            registry=registry,
            images=Images(pool, registry),
            blobs=PostgresBlobs(pool),
            definitions=Definitions(pool, registry),
            connections=Connections(pool, voice, SealingKeys.of(settings)),
            credentials=credentials,
            deployment_id=deployment_id,
            partitions=partitions,
        )

    async def _credentials(self, pool: Pool, partitions: int) -> tuple[Accounts | None, Credentials | None]:
        """The server's accounts, told and kept by us, and the credentials in them; None without operator mode."""
        settings = self._settings
        if settings.nats_keys is None:
            log.warning(
                "instances_not_isolated",
                reason="NATS is used without operator mode, so all tenants, workers and containers share one account: "
                "whoever can connect can act as anybody. Set RUNTARA_NATS_KEYS (see `runtara credential init`)",
            )
            return None, None
        keys = KeyFile(Path(settings.nats_keys))
        bus = await self.enter(await connect_system(settings, keys, name="engine accounts"))
        bus.on_refused.append(self.fail)
        accounts = Accounts(keys, settings.deployment, bus, pool)
        self.refused_logins = RefusedLogins(settings.deployment)
        await self.refused_logins.watch(bus)
        await accounts.tell_platform()
        credentials = Credentials(keys, accounts, pool, settings.deployment, partitions)
        self.spawn(accounts.run(), "accounts")
        self.spawn(credentials.run(), "credentials")
        return accounts, credentials

    async def _connect(self, kind: Kind, name: str) -> Bus:
        settings, user = self._settings, new_token(8)
        bus = await Bus.connect(
            settings.require_nats_url(),
            name=name,
            inbox=platform_inbox(kind, user),
            login=platform_login(settings, kind, user),
            tls=tls_of(settings),
        )
        bus.on_refused.append(self.fail)
        await self.enter(bus)
        check_version(bus)
        return bus


async def _deployment(settings: Settings) -> tuple[str, int]:
    """Its identity and how many partitions it has. Raises `StreamMissing` if it was never made."""
    database_url, tls = settings.require_database_url(), tls_of(settings)
    async with await open_pool(database_url, settings.deployment, size=1, tls=tls) as pool:
        row = await pool.fetchrow("SELECT id, partitions FROM deployment") if await is_migrated(pool) else None
    if row is None:
        raise StreamMissing(stream=Subjects(settings.deployment).journal_stream(0))
    return row["id"], row["partitions"]
