"""Connections: what an agent needs to know to reach a service, as typed records whose secrets never show.

Invariants: a secret is a `SecretStr`, so neither `repr` nor an error shows it; an error of `parse_connection` names
fields and never values; `redact` takes the secrets of a connection out of a text that others wrote.
"""

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from runtara.protocol.errors import InvalidConnection

from .errors import AgentError

ENTRY_POINTS: Final = "runtara.connections"
HIDDEN: Final = "***"
_LEAST_SECRET: Final = 4  # characters: what is shorter would be taken out of innocent words
_HEADER_NAME: Final = r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}$"
_HTTP_URL: Final = re.compile(r"https?://[^\s/?#@\\]+(?:[/?#]|$)", re.IGNORECASE)


class Connection(BaseModel):
    """Base of the types of connection. Secrets are fields of type `SecretStr`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    def secrets(self) -> Iterator[str]:
        """The values that must not show."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, SecretStr):
                yield value.get_secret_value()


BaseUrl = Annotated[
    str | None, Field(description="Where relative addresses begin; no other origin is sent the secret.")
]


class _OfHttp(Connection):
    base_url: BaseUrl = None

    @field_validator("base_url")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        if value is not None and not _HTTP_URL.match(value):
            raise ValueError("it must begin with http:// or https:// and a host, without a login")
        return value


class HttpBearer(_OfHttp):
    """A token that is sent as `Authorization: Bearer …`."""

    token: SecretStr = Field(min_length=1)


class HttpApiKey(_OfHttp):
    """A key that is sent in a header of its own."""

    api_key: SecretStr = Field(min_length=1)
    header_name: str = Field(default="X-API-Key", pattern=_HEADER_NAME)


class HttpBasic(_OfHttp):
    """A user and a password that are sent as `Authorization: Basic …`."""

    username: str = Field(min_length=1)
    password: SecretStr

    def encoded(self) -> str:
        """As the header carries it."""
        return base64.b64encode(f"{self.username}:{self.password.get_secret_value()}".encode()).decode()

    def secrets(self) -> Iterator[str]:
        yield from super().secrets()
        yield self.encoded()


class Sftp(Connection):
    """An SFTP server, and how to log in: by password, or by private key."""

    host: str = Field(min_length=1, max_length=255)
    port: int = Field(default=22, ge=1, le=65_535)
    username: str = Field(min_length=1)
    password: SecretStr | None = None
    private_key: SecretStr | None = Field(default=None, description="In OpenSSH's or PEM's form.")
    passphrase: SecretStr | None = Field(default=None, description="Of the private key.")
    known_hosts: str | None = Field(
        default=None,
        description="The host's key, as a line of a known_hosts file or as `ssh-keyscan` prints it. Without it no host "
        "is trusted.",
    )
    base_path: str | None = Field(
        default=None, pattern="^/", description="The folder that no path may leave; relative ones begin there."
    )


HttpConnection = HttpBearer | HttpApiKey | HttpBasic


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionType:
    """A type of connection: the name it is stored with, and its fields."""

    id: str
    model: type[Connection]

    @property
    def description(self) -> str:
        return (self.model.__doc__ or "").strip()

    @property
    def secret_fields(self) -> tuple[str, ...]:
        return tuple(name for name, field in self.model.model_fields.items() if "SecretStr" in str(field.annotation))


_BUILT_IN: Final[dict[str, type[Connection]]] = {
    "http_bearer": HttpBearer,
    "http_api_key": HttpApiKey,
    "http_basic": HttpBasic,
    "sftp": Sftp,
}


@lru_cache(maxsize=1)
def connection_types() -> Mapping[str, ConnectionType]:
    """All types by id: ours, and those of the entry-point group `runtara.connections` (name = id, value = a subclass
    of `Connection`). One of a built-in's id is left aside."""
    models: dict[str, Any] = {point.name: point.load() for point in entry_points(group=ENTRY_POINTS)}
    return {id: ConnectionType(id=id, model=model) for id, model in {**models, **_BUILT_IN}.items()}


def parse_connection(type: str, fields: Mapping[str, object]) -> Connection:
    """The typed connection. Raises `InvalidConnection`, which names the fields that are wrong and shows no value."""
    found = connection_types().get(type)
    if found is None:
        known = ", ".join(sorted(connection_types()))
        raise InvalidConnection(type=type, reason=f"there is no such type; there are {known}")
    try:
        return found.model.model_validate(dict(fields))
    except ValidationError as exc:
        problems = [
            f"{'.'.join(map(str, error['loc'])) or type}: {error['msg']}"
            for error in exc.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise InvalidConnection(type=type, reason="; ".join(problems)) from None


def redact(text: str, connection: Connection) -> str:
    """`text` without the connection's secrets."""
    for secret in sorted(connection.secrets(), key=len, reverse=True):
        if len(secret) >= _LEAST_SECRET:
            text = text.replace(secret, HIDDEN)
    return text


def without_secrets(error: AgentError, connection: Connection) -> AgentError:
    """The error without the connection's secrets, whoever wrote them into it."""
    return AgentError(
        error.code,
        redact(error.message, connection),
        category=error.category,
        severity=error.severity,
        retry_after=error.retry_after,
        attributes={name: _redacted(value, connection) for name, value in error.attributes.items()},
    )


def _redacted(value: object, connection: Connection) -> object:
    if isinstance(value, str):
        return redact(value, connection)
    if isinstance(value, dict):
        return {name: _redacted(item, connection) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redacted(item, connection) for item in value]
    return value
