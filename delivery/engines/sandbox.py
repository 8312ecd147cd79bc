"""An engine that accepts everything, sends nothing, and keeps each mail to look at."""

import asyncio
from collections.abc import Sequence

from django import forms
from django.db import connection

from delivery.core.envelope import Envelope, Kind, Outcome
from delivery.engines.base import Connectionless, Finding
from delivery.engines.kind import EngineKind, Options, Secrets
from delivery.mime import Builder
from delivery.models import KeptMail
from delivery.queue.dialect import DatabaseAway


class SandboxEngine(Connectionless):
    """Writes mails to the database."""

    batch_size = 100
    concurrency = 2
    honours_keys = True

    def __init__(self, engine_id: int) -> None:
        self._engine = engine_id
        self._build = Builder()

    def groups(self, envelopes: Sequence[Envelope]) -> list[Sequence[Envelope]]:
        return [envelopes]

    async def send(self, envelopes: Sequence[Envelope]) -> list[Outcome]:
        mails = [
            KeptMail(
                engine_id=self._engine,
                key=envelope.key,
                recipient=envelope.recipient.address,
                subject=envelope.subject,
                raw=self._build(envelope),
            )
            for envelope in envelopes
        ]
        try:
            await asyncio.to_thread(_keep, mails)
        except DatabaseAway as error:
            return [Outcome(Kind.TRANSIENT, text=f"could not be kept: {error}")] * len(envelopes)
        return [Outcome(Kind.ACCEPTED, text="kept in the sandbox", provider_id=mail.key) for mail in mails]

    async def check(self, domains: frozenset[str] = frozenset()) -> list[Finding]:
        return []

    async def close(self) -> None:
        """Holds nothing open."""


def _keep(mails: list[KeptMail]) -> None:
    try:
        KeptMail.objects.bulk_create(mails, ignore_conflicts=True)
    finally:
        connection.close()  # this thread belongs to nobody, and nobody else would close its connection


def _fields() -> dict[str, forms.Field]:
    return {}


def _problems(options: Options, secrets: Secrets) -> list[str]:
    return []


def _open(engine_id: int, options: Options, secrets: Secrets) -> SandboxEngine:
    return SandboxEngine(engine_id)


KIND = EngineKind(
    "sandbox",
    "Sandbox",
    _fields,
    frozenset(),
    _problems,
    _open,
    hint="Sends nothing. Keeps every mail to look at: good to begin with.",
)
