"""What the answer of an HTTP API means: from status, headers and body to an Outcome.

A provider brings a table of what is its own, read from the top, first match wins; what it says nothing of falls
through to DEFAULTS, which are HTTP's. Knows no provider, no socket and no clock. An answer that nobody has a row for is
an Outcome all the same: providers change, and proxies answer in their place.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from delivery.core.envelope import UNKEPT, Kind, Outcome
from delivery.core.meaning import ENGINE, LONGEST_WAIT, MESSAGE, SLOWER, TAKEN, TROUBLE, UNKNOWN, Meaning

KEPT_WORDS = 300  # characters of a body that is no JSON: a proxy's HTML says little in more
# Above this, a number that says when to come back is an instant in Unix time, not a duration.
UNIX_TIME = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, read to its end or as far as anybody wants to read. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def is_success(self) -> bool:
        return 200 <= self.status <= 299

    def json(self) -> object:
        """The body as JSON; None when it is none (HTML, cut off, nested without end, empty)."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def fields(self) -> Mapping[str, object]:
        """The body as a JSON object; an empty one when it is anything else."""
        found = self.json()
        return found if isinstance(found, dict) else {}

    def words(self) -> str:
        """The beginning of the body in one line of plain text, without HTML's tags."""
        text = self.body[: 20 * KEPT_WORDS].decode("utf-8", "replace")
        if "<" in text:
            text = _TAGS.sub(" ", _UNSEEN.sub(" ", text))
        return " ".join(plain(text).split())[:KEPT_WORDS]


def plain(value: object) -> str:
    """What a field of an answer says, as text that any database keeps; "" when it is neither text nor a number."""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return ""
    return UNKEPT.sub(" ", str(value))


def objects(value: object) -> list[Mapping[str, object]]:
    """The JSON objects of a list; none when it is no list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


_UNSEEN = re.compile(r"<(script|style|head)\b.*?(</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_TAGS = re.compile(r"<[^>]*(>|\Z)")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: every condition given must hold.

    A status of one digit stands for its class. `codes` are the provider's own, compared without regard to case;
    `words` is looked for in its text.
    """

    meaning: Meaning
    statuses: tuple[int, ...] = ()
    codes: tuple[str, ...] = ()
    words: str = ""

    def matches(self, status: int, code: str, text: str) -> bool:
        """Whether this row is about that answer."""
        return (
            (not self.statuses or status in self.statuses or status // 100 in self.statuses)
            and (not self.codes or code.lower() in (known.lower() for known in self.codes))
            and (not self.words or re.search(self.words, text, re.IGNORECASE) is not None)
        )


# providers.md §0. A 502 or 504 of a proxy leaves open whether the API behind it took the mail; providers say that it
# did not, and a table may say otherwise.
DEFAULTS = (
    Row(TAKEN, statuses=(2,)),
    Row(ENGINE, statuses=(1, 3)),  # a redirect is not followed: it would repeat the request somewhere else
    Row(ENGINE, statuses=(401, 402, 403, 407)),
    Row(SLOWER, statuses=(429,)),
    Row(TROUBLE, statuses=(408, 425, 5)),
    Row(MESSAGE, statuses=(4,)),
    Row(UNKNOWN),
)


def classify_answer(
    rows: Iterable[Row],
    answer: Answer,
    *,
    code: str = "",
    text: str = "",
    provider_id: str = "",
    wait: timedelta | None = None,
    shared: bool = False,
) -> Outcome:
    """The outcome of an answer with the provider's own `code` and `text` in it, by `rows` and else by DEFAULTS.

    `wait` is what the provider said about when to come back. `shared`: the answer is about a call with several
    envelopes, and does not say which of them is to blame.
    """
    return classify_words(
        rows,
        answer.status,
        code,
        text or answer.words(),
        provider_id=provider_id,
        wait=wait,
        shared=shared,
    )


def classify_words(
    rows: Iterable[Row],
    status: int,
    code: str,
    text: str,
    *,
    provider_id: str = "",
    wait: timedelta | None = None,
    shared: bool = False,
) -> Outcome:
    """As `classify_answer`, for one result among several in an answer's body."""
    meaning = next(row.meaning for row in (*rows, *DEFAULTS) if row.matches(status, code, text))
    accepted = meaning.kind is Kind.ACCEPTED
    return Outcome(
        meaning.kind,
        f"{status} {code}".strip(),
        text,
        provider_id=provider_id if accepted else "",
        retry_after=(wait or meaning.wait) if meaning.kind in (Kind.THROTTLED, Kind.TRANSIENT) else None,
        hard=meaning.hard and not shared,  # nobody is suppressed for an address that may be a neighbour's
        faults_engine=meaning.faults_engine,
        shared=shared and meaning.kind in (Kind.MESSAGE, Kind.RECIPIENT),
    )


def unread(answer: Answer) -> Outcome:
    """The outcome of an answer that says yes and does not say to what: the mail was handed over, and that is all."""
    return Outcome(Kind.UNKNOWN, str(answer.status), answer.words())


def told_to_wait(
    headers: Mapping[str, str], now: datetime, names: Sequence[str] = ("retry-after", "ratelimit-reset")
) -> timedelta | None:
    """How long to stay away, by the first of these headers that says so: in seconds, in Unix time, or as a date
    (RFC 9110 §10.2.3). None when none does. More than a day is not believed."""
    for name in names:
        wait = read_wait(headers.get(name, ""), now)
        if wait is not None:
            return wait
    return None


def read_wait(value: str, now: datetime) -> timedelta | None:
    """The duration that a header's value stands for; None when it says nothing, or a time that has passed."""
    value = value.strip()
    try:
        seconds = float(value)
    except ValueError:
        seconds = _until_date(value, now)
    else:
        if seconds > UNIX_TIME:
            seconds -= now.timestamp()
    if seconds is None or not 0 < seconds < float("inf"):
        return None
    return min(timedelta(seconds=min(seconds, LONGEST_WAIT.total_seconds())), LONGEST_WAIT)


def _until_date(value: str, now: datetime) -> float | None:
    try:
        at = parsedate_to_datetime(value)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now.timestamp()
    except (ValueError, OverflowError, OSError):
        return None
