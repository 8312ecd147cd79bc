"""A vendor by script: how fast it answers, how often it errs, when it is down. The same seed, the same vendor.

Decides what a scripted vendor answers to the next mail; time is an argument, and the chance that is part of the script
is drawn from a generator seeded with its name. Knows no engine and no loop. See `VendorScript.read` for how scripts are
written.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from hashlib import blake2b

from delivery.core.envelope import Kind, Outcome
from delivery.core.throttle import Period, Rate, draw

SECOND = 1_000_000_000  # nanoseconds
EXAMPLE = "name:rate=100/s,burst=20,latency=80ms,errors=1%,down=60s-180s"

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_RATE = re.compile(r"(\d{1,9})/(s|m|h|d)")
_SHARE = re.compile(r"(\d+(?:\.\d+)?)(%?)")
_PERIODS = {"s": Period.SECOND, "m": Period.MINUTE, "h": Period.HOUR, "d": Period.DAY}
_LONGEST = 365 * _UNITS["d"]  # far from where the calendar ends
_MOST_AT_ONCE = 10_000  # each call under way costs a task, each mail of a call its memory
_SEVERAL = ("down", "locked")  # may come more than once


class ScriptProblem(ValueError):
    """The script cannot be read; the message says where and shows a good one."""


@dataclass(frozen=True, slots=True)
class Span:
    """From one time after the beginning to another, in nanoseconds; the end is not part of it."""

    begin: int
    end: int

    def holds(self, at: int) -> bool:
        return self.begin <= at < self.end


@dataclass(frozen=True, slots=True)
class VendorScript:
    """One scripted vendor.

    `rate` is the vendor's own limit, which it enforces: what comes faster is told to slow down. `latency` is how long
    an answer takes, give or take `spread`, a share of it. `errors`, `rejects`, `slow` and `drops` are shares of the
    mails: answered with a transient error; refused for the recipient's sake; told to slow down for no visible reason;
    and answered with silence, half of them after they were taken. In the spans of `down` every call fails, in those of
    `locked` it is refused as by a wrong password. `batch` mails go in one call, `concurrency` calls at once. With
    `keys` the vendor takes the same idempotency key only once.
    """

    name: str
    rate: Rate | None = None
    latency: timedelta = timedelta()
    spread: float = 0.0
    errors: float = 0.0
    rejects: float = 0.0
    slow: float = 0.0
    drops: float = 0.0
    down: tuple[Span, ...] = ()
    locked: tuple[Span, ...] = ()
    batch: int = 1
    concurrency: int = 100
    weight: int = 1
    keys: bool = False

    @classmethod
    def read(cls, text: str) -> "VendorScript":
        """A script such as `name:rate=100/s,burst=20,latency=80ms,errors=1%,down=60s-180s`.

        Settings are parted by commas; `down` and `locked` may come several times. Raises ScriptProblem.
        """
        name, _, settings = text.strip().partition(":")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}", name):
            raise ScriptProblem(f"{text!r} does not begin with a vendor's name: write it like {EXAMPLE}.")
        script, burst, seen = cls(name), None, set()
        for setting in filter(None, (part.strip() for part in settings.split(","))):
            key, equals, value = setting.partition("=")
            if key in seen and key not in _SEVERAL:
                raise ScriptProblem(f"{name}: {key} comes twice; keep one of them.")
            seen.add(key)
            if key == "burst":
                burst = _whole(name, key, value)
            elif key in _SETTINGS and equals:
                script = _SETTINGS[key](script, value)
            else:
                known = ", ".join(sorted([*_SETTINGS, "burst"]))
                raise ScriptProblem(f"{name}: {setting!r} is no setting; known are {known}.")
        if burst is not None:
            if script.rate is None:
                raise ScriptProblem(f"{name}: a burst needs a rate beside it, such as rate=100/s,burst=20.")
            script = replace(script, rate=Rate(script.rate.interval, burst))
        if script.errors + script.slow + script.drops > 1 + 1e-9:
            raise ScriptProblem(f"{name}: errors, slow and drops are shares of one whole: together at most 100%.")
        return script


def _whole(name: str, key: str, value: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,8}", value):
        raise ScriptProblem(f"{name}: {key} must be a whole number from 1 on, not {value!r}.")
    if key in ("batch", "concurrency") and int(value) > _MOST_AT_ONCE:
        raise ScriptProblem(f"{name}: {key} must be at most {_MOST_AT_ONCE:,}, not {value}.")
    return int(value)


def _nanoseconds(name: str, value: str, example: str) -> int:
    match = _DURATION.fullmatch(value)
    if match is None:
        raise ScriptProblem(f"{name}: {value!r} is no duration; write it like {example}.")
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds > _LONGEST:
        raise ScriptProblem(f"{name}: {value!r} is longer than a year; write it like {example}.")
    return round(seconds * SECOND)


def _share(name: str, key: str, value: str) -> float:
    match = _SHARE.fullmatch(value)
    share = float(match[1]) / (100 if match[2] else 1) if match else 2
    if not 0 <= share <= 1:
        raise ScriptProblem(f"{name}: {key} must be a share such as 1% or 0.01, not {value!r}.")
    return share


def _reading_share(key: str) -> Callable[[VendorScript, str], VendorScript]:
    return lambda script, value: replace(script, **{key: _share(script.name, key, value)})


def _reading_whole(key: str) -> Callable[[VendorScript, str], VendorScript]:
    return lambda script, value: replace(script, **{key: _whole(script.name, key, value)})


def _reading_span(key: str) -> Callable[[VendorScript, str], VendorScript]:
    def read(script: VendorScript, value: str) -> VendorScript:
        begin, _, end = value.partition("-")
        example = f"{key}=60s-180s"
        span = Span(_nanoseconds(script.name, begin, example), _nanoseconds(script.name, end, example))
        if span.end <= span.begin:
            raise ScriptProblem(f"{script.name}: {key}={value} ends before it begins; write it like {example}.")
        return replace(script, **{key: (*getattr(script, key), span)})

    return read


def _read_rate(script: VendorScript, value: str) -> VendorScript:
    match = _RATE.fullmatch(value)
    if match is None or int(match[1]) < 1:
        raise ScriptProblem(f"{script.name}: {value!r} is no rate; write it like 100/s, 3000/m or 50000/d.")
    return replace(script, rate=Rate.of(int(match[1]), _PERIODS[match[2]]))


def _read_latency(script: VendorScript, value: str) -> VendorScript:
    nanoseconds = _nanoseconds(script.name, value, "latency=80ms")
    return replace(script, latency=timedelta(microseconds=nanoseconds // 1000))


def _read_keys(script: VendorScript, value: str) -> VendorScript:
    if value not in ("yes", "no"):
        raise ScriptProblem(f"{script.name}: keys must be yes or no, not {value!r}.")
    return replace(script, keys=value == "yes")


_SETTINGS: dict[str, Callable[[VendorScript, str], VendorScript]] = {
    "rate": _read_rate,
    "latency": _read_latency,
    **{key: _reading_share(key) for key in ("spread", "errors", "rejects", "slow", "drops")},
    **{key: _reading_span(key) for key in ("down", "locked")},
    **{key: _reading_whole(key) for key in ("batch", "concurrency", "weight")},
    "keys": _read_keys,
}

ACCEPTED = Outcome(Kind.ACCEPTED, "250", "taken")
DOWN = Outcome(Kind.TRANSIENT, "503", "down by script")
LOCKED = Outcome(Kind.ENGINE, "401", "locked by script")
ERROR = Outcome(Kind.TRANSIENT, "500", "error by script")
REJECTED = Outcome(Kind.RECIPIENT, "550 5.1.1", "no such user, by script", hard=True)
SLOW = Outcome(Kind.THROTTLED, "429", "slow down, by script", retry_after=timedelta(seconds=1))
SILENCE = Outcome(Kind.UNKNOWN, "", "silence by script")


@dataclass(slots=True)
class Vendor:
    """A vendor at work: what it answers, and what it has taken. `began` is the time of its script's beginning."""

    script: VendorScript
    rng: random.Random
    began: int = 0
    counts: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))
    taken: int = 0  # also what it answered with silence
    _bucket: int = 0
    _keys: set[str] = field(default_factory=set)
    _latency: float = field(init=False)

    def __post_init__(self) -> None:
        self._latency = self.script.latency.total_seconds()

    def answer(self, key: str, now: int) -> tuple[Outcome, bool]:
        """What comes of a mail that arrives at `now` (in nanoseconds), and whether the vendor took it."""
        outcome, taken = self._answer(key, now)
        self.counts[outcome.kind] += 1
        self.taken += taken
        return outcome, taken

    def delay(self) -> float:
        """How long the next answer takes, in seconds."""
        if not self.script.spread:
            return self._latency
        return self._latency * (1 + self.script.spread * self.rng.uniform(-1, 1))

    def _answer(self, key: str, now: int) -> tuple[Outcome, bool]:
        script, at = self.script, now - self.began
        for span in script.down:
            if span.begin <= at < span.end:
                return DOWN, False
        for span in script.locked:
            if span.begin <= at < span.end:
                return LOCKED, False
        if script.rate is not None:
            grant = draw(script.rate, self._bucket, now, 1)
            if not grant.tokens:
                return SLOW, False
            self._bucket = grant.state
        # A recipient is refused for good: by each vendor, on every try.
        if script.rejects and _lot(key) < script.rejects:
            return REJECTED, False
        return self._by_chance(key)

    def _by_chance(self, key: str) -> tuple[Outcome, bool]:
        script = self.script
        chance = self.rng.random()
        if chance < script.errors:
            return ERROR, False
        if chance < script.errors + script.slow:
            return SLOW, False
        if chance < script.errors + script.slow + script.drops:
            return SILENCE, self.rng.random() < 0.5 and self._take(key)
        return ACCEPTED, self._take(key)

    def _take(self, key: str) -> bool:
        """Takes a mail; False when this very key was taken before and the vendor minds keys."""
        if self.script.keys:
            if key in self._keys:
                return False
            self._keys.add(key)
        return True


def _lot(key: str) -> float:
    """A number from 0 to 1 that belongs to this key for ever."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest()) / 2**64
