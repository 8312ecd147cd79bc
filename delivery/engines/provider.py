"""Engines that are HTTP APIs: what each provider must say of itself, and the one driver that does the talking.

A Provider is without I/O: it writes requests and reads answers. The driver sends them through the shared client, turns
silence into outcomes, and keeps credentials out of everything that is written down.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

import httpx

from delivery.core.answer import Answer
from delivery.core.envelope import Envelope, Kind, Outcome
from delivery.engines.base import Finding
from delivery.http import Call, Client, Unreachable

CHECK_PATIENCE = 10.0  # seconds for each question of `check`: somebody sits in front of the answer
_HIDDEN = "…"
SHORTEST_SECRET = 6  # characters; shorter ones would take ordinary words out of the provider's text


@dataclass(frozen=True, slots=True)
class Question:
    """One question of `check`: a call that sends no mail, and what its answer says is wrong."""

    call: Call
    judge: Callable[[Answer], list[Finding]]


class Provider(Protocol):
    """One HTTP API. All methods are pure; `now` is the instant of the call.

    `batch_size`: how many envelopes one call may carry. `honours_keys`: see `delivery.engines.base.Engine`.
    """

    batch_size: int
    honours_keys: bool

    def refuse(self, envelope: Envelope) -> Outcome | None:
        """Why this API can never take this envelope, known without asking it; None when it may."""
        ...

    def call(self, envelopes: Sequence[Envelope], now: datetime) -> Call:
        """The request that hands these envelopes over: between 1 and `batch_size`, none of them refused."""
        ...

    def read(self, answer: Answer, envelopes: Sequence[Envelope], now: datetime) -> list[Outcome]:
        """One outcome for each envelope, in order, whatever the answer is: HTML, half a JSON, or nothing."""
        ...

    def questions(self, domains: frozenset[str], now: datetime) -> list[Question]:
        """What to ask to find wrong credentials, regions and sender identities."""
        ...


class ProviderEngine:
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
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.batch_size = provider.batch_size
        self.honours_keys = provider.honours_keys
        self.concurrency = concurrency
        self._provider = provider
        self._timeout = timeout
        self._secrets = tuple(s for s in secrets if len(s) >= SHORTEST_SECRET)
        self._client = Client(transport)
        self._now = now

    async def send(self, envelopes: Sequence[Envelope]) -> list[Outcome]:
        """One outcome for each envelope, in order, by one call for all that the API may take."""
        refused = {i: r for i, e in enumerate(envelopes) if (r := self._provider.refuse(e))}
        going = [e for i, e in enumerate(envelopes) if i not in refused] if refused else envelopes
        outcomes = iter(await self._hand_over(going) if going else ())
        return [refused[i] if i in refused else next(outcomes) for i in range(len(envelopes))]

    async def _hand_over(self, envelopes: Sequence[Envelope]) -> list[Outcome]:
        now = self._now()
        try:
            call = self._provider.call(envelopes, now)
        except ValueError as error:  # what one of them holds cannot be written down as this API wants it
            return [Outcome(Kind.MESSAGE, text=f"The mail cannot be built: {error}", shared=True)] * len(envelopes)
        try:
            answer = self._redacted(await self._client.exchange(call, self._timeout))
        except Unreachable as error:
            return [self._silence(error)] * len(envelopes)
        outcomes = self._provider.read(answer, envelopes, now)
        if len(outcomes) != len(envelopes):
            text = f"The answer tells of {len(outcomes)} mails, not of the {len(envelopes)} that were handed over."
            return [Outcome(Kind.UNKNOWN, str(answer.status), text)] * len(envelopes)
        return outcomes

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
        return answer if body is answer.body else replace(answer, body=body)

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


def _host(call: Call) -> str:
    return httpx.URL(call.url).host or call.url
