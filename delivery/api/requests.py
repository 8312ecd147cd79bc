"""What every view of the API does with a request: who may, what the body may hold, how a refusal is answered."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from drf_spectacular.utils import OpenApiExample, extend_schema_serializer
from rest_framework import serializers, status
from rest_framework.exceptions import APIException
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from delivery.api.json_types import other_types
from delivery.scopes import READ, lacks_scope, scope_of, without_scope

MOST_NAMED = 20  # unknown fields that are named: a body may have a hundred thousand


class Refused(APIException):
    """What was asked for is not possible as things stand."""

    status_code = status.HTTP_409_CONFLICT
    default_code = "refused"


@contextmanager
def refusing(*refusals: type[Exception]) -> Iterator[None]:
    """Answers these exceptions with 409 and their words."""
    try:
        yield
    except refusals as refusal:
        raise Refused(str(refusal)) from refusal


class Body(serializers.Serializer):
    """A request's body. A field that it does not know is refused: a misspelt one must not be ignored."""

    typed = True  # a number is a number, and no text that looks like one

    def to_internal_value(self, data: object) -> dict[str, object]:
        if isinstance(data, dict) and (unknown := sorted(set(data) - set(self.fields))[:MOST_NAMED]):
            known = ", ".join(self.fields)
            raise serializers.ValidationError(dict.fromkeys(unknown, f"There is no such field. There is: {known}."))
        if self.typed and isinstance(data, dict) and (wrong := other_types(self, data)):
            raise serializers.ValidationError(wrong)
        return super().to_internal_value(data)

    @classmethod
    def of(cls, request: Request) -> dict[str, object]:
        """The checked values. Raises ValidationError, which is answered with 400."""
        return _shared(cls).run_validation(request.data)


class Query(Body):
    """A query string, in which every value is a text."""

    typed = False


@extend_schema_serializer(examples=[OpenApiExample("Nothing", {}, request_only=True)])
class NoBody(Body):
    """Nothing is to be said."""


@cache
def _shared(kind: type[Body]) -> Body:
    """One for all requests: its fields keep nothing of a body, and to make them takes longer than to check one."""
    return kind()


def who(request: Request) -> str:
    """The name under which a deed is recorded."""
    return request.user.get_username()


READS = ("GET", "HEAD", "OPTIONS")


def allowed(*, to_see: str, to_act: str | tuple[str, ...]) -> type[BasePermission]:
    """A permission class: `to_see` for reading; `to_act`, or one of them, for everything else. A token needs the scope
    beside the right of its user."""
    acts = (to_act,) if isinstance(to_act, str) else to_act

    class Allowed(BasePermission):
        needed_to_see = to_see
        needed_to_act = acts

        def has_permission(self, request: Request, view: APIView) -> bool:
            if not request.user.is_authenticated:
                return False
            ways = {to_see: READ} if request.method in READS else {each: scope_of(each) for each in acts}
            open_ways = [permission for permission, scope in ways.items() if not lacks_scope(request.auth, scope)]
            if not open_ways:
                self.message = without_scope(*ways.values())
                return False
            return any(request.user.has_perm(permission) for permission in open_ways)

    return Allowed
