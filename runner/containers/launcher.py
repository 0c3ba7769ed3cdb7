"""Launching containers: one of its workflow's image for each attempt.

Invariants: a container is removed only when its end was told; what an earlier life of this runner launched is found by
its labels; while the Docker Engine is away nothing is lost: orders wait, and ends are told when it is back.
"""

import asyncio
from typing import Final

from runtara.infra.lifetime import Service
from runtara.infra.logs import logger
from runtara.infra.settings import Settings
from runtara.protocol.api import Registration
from runtara.protocol.records import Image

from ..launches import Launched, LaunchFailed, Order
from ..pooled import Pooled, PooledOrder
from . import access, spec
from .container import Container
from .engine import Config, ContainerEngine, EngineAway, EngineRefused, Found
from .files import SECRETS_SUFFIX, Files
from .networks import Networks
from .pooled import PooledContainer

log = logger("runner")

AWAY_SECONDS: Final = 1.0
ENDED: Final = ("exited", "dead")
LOCAL_ID: Final = "sha256:"  # how an image is named that no registry has


class DockerLauncher(Service):
    """Launches containers for `runner`."""

    kind = "docker"
    registrations: list[Registration] | None = None  # images are registered by people

    def __init__(self, settings: Settings, runner: str) -> None:
        super().__init__("containers")
        self._settings = settings
        self._runner = runner
        self._seen: set[str] = set()  # containers of others that had ended when we last looked

    async def open(self) -> None:
        self._engine = await ContainerEngine.connect()
        self._stack.callback(self._engine.close)
        self._networks = Networks(self._settings, self._engine)
        self._files = Files(self._settings, self._runner)
        self._stack.callback(self._files.close)

    async def launch(self, order: Order) -> Launched:
        image = order.options.image
        if image is None:
            raise LaunchFailed(reason=f"workflow {order.workflow} was registered without an image")
        name = spec.container_name(self._settings.deployment, order)
        labels = spec.labels_of(self._settings.deployment, self._runner, order)
        if image.timeout_us is not None:
            labels[f"{spec.LABEL}timeout-us"] = str(image.timeout_us)
        id = await self._insist(name, image, labels, access.of_one(self._settings, order), order.credential)
        return Container(self._engine, id, name, labels, age=0.0, on_forgotten=self._files.remove)

    async def launch_pooled(self, order: PooledOrder) -> Pooled:
        name = spec.pooled_name(self._settings.deployment, order)
        labels = spec.pooled_labels(self._settings.deployment, self._runner, order)
        inside = access.of_pooled(self._settings, order)
        id = await self._insist(name, order.image, labels, inside, order.credential)
        return PooledContainer(self._engine, id, name, labels, age=0.0, on_forgotten=self._files.remove)

    async def left_behind(self) -> list[Launched]:
        found = await self._found()
        self._files.remove_all_but([one.name for one in found])
        of_one = [one for one in found if f"{spec.LABEL}nonce" in one.labels]
        return [await Container.of(self._engine, one, self._files.remove) for one in of_one]

    async def pooled_left_behind(self) -> list[Pooled]:
        pooled = [one for one in await self._found() if f"{spec.LABEL}made-of" in one.labels]
        return [await PooledContainer.of(self._engine, one, self._files.remove) for one in pooled]

    async def abandoned(self) -> list[Launched]:
        """Seen to have ended in two looks in a row: a runner that lives clears its own away within moments."""
        labels = spec.place_labels(self._settings.deployment, self._settings.tenant)
        ended = [
            one for one in await self._engine.labelled(labels, statuses=ENDED) if f"{spec.LABEL}nonce" in one.labels
        ]
        others = [one for one in ended if one.labels.get(f"{spec.LABEL}runner", self._runner) != self._runner]
        seen, self._seen = self._seen, {one.id for one in others}
        return [await Container.of(self._engine, one, self._files.remove) for one in others if one.id in seen]

    async def _found(self) -> list[Found]:
        settings = self._settings
        return await self._engine.labelled(spec.owner_labels(settings.deployment, settings.tenant, self._runner))

    async def _insist(
        self, name: str, image: Image, labels: dict[str, str], settings: Settings, credential: str | None
    ) -> str:
        """The id of the container, which runs. Waits for the engine; raises `LaunchFailed`."""
        while True:
            try:
                return await self._launch(name, image, labels, settings, credential)
            except (EngineAway, TimeoutError) as exc:
                log.warning("launch_waits", container=name, reason=str(exc))
                await asyncio.sleep(AWAY_SECONDS)
            except (EngineRefused, LaunchFailed, OSError) as exc:
                self._files.remove(name)
                raise LaunchFailed(reason=_unwrapped(exc)) from exc

    async def _launch(
        self, name: str, image: Image, labels: dict[str, str], settings: Settings, credential: str | None
    ) -> str:
        way = await self._networks.way(image.network)
        inside = access.settings_inside(settings, credential, way.nats_url, spec.SETTINGS_FOLDER)
        folders = {spec.SETTINGS_FOLDER: self._files.lay(name, inside.files)}
        if image.secrets:
            values = self._files.values(image.secrets)
            folders[spec.SECRETS_FOLDER] = self._files.lay(f"{name}{SECRETS_SUFFIX}", values)
        config = spec.container_config(
            image, labels, inside.environ, network=way.network, hosts=list(way.hosts), folders=folders
        )
        container = await self._create(name, config, image.reference)
        try:
            await self._engine.start(container)
        except EngineRefused:
            await self._engine.remove(container)
            raise
        return container

    async def _create(self, name: str, config: Config, reference: str) -> str:
        try:
            return await self._engine.create(name, config)
        except EngineRefused as exc:
            if exc.status != 404:
                raise
        if reference.startswith(LOCAL_ID):
            raise LaunchFailed(reason=f"this Docker Engine has no image {reference}: build or load it there")
        log.info("image_missing", image=reference)
        try:
            await self._engine.pull(reference)
            return await self._engine.create(name, config)
        except EngineRefused as exc:
            raise LaunchFailed(reason=f"there is no image {reference}, nor can it be pulled: {exc.reason}") from exc


def _unwrapped(error: Exception) -> str:
    """The reason alone: `LaunchFailed` says the rest."""
    return str(getattr(error, "reason", error))
