"""From the name of a connection to the typed one, in a workflow or a step that may open it.

    crm = await resolve("crm", HttpBearer)
    answered = await ctx.step("orders", http.request, HttpRequest(url="orders"), crm)

Invariant: what is opened is recorded nowhere; as an argument of a step a connection counts by what is not secret in it.
"""

from typing import TypeVar, overload

from runtara.protocol.errors import InvalidConnection
from runtara.sdk import connection

from .connections import Connection, parse_connection

C = TypeVar("C", bound=Connection)


@overload
async def resolve(name: str) -> Connection: ...


@overload
async def resolve(name: str, kind: type[C]) -> C: ...


async def resolve(name: str, kind: type[Connection] = Connection) -> Connection:
    """The connection `name`, which must be of the type `kind`.

    Raises `ConnectionNotAllowed`, `ConnectionNotFound`, `NoContext`, `InvalidConnection`.
    """
    found = await connection(name)
    parsed = parse_connection(found.type, found.fields)
    if not isinstance(parsed, kind):
        raise InvalidConnection(type=kind.__name__, reason=f"{name!r} is of type {found.type}")
    return parsed
