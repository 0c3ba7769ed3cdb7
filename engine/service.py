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
from .images import Images
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
        deployment_id, partitions = await _deployment(settings)
        size = settings.database_connections + partitions  # a tenure keeps one for itself
        pool = await self.enter(await open_pool(settings.require_database_url(), settings.deployment, size=size))
        registry = Registry(pool, bus, subjects, partitions)
        return Platform(
            bus=bus,
            voice=voice,
            pool=pool,
            subjects=subjects,
            settings=settings,
            sharing=Sharing(pool, bus),
            registry=registry,
            images=Images(pool, registry),
            deployment_id=deployment_id,
            partitions=partitions,
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


async def _deployment(settings: Settings) -> tuple[str, int]:
    """Its identity and how many partitions it has. Raises `StreamMissing` if it was never made."""
    async with await open_pool(settings.require_database_url(), settings.deployment, size=1) as pool:
        row = await pool.fetchrow("SELECT id, partitions FROM deployment") if await is_migrated(pool) else None
    if row is None:
        raise StreamMissing(stream=Subjects(settings.deployment).journal_stream(0))
    return row["id"], row["partitions"]
