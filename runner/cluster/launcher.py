"""The launcher of the kind `kubernetes`: a Job for each order, in one namespace.

Invariants: a Job is removed once its end was told; what an earlier life of this runner launched is found by its
label; a Job runs on without its runner, and is limited by the cluster meanwhile. While the API server is away, or
busy, or a quota is used up, orders wait; what it refuses ends the attempt, with its words as the reason. The Job
comes before its Secret, which it owns, so that neither outlives the other: a pod waits for a Secret that it has to
mount.
"""

import asyncio
from typing import Final, TypeVar

from runtara.infra.lifetime import Service
from runtara.infra.logs import logger
from runtara.infra.settings import Settings
from runtara.protocol.api import Registration
from runtara.protocol.records import Image

from ..containers import access
from ..launches import Launched, LaunchFailed, Order
from . import spec
from .access import Access
from .api import JOBS, SECRETS, ApiServer, ClusterAway, ClusterRefused, Manifest, Resource
from .launched import AWAY_SECONDS, ClusterJob
from .objects import Job, Thing
from .sightings import Sightings

T = TypeVar("T", bound=Thing)
log = logger("runner")

STOP_MARGIN_SECONDS: Final = 5.0  # beyond the grace that an instance gives itself, before it is killed
CONFLICT: Final = 409


class KubernetesLauncher(Service):
    """Launches Jobs for `runner`."""

    kind = "kubernetes"
    registrations: list[Registration] | None = None  # images are registered by people

    def __init__(self, settings: Settings, access: Access, runner: str) -> None:
        super().__init__("jobs")
        self._settings = settings
        self._access = access
        self._identity = spec.Identity(settings.deployment, settings.tenant, runner)

    async def open(self) -> None:
        self._api = await self.enter(ApiServer(self._access))
        self._sightings = await self.enter(Sightings(self._api, self._identity.selector))

    async def launch(self, order: Order) -> Launched:
        image = order.options.image
        if image is None:
            raise LaunchFailed(reason=f"workflow {order.workflow} was registered without an image")
        if image.network == "host":
            raise LaunchFailed(reason="network host is not for pods; register the image with bus or bridge")
        manifest, files = self._manifest(order, image)
        try:
            job = await self._create_job(order, manifest)
        except ClusterRefused as exc:
            raise LaunchFailed(reason=str(exc)) from exc
        launched = ClusterJob(self._api, self._sightings, job)
        try:
            await self._create(SECRETS, spec.secret_manifest(job, files), Thing)
            problem = await launched.started(self._settings.launch_seconds)
        except ClusterRefused as exc:
            problem = str(exc)
        if problem is not None:
            await launched.forget()
            raise LaunchFailed(reason=problem)
        return launched

    async def left_behind(self) -> list[Launched]:
        return [ClusterJob(self._api, self._sightings, job) for job in self._sightings.jobs]

    async def abandoned(self) -> list[Launched]:
        """Nothing: what has ended Kubernetes removes by itself after an hour, and the lease told its end."""
        return []

    def _manifest(self, order: Order, image: Image) -> tuple[Manifest, dict[str, str]]:
        settings = self._settings
        url = settings.nats_url_inside or settings.require_nats_url()
        inside = access.settings_inside(access.of_one(settings, order), order.credential, url, spec.SETTINGS_FOLDER)
        manifest = spec.job_manifest(
            self._identity, order, image, inside.environ,
            grace=settings.drain_seconds + STOP_MARGIN_SECONDS, launch_seconds=settings.launch_seconds,
        )  # fmt: skip
        return manifest, inside.files

    async def _create_job(self, order: Order, manifest: Manifest) -> Job:
        job = await self._create(JOBS, manifest, Job)
        if job is None:
            job = await self._made_before(self._identity.name(order))
        self._sightings.expect(job)
        return job

    async def _made_before(self, name: str) -> Job:
        """The answer to an earlier try was lost: its name has the claim's nonce in it, so nobody else's is like it."""
        seconds = self._settings.launch_seconds
        try:
            async with asyncio.timeout(seconds):
                while True:
                    count = self._sightings.count(name)
                    job = self._sightings.of(name).job
                    if job is not None:
                        return job
                    await self._sightings.change(name, after=count)
        except TimeoutError as exc:
            raise LaunchFailed(reason=f"there is a Job {name}, but it was not to be seen for {seconds:g} s") from exc

    async def _create(self, resource: Resource, manifest: Manifest, type: type[T]) -> T | None:
        """None if there is one already. Raises `ClusterRefused`."""
        while True:
            try:
                return await self._api.create(resource, manifest, type)
            except ClusterAway as exc:
                log.warning("launch_waits", resource=resource.plural, reason=str(exc))
                await asyncio.sleep(exc.retry_after or AWAY_SECONDS)
            except ClusterRefused as exc:
                if exc.status != CONFLICT:
                    raise
                return None
