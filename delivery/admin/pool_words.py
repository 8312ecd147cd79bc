"""Pools in an operator's words: which engine gets how much, and what the retry settings come to."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from delivery.core.failover import Strategy
from delivery.core.retry import FULL, NONE, Growth, Jitter, RetryRule
from delivery.models import PoolMember

LISTED_WAITS = 6
UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def engines_in_order(members: Sequence[PoolMember], strategy: str) -> str:
    """The engines as the strategy uses them: in order, or with their shares."""
    if strategy != Strategy.WEIGHTED:
        return " → ".join(member.engine.name for member in members)
    return ", ".join(f"{member.engine.name} {share(member, members)}" for member in members)


def share(member: PoolMember, members: Sequence[PoolMember]) -> str:
    """An engine's part of the mails while all are able."""
    if not member.weight:
        return "only in need"
    return f"{member.weight / sum(each.weight for each in members):.0%}"


def waits(rule: RetryRule) -> str:
    """The waits between the tries, as far as chance does not change them."""
    if rule.max_attempts == 1:
        return "There is one try, and no wait."
    if rule.backoff.growth is Growth.IMMEDIATE:
        return f"{rule.max_attempts} tries, one at once after the other."
    steady = replace(rule.backoff, jitter=NONE)
    tries = range(1, rule.max_attempts)
    listed = [duration(steady.wait(number, random.Random(0))) for number in tries[:LISTED_WAITS]]  # noqa: S311
    more = f" and {len(tries) - LISTED_WAITS} more" if len(tries) > LISTED_WAITS else ""
    return f"{', '.join(listed)}{more}{_chance(rule.backoff.jitter)}"


def _chance(jitter: Jitter) -> str:
    if jitter == NONE:
        return ""
    if jitter == FULL:
        return "; chance makes each anything from nothing to that"
    return f"; chance makes each up to {round(100 * (jitter.high - 1))}% shorter or longer"


def duration(wait: timedelta) -> str:
    """A wait in its two largest units."""
    left = round(wait.total_seconds())
    parts = []
    for seconds, unit in UNITS:
        if count := left // seconds:
            parts.append(f"{count} {unit}")
            left -= count * seconds
    return " ".join(parts[:2]) or "0 s"
