"""`runtara info`: whether the platform answers, and what it is. The health check of containers asks it."""

import msgspec

from runtara.sdk.client import Client

from . import exits, output
from .options import AsJson, Tenant, settings_for


def info(tenant: Tenant = None, as_json: AsJson = False) -> None:
    """Say which platform answers; exit code 5 if none does."""

    async def go() -> None:
        async with Client(settings_for(tenant)) as client:
            known = await client.info()
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
