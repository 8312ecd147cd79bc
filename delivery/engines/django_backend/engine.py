"""The way out through a Django email backend: a thread with a kept connection for each mail that is under way."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from django.core.mail.backends.base import BaseEmailBackend

from delivery.core.envelope import Envelope, Kind, Outcome
from delivery.engines.base import Connectionless, Finding
from delivery.engines.django_backend.mailer import Mailer
from delivery.engines.django_backend.seat import Seat

CHECK_PATIENCE = 15.0  # seconds: somebody sits in front of the answer
GRACE = 10.0  # seconds for the threads to end their connections in order
_HIDDEN = "…"


class DjangoEngine(Connectionless):
    """See the module. `threads`: mails under way at once. `patience`: seconds for one mail, after which its thread is
    left alone and the outcome is UNKNOWN. `secrets`: what must not appear in any text that is kept."""

    batch_size = 1  # of several mails in one call a backend says how many it sent, and not which
    honours_keys = False

    def __init__(
        self,
        make: Callable[[], BaseEmailBackend],
        *,
        threads: int = 4,
        mails_per_connection: int = 100,
        patience: float = 60.0,
        secrets: Iterable[str] = (),
    ) -> None:
        self.concurrency = threads
        self._make = make
        self._most = mails_per_connection
        self._patience = patience
        self._secrets = tuple(filter(None, secrets))
        self._free: list[Seat[Mailer]] = []
        self._leaving: set[asyncio.Future[None]] = set()

    async def send(self, envelopes: Sequence[Envelope]) -> list[Outcome]:
        """One outcome for each envelope, in order."""
        return [await self._send(envelope) for envelope in envelopes]

    async def _send(self, envelope: Envelope) -> Outcome:
        seat = self._free.pop() if self._free else self._seat()
        try:
            async with asyncio.timeout(self._patience):
                outcome = await seat.run(lambda mailer: mailer.send(envelope))
        except TimeoutError:
            self._vacate(seat)
            return Outcome(Kind.UNKNOWN, text=f"The backend has not come back within {self._patience:g} s.")
        except BaseException:
            self._vacate(seat)
            raise
        self._free.append(seat)  # the last one used is the next: its connection is the least likely to be stale
        return replace(outcome, text=self._scrubbed(outcome.text))

    async def check(self, domains: frozenset[str] = frozenset()) -> list[Finding]:
        """What is wrong as far as opening a connection shows it, a login included where the backend has one. What an
        API thinks of a key shows with the first mail."""
        seat = self._seat(timeout=CHECK_PATIENCE)
        try:
            async with asyncio.timeout(CHECK_PATIENCE):
                failure = await seat.run(Mailer.open)
        except TimeoutError:
            return [Finding(f"The backend has not connected within {CHECK_PATIENCE:g} s.", certain=False)]
        finally:
            self._vacate(seat)
        if failure is None:
            return []
        words = self._scrubbed(f"{failure.code} {failure.text}".strip())
        return [Finding(f"The backend cannot be opened: {words}", certain=failure.kind is Kind.ENGINE)]

    async def close(self) -> None:
        """Ends the connections in order, and the threads; one that hangs in its backend is not waited for any longer
        than GRACE."""
        while self._free:
            self._vacate(self._free.pop())
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=GRACE)

    def _seat(self, timeout: float | None = None) -> Seat[Mailer]:
        # A mail's server is asked several times: the backend's own limit comes first, and says where it stood.
        return Seat(Mailer(self._make, self._most, timeout or self._patience / 2), Mailer.leave)

    def _vacate(self, seat: Seat[Mailer]) -> None:
        seat.vacate()
        self._leaving.add(seat.left)
        seat.left.add_done_callback(self._leaving.discard)

    def _scrubbed(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return text
