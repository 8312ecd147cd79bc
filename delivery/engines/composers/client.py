"""The composer that talks to a chat API: through the shared client, so that it reaches no address it must not, and with
its key kept out of everything that is written down.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import quote

import httpx

from delivery.core.answer import Answer
from delivery.core.envelope import Kind, Outcome
from delivery.engines.base import Finding
from delivery.engines.composers.base import Composed, Prompt
from delivery.engines.composers.chat import ChatApi
from delivery.engines.provider import CHECK_PATIENCE, SHORTEST_SECRET
from delivery.http import Client, Unreachable

_HIDDEN = "…"


class ChatComposer:
    """See `delivery.engines.composers.base.Composer`. `timeout`: seconds to wait for an answer."""

    def __init__(
        self,
        api: ChatApi,
        *,
        concurrency: int,
        timeout: float,
        transport: httpx.AsyncBaseTransport | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.concurrency = concurrency
        self._api = api
        self._timeout = timeout
        self._client = Client(transport)
        self._now = now
        # As it may stand in a text, and in a URL that somebody repeats. No key has what JSON or HTML would escape.
        self._spellings = {api.key, quote(api.key, safe="")} if len(api.key) >= SHORTEST_SECRET else set()

    async def compose(self, prompt: Prompt) -> Composed:
        """Asks once."""
        try:
            answer = await self._client.exchange(self._api.call(prompt), self._timeout)
        except Unreachable as error:
            kind = Kind.ENGINE if error.hopeless else Kind.TRANSIENT
            return Composed(Outcome(kind, text=self._scrubbed(str(error))))
        return self._api.read(self._redacted(answer), self._now())

    async def check(self, domains: frozenset[str] = frozenset()) -> list[Finding]:
        """Asks which models there are: a wrong key, address or name shows."""
        try:
            answer = await self._client.exchange(self._api.models(), CHECK_PATIENCE)
        except Unreachable as error:
            words = self._scrubbed(f"{httpx.URL(self._api.base_url).host} cannot be reached: {error}")
            return [Finding(words, certain=error.hopeless)]
        return self._api.judge_models(self._redacted(answer))

    async def close(self) -> None:
        """Ends the connections that nobody else uses."""
        await self._client.close()

    def _redacted(self, answer: Answer) -> Answer:
        """The answer without the key: some servers repeat what they refuse."""
        body = answer.body
        for secret in self._spellings:
            body = body.replace(secret.encode(), _HIDDEN.encode())
        headers = {name: self._scrubbed(value) for name, value in answer.headers.items()}
        return Answer(answer.status, headers, body)

    def _scrubbed(self, text: str) -> str:
        for secret in self._spellings:
            text = text.replace(secret, _HIDDEN)
        return text
