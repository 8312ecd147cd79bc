"""What the engines that are HTTP APIs have in common in their settings: form fields, judgements, opening."""

from collections.abc import Callable, Iterable, Mapping
from urllib.parse import urlsplit

from django import forms

from delivery.conf import conf
from delivery.core.answer import Answer
from delivery.engines.base import Finding
from delivery.engines.kind import Options, Secrets
from delivery.engines.provider import Provider, ProviderEngine
from delivery.http import problem_with_url
from delivery.http.origin import origin_of


def secret_field(label: str, help_text: str = "") -> forms.CharField:
    """A credential."""
    return forms.CharField(label=label, max_length=2000, help_text=help_text)


def calling_fields(concurrency: int, endpoint: str) -> dict[str, forms.Field]:
    """How calls are made. `concurrency` is the default, `endpoint` the address that an empty field stands for."""
    return {
        "concurrency": forms.IntegerField(
            label="Calls at once",
            min_value=1,
            max_value=500,
            initial=concurrency,
            required=False,
            help_text="How many may be under way at the same time, for each worker process.",
        ),
        "timeout": forms.IntegerField(
            label="Patience (seconds)",
            min_value=5,
            max_value=600,
            initial=60,
            required=False,
            help_text="How long an answer is waited for. Too short makes mails uncertain that were accepted.",
        ),
        "endpoint": forms.CharField(
            label="Another address of the API",
            max_length=500,
            required=False,
            help_text=f"For a proxy or a private endpoint. Empty: {endpoint}.",
        ),
    }


def batch_field(most: int, initial: int) -> dict[str, forms.Field]:
    """How many mails go in one call, for APIs that take several and honour an idempotency key."""
    return {
        "batch_size": forms.IntegerField(
            label="Mails a call",
            min_value=1,
            max_value=most,
            initial=initial,
            required=False,
            help_text="More are faster. Only with 1 can a mail of unknown fate be tried again without a double.",
        )
    }


def missing(given: Mapping[str, object], required: Mapping[str, str]) -> list[str]:
    """A sentence for each of the `required` settings (name -> what it is called) that is not there."""
    return [f"The {label} is missing." for name, label in required.items() if not str(given.get(name) or "").strip()]


def calling_problems(options: Options, secrets: Secrets) -> list[str]:
    """What is wrong with the settings of `calling_fields`, and with credentials that no HTTP header can carry."""
    problems = []
    endpoint = str(options.get("endpoint") or "")
    if endpoint and (problem := problem_with_url(endpoint, conf().allowed_networks)):
        problems.append(problem)
    elif endpoint and urlsplit(endpoint).query:
        problems.append(f"“{endpoint}” has a query: give the address alone.")
    for name, value in secrets.items():
        if value != value.strip() or not (value.isascii() and value.isprintable()):
            label = name.replace("_", " ")
            problems.append(f"The {label} has spaces around it, or characters that no {label} has: copy it again.")
    return problems + out_of_range(options, "concurrency", 1, 500) + out_of_range(options, "timeout", 5, 600)


def out_of_range(options: Options, name: str, low: int, high: int) -> list[str]:
    """A sentence when this setting is given and is no number between `low` and `high`."""
    value = options.get(name)
    if value is None or (isinstance(value, int) and low <= value <= high):
        return []
    return [f"The setting {name.replace('_', ' ')} must be between {low} and {high}, not {value}."]


def not_among(options: Options, name: str, known: Iterable[str]) -> list[str]:
    """A sentence when this setting is given and none of those `known`."""
    value, known = options.get(name), list(known)
    if not value or value in known:
        return []
    return [f"“{value}” is no {name.replace('_', ' ')}: choose one of {', '.join(known)}."]


def open_provider(provider: Provider, options: Options, secrets: Iterable[str], concurrency: int) -> ProviderEngine:
    """The working engine, called as the settings of `calling_fields` say."""
    return ProviderEngine(
        provider,
        concurrency=int(options.get("concurrency") or concurrency),
        timeout=float(options.get("timeout") or 60),
        secrets=secrets,
    )


def endpoint_of(options: Options, default: str) -> str:
    """The API's address, without a slash at its end."""
    return str(options.get("endpoint") or default).rstrip("/")


def at_endpoint(*secrets: str) -> Callable[[Options], dict[str, object]]:
    """`EngineKind.uses` of an API: all of these `secrets` go to the provider, or to where its `endpoint` leads."""

    def uses(options: Options) -> dict[str, object]:
        return dict.fromkeys(secrets, origin_of(str(options.get("endpoint") or "")))

    return uses


def unclear(answer: Answer, provider: str) -> list[Finding]:
    """What a `judge` says of an answer that neither confirms nor refuses anything."""
    return [Finding(f"{provider} did not tell: it answered {answer.status} {answer.words()}".rstrip(), certain=False)]


def domain_findings(
    wanted: frozenset[str], verified: Iterable[str], provider: str, *, subdomains: bool = True, certain: bool = True
) -> list[Finding]:
    """A finding for each From domain that is not among those `verified` at the provider. `subdomains`: a domain stands
    for its subdomains too. `certain`: nothing else, such as a single verified address, could stand in for it."""
    known = {domain.lower() for domain in verified}
    return [
        Finding(
            f"{provider} has not verified {domain}: add it there as a sender identity, or take it off this engine.",
            certain=certain,
        )
        for domain in sorted(wanted)
        if domain not in known and not (subdomains and any(domain.endswith("." + each) for each in known))
    ]
