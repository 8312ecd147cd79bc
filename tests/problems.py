"""Problem documents (RFC 9457) of the API, as tests read them."""

from collections import defaultdict

from django.http import HttpResponse


def detail(answer: HttpResponse) -> str:
    """What is wrong, in a sentence."""
    return document(answer)["detail"]


def document(answer: HttpResponse) -> dict:
    """The whole; fails for an answer that is none."""
    assert answer.headers["Content-Type"] == "application/problem+json", answer.content[:500]
    said = answer.json()
    assert said["status"] == answer.status_code
    return said


def errors(answer: HttpResponse) -> dict[str, list[str]]:
    """What is wrong with the fields, by where they stand: {"steps/2/after": ["…"]}."""
    found: dict[str, list[str]] = defaultdict(list)
    for each in document(answer)["errors"]:
        found[each["pointer"].removeprefix("#").removeprefix("/")].append(each["detail"])
    return dict(found)
