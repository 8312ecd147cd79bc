"""Who asks: by a bearer token (RFC 6750). A browser's session is Django REST framework's own affair."""

from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from outreach.access import tokens
from outreach.models import ApiToken

UNKNOWN = "There is no such token. A request says: Authorization: Bearer outreach_…"


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer outreach_…`. `request.auth` is the token then."""

    def authenticate(self, request: Request) -> tuple[object, ApiToken] | None:
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        token = tokens.find(text.strip())
        if token is None:
            raise AuthenticationFailed(UNKNOWN)
        now = timezone.now()
        if refusal := token.why_invalid(now):
            raise AuthenticationFailed(refusal)
        tokens.note_use(token, now)
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        """What a 401 asks for."""
        given = request.headers.get("Authorization", "")
        return 'Bearer error="invalid_token"' if given.lower().startswith("bearer") else "Bearer"


class TokenScheme(OpenApiAuthenticationExtension):
    """In the OpenAPI document."""

    target_class = TokenAuthentication
    name = "token"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        return {
            "type": "http",
            "scheme": "bearer",
            "description": "A token, made in the admin under API tokens or by `manage.py api_token make`. Its scopes "
            "(read, edit, send) and the rights of its user both limit what it opens.",
        }
