"""An OpenSSH server of a test's own, as the user who runs the tests, or in a mount namespace with accounts of its own.

As root it runs where `/etc/passwd` and `/etc/shadow` are other files, so that a password can be tried without changing
the machine's accounts; otherwise it knows only who runs the tests, by key.
"""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .require import require

PASSWORD: Final = "correct horse battery"
PASSPHRASE: Final = "a phrase for the key"
SECONDS: Final = 20.0
NOBODY: Final = 65_534
_SFTP_SERVERS: Final = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server")
_CONFIG: Final = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/authorized_keys
PasswordAuthentication {password}
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
LogLevel VERBOSE
Subsystem sftp {sftp_server}
"""


@dataclass(slots=True)
class Sshd:
    """A server that listens at 127.0.0.1. `files` is a folder in which its user may write; `key` logs in."""

    port: int
    user: str
    folder: Path
    files: Path
    has_passwords: bool
    process: subprocess.Popen[bytes]

    @property
    def known_hosts(self) -> str:
        public = (self.folder / "host_key.pub").read_text().split()
        return f"[127.0.0.1]:{self.port} {public[0]} {public[1]}"

    def key(self, name: str = "user_key") -> str:
        return (self.folder / name).read_text()

    def stop(self) -> None:
        """All of it, sessions included."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def no_sshd() -> str | None:
    """Why there is no OpenSSH server to be run; None if there is one."""
    missing = [name for name, found in (("sshd", _sshd()), ("sftp-server", _sftp_server())) if found is None]
    missing += [name for name in ("ssh-keygen", "openssl") if shutil.which(name) is None]
    return f"there is no {' and no '.join(missing)} (package openssh-server)" if missing else None


@contextlib.contextmanager
def sshd(folder: Path) -> Iterator[Sshd]:
    """A server with what it needs in `folder`, which is made. Skips the test where there is none (see `require`)."""
    require("sftp", no_sshd)
    files = folder / "files"
    files.mkdir(parents=True)
    for name, phrase in (("host_key", ""), ("user_key", ""), ("locked_key", PASSPHRASE), ("other_key", "")):
        make_key(folder / name, phrase)
    allowed = [(folder / f"{name}.pub").read_text() for name in ("user_key", "locked_key")]
    (folder / "authorized_keys").write_text("".join(allowed))
    as_root = os.geteuid() == 0 and _may_mount()
    if as_root:
        os.chown(files, NOBODY, NOBODY)
    port = _free_port()
    (folder / "sshd_config").write_text(
        _CONFIG.format(port=port, folder=folder, password="yes" if as_root else "no", sftp_server=_sftp_server())
    )
    made = Sshd(
        port=port,
        user="ada" if as_root else getpass.getuser(),
        folder=folder,
        files=files,
        has_passwords=as_root,
        process=_start(folder, as_root=as_root),
    )
    try:
        _wait(made)
        yield made
    finally:
        made.stop()


def make_key(file: Path, passphrase: str = "", kind: str = "ed25519") -> None:
    for old in (file, file.with_suffix(".pub")):
        old.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", str(file)]
    subprocess.run(command, check=True, capture_output=True)


def _start(folder: Path, *, as_root: bool) -> subprocess.Popen[bytes]:
    command = [_sshd() or "sshd", "-D", "-e", "-f", str(folder / "sshd_config")]
    if as_root:
        hashed = subprocess.run(["openssl", "passwd", "-6", PASSWORD], check=True, capture_output=True, text=True)
        accounts = "root:x:0:0::/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
        (folder / "passwd").write_text(f"{accounts}ada:x:{NOBODY}:{NOBODY}::{folder}/files:/bin/sh\n")
        (folder / "shadow").write_text(
            f"root:*:19000::::::\nsshd:*:19000::::::\nada:{hashed.stdout.strip()}:19000::::::\n"
        )
        script = (
            f"mount --bind {folder}/passwd /etc/passwd && mount --bind {folder}/shadow /etc/shadow && "
            'mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && exec "$@"'
        )
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *command]
    log = (folder / "sshd.log").open("ab")
    with log:
        return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)


def _wait(made: Sshd) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and made.process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", made.port), timeout=1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"sshd does not listen: {(made.folder / 'sshd.log').read_text()}")


def _may_mount() -> bool:
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return done.returncode == 0


def _sshd() -> str | None:
    """With its whole path, as it asks for."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _sftp_server() -> str | None:
    return next((path for path in _SFTP_SERVERS if os.access(path, os.X_OK)), None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
