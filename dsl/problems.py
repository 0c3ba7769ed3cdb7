"""What can be wrong with a document: a problem, and the table of codes. A code is never given another meaning.

Codes below E200 are those of the Runtara engine's language; from E200 on are what a document's shape can get wrong.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple


class Severity(StrEnum):
    ERROR = "error"  # the document is refused
    WARNING = "warning"  # it runs, but probably not as its author thinks


class Code(NamedTuple):
    name: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """`step` is the id of the step it is about, of a nested one with those around it (`outer/inner`); `pointer` is a
    JSON Pointer into the document as it was given; `suggestion` is what was probably meant."""

    code: str
    name: str
    severity: Severity
    message: str
    step: str | None = None
    pointer: str = ""
    suggestion: str | None = None

    def as_json(self) -> dict[str, str | None]:
        """The form of `runtara dsl validate --json`; scripts rely on its names."""
        return {
            "code": self.code,
            "name": self.name,
            "severity": self.severity.value,
            "message": self.message,
            "step": self.step,
            "pointer": self.pointer,
            "suggestion": self.suggestion,
        }


CODES: Final[dict[str, Code]] = {
    "E001": Code(
        "EntryPointNotFound",
        "no step to begin with: `entryPoint` names none, or is left out where several could be meant",
    ),
    "E002": Code("UnreachableStep", "no way leads from the entry point to the step"),
    "E003": Code("UnreachableFinish", "no way leads to a Finish, so its result would never be given"),
    "E004": Code("EmptyWorkflow", "a graph without steps"),
    "E010": Code("InvalidStepReference", "a reference names a step that its graph does not have"),
    "E011": Code("InvalidReferencePath", "a reference is not a path"),
    "E012": Code("StepNotYetExecuted", "a reference reads a step that cannot have run by then"),
    "E013": Code("UnknownVariable", "a built-in variable (`_…`) that does not exist, or not here"),
    "E014": Code("EdgeReferencesUnknownStep", "an edge begins or ends at a step that does not exist"),
    "E020": Code("UnknownAgent", "no agent has this id"),
    "E021": Code("UnknownCapability", "the agent has no capability of this id"),
    "E022": Code("MissingRequiredInput", "an input that the capability cannot do without is not mapped"),
    "E023": Code("TypeMismatch", "a value written in the document has another type than its place takes"),
    "E024": Code("InvalidEnumValue", "a value written in the document is none of those allowed"),
    "E025": Code("InvalidConditionShape", "not a condition: operator, number or kind of arguments"),
    "E026": Code("AgentMissingConnection", "the capability needs a connection, and none is named"),
    "E027": Code("OperatorNotAllowedHere", "an operator that exists, but not in this place"),
    "E050": Code("InvalidChildVersion", '`childVersion` is neither "latest" nor a number from 1'),
    "E051": Code("UndefinedDataReference", "a reference reads a field of `data` that `inputSchema` does not declare"),
    "E053": Code(
        "UndefinedVariableReference",
        "a reference reads a variable that is not declared, or not passed to this subgraph",
    ),
    "E054": Code("ChildMissingInputSchema", "a child is given inputs, but declares none"),
    "E055": Code("MissingChildRequiredInputs", "a child is not given what its `inputSchema` requires"),
    "E056": Code("CircularDependency", "workflows that embed each other in a circle"),
    "E058": Code("UndefinedReferenceField", "a reference reads a field that is known not to exist"),
    "E059": Code("ReferenceNonObjectTraversal", "a reference goes on into a value that has no fields or elements"),
    "E060": Code("DuplicateStepName", "two steps of a graph have the same name"),
    "E070": Code("DuplicateEdgePriority", "two conditional edges that leave a step alike have the same priority"),
    "E071": Code("MultipleDefaultEdges", "more than one edge without a condition, where only one can be taken"),
    "E072": Code(
        "InvalidConditionalEdge",
        "an edge of a Conditional that is not one of `true` and `false`, or has a condition of its own",
    ),
    "E073": Code("ParallelFanoutNoMerge", "parallel branches that do not come together at one step"),
    "E124": Code("MissingChildWorkflow", "the child workflow does not exist"),
    "E125": Code("DuplicateEmbedStepId", "two EmbedWorkflow steps of a document have the same id"),
    "E126": Code("UnknownReferenceRoot", "a reference begins with a name that is no root"),
    "E127": Code("ReferenceRootOutOfScope", "`item` or `loop` where there is none"),
    "E200": Code("NotADocument", "not a JSON object of the kind expected, or one nested too deeply"),
    "E201": Code("UnknownField", "a field that nothing would read"),
    "E202": Code("MissingField", "a field that must be there"),
    "E203": Code("InvalidField", "a field's value has the wrong type or is out of range"),
    "E204": Code("UnknownStepType", "`stepType` is none of the language's"),
    "E205": Code("StepIdMismatch", "a step's `id` contradicts the key it stands under"),
    "E206": Code("InvalidEdgeLabel", "an edge's label that the step it leaves never takes"),
    "E207": Code("CyclicEdges", "edges that lead back to where they came from; loops are While steps"),
    "E208": Code("InvalidTemplate", "a template that Jinja2 cannot read"),
    "E209": Code("ConflictingDestinations", "two inputs that are mapped to the same place"),
    "E210": Code("DuplicateKey", "a name that an object of the file has twice: one of the two would be lost"),
    "W003": Code("DanglingStep", "nothing follows the step, and it is no Finish: the result is null"),
    "W020": Code("UnknownInputField", "the capability has no input of this name"),
    "W030": Code("ManyRetries", "more than 50 retries"),
    "W031": Code("LongRetryDelay", "a delay between retries above 1 hour"),
    "W032": Code("HighParallelism", "a parallelism above 100"),
    "W033": Code("ManyIterations", "`maxIterations` above 10,000"),
    "W034": Code("LongTimeout", "a time-out above 1 hour"),
    "W040": Code("DuplicateEdge", "the same edge twice"),
    "W050": Code("SelfReference", "a step reads its own outputs, which are null by then"),
    "W051": Code("PartlyUnverifiableReference", "a reference goes deeper than what is declared"),
    "W052": Code("TemplateNotCheckable", "a template chooses at run time what it reads"),
    "W081": Code("UncheckedDataReferences", "no `inputSchema`, so what is read of `data` is not checked"),
    "W082": Code(
        "ChildNotFoundHere", "a child workflow that is not here to be checked; it must be registered before a start"
    ),
    "W200": Code("FieldWithoutEffect", "a field that other engines read, and this one does not"),
}


def problem(
    code: str, message: str, *, step: str | None = None, pointer: str = "", suggestion: str | None = None
) -> Problem:
    severity = Severity.WARNING if code.startswith("W") else Severity.ERROR
    return Problem(
        code=code,
        name=CODES[code].name,
        severity=severity,
        message=message,
        step=step,
        pointer=pointer,
        suggestion=suggestion,
    )


def errors(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(found for found in problems if found.severity is Severity.ERROR)
