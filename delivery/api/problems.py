"""How the API says no: a problem document (RFC 9457), one shape for every status.

    {"type": "urn:outreach:problem:invalid", "title": "Bad Request", "status": 400,
     "detail": "steps/2/after: …", "instance": "/api/v1/workflows/", "request_id": "…",
     "errors": [{"pointer": "#/steps/2/after", "detail": "…"}]}

`errors` is there when fields are to blame; `pointer` is a JSON pointer (RFC 6901, as a URI fragment) into the body.
"""

from collections.abc import Iterator, Mapping
from http import HTTPStatus

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, JsonResponse
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import exception_handler

CONTENT_TYPE = "application/problem+json"
TYPES = {
    400: "invalid",
    401: "unauthenticated",
    403: "forbidden",
    404: "not-found",
    405: "method",
    406: "not-acceptable",
    409: "conflict",
    413: "too-large",
    415: "media-type",
    422: "key-reused",
    429: "too-many",
    500: "fault",
    503: "away",
}
MOST_ERRORS = 100


def document(status: int, request: HttpRequest, detail: str = "", errors: list[dict[str, str]] | None = None) -> dict:
    """A problem document."""
    words = {
        "type": f"urn:outreach:problem:{TYPES.get(status, status)}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail or HTTPStatus(status).description or HTTPStatus(status).phrase,
        "instance": request.path[:500],
        "request_id": getattr(request, "request_id", ""),
    }
    return words | {"errors": errors} if errors else words


def handler(exc: Exception, context: Mapping[str, object]) -> Response | None:
    """Django REST framework's exception handler."""
    response = exception_handler(exc, context)
    if response is None:
        return None
    said = exc.detail if isinstance(exc, exceptions.APIException) else response.data
    request = context["request"]._request if hasattr(context["request"], "_request") else context["request"]
    errors = list(_errors(said, "")) if isinstance(exc, exceptions.ValidationError) else []
    if isinstance(exc, Http404 | exceptions.NotFound):
        detail = str(said) if isinstance(exc, exceptions.NotFound) else "There is nothing here."
    elif isinstance(exc, PermissionDenied):
        detail = str(exc) or exceptions.PermissionDenied.default_detail
    else:
        detail = _summary(errors) if errors else _text(said)
    response.data = document(response.status_code, request, detail, errors[:MOST_ERRORS])
    renderer = getattr(context["request"], "accepted_renderer", None)
    if renderer is None or renderer.format == "json":  # else a person sees it as a page
        response.content_type = CONTENT_TYPE
    return response


def answer(status: int, request: HttpRequest, detail: str = "") -> JsonResponse:
    """A problem as an answer of Django's own, for what never came to a view."""
    return JsonResponse(document(status, request, detail), status=status, content_type=CONTENT_TYPE)


def in_words(refusal: exceptions.APIException) -> str:
    """What an exception refuses, in one line."""
    errors = list(_errors(refusal.detail, "")) if isinstance(refusal, exceptions.ValidationError) else []
    return _summary(errors) if errors else _text(refusal.detail)


def _errors(said: object, pointer: str) -> Iterator[dict[str, str]]:
    """What is said by field, one by one."""
    if isinstance(said, Mapping):
        for name, inner in said.items():
            own = name == api_settings.NON_FIELD_ERRORS_KEY
            yield from _errors(inner, pointer if own else f"{pointer}/{_escaped(str(name))}")
    elif isinstance(said, list):
        # Of many the framework gives a list with a mapping for each, an empty one for those that are right.
        of_many = any(isinstance(each, Mapping) for each in said)
        for place, each in enumerate(said):
            yield from _errors(each, f"{pointer}/{place}" if of_many else pointer)
    else:
        yield {"pointer": f"#{pointer}", "detail": str(said)}


def _escaped(name: str) -> str:
    """A name in a JSON pointer (RFC 6901, section 3)."""
    return name[:200].replace("~", "~0").replace("/", "~1")


def _summary(errors: list[dict[str, str]]) -> str:
    first = errors[0]
    place = first["pointer"].removeprefix("#/")
    words = f"{place}: {first['detail']}" if place != "#" else first["detail"]
    return words if len(errors) == 1 else f"{words} ({len(errors)} things are wrong.)"


def _text(said: object) -> str:
    if isinstance(said, Mapping):
        return str(said.get("detail", ""))
    return " ".join(map(str, said)) if isinstance(said, list) else str(said)
