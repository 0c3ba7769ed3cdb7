"""`runtara runner`: one kind of runner, as a process."""

import re
from enum import StrEnum
from typing import Annotated, Final

import typer

from runtara.infra.lifetime import Service

from . import exits
from .options import Tenant, parse_age
from .parts import Child, Processes, configured, pool, serve

_SIZE: Final = re.compile(r"(\d{1,12})([kmgt]?)b?", re.IGNORECASE)
_UNITS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


class Kind(StrEnum):
    POOL = "pool"
    PROCESS = "process"
    DOCKER = "docker"
    KUBERNETES = "kubernetes"


OF_IMAGES: Final = (Kind.DOCKER, Kind.KUBERNETES)  # they launch what is registered with an image


Targets = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TARGET…",
        help="module, module:name or file.py. Kinds docker and kubernetes have none: images are registered.",
    ),
]
KindOption = Annotated[
    Kind,
    typer.Option(
        "--kind",
        help="How instances are run: many in each worker process (pool), each in a process forked from one that has "
        "imported the targets (process), each in a container of its workflow's image (docker), each in a Job of "
        "Kubernetes (kubernetes).",
    ),
]
Slots = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Processes, containers or Jobs at once. All kinds but pool.")
]
Memory = Annotated[str | None, typer.Option(metavar="SIZE", help="Address space of a process, as 256m. Kind process.")]
Pids = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Processes of the runner's user, which must not be root. Kind process."),
]
CpuSeconds = Annotated[int | None, typer.Option(min=1, metavar="N", help="Processor time of a process. Kind process.")]
Timeout = Annotated[str | None, typer.Option(metavar="AGE", help="How long a process may run, as 1h. Kind process.")]
Name = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="By which it finds its own again; default: the host, or the namespace. Kinds docker, kubernetes.",
    ),
]
NatsUrlInside = Annotated[
    str | None, typer.Option(metavar="URL", help="Address of NATS as containers reach it. Kinds docker, kubernetes.")
]
Namespace = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Where Jobs are made; default: the service account's. Kind kubernetes."),
]
Context = Annotated[str | None, typer.Option(metavar="NAME", help="Of the kubeconfig. Kind kubernetes.")]


def runner(
    targets: Targets = None,
    kind: KindOption = Kind.POOL,
    processes: Processes = 1,
    slots: Slots = None,
    memory: Memory = None,
    pids: Pids = None,
    cpu_seconds: CpuSeconds = None,
    timeout: Timeout = None,
    name: Name = None,
    nats_url_inside: NatsUrlInside = None,
    namespace: Namespace = None,
    context: Context = None,
    tenant: Tenant = None,
    child: Child = False,
) -> None:
    """Run a runner of a kind: it takes run requests and turns them into running code."""
    if kind in OF_IMAGES and targets:
        raise typer.BadParameter(f"kind {kind} takes none: register an image for the workflow", param_hint="TARGET")
    if kind not in OF_IMAGES and not targets:
        raise typer.BadParameter(f"kind {kind} needs one", param_hint="TARGET")
    if kind is Kind.POOL:
        pool(targets or [], processes, False, tenant, child)
        return
    settings = configured(
        tenant, slots=slots, runner_name=name, nats_url_inside=nats_url_inside, kubernetes_namespace=namespace,
        kubernetes_context=context,
    )  # fmt: skip
    limit = parse_age(timeout, "--timeout").total_seconds() if timeout is not None else None

    def make() -> Service:
        from runtara.runner.forks import Limits
        from runtara.runner.kinds import docker_runner, kubernetes_runner, process_runner

        if kind is Kind.DOCKER:
            return docker_runner(settings)
        if kind is Kind.KUBERNETES:
            return kubernetes_runner(settings)
        memory_bytes = parse_size(memory, "--memory") if memory is not None else None
        limits = Limits(memory_bytes=memory_bytes, cpu_seconds=cpu_seconds, pids=pids)
        return process_runner(settings, targets or [], limits=limits, time_limit=limit)

    async def go() -> None:
        await serve(make(), f"ready runner {kind}", child=child)

    exits.run(go())


def parse_size(text: str, option: str) -> int:
    """`256m`, `1g`, or bytes."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is not a size like 256m (units: k, m, g, t)", param_hint=option)
    return int(found[1]) * int(1024 ** _UNITS[found[2].lower()])
