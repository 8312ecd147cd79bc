"""Engines that are HTTP APIs: what each provider must say of itself, and the one driver that does the talking.

A Provider is without I/O: it writes requests and reads answers. The driver sends them through the shared client, turns
silence into outcomes, and keeps credentials out of everything that is written down.
"""

import html
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import quote

import httpx

from delivery.core.answer import Answer
from delivery.core.envelope import Envelope, Kind, Outcome
from delivery.engines.base import Connectionless, Finding
from delivery.http import Call, Client, Unreachable

CHECK_PATIENCE = 10.0  # seconds for each question of `check`: somebody sits in front of the answer
_HIDDEN = "…"
_ABOUT_A_MAIL = (Kind.ACCEPTED, Kind.RECIPIENT, Kind.MESSAGE)
SHORTEST_SECRET = 6  # characters; shorter ones would take ordinary words out of the provider's text


@dataclass(frozen=True, slots=True)
class Question:
    """One question of `check`: a call that sends no mail, and what its answer says is wrong."""

    call: Call
    judge: Callable[[Answer], list[Finding]]


class Provider(Protocol):
    """One HTTP API. All methods are pure; `now` is the instant of the call.

    `batch_size`: how many envelopes one call may carry. `honours_keys`: the API takes the same call only once; its key
    names exactly the envelopes of that call.
    """

    batch_size: int
    honours_keys: bool

    def refuse(self, envelope: Envelope) -> Outcome | None:
        """Why this API can never take this envelope, known without asking it; None when it may."""
        ...

    def groups(self, envelopes: Sequence[Envelope]) -> Iterable[Sequence[Envelope]]:
        """These envelopes, none of them refused, as they may go together in one call each. Asked when there are
        several, and so never of an API that takes one at a time."""
        ...

    def call(self, envelopes: Sequence[Envelope], now: datetime) -> Call:
        """The request that hands these envelopes over: one of the `groups`, or a part of one. Raises ValueError when
        one of them holds what cannot be written down as this API wants it."""
        ...

    def read(self, answer: Answer, envelopes: Sequence[Envelope], now: datetime) -> list[Outcome]:
        """One outcome for each envelope, in order, whatever the answer is: HTML, half a JSON, or nothing."""
        ...

    def questions(self, domains: frozenset[str], now: datetime) -> list[Question]:
        """What to ask to find wrong credentials, regions and sender identities."""
        ...


class Exchange(Protocol):
    """What calls go through: the shared client, or what stands before it."""

    async def exchange(self, call: Call, timeout: float) -> Answer:
        """See `delivery.http.Client.exchange`."""
        ...

    async def close(self) -> None: ...


class ProviderEngine(Connectionless):
    """A Provider as a way out (see `delivery.engines.base.Engine`).

    `timeout`: seconds to wait for an answer. Giving up early on an API that is still storing a mail makes a double.
    `secrets`: what must not appear in any text that is kept, whoever repeats it.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        concurrency: int,
        timeout: float,
        secrets: Iterable[str] = (),
        transport: httpx.AsyncBaseTransport | None = None,
        client: Exchange | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.batch_size = provider.batch_size
        # The worker does not keep together what went in one call: the rest of it would be sent again under a new key.
        self.honours_keys = provider.honours_keys and provider.batch_size == 1
        self.concurrency = concurrency
        self._provider = provider
        self._timeout = timeout
        self._secrets = tuple(spelt for s in secrets if len(s) >= SHORTEST_SECRET for spelt in _spellings(s))
        self._client = client or Client(transport)
        self._now = now

    def groups(self, envelopes: Sequence[Envelope]) -> list[Sequence[Envelope]]:
        """As the API may have them together. Those that it can never take cost no call, and go with the first."""
        refused = [each for each in envelopes if self._provider.refuse(each)]
        if not refused:
            return list(self._provider.groups(envelopes))
        going = [each for each in envelopes if not self._provider.refuse(each)]
        first, *others = [list(group) for group in self._provider.groups(going)] if going else [[]]
        return [[*first, *refused], *others]

    async def send(self, envelopes: Sequence[Envelope]) -> list[Outcome]:
        """One outcome for each envelope, in order, by as few calls as the API allows."""
        outcomes = {id(each): refused for each in envelopes if (refused := self._provider.refuse(each))}
        going = [each for each in envelopes if id(each) not in outcomes]
        stop: Outcome | None = None
        for group in self._provider.groups(going) if len(going) > 1 else filter(None, [going]):
            found = [stop] * len(group) if stop else await self._hand_over(group)
            outcomes |= zip(map(id, group), found, strict=True)
            stop = stop or _stop(found)
        return [outcomes[id(each)] for each in envelopes]

    async def _hand_over(self, envelopes: Sequence[Envelope]) -> list[Outcome]:
        now = self._now()
        try:
            call = self._provider.call(envelopes, now)
        except ValueError as error:
            return await self._hand_over_the_others(envelopes, error, now)
        try:
            answer = self._redacted(await self._client.exchange(call, self._timeout))
        except Unreachable as error:
            return [self._silence(error)] * len(envelopes)
        outcomes = self._provider.read(answer, envelopes, now)
        if len(outcomes) != len(envelopes):
            text = f"The answer tells of {len(outcomes)} mails, not of the {len(envelopes)} that were handed over."
            return [Outcome(Kind.UNKNOWN, str(answer.status), text)] * len(envelopes)
        return outcomes

    async def _hand_over_the_others(
        self, envelopes: Sequence[Envelope], error: ValueError, now: datetime
    ) -> list[Outcome]:
        """Some of these cannot be written down as the API wants it; what can goes without them."""
        spoilt = {id(each): refused for each in envelopes if (refused := self._unwritable(each, now))}
        others = [each for each in envelopes if id(each) not in spoilt]
        if not spoilt:  # each could go, and not all together
            return [_unwritable(error, shared=True)] * len(envelopes)
        handed = iter(await self._hand_over(others) if others else [])
        return [spoilt.get(id(each)) or next(handed) for each in envelopes]

    def _unwritable(self, envelope: Envelope, now: datetime) -> Outcome | None:
        try:
            self._provider.call([envelope], now)
        except ValueError as error:
            return _unwritable(error)
        return None

    async def check(self, domains: frozenset[str] = frozenset()) -> list[Finding]:
        """What is wrong with the settings, found by asking the API; [] when all is well. After a certain finding the
        rest is not asked: it would only say the same again."""
        findings: list[Finding] = []
        for question in self._provider.questions(domains, self._now()):
            try:
                answer = self._redacted(await self._client.exchange(question.call, CHECK_PATIENCE))
            except Unreachable as error:
                words = self._scrubbed(f"{_host(question.call)} cannot be reached: {error}")
                return [*findings, Finding(words, certain=error.hopeless)]
            findings += question.judge(answer)
            if any(finding.certain for finding in findings):
                break
        return findings

    async def close(self) -> None:
        """Ends the connections that nobody else uses."""
        await self._client.close()

    def _redacted(self, answer: Answer) -> Answer:
        """The answer without our credentials: some APIs repeat what they refuse."""
        body = answer.body
        for secret in self._secrets:
            body = body.replace(secret.encode(), _HIDDEN.encode())
        headers = {name: self._scrubbed(value) for name, value in answer.headers.items()}
        return Answer(answer.status, headers, body)

    def _silence(self, error: Unreachable) -> Outcome:
        """No answer was read. A request that was certainly not sent may be repeated anywhere; of any other nothing is
        known."""
        words = self._scrubbed(str(error))
        if error.hopeless:
            return Outcome(Kind.ENGINE, text=words)
        return Outcome(Kind.UNKNOWN if error.sent else Kind.TRANSIENT, text=words)

    def _scrubbed(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return text


def _stop(outcomes: Sequence[Outcome]) -> Outcome | None:
    """What the mails get whose turn would be next, when what came of a call says that theirs should not be made."""
    first = outcomes[0]
    if any(outcome.kind in _ABOUT_A_MAIL for outcome in outcomes):
        return None
    # No answer was read: true of those that were handed over, not of these.
    return replace(first, kind=Kind.TRANSIENT) if first.kind is Kind.UNKNOWN else first


def _unwritable(error: ValueError, *, shared: bool = False) -> Outcome:
    return Outcome(Kind.MESSAGE, text=f"The mail cannot be built: {error}", shared=shared)


def _spellings(secret: str) -> set[str]:
    """A secret as it stands in JSON, in a URL and in HTML."""
    in_json = json.dumps(secret)[1:-1]
    return {secret, in_json, in_json.replace("/", "\\/"), quote(secret), quote(secret, safe=""), html.escape(secret)}


def _host(call: Call) -> str:
    return httpx.URL(call.url).host or call.url
