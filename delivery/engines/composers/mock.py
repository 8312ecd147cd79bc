"""A composer that asks nobody: it waits as long as a model would, and writes by a seed. For tests and demos."""

import asyncio
import random

from django import forms

from delivery.core.envelope import Kind, Outcome
from delivery.engines.api_fields import out_of_range
from delivery.engines.base import Finding
from delivery.engines.composers.base import Composed, Prompt
from delivery.engines.composers.written import written
from delivery.engines.kind import EngineKind, Options, Secrets

SHORTEST, LONGEST = 0.4, 0.6  # seconds
CONCURRENCY = 16
QUOTED = 200  # characters of the prompt

_OPENINGS = (
    "Good to have you with us.",
    "A short note for you today.",
    "Thank you for being here.",
    "Here is our news.",
)
_MIDDLES = (
    "We looked at what you care about and picked the best of it.",
    "There is something new that we think you will like.",
    "It takes a minute to read, and we hope that it is worth it.",
    "Nothing needs to be done; have a look when you find the time.",
)
_CLOSINGS = ("Write back whenever you like.", "Until next time.", "With kind regards.", "Have a good week.")


class MockComposer:
    """See `delivery.engines.composers.base.Composer`. The same seed, prompt and key get the same words, the same delay
    and the same luck, in whatever order they come. `failures`: the share that fails, as a busy service would."""

    def __init__(
        self,
        seed: str = "1",
        *,
        shortest: float = SHORTEST,
        longest: float = LONGEST,
        concurrency: int = CONCURRENCY,
        failures: float = 0.0,
    ) -> None:
        self.concurrency = concurrency
        self._seed = seed
        self._delays = shortest, longest
        self._failures = failures

    async def compose(self, prompt: Prompt) -> Composed:
        rng = random.Random(f"{self._seed}\n{prompt.key}\n{prompt.user}")  # noqa: S311  (not for secrets)
        await asyncio.sleep(rng.uniform(*self._delays))
        if rng.random() < self._failures:
            return Composed(Outcome(Kind.TRANSIENT, "503", "A scripted failure of the mock composer."))
        asked = " ".join(prompt.user.split())
        asked = asked if len(asked) <= QUOTED else asked[: QUOTED - 1] + "…"
        body = f"{rng.choice(_OPENINGS)}\n\n{rng.choice(_MIDDLES)} {rng.choice(_CLOSINGS)}\n\n(Composed for: {asked})"
        return written(body, "200")

    async def check(self, domains: frozenset[str] = frozenset()) -> list[Finding]:
        return []

    async def close(self) -> None:
        """Holds nothing open."""


def _fields() -> dict[str, forms.Field]:
    delay = {"min_value": 0, "max_value": 60, "required": False}
    return {
        "seed": forms.CharField(
            label="Seed", max_length=100, initial="1", required=False, help_text="The same seed, the same words."
        ),
        "shortest_seconds": forms.FloatField(
            label="Quickest answer (seconds)", initial=SHORTEST, help_text="Such as 0.4.", **delay
        ),
        "longest_seconds": forms.FloatField(
            label="Slowest answer (seconds)", initial=LONGEST, help_text="Such as 0.6.", **delay
        ),
        "failure_percent": forms.IntegerField(
            label="Failures (percent)",
            min_value=0,
            max_value=100,
            initial=0,
            required=False,
            help_text="So many of a hundred answers are a “503, busy”, by chance and by the seed.",
        ),
        "concurrency": forms.IntegerField(
            label="Calls at once",
            min_value=1,
            max_value=500,
            initial=CONCURRENCY,
            required=False,
            help_text="How many may be under way at the same time, for each worker process.",
        ),
    }


def _problems(options: Options, secrets: Secrets) -> list[str]:
    problems = out_of_range(options, "concurrency", 1, 500) + out_of_range(options, "failure_percent", 0, 100)
    for name in ("shortest_seconds", "longest_seconds"):
        value = options.get(name)
        if value is not None and not (isinstance(value, int | float) and 0 <= value <= 60):
            problems.append(f"The setting {name.replace('_', ' ')} must be between 0 and 60, not {value}.")
    if not problems:
        shortest, longest = _delays(options)
        if shortest > longest:
            problems.append(f"The quickest answer ({shortest:g} s) takes longer than the slowest ({longest:g} s).")
    return problems


def _delays(options: Options) -> tuple[float, float]:
    shortest, longest = options.get("shortest_seconds"), options.get("longest_seconds")
    return (
        SHORTEST if shortest is None else float(shortest),  # type: ignore[arg-type]
        LONGEST if longest is None else float(longest),  # type: ignore[arg-type]
    )


def _open(engine_id: int, options: Options, secrets: Secrets) -> MockComposer:
    shortest, longest = _delays(options)
    return MockComposer(
        str(options.get("seed") or 1),
        shortest=shortest,
        longest=longest,
        concurrency=int(options.get("concurrency") or CONCURRENCY),  # type: ignore[call-overload]
        failures=int(options.get("failure_percent") or 0) / 100,  # type: ignore[call-overload]
    )


KIND = EngineKind(
    "mock_composer",
    "Mock composer",
    _fields,
    frozenset(),
    _problems,
    _open,
    hint="Sends nothing and asks nobody. Writes the text of a step by a seed, in half a second: for tests and demos.",
    composes=True,
)
