"""The decorators: what they find out, and what they refuse at once."""

import pytest

from runtara.agents import Inputs, agent, capability
from runtara.agents.agent import agent_of
from tests.support.parcels import Anything, Fail, Parcels, Weigh, Weight

PARCELS = agent_of(Parcels)


def test_a_class_becomes_an_agent_with_its_capabilities_in_order() -> None:
    assert (PARCELS.id, PARCELS.display_name, PARCELS.description) == (
        "parcels",
        "Parcels",
        "Weighs and sends parcels.",
    )
    assert list(PARCELS.capabilities) == ["weigh", "weigh-in-a-thread", "read", "send", "ask", "return", "fail"]


def test_a_capability_knows_its_models_and_its_promises() -> None:
    weigh = PARCELS.capabilities["weigh"]
    assert (weigh.inputs, weigh.output, weigh.aliases) == (Weigh, Weight, ("weight",))
    assert weigh.description == "Says what a parcel weighs.\n\nIn kilograms."
    assert (weigh.side_effects, weigh.idempotent, weigh.inline, weigh.is_async) == (False, True, True, False)
    assert PARCELS.capabilities["send"].side_effects, "the agent's, unless it says otherwise"
    assert PARCELS.find("weight") is weigh


@pytest.mark.parametrize(
    ("id", "connections", "required"),
    [
        ("weigh", (), False),
        ("send", ("http_bearer", "http_basic"), True),
        ("ask", ("http_bearer", "http_basic"), False),
    ],
)
def test_whether_it_needs_a_connection_is_read_from_its_signature(
    id: str, connections: tuple[str, ...], required: bool
) -> None:
    found = PARCELS.capabilities[id]
    assert (found.connections, found.connection_required) == (connections, required)


def test_a_decorated_method_is_still_a_plain_method() -> None:
    assert Parcels().weigh(Weigh(grams=500)).kilograms == 0.5


def test_an_agent_inherits_the_capabilities_of_its_base_and_may_replace_them() -> None:
    @agent("fast-parcels")
    class Fast(Base):
        @capability("weigh")
        def weigh(self, inputs: Weigh) -> int:
            """Quicker."""
            return 1

    found = agent_of(Fast).capabilities
    assert list(found) == ["weigh", "fail"]
    assert found["weigh"].description == "Quicker."
    with pytest.raises(TypeError, match="is no agent"):
        agent_of(Base)


class Base:
    @capability("weigh")
    def weigh(self, inputs: Weigh) -> int:
        """Slowly."""
        return 0

    @capability("fail")
    def fail(self, inputs: Fail) -> None:
        """Fails."""


def test_what_does_not_fit_is_refused_when_the_class_is_made() -> None:
    def takes_a_dict(self: object, inputs: dict[str, object]) -> int:
        return 0

    def takes_nothing(self: object) -> int:
        return 0

    def says_nothing_of_its_result(self: object, inputs: Weigh):  # type: ignore[no-untyped-def]
        return 0

    def takes_a_connection(self: object, inputs: Weigh, connection: object) -> int:
        return 0

    for method, reason in (
        (takes_a_dict, "subclass of Inputs"),
        (takes_nothing, r"\(self, inputs\)"),
        (says_nothing_of_its_result, "annotate what it returns"),
        (takes_a_connection, "names no type of one"),
    ):
        with pytest.raises(TypeError, match=reason):
            agent("bad")(type("Bad", (), {"method": capability("do")(method)}))


def test_names_are_legal_and_used_once() -> None:
    with pytest.raises(TypeError, match="no capability"):
        agent("empty")(type("Empty", (), {}))
    with pytest.raises(TypeError, match="two capabilities named 'b'"):

        @agent("twice")
        class Twice:
            @capability("a", aliases=("b",))
            def first(self, inputs: Anything) -> int:
                return 1

            @capability("b")
            def second(self, inputs: Anything) -> int:
                return 2

    with pytest.raises(ValueError, match="not a legal agent"):
        agent("a.b")
    with pytest.raises(TypeError, match="no code"):
        capability("a", errors=("lower_case",))


def test_a_model_that_cannot_be_resolved_is_named() -> None:
    def method(self: object, inputs: "Nowhere") -> int:  # type: ignore[name-defined]  # noqa: F821
        return 0

    with pytest.raises(TypeError, match="Nowhere"):
        agent("lost")(type("Lost", (), {"method": capability("do")(method)}))


def test_inputs_know_their_fields_and_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        Weigh(grams=1, weight=2)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="frozen"):
        Weigh(grams=1).grams = 2
    assert issubclass(Weigh, Inputs)
