"""The operations of the API as its document names them, each with an address at which there is something."""

from dataclasses import dataclass, field
from urllib.parse import quote

from django.db import transaction
from django.http import HttpResponse
from django.test import Client

from tests.outreach.everything import Everything

JSON = "application/json"


@dataclass(frozen=True)
class Route:
    """A method of an address."""

    method: str
    path: str
    operation: dict = field(repr=False)
    values: dict[str, object]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def url(self) -> str:
        return self.path.format(**self.values)

    def with_value(self, name: str, quoted: str) -> str:
        """The address with something else, quoted already, in place of one of its values."""
        return self.path.format(**{each: quote(str(value)) for each, value in self.values.items()} | {name: quoted})

    @property
    def names(self) -> set[str]:
        """The names that stand in its path."""
        return {each["name"] for each in self.operation.get("parameters", ()) if each["in"] == "path"}

    @property
    def query(self) -> set[str]:
        """The names that its query may have."""
        return {each["name"] for each in self.operation.get("parameters", ()) if each["in"] == "query"}

    @property
    def is_list(self) -> bool:
        return "cursor" in self.query

    @property
    def body(self) -> dict | None:
        """The schema of its body, if that is JSON."""
        content = self.operation.get("requestBody", {}).get("content", {})
        return content[JSON]["schema"] if JSON in content else None

    @property
    def examples(self) -> list[object]:
        """Bodies that the document shows."""
        content = self.operation.get("requestBody", {}).get("content", {}).get(JSON, {})
        return [each["value"] for each in content.get("examples", {}).values()]


def routes(document: dict, installation: Everything) -> list[Route]:
    """All of them."""
    return [
        Route(method.upper(), path, operation, (installation.values_for(path) or [{}])[0])
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def asked(client: Client, method: str, url: str, body: bytes | str = b"", **kwargs: object) -> HttpResponse:
    """The answer. What the request changed is undone."""
    with transaction.atomic():
        answer = client.generic(method, url, body, **{"content_type": JSON} | kwargs)
        if answer.streaming:
            b"".join(answer.streaming_content)
        transaction.set_rollback(True)
    return answer
