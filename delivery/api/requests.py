"""What every view of the API does with a request: who may, what the body may hold, how a refusal is answered."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rest_framework import serializers, status
from rest_framework.exceptions import APIException
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView


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

    def to_internal_value(self, data: object) -> dict[str, object]:
        if isinstance(data, dict) and (unknown := sorted(map(str, set(data) - set(self.fields)))):
            known = ", ".join(self.fields)
            raise serializers.ValidationError(dict.fromkeys(unknown, f"There is no such field. There is: {known}."))
        return super().to_internal_value(data)

    @classmethod
    def of(cls, request: Request) -> dict[str, object]:
        """The checked values. Raises ValidationError, which is answered with 400."""
        body = cls(data=request.data)
        body.is_valid(raise_exception=True)
        return body.validated_data


def who(request: Request) -> str:
    """The name under which a deed is recorded."""
    return request.user.get_username()


def allowed(*, to_see: str, to_act: str) -> Callable[[], BasePermission]:
    """A permission class: `to_see` for reading, `to_act` for everything else."""

    class Allowed(BasePermission):
        def has_permission(self, request: Request, view: APIView) -> bool:
            reads = request.method in ("GET", "HEAD", "OPTIONS")
            return request.user.is_authenticated and request.user.has_perm(to_see if reads else to_act)

    return Allowed
