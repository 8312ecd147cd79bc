"""An expression over the recipient's data that is true or not: the same strict, bounded Jinja2 as in mails."""

from collections.abc import Mapping

from delivery.templating.limits import Budget, Limits
from delivery.templating.part import Part
from delivery.templating.problem import TemplateProblem
from delivery.templating.sandbox import PLAIN

LABEL = "condition"
EXAMPLE = 'plan == "gold" and orders > 2'


class CompiledCondition:
    """See the module. `variables` are the names that the data must have."""

    def __init__(self, source: str, limits: Limits = Limits()) -> None:  # noqa: B008 - frozen
        """Raises TemplateProblem."""
        if "%}" in source or "{%" in source or "{{" in source or "\n" in source:
            raise TemplateProblem(LABEL, 1, f"The condition is one expression without any braces, such as {EXAMPLE}.")
        self._part = Part(LABEL, f"{{% if {source} %}}1{{% endif %}}", PLAIN)
        self._limits = limits
        self.variables: frozenset[str] = self._part.names.needed

    def holds(self, data: Mapping[str, object]) -> bool:
        """Whether it is true of this data. Raises TemplateProblem."""
        return bool(self._part.render(data, Budget(self._limits)))
