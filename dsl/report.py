"""Where checks tell what they find: a list of problems, each with the place as it stands in the document."""

from collections.abc import Sequence

from .places import Place, locate, pointer
from .problems import Problem, problem
from .scope import Scope


class Report:
    """Of one graph: places are within it, steps those of it. `problems` is shared by all graphs of a document."""

    def __init__(self, document: object, scope: Scope, problems: list[Problem]) -> None:
        self._document = document
        self._scope = scope
        self.problems = problems

    def of(self, scope: Scope) -> "Report":
        return Report(self._document, scope, self.problems)

    def say(
        self,
        code: str,
        message: str,
        place: Sequence[str | int],
        *,
        step: str | None = None,
        suggestion: str | None = None,
    ) -> None:
        whole: Place = (*self._scope.at, *place)
        at = pointer(locate(self._document, whole, missing=True))
        path = self._scope.step if step is None else self._scope.path_of(step)
        self.problems.append(problem(code, message, step=path, pointer=at, suggestion=suggestion))
