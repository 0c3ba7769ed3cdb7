"""Launching containers: one of its workflow's image for each attempt.

Invariants: a container is removed only when its end was told; what an earlier life of this runner launched is found by
its labels; while the Docker Engine is away nothing is lost: orders wait, and ends are told when it is back.
"""

import asyncio
from typing import Final

from runtara.infra.lifetime import Service
from runtara.infra.logs import logger
from runtara.infra.settings import Settings
from runtara.protocol.messages import Registration
from runtara.protocol.records import Image

from ..launches import Launched, LaunchFailed, Order
from . import spec
from .access import settings_inside
from .container import Container
from .engine import Config, ContainerEngine, EngineAway, EngineRefused
from .files import Files
from .networks import Networks

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
        while True:
            try:
                return await self._launch(order, image, name)
            except (EngineAway, TimeoutError) as exc:
                log.warning("launch_waits", instance=order.instance, reason=str(exc))
                await asyncio.sleep(AWAY_SECONDS)
            except (EngineRefused, LaunchFailed, OSError) as exc:
                self._files.remove(name)
                raise LaunchFailed(reason=_unwrapped(exc)) from exc

    async def left_behind(self) -> list[Launched]:
        settings = self._settings
        labels = spec.owner_labels(settings.deployment, settings.tenant, self._runner)
        found = [one for one in await self._engine.labelled(labels) if f"{spec.LABEL}nonce" in one.labels]
        self._files.remove_all_but([one.name for one in found])
        return [await Container.of(self._engine, one, self._files.remove) for one in found]

    async def abandoned(self) -> list[Launched]:
        """Seen to have ended in two looks in a row: a runner that lives clears its own away within moments."""
        labels = spec.place_labels(self._settings.deployment, self._settings.tenant)
        ended = await self._engine.labelled(labels, statuses=ENDED)
        others = [one for one in ended if one.labels.get(f"{spec.LABEL}runner", self._runner) != self._runner]
        seen, self._seen = self._seen, {one.id for one in others}
        return [await Container.of(self._engine, one, self._files.remove) for one in others if one.id in seen]

    async def _launch(self, order: Order, image: Image, name: str) -> Launched:
        way = await self._networks.way(image.network)
        inside = settings_inside(self._settings, order, way.nats_url, spec.SETTINGS_FOLDER)
        folders = {spec.SETTINGS_FOLDER: self._files.lay(name, inside.files)}
        if image.secrets:
            folders[spec.SECRETS_FOLDER] = self._files.lay(f"{name}-secrets", self._files.values(image.secrets))
        labels = spec.labels_of(self._settings.deployment, self._runner, order)
        if image.timeout_us is not None:
            labels[f"{spec.LABEL}timeout-us"] = str(image.timeout_us)
        config = spec.container_config(
            image, labels, inside.environ, network=way.network, hosts=list(way.hosts), folders=folders
        )
        container = await self._create(name, config, image.reference)
        try:
            await self._engine.start(container)
        except EngineRefused:
            await self._engine.remove(container)
            raise
        return Container(self._engine, container, name, labels, age=0.0, on_forgotten=self._files.remove)

    async def _create(self, name: str, config: Config, reference: str) -> str:
        try:
            return await self._engine.create(name, config)
        except EngineRefused as exc:
            if exc.status != 404:
                raise
        if reference.startswith(LOCAL_ID):
            raise LaunchFailed(reason=f"this Docker Engine has no image {reference}, and only it could")
        log.info("image_pulled", image=reference)
        try:
            await self._engine.pull(reference)
            return await self._engine.create(name, config)
        except EngineRefused as exc:
            raise LaunchFailed(reason=f"there is no image {reference}, nor can it be pulled: {exc.reason}") from exc


def _unwrapped(error: Exception) -> str:
    """The reason alone: `LaunchFailed` says the rest."""
    return str(getattr(error, "reason", error))
