"""What a container is told, and what it shows to NATS: a credential of its own, that speaks for its instance alone.

Where the platform issues none (a server without operator mode) it shows the runner's login. The deployment's keys and
the database are nothing that a container hears of.

Invariant: what is secret goes into files, of which the environment has only the names.
"""

import dataclasses
from typing import Final

import msgspec

from runtara.infra.settings import FILE_SUFFIX, PREFIX, SECRETS, Settings

from ..launches import Order

_NOT_INSIDE: Final = (
    "database_url", "slots", "launch_seconds", "runner_name", "runner_dir", "secrets_dir", "bus_network",
    "nats_url_inside", "nats_keys", "kubernetes_namespace", "kubernetes_context",
)  # fmt: skip


class Inside(msgspec.Struct, frozen=True, kw_only=True):
    """The variables of a container, and the files that they name."""

    environ: dict[str, str]
    files: dict[str, str]


def settings_inside(settings: Settings, order: Order, nats_url: str, folder: str) -> Inside:
    """For the container of `order`, which sees its files in `folder`."""
    inside = dataclasses.replace(
        settings, nats_url=nats_url, tenant=order.tenant, instance=order.instance, attempt=order.attempt,
        token=order.token, worker=order.worker, log_format="json",
    )  # fmt: skip
    if order.credential is not None:
        inside = dataclasses.replace(inside, nats_credentials=order.credential, nats_user=None, nats_password=None)
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
