"""`runtara image build` and `image test`: what needs a Docker Engine."""

import asyncio
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer
from rich.status import Status

from runtara.protocol.ids import check_id
from runtara.protocol.records import Image
from runtara.sdk.client import Client

from . import exits, output
from .images import ImageName, Version, print_registered, register_with
from .options import AsJson, Tenant, settings_for

if TYPE_CHECKING:
    from runtara.runner.images.build import Built, Order, Tested

MAX_STEP: Final = 90  # characters of a line


def build(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="module, module:name or file.py")],
    tag: Annotated[str, typer.Option("-t", "--tag", metavar="NAME", help="What to call the image, as orders:1.")],
    base: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="The image to begin with (default: python:X.Y-slim, as here).")
    ] = None,
    wheelhouse: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", exists=True, file_okay=False, help="Take all wheels from here: the build needs no network."
        ),
    ] = None,
    requirements: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="What the code needs, in pip's words."),
    ] = None,
    include: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH", exists=True, help="A file or folder beside the code that goes with it; may be repeated."
        ),
    ] = None,
    register: Annotated[
        bool, typer.Option("--register", help="Register it, without limits, under the last part of NAME.")
    ] = False,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Make an image that hosts the workflows of TARGET, and start it once.

    It holds the modules that TARGET loads from its own folder, what --include names, and the part of this library
    that runs workflows. The image is built by the Docker Engine of this machine, or of DOCKER_HOST.
    """
    from runtara.runner.images.build import DEFAULT_BASE, Order

    if wheelhouse is not None and not any(wheelhouse.glob("*.whl")):
        raise typer.BadParameter(f"{wheelhouse} has no wheels", param_hint="--wheelhouse")
    order = Order(
        target=target,
        tag=tag,
        base=base or DEFAULT_BASE,
        wheelhouse=wheelhouse,
        requirements=requirements,
        include=include or [],
    )
    exits.run(_build(order, register, tenant, as_json), as_json=as_json)


async def _build(order: "Order", register: bool, tenant: str | None, as_json: bool) -> None:
    from runtara.runner.images import build as images
    from runtara.runner.images.docker_engine import DockerEngine

    name = registry_name(order.tag)
    if register:
        check_id(name, "image")
    engine = await asyncio.to_thread(DockerEngine.connect)
    with engine, Progress(quiet=as_json) as progress:
        built = await asyncio.to_thread(images.build, engine, order, progress.told)
    if as_json:
        output.print_json(_built_json(built))
    else:
        _print_built(built)
    if register:
        done = await register_with(Image(name=name, version=0, reference=built.id), built.workflows, tenant)
        if not as_json:
            print_registered(done)


def registry_name(tag: str) -> str:
    """`registry:5000/team/orders:1` is `orders`."""
    return tag.rpartition("/")[2].partition(":")[0]


def try_image(name: ImageName, version: Version = None, tenant: Tenant = None, as_json: AsJson = False) -> None:
    """Start a registered image once, under its limits, and report: what it hosts, how fast it is, what is wrong.

    Exit code 1 if it cannot host what it was registered for.
    """

    async def go() -> None:
        from runtara.runner.images import build as images
        from runtara.runner.images.docker_engine import DockerEngine

        async with Client(settings_for(tenant)) as client:
            view = await client.images.get(name, version=version)
        with await asyncio.to_thread(DockerEngine.connect) as engine:
            tested = await asyncio.to_thread(images.start_once, engine, view.image.reference, view.image)
        missing = [workflow for workflow in view.hosts if workflow not in tested.hosts]
        if missing and not tested.problems:
            problem = f"it does not host {', '.join(missing)}, which it is registered for"
            tested = msgspec.structs.replace(tested, problems=[problem])
        if as_json:
            output.print_json({"name": name, "version": view.image.version} | msgspec.structs.asdict(tested))
        else:
            _print_tested(f"{name}@{view.image.version}", tested)
        if tested.problems:
            raise typer.Exit(exits.FAILED)

    exits.run(go(), as_json=as_json)


def _print_tested(name: str, tested: "Tested") -> None:
    fields = [("image", name), ("hosts", ", ".join(tested.hosts) or "–"), ("size", _megabytes(tested.size))]
    if tested.user is not None:
        fields += [("start", f"{tested.start_seconds:.2f} s, to the end of the check"), ("user", str(tested.user))]
        fields += [("python", tested.python or "–")]
    output.print_fields(fields)
    console = output.console()
    for warning in tested.warnings:
        console.print(f"! {warning}", style="yellow")
    for problem in tested.problems:
        console.print(f"✗ {problem}", style="red")
    if not tested.problems:
        console.print("✓ it starts, and hosts what it should", style="green")


def _print_built(built: "Built") -> None:
    output.print_fields(
        [
            ("image", built.tag),
            ("id", built.id),
            ("hosts", ", ".join(workflow.workflow for workflow in built.workflows)),
            ("size", f"{_megabytes(built.size)}: {_megabytes(built.added)} above {built.base}"),
            ("start", f"{built.tested.start_seconds:.2f} s, as user {built.tested.user}"),
        ]
    )


def _built_json(built: "Built") -> dict[str, object]:
    return {
        "image": built.tag,
        "id": built.id,
        "base": built.base,
        "workflows": [workflow.workflow for workflow in built.workflows],
        "code_version": built.workflows[0].code_version,
        "size": built.size,
        "added": built.added,
        "context": built.context,
        "start_seconds": built.tested.start_seconds,
        "user": built.tested.user,
    }


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


class Progress:
    """What a build is doing, on stderr: at a terminal one line that changes, and what is done above it."""

    def __init__(self, *, quiet: bool) -> None:
        self._console = output.error_console()
        self._quiet = quiet
        self._status: Status | None = None
        self._now = ""
        self._since = time.monotonic()

    def __enter__(self) -> "Progress":
        if self._console.is_terminal and not self._quiet:
            self._status = self._console.status("")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._finish("✗" if error is not None else "✓")
        if self._status is not None:
            self._status.stop()

    def told(self, step: str) -> None:
        self._finish("✓")
        self._now = step if len(step) <= MAX_STEP else f"{step[: MAX_STEP - 1]}…"
        self._since = time.monotonic()
        if self._status is not None:
            self._status.update(self._now)

    def _finish(self, mark: str) -> None:
        if self._now and not self._quiet:
            seconds = time.monotonic() - self._since
            self._console.print(f"{mark} {self._now}  {seconds:.1f} s", markup=False, soft_wrap=True)
        self._now = ""
