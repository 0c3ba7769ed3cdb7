"""The registry: ours and others' agents by name, loaded when they are asked for."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from runtara.agents.registry import ENTRY_POINTS, Registry, registry
from runtara.protocol.errors import InvalidAgent, UnknownAgent, UnknownCapability

PARCELS = ("parcels", "tests.support.parcels:Parcels")


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=value, group=ENTRY_POINTS)


def test_agents_and_capabilities_are_found_by_id_and_alias() -> None:
    found = Registry((PARCELS,))
    assert found.ids() == ("parcels",)
    assert found.agent("parcels") is found.agents()[0]
    assert found.capability("parcels", "weight") is found.capability("parcels", "weigh")


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    found = Registry((PARCELS,))
    with pytest.raises(UnknownAgent, match="did you mean 'parcels'"):
        found.agent("parcel")
    with pytest.raises(UnknownCapability, match="did you mean 'weigh"):
        found.capability("parcels", "weigth")


def test_other_packages_add_theirs() -> None:
    found = Registry((), (entry(*PARCELS),))
    assert found.capability("parcels", "weigh").agent == "parcels"


def test_an_agent_of_ours_is_not_taken_over() -> None:
    found = Registry((PARCELS,), (entry("parcels", "os:path"),))
    assert found.agent("parcels").id == "parcels"


@pytest.mark.parametrize(
    ("value", "reason"),
    [("no_such_module:A", "No module named"), ("tests.support.parcels:Weigh", "is no agent"), (PARCELS[1], "agree")],
)
def test_one_that_cannot_be_used_is_named_and_disturbs_no_other(value: str, reason: str) -> None:
    found = Registry((PARCELS,), (entry("broken", value),))
    with pytest.raises(InvalidAgent, match=reason):
        found.agent("broken")
    assert found.agent("parcels").id == "parcels"


@pytest.mark.smoke
def test_every_agent_of_ours_can_be_loaded_and_is_what_it_is_called() -> None:
    assert [agent.id for agent in registry().agents()] == list(registry().ids())


def test_the_libraries_of_single_agents_are_loaded_with_them_and_not_before() -> None:
    code = (
        "import sys, runtara.agents, runtara.agents.registry as r, runtara.agents.calls, runtara.agents.catalogue;"
        "r.registry().ids(); print(*{'httpx', 'asyncssh', 'lxml', 'jinja2', 'regex', 'pycountry'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
