"""Checks of Agent steps against the registry: agent, capability, inputs, connection."""

from collections.abc import Mapping

from pydantic import ValidationError

from runtara.agents.agent import Capability
from runtara.agents.catalogue import Field
from runtara.protocol.errors import InvalidAgent, UnknownAgent, UnknownCapability

from .model import AgentStep
from .places import Place
from .report import Report
from .shapes import NOT_CONSTANT, constant, destinations
from .suggest import nearest
from .world import World, inputs_of


def check_agent(id: str, step: AgentStep, world: World, report: Report) -> None:
    at: Place = ("steps", id)
    if step.connection_id is not None and step.connection_ref is not None:
        says = "`connectionId` has no effect, as `connectionRef` is there too"
        report.say("W200", says, (*at, "connectionId"), step=id)
    capability = _capability(id, step, world, report)
    if capability is None:
        return
    _check_connection(id, step, capability, report)
    inputs = {name: field for field in inputs_of(capability) for name in field.names}
    given = _check_names(id, step, capability, inputs, report)
    for field in inputs_of(capability):
        if field.required and not given & set(field.names):
            says = f"{capability.name} needs the input {field.name!r}" + (
                f": {field.description}" if field.description else ""
            )
            report.say("E022", says, (*at, "inputMapping", field.name), step=id)
    _check_values(id, step, capability, inputs, report)


def _capability(id: str, step: AgentStep, world: World, report: Report) -> Capability | None:
    agents = world.agents
    if agents is None:
        return None
    try:
        return agents.capability(step.agent_id, step.capability_id)
    except UnknownAgent:
        known = ", ".join(agents.ids()) or "none"
        says = f"there is no agent {step.agent_id!r}; there are {known}"
        report.say("E020", says, ("steps", id, "agentId"), step=id, suggestion=nearest(step.agent_id, agents.ids()))
    except UnknownCapability:
        names = list(agents.agent(step.agent_id).capabilities)
        says = f"agent {step.agent_id!r} has no capability {step.capability_id!r}; it has {', '.join(names)}"
        suggestion = nearest(step.capability_id, names)
        report.say("E021", says, ("steps", id, "capabilityId"), step=id, suggestion=suggestion)
    except InvalidAgent as exc:
        report.say("E020", str(exc), ("steps", id, "agentId"), step=id)
    return None


def _check_connection(id: str, step: AgentStep, capability: Capability, report: Report) -> None:
    given = step.connection_id is not None or step.connection_ref is not None
    if capability.connection_required and not given:
        kinds = " or ".join(capability.connections)
        says = f"{capability.name} needs a connection of type {kinds}: name one in `connectionId`"
        report.say("E026", says, ("steps", id), step=id)
    if given and not capability.connections:
        field = "connectionId" if step.connection_id is not None else "connectionRef"
        report.say("W200", f"{capability.name} takes no connection", ("steps", id, field), step=id)


def _check_names(
    id: str, step: AgentStep, capability: Capability, inputs: Mapping[str, Field], report: Report
) -> set[str]:
    """Warns of inputs that do not exist; the first keys of all destinations."""
    given = set()
    for text, keys in destinations(step.input_mapping).items():
        given.add(keys[0])
        if keys[0] not in inputs:
            says = f"{capability.name} has no input {keys[0]!r}; it has {', '.join(inputs)}"
            place = ("steps", id, "inputMapping", text)
            report.say("W020", says, place, step=id, suggestion=nearest(keys[0], inputs))
    return given


def _check_values(
    id: str, step: AgentStep, capability: Capability, inputs: Mapping[str, Field], report: Report
) -> None:
    """What is written in the document goes through the capability's own model, as it does at run time."""
    written: dict[str, object] = {}
    for name, value in step.input_mapping.items():
        if name in inputs and (given := constant(value)) is not NOT_CONSTANT:
            written[name] = given
    for name in [name for name, given in written.items() if given is None]:
        del written[name]
        if inputs[name].required and not inputs[name].nullable:
            says = f"{capability.name} needs a value for {name!r}, not null"
            report.say("E022", says, ("steps", id, "inputMapping", name), step=id)
    if not written:
        return
    try:
        capability.inputs.model_validate({name: _as_text(given, inputs[name]) for name, given in written.items()})
    except ValidationError as exc:
        for detail in exc.errors(include_url=False, include_input=False):
            name = str(detail["loc"][0]) if detail["loc"] else ""
            if name not in written or detail["type"] in ("missing", "extra_forbidden"):
                continue
            place = ("steps", id, "inputMapping", name, "value")
            allowed = [str(choice) for choice in inputs[name].enum]
            if allowed:
                says = f"{written[name]!r} is not allowed for {name!r}: {', '.join(allowed)}"
                report.say("E024", says, place, step=id, suggestion=nearest(str(written[name]), allowed))
            else:
                says = f"{name!r} {detail['msg'].removeprefix('Input ')}, not {written[name]!r}"
                report.say("E023", says, place, step=id)


def _as_text(given: object, field: Field) -> object:
    """As `agents.calls.prepare` does: a truth value where a text is asked for."""
    return ("true" if given else "false") if isinstance(given, bool) and field.types == ("string",) else given
