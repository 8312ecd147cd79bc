"""The HTTP API of an operator's own: see `delivery.engines.provider.Provider`.

Decides how rules, paths and HTTP's own meanings come together into outcomes, for one record a call and for several.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from delivery.core.answer import Answer, Row, classify_words, plain, told_to_wait, unread
from delivery.core.envelope import Envelope, Kind, Outcome
from delivery.core.meaning import ENGINE
from delivery.engines.http_api.authentication import Proof
from delivery.engines.http_api.paths import Path, find, said
from delivery.engines.http_api.request import RequestTemplate
from delivery.engines.http_api.rules import Rule
from delivery.engines.mail_parts import call_key
from delivery.engines.provider import Question
from delivery.http import Call

# With a fixed URL these say that it is wrong: of no record can that be the fault.
WRONG_URL = Row(ENGINE, statuses=(404, 405))


@dataclass(frozen=True, slots=True)
class Reading:
    """How answers are read. `rows` come after the rules. `results` is where a call's answer has its records' results,
    one for each in order, by which they are judged alone. `id_header` or `id_path` hold the API's id of a mail."""

    rules: tuple[Rule, ...] = ()
    rows: tuple[Row, ...] = (WRONG_URL,)
    id_path: Path = ()
    id_header: str = ""
    error_path: Path = ()
    results: Path | None = None


@dataclass(frozen=True, slots=True)
class HttpApi:
    """See the module. `key_header` carries the idempotency key, "" for none."""

    method: str
    request: RequestTemplate
    proof: Proof
    reading: Reading
    key_header: str = ""
    batch_size: int = 1
    honours_keys: bool = False

    def refuse(self, envelope: Envelope) -> Outcome | None:
        """What a record cannot hold is found when it is written (see `call`). Files with no place in it would be lost
        without a word."""
        if envelope.frame.attachments and not self.request.carries_attachments:
            text = "The mail has attachments, and the body of this engine has no place for `{{ attachments }}`."
            return Outcome(Kind.MESSAGE, text=text)
        return None

    def groups(self, envelopes: Sequence[Envelope]) -> list[Sequence[Envelope]]:
        return [envelopes]

    def call(self, envelopes: Sequence[Envelope], now: datetime) -> Call:
        url, headers, body = self.request.build(envelopes)
        if self.key_header:
            headers[self.key_header] = call_key(envelopes)
        return Call(self.method, self.proof.on(url), {**headers, **self.proof.headers}, body)

    def read(self, answer: Answer, envelopes: Sequence[Envelope], now: datetime) -> list[Outcome]:
        document = answer.json()
        whole = self._judge(answer, document, len(envelopes), now)
        if whole.kind is not Kind.ACCEPTED:
            return [whole] * len(envelopes)
        if self.reading.results is None:
            return [self._named(whole, envelope) for envelope in envelopes]
        results = find(document, self.reading.results)
        if not isinstance(results, list):
            return [unread(answer)] * len(envelopes)
        # A list of another length is the driver's to judge: which of them is whose, nobody knows.
        outcomes = [self._judge(answer, result, 1, now, of_one=True) for result in results]
        if len(outcomes) != len(envelopes):
            return outcomes
        return [self._named(each, envelope) for each, envelope in zip(outcomes, envelopes, strict=True)]

    def _judge(self, answer: Answer, document: object, count: int, now: datetime, *, of_one: bool = False) -> Outcome:
        """What an answer, or the result of one record in it, means."""
        reading = self.reading
        rule = next((rule for rule in reading.rules if rule.matches(answer.status, document)), None)
        if rule is None and (_says_nothing(document) if of_one else _is_page(answer)):
            return unread(answer)
        outcome = classify_words(
            [Row(rule.meaning)] if rule else reading.rows,
            answer.status,
            "",
            "",
            provider_id=self._id(answer, document),
            wait=told_to_wait(answer.headers, now) if rule or not answer.is_success else None,
            shared=count > 1,
        )
        if outcome.kind is Kind.ACCEPTED:
            return outcome
        return replace(outcome, text=self._words(answer, document, of_one))

    def _id(self, answer: Answer, document: object) -> str:
        if self.reading.id_header:
            return plain(answer.headers.get(self.reading.id_header.lower(), ""))
        return plain(find(document, self.reading.id_path)) if self.reading.id_path else ""

    def _words(self, answer: Answer, document: object, of_one: bool) -> str:
        found = find(document, self.reading.error_path) if self.reading.error_path else None
        if found:
            return said(found)
        return said(document) if of_one else answer.words()

    def _named(self, outcome: Outcome, envelope: Envelope) -> Outcome:
        """An accepted mail that the API gave no id of its own is known by ours."""
        if outcome.kind is Kind.ACCEPTED and not outcome.provider_id:
            return replace(outcome, provider_id=envelope.key)
        return outcome

    def questions(self, domains: frozenset[str], now: datetime) -> list[Question]:
        """None: whatever is asked of an unknown API could be a mail. See `engine`."""
        return []


def _says_nothing(result: object) -> bool:
    """A result of null or false is no yes, and without a rule for it no refusal either."""
    return result is None or result is False


def _is_page(answer: Answer) -> bool:
    """A page of HTML with a status of success comes from something that stands between: a login page, a proxy."""
    return answer.is_success and answer.body[:200].lstrip()[:1] == b"<"
