"""The one interface between the worker and every way out.

An engine knows how to hand envelopes over and how to read the answer. It does not know the queue, the throttle, the
breaker or the retry policy, and it never retries by itself what a server has refused: it reports an Outcome.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from delivery.core.envelope import Envelope, Outcome


class Finding(NamedTuple):
    """Something wrong with an engine's settings, as one sentence for the operator. `certain`: the provider said so;
    else it could not be asked, or did not want to tell."""

    words: str
    certain: bool = True


class Engine(Protocol):
    """One way out, opened lazily on first use, living in one event loop.

    `batch_size`: how many envelopes one `send` may carry. `concurrency`: how many `send` calls may be under way at
    once. `honours_keys`: the provider refuses to take the same idempotency key twice, so that an UNKNOWN outcome may
    be tried again there without a double.
    """

    batch_size: int
    concurrency: int
    honours_keys: bool

    def groups(self, envelopes: Sequence[Envelope]) -> Iterable[Sequence[Envelope]]:
        """These envelopes as they may go together, in one call each. Asked only where `batch_size` is more than 1."""
        ...

    async def send(self, envelopes: Sequence[Envelope]) -> list[Outcome]:
        """One outcome for each envelope, in order. Raises nothing but `asyncio.CancelledError`: every fault of the
        provider or the network is an Outcome. A `shared` one for each of several envelopes says that one of them spoilt
        the call for all: the worker sends smaller batches until it is found."""
        ...

    @property
    def room(self) -> int:
        """How many more `send` calls would go out at once, or be refused at once. A worker that keeps to a limit waits
        for room before it takes a token: the token would be stale when a connection is there."""
        ...

    async def more_room(self) -> None:
        """Connects if need be, and returns when there may be more room."""
        ...

    async def check(self, domains: frozenset[str]) -> list[Finding]:
        """What is wrong with the settings, found by talking to the provider without sending a mail; [] when all is
        well. `domains`: the From domains that the engine is to send for, as far as they are known."""
        ...

    async def close(self) -> None:
        """Ends the connections in order. Called once, with no `send` under way."""
        ...


class Connectionless:
    """For engines that have no connection to wait for."""

    room = 1_000_000

    async def more_room(self) -> None:
        return
