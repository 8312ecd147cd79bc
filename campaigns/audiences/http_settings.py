"""What an operator enters for an HTTP audience: which settings there are, what is wrong with them, what they mean.

`problems_with` judges by the setting, without any network; `HttpSettings.of` takes what it found nothing wrong with.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Self

from campaigns.audiences.http_paging import STYLES, Paging, Style
from campaigns.audiences.http_url import parameters, with_parameters
from campaigns.audiences.json_increment import COMPARABLE, Since
from campaigns.audiences.json_mapping import EXAMPLE as MAPPING_EXAMPLE
from campaigns.audiences.json_mapping import Mapped, Worded, parse_mapping
from campaigns.audiences.json_path import Path, parse_path
from campaigns.audiences.json_types import Type
from delivery.engines.http_api.authentication import Proof, auth_problems, proof_of
from delivery.engines.http_api.headers import is_header_name
from delivery.http import problem_with_url

Options = Mapping[str, object]
Secrets = Mapping[str, str]
Networks = Iterable[IPv4Network | IPv6Network]

CREDENTIAL = "credential"
MAX_TEXT = 20_000  # characters of a setting
# Written by the client itself, by the authentication, or what would change where the request ends.
_OWNED = frozenset({
    "host", "content-length", "transfer-encoding", "connection", "te", "upgrade", "expect", "accept-encoding",
    "authorization",
})  # fmt: skip

AUTH = {
    "none": "none",
    "bearer": "bearer token",
    "header": "API key in a header",
    "query": "API key in the URL",
    "basic": "user name and password (Basic)",
}
TYPES_SINCE = tuple(each.value for each in COMPARABLE)
TEXTS = (
    "url", "items", "auth", "username", "key_name", "headers", "parameters", "paging", "next_path", "page_parameter",
    "size_parameter", "fields", "since_parameter", "since_path", "since_type",
)  # fmt: skip
# setting: lowest, highest, what an empty one is
NUMBERS = {
    "first_page": (0, 1_000_000, 1),
    "page_size": (1, 100_000, 100),
    "timeout_seconds": (1, 600, 30),
    "total_minutes": (1, 24 * 60, 60),
    "attempts": (1, 10, 4),
    "max_page_octets": (1_000, 100_000_000, 5_000_000),
    "max_pages": (1, 100_000, 10_000),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one reading may take: seconds for one answer, seconds for all of it, tries of one request, octets of one
    page (decoded), pages."""

    timeout: float = 30
    total: float = 3600
    attempts: int = 4
    page_octets: int = 5_000_000
    pages: int = 10_000


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """A list that is read over HTTP. `items`: where it lies in a page. `fields`: () takes every scalar. `since`: None
    reads everything each time."""

    url: str
    items: Path
    items_written: str
    proof: Proof = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    hidden: tuple[str, ...] = field(repr=False)  # what no message may show
    paging: Paging = field(default_factory=Paging)
    fields: tuple[Mapped | Worded, ...] = ()
    since: Since | None = None
    limits: Limits = Limits()

    @classmethod
    def of(cls, options: Options, secrets: Secrets) -> Self:
        """What settings mean that `problems_with` finds nothing wrong with."""
        proof = proof_of(options, secrets)
        return cls(
            url=with_parameters(_text(options, "url"), parameters(_text(options, "parameters"))),
            items=parse_path(_text(options, "items")),
            items_written=_text(options, "items") or "$",
            proof=proof,
            headers=_headers(_text(options, "headers")),
            hidden=tuple(filter(None, [*secrets.values(), *proof.hidden])),
            paging=_paging(options),
            fields=parse_mapping(_text(options, "fields")),
            since=_since(options),
            limits=Limits(
                timeout=_number(options, "timeout_seconds"),
                total=_number(options, "total_minutes") * 60,
                attempts=_number(options, "attempts"),
                page_octets=_number(options, "max_page_octets"),
                pages=_number(options, "max_pages"),
            ),
        )


def problems_with(options: object, secrets: Secrets, networks: Networks) -> dict[str, str]:
    """By setting, a sentence for what is wrong with it, with a good one; {} when nothing is. `networks`: what requests
    may reach beside the public internet."""
    if not isinstance(options, Mapping):
        return {"url": 'The settings must be an object, such as {"url": "https://api.example/people"}.'}
    problems = _of_the_wrong_kind(options)
    judges: tuple[Callable[[], dict[str, str]], ...] = (
        lambda: _url_problems(options, networks),
        lambda: _auth_problems(options, secrets),
        lambda: _paging_problems(options),
        lambda: _since_problems(options),
        lambda: _unread(options),
        lambda: _doubled_parameters(options),
    )
    if problems:
        return problems
    for judge in judges:
        problems = judge() | problems
    return problems


def _of_the_wrong_kind(options: Options) -> dict[str, str]:
    problems = {}
    for name, value in options.items():
        if name in NUMBERS:
            low, high, usual = NUMBERS[name]
            if value is not None and not (type(value) is int and low <= value <= high):
                problems[name] = f"This must be a whole number between {low:,} and {high:,}, such as {usual:,}."
        elif name not in TEXTS:
            problems[str(name)] = f"There is no setting {name!r}. There is: {', '.join((*TEXTS, *NUMBERS))}."
        elif value is not None and not isinstance(value, str):
            problems[name] = 'This must be a text, such as "…".'
        elif value is not None and (len(value) > MAX_TEXT or "\0" in value):
            problems[name] = f"This must be a text of up to {MAX_TEXT:,} characters, without NUL."
    return problems


def _url_problems(options: Options, networks: Networks) -> dict[str, str]:
    url = _text(options, "url")
    if not url:
        return {"url": "Enter the URL of the list, such as https://api.example/v1/people."}
    if "#" in url or any(not letter.isprintable() or letter in ' \\"<>' for letter in url):
        return {"url": f"“{url[:200]}” has characters that no URL has: write it as https://host/path."}
    problem = problem_with_url(url, list(networks))
    return {"url": problem} if problem else {}


def _auth_problems(options: Options, secrets: Secrets) -> dict[str, str]:
    way, credential, name = _text(options, "auth") or "none", secrets.get(CREDENTIAL, ""), _text(options, "key_name")
    if way not in AUTH:
        return {"auth": f"“{way}” is no way to authenticate: choose one of {', '.join(AUTH)}."}
    problems = {}
    if way != "none" and not credential:
        problems[CREDENTIAL] = "Enter the token, key or password that the authentication needs."
    elif credential and (credential != credential.strip() or not (credential.isascii() and credential.isprintable())):
        problems[CREDENTIAL] = "It has spaces around it, or characters that no header can carry: copy it again."
    if way in ("header", "query") and not name:
        problems["key_name"] = "Enter the name of the key's header or parameter, such as X-Api-Key."
    elif way == "header" and (not is_header_name(name) or name.lower() in _OWNED - {"authorization"}):
        problems["key_name"] = f"“{name}” is no name of a header: give it alone, such as X-Api-Key."
    if way == "basic" and not _text(options, "username"):
        problems["username"] = "Enter the user name, such as reader."
    if not problems and (left := auth_problems(options, secrets)):
        problems["username" if way == "basic" else "auth"] = " ".join(left)
    if way == "header" and name.lower() in map(str.lower, _tried(_headers, options, "headers") or {}):
        problems["headers"] = f"The header {name} is written by the authentication: leave it out here."
    return problems


def _paging_problems(options: Options) -> dict[str, str]:
    style = _text(options, "paging") or Style.NONE
    if style not in STYLES:
        return {"paging": f"“{style}” is no way of paging: choose one of {', '.join(STYLES)}."}
    problems = {}
    if style in (Style.LINK_BODY, Style.CURSOR) and not _text(options, "next_path"):
        example = "links.next" if style == Style.LINK_BODY else "meta.next_cursor"
        problems["next_path"] = f"Enter where a page says what comes next, such as {example}."
    if style in (Style.PAGE, Style.OFFSET, Style.CURSOR) and not _text(options, "page_parameter"):
        problems["page_parameter"] = f"Enter the parameter that asks for the next page, such as {_USUAL[style]}."
    return problems


_USUAL = {Style.PAGE: "page", Style.OFFSET: "offset", Style.CURSOR: "cursor"}


def _since_problems(options: Options) -> dict[str, str]:
    path, parameter, kind = (_text(options, f"since_{name}") for name in ("path", "parameter", "type"))
    problems = {}
    if kind and kind not in TYPES_SINCE:
        problems["since_type"] = f"“{kind}” is no type that grows: choose one of {', '.join(TYPES_SINCE)}."
    if not path and not parameter:
        return problems
    if not path:
        problems["since_path"] = "Enter where an item has the value that grows, such as updated_at or id."
    if not parameter:
        problems["since_parameter"] = "Enter the parameter that asks for what is newer, such as updated_since."
    if not _text(options, "fields").strip():
        problems["fields"] = (
            "Name the fields: when nothing is new there is no item from which they could be told, such as "
            f"{MAPPING_EXAMPLE}."
        )
    return problems


def _unread(options: Options) -> dict[str, str]:
    """What cannot be read, or could not be sent."""
    readings = {
        "items": parse_path,
        "next_path": parse_path,
        "since_path": parse_path,
        "fields": parse_mapping,
        "headers": _headers,
        "parameters": parameters,
    }
    problems = {}
    for name, read in readings.items():
        try:
            read(_text(options, name))
        except ValueError as error:
            problems[name] = str(error)
    for name in ("page_parameter", "size_parameter", "since_parameter", "key_name"):
        value = _text(options, name)
        if value != value.strip() or not value.isprintable() or len(value) > 100:
            problems[name] = "This must be one word of up to 100 characters, without spaces around it, such as page."
    return problems


def _doubled_parameters(options: Options) -> dict[str, str]:
    """A parameter that two settings want to write."""
    taken: dict[str, str] = {}
    problems = {}
    style = _text(options, "paging") or Style.NONE
    in_use = {"key_name": _text(options, "auth") == "query", "since_parameter": True}
    in_use["page_parameter"] = style in _USUAL
    in_use["size_parameter"] = style in _USUAL
    for name, used in in_use.items():
        value = _text(options, name) if used else ""
        if value and value in taken:
            problems[name] = f"The parameter {value} is written by another setting, too: each needs one of its own."
        taken[value] = name
    for name, _ in _tried(parameters, options, "parameters") or []:
        if name in taken:
            problems["parameters"] = f"The parameter {name} is written by another setting: leave it out here."
    return problems


def _tried(read: Callable[[str], object], options: Options, name: str) -> object:
    try:
        return read(_text(options, name))
    except ValueError:
        return None  # `_unread` says so


def _headers(text: str) -> dict[str, str]:
    """The headers of these lines. Raises ValueError, with a sentence."""
    headers: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, colon, value = (piece.strip() for piece in line.partition(":"))
        if not line.strip():
            continue
        if not colon or not is_header_name(name) or not (value.isascii() and value.isprintable()):
            raise ValueError(f"Line {number} is no header: write Name: value, such as Accept-Language: en.")
        if name.lower() in _OWNED or name.lower() in map(str.lower, headers):
            raise ValueError(
                f"Line {number}: {name} is there twice, or written by the client itself: leave it out, or use the "
                "authentication's fields. A good line is Accept-Language: en."
            )
        headers[name] = value
    return headers


def _paging(options: Options) -> Paging:
    style = Style(_text(options, "paging") or Style.NONE)
    return Paging(
        style=style,
        next_path=parse_path(_text(options, "next_path")),
        parameter=_text(options, "page_parameter"),
        first=_number(options, "first_page"),
        size_parameter=_text(options, "size_parameter"),
        size=_number(options, "page_size"),
    )


def _since(options: Options) -> Since | None:
    path = _text(options, "since_path")
    if not path:
        return None
    kind = Type(_text(options, "since_type") or Type.DATETIME)
    return Since(_text(options, "since_parameter"), parse_path(path), path, kind)


def _text(options: Options, name: str) -> str:
    return str(options.get(name) or "")


def _number(options: Options, name: str) -> int:
    given = options.get(name)
    return NUMBERS[name][2] if given is None else int(given)  # type: ignore[call-overload]
