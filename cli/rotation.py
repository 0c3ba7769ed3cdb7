"""`runtara credential rotate`: other keys in place of those that sign, while everything runs."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from runtara.infra.settings import Settings
from runtara.protocol.errors import CredentialRefused

from . import exits, output
from .credentials import Configuration, Resolver, write_configuration
from .options import AsJson, parse_age, settings_for


def rotate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the keys are, as `init` made it.")],
    after: Annotated[
        str, typer.Option("--after", metavar="AGE", help="When the new keys sign; every engine must have DIR by then.")
    ] = "5m",
    old_for: Annotated[
        str, typer.Option("--old-for", metavar="AGE", help="How long from then on what the old ones signed is good.")
    ] = "30d",
    operator: Annotated[
        bool, typer.Option("--operator", help="The key that signs accounts instead: draw another one (the first step).")
    ] = False,
    use: Annotated[
        bool, typer.Option("--use", help="With --operator: NATS was restarted; sign with it (the second step).")
    ] = False,
    operator_key: Annotated[
        Path | None,
        typer.Option("--operator-key", metavar="FILE", help="With --operator: operator.nk, if it is not in DIR."),
    ] = None,
    resolver: Resolver = Path("/data/accounts"),
    configuration: Configuration = None,
    as_json: AsJson = False,
) -> None:
    """Draw other signing keys. Workflows go on; credentials are renewed with the new keys as they come of age."""
    if use and not operator:
        raise typer.BadParameter("only the operator's key needs a second step", param_hint="--use")

    async def go() -> None:
        if not operator:
            _rotate_users(folder, parse_age(after, "--after"), parse_age(old_for, "--old-for"), as_json=as_json)
        elif not use:
            _draw_operator(folder, operator_key, as_json=as_json)
        else:
            await _use_operator(settings_for(None, nats_keys=str(folder)), folder, as_json=as_json)
        server = write_configuration(folder, resolver, configuration)
        if not as_json:
            sys.stderr.write(f"{server} is written anew, for the next start of NATS\n")

    exits.run(go(), as_json=as_json)


def _rotate_users(folder: Path, after: timedelta, old_for: timedelta, *, as_json: bool) -> None:
    from runtara.infra.credentials.rotation import rotate_users

    made = rotate_users(folder, after=after.total_seconds(), old_for=old_for.total_seconds())
    active = made.active_from * 1_000_000
    end = active + round(old_for.total_seconds() * 1e6)
    if as_json:
        output.print_json({"signs_from": output.rfc3339(active), "old_until": output.rfc3339(end)})
        return
    sys.stdout.write(
        f"the new keys sign from {output.for_people(active)} on: every engine must have {folder} by then\n"
        f"what the old ones have signed is good until {output.for_people(end)}\n"
    )


def _draw_operator(folder: Path, operator_key: Path | None, *, as_json: bool) -> None:
    from runtara.infra.credentials.rotation import draw_operator

    drawn = draw_operator(folder, operator_key)
    if as_json:
        output.print_json({"signing_key": drawn, "signs": False})
        return
    sys.stdout.write(
        f"{drawn} is drawn, and signs nothing yet: restart every NATS server with the new configuration, one by one,\n"
        f"then: runtara credential rotate {folder} --operator --use\n"
    )


async def _use_operator(settings: Settings, folder: Path, *, as_json: bool) -> None:
    from runtara.engine.accounts import connect_system
    from runtara.engine.operator_keys import servers_without, sign_anew
    from runtara.infra.credentials.key_file import KeyFile
    from runtara.infra.credentials.rotation import drawn_operator, use_operator

    keys = KeyFile(folder)
    drawn = drawn_operator(folder)
    async with await connect_system(settings, keys, name="runtara credential rotate") as bus:
        if drawn is not None:
            behind = await servers_without(bus, drawn)
            if behind:
                raise CredentialRefused(reason=f"not restarted yet with the new configuration: {', '.join(behind)}")
            use_operator(folder)
        count = await sign_anew(bus, keys.ring)
    if as_json:
        output.print_json({"signing_key": keys.ring.operator_signing_key, "signs": True, "accounts": count})
        return
    sys.stdout.write(
        f"{count} accounts are signed anew. Restart NATS once more when it suits: till then it trusts the old key too\n"
    )
