"""Registered definitions: JSON workflows that the platform keeps, in versions, and that workers host by what it says.

Invariant: their run requests wait under a kind of their own, for one consumer of the tenant: whoever hosts one hosts
all, in whatever version an instance has, and nobody who hosts code of files takes them.
"""

import hashlib
from typing import Final

import msgspec
from msgspec import Raw

from .errors import InvalidDefinition
from .frames import too_deep
from .limits import MAX_DEFINITION_BYTES, MAX_NESTING

KIND: Final = "json"  # of runner, in the options of their instances
EVERY: Final = "*"  # among the names of what a worker hosts: all that are registered


def check_definition(workflow: str, document: Raw) -> str:
    """The document's hash, the same however its JSON is spaced. Raises `InvalidDefinition`.

    Whether it is a workflow that runs is for those to say who know the language.
    """
    text = bytes(document)
    if len(text) > MAX_DEFINITION_BYTES:
        reason = f"it has {len(text):,} bytes; the limit is {MAX_DEFINITION_BYTES:,}. Data belong into the input"
        raise InvalidDefinition(workflow=workflow, reason=reason)
    if too_deep(text, MAX_NESTING):
        raise InvalidDefinition(workflow=workflow, reason=f"it is nested deeper than {MAX_NESTING} levels")
    try:
        value = msgspec.json.decode(text, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise InvalidDefinition(workflow=workflow, reason=f"it is not a JSON object: {exc}") from exc
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()
