"""The SMTP engine: hands envelopes to a server over a pool of kept connections.

Joins the pool to the worker's interface and turns what `check` finds into sentences. How a mail is built is told by
the caller; pace, retries and breakers are the worker's.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import fields, replace

from delivery.core.classify import Stage
from delivery.core.envelope import Envelope, Kind, Outcome
from delivery.engines.base import Finding
from delivery.engines.smtp.connection import IN_FLIGHT, Connection
from delivery.engines.smtp.events import Ended, Finished
from delivery.engines.smtp.handshake import Refusal
from delivery.engines.smtp.opening import certificate_names, farewell, open_connection, tls_context
from delivery.engines.smtp.pool import Job, Pool
from delivery.engines.smtp.settings import SmtpSettings, Timeouts, validate

CHECK_PATIENCE = 15.0  # seconds at each stage: somebody sits in front of the answer


class SmtpEngine:
    """One SMTP server as a way out (see `delivery.engines.base.Engine`).

    `build` gives the octets of a mail, with CRLF line ends, not dot-stuffed. A ValueError from it means that this
    content can be no mail, and becomes a MESSAGE outcome.
    """

    batch_size = 1
    honours_keys = False

    def __init__(self, settings: SmtpSettings, build: Callable[[Envelope], bytes]) -> None:
        self.concurrency = IN_FLIGHT * settings.max_connections
        self._settings = settings
        self._build = build
        self._pool: Pool | None = None

    def groups(self, envelopes: Sequence[Envelope]) -> list[Sequence[Envelope]]:
        """Each alone: a connection carries one after the other."""
        return [[envelope] for envelope in envelopes]

    async def send(self, envelopes: Sequence[Envelope]) -> list[Outcome]:
        """One outcome for each envelope, in order."""
        jobs = [self._submit(envelope) for envelope in envelopes]
        try:
            return [await job for job in jobs]
        except asyncio.CancelledError:
            for job in jobs:
                job.cancel()
            raise

    @property
    def room(self) -> int:
        return self._pool.room if self._pool else 0

    async def more_room(self) -> None:
        if self._pool is None:
            self._pool = Pool(self._settings)
        await self._pool.more_room()

    async def check(self, domains: frozenset[str] = frozenset()) -> list[Finding]:
        """What is wrong with the settings, found by connecting and logging in; [] when all is well. A server says what
        it thinks of a From domain only when it is given a mail."""
        problems = validate(self._settings)
        if problems:
            return [Finding(problem) for problem in problems]
        settings = replace(self._settings, timeouts=_at_most(CHECK_PATIENCE, self._settings.timeouts))
        context = tls_context(settings)
        if isinstance(context, Refusal):
            return [Finding(context.outcome.text)]
        result = await open_connection(settings, _Nobody(), context)
        if isinstance(result, Refusal):
            return [Finding(await _explain(settings, result), certain=result.outcome.kind is Kind.ENGINE)]
        await farewell(result)
        return []

    async def close(self) -> None:
        """Ends the connections in order, within the quit timeout."""
        if self._pool is not None:
            await self._pool.close()
            self._pool = None

    def _submit(self, envelope: Envelope) -> "asyncio.Future[Outcome]":
        if self._pool is None:
            self._pool = Pool(self._settings)
        future = asyncio.get_running_loop().create_future()
        try:
            content = self._build(envelope)
        except ValueError as error:
            future.set_result(Outcome(Kind.MESSAGE, text=f"The mail cannot be built: {error}"))
            return future
        self._pool.submit(Job(envelope.frame.return_path, envelope.recipient.address, content, future))
        return future


class _Nobody:
    """The owner of a connection that carries no mail."""

    def finished(self, connection: Connection, event: Finished) -> None:
        raise AssertionError("nothing was submitted")

    def expired(self, connection: Connection) -> None:
        connection.quit()

    def ended(self, connection: Connection, event: Ended) -> None:
        return


async def _explain(settings: SmtpSettings, refusal: Refusal) -> str:
    """The sentence for the operator."""
    outcome = refusal.outcome
    server = f"{settings.host}:{settings.port}"
    if refusal.stage is None:
        return await _explain_certificate(settings, outcome)
    if not outcome.code:
        return outcome.text if outcome.text.endswith(".") else f"{server}: {outcome.text}."
    words = f"{outcome.code} {outcome.text}".rstrip()
    match refusal.stage:
        case Stage.AUTH:
            return f"{server} refused the login of “{settings.username}”: {words}"
        case Stage.STARTTLS:
            return f"{server} offers STARTTLS but refused it: {words}"
        case Stage.EHLO:
            return f"{server} does not accept how this host announces itself: {words}"
        case _:
            return f"{server} does not take mail from this host: {words}"


async def _explain_certificate(settings: SmtpSettings, outcome: Outcome) -> str:
    """The outcome's own sentence; where only the certificate's name is wrong, with the names that it has."""
    if "mismatch" not in outcome.text:
        return outcome.text
    names = await certificate_names(settings, _Nobody())
    return f"{outcome.text} It is valid for {', '.join(names)}." if names else outcome.text


def _at_most(seconds: float, timeouts: Timeouts) -> Timeouts:
    return Timeouts(**{each.name: min(seconds, getattr(timeouts, each.name)) for each in fields(timeouts)})
