"""Shared state in Redis: one atomic script for each question, on the server's clock.

A Redis that was emptied, or lost what it had not written to disk, knows nothing of what went out a moment ago. So a
bucket that it does not know counts as empty, not full, at the instant from which on Redis knows this installation:
limits hold over its restart. Keys go by themselves when they have nothing to say any more.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from delivery.core.breaker import Breaker, State
from delivery.core.condition import Condition
from delivery.core.throttle import Rate, draw
from delivery.shared.base import Change, Drawn, SharedAway

PATIENCE = 5.0  # seconds for an answer
SPACE = "{outreach}"  # the braces keep all keys on one node of a Redis cluster, as one script needs them there

# Lua has no integers beyond 2 ** 53. Counted from 2025 in steps of 100 ns, times stay exact until 2053.
STEP = 100  # nanoseconds
EPOCH = 1_735_689_600  # seconds
_TIME = """
local t = redis.call('TIME')
local now = (t[1] - 1735689600) * 10000000 + t[2] * 10
"""

# The GCRA of `delivery.core.throttle.draw`, for several buckets at once. KEYS: since when Redis knows us, the buckets;
# ARGV: tokens wanted, then interval, burst and toll of each bucket.
DRAW = (
    _TIME
    + """
local since = tonumber(redis.call('GET', KEYS[1]))
if not since then
    since = now
    redis.call('SET', KEYS[1], string.format('%.0f', now))
end
local wanted = tonumber(ARGV[1])
local tokens, wait, starts = wanted, 0, {}
for i = 2, #KEYS do
    local interval, burst, toll = tonumber(ARGV[3 * i - 4]), tonumber(ARGV[3 * i - 3]), tonumber(ARGV[3 * i - 2])
    local state = tonumber(redis.call('GET', KEYS[i])) or (since + burst * interval)
    starts[i] = math.max(state, now)
    if starts[i] > now + 64 * burst * interval + toll + 20000000 then
        starts[i] = now + burst * interval
        redis.call('SET', KEYS[i], string.format('%.0f', starts[i]), 'PX', math.ceil(burst * interval / 10000) + 1)
    end
    local offer = math.max(0, math.min(wanted, math.floor((now + burst * interval - starts[i]) / interval)))
    if offer == 0 then
        wait = math.max(wait, starts[i] + interval - burst * interval - now)
    end
    tokens = math.min(tokens, offer)
end
if tokens == 0 then
    return {0, wait, 0}
end
local answer, more = {tokens, 0, 0}, nil
for i = 2, #KEYS do
    local following = starts[i] + tokens * tonumber(ARGV[3 * i - 4]) + tonumber(ARGV[3 * i - 2])
    redis.call('SET', KEYS[i], string.format('%.0f', following), 'PX', math.ceil((following - now) / 10000) + 1)
    answer[i + 2] = following
    local left = math.floor((now + tonumber(ARGV[3 * i - 3]) * tonumber(ARGV[3 * i - 4]) - following)
        / tonumber(ARGV[3 * i - 4]))
    more = math.max(0, math.min(more or left, left))
end
answer[3] = more
return answer
"""
)

# ARGV: tokens, then for each bucket its interval and the state in which the grant left it. One that has expired is
# full already.
GIVE_BACK = """
for i = 1, #KEYS do
    local state, left = redis.call('GET', KEYS[i]), ARGV[2 * i + 1]
    if state == left then
        local before = tonumber(state) - tonumber(ARGV[1]) * tonumber(ARGV[2 * i])
        redis.call('SET', KEYS[i], string.format('%.0f', before), 'KEEPTTL')
    end
end
"""

SWAP = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then
    return 0
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""


@contextmanager
def _away_said_plainly() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        raise SharedAway(f"Redis: {error}") from error


class RedisShared:
    """See `delivery.shared.base.Shared`."""

    def __init__(self, url: str) -> None:
        # The worker repeats a question whose answer was lost, and says so; the client does not do it behind its back.
        self._redis = redis.Redis.from_url(
            url,
            socket_timeout=PATIENCE,
            socket_connect_timeout=PATIENCE,
            health_check_interval=30,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )
        self._draw = self._redis.register_script(DRAW)
        self._give_back = self._redis.register_script(GIVE_BACK)
        self._swap = self._redis.register_script(SWAP)

    def draw(self, rates: Mapping[str, Rate], wanted: int) -> Drawn:
        if not rates:
            return Drawn(wanted)
        arguments = [n for rate in rates.values() for n in (_steps(rate.interval), rate.burst, _steps(rate.toll))]
        with _away_said_plainly():
            tokens, wait, more, *states = self._draw([f"{SPACE}:since", *map(_bucket, rates)], [wanted, *arguments])
        return Drawn(tokens, wait * STEP, dict(zip(rates, states, strict=False)), more)

    def levels(self, rates: Mapping[str, Rate]) -> dict[str, int]:
        if not rates:
            return {}
        with _away_said_plainly():
            keys = [f"{SPACE}:since", *map(_bucket, rates)]
            (seconds, micros), (since, *states) = self._redis.pipeline(transaction=False).time().mget(keys).execute()
        now = (seconds - EPOCH) * 10_000_000 + micros * 10
        since = now if since is None else int(since)
        found = {}
        for (key, rate), state in zip(rates.items(), states, strict=True):
            in_steps = Rate(_steps(rate.interval), rate.burst, _steps(rate.toll))
            filled_from = since + in_steps.burst * in_steps.interval if state is None else int(state)
            found[key] = draw(in_steps, filled_from, now, rate.burst).tokens
        return found

    def give_back(self, rates: Mapping[str, Rate], left: Mapping[str, int], tokens: int) -> None:
        if rates:
            arguments = [number for key, rate in rates.items() for number in (_steps(rate.interval), left[key])]
            with _away_said_plainly():
                self._give_back(list(map(_bucket, rates)), [tokens, *arguments])

    def conditions(self, engine_ids: Iterable[int]) -> dict[int, Condition]:
        wanted = list(engine_ids)
        with _away_said_plainly():
            texts = self._redis.mget(map(_engine, wanted)) if wanted else []
        return {engine_id: _condition(text or "") for engine_id, text in zip(wanted, texts, strict=True)}

    def change(self, engine_id: int, change: Change) -> bool:
        key = _engine(engine_id)
        while True:
            with _away_said_plainly():
                (seconds, micros), text = self._redis.pipeline(transaction=False).time().get(key).execute()
            before = _condition(text or "")
            after = change(before, datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=micros))
            if after is None or after == before:
                return False
            with _away_said_plainly():
                if self._swap([key], [text or "", _text(after)]):
                    return True

    def current(self, pool_id: int) -> int | None:
        with _away_said_plainly():
            text = self._redis.get(_pool(pool_id))
        return int(text) if text else None

    def move(self, pool_id: int, before: int | None, after: int | None) -> bool:
        with _away_said_plainly():
            return bool(self._swap([_pool(pool_id)], [before or "", after or ""]))

    def close(self) -> None:
        """Ends the connections."""
        self._redis.close()


def _steps(nanoseconds: int) -> int:
    """Rounded up: never faster than allowed."""
    return -(-nanoseconds // STEP)


def _bucket(key: str) -> str:
    return f"{SPACE}:bucket:{key}"


def _engine(engine_id: int) -> str:
    return f"{SPACE}:engine:{engine_id}"


def _pool(pool_id: int) -> str:
    return f"{SPACE}:pool:{pool_id}"


def _text(condition: Condition) -> str:
    breaker = condition.breaker
    return json.dumps(
        {
            "circuit": breaker.state,
            "faults": breaker.faults,
            "cool_off": breaker.cool_off.total_seconds(),
            "probe_at": _written(breaker.probe_at),
            "pace": condition.pace,
            "pace_changed_at": _written(condition.pace_changed_at),
            "paused_until": _written(condition.paused_until),
            "last_error": condition.last_error,
            "last_error_at": _written(condition.last_error_at),
        }
    )


def _condition(text: str) -> Condition:
    if not text:
        return Condition()
    kept = json.loads(text)
    cool_off = timedelta(seconds=kept["cool_off"])
    return Condition(
        breaker=Breaker(State(kept["circuit"]), kept["faults"], cool_off, _read(kept["probe_at"])),
        pace=kept["pace"],
        pace_changed_at=_read(kept["pace_changed_at"]),
        paused_until=_read(kept["paused_until"]),
        last_error=kept["last_error"],
        last_error_at=_read(kept["last_error_at"]),
    )


def _written(at: datetime | None) -> str | None:
    return at.isoformat() if at else None


def _read(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
