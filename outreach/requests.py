"""Each request has an id: the caller's own, or a fresh one; in every log line of the request, and in its answer."""

import re
import secrets
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from delivery.logs import bound

HEADER = "X-Request-ID"
# What may stand in a log line and a header as it is; anything else is not taken over.
WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{8,64}")

View = Callable[[HttpRequest], HttpResponse]


def request_ids(get_response: View) -> View:
    """The middleware."""

    def middleware(request: HttpRequest) -> HttpResponse:
        given = request.headers.get(HEADER, "")
        # Also on the request: Django writes its line on a 404 when the middlewares are through.
        request.request_id = given if WELL_FORMED.fullmatch(given) else secrets.token_hex(8)
        with bound(request_id=request.request_id):
            response = get_response(request)
        response.headers[HEADER] = request.request_id
        return response

    return middleware
