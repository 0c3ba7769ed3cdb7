"""`runtara credential`: keys for a NATS server of one's own; credentials of tenants issued, listed, revoked.

Invariant: a private key is written to a file that only its owner can read, and to standard output only for `--out -`.
"""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from runtara.infra.settings import Settings
from runtara.protocol.credentials import CredentialView, Kind, ListIssued, Revoke
from runtara.protocol.errors import CredentialNotFound, CredentialRefused
from runtara.protocol.ids import check_id, new_token

from . import exits, output
from .options import STDIN, AsJson, Tenant, parse_age, settings_for

if TYPE_CHECKING:
    from runtara.infra.credentials.files import Credential

app = typer.Typer(help="Who may connect: credentials of tenants, and the keys that sign them.", no_args_is_help=True)

STDOUT: Final = STDIN
_READABLE: Final = 0o644


Resolver = Annotated[
    Path, typer.Option("--resolver", metavar="DIR", help="The folder in which the *server* keeps accounts.")
]
Configuration = Annotated[
    Path | None,
    typer.Option("--configuration", metavar="FILE", help="Where to write what the server includes; default: DIR."),
]


class Made(StrEnum):
    """The kinds that people make; the platform makes the others by itself."""

    CLIENT = "client"
    RUNNER = "runner"
    WORKER = "worker"


@app.command("create")
def create(
    kind: Annotated[
        Made, typer.Option("--kind", help="client: starts and asks. runner: what `runtara worker` and `runner` need.")
    ] = Made.CLIENT,
    read_only: Annotated[bool, typer.Option("--read-only", help="A client that may only ask and listen.")] = False,
    expires: Annotated[
        str, typer.Option("--expires", metavar="AGE", help="How long it is good: 12h, 30d, 8w.")
    ] = "30d",
    out: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="Where to write it (TENANT-NAME.creds); - prints it.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="What it is for; kept in the list.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="If FILE holds one for the same use that is still good, leave it.")
    ] = False,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Issue a credential of a tenant, for RUNTARA_NATS_CREDENTIALS. A new tenant's first one creates its account."""
    if read_only and kind is not Made.CLIENT:
        raise typer.BadParameter("only a client can be read-only", param_hint="--read-only")
    if keep and out in (None, STDOUT):
        raise typer.BadParameter("say in which FILE, with --out", param_hint="--keep")
    life = parse_age(expires, "--expires").total_seconds()
    exits.run(
        _create(tenant, Kind.READER if read_only else Kind(kind), life, out, name, keep=keep, as_json=as_json),
        as_json=as_json,
    )


def _is_good(file: Path, kind: Kind, settings: Settings) -> bool:
    """Whether the file holds such a credential, and it has not expired."""
    from runtara.infra.credentials.files import load

    held = load(str(file))
    holder = held.holder
    if holder is None or held.is_expired():
        return False
    return (holder.kind, holder.tenant, holder.deployment) == (kind, settings.tenant, settings.deployment)


async def _create(
    tenant: str | None, kind: Kind, life: float, out: str | None, name: str | None, *, keep: bool, as_json: bool
) -> None:
    from runtara.sdk.credentials import obtain

    settings = settings_for(tenant)
    user = f"{kind.value[0]}-{new_token(12)}"
    file = Path(out or f"{settings.tenant}-{check_id(name or user, 'name of a file')}.creds")
    if keep and file.exists() and _is_good(file, kind, settings):
        return
    if out != STDOUT and file.exists() and not keep:
        raise typer.BadParameter(f"{file} exists; it is not overwritten", param_hint="--out")
    credential = await obtain(settings, _operator(settings), kind=kind, user=user, expires_in=life, name=name or user)
    if out == STDOUT:
        sys.stdout.write(credential.text)
        return
    credential.write(file)
    if as_json:
        output.print_json(
            {
                "public_key": credential.public_key, "tenant": settings.tenant, "kind": kind, "user": user,
                "name": name or user, "file": str(file),
                "expires_at": output.rfc3339(credential.expires_at * 1_000_000),
            }
        )  # fmt: skip
    else:
        sys.stdout.write(f"{file}\n")
        expires_at = output.for_people(credential.expires_at * 1_000_000)
        sys.stderr.write(f"a {kind} of tenant {settings.tenant}, good until {expires_at}; keep the file secret\n")


@app.command("list")
def list_credentials(
    everything: Annotated[
        bool, typer.Option("--all", help="Also what processes had issued for themselves, expired and revoked ones.")
    ] = False,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """List a tenant's credentials, newest first (at most 1,000)."""

    async def go() -> None:
        from runtara.sdk.credentials import ask

        settings = settings_for(tenant)
        views = await ask(settings, _operator(settings), ListIssued(all=everything), list[CredentialView])
        if as_json:
            for view in views:
                output.print_json(_json(view))
        else:
            _print(views)

    exits.run(go(), as_json=as_json)


@app.command("revoke")
def revoke(
    public_key: Annotated[str | None, typer.Argument(metavar="[PUBLIC_KEY]", help="Which: its public key.")] = None,
    user: Annotated[str | None, typer.Option("--user", metavar="ID", help="Which: all of this user.")] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Which: all of this name.")] = None,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Void credentials at once; connections that use them are closed."""
    if public_key is None and user is None and name is None:
        raise typer.BadParameter("say which: a public key, --user or --name")

    async def go() -> None:
        from runtara.sdk.credentials import ask

        settings = settings_for(tenant)
        order = Revoke(public_key=public_key, user=user, name=name)
        revoked = await ask(settings, _operator(settings), order, list[str])
        if not revoked:
            raise CredentialNotFound(tenant=settings.tenant)
        for key in revoked:
            if as_json:
                output.print_json({"public_key": key, "tenant": settings.tenant, "revoked": True})
            else:
                sys.stdout.write(f"{key}\n")

    exits.run(go(), as_json=as_json)


@app.command("init")
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the keys go; made if need be.")],
    resolver: Resolver = Path("/data/accounts"),
    configuration: Configuration = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="If there are keys already, use them; the server's part is written anew.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Draw the keys of a deployment on a NATS server of your own, and write what its configuration includes."""

    async def go() -> None:
        from runtara.infra.credentials.keyring import FILE, OPERATOR_FILE, KeyRing
        from runtara.infra.sealing import FILE as SEALING_FILE
        from runtara.infra.sealing import draw_first

        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (keep and (folder / FILE).exists()):
            KeyRing.create(folder)
        draw_first(folder)
        server = write_configuration(folder, resolver, configuration)
        files = {
            "keys": folder / FILE, "connections_key": folder / SEALING_FILE, "operator": folder / OPERATOR_FILE,
            "configuration": server,
        }  # fmt: skip
        if as_json:
            output.print_json({name: str(file) for name, file in files.items()})
            return
        sys.stdout.write(
            f"{files['keys']}  for engines and `runtara credential`: RUNTARA_NATS_KEYS\n"
            f"{files['connections_key']}  for engines, beside it: seals the secrets of connections\n"
            f"{files['configuration']}  for the server: include it in its configuration\n"
            f"{files['operator']}  for nobody: keep it offline, it can replace all of this\n"
        )

    exits.run(go(), as_json=as_json)


def write_configuration(folder: Path, resolver: Path, file: Path | None) -> Path:
    """What the NATS server includes; where it was written."""
    from runtara.infra.credentials.keyring import CONFIGURATION_FILE, KeyRing
    from runtara.infra.private_files import write_private

    server = file or folder / CONFIGURATION_FILE
    write_private(server, KeyRing.load(folder).configuration(resolver).encode())
    server.chmod(_READABLE)  # the server may be another user's, and nothing in it is secret
    return server


def _operator(settings: Settings) -> "Credential":
    from runtara.sdk.credentials import operator

    found = operator(settings)
    if found is None:
        raise CredentialRefused(
            reason="credentials are issued by whoever has the platform's keys: set RUNTARA_NATS_KEYS, or work in the "
            "directory of a `runtara dev`"
        )
    return found


def _json(view: CredentialView) -> dict[str, object]:
    return {
        "public_key": view.public_key, "tenant": view.tenant, "kind": view.kind, "user": view.user, "name": view.name,
        "instance": view.instance, "issued_by": view.issued_by, "issued_at": output.rfc3339(view.issued_at),
        "expires_at": output.rfc3339(view.expires_at), "revoked_at": output.rfc3339(view.revoked_at),
        "offence": view.offence, "offended_at": output.rfc3339(view.offended_at),
    }  # fmt: skip


def _print(views: list[CredentialView]) -> None:
    if not views:
        sys.stderr.write("no credentials\n")
        return
    output.print_table(
        ("KIND", "USER", "NAME", "EXPIRES", "REVOKED", "ISSUED BY", "PUBLIC KEY", "OVER QUOTA"),
        [
            (
                view.kind, view.user, view.name or "", output.for_people(view.expires_at),
                output.for_people(view.revoked_at), view.issued_by, view.public_key, view.offence or "",
            )
            for view in views
        ],
    )  # fmt: skip
