"""The settings of an HTTP API -> what is wrong with them, or the provider that they describe."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

from delivery.conf import conf
from delivery.engines.api_fields import calling_problems, missing, not_among, out_of_range
from delivery.engines.http_api.api import HttpApi, Reading
from delivery.engines.http_api.authentication import auth_problems, proof_of
from delivery.engines.http_api.body import BodyTemplate
from delivery.engines.http_api.fields import SECRET
from delivery.engines.http_api.headers import HeaderTemplates, is_header_name
from delivery.engines.http_api.oauth import Grant
from delivery.engines.http_api.paths import parse_path
from delivery.engines.http_api.request import RequestTemplate
from delivery.engines.http_api.rules import parse_rules
from delivery.engines.http_api.url import UrlTemplate
from delivery.engines.kind import Options, Secrets
from delivery.http import problem_with_url
from delivery.templating import TemplateProblem

METHODS = ("POST", "PUT", "PATCH")
CONCURRENCY = 10
MOST_RECORDS = 1000
KEY_HEADER = "Idempotency-Key"
NO_HEADER = "-"  # an empty field of a form is not stored, and a setting that is not stored has its default
SHOWN_IN = {"basic": "by Basic", "body": "in the form"}
_IN_HEADER = "header:"


def problems_with(options: Options, secrets: Secrets) -> list[str]:
    """A sentence for each problem, templates compiled."""
    problems = missing(options, {"url": "URL", "body": "body"}) + not_among(options, "method", METHODS)
    problems += auth_problems(options, secrets) + not_among(options, "client_shown", SHOWN_IN)
    problems += calling_problems(options, secrets)
    problems += out_of_range(options, "batch_size", 1, MOST_RECORDS)
    problems += _url_problems(options) + _key_header_problems(options)
    for compiled in (_request_url, _request_headers, _request_body, _reading):
        problems += _problem_of(compiled, options)
    return problems or _joint_problems(options, secrets)


def _key_header_problems(options: Options) -> list[str]:
    name = _key_header(options)
    return [f"“{name}” is no name of a header, such as {KEY_HEADER}."] if name and not is_header_name(name) else []


def _problem_of(compiled: Callable[[Options], object], options: Options) -> list[str]:
    try:
        compiled(options)
    except TemplateProblem as problem:
        return [problem.message]
    except ValueError as error:
        return str(error).splitlines()
    return []


def _url_problems(options: Options) -> list[str]:
    # Of a URL with templates in it, what stands before the first one: the host is fixed, and stands there.
    urls = [str(options.get("url") or "").partition("{")[0], str(options.get("token_url") or "")]
    return [problem for url in urls if url and (problem := problem_with_url(url, conf().allowed_networks))]


def _joint_problems(options: Options, secrets: Secrets) -> list[str]:
    """What is wrong between settings that are right by themselves."""
    url, headers, body = _request_url(options), _request_headers(options), _request_body(options)
    outside, used = url.names | headers.names, url.names | headers.names | body.names
    problems = []
    if _batch_size(options) > 1 and outside - {SECRET}:
        names = ", ".join(sorted(outside - {SECRET}))
        problems.append(f"With several records a call, URL and headers belong to none: take {names} out of them.")
    if _batch_size(options) > 1 and options.get("honours_keys"):
        problems.append("An API can refuse a key it has seen only when each call has one record: set that to 1.")
    if options.get("honours_keys") and not _key_header(options) and "key" not in used:
        problems.append("The API is to refuse a key it has seen, and gets none: name a header, or use {{ key }}.")
    if SECRET in used and not secrets.get(SECRET):
        problems.append("A template uses {{ secret }}, and there is none.")
    of_caller = ["Authorization"] if options.get("auth") == "oauth2" else proof_of(options, secrets).headers
    return problems + _doubled([*headers.own, _key_header(options), *of_caller])


def _doubled(names: Iterable[str]) -> list[str]:
    """A sentence for each header that two settings want to write."""
    counts = Counter(name.lower() for name in names if name)
    return [f"The header {name} comes from two settings: leave one of them out." for name, n in counts.items() if n > 1]


def _request_url(options: Options) -> UrlTemplate:
    return UrlTemplate(str(options.get("url") or ""))


def _request_headers(options: Options) -> HeaderTemplates:
    return HeaderTemplates(str(options.get("headers") or ""))


def _request_body(options: Options) -> BodyTemplate:
    return BodyTemplate(str(options.get("body") or ""), str(options.get("batch_document") or ""))


def _batch_size(options: Options) -> int:
    return int(options.get("batch_size") or 1)  # type: ignore[call-overload]


def _key_header(options: Options) -> str:
    name = str(options.get("idempotency_header", KEY_HEADER) or "")
    return "" if name == NO_HEADER else name


def _reading(options: Options) -> Reading:
    """Raises ValueError, with a line for each problem."""
    id_path = str(options.get("id_path") or "").strip()
    in_header = id_path.lower().startswith(_IN_HEADER)
    results = str(options.get("results_path") or "").strip()
    return Reading(
        rules=parse_rules(str(options.get("rules") or "")),
        id_path=() if in_header else parse_path(id_path),
        id_header=id_path[len(_IN_HEADER) :].strip() if in_header else "",
        error_path=parse_path(str(options.get("error_path") or "")),
        results=parse_path(results) if results else None,
    )


def grant_of(options: Options, secrets: Secrets) -> Grant | None:
    """How calls get their token; None when they need none."""
    if options.get("auth") != "oauth2":
        return None
    return Grant(
        url=str(options["token_url"]),
        client_id=str(options["username"]),
        client_secret=secrets["credential"],
        scope=str(options.get("scope") or ""),
        in_body=options.get("client_shown") == "body",
    )


def make_provider(options: Options, secrets: Secrets) -> HttpApi:
    """The provider that these settings describe. Raises TemplateProblem, ValueError."""
    url, reading, batch_size = _request_url(options), _reading(options), _batch_size(options)
    request = RequestTemplate(
        url, _request_headers(options), _request_body(options), secrets.get(SECRET, ""), batch=batch_size > 1
    )
    return HttpApi(
        method=str(options.get("method") or "POST"),
        request=request,
        proof=proof_of(options, secrets),
        reading=reading if not url.names - {SECRET} else replace(reading, rows=()),
        key_header=_key_header(options),
        batch_size=batch_size,
        honours_keys=bool(options.get("honours_keys")),
    )
