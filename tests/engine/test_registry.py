"""Registrations: what one engine was told, the others know."""

import msgspec
import pytest

from runtara.engine import registry as registry_module
from runtara.engine.registry import Registry
from runtara.protocol.messages import Registration
from runtara.protocol.records import Options
from tests.support.peer import Peer

ID = ("default", "wf")


async def test_a_change_at_one_engine_is_seen_by_another(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "FRESH_SECONDS", 0.0)
    one, other = (Registry(peer.pool, peer.bus, peer.subjects) for _ in range(2))
    first = Registration(workflow="wf", options=Options(restarts=1))
    await one.register("default", "w1", [first])
    assert (await other.find([ID]))[ID].options.restarts == 1
    await one.register("default", "w1", [msgspec.structs.replace(first, options=Options(restarts=7))])
    assert (await other.find([ID]))[ID].options.restarts == 7
    assert await one.delete("default", "wf")
    assert ID not in await other.find([ID])


async def test_what_was_asked_a_moment_ago_is_not_asked_again(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "FRESH_SECONDS", 60.0)
    one, other = (Registry(peer.pool, peer.bus, peer.subjects) for _ in range(2))
    await one.register("default", "w1", [Registration(workflow="wf", options=Options(restarts=1))])
    await other.find([ID])
    await one.register("default", "w1", [Registration(workflow="wf", options=Options(restarts=7))])
    assert (await other.find([ID]))[ID].options.restarts == 1
