"""The registry of images: what each tenant's containers are made of, in versions, and who starts with which.

Registering writes a version and tells every partition that these workflows are run by it, by the same records that
tell of workers' workflows: a start then takes the whole `Image` into the log, and never looks here again.

Invariants: a version never changes and its number is never used again; the same once more is the same version, and
tells the journals again, so that asking again after an error mends what it left half done. Deleting a version frees
nobody's hands: it is refused while a workflow is started with it, or an instance that has not ended was. (A
registration that is not folded yet does not count as a use; what it starts carries all that it needs.)
"""

import time
from collections.abc import Sequence
from typing import Final

import asyncpg
import msgspec

from runtara.infra.postgres import PgConnection
from runtara.protocol.api import Registration
from runtara.protocol.configuration import ImageView, RegisteredImage
from runtara.protocol.connections import check_names
from runtara.protocol.errors import ImageInUse, ImageNotFound, InvalidImage
from runtara.protocol.ids import check_id
from runtara.protocol.images import KIND, KINDS, POOLING, check_image
from runtara.protocol.records import Image

from .registry import Registry, frames_of

MAX_VIEWS: Final = 1_000
MAX_WORKFLOWS: Final = 100  # of one image
NAMED_USERS: Final = 5  # in a refusal

_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || '/image/' || $1 || '/' || $2, 0))"
_OF_TENANT: Final = """
SELECT image, workflows, registered_at FROM images
WHERE tenant = $1 AND ($2::text IS NULL OR name = $2) AND deleted_at IS NULL ORDER BY name, version DESC LIMIT $3
"""
_LATEST: Final = """
SELECT image, workflows, registered_at FROM images
WHERE tenant = $1 AND name = $2 AND deleted_at IS NULL ORDER BY version DESC LIMIT 1
"""
_NEXT: Final = "SELECT COALESCE(max(version), 0) + 1 FROM images WHERE tenant = $1 AND name = $2"
_ADD: Final = """
INSERT INTO images (tenant, name, version, image, workflows, registered_at) VALUES ($1, $2, $3, $4, $5, $6)
"""
_DELETE: Final = """
UPDATE images SET deleted_at = $4
WHERE tenant = $1 AND name = $2 AND ($3::int IS NULL OR version = $3) AND deleted_at IS NULL RETURNING version
"""
_STARTED_WITH: Final = """
SELECT id, options->'image'->>'name' AS name, (options->'image'->>'version')::int AS version FROM workflows
WHERE partition = 0 AND tenant = $1 AND options->'image' IS NOT NULL
"""
_WORKFLOWS_WITH: Final = """
SELECT DISTINCT id FROM workflows WHERE tenant = $1 AND options->'image'->>'name' = $2
    AND ($3::int IS NULL OR (options->'image'->>'version')::int = $3) ORDER BY id LIMIT $4
"""
_INSTANCES_WITH: Final = """
SELECT instance FROM instances WHERE tenant = $1 AND status <> ALL ('{completed,failed,cancelled}')
    AND state->'options'->'image'->>'name' = $2
    AND ($3::int IS NULL OR (state->'options'->'image'->>'version')::int = $3)
ORDER BY instance LIMIT $4
"""


class Images:
    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", registry: Registry) -> None:
        self._pool = pool
        self._registry = registry

    async def register(self, tenant: str, image: Image, workflows: Sequence[Registration]) -> RegisteredImage:
        """Raises `InvalidImage`, `InvalidId`, `Malformed`, and as `Registry.register` does: then ask again."""
        _check(image, workflows)
        now = time.time_ns() // 1_000
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(_LOCK, tenant, image.name)
            stored, registered_at = await _stored(connection, tenant, image, workflows, now=now)
            frames = frames_of(tenant, [_run_by(stored, workflow) for workflow in workflows], at=now)
        await self._registry.tell_all(frames)
        names = [workflow.workflow for workflow in workflows]
        view = ImageView(image=stored, hosts=names, used_by=names, registered_at=registered_at)
        return RegisteredImage(view=view, created=registered_at == now)

    async def views(self, tenant: str, name: str | None) -> list[ImageView]:
        """All versions that are not deleted, or those of one name; the newest version of each name first."""
        users: dict[tuple[str, int], list[str]] = {}
        for row in await self._pool.fetch(_STARTED_WITH, tenant):
            users.setdefault((row["name"], row["version"]), []).append(row["id"])
        views = []
        for row in await self._pool.fetch(_OF_TENANT, tenant, name, MAX_VIEWS):
            image, workflows = _version(row)
            views.append(
                ImageView(
                    image=image,
                    hosts=[workflow.workflow for workflow in workflows],
                    used_by=sorted(users.get((image.name, image.version), [])),
                    registered_at=row["registered_at"],
                )
            )
        return views

    async def forget(self, tenant: str, name: str, version: int | None) -> list[int]:
        """Delete a version, or all: which ones. Raises `ImageNotFound`, `ImageInUse`."""
        check_id(name, "image")
        called = name if version is None else f"{name}@{version}"
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(_LOCK, tenant, name)
            users = await _users(connection, tenant, name, version)
            now = time.time_ns() // 1_000
            gone = [row["version"] for row in await connection.fetch(_DELETE, tenant, name, version, now)]
            if not gone:
                hint = "`runtara image list` shows those that there are"
                raise ImageNotFound(image=called, where=f"in tenant {tenant!r}", hint=hint)
            if users:
                raise ImageInUse(image=called, users=users)  # nothing is deleted: the transaction ends with it
        return sorted(gone)


def _check(image: Image, workflows: Sequence[Registration]) -> None:
    check_image(image)
    names = [check_id(workflow.workflow, "workflow") for workflow in workflows]
    for workflow in workflows:
        check_names(workflow.options.connections)
    if not names:
        raise InvalidImage(image=image.name, reason="no workflow is named that it runs")
    if len(names) > MAX_WORKFLOWS or len(set(names)) < len(names):
        raise InvalidImage(image=image.name, reason=f"name each workflow once, and at most {MAX_WORKFLOWS}")
    kinds = {workflow.kind for workflow in workflows if workflow.kind in KINDS} - POOLING
    if image.isolation == "pool" and kinds:
        reason = f"a runner of kind {kinds.pop()} keeps no container for many: use isolation instance, or runner docker"
        raise InvalidImage(image=image.name, reason=reason)


def _run_by(image: Image, workflow: Registration) -> Registration:
    kind = workflow.kind if workflow.kind in KINDS else KIND
    options = msgspec.structs.replace(workflow.options, runner=kind, image=image, definition=None)
    return msgspec.structs.replace(workflow, kind=kind, options=options)


def _version(row: asyncpg.Record) -> tuple[Image, list[Registration]]:
    return (
        msgspec.json.decode(row["image"], type=Image),
        msgspec.json.decode(row["workflows"], type=list[Registration]),
    )


async def _stored(
    connection: PgConnection, tenant: str, image: Image, workflows: Sequence[Registration], *, now: int
) -> tuple[Image, int]:
    """The version that is exactly this, which is the last one or else a new one, and when it was registered."""
    latest = await connection.fetchrow(_LATEST, tenant, image.name)
    if latest is not None:
        kept, registrations = _version(latest)
        if kept == msgspec.structs.replace(image, version=kept.version) and registrations == list(workflows):
            return kept, int(latest["registered_at"])
    image = msgspec.structs.replace(image, version=await connection.fetchval(_NEXT, tenant, image.name))
    encoded = msgspec.json.encode(image), msgspec.json.encode(workflows)
    await connection.execute(_ADD, tenant, image.name, image.version, *encoded, now)
    return image, now


async def _users(connection: PgConnection, tenant: str, name: str, version: int | None) -> str:
    """Those who use it, for people; empty if nobody does."""
    named = []
    for noun, query in (("workflow", _WORKFLOWS_WITH), ("instance", _INSTANCES_WITH)):
        ids = [row[0] for row in await connection.fetch(query, tenant, name, version, NAMED_USERS + 1)]
        named += [f"{noun} {id}" for id in ids[:NAMED_USERS]]
        named += ["and more"] if len(ids) > NAMED_USERS else []
    return ", ".join(named)
