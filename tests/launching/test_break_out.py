"""Break-out attempts by the code of an instance in a real container, with what it finds there and nothing of ours."""

from dataclasses import replace
from pathlib import Path

import pytest

from runtara.infra.settings import Settings
from runtara.protocol.subjects import Subjects
from runtara.sdk.client import Client
from tests.launching.conftest import Containers
from tests.security.conftest import PARTITIONS, TENANT
from tests.security.test_break_out import INSTANCE, OWN, PUBLISHES, SUBSCRIPTIONS, named
from tests.support.platform import deploy
from tests.support.polling import eventually
from tests.support.servers import SessionServers

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]


@pytest.fixture
async def deployed(settings: Settings, tmp_path: Path) -> Settings:
    """With the tenant and the partitions for which the list of attempts is made."""
    settings = replace(
        settings, partitions=PARTITIONS, tenant=TENANT, runner_dir=str(tmp_path / "runner"), drain_seconds=3.0
    )
    await deploy(settings)
    return settings


async def test_code_in_a_container_reaches_its_own_instance_and_nothing_else(
    boxes: Containers, client: Client, servers: SessionServers
) -> None:
    """Other instances and tenants, as a client, as an engine, JetStream, the journal, `>`; the operator sees it."""
    own = Subjects(boxes.settings.deployment).instance_reports(OWN, TENANT, INSTANCE)
    publishes = [named(subject, boxes.settings) for subject in PUBLISHES]
    subscriptions = [named(subject, boxes.settings) for subject in SUBSCRIPTIONS]
    before = sum(servers.violations.counts.values())
    await boxes.runner()
    attempts = {"publishes": [own, *publishes], "subscriptions": subscriptions}
    handle = await client.start("breaks_out", attempts, id=INSTANCE)
    assert await handle.result(timeout=90) == {"published": [own], "heard": []}

    def shown() -> bool:
        return sum(servers.violations.counts.values()) - before >= len(publishes) + len(subscriptions)

    await eventually(shown, what="every attempt in the operator's log")
