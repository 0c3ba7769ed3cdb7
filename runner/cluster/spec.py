"""What a Job is made of: an order and its image, as the API server takes them.

Invariants: a pod passes the pod security standard `restricted`: nothing in it is root's, can become it, or can be
written to but for a bounded `/tmp`; it holds no service account's token; no secret is in its environment, labels or
annotations; it is never tried again by Kubernetes (a claim is for one life). Labels are hashes (they are short and of
few characters), annotations hold the ids.
"""

import math
import re
from collections.abc import Mapping
from typing import Final

from runtara.protocol.ids import derived_name
from runtara.protocol.records import Image

from ..launches import LaunchFailed, Order
from .api import Manifest
from .objects import Job

USER: Final = 65_532  # `nonroot` in the images that are made for it
TMP_BYTES: Final = 64 * 1024 * 1024  # in memory, and counted with the container's
SETTINGS_FOLDER: Final = "/run/runtara"
SECRETS_FOLDER: Final = "/run/secrets"
SECRET_KEY: Final = "value"  # of a Kubernetes Secret that an image names
DEADLINE_MARGIN_SECONDS: Final = 10  # the runner is first: what Kubernetes ends may hand over, and go on elsewhere
KEPT_SECONDS: Final = 3600  # a finished Job that no runner comes back to
PREFIX: Final = "runtara.dev/"
JOB_LABEL: Final = f"{PREFIX}job"
NETWORK_LABEL: Final = f"{PREFIX}network"  # what NetworkPolicies select by
TIMEOUT: Final = f"{PREFIX}timeout-us"
RUNNER_LABEL: Final = f"{PREFIX}runner"
OWN_SECRETS: Final = "runtara-"  # our Secrets begin like this; no image may name one
_NAME_LENGTH: Final = 20  # of the instance's id, for people; a name has 63
_NOT_IN_NAMES: Final = re.compile(r"[^a-z0-9]+")
_SECRET_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")


class Identity:
    """The labels and annotations by which a runner knows its own."""

    def __init__(self, deployment: str, tenant: str, runner: str) -> None:
        self._deployment = deployment
        self._tenant = tenant
        self._runner = runner
        self._owner = derived_name("r", deployment, tenant, runner)

    @property
    def selector(self) -> str:
        return f"{RUNNER_LABEL}={self._owner}"

    def name(self, order: Order) -> str:
        parts = (self._deployment, order.tenant, order.instance, str(order.attempt), order.nonce)
        short = _NOT_IN_NAMES.sub("-", order.instance.lower())[:_NAME_LENGTH].strip("-")
        return derived_name(f"runtara-{short}" if short else "runtara", *parts)

    def labels(self, order: Order, image: Image) -> dict[str, str]:
        return {
            "app.kubernetes.io/managed-by": "runtara",
            "app.kubernetes.io/component": "instance",
            RUNNER_LABEL: self._owner,
            JOB_LABEL: self.name(order),
            NETWORK_LABEL: image.network,
            f"{PREFIX}deployment": derived_name("d", self._deployment),
            f"{PREFIX}tenant": derived_name("t", self._deployment, order.tenant),
            f"{PREFIX}workflow": derived_name("w", self._deployment, order.tenant, order.workflow),
            f"{PREFIX}instance": derived_name("i", self._deployment, order.tenant, order.instance),
            f"{PREFIX}attempt": str(order.attempt),
        }

    def annotations(self, order: Order, image: Image) -> dict[str, str]:
        return {
            f"{PREFIX}deployment": self._deployment,
            f"{PREFIX}runner": self._runner,
            f"{PREFIX}tenant": order.tenant,
            f"{PREFIX}workflow": order.workflow,
            f"{PREFIX}instance": order.instance,
            f"{PREFIX}attempt": str(order.attempt),
            f"{PREFIX}nonce": order.nonce,
            f"{PREFIX}image": f"{image.name}:{image.version}",
            **({} if image.timeout_us is None else {TIMEOUT: str(image.timeout_us)}),
        }


def job_manifest(
    identity: Identity, order: Order, image: Image, environ: Mapping[str, str], *, grace: float, launch_seconds: float
) -> Manifest:
    """`environ`: ours, which wins. The runner sees to the wall-clock limit; while it is away the pod's deadline does,
    and the Job's, for a pod that the cluster could not start or end."""
    limit = None if image.timeout_us is None else math.ceil(image.timeout_us / 1e6) + DEADLINE_MARGIN_SECONDS
    outer = None if limit is None else {"activeDeadlineSeconds": limit + math.ceil(grace + launch_seconds)}
    marks = {"labels": identity.labels(order, image), "annotations": identity.annotations(order, image)}
    name = identity.name(order)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, **marks},
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            **(outer or {}),
            "template": {
                "metadata": marks,
                "spec": {
                    **({} if limit is None else {"activeDeadlineSeconds": max(1, limit)}),
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": math.ceil(grace),
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "securityContext": _POD_SECURITY,
                    "containers": [_container(image, environ)],
                    "volumes": _volumes(name, image),
                },
            },
        },
    }


def secret_manifest(job: Job, files: Mapping[str, str]) -> Manifest:
    """What the container of `job` must not show: its token, and who it is to NATS. It goes with the Job."""
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job.metadata.name, "uid": job.metadata.uid}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": job.metadata.name, "labels": job.metadata.labels or {}, "ownerReferences": [owner],
        },
        "type": "Opaque",
        "immutable": True,
        "stringData": dict(files),
    }  # fmt: skip


_POD_SECURITY: Final = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,  # mounted secrets are root's: their group is ours, so 0400 becomes 0440
    "seccompProfile": {"type": "RuntimeDefault"},
}
_CONTAINER_SECURITY: Final = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def _container(image: Image, environ: Mapping[str, str]) -> Manifest:
    """The kubelet replaces `$(NAME)` in values, and `$$` by `$`: here values are what they are."""
    env = {"HOME": "/tmp", **image.env, **environ}
    limits = _limits(image)
    mounts = [
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "settings", "mountPath": SETTINGS_FOLDER, "readOnly": True},
    ]
    if image.secrets:
        mounts.append({"name": "secrets", "mountPath": SECRETS_FOLDER, "readOnly": True})
    return {
        "name": "instance",
        "image": image.reference,
        "env": [{"name": name, "value": value.replace("$", "$$")} for name, value in env.items()],
        "resources": {"limits": limits, "requests": limits},
        "securityContext": _CONTAINER_SECURITY,
        "volumeMounts": mounts,
    }


def _limits(image: Image) -> dict[str, str]:
    """Asked for as a whole, so that a pod is not chosen to be evicted for what it was promised. Processes are counted
    by the node (kubelet's podPidsLimit), for all pods alike."""
    limits = {}
    if image.memory_bytes is not None:
        limits["memory"] = str(image.memory_bytes)
    if image.cpus is not None:
        limits["cpu"] = f"{max(1, round(image.cpus * 1000))}m"
    return limits


def _volumes(name: str, image: Image) -> list[Manifest]:
    volumes: list[Manifest] = [
        {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": str(TMP_BYTES)}},
        {"name": "settings", "secret": {"secretName": name, "defaultMode": 0o400}},
    ]
    if image.secrets:
        sources = [
            {"secret": {"name": _secret_name(secret), "items": [{"key": SECRET_KEY, "path": secret}]}}
            for secret in image.secrets
        ]
        volumes.append({"name": "secrets", "projected": {"defaultMode": 0o400, "sources": sources}})
    return volumes


def _secret_name(secret: str) -> str:
    """Raises `LaunchFailed` unless it can be the name of a Secret of the user's."""
    name = secret.lower().replace("_", "-")
    if _SECRET_NAME.fullmatch(name) is None or name.startswith(OWN_SECRETS):
        raise LaunchFailed(reason=f"secret {secret!r} cannot be had: {name!r} is no name for a Secret of Kubernetes")
    return name
