"""The runners of the kinds that launch: which launcher, under which name."""

import re
import socket
from collections.abc import Sequence
from typing import Final

from runtara.infra.settings import Settings
from runtara.protocol.errors import ExtraMissing
from runtara.protocol.limits import MAX_ID_LENGTH

from .forks import Limits
from .processes import ProcessLauncher
from .runner import Runner

_NOT_IN_IDS: Final = re.compile(r"[^A-Za-z0-9_-]")


def process_runner(
    settings: Settings, targets: Sequence[str], *, limits: Limits | None = None, time_limit: float | None = None
) -> Runner:
    """Its processes end with it, so it needs no name by which to find them."""
    return Runner(settings, ProcessLauncher(settings, targets, limits=limits, time_limit=time_limit))


def docker_runner(settings: Settings) -> Runner:
    """Raises `ExtraMissing`."""
    try:
        from .containers.launcher import DockerLauncher
    except ModuleNotFoundError as exc:
        raise ExtraMissing(extra="docker") from exc
    name = runner_id("docker", settings.runner_name or socket.gethostname())
    launcher = DockerLauncher(settings, name)
    return Runner(settings, launcher, id=name, pooled=launcher)


def kubernetes_runner(settings: Settings) -> Runner:
    """Its name is the namespace's: that of a pod is another at every start. Raises `ExtraMissing`, `InvalidSetting`."""
    try:
        from .cluster.access import find_access
        from .cluster.launcher import KubernetesLauncher
    except ModuleNotFoundError as exc:
        raise ExtraMissing(extra="kubernetes") from exc
    access = find_access(namespace=settings.kubernetes_namespace, context=settings.kubernetes_context)
    name = runner_id("kubernetes", settings.runner_name or access.namespace)
    return Runner(settings, KubernetesLauncher(settings, access, name), id=name)


def runner_id(kind: str, name: str) -> str:
    """The same at every start, so that what the last one launched is known to be its own."""
    return f"r-{kind}-{_NOT_IN_IDS.sub('-', name)}"[:MAX_ID_LENGTH]
