"""How often the API may be asked: by each token, by each user in a browser, by each address that shows neither.

The buckets are delivery's, shared by all processes; a process draws from them in blocks (`outreach.access.hand`).
"""

import logging
import math
from typing import TYPE_CHECKING

from django.http import HttpRequest
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from delivery.core.throttle import Rate
from delivery.shared import Drawn, SharedAway, shared
from outreach.access.address import address_of, network_of
from outreach.access.hand import Hands, Verdict
from outreach.conf import access

if TYPE_CHECKING:  # it loads the throttle classes of the settings
    from rest_framework.views import APIView

logger = logging.getLogger(__name__)

BUCKETS = "api:"  # how the keys of all these buckets begin


def draw(key: str, rate: Rate, wanted: int) -> Drawn:
    """From the store that all processes share. While it is away everybody may: nobody is to wait for that."""
    try:
        return shared().draw({key: rate}, wanted)
    except SharedAway as error:
        logger.warning("The limits of the API are not held at the moment: %s", error)
        return Drawn(max(rate.burst // 20, 1), more=rate.burst)


hands = Hands(draw)


class ApiThrottle(BaseThrottle):
    """Asked before a view does anything."""

    def allow_request(self, request: Request, view: "APIView") -> bool:
        verdict = judged(request._request)
        self._wait = verdict.wait if verdict else None
        return verdict is None or verdict.granted

    def wait(self) -> float | None:
        return None if self._wait is None else max(math.ceil(self._wait), 1)


def judged(request: HttpRequest) -> Verdict | None:
    """Counts a request, once; None when there is no limit."""
    rate = access().api_rate
    if rate is None:
        return None
    if not hasattr(request, "rate_verdict"):
        request.rate_verdict = hands.take(_key(request), rate)
    return request.rate_verdict


def _key(request: HttpRequest) -> str:
    """Whose bucket. The view has said by now who asks, if anybody is known."""
    if token := getattr(request, "auth", None):
        return f"{BUCKETS}token:{token.pk}"
    user = getattr(request, "user", None)
    if user is not None and user.is_authenticated:
        return f"{BUCKETS}user:{user.pk}"
    return f"{BUCKETS}address:{network_of(address_of(request))}"
