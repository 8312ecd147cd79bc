"""An engine that follows a script: so fast, so faulty, down from then to then. For tests, demonstrations and the
simulator; it sends nothing."""

import asyncio
import random
from collections.abc import Callable, Sequence

from django import forms

from delivery.clock import SYSTEM, Clock
from delivery.core.envelope import Envelope, Outcome
from delivery.core.script import EXAMPLE, ScriptProblem, Vendor, VendorScript
from delivery.engines.base import Connectionless, Finding
from delivery.engines.kind import EngineKind, Options, Secrets

# What a vendor took: the key, and the monotonic time in nanoseconds.
Taken = Callable[[str, int], None]


class ScriptedEngine(Connectionless):
    """A scripted vendor as a way out (see `delivery.engines.base.Engine`). `taken` hears of every mail it took, also of
    those that it answered with silence."""

    def __init__(self, vendor: Vendor, clock: Clock = SYSTEM, taken: Taken | None = None) -> None:
        self.batch_size = vendor.script.batch
        self.concurrency = vendor.script.concurrency
        self.honours_keys = vendor.script.keys
        self._vendor = vendor
        self._clock = clock
        self._taken = taken

    def groups(self, envelopes: Sequence[Envelope]) -> list[Sequence[Envelope]]:
        return [envelopes]

    async def send(self, envelopes: Sequence[Envelope]) -> list[Outcome]:
        """The outcomes are decided when the mails arrive, and told when the script's latency is over."""
        now = self._clock.monotonic_ns()
        outcomes = [self._arrive(envelope.key, now) for envelope in envelopes]
        await asyncio.sleep(self._vendor.delay())
        return outcomes

    def _arrive(self, key: str, now: int) -> Outcome:
        outcome, taken = self._vendor.answer(key, now)
        if taken and self._taken:
            self._taken(key, now)
        return outcome

    async def check(self, domains: frozenset[str] = frozenset()) -> list[Finding]:
        return []

    async def close(self) -> None:
        """Holds nothing open."""


def _fields() -> dict[str, forms.Field]:
    return {
        "script": forms.CharField(
            label="Script", max_length=1000, help_text=f"Such as {EXAMPLE}. Times count from when a worker opens it."
        ),
        "seed": forms.CharField(
            label="Seed", max_length=100, initial="1", required=False, help_text="The same seed, the same chance."
        ),
    }


def _problems(options: Options, secrets: Secrets) -> list[str]:
    try:
        VendorScript.read(str(options.get("script") or ""))
    except ScriptProblem as problem:
        return [str(problem)]
    return []


def _open(engine_id: int, options: Options, secrets: Secrets) -> ScriptedEngine:
    rng = random.Random(f"{options.get('seed') or 1} {engine_id}")  # noqa: S311  (not for secrets)
    return ScriptedEngine(Vendor(VendorScript.read(str(options["script"])), rng, SYSTEM.monotonic_ns()))


KIND = EngineKind(
    "scripted",
    "Scripted",
    _fields,
    frozenset(),
    _problems,
    _open,
    hint="Sends nothing. So fast and so faulty as a script says: for tests and demonstrations.",
)
