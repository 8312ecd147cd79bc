"""Every refusal under /api/ is a problem document, also one that never came to a view: an address that leads nowhere, a
body that is too large, a form token that is missing."""

import logging
from collections.abc import Callable

from django.core.exceptions import RequestDataTooBig, TooManyFieldsSent
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse

from delivery.api.problems import CONTENT_TYPE, answer

logger = logging.getLogger(__name__)

API = "/api/"
# Carried over: what the other answer had said of itself in headers.
KEPT = ("Allow", "Retry-After", "WWW-Authenticate")


class problems:
    """The middleware."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        if response.status_code < 400 or not request.path.startswith(API):
            return response
        if response.headers.get("Content-Type", "").startswith(CONTENT_TYPE) or hasattr(response, "data"):
            return response  # it is one; or a person sees it in the browsable API
        problem = answer(response.status_code, request)
        for name in KEPT:
            if name in response.headers:
                problem.headers[name] = response.headers[name]
        problem.cookies = response.cookies
        return problem

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """What a view could not answer."""
        if not request.path.startswith(API):
            return None
        if isinstance(exception, RequestDataTooBig | TooManyFieldsSent):
            return answer(413, request, str(exception))
        if isinstance(exception, DatabaseError):
            logger.error("The database cannot be used: %s", str(exception).strip(), exc_info=exception)
            return answer(503, request, "The database cannot be used now. Try again.")
        return None
