"""`runtara image`: what containers are made of. The registry's part; building and testing are in `image_build`."""

import asyncio
import re
import sys
from typing import Annotated, Final, Literal

import msgspec
import typer

from runtara.protocol.api import Registration
from runtara.protocol.configuration import ImageView, RegisteredImage
from runtara.protocol.errors import InvalidImage, Unavailable
from runtara.protocol.images import check_image
from runtara.protocol.records import Image
from runtara.sdk.client import Client

from . import exits, output
from .completion import complete_image
from .options import AsJson, Tenant, named_version, parse_age, parse_pairs, settings_for

app = typer.Typer(help="Images that containers run, and the workflows that they host.", no_args_is_help=True)

ImageName = Annotated[
    str, typer.Argument(metavar="NAME", help="The image's name in the registry.", autocompletion=complete_image)
]
Version = Annotated[int | None, typer.Option("--version", metavar="N", help="Which version (default: the newest).")]
_MEMORY_UNITS: Final = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_LOCAL: Final = "sha256:"  # a reference that is an image's id
_MICROSECOND: Final = 1_000_000


@app.command("register")
def register(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the registry is to call it.")],
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="The image, with or without @digest.")],
    workflow: Annotated[
        list[str] | None,
        typer.Option(
            "--workflow",
            metavar="W",
            help="A workflow that it runs; may be repeated. Default: those that the image says it hosts (`image build` "
            "wrote it), else one called NAME.",
        ),
    ] = None,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="Memory of a container, as 256m or 1g.")] = None,
    cpus: Annotated[float | None, typer.Option(metavar="N", help="Cores of a container, as 0.5.")] = None,
    pids: Annotated[int | None, typer.Option(metavar="N", help="Processes and threads of a container.")] = None,
    timeout: Annotated[
        str | None, typer.Option(metavar="AGE", help="How long a container may live, as 90s, 10m or 1h.")
    ] = None,
    network: Annotated[
        Literal["bus", "bridge", "host"],
        typer.Option(help="bus: the platform's NATS and nothing else. bridge: a network. host: the machine's own."),
    ] = "bus",
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="K=V", help="A variable of its environment; may be repeated. It is no secret: the log has it."
        ),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A secret that it gets as a file; may be repeated. Only the name is registered: the value is a file "
            "of that name in a folder on the runner's machine, and never comes here.",
        ),
    ] = None,
    isolation: Annotated[
        Literal["instance", "pool"],
        typer.Option(
            help="instance: a container for each. pool: one that is kept hosts all of a workflow, older ones, too."
        ),
    ] = "instance",
    runner: Annotated[
        Literal["docker", "kubernetes"], typer.Option(help="The kind of runner that makes the containers.")
    ] = "docker",
    as_given: Annotated[
        bool, typer.Option("--as-given", help="Do not look the image up here: only the runner's machine has it.")
    ] = False,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Let an image run workflows from now on; what runs already keeps its own. A change makes the next version."""
    wanted = Image(
        name=name,
        version=0,
        reference=image,
        memory_bytes=parse_memory(memory),
        cpus=cpus,
        pids=pids,
        timeout_us=None if timeout is None else round(parse_age(timeout, "--timeout").total_seconds() * _MICROSECOND),
        network=network,
        env=parse_pairs(env, "--env"),
        secrets=tuple(secret or ()),
        isolation=isolation,
    )
    exits.run(_register(wanted, workflow or [], runner, as_given, tenant, as_json), as_json=as_json)


async def _register(
    image: Image, workflows: list[str], runner: str, as_given: bool, tenant: str | None, as_json: bool
) -> None:
    check_image(image)
    reference, labelled = (image.reference, None) if as_given else await asyncio.to_thread(_looked_up, image.reference)
    image = msgspec.structs.replace(image, reference=reference)
    chosen = [msgspec.structs.replace(one, kind=runner) for one in _chosen(image, workflows, labelled)]
    done = await register_with(image, chosen, tenant)
    if as_json:
        output.print_json(image_json(done.view) | {"created": done.created})
    else:
        print_registered(done)


async def register_with(image: Image, workflows: list[Registration], tenant: str | None) -> RegisteredImage:
    async with Client(settings_for(tenant)) as client:
        return await client.images.register(image, workflows)


def _looked_up(reference: str) -> tuple[str, list[Registration] | None]:
    """By digest, and what it says that it hosts, where a Docker Engine can be asked; else as it is given."""
    from runtara.runner.images.build import registrations
    from runtara.runner.images.docker_engine import DockerEngine, resolve

    try:
        engine = DockerEngine.connect()
    except Unavailable as exc:  # or the extra is not installed
        output.error_console().print(f"kept as given, {reference}, and not looked up: {exc}", style="yellow")
        return reference, None
    with engine:
        resolved, found = resolve(engine, reference)
    if resolved.startswith(_LOCAL):
        note = "it has no digest of a registry: only this Docker Engine knows it. Push it for runners of other machines"
        output.error_console().print(note, style="yellow")
    return resolved, registrations(found) if found is not None else None


def _chosen(image: Image, workflows: list[str], labelled: list[Registration] | None) -> list[Registration]:
    """What is registered. Raises `InvalidImage` for a workflow that the image says it does not host."""
    if not workflows:
        return labelled or [Registration(workflow=image.name)]
    known = {registration.workflow: registration for registration in labelled or ()}
    for name in workflows:
        if known and name not in known:
            raise InvalidImage(image=image.name, reason=f"it does not host {name!r}; it hosts {', '.join(known)}")
    return [known.get(name, Registration(workflow=name)) for name in workflows]


def print_registered(done: RegisteredImage) -> None:
    image = done.view.image
    console = output.console()
    console.print(f"{image.name}@{image.version}  {image.reference}{'' if done.created else '  (unchanged)'}")
    for name in done.view.hosts:
        console.print(f"runs {name}: `runtara start {name}`")


@app.command("list")
def list_images(tenant: Tenant = None, as_json: AsJson = False) -> None:
    """List images: the newest version of each, or with --json all of them."""

    async def go() -> None:
        async with Client(settings_for(tenant)) as client:
            views = await client.images.list()
        if as_json:
            for view in views:
                output.print_json(image_json(view))
        elif not views:
            sys.stderr.write("no images\n")
        else:
            newest = {view.image.name: view for view in reversed(views)}
            output.print_table(
                ("IMAGE", "VERSION", "WORKFLOWS", "LIMITS", "REFERENCE", "REGISTERED"),
                [_row(newest[name]) for name in sorted(newest)],
            )

    exits.run(go(), as_json=as_json)


def _row(view: ImageView) -> tuple[str, ...]:
    image = view.image
    registered = output.for_people(view.registered_at)
    return image.name, str(image.version), " ".join(view.used_by), limits_text(image), image.reference, registered


@app.command("show")
def show(name: ImageName, version: Version = None, tenant: Tenant = None, as_json: AsJson = False) -> None:
    """Show an image: what it runs, under which limits, and the versions that there are."""

    async def go() -> None:
        async with Client(settings_for(tenant)) as client:
            view = await client.images.get(name, version=version)
            versions = [str(view.image.version) for view in await client.images.list(name)]
        if as_json:
            output.print_json(image_json(view))
        else:
            output.print_fields([*_fields(view), ("versions", ", ".join(versions))])

    exits.run(go(), as_json=as_json)


def _fields(view: ImageView) -> list[tuple[str, str]]:
    image = view.image
    return [
        ("image", f"{image.name}@{image.version}"),
        ("reference", image.reference),
        ("registered", output.for_people(view.registered_at)),
        ("hosts", ", ".join(view.hosts)),
        ("started with it", ", ".join(view.used_by) or "nothing: a later registration has taken its place"),
        ("limits", limits_text(image) or "none"),
        ("network", image.network),
        ("environment", " ".join(f"{key}={value}" for key, value in sorted(image.env.items())) or "–"),
        ("secrets", ", ".join(image.secrets) or "–"),
        ("isolation", image.isolation),
    ]


@app.command("delete")
def delete(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="An image, or a version of it: NAME@2.", autocompletion=complete_image),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Take an image off the registry, unless it is in use. The image itself stays where it is."""
    name, version = named_version(name)
    if not yes:
        typer.confirm(f"delete image {name}{'' if version is None else f'@{version}'}?", abort=True)

    async def go() -> None:
        async with Client(settings_for(tenant)) as client:
            gone = await client.images.delete(name, version=version)
        for one in gone:
            if as_json:
                output.print_json({"name": name, "version": one})
            else:
                output.console().print(f"deleted {name}@{one}")

    exits.run(go(), as_json=as_json)


def parse_memory(text: str | None) -> int | None:
    """`256m`, `1.5g`, `1024k`, or bytes."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,3})?)([bkmg]?)", text.lower())
    if found is None:
        raise typer.BadParameter(f"{text!r} is not a size like 256m (units: b, k, m, g)", param_hint="--memory")
    return int(float(found[1]) * _MEMORY_UNITS[found[2]])


def limits_text(image: Image) -> str:
    parts = []
    if image.memory_bytes is not None:
        parts.append(f"{image.memory_bytes / 1024**2:,.4g} MiB")
    if image.cpus is not None:
        parts.append(f"{image.cpus:g} cpus")
    if image.pids is not None:
        parts.append(f"{image.pids} pids")
    if image.timeout_us is not None:
        parts.append(f"{image.timeout_us / _MICROSECOND:g} s")
    return ", ".join(parts)


def image_json(view: ImageView) -> dict[str, object]:
    """The fields of `image show --json`; scripts rely on their names."""
    image: dict[str, object] = msgspec.structs.asdict(view.image)
    registered = output.rfc3339(view.registered_at)
    return image | {"hosts": view.hosts, "used_by": view.used_by, "registered_at": registered}
