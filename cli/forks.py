"""`runtara fork`: a new instance that begins where another one stands, or just before one of its keys."""

import sys
from typing import Annotated, Any, Final

import orjson
import typer

from . import exits, output
from .instances import Input, client_of
from .options import AsJson, InstanceId, Labels, Tenant, parse_input, parse_labels

_SET: Final = "--set"


def fork(
    id: InstanceId,
    at: Annotated[
        str | None, typer.Option("--at", metavar="KEY", help="Begin before this operation: it runs again (see `log`).")
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option(
            _SET, metavar="KEY=JSON", help="An answer given by hand, instead of the recorded one; repeatable."
        ),
    ] = None,
    input: Input = None,
    new_id: Annotated[
        str | None, typer.Option("--id", metavar="NEWID", help="The fork's id (default: made up).")
    ] = None,
    latest: Annotated[
        bool, typer.Option("--latest", help="Of a registered JSON workflow: in its last version, not that of ID.")
    ] = False,
    label: Labels = None,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Start a copy of an instance from where it stands, or from KEY on, and print its id.

    What ID has recorded is answered; what failed is tried again; the input and the labels are those of ID unless given.
    ID goes on as it is. Cancelling the fork undoes what the fork has done, never what ID did.
    """
    answers = parse_answers(set)

    async def go() -> None:
        async with client_of(tenant) as client:
            handle = await client.fork(
                id,
                at=at,
                set=answers,
                input=None if input is None else parse_input(input, id),
                new_id=new_id,
                labels=None if label is None else parse_labels(label),
                latest=latest,
            )
        if as_json:
            output.print_json({"id": handle.id})
        else:
            sys.stdout.write(f"{handle.id}\n")

    exits.run(go(), as_json=as_json)


def parse_answers(texts: list[str] | None) -> dict[str, Any]:
    """A key may hold an equals sign, too: the answer begins behind the first one that has JSON behind it."""
    answers: dict[str, Any] = {}
    for text in texts or []:
        places = [place for place, character in enumerate(text) if character == "=" and place > 0]
        for place in places:
            try:
                answers[text[:place]] = orjson.loads(text[place + 1 :])
                break
            except orjson.JSONDecodeError:
                continue
        else:
            reason = (
                "what stands behind the = is not JSON (a text needs its quotes)" if places else "it is not KEY=JSON"
            )
            raise typer.BadParameter(f"{text!r}: {reason}", param_hint=_SET)
    return answers
