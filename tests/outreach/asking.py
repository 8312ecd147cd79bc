"""What schemathesis makes of the API's own document: requests that fit it and requests that do not, and what is wrong
with the answers."""

import hashlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import hypothesis
import schemathesis
from django.db import transaction
from hypothesis import HealthCheck, Phase
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.feedback import NO_FEEDBACK
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.outreach.everything import Everything

CASES_VARIABLE = "OUTREACH_TEST_SCHEMA_CASES"
USUAL_CASES = 5  # at random, for each operation and each of both modes; and three times as many that cover its bounds
POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
TRUE_OF_ALL = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]


@dataclass
class Asking:
    """Asks for one operation. What it changes is undone after each request."""

    operation: schemathesis.APIOperation
    installation: Everything
    rng: random.Random
    cases: int = field(default_factory=lambda: int(os.environ.get(CASES_VARIABLE, USUAL_CASES)))
    statuses: list[int] = field(default_factory=list)
    found: dict[str, str] = field(default_factory=dict)

    def all(self) -> dict[str, str]:
        """What is wrong, by its kind."""
        covering = list(self._covering())
        for case in self.rng.sample(covering, min(3 * self.cases, len(covering))):
            if not _is_negative(case, ParameterLocation.PATH):
                case.path_parameters.update(self._there())
            self._ask(case)
        for mode in (POSITIVE, NEGATIVE):
            self._at_random(mode)
        return self.found

    def _covering(self) -> Iterator[schemathesis.Case]:
        """The bounds, the missing and the superfluous, each once."""
        schema = self.operation.schema
        return schema.iter_coverage_cases(
            self.operation,
            generation_modes=[POSITIVE, NEGATIVE],
            generation_config=schema.config.generation_for(operation=self.operation, phase="coverage"),
        )

    def _at_random(self, mode: schemathesis.GenerationMode) -> None:
        """Half of them of something that is there."""
        for named in (self._there(), None):
            strategy = self.operation.as_strategy(generation_mode=mode, feedback=NO_FEEDBACK, path_parameters=named)
            ask = hypothesis.given(case=strategy)(lambda case: self._ask(case))
            ask = hypothesis.settings(
                max_examples=max(self.cases // 2, 1),
                phases=[Phase.generate],
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )(ask)
            try:
                hypothesis.seed(self.rng.randrange(2**32))(ask)()
            except Unsatisfiable:  # nothing of it can be wrong
                continue

    def _ask(self, case: schemathesis.Case) -> None:
        checks = [*TRUE_OF_ALL, negative_data_rejection] if _must_be_refused(case) else TRUE_OF_ALL
        try:
            with transaction.atomic():
                answer = case.call(headers={"Authorization": f"Bearer {self.installation.token}"})
                transaction.set_rollback(True)
            self.statuses.append(answer.status_code)
            case.validate_response(answer, checks=checks)
        except FailureGroup as failures:
            for failure in failures.exceptions:
                self.found.setdefault(_kind(failure), str(failures))

    def _there(self) -> dict[str, object]:
        """The values in the address of something that is there."""
        values = self.rng.choice(self.installation.values_for(self.operation.path) or [{}])
        return {
            each.name: values[each.name] if each.definition["schema"]["type"] == "integer" else str(values[each.name])
            for each in self.operation.path_parameters
            if each.name in values
        }


def _is_negative(case: schemathesis.Case, location: ParameterLocation) -> bool:
    component = case.meta and case.meta.components.get(location)
    return bool(component and component.mode.is_negative)


def _must_be_refused(case: schemathesis.Case) -> bool:
    """Whether all that is wrong with it is wrong for us, too. Header fields and cookies that nobody asked for are none
    of the API's business, a filter that is left empty is what a form sends, and blanks around a text do not count."""
    outside = (ParameterLocation.HEADER, ParameterLocation.COOKIE)
    if any(_is_negative(case, location) for location in outside):
        return False
    return "" not in (case.query or {}).values() and not _has_blanks(case.body)


def _has_blanks(value: object) -> bool:
    """Whether a text in it has blanks at its ends."""
    if isinstance(value, str):
        return value != value.strip()
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(map(_has_blanks, values))


def _kind(failure: Failure) -> str:
    digest = hashlib.sha256(str(getattr(failure, "_unique_key", "")).encode()).hexdigest()[:8]
    return f"{type(failure).__name__} {digest}"
