"""Any JSON API as a kind of engine."""

from delivery.engines.http_api.engine import HttpApiEngine
from delivery.engines.http_api.fields import SECRET
from delivery.engines.http_api.form import fields
from delivery.engines.http_api.settings import CONCURRENCY, grant_of, make_provider, problems_with
from delivery.engines.http_api.url import UrlTemplate
from delivery.engines.kind import EngineKind, Options, Secrets
from delivery.http.origin import origin_of


def _open(engine_id: int, options: Options, secrets: Secrets) -> HttpApiEngine:
    provider, grant = make_provider(options, secrets), grant_of(options, secrets)
    return HttpApiEngine(
        provider,
        origin=UrlTemplate(str(options["url"])).origin,
        concurrency=int(options.get("concurrency") or CONCURRENCY),  # type: ignore[call-overload]
        timeout=float(options.get("timeout") or 60),  # type: ignore[arg-type]
        secrets=[*secrets.values(), *provider.proof.hidden, *([grant.basic] if grant else [])],
        grant=grant,
    )


def _uses(options: Options) -> dict[str, object]:
    # The host of a URL with templates in it is fixed, and stands before the first one.
    at, token_at = (origin_of(str(options.get(name) or "").partition("{")[0]) for name in ("url", "token_url"))
    match options.get("auth") or "none":
        case "none":
            return {SECRET: at}
        case "oauth2":
            return {SECRET: at, "credential": (at, token_at)}  # what it is changed for goes to the API
        case _:
            return {SECRET: at, "credential": at}


KIND = EngineKind(
    "http",
    "HTTP (any JSON API)",
    fields,
    frozenset({"credential", SECRET}),
    problems_with,
    _open,
    hint="Whatever takes a record as JSON: you write the request, and say what its answers mean.",
    uses=_uses,
)
