"""Whether an answer is as it should be, whatever was asked."""

import json
from collections.abc import Iterable

from django.http import HttpResponse

PROBLEM = "application/problem+json"
TRACEBACK = "Traceback (most recent"


def fault(answer: HttpResponse, secrets: Iterable[str], *, refused: bool = True) -> str:
    """What is wrong with it; nothing for one that is as it should be. `refused`: it has to be a refusal."""
    content = b"" if answer.streaming else answer.content
    if answer.status_code >= 500 or (refused and answer.status_code < 400):
        return f"{answer.status_code} {content[:300]!r}"
    if any(secret.encode() in content for secret in (*secrets, TRACEBACK)):
        return f"it shows what nobody may see: {content[:300]!r}"
    return _fault_of_problem(answer) if answer.status_code >= 400 else ""


def _fault_of_problem(answer: HttpResponse) -> str:
    if answer.headers["Content-Type"] != PROBLEM:
        return f"{answer.status_code} is {answer.headers['Content-Type']}: {answer.content[:300]!r}"
    problem = json.loads(answer.content)
    if problem["status"] != answer.status_code or not problem["detail"]:
        return f"{answer.status_code} says {problem}"
    if not all(each["pointer"].startswith("#") and each["detail"] for each in problem.get("errors", ())):
        return f"its errors lead nowhere: {problem['errors']}"
    return ""


def wrong(faults: Iterable[tuple[object, str]]) -> list[str]:
    """Those that there are, with what they are about."""
    return [f"{about}: {words}" for about, words in faults if words]


def pointers(answer: HttpResponse) -> set[str]:
    """The places that an answer blames."""
    return {each["pointer"].removeprefix("#") for each in answer.json().get("errors", ())}
