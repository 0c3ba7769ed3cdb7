"""An engine: the loops of all partitions and the API, on one set of connections. Any number of them share the work."""

from runtara.infra.bus import Bus
from runtara.infra.lifetime import Service
from runtara.infra.logs import logger
from runtara.infra.postgres import is_migrated, open_pool
from runtara.infra.settings import Settings
from runtara.protocol.errors import StreamMissing
from runtara.protocol.ids import new_token
from runtara.protocol.subjects import Subjects

from .api import Api
from .partition import PartitionLoop
from .platform import Platform
from .registry import Registry
from .sharing import Sharing

log = logger("engine")

VOICE_USER = "engine"


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
        await self.enter(Api(platform))
        log.info("engine_ready", partitions=platform.partitions, deployment=self._settings.deployment)

    async def drain(self) -> None:
        """Between two commits, with all said that was decided: others take over at once and go on."""
        await self._sharing.leave()

    async def _platform(self) -> Platform:
        settings = self._settings
        subjects = Subjects(settings.deployment)
        bus = await self.enter(await self._connect("engine"))
        voice = await self.enter(await self._connect("engine voice"))
        pool = await open_pool(settings.require_database_url(), settings.deployment, size=settings.database_connections)
        await self.enter(pool)
        if not await is_migrated(pool):
            raise StreamMissing(stream=subjects.journal_stream(0))
        row = await pool.fetchrow("SELECT id, partitions FROM deployment")
        if row is None:
            raise StreamMissing(stream=subjects.journal_stream(0))
        return Platform(
            bus=bus,
            voice=voice,
            pool=pool,
            subjects=subjects,
            settings=settings,
            sharing=Sharing(pool, bus),
            registry=Registry(pool, bus, subjects, row["partitions"]),
            deployment_id=row["id"],
            partitions=row["partitions"],
        )

    async def _connect(self, name: str) -> Bus:
        settings = self._settings
        bus = await Bus.connect(
            settings.require_nats_url(),
            name=name,
            inbox=f"_INBOX.{VOICE_USER}.{new_token(8)}",
            user=settings.nats_user,
            password=settings.nats_password,
        )
        bus.on_refused.append(self.fail)
        return bus
