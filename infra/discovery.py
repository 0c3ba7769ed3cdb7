"""How clients in a directory find the `runtara dev` that runs there: `.runtara/dev.json`.

`dev` writes the file into its current directory, wherever its data are; the command line, the client and
the low-level SDK read it from theirs. Invariants: the file is readable by its owner only (it holds
passwords), it appears whole or not at all, it has a `.gitignore` beside it, and it names its writer by pid
*and* start time, so that a file left behind by a crash is recognised although the pid may be in use again.
"""

from pathlib import Path
from typing import Final

import msgspec

from .private_files import write_private
from .processes import ProcessId

FOLDER: Final = ".runtara"
FILE: Final = "dev.json"


class DevRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A running `dev`: who it is and how to reach its platform. Addresses carry no passwords but the database's;
    credentials and keys are in files of their own."""

    process: ProcessId
    nats_url: str
    nats_user: str | None = None
    nats_password: str | None = None
    nats_credentials: str | None = None  # of a client of the default tenant, a file
    nats_client: str | None = None  # the client's id that its subjects and inboxes have
    nats_keys: str | None = None  # of the platform: whoever runs it may have credentials of any tenant
    database_url: str | None = None
    deployment: str | None = None
    tenant: str | None = None
    console_url: str | None = None
    data: str | None = None

    def is_live(self) -> bool:
        """Whether the `dev` that wrote this still runs."""
        return self.process.is_alive()


def path_in(directory: Path) -> Path:
    return directory / FOLDER / FILE


def write(record: DevRecord, directory: Path) -> Path:
    """Publish `record` for everyone who works in `directory`; returns the file's path."""
    folder = make_folder(directory)
    target = folder / FILE
    write_private(target, msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
    return target


def make_folder(directory: Path) -> Path:
    """`.runtara` in `directory`, ignored by git."""
    folder = directory / FOLDER
    folder.mkdir(exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    return folder


def read(directory: Path) -> DevRecord | None:
    """What the last `dev` in `directory` wrote, live or not; None if there is none or it cannot be read."""
    try:
        return msgspec.json.decode(path_in(directory).read_bytes(), type=DevRecord)
    except (FileNotFoundError, NotADirectoryError, PermissionError, msgspec.MsgspecError):
        return None


def remove(directory: Path) -> None:
    """Take the file away if it is this process's own; another `dev` may have taken over since."""
    record = read(directory)
    if record is not None and record.process == ProcessId.current():
        path_in(directory).unlink(missing_ok=True)
