"""What a container is told, and what it shows to NATS: a credential of its own, that speaks for its instance alone, or
for a worker that takes one workflow's instances.

Where the platform issues none (a server without operator mode) it shows the runner's login. The deployment's keys and
the database are nothing that a container hears of.

Invariant: what is secret goes into files, of which the environment has only the names.
"""

import dataclasses
from typing import Final

import msgspec

from runtara.infra.settings import FILE_SUFFIX, PREFIX, SECRETS, Settings

from ..launches import Order
from ..pooled import PooledOrder

_NOT_INSIDE: Final = (
    "database_url", "slots", "launch_seconds", "runner_name", "runner_dir", "secrets_dir", "bus_network",
    "nats_url_inside", "nats_keys", "connections_key", "kubernetes_namespace", "kubernetes_context",
)  # fmt: skip


class Inside(msgspec.Struct, frozen=True, kw_only=True):
    """The variables of a container, and the files that they name."""

    environ: dict[str, str]
    files: dict[str, str]


def of_one(settings: Settings, order: Order) -> Settings:
    """The settings of a container for one attempt."""
    return dataclasses.replace(
        settings, tenant=order.tenant, instance=order.instance, attempt=order.attempt, token=order.token,
        worker=order.worker,
    )  # fmt: skip


def of_pooled(settings: Settings, order: PooledOrder) -> Settings:
    """Those of a worker that hosts one workflow."""
    return dataclasses.replace(
        settings, tenant=order.tenant, workflow=order.workflow, worker=order.worker, instance=None, attempt=None
    )


def settings_inside(settings: Settings, credential: str | None, nats_url: str, folder: str) -> Inside:
    """For a container with these settings of its own, which sees its files in `folder`."""
    inside = dataclasses.replace(settings, nats_url=nats_url, log_format="json")
    if credential is not None:
        inside = dataclasses.replace(inside, nats_credentials=credential, nats_user=None, nats_password=None)
    environ: dict[str, str] = {}
    files: dict[str, str] = {}
    for name, value in inside.to_environ().items():
        setting = name.removeprefix(PREFIX).lower()
        if setting in _NOT_INSIDE:
            continue
        if setting in SECRETS:
            files[setting] = value
            environ[f"{name}{FILE_SUFFIX}"] = f"{folder}/{setting}"
        else:
            environ[name] = value
    return Inside(environ=environ, files=files)
