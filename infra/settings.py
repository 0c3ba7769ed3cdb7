"""What a process is told from outside: one frozen record, read once at the edge and passed on.

A value comes from, in this order: a flag of the command line, the variable `RUNTARA_<NAME>`, the
`.runtara/dev.json` of a live `runtara dev` in the current directory, the default named here. There is no
configuration file. A secret may also be the content of the file that `RUNTARA_<NAME>_FILE` names, so that it need
not be in an environment, which others see. In each of these layers `None` (or an empty variable) means "not given"; a
field that is `None` in the record was given nowhere and has no default. `docs/settings.md` is generated from this
module (`python docs/generate.py`).

Invariant: nothing else in the code reads `RUNTARA_…` variables.
"""

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args, get_type_hints
from urllib.parse import urlsplit

from runtara.protocol.errors import InvalidSetting, PlatformUnreachable
from runtara.protocol.ids import DEFAULT_TENANT, check_id

from . import discovery

PREFIX: Final = "RUNTARA_"
FILE_SUFFIX: Final = "_FILE"
_DEPLOYMENT: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_NATS_SCHEMES: Final = frozenset({"nats", "tls", "ws", "wss"})
_LOGINS: Final = frozenset({"nats_user", "nats_password", "nats_credentials", "nats_keys"})
_POSTGRES_SCHEMES: Final = frozenset({"postgresql", "postgres", "postgresql+asyncpg"})

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["json", "console"]


def _setting(default: object, text: str, *, secret: bool = False) -> Any:
    return dataclasses.field(default=default, repr=not secret, metadata={"help": text})


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """All settings of a process. Every field has its help text in `metadata["help"]`."""

    deployment: str = _setting(
        "runtara",
        "Name of the deployment: first token of every subject, prefix of every stream, name of the Postgres schema.",
    )
    nats_url: str | None = _setting(
        None, "Address of the NATS server, `nats://host:port`; several are separated by commas."
    )
    nats_user: str | None = _setting(None, "User at the NATS server.")
    nats_password: str | None = _setting(None, "Password at the NATS server.", secret=True)
    nats_credentials: str | None = _setting(
        None,
        "Credential for the NATS server: a `.creds` file (`runtara credential create` writes one), or what it holds.",
        secret=True,
    )
    nats_keys: str | None = _setting(
        None,
        "The deployment's signing keys, a file or its folder (`runtara credential init`): with them engines keep an "
        "account for each tenant. Engines and `migrate` need it, and whoever issues credentials; nobody else.",
    )
    connections_key: str | None = _setting(
        None,
        "Key that seals the secrets of connections, 64 hex digits; behind it, separated by blanks, older ones that "
        "still open some. Only engines need it. Default: what is in the file `connections.key` beside `nats_keys`.",
        secret=True,
    )
    tls_ca: str | None = _setting(
        None,
        "Certificates of the authorities (PEM) that vouch for NATS and Postgres (unless its address has an `sslmode`); "
        "the system's unless given.",
    )
    tls_certificate: str | None = _setting(
        None, "Certificate (PEM) by which this process is known to NATS and Postgres."
    )
    tls_key: str | None = _setting(None, "Key (PEM) of that certificate, if it is in a file of its own.")
    database_url: str | None = _setting(
        None,
        "Address of the Postgres database, `postgresql://user:password@host:port/name`. Only engines need it.",
        secret=True,
    )
    tenant: str = _setting(DEFAULT_TENANT, "The tenant a client or worker belongs to.")
    instance: str | None = _setting(
        None,
        "The instance that a script of its own speaks for (`Instance.connect`), or that a runner launched this for.",
    )
    attempt: int | None = _setting(None, "The attempt that a runner launched this process for. Runners set it.")
    token: str | None = _setting(
        None, "What a launched process takes its runner's claim over with, once. Runners set it.", secret=True
    )
    worker: str | None = _setting(None, "The worker's id of a launched process. Runners set it.")
    workflow: str | None = _setting(
        None,
        "The only workflow that a launched worker hosts. It is registered with an image, so the worker registers "
        "nothing. Runners set it.",
    )
    log_level: LogLevel = _setting("info", "The least severe log lines that are written.")
    log_format: LogFormat | None = _setting(None, "`console` (for people) at a terminal, else `json`, unless given.")
    partitions: int = _setting(
        1, "Partitions of a new deployment. Fixed when `runtara migrate` or the first `dev` creates it."
    )
    journal_max_bytes: int = _setting(
        1024**3, "Size of a partition's journal stream, in bytes. A full journal refuses; it never drops."
    )
    replicas: int = _setting(1, "Replicas of each stream: 1, or 3 in a NATS cluster of three servers or more.")
    journal_keep_seconds: int = _setting(
        600, "How long committed records stay in the journal, for a database that has to be rebuilt from a back-up."
    )
    database_connections: int = _setting(
        8, "Most connections an engine opens to Postgres, besides one for each partition that it owns."
    )
    concurrency: int = _setting(
        100, "How many instances a worker process runs at once, those not counted that only wait."
    )
    max_resident: int = _setting(
        1_000, "How many instances a worker process holds in memory, those included that wait for something."
    )
    drain_seconds: float = _setting(10.0, "How long a worker that is asked to stop lets steps in flight finish.")
    slots: int = _setting(20, "How many processes or containers a runner has at once.")
    launch_seconds: float = _setting(
        60.0, "How long a launched process or container may take until it speaks for its instance; then it is ended."
    )
    runner_name: str | None = _setting(
        None,
        "Name of a runner of containers, by which it finds its own again when it is restarted. Two that use one Docker "
        "Engine, or one namespace of Kubernetes, need two names. Default: the host's name, or the namespace's.",
    )
    runner_dir: str | None = _setting(
        None,
        "Folder in which a runner lays the secrets of its containers; the Docker Engine must see it under the same "
        "path, and it should be in memory. Default: `/run/runtara`, or a temporary folder.",
    )
    secrets_dir: str | None = _setting(
        None, "Folder with the values of the secrets that images name, a file each. Runners of containers read it."
    )
    bus_network: str | None = _setting(
        None,
        "Docker network in which containers reach NATS and nothing else. Default: an internal one that the runner "
        "makes, from which they reach the host alone.",
    )
    nats_url_inside: str | None = _setting(
        None, "Address of the NATS server as containers reach it, if `nats_url` is not that."
    )
    kubernetes_namespace: str | None = _setting(
        None,
        "Namespace in which a runner of kind kubernetes makes Jobs. Default: its service account's, or the context's.",
    )
    kubernetes_context: str | None = _setting(
        None,
        "Context of the kubeconfig (`KUBECONFIG`, `~/.kube/config`) with which a runner reaches the API server. "
        "Default: the service account of its pod, or else the current context.",
    )

    http_allow_private: str | None = _setting(
        None,
        "Private addresses that the HTTP agent may reach, which are refused else: hosts (`.example.org`: all below) "
        "and networks (`10.0.0.0/8`), separated by commas; or `all` (but for link-local ones, where clouds keep their "
        "metadata: name their network).",
    )

    def __post_init__(self) -> None:
        if not _DEPLOYMENT.fullmatch(self.deployment):
            raise InvalidSetting(
                name="deployment",
                value=self.deployment,
                reason="use 1 to 40 lower-case letters, digits, '_' or '-', beginning with a letter",
            )
        check_id(self.tenant, "tenant")
        for name in ("instance", "worker", "workflow"):
            if getattr(self, name) is not None:
                check_id(getattr(self, name), name)
        for name in ("nats_url", "nats_url_inside"):
            _check_nats_url(name, getattr(self, name))
        _check_database_url(self.database_url)
        for name in (
            "partitions",
            "replicas",
            "journal_max_bytes",
            "database_connections",
            "concurrency",
            "max_resident",
            "slots",
        ):
            _check_at_least(name, getattr(self, name), 1)
        if self.attempt is not None:
            _check_at_least("attempt", self.attempt, 1)
        for name in ("journal_keep_seconds", "drain_seconds", "launch_seconds"):
            _check_at_least(name, getattr(self, name), 0)

    @classmethod
    def load(
        cls,
        flags: Mapping[str, object | None] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> Self:
        """The settings of this process; `flags` are those of its command line, by field name.

        `environ` and `directory` are the process's own unless given. Raises `InvalidSetting` for a value that
        cannot be used, naming the setting.
        """
        environ = os.environ if environ is None else environ
        directory = Path.cwd() if directory is None else directory
        given = _from_environ(environ) | _given(flags or {})
        return cls(**(_from_dev(directory, given) | given))

    def to_environ(self) -> dict[str, str]:
        """The variables that give a child process these settings (those that differ from the defaults)."""
        return {
            f"{PREFIX}{field.name.upper()}": str(value)
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != field.default
        }

    def require_nats_url(self) -> str:
        """The address of NATS, or `PlatformUnreachable`, which says how to get one."""
        if self.nats_url is None:
            raise PlatformUnreachable(reason=_nothing_found("NATS"))
        return self.nats_url

    def require_database_url(self) -> str:
        """The address of Postgres, or `InvalidSetting`, which says how to get one."""
        if self.database_url is None:
            raise InvalidSetting(
                name="database_url", value=None, reason=f"{_nothing_found('Postgres')}; set RUNTARA_DATABASE_URL"
            )
        return self.database_url


SECRETS: Final = tuple(field.name for field in dataclasses.fields(Settings) if not field.repr)


def _nothing_found(server: str) -> str:
    left_behind = discovery.read(Path.cwd())
    if left_behind is not None and not left_behind.is_live():
        return f"no address of {server} is known, and the `runtara dev` of this directory is no longer running"
    return f"no address of {server} is known, and no `runtara dev` runs in this directory"


def _given(values: Mapping[str, object | None]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    hints = get_type_hints(Settings)
    texts = {name: environ.get(f"{PREFIX}{name.upper()}", "") for name in hints}
    for name in SECRETS:
        file = environ.get(f"{PREFIX}{name.upper()}{FILE_SUFFIX}", "")
        if file and not texts[name]:
            texts[name] = _from_file(name, file)
    return {name: _parse(name, text, hints[name]) for name, text in texts.items() if text}


def _from_file(name: str, file: str) -> str:
    try:
        return Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSetting(
            name=f"{name}{FILE_SUFFIX.lower()}", value=file, reason=f"it cannot be read: {error}"
        ) from error


def _from_dev(directory: Path, given: Mapping[str, object]) -> dict[str, Any]:
    """What `dev` says; its logins only for its own server, and only if no other login is given."""
    record = discovery.read(directory)
    if record is None or not record.is_live():
        return {}
    names = {field.name for field in dataclasses.fields(Settings)}
    if given.keys() & {"nats_url", "nats_user", "nats_credentials", "nats_keys"}:
        names -= _LOGINS
    return _given({name: getattr(record, name) for name in record.__struct_fields__ if name in names})


def _parse(name: str, text: str, hint: Any) -> object:
    choices = [choice for part in (hint, *get_args(hint)) for choice in get_args(part) if isinstance(choice, str)]
    if choices and text not in choices:
        raise InvalidSetting(name=name, value=text, reason=f"use one of {', '.join(choices)}")
    number = next((kind for kind in (hint, *get_args(hint)) if kind in (int, float)), None)
    if number is None:
        return text
    try:
        return number(text)
    except ValueError as error:
        raise InvalidSetting(name=name, value=text, reason="use a number") from error


def _check_at_least(name: str, value: float, least: float) -> None:
    if not value >= least:  # nor NaN
        raise InvalidSetting(name=name, value=value, reason=f"use at least {least}")


def _check_nats_url(name: str, url: str | None) -> None:
    for one in (url or "").split(",") if url else ():
        if urlsplit(one.strip()).scheme not in _NATS_SCHEMES:
            raise InvalidSetting(name=name, value=_without_password(one), reason="use nats://host:port")


def _check_database_url(url: str | None) -> None:
    if url is None:
        return
    scheme = urlsplit(url).scheme
    if scheme.startswith("sqlite"):
        raise InvalidSetting(
            name="database_url",
            value=url,
            reason="SQLite is not supported, because the event log needs Postgres; leave the setting out and "
            "`runtara dev` runs an embedded Postgres, or use postgresql://user:password@host:port/name",
        )
    if scheme not in _POSTGRES_SCHEMES:
        raise InvalidSetting(
            name="database_url", value=_without_password(url), reason="use postgresql://user:password@host:port/name"
        )


def _without_password(url: str) -> str:
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:…@", url)
