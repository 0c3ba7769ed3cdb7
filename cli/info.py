"""`runtara info`: whether the platform answers, and what it is. The health check of containers asks it.

Every kind of credential may ask it, so what this process has is used as it is: a check issues none.
"""

from typing import TYPE_CHECKING

import msgspec

from runtara.protocol.api import Info

from . import exits, output
from .options import AsJson, Tenant, settings_for

if TYPE_CHECKING:
    from runtara.infra.credentials.files import Credential
    from runtara.infra.settings import Settings


def info(tenant: Tenant = None, as_json: AsJson = False) -> None:
    """Say which platform answers; exit code 5 if none does."""

    async def go() -> None:
        known = await _ask(settings_for(tenant))
        if as_json:
            output.print_json(msgspec.structs.asdict(known) | {"now": output.rfc3339(known.now_us)})
        else:
            output.print_fields(
                [
                    ("deployment", known.deployment),
                    ("version", known.version),
                    ("partitions", str(known.partitions)),
                    ("time", output.rfc3339(known.now_us) or ""),
                ]
            )

    exits.run(go(), as_json=as_json)


async def _ask(settings: "Settings") -> Info:
    from runtara.protocol.subjects import Subjects
    from runtara.sdk.client import Client
    from runtara.sdk.credentials import connect_as

    asker = _own(settings)
    if asker is None:
        async with Client(settings) as client:
            return await client.info()
    async with await connect_as(settings, asker) as bus:
        return await bus.call(Subjects(settings.deployment).api(settings.tenant, "info"), {}, Info)


def _own(settings: "Settings") -> "Credential | None":
    """A credential that need not be a client's: the platform's own, or the one that this process was given."""
    from runtara.infra.credentials.files import load
    from runtara.sdk.credentials import operator

    local = operator(settings)
    if local is not None or settings.nats_credentials is None:
        return local
    given = load(settings.nats_credentials)
    return given if given.holder is not None and given.holder.tenant == settings.tenant else None
