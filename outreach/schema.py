"""The OpenAPI document of the API: what every operation has in common, said once."""

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiResponse

from delivery.api.problems import CONTENT_TYPE

PROBLEM = {
    "type": "object",
    "description": "A problem document (RFC 9457).",
    "required": ["type", "title", "status", "detail", "instance", "request_id"],
    "properties": {
        "type": {"type": "string", "examples": ["urn:outreach:problem:invalid"]},
        "title": {"type": "string", "examples": ["Bad Request"]},
        "status": {"type": "integer", "examples": [400]},
        "detail": {"type": "string", "examples": ["slug: Enter a valid “slug”."]},
        "instance": {"type": "string", "examples": ["/api/v1/workflows/"]},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "description": "When fields are to blame: each with a JSON pointer into the body.",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {"pointer": {"type": "string", "examples": ["#/slug"]}, "detail": {"type": "string"}},
            },
        },
    },
}
ALWAYS = {
    "401": "Nobody is logged in, or the token is not valid.",
    "403": "Not allowed.",
    "429": "Too many requests: see Retry-After.",
    "503": "The database cannot be used now.",
}
READS = {"400": "The query cannot be understood.", "404": "There is nothing here.", "406": "No such representation."}
WRITES = {
    "400": "The body is refused, field by field.",
    "404": "There is nothing here.",
    "406": "No such representation.",
    "409": "Not possible as things stand.",
    "413": "The body is too large.",
    "415": "A body is application/json.",
    "422": "The Idempotency-Key was used with another body.",
}


class Schema(AutoSchema):
    """Adds the problems to the answers of each operation."""

    def _get_response_bodies(self, direction: str = "response") -> dict[str, object]:
        bodies = super()._get_response_bodies(direction)
        for status, words in ((READS if self.method == "GET" else WRITES) | ALWAYS).items():
            if status not in bodies:
                problem = OpenApiResponse(PROBLEM, words)
                bodies[status] = self._get_response_for_code(problem, status, [CONTENT_TYPE], direction)
        return bodies
