"""What a connection may hold: a name, a type, and fields with secrets. Checked where it is set and where it is sealed.

Invariant: no error here shows a field's value.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from .errors import BadInput, InvalidConnection, InvalidId
from .frames import too_deep
from .ids import check_id, is_id
from .limits import MAX_CONNECTION_BYTES, MAX_CONNECTION_FIELDS, MAX_NESTING, MAX_WORKFLOW_CONNECTIONS

Fields = dict[str, object]


def check_connection(name: str, type: str, fields: Raw) -> None:
    """Raises `InvalidId`, `InvalidConnection`."""
    check_id(name, "connection")
    if not is_id(type):
        raise InvalidId(kind="type of a connection", value=repr(type)[:80])
    problem = _problem(fields)
    if problem is not None:
        raise InvalidConnection(type=type, reason=problem)


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """The connections that a workflow may open. Raises `InvalidId`, `BadInput`."""
    for name in names:
        check_id(name, "connection")
    if len(names) > MAX_WORKFLOW_CONNECTIONS:
        raise BadInput(reason=f"a workflow names {len(names)} connections; the limit is {MAX_WORKFLOW_CONNECTIONS}")
    return tuple(dict.fromkeys(names))


def read_fields(fields: Raw | bytes) -> Fields:
    return msgspec.json.decode(fields, type=Fields)


def _problem(fields: Raw) -> str | None:
    if len(bytes(fields)) > MAX_CONNECTION_BYTES:
        return f"its fields have {len(bytes(fields)):,} bytes; the limit is {MAX_CONNECTION_BYTES:,}"
    if too_deep(bytes(fields), MAX_NESTING):
        return f"its fields are nested deeper than {MAX_NESTING} levels"
    try:
        found = read_fields(fields)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return "its fields must be a JSON object"
    if not 0 < len(found) <= MAX_CONNECTION_FIELDS:
        return f"it has {len(found)} fields; give at least one, and at most {MAX_CONNECTION_FIELDS}"
    return None if all(map(is_id, found)) else "a field's name must be 1 to 128 letters, digits, '_' or '-'"
