"""What each answer of the API says of its limit, in the fields that most clients know (draft-polli-ratelimit-headers):
RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset (seconds until all of it may be used again)."""

import math
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from delivery.api.problems import answer
from outreach.access.throttling import judged

API = "/api/"
TOO_MANY = "Too many requests: Retry-After says when the next one may come."
REFUSALS = (401, 403, 404, 405)


def rate_limits(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """The middleware: says on each answer of the API what is left, and counts those that never came to a throttle,
    because nobody was known or something was not allowed."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if not request.path.startswith(API) or (verdict := judged(request)) is None:
            return response
        if not verdict.granted and response.status_code in REFUSALS:
            response = answer(429, request, TOO_MANY)
            response.headers["Retry-After"] = str(max(math.ceil(verdict.wait), 1))
        response.headers["RateLimit-Limit"] = str(verdict.limit)
        response.headers["RateLimit-Remaining"] = str(verdict.remaining)
        response.headers["RateLimit-Reset"] = str(math.ceil(verdict.reset))
        return response

    return middleware
