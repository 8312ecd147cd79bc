"""The audit trail of the API: each request that is no read and came from somebody known, also a refused one.

A view that keeps a record of its own says `keeps_own_record = True`. Values are never kept, only the fields' names.
"""

import logging
from collections.abc import Callable, Mapping

from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse

from outreach.access.address import address_of
from outreach.models import AuditEntry

logger = logging.getLogger(__name__)

API = "/api/"
READS = ("GET", "HEAD", "OPTIONS")
FORBIDDEN = 403  # the view was never asked, and has no record of it
TOO_MANY = 429  # a storm of refusals would be a storm of rows
MOST_FIELDS = 50


def audit(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """The middleware."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if request.path.startswith(API) and request.method not in READS and _counts(request, response):
            try:
                _entry(request, response).save(force_insert=True)
            except DatabaseError as error:
                # The deed is done, and its answer is the caller's. The line is all there is of it.
                logger.error(
                    "%s %s by %s was answered with %s and is not in the audit trail: %s",
                    *(request.method, request.path, request.user.get_username(), response.status_code),
                    str(error).strip(),
                )
        return response

    return middleware


def _counts(request: HttpRequest, response: HttpResponse) -> bool:
    view = getattr(getattr(request.resolver_match, "func", None), "cls", None)
    known = getattr(request, "user", None) is not None and request.user.is_authenticated
    if view is None or not known or response.status_code == TOO_MANY:
        return False
    return response.status_code == FORBIDDEN or not getattr(view, "keeps_own_record", False)


def _entry(request: HttpRequest, response: HttpResponse) -> AuditEntry:
    token, match = getattr(request, "auth", None), request.resolver_match
    return AuditEntry(
        user_name=request.user.get_username(),
        user_id=request.user.pk,
        token_name=token.name if token else "",
        token_id=token.pk if token else None,
        method=(request.method or "")[:7],
        route=match.route[:200],
        path=request.path[:500],
        thing=_thing(match.kwargs, response)[:100],
        status=response.status_code,
        request_id=getattr(request, "request_id", ""),
        body_fields=_field_names(response),
        address=address_of(request),
    )


def _thing(named: Mapping[str, object], response: HttpResponse) -> str:
    """What the request was about: what its path names, or what it made."""
    said = getattr(response, "data", None)
    made = said.get("id", "") if isinstance(said, Mapping) else ""
    return str(named.get("pk", made))


def _field_names(response: HttpResponse) -> list[str]:
    """The names in the body, if the view came to read it."""
    request = getattr(response, "renderer_context", {}).get("request")
    body = getattr(request, "_full_data", None)
    return [str(name)[:100] for name in list(body)[:MOST_FIELDS]] if isinstance(body, Mapping) else []
