"""The document of the API is true and complete: nothing is answered with a fault, and no answer is other than it says.

`OUTREACH_TEST_SCHEMA_CASES=200` asks longer than CI does.
"""

import json
import random
import re
from collections.abc import Iterator
from io import StringIO

import pytest
import schemathesis
from django.core.management import call_command
from django.test import Client

from outreach.wsgi import application
from tests.outreach.api_routes import operations
from tests.outreach.asking import Asking
from tests.outreach.everything import Everything
from tests.outreach.outside import calls_outside

pytestmark = pytest.mark.django_db

SCHEMA = "/api/v1/schema/?format=json"
DOCS = "/api/v1/docs/"
NOT_UNDERSTOOD = re.compile(
    r"no such field|cannot be set|is required|[Nn]ot a valid|is no (whole )?number|is in the future"
)
RESOURCES = sorted({re.split(r"[/.]", each.url)[3] for each in operations()})


@pytest.fixture(scope="module")
def api(installation: Everything, seed: int) -> schemathesis.BaseSchema:
    """The API as schemathesis reads its document."""
    return schemathesis.openapi.from_wsgi(SCHEMA, application, config=schemathesis.Config(seed=seed))


def documented(document: dict) -> Iterator[tuple[str, str, dict]]:
    """Method, path and operation of everything in the document."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


@pytest.mark.parametrize("resource", RESOURCES)
def test_no_answer_is_other_than_the_document_says(
    resource: str, api: schemathesis.BaseSchema, installation: Everything, rng: random.Random
):
    """Neither to what fits it nor to what does not, which is refused."""
    wrong = []
    with calls_outside() as called:
        for found in api.include(path_regex=rf"^/api/v1/{resource}[/.]").get_all_operations():
            asking = Asking(found.ok(), installation, rng)
            wrong += asking.all().values()

    assert not wrong, "\n\n".join(wrong)
    assert called == []


def test_every_operation_is_in_the_document_and_nothing_else(document):
    def without_values(path: str) -> str:
        return re.sub(r"\{\w+\}|999999|csv", "…", path).rstrip("/")

    there = {f"{each.method.upper()} {without_values(each.url)}" for each in operations()}

    assert {f"{method} {without_values(path)}" for method, path, _ in documented(document)} == there


def test_the_document_is_made_without_a_warning_and_is_valid():
    call_command("spectacular", "--fail-on-warn", "--validate", stdout=StringIO())


def test_every_operation_has_a_name_of_its_own_a_summary_and_one_tag(document):
    found = list(documented(document))

    assert [path for _, path, operation in found if not operation.get("summary") or len(operation["tags"]) != 1] == []
    assert len({operation["operationId"] for _, _, operation in found}) == len(found)
    assert {operation["tags"][0] for _, _, operation in found} == set(RESOURCES)


def test_no_enumeration_has_a_name_that_a_digest_made(document):
    assert [name for name in document["components"]["schemas"] if re.search(r"[0-9][0-9a-f]{2}Enum$", name)] == []


def test_every_body_has_an_example_that_is_understood(document, program, installation):
    """It has no field that is unknown, lacking or of another type. What it names need not be there."""
    lacking, refused = [], []
    for method, path, operation in documented(document):
        values = (installation.values_for(path) or [{}])[0]
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
            if not content.get("examples"):
                lacking.append(f"{method} {path} {media_type}")
            for name, example in content.get("examples", {}).items() if media_type == "application/json" else ():
                body = json.dumps(example["value"])
                answer = program.generic(method, path.format(**values), body, content_type=media_type)
                if NOT_UNDERSTOOD.search(answer.content.decode()):
                    refused.append(f"{method} {path} {name}: {answer.content.decode()}")

    assert (lacking, refused) == ([], [])


def test_the_page_of_the_document_loads_nothing_from_elsewhere_and_runs_nothing_inline():
    page = Client().get(DOCS).content.decode()
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page)
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL)

    assert len(loaded) > 3
    assert [address for address in loaded if not address.startswith(("/static/", DOCS))] == []
    assert [inside for attributes, inside in scripts if inside.strip() or "src=" not in attributes] == []
    assert not re.search(r"\son\w+=", page)


def test_the_script_of_that_page_asks_nobody_else_whether_the_document_is_valid():
    script = Client().get(f"{DOCS}?script=").content.decode()
    (settings,) = re.findall(r"const swaggerSettings = (\{.*?\})", script, re.DOTALL)

    assert json.loads(settings)["validatorUrl"] is None
    assert re.findall(r"https?://[^/\"' ]*", script) == []
