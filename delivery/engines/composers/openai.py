"""An OpenAI-compatible chat API as a kind of engine: OpenAI itself, and the many servers that speak alike."""

from urllib.parse import urlsplit

from django import forms

from delivery.conf import conf
from delivery.engines.api_fields import calling_problems, missing, not_among, out_of_range, secret_field
from delivery.engines.composers.chat import MAX_COMPLETION_TOKENS, MAX_TOKENS, ChatApi
from delivery.engines.composers.client import ChatComposer
from delivery.engines.kind import EngineKind, Options, Secrets
from delivery.http import problem_with_url
from delivery.http.origin import origin_of

BASE_URL = "https://api.openai.com/v1"
CONCURRENCY = 8
TIMEOUT = 60  # seconds
TOKENS = 600  # some four hundred words
LIMIT_FIELDS = (MAX_TOKENS, MAX_COMPLETION_TOKENS)
PATH = "/chat/completions"


def _fields() -> dict[str, forms.Field]:
    return {
        "base_url": forms.CharField(
            label="Address of the API",
            max_length=500,
            initial=BASE_URL,
            help_text=f"What stands before {PATH}, such as {BASE_URL}. A server in your own network is reached when "
            "OUTREACH_ALLOWED_NETWORKS lists it.",
        ),
        "model": forms.CharField(label="Model", max_length=200, help_text="As the API calls it, such as gpt-4.1-mini."),
        "credential": _key_field(),
        "system": forms.CharField(
            label="Instructions for every text",
            max_length=8000,
            required=False,
            widget=forms.Textarea,
            help_text="Who writes, and how: said before each prompt. Such as: You write short, friendly mails for a "
            "bookshop, in plain text, with no subject and no markup.",
        ),
        "temperature": forms.FloatField(
            label="Temperature",
            min_value=0,
            max_value=2,
            required=False,
            help_text="0 is always nearly the same, 1 is lively. Empty: the model's own; some models take no other.",
        ),
        "max_tokens": forms.IntegerField(
            label="Token limit",
            min_value=16,
            max_value=100_000,
            initial=TOKENS,
            required=False,
            help_text="A text that would be longer is not used. Models that reason need more: it counts, too.",
        ),
        "limit_field": forms.ChoiceField(
            label="The token limit is called",
            choices=[("", "as is usual at that address"), *((name, name) for name in LIMIT_FIELDS)],
            required=False,
            help_text="OpenAI's newer models take only max_completion_tokens, most other servers know max_tokens.",
        ),
        "timeout_seconds": forms.IntegerField(
            label="Patience (seconds)",
            min_value=1,
            max_value=600,
            initial=TIMEOUT,
            required=False,
            help_text="How long an answer is waited for. Then it is asked again.",
        ),
        "concurrency": forms.IntegerField(
            label="Calls at once",
            min_value=1,
            max_value=500,
            initial=CONCURRENCY,
            required=False,
            help_text="How many may be under way at the same time, for each worker process.",
        ),
    }


def _key_field() -> forms.CharField:
    field = secret_field("Key", "Sent as a bearer token. Empty: the server asks for none.")
    field.required = False
    return field


def _problems(options: Options, secrets: Secrets) -> list[str]:
    problems = missing(options, {"base_url": "address of the API", "model": "model"})
    base_url = str(options.get("base_url") or "")
    if base_url:
        problems += _problems_with_address(base_url)
    problems += calling_problems({"concurrency": options.get("concurrency")}, secrets)
    problems += out_of_range(options, "timeout_seconds", 1, 600) + out_of_range(options, "max_tokens", 16, 100_000)
    problems += not_among(options, "limit_field", LIMIT_FIELDS)
    temperature = options.get("temperature")
    if temperature is not None and not (isinstance(temperature, int | float) and 0 <= temperature <= 2):
        problems.append(f"The setting temperature must be between 0 and 2, not {temperature}.")
    return problems


def _problems_with_address(base_url: str) -> list[str]:
    if problem := problem_with_url(base_url, conf().allowed_networks):
        return [problem]
    parts = urlsplit(base_url)
    if parts.query or parts.fragment:
        return [f"“{base_url}” has a query or a #: give the address alone, such as {BASE_URL}."]
    if parts.path.rstrip("/").endswith(PATH):
        return [f"“{base_url}” is one path too long: leave {PATH} away, such as {BASE_URL}."]
    return []


def _open(engine_id: int, options: Options, secrets: Secrets) -> ChatComposer:
    base_url = str(options["base_url"]).rstrip("/")
    temperature = options.get("temperature")
    api = ChatApi(
        base_url=base_url,
        model=str(options["model"]).strip(),
        key=secrets.get("credential", ""),
        system=str(options.get("system") or "").strip(),
        temperature=None if temperature is None else float(temperature),  # type: ignore[arg-type]
        max_tokens=int(options.get("max_tokens") or 0),  # type: ignore[call-overload]
        limit_field=str(options.get("limit_field") or _usual_at(base_url)),
    )
    return ChatComposer(
        api,
        concurrency=int(options.get("concurrency") or CONCURRENCY),  # type: ignore[call-overload]
        timeout=float(options.get("timeout_seconds") or TIMEOUT),  # type: ignore[arg-type]
    )


def _usual_at(base_url: str) -> str:
    host = urlsplit(base_url).hostname or ""
    return MAX_COMPLETION_TOKENS if host.endswith(".openai.com") else MAX_TOKENS


def _uses(options: Options) -> dict[str, object]:
    return {"credential": origin_of(str(options.get("base_url") or ""))}


KIND = EngineKind(
    "openai",
    "OpenAI-compatible chat",
    _fields,
    frozenset({"credential"}),
    _problems,
    _open,
    hint="Sends nothing. A language model writes the text of a step: OpenAI, or any server that speaks like it.",
    composes=True,
    uses=_uses,
)
