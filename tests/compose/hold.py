"""A process that holds embedded servers, for tests that kill it: prints one JSON line when they are up, then waits.

`python -m tests.compose.hold DATA`
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from runtara.compose.embedded import EmbeddedServers
from runtara.infra.lifetime import run_until_stopped


def main() -> None:
    servers = EmbeddedServers(Path(sys.argv[1]))

    def ready() -> None:
        facts = {
            "pid": os.getpid(),
            "nats_pid": servers.nats.pid,
            "postgres_pid": servers.postgres.pid,
            "nats_url": servers.nats_url,
            "database_url": servers.database_url,
        }
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()

    asyncio.run(run_until_stopped(servers, ready=ready))


if __name__ == "__main__":
    main()
