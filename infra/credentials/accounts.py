"""The accounts: the system's, one for each deployment's platform, and one for each tenant.

The platform account alone has JetStream. A tenant's account imports from it what the tenant's users need, with the
tenant's id filled in, and nothing is imported from a tenant: so whatever a tenant's user publishes, and whatever reply
subject it names, stays within its own account unless an import takes it to the platform under the tenant's name.

Pulling is imported consumer by consumer, because a consumer's name has no token that says whose it is.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from runtara.protocol.subjects import Subjects

from .jwt import UNLIMITED, AccountBody, Export, Import, Limits
from .kinds import queue_subjects

PULL_IDLE_NS: Final = 30 * 1_000_000_000  # a pull expires after 2 s; its way back is forgotten when idle for this long


def system_body(signing_keys: list[str]) -> AccountBody:
    return AccountBody(limits=Limits(), signing_keys=signing_keys)


def platform_body(deployment: str, signing_keys: list[str]) -> AccountBody:
    """Anybody may import what is exported; but only we make accounts, and imports are part of them."""
    d, names = deployment, Subjects(deployment)
    pull, ack = queue_subjects(names, "*")
    services = [
        f"{d}.commands.*.*.*",
        f"{d}.reports.*.*.*.*",
        f"{d}.runner.*.*.*",
        f"{d}.heartbeat.*.*",
        f"{d}.api.*.>",
    ]
    streams = [f"{d}.control.*.*", f"{d}.done.*.*", f"{d}.committed.*", "_INBOX.>"]
    return AccountBody(
        limits=Limits(mem_storage=UNLIMITED, disk_storage=UNLIMITED, streams=UNLIMITED, consumer=UNLIMITED),
        signing_keys=signing_keys,
        exports=[
            *(Export(name=subject, subject=subject, type="service") for subject in services),
            Export(
                name=pull, subject=pull, type="service", response_type="Stream", response_threshold=PULL_IDLE_NS
            ),
            Export(name=ack, subject=ack, type="service"),
            *(Export(name=subject, subject=subject, type="stream") for subject in streams),
        ],
    )  # fmt: skip


def tenant_body(
    deployment: str,
    tenant: str,
    *,
    platform: str,
    signing_keys: list[str],
    consumers: Iterable[str],
    revocations: Mapping[str, int],
) -> AccountBody:
    """`platform` is the public key of the platform's account; `consumers` those of the tenant's run requests."""
    d, names = deployment, Subjects(deployment)
    services = [
        f"{d}.commands.*.{tenant}.*",
        f"{d}.reports.*.{tenant}.*.*",
        f"{d}.runner.*.{tenant}.*",
        f"{d}.heartbeat.{tenant}.*",
        f"{d}.api.{tenant}.>",
        *(subject for consumer in sorted(consumers) for subject in queue_subjects(names, consumer)),
    ]
    streams = [f"{d}.control.{tenant}.*", f"{d}.done.{tenant}.*", f"{d}.committed.*", f"_INBOX.{tenant}.>"]
    return AccountBody(
        limits=Limits(),
        signing_keys=signing_keys,
        imports=[
            *(Import(name=s, subject=s, account=platform, type="service", local_subject=s) for s in services),
            *(Import(name=s, subject=s, account=platform, type="stream", local_subject=s) for s in streams),
        ],
        revocations=dict(revocations),
    )
