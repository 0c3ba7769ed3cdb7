"""What a container is made of: an order and its image, as the engine's API takes them.

Invariants: nothing in a container is root's, can become it, or can be written to but for a bounded `/tmp`; no secret is
in its environment or its labels; what it writes to its log is bounded; it is never restarted by the engine (a claim is
for one life).
"""

from typing import Final

from runtara.protocol.ids import derived_name
from runtara.protocol.records import Image

from ..launches import Order
from ..pooled import PooledOrder, fingerprint
from .engine import Config

USER: Final = 65_532  # `nonroot` in the images that are made for it; owns nothing anywhere
TMP_BYTES: Final = 64 * 1024 * 1024  # in memory, and counted with the container's
LOG_SIZE: Final = "1m"  # of each of two files, until the container is removed
LOG_FILES: Final = "2"
SETTINGS_FOLDER: Final = "/run/runtara"
SECRETS_FOLDER: Final = "/run/secrets"
LABEL: Final = "dev.runtara."
_NAME_LENGTH: Final = 40  # of the instance's or workflow's id, for people


def labels_of(deployment: str, runner: str, order: Order) -> dict[str, str]:
    return owner_labels(deployment, order.tenant, runner) | {
        f"{LABEL}workflow": order.workflow,
        f"{LABEL}instance": order.instance,
        f"{LABEL}attempt": str(order.attempt),
        f"{LABEL}nonce": order.nonce,
    }


def pooled_labels(deployment: str, runner: str, order: PooledOrder) -> dict[str, str]:
    return owner_labels(deployment, order.tenant, runner) | {
        f"{LABEL}workflow": order.workflow,
        f"{LABEL}worker": order.worker,
        f"{LABEL}made-of": fingerprint(order.image),
    }


def owner_labels(deployment: str, tenant: str, runner: str) -> dict[str, str]:
    """What a runner finds its own by."""
    return place_labels(deployment, tenant) | {f"{LABEL}runner": runner}


def place_labels(deployment: str, tenant: str) -> dict[str, str]:
    return {f"{LABEL}deployment": deployment, f"{LABEL}tenant": tenant}


def container_name(deployment: str, order: Order) -> str:
    parts = (deployment, order.tenant, order.instance, str(order.attempt), order.nonce)
    return derived_name(f"runtara-{order.instance[:_NAME_LENGTH]}", *parts)


def pooled_name(deployment: str, order: PooledOrder) -> str:
    return derived_name(f"runtara-{order.workflow[:_NAME_LENGTH]}", deployment, order.tenant, order.worker)


def container_config(
    image: Image, labels: dict[str, str], environ: dict[str, str], *, network: str, hosts: list[str],
    folders: dict[str, str],
) -> Config:  # fmt: skip
    """`environ`: ours, which wins; `folders`: of this machine, by where the container sees them, read-only."""
    env = {"HOME": "/tmp", **image.env, **environ}
    return {
        "Image": image.reference,
        "User": f"{USER}:{USER}",
        "Env": [f"{name}={value}" for name, value in env.items()],
        "Labels": labels,
        "StopSignal": "SIGTERM",
        "HostConfig": {
            "NetworkMode": network,
            "ExtraHosts": hosts,
            "Memory": image.memory_bytes or 0,
            "MemorySwap": image.memory_bytes or 0,  # the sum of both: no swap
            "NanoCpus": round((image.cpus or 0) * 1e9),
            "PidsLimit": image.pids or 0,
            "ReadonlyRootfs": True,
            "Tmpfs": {"/tmp": f"rw,nosuid,nodev,size={TMP_BYTES},mode=1777"},
            "Mounts": [
                {"Type": "bind", "Source": source, "Target": target, "ReadOnly": True}
                for target, source in folders.items()
            ],
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "RestartPolicy": {"Name": "no"},
            "LogConfig": {"Type": "local", "Config": {"max-size": LOG_SIZE, "max-file": LOG_FILES}},
        },
    }
