"""The form of an HTTP API's settings, in the order in which one thinks of them: request, caller, answers, batches."""

from collections.abc import Mapping

from django import forms

from delivery.engines.api_fields import calling_fields
from delivery.engines.http_api.authentication import WAYS
from delivery.engines.http_api.fields import NAMES, SECRET
from delivery.engines.http_api.rules import CLASSES, EXAMPLE
from delivery.engines.http_api.settings import CONCURRENCY, KEY_HEADER, METHODS, MOST_RECORDS, NO_HEADER, SHOWN_IN
from delivery.templating.part import MAX_SOURCE

EXAMPLE_BODY = """{
  "to": "{{ to.address }}",
  "from": {"email": "{{ sender.address }}", "name": "{{ sender.name }}"},
  "subject": "{{ subject }}",
  "text": "{{ text }}",
  "html": "{{ html|omit }}",
  "reference": "{{ key }}"
}"""


def _area(label: str, help_text: str, **given: object) -> forms.CharField:
    given = {"required": False, **given}
    return forms.CharField(label=label, widget=forms.Textarea, max_length=MAX_SOURCE, help_text=help_text, **given)


def _line(label: str, help_text: str, **given: object) -> forms.CharField:
    return forms.CharField(label=label, max_length=500, required=False, help_text=help_text, **given)


def _choice(label: str, choices: Mapping[str, str], initial: str, help_text: str = "") -> forms.ChoiceField:
    return forms.ChoiceField(label=label, choices=list(choices.items()), initial=initial, help_text=help_text)


def fields() -> dict[str, forms.Field]:
    """The form fields by option name, in the order shown."""
    return _request_fields() | _auth_fields() | _answer_fields() | _batch_fields()


def _request_fields() -> dict[str, forms.Field]:
    return {
        "method": _choice("Method", {name: name for name in METHODS}, "POST"),
        "url": forms.CharField(
            label="URL",
            max_length=2000,
            help_text="Its path and query may have templates: https://api.example/lists/{{ data.list }}/messages.",
        ),
        "headers": _area("Further headers", "One per line, Name: value. A value may be a template."),
        "body": _area(
            "Body",
            f"JSON, in which every text may be a template over {', '.join(NAMES)}; what the audience brings is in data."
            " A text that is one expression keeps the type of its value: “{{ data.age|int }}”. Filters: int, float,"
            " bool, date, required, one_of, match, omit (leaves the key out), and those of mail templates.",
            initial=EXAMPLE_BODY,
            required=True,
        ),
    }


def _auth_fields() -> dict[str, forms.Field]:
    return {
        "auth": _choice("Authentication", WAYS, "none"),
        "username": _line("User name or client id", "For Basic and OAuth 2."),
        "credential": forms.CharField(
            label="Password, token, key or client secret",
            max_length=4000,
            required=False,
            help_text="As the authentication says.",
        ),
        "key_name": _line("Name of the key's header or parameter", "For an API key, such as X-Api-Key."),
        "token_url": _line("Token URL", "For OAuth 2."),
        "scope": _line("Scope", "For OAuth 2, where the API wants one."),
        "client_shown": _choice("Client id and secret go", SHOWN_IN, "basic", "For OAuth 2."),
        SECRET: forms.CharField(
            label="Another secret",
            max_length=4000,
            required=False,
            help_text="What else must be kept secret; headers and body can place it: {{ secret }}.",
        ),
        "idempotency_header": forms.CharField(
            label="Header of the idempotency key",
            max_length=100,
            initial=KEY_HEADER,
            required=False,
            empty_value=NO_HEADER,
            help_text="Empty: none.",
        ),
        "honours_keys": forms.BooleanField(
            label="The API refuses a key it has seen",
            required=False,
            help_text="Then a mail of unknown fate is tried again there, without a double.",
        ),
    }


def _answer_fields() -> dict[str, forms.Field]:
    return {
        "rules": _area(
            "What answers mean",
            f"One per line, the first that fits decides: {EXAMPLE}. The meanings are {', '.join(CLASSES)}. Without a"
            " line: 2xx accepted, 401 to 403 engine, 429 throttled, 5xx transient, other 4xx message; 404 and 405"
            " engine where the URL is the same for all.",
        ),
        "id_path": _line("Where the id of a mail is", "A path such as data.id, or header:X-Message-Id."),
        "error_path": _line("Where the text of an error is", "A path such as error.message."),
    }


def _batch_fields() -> dict[str, forms.Field]:
    return {
        "batch_size": forms.IntegerField(
            label="Records a call",
            min_value=1,
            max_value=MOST_RECORDS,
            initial=1,
            required=False,
            help_text="With more than one the body is a list of records.",
        ),
        "batch_document": _area(
            "Around the records", 'JSON with a place for the list, such as {"messages": "{{ records }}"}.'
        ),
        "results_path": _line("Where the records' results are", "A list in their order, to which the rules apply."),
        **{name: field for name, field in calling_fields(CONCURRENCY, "").items() if name != "endpoint"},
    }
